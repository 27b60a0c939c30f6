package main

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"letshare/ably"
)

// ablyRoom is what a room keeps for Ably's clients: who is attached, and what was published of late, so that whoever was cut
// off gets what it has missed. A room has none before the first Ably client comes: rooms without any pay one nil check.
// Like the Room it is pure state, touched by the room's shard alone.
type ablyRoom struct {
	name     string        // the room's
	series   string        // random, a part of every serial: those of an earlier life of the room are unknown
	count    uint64        // publications and presence events so far; the number in the latest serial
	attached []*attachment // in the order of attaching
	kept     publications  // oldest first
	lost     uint64        // number of the newest publication that is not kept any more; 0: none is lost
	ids      map[string]*publication
	size     int               // bytes of what is kept
	said     string            // channelSerial of the latest publication of messages
	former   map[string]uint64 // series of earlier processes, and up to which number their serials are good: see ablyJournal
	presence *presenceSet      // who is present; nil until the first member
	watched  bool              // an attachment wants to know how many are here, or one did of late
	told     uint64            // occupancy events so far
	open     bool              // somebody is here, as far as has been told on [meta]channel.lifecycle
	seen     int64             // ms when it was last of use; once nobody is attached it outlives this by the connection state's time
}

// attachment is one Ably client's presence on a channel, by one socket.
type attachment struct {
	// Immutable.
	member       *Member
	name         string // the channel's name as the client writes it, with qualifiers
	connectionID string
	echo         bool        // wants its own messages back
	filter       *ablyFilter // which messages it wants; nil: all

	// Shard.
	granted uint64           // modes (ably.Mode…)
	sync    *presenceSync    // how far it has been told who is present; nil: all of it
	watches occupancyMetrics // which figures it wants to be told
	told    string           // those that it was told last, as JSON
}

// publication is one accepted publish: one message or several that share a serial and travel in one frame; or several presence
// events that do. Once it has been
// applied nothing in it changes but what the shard alone looks at: frames, size and lives.
type publication struct {
	number  uint64               // its place in the room's series
	message ably.ProtocolMessage // as it goes to attachments under the room's own name
	frames  [2][]byte            // the same as frames, by format; made at need, and only while it is being delivered
	size    int                  // bytes that keeping it costs
	state   *ablyRoom            // where it was published
	key     string               // of a change or annotations: the client's own id for it, by which it may be repeated
	lives   []*messageLife       // what became of its messages; nil while nothing has. Shard
	about   *messageLife         // of a summary: what it tells of, made when somebody gets it

	subjects []filterSubject // the messages as filters see them; made at need, and only while it is being delivered
}

func newAblyRoom(name, series string) *ablyRoom {
	return &ablyRoom{name: name, series: series, ids: make(map[string]*publication)}
}

// find returns the member's attachment under a name, nil if there is none.
func (r *ablyRoom) find(m *Member, name string) *attachment {
	for _, a := range r.attached {
		if a.member == m && a.name == name {
			return a
		}
	}
	return nil
}

// detach removes an attachment and reports whether it was there.
func (r *ablyRoom) detach(m *Member, name string, now time.Time) bool {
	for i, a := range r.attached {
		if a.member == m && a.name == name {
			r.attached = slices.Delete(r.attached, i, i+1)
			r.presence.forgetSync(a)
			r.seen = now.UnixMilli()
			return true
		}
	}
	return false
}

// idle reports whether nobody needs the state any more.
func (r *ablyRoom) idle(now time.Time, patience time.Duration) bool {
	return len(r.attached) == 0 && r.kept.len() == 0 && r.presence.idle() && now.UnixMilli()-r.seen >= patience.Milliseconds()
}

// serial is the channelSerial of the latest event: opaque to clients, ordered as text, and never of two events.
func (r *ablyRoom) serial(timestamp int64) string {
	b := make([]byte, 0, 40)
	b = appendPadded(b, uint64(timestamp), 14)
	b = append(b, '-')
	b = appendPadded(b, r.count, 9)
	b = append(b, '@')
	return string(append(b, r.series...))
}

