package main

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"letshare/ably"
)

// channelName is a channel's name as a client writes it, taken apart.
type channelName struct {
	room   string            // the name proper, which is the room's; with [meta] in front of what the server itself speaks on
	params map[string]string // of the qualifier [?k=v&…]; nil without one
	filter string            // of the qualifier [filter=…], in base64; "" without one
}

// parseChannelName takes a name apart. Names are case-sensitive, not empty, without a line break, and begin neither with a
// colon nor with a bracket, but for that of a qualifier: [?k=v], [filter=BASE64], [filter=BASE64?k=v], [meta], [meta?k=v].
func parseChannelName(name string) (channelName, bool) {
	c := channelName{room: name}
	if rest, ok := strings.CutPrefix(name, "["); ok {
		qualifier, proper, closed := strings.Cut(rest, "]")
		kind, query, asks := strings.Cut(qualifier, "?")
		values, err := url.ParseQuery(query)
		if !closed || err != nil {
			return c, false
		}
		if asks {
			c.params = make(map[string]string)
		}
		for key := range values {
			c.params[key] = values.Get(key)
		}
		if kind == "meta" {
			c.room = metaPrefix + proper
			return c, c.room == metaLifecycle || c.room == metaStats
		}
		filter, filtered := strings.CutPrefix(kind, "filter=")
		if filtered == (filter == "") || !filtered && (kind != "" || !asks) {
			return c, false
		}
		c.room, c.filter = proper, filter
	}
	ok := c.room != "" && len(c.room) <= maxAblyChannelBytes && c.room[0] != ':' && c.room[0] != '[' && !strings.ContainsAny(c.room, "\r\n")
	return c, ok
}

// rewind is how much of a channel's past a client wants at its first attaching. The zero value is none.
type rewind struct {
	count  int           // the newest so many messages; 0: any number
	period time.Duration // those of so long ago; 0: any time
}

// parseRewind reads "10", "15s" or "2m", and the limit that goes with a time.
func parseRewind(text, limit string) (r rewind, ok bool) {
	number, unit := text, time.Duration(0)
	if rest, found := strings.CutSuffix(text, "s"); found {
		number, unit = rest, time.Second
	} else if rest, found := strings.CutSuffix(text, "m"); found {
		number, unit = rest, time.Minute
	} else if rest, found := strings.CutSuffix(text, "h"); found {
		number, unit = rest, time.Hour
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 || n > maxRewind {
		return rewind{}, false
	}
	if unit == 0 {
		return rewind{count: n}, true
	}
	r.period = time.Duration(n) * unit
	if limit != "" {
		r.count, err = strconv.Atoi(limit)
	}
	return r, err == nil && r.count >= 0
}

// ablyModes are the modes by the names that params.modes gives them.
var ablyModes = map[string]uint64{
	"presence":             ably.ModePresence,
	"publish":              ably.ModePublish,
	"subscribe":            ably.ModeSubscribe,
	"presence_subscribe":   ably.ModePresenceSubscribe,
	"annotation_publish":   ably.ModeAnnotationPublish,
	"annotation_subscribe": ably.ModeAnnotationSubscribe,
	"object_subscribe":     ably.ModeObjectSubscribe,
	"object_publish":       ably.ModeObjectPublish,
}

// ablyDefaultModes are those of an attachment that asks for none in particular. Annotations are heard, and objects shared,
// by those only who ask for it.
const ablyDefaultModes = ably.ModePresence | ably.ModePublish | ably.ModeSubscribe | ably.ModePresenceSubscribe | ably.ModeAnnotationPublish

// parseModes reads the comma-separated list of params.modes.
func parseModes(text string) (modes uint64, ok bool) {
	for name := range strings.SplitSeq(text, ",") {
		mode, known := ablyModes[strings.TrimSpace(name)]
		if !known {
			return 0, false
		}
		modes |= mode
	}
	return modes, true
}

// modesText is the list of modes as params.modes has it, in the order of their bits.
func modesText(modes uint64) string {
	names := slices.Collect(maps.Keys(ablyModes))
	names = slices.DeleteFunc(names, func(name string) bool { return modes&ablyModes[name] == 0 })
	slices.SortFunc(names, func(a, b string) int { return int(ablyModes[a]>>16) - int(ablyModes[b]>>16) })
	return strings.Join(names, ",")
}

// modesFor is what a capability grants of the modes on a channel.
func modesFor(ops ablyOps) (modes uint64) {
	for op, granted := range map[ablyOp]uint64{
		ablyOpPublish:             ably.ModePublish,
		ablyOpSubscribe:           ably.ModeSubscribe | ably.ModePresenceSubscribe,
		ablyOpPresence:            ably.ModePresence,
		ablyOpAnnotationPublish:   ably.ModeAnnotationPublish,
		ablyOpAnnotationSubscribe: ably.ModeAnnotationSubscribe,
		ablyOpObjectPublish:       ably.ModeObjectPublish,
		ablyOpObjectSubscribe:     ably.ModeObjectSubscribe,
	} {
		if ops.has(op) {
			modes |= granted
		}
	}
	return modes
}

// readAttach reads what an ATTACH wants: the modes it asks for (0: the default ones) and the rest. The qualifier's params
// count like those of the message, which come first.
func readAttach(m *ably.ProtocolMessage, name channelName) (asked uint64, wishes attachWishes, failure *ably.ErrorInfo) {
	param := func(key string) string {
		if value, given := m.Params[key]; given {
			return value
		}
		return name.params[key]
	}
	asked = m.Flags & ably.ModeAll
	wishes.serial = m.ChannelSerial
	wishes.params = make(map[string]string)
	if text := param("modes"); text != "" {
		modes, ok := parseModes(text)
		if !ok {
			return 0, wishes, errAblyBadParams
		}
		asked = modes
		wishes.params["modes"] = text // rewritten to what is granted
	}
	if text := param("rewind"); text != "" {
		how, ok := parseRewind(text, param("rewindLimit"))
		if !ok {
			return 0, wishes, errAblyBadParams
		}
		if m.Flags&ably.FlagAttachResume == 0 {
			wishes.rewind = how
		}
		wishes.params["rewind"] = text
	}
	if text := param("occupancy"); text != "" {
		metrics, ok := parseOccupancy(text)
		if !ok {
			return 0, wishes, errAblyBadParams
		}
		wishes.occupancy = metrics
		wishes.params["occupancy"] = text
	}
	if name.filter != "" {
		var err error
		if wishes.filter, err = parseAblyFilter(name.filter); err != nil {
			return 0, wishes, errAblyBadFilter
		}
	}
	if text := param("delta"); text != "" && text != "vcdiff" {
		return 0, wishes, errAblyBadParams
	}
	return asked, wishes, nil
}
