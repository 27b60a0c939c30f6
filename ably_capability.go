package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"letshare/ably"
)

// ablyOp is an operation that a capability grants on channels.
type ablyOp uint8

// The operations of Ably's list. Each is a bit of ablyOps.
const (
	ablyOpSubscribe ablyOp = iota // receive messages and presence, read the presence set
	ablyOpPublish
	ablyOpPresence // enter the presence set
	ablyOpHistory
	ablyOpStats
	ablyOpChannelMetadata // status and enumeration of channels
	ablyOpPushSubscribe
	ablyOpPushAdmin
	ablyOpAnnotationSubscribe
	ablyOpAnnotationPublish
	ablyOpObjectSubscribe
	ablyOpObjectPublish
	ablyOpMessageUpdateOwn
	ablyOpMessageUpdateAny
	ablyOpMessageDeleteOwn
	ablyOpMessageDeleteAny
	ablyOpPrivilegedHeaders
	ablyOpCount
)

// ablyOpNames are the operations as capabilities spell them.
var ablyOpNames = [ablyOpCount]string{
	ablyOpSubscribe:           "subscribe",
	ablyOpPublish:             "publish",
	ablyOpPresence:            "presence",
	ablyOpHistory:             "history",
	ablyOpStats:               "stats",
	ablyOpChannelMetadata:     "channel-metadata",
	ablyOpPushSubscribe:       "push-subscribe",
	ablyOpPushAdmin:           "push-admin",
	ablyOpAnnotationSubscribe: "annotation-subscribe",
	ablyOpAnnotationPublish:   "annotation-publish",
	ablyOpObjectSubscribe:     "object-subscribe",
	ablyOpObjectPublish:       "object-publish",
	ablyOpMessageUpdateOwn:    "message-update-own",
	ablyOpMessageUpdateAny:    "message-update-any",
	ablyOpMessageDeleteOwn:    "message-delete-own",
	ablyOpMessageDeleteAny:    "message-delete-any",
	ablyOpPrivilegedHeaders:   "privileged-headers",
}

// ablyOps is a set of operations.
type ablyOps uint32

// ablyAllOps is what "*" grants.
const ablyAllOps ablyOps = 1<<ablyOpCount - 1

// has says whether the operation is in the set.
func (s ablyOps) has(op ablyOp) bool { return s>>op&1 != 0 }