// messageSerial is the serial of one message of a publication.
func messageSerial(channelSerial string, index int) string {
	b := make([]byte, 0, len(channelSerial)+4)
	b = append(append(b, channelSerial...), ':')
	return string(appendPadded(b, uint64(index), 3))
}

// appendPadded appends n in decimal, with zeros in front up to the width.
func appendPadded(b []byte, n uint64, width int) []byte {
	var digits [20]byte
	text := strconv.AppendUint(digits[:0], n, 10)
	for i := len(text); i < width; i++ {
		b = append(b, '0')
	}
	return append(b, text...)
}

// numberOf reads the number out of a serial of this room, of a channel's or of a message's. Not ok: it is none.
func (r *ablyRoom) numberOf(serial string) (number uint64, ok bool) {
	serial, _, _ = strings.Cut(serial, ":")
	times, series, found := strings.Cut(serial, "@")
	_, text, dashed := strings.Cut(times, "-")
	count := r.count
	if series != r.series {
		count = r.former[series]
	}
	number, err := strconv.ParseUint(text, 10, 64)
	_, known := r.former[series]
	return number, found && dashed && (known || series == r.series) && err == nil && number <= count
}

// after returns what was published after a serial, oldest first. An error: the continuity is lost, and why.
func (r *ablyRoom) after(serial string) ([]*publication, *ably.ErrorInfo) {
	number, ok := r.numberOf(serial)
	switch {
	case !ok:
		return nil, errAblyUnknownSerial
	case number < r.lost:
		return nil, errAblyExpiredSerial
	}
	kept := r.kept.all()
	i, _ := slices.BinarySearchFunc(kept, number+1, func(p *publication, n uint64) int { return cmp.Compare(p.number, n) })
	return kept[i:], nil
}

// rewound returns the publications of the newest messages, as far as how says, with the messages as they are by now.
func (r *ablyRoom) rewound(how rewind, now time.Time) (list []*publication) {
	kept := r.kept.all()
	messages := 0
	for _, p := range slices.Backward(kept) {
		if how.period > 0 && p.message.Timestamp < now.Add(-how.period).UnixMilli() {
			break
		}
		if messages += p.originals(); how.count > 0 && messages > how.count {
			break
		}
		if p.isOriginal() {
			list = append(list, p.updated())
		}
	}
	slices.Reverse(list)
	if n := len(list); n > 0 && list[n-1].number != kept[len(kept)-1].number {
		// What came behind it changed these messages: whoever resumes must not get that again.
		last := *list[n-1]
		last.message.ChannelSerial = kept[len(kept)-1].message.ChannelSerial
		list[n-1] = &last
	}
	return list
}

// published returns the publication that holds the first of these messages already, nil if none does.
func (r *ablyRoom) published(p *publication) *publication {
	if earlier := r.ids[p.message.Messages[0].ID]; earlier != nil && earlier.isOriginal() {
		return earlier
	}
	return nil
}

// apply gives a publication its place, its time and its serials, and keeps it.
func (r *ablyRoom) apply(p *publication, timestamp int64) {
	r.count++
	r.seen = timestamp
	m := &p.message
	p.number, m.Timestamp, m.ChannelSerial = r.count, timestamp, r.serial(timestamp)
	for i := range m.Messages {
		item := &m.Messages[i]
		serial := messageSerial(m.ChannelSerial, i)
		if item.Action != ably.MessageCreate {
			item.Version.Serial, item.Version.Timestamp = serial, timestamp
			continue
		}
		item.Timestamp, item.Serial = timestamp, serial
		item.Version = &ably.Version{Serial: serial, Timestamp: timestamp}
	}
	for i := range m.Annotations {
		m.Annotations[i].Timestamp, m.Annotations[i].Serial = timestamp, messageSerial(m.ChannelSerial, i)
	}
	p.size = p.cost()
}

