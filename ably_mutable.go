package main

import (
	"cmp"
	"slices"
	"strings"

	"letshare/ably"
)

// Messages of a namespace with mutableMessages can be changed after they were published: an update replaces parts of one, a
// delete marks it, an append adds to its data. Each is published like a message, with the serial of the one that it changes and
// a version of its own; history shows the message where it was published, as it is by now.

// messageLife is what became of a published message: its later versions, and its annotations. Touched by the room's shard alone.
type messageLife struct {
	latest      *ably.Message  // as history shows it; what it points to does not change any more
	versions    []*publication // its updates, deletes and appends, oldest first
	annotations []*publication // oldest first
	summary     annotationSummary
	told        *publication // the newest of its summaries: older ones are of no use to anybody
	size        int          // bytes that this costs, charged with the publication of the message
}

// changeRights says whose messages a client may change.
type changeRights struct {
	any      bool
	clientID string // without any: this client's, which is not ""
}

// isOriginal reports whether the publication is of new messages.
func (p *publication) isOriginal() bool {
	return len(p.message.Messages) > 0 && p.message.Messages[0].Action == ably.MessageCreate
}

// isChange reports whether the publication changes a message.
func (p *publication) isChange() bool {
	return len(p.message.Messages) > 0 && p.message.Messages[0].Action != ably.MessageCreate
}

// originals is how many messages of the publication history shows.
func (p *publication) originals() int {
	if p.isOriginal() {
		return len(p.message.Messages)
	}
	return 0
}

// latest is a message of the publication as it is by now. Shard; what it points to does not change any more.
func (p *publication) latest(i int) *ably.Message {
	if p.lives != nil && p.lives[i] != nil {
		return p.lives[i].latest
	}
	return &p.message.Messages[i]
}

// updated is the publication with its messages as they are by now: itself, if nothing became of them. Shard.
func (p *publication) updated() *publication {
	if p.lives == nil {
		return p
	}
	now := &publication{number: p.number, message: p.message, state: p.state}
	now.message.Messages = slices.Clone(p.message.Messages)
	for i := range now.message.Messages {
		now.message.Messages[i] = *p.latest(i)
	}
	return now
}

// life returns what became of a message of the publication, to be added to.
func (p *publication) life(i int) *messageLife {
	if p.lives == nil {
		p.lives = make([]*messageLife, len(p.message.Messages))
	}
	if p.lives[i] == nil {
		p.lives[i] = &messageLife{latest: &p.message.Messages[i]}
	}
	return p.lives[i]
}

// lookup finds a message that is kept by its serial: the publication that holds it, nil if none does, and its place there.
func (r *ablyRoom) lookup(serial string) (*publication, int) {
	number, ok := serialNumber(serial)
	if !ok {
		return nil, 0
	}
	kept := r.kept.all()
	i, found := slices.BinarySearchFunc(kept, number, func(p *publication, n uint64) int { return cmp.Compare(p.number, n) })
	if !found || !kept[i].isOriginal() {
		return nil, 0
	}
	j := slices.IndexFunc(kept[i].message.Messages, func(m ably.Message) bool { return m.Serial == serial })
	if j < 0 {
		return nil, 0
	}
	return kept[i], j
}

// repeated returns the earlier publication of the same change or annotations, nil if there is none: a connection sends again
// what was not acknowledged, under the same id, and a client may repeat what it gave an id of its own. An id that the message,
// or an earlier change, was delivered with is none of its own: clients change what they have received.
func (r *ablyRoom) repeated(p *publication) *publication {
	same := func(earlier *publication) bool {
		return earlier != nil && earlier.message.Action == p.message.Action && !earlier.isOriginal()
	}
	for id := range p.ids {
		if earlier := r.ids[id]; same(earlier) {
			return earlier
		}
		break // the first stands for all
	}
	if earlier := r.ids[p.key]; p.key != "" && same(earlier) && earlier.key == p.key {
		return earlier
	}
	return nil
}

// ids yields the ids by which a publication is known again: those that it is delivered with.
func (p *publication) ids(yield func(string) bool) {
	for i := range p.message.Messages {
		if !yield(p.message.Messages[i].ID) {
			return
		}
	}
	for i := range p.message.Annotations {
		if !yield(p.message.Annotations[i].ID) {
			return
		}
	}
}

// change makes of what a client wants what is to be delivered: the message as it is then, or, of an append, with what is
// appended as its data. limit is how large a message may be.
func (r *ablyRoom) change(p *publication, rights changeRights, limit int, tooLarge *ably.ErrorInfo) *ably.ErrorInfo {
	wish := &p.message.Messages[0]
	t, i := r.lookup(wish.Serial)
	if t == nil {
		return errAblyNoMessage
	}
	original, before := &t.message.Messages[i], t.latest(i)
	if !rights.any && original.ClientID != rights.clientID {
		return errAblyNotAllowed
	}
	next := *before
	next.ID, next.Action, next.Version, next.Annotations = wish.ID, wish.Action, wish.Version, nil
	next.Timestamp, next.ConnectionID = original.Timestamp, t.message.ConnectionID
	if wish.Name.OK {
		next.Name = wish.Name
	}
	if wish.Extras != nil {
		next.Extras = wish.Extras
	}
	if wish.Data.Kind != ably.DataNone {
		next.Data, next.Encoding = wish.Data, wish.Encoding
	}
	whole := next
	if wish.Action == ably.MessageAppend {
		next.Data, next.Encoding = wish.Data, wish.Encoding
		var ok bool
		if whole.Data, whole.Encoding, ok = appendData(before, wish); !ok {
			return errAblyAppend
		}
	}
	if ablyMessageSize(&whole)+versionSize(whole.Version) > limit {
		return tooLarge
	}
	*wish = next
	return nil
}