// names returns the operations in alphabetical order, all of them as "*".
func (s ablyOps) names() []string {
	if s == ablyAllOps {
		return []string{"*"}
	}
	var names []string
	for op, name := range ablyOpNames {
		if s.has(ablyOp(op)) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// ablyCapability says which operations are granted on which channels: a channel has what all resources that match it grant
// together. Immutable; any goroutine may call its methods, and identities share it.
type ablyCapability struct {
	ordinary ablyOps    // granted on every ordinary channel, by "*"
	rules    []ablyRule // all of them, by resource
	text     string     // compact JSON, resources in alphabetical order
}

// ablyRule grants operations on the channels that a resource matches.
type ablyRule struct {
	resource ablyPattern
	ops      ablyOps
}

// errAblyCapability is the answer to a capability that cannot be read, for whatever reason.
func errAblyCapability(why string) *ably.ErrorInfo {
	return &ably.ErrorInfo{Code: 40000, StatusCode: http.StatusBadRequest, Message: "invalid capability: " + why}
}

// parseAblyCapability reads the JSON text of a capability, {"resource": ["operation", …], …}. {} grants nothing.
func parseAblyCapability(text string) (*ablyCapability, *ably.ErrorInfo) {
	if len(text) > maxAblyCapabilityBytes {
		return nil, errAblyCapability("it is too long")
	}
	if !utf8.ValidString(text) || !json.Valid([]byte(text)) {
		return nil, errAblyCapability("it is not valid JSON")
	}
	dec := json.NewDecoder(strings.NewReader(text))
	if token, _ := dec.Token(); token != json.Delim('{') {
		return nil, errAblyCapability("it is not an object")
	}
	listed := make(map[string][]string)
	for dec.More() {
		token, _ := dec.Token() // the text is valid JSON: no call here fails
		resource := token.(string)
		if _, twice := listed[resource]; twice {
			return nil, errAblyCapability("a resource stands there twice")
		}
		var ops []string
		if err := dec.Decode(&ops); err != nil {
			return nil, errAblyCapability("the operations of a resource are not a list of strings")
		}
		listed[resource] = ops
	}
	return newAblyCapability(listed)
}

// newAblyCapability makes a capability of operations by resource. Its text keeps the operations in the order given.
func newAblyCapability(listed map[string][]string) (*ablyCapability, *ably.ErrorInfo) {
	if len(listed) > maxAblyResources {
		return nil, errAblyCapability("it has too many resources")
	}
	rules := make([]ablyRule, 0, len(listed))
	for name, ops := range listed {
		resource, problem := parseAblyPattern(name)
		if problem != "" {
			return nil, errAblyCapability(problem)
		}
		set, problem := parseAblyOps(ops)
		if problem != "" {
			return nil, errAblyCapability(problem)
		}
		rules = append(rules, ablyRule{resource, set})
	}
	return makeAblyCapability(rules, listed), nil
}

// makeAblyCapability puts rules in their order. listed is what they are written as.
func makeAblyCapability(rules []ablyRule, listed map[string][]string) *ablyCapability {
	slices.SortFunc(rules, func(a, b ablyRule) int { return strings.Compare(a.resource.text, b.resource.text) })
	c := &ablyCapability{rules: rules, text: ablyCapabilityText(listed)}
	for _, r := range rules {
		if r.resource.everything() {
			c.ordinary |= r.ops
		}
	}
	return c
}

// ablyCapabilityText writes a capability as compact JSON, with the characters of its resources as they are.
func ablyCapabilityText(listed map[string][]string) string {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(listed); err != nil { // of strings alone: it cannot fail
		panic("ably: a capability cannot be written: " + err.Error())
	}
	return strings.TrimSuffix(text.String(), "\n")
}

// parseAblyOps reads the operations of one resource; problem is "" or what is wrong.
func parseAblyOps(names []string) (ops ablyOps, problem string) {
	if len(names) == 0 {
		return 0, "a resource has no operations"
	}
	for _, name := range names {
		op := slices.Index(ablyOpNames[:], name)
		switch {
		case name == "*" && len(names) > 1:
			return 0, "* stands beside other operations"
		case name == "*":
			return ablyAllOps, ""
		case op < 0:
			return 0, "an operation is unknown"
		}
		ops |= 1 << op
	}
	return ops, ""
}

// allows says whether an operation is granted on a channel, which is named without params: "chat", "[meta]occupancy".
func (c *ablyCapability) allows(channel string, op ablyOp) bool {
	if c.ordinary.has(op) && channel != "" && channel[0] != '[' {
		return true
	}
	return c.ops(channel).has(op)
}

// ops returns all operations that are granted on a channel, which is named as for allows.
func (c *ablyCapability) ops(channel string) ablyOps {
	scope, name := splitAblyScope(channel)
	if name == "" {
		return 0
	}
	var ops ablyOps
	if scope == ablyOrdinary {
		ops = c.ordinary
	}
	for i := range c.rules {
		if r := &c.rules[i]; ops|r.ops != ops && r.resource.matches(scope, name) {
			ops |= r.ops
		}
	}
	return ops
}

// intersect returns what both capabilities grant. Its error is 40160 where that is nothing.
func (c *ablyCapability) intersect(other *ablyCapability) (*ablyCapability, *ably.ErrorInfo) {
	both := make(map[string]ablyRule) // by resource
	for _, a := range c.rules {
		for _, b := range other.rules {
			resource, some := a.resource.intersect(b.resource)
			if ops := a.ops & b.ops; some && ops != 0 {
				both[resource.text] = ablyRule{resource, both[resource.text].ops | ops}
			}
		}
	}
	if len(both) == 0 {
		return nil, &ably.ErrorInfo{Code: 40160, StatusCode: http.StatusUnauthorized, Message: "the key grants nothing of the requested capability"}
	}
	if len(both) > maxAblyResources {
		return nil, errAblyCapability("together with the key's it has too many resources")
	}
	listed := make(map[string][]string, len(both))
	for text, rule := range both {
		listed[text] = rule.ops.names()
	}
	return makeAblyCapability(slices.Collect(maps.Values(both)), listed), nil
}

// String returns the capability as JSON.
func (c *ablyCapability) String() string { return c.text }

// ablyScope is a set of kinds of channels.
type ablyScope uint8

const (
	ablyOrdinary ablyScope = 1 << iota
	ablyMeta               // [meta]name
	ablyQueue              // [queue]name
	ablyAnyScope = ablyOrdinary | ablyMeta | ablyQueue
)

// splitAblyScope cuts the qualifier from a channel's name. A qualifier that is no kind of channel leaves no name.
func splitAblyScope(channel string) (ablyScope, string) {
	if !strings.HasPrefix(channel, "[") {
		return ablyOrdinary, channel
	}
	if name, ok := strings.CutPrefix(channel, "[meta]"); ok {
		return ablyMeta, name
	}
	if name, ok := strings.CutPrefix(channel, "[queue]"); ok {
		return ablyQueue, name
	}
	return 0, ""
}

// ablyPattern is the left side of a capability: it stands for a set of channels. Whole segments between colons are compared.
// A segment * matches one segment, or as the last one any rest, an empty one included.
type ablyPattern struct {
	text     string
	scope    ablyScope
	segments []string // without the last * when open
	open     bool     // the last segment is *
}

// parseAblyPattern reads a resource; problem is "" or what is wrong.
func parseAblyPattern(text string) (r ablyPattern, problem string) {
	scope, pattern := splitAblyScope(text)
	if rest, ok := strings.CutPrefix(text, "[*]"); ok {
		scope, pattern = ablyAnyScope, rest
	}
	if pattern == "" || len(text) > maxAblyResourceBytes {
		return r, "a resource is empty, too long, or has an unknown qualifier"
	}
	r = ablyPattern{text: text, scope: scope, segments: strings.Split(pattern, ":")}
	if last := len(r.segments) - 1; r.segments[last] == "*" {
		r.segments, r.open = r.segments[:last], true
	}
	return r, ""
}

// everything says whether the resource stands for all ordinary channels.
func (r *ablyPattern) everything() bool {
	return r.open && len(r.segments) == 0 && r.scope&ablyOrdinary != 0
}

// matches says whether a channel is among those that the resource stands for. name is without its qualifier.
func (r *ablyPattern) matches(scope ablyScope, name string) bool {
	if r.scope&scope == 0 {
		return false
	}
	for i, want := range r.segments {
		segment, rest, more := strings.Cut(name, ":")
		last := i == len(r.segments)-1
		if segment != want && want != "*" || more != (!last || r.open) {
			return false
		}
		name = rest
	}
	return true
}

// intersect returns the resource that stands for the channels of both; some is false where there are none.
func (r ablyPattern) intersect(other ablyPattern) (both ablyPattern, some bool) {
	short, long := r, other
	if len(short.segments) > len(long.segments) {
		short, long = long, short
	}
	if len(short.segments) < len(long.segments) && !short.open || len(short.segments) == len(long.segments) && short.open != long.open {
		return both, false // no name has as many segments as both want
	}
	if short.scope&long.scope == 0 {
		return both, false
	}
	for i, segment := range short.segments {
		if other := long.segments[i]; segment != other && segment != "*" && other != "*" {
			return both, false
		}
	}
	segments := slices.Clone(long.segments)
	for i, segment := range short.segments {
		if segments[i] == "*" {
			segments[i] = segment
		}
	}
	both = ablyPattern{scope: short.scope & long.scope, segments: segments, open: long.open}
	both.text = both.write()
	return both, true
}

// write spells a resource.
func (r *ablyPattern) write() string {
	segments := r.segments
	if r.open {
		segments = append(slices.Clip(segments), "*")
	}
	return map[ablyScope]string{ablyOrdinary: "", ablyMeta: "[meta]", ablyQueue: "[queue]", ablyAnyScope: "[*]"}[r.scope] + strings.Join(segments, ":")
}