// cost is how many bytes keeping the publication costs.
func (p *publication) cost() int {
	n := ablyEntryBytes
	for i := range p.message.Messages {
		n += ablyMessageSize(&p.message.Messages[i]) + versionSize(p.message.Messages[i].Version) + ablyEntryBytes
	}
	for i := range p.message.Annotations {
		n += annotationSize(&p.message.Annotations[i]) + ablyEntryBytes
	}
	for i := range p.message.Presence {
		n += presenceCost(&p.message.Presence[i])
	}
	return n
}

// keep remembers a publication that apply has placed.
func (r *ablyRoom) keep(p *publication) {
	r.size += p.size
	if p.isPresence() {
		r.presence.events.push(p)
		return
	}
	r.kept.push(p)
	for id := range p.ids {
		r.ids[id] = p
	}
	if p.key != "" && r.ids[p.key] == nil {
		r.ids[p.key] = p
	}
}

// isPresence reports whether the publication is of presence events.
func (p *publication) isPresence() bool { return p.message.Action == ably.ActionPresence }

// lose notes that a publication is not kept any more. Of presence events nobody is cut off: whoever attaches is told anew who
// is present.
func (r *ablyRoom) lose(p *publication) {
	if !p.isPresence() {
		r.lost = p.number
	}
}

// forgetThrough drops a publication that is kept, and everything older of its kind.
func (r *ablyRoom) forgetThrough(p *publication) {
	if p.isPresence() {
		for events := &r.presence.events; events.len() > 0 && events.first().number <= p.number; {
			r.size -= events.pop().size
		}
		return
	}
	for r.kept.len() > 0 && r.kept.first().number <= p.number {
		r.forgetOldest()
	}
}

// keeps reports whether a publication is kept.
func (r *ablyRoom) keeps(p *publication) bool {
	queue := &r.kept
	if p.isPresence() {
		queue = &r.presence.events
	}
	return queue.len() > 0 && p.number >= queue.first().number
}

// oldest is the oldest publication that is kept, nil if there is none.
func (r *ablyRoom) oldest() *publication {
	var oldest *publication
	if r.kept.len() > 0 {
		oldest = r.kept.first()
	}
	if past := r.presence.past(); len(past) > 0 && (oldest == nil || past[0].number < oldest.number) {
		oldest = past[0]
	}
	return oldest
}

// forgetOldest drops the oldest publication of messages that is kept: whoever has seen nothing newer has lost the continuity.
func (r *ablyRoom) forgetOldest() {
	p := r.kept.pop()
	r.size -= p.size
	r.lost = p.number
	for id := range p.ids {
		if r.ids[id] == p {
			delete(r.ids, id)
		}
	}
	if r.ids[p.key] == p {
		delete(r.ids, p.key)
	}
	p.forgetLives()
}

// ablyMessageSize is a message's size as Ably counts it: name, client id, data and extras.
func ablyMessageSize(m *ably.Message) int {
	return len(m.Name.V) + len(m.ClientID) + len(m.Data.Bytes) + len(m.Extras)
}

// publications is a queue, oldest first.
type publications struct {
	list []*publication
	head int // list[:head] are gone
}

func (q *publications) len() int            { return len(q.list) - q.head }
func (q *publications) all() []*publication { return q.list[q.head:] }
func (q *publications) push(p *publication) { q.list = append(q.list, p) }
func (q *publications) first() *publication { return q.list[q.head] }

// pop takes the oldest. The queue must not be empty.
func (q *publications) pop() *publication {
	p := q.list[q.head]
	q.list[q.head] = nil
	if q.head++; q.head*2 >= len(q.list) {
		q.list = slices.Delete(q.list, 0, q.head)
		q.head = 0
	}
	return p
}

// keepOnly removes those that are not wanted any more.
func (q *publications) keepOnly(wanted func(*publication) bool) {
	q.list = slices.DeleteFunc(slices.Delete(q.list, 0, q.head), func(p *publication) bool { return !wanted(p) })
	q.head = 0
}