// appendData puts what is appended to a message behind its data. Not ok: the two do not go together.
func appendData(before, more *ably.Message) (data ably.Data, encoding string, ok bool) {
	switch {
	case more.Data.Kind == ably.DataNone:
		return before.Data, before.Encoding, true
	case before.Data.Kind == ably.DataNone:
		return more.Data, more.Encoding, true
	case before.Data.Kind != more.Data.Kind, before.Data.Kind == ably.DataJSON, before.Encoding != "", more.Encoding != "":
		return data, "", false
	}
	return ably.Data{Kind: before.Data.Kind, Bytes: slices.Concat(before.Data.Bytes, more.Data.Bytes)}, "", true
}

// versionSize is how many bytes a change says of itself.
func versionSize(v *ably.Version) int {
	if v == nil {
		return 0
	}
	return len(v.ClientID) + len(v.Description) + len(v.Metadata)
}

// adopt notes with a message what a publication that is kept now says of it, and returns how many bytes more that costs. A
// message that is not kept any more has no use for it.
func (r *ablyRoom) adopt(p *publication) (cost int) {
	var t *publication
	var life *messageLife
	var next ably.Message
	switch {
	case p.isChange():
		change := &p.message.Messages[0]
		var i int
		if t, i = r.lookup(change.Serial); t == nil {
			return 0
		}
		life = t.life(i)
		life.versions = append(life.versions, p)
		next = *change
		if next.Annotations = life.latest.Annotations; change.Action == ably.MessageAppend {
			next.Action = ably.MessageUpdate
			next.Data, next.Encoding, _ = appendData(life.latest, change)
		}
	case len(p.message.Annotations) > 0:
		var i int
		if t, i = r.lookup(p.message.Annotations[0].MessageSerial); t == nil {
			return 0
		}
		life = t.life(i)
		life.annotations = append(life.annotations, p)
		for i := range p.message.Annotations {
			life.summary.apply(&p.message.Annotations[i])
		}
		next = *life.latest
		next.Annotations = life.summary.json()
	default:
		return 0
	}
	life.latest = &next
	size := 2*ablyEntryBytes + ablyMessageSize(&next) + len(next.Annotations) + life.summary.size + 16*(len(life.versions)+len(life.annotations))
	cost, life.size = size-life.size, size
	t.size += cost
	r.size += cost
	return cost
}

// summarised makes the publication that tells of a message's annotations, nil if these are of no type that is counted. Its
// content is made when somebody gets it, so that whoever comes back later is told of the newest alone.
func (r *ablyRoom) summarised(annotations *publication) *publication {
	list := annotations.message.Annotations
	counted := slices.ContainsFunc(list, func(a ably.Annotation) bool { return strings.Contains(a.Type, ":") })
	if !counted {
		return nil
	}
	t, i := r.lookup(list[0].MessageSerial)
	if t == nil {
		return nil
	}
	p := &publication{state: r, about: t.life(i), message: ably.ProtocolMessage{Action: ably.ActionMessage, Channel: ably.Some(r.name)}}
	p.about.told = p
	return p
}

// content is what the publication says.
func (p *publication) content() *ably.ProtocolMessage {
	if p.about == nil {
		return &p.message
	}
	message := p.message
	message.Messages = []ably.Message{p.about.tell()}
	return &message
}

// tell is what a summary says: the message without its data, which has not changed.
func (l *messageLife) tell() ably.Message {
	m := l.latest
	return ably.Message{
		Action: ably.MessageSummary, Serial: m.Serial, Name: m.Name, ClientID: m.ClientID, Timestamp: m.Timestamp,
		Version: m.Version, Annotations: m.Annotations,
	}
}

// superseded reports whether a summary is of no use any more: there is a newer one, or the message is gone.
func (p *publication) superseded() bool { return p.about != nil && p.about.told != p }

// forgetLives drops what became of the publication's messages.
func (p *publication) forgetLives() {
	for _, life := range p.lives {
		if life != nil {
			*life = messageLife{}
		}
	}
	p.lives = nil
}

// followingSerial is the channelSerial of the publication right behind another at the same time.
func followingSerial(serial string) string {
	times, series, _ := strings.Cut(serial, "@")
	stamp, _, _ := strings.Cut(times, "-")
	number, _ := serialNumber(serial)
	return string(appendPadded([]byte(stamp+"-"), number+1, 9)) + "@" + series
}

// What changing messages is refused with, by Ably's numbers.
var (
	errAblyImmutable = &ably.ErrorInfo{Code: 93002, StatusCode: 400, Message: "messages can be changed and annotated only in namespaces with mutableMessages"}
	errAblyNoMessage = &ably.ErrorInfo{Code: 40400, StatusCode: 404, Message: "there is no such message, or it is no longer kept"}
	errAblyNoSerial  = &ably.ErrorInfo{Code: 40003, StatusCode: 400, Message: "the serial of a message is missing, or not the one in the path"}
	errAblyOneChange = &ably.ErrorInfo{Code: 40000, StatusCode: 400, Message: "an update, delete or append changes one message, and is sent alone"}
	errAblyAppend    = &ably.ErrorInfo{Code: 40000, StatusCode: 400, Message: "text can be appended to text, and bytes to bytes, without an encoding"}
)
