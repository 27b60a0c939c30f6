package main

import (
	"slices"
	"sync"
	"time"

	"letshare/ably"
)

// dialect says which protocol a member speaks.
type dialect uint8

// The dialects. A message caches one frame for each.
const (
	dialectLetShare dialect = iota
	dialectAblyJSON
	dialectAblyMsgpack
	dialectCount
)

// format is the codec of an Ably dialect.
func (d dialect) format() ably.Format { return ably.Format(d - dialectAblyJSON) }

// Message is one publish on its way through a room. Its fields are immutable once the room has applied it; frames
// are filled as recipients of each dialect turn up. Owned by the room's shard from post on, and by the one outbox that it is for
// as soon as that has it.
type Message struct {
	event     string
	timestamp int64                // ms since 1970, the server's clock; 0 until applied
	frames    [dialectCount][]byte // the frame for each dialect; the publisher's own comes as a draft without its timestamp
	encoded   [dialectCount]bool   // frames holds the final frame, or nil because the dialect cannot express the message
}

// messages lends messages with the memory of their frames: signalling goes to one member, and would else leave more garbage than
// anything. The n-th pool has memories of n+1 times messageStep bytes, so that no small frame keeps a large one's memory.
var messages [keptMessageBytes / messageStep]sync.Pool

// newMessage returns an empty message, and empty memory for its LetShare frame of size bytes.
func newMessage(size int) (*Message, []byte) {
	class := (size - 1) / messageStep
	if class >= len(messages) {
		return new(Message), make([]byte, 0, size)
	}
	if m, ok := messages[class].Get().(*Message); ok {
		memory := m.frames[dialectLetShare]
		*m = Message{}
		return m, memory
	}
	return new(Message), make([]byte, 0, (class+1)*messageStep)
}

// giveBack lends the message to others, with the memory of its LetShare frame. Whoever calls it is the last to know of it. A
// message that is not given back is garbage, and nothing worse.
func (m *Message) giveBack() {
	memory := m.frames[dialectLetShare][:0]
	if cap(memory) > keptMessageBytes || cap(memory)%messageStep != 0 {
		return // not of a pool
	}
	*m = Message{}
	m.frames[dialectLetShare] = memory
	messages[cap(memory)/messageStep-1].Put(m)
}

// roomLimits bound one room. 0 means no limit. Immutable.
type roomLimits struct {
	users  int
	events int
	full   *Refusal // says the limit
	many   *Refusal
}

// Room is one room's state: who is in it and who listens to what. It does no I/O, has no clock and no
// goroutine; its shard alone touches it.
type Room struct {
	name    string
	members map[*Member][]string // each member's events, in the order of subscribing
	subs    map[string][]*Member // each event's subscribers, in the order of subscribing
	last    int64                // timestamp of the latest message, ms: the next is not before it
	// transfers are the files on their way between members, by their id; nil until the first.
	transfers map[string]*relayed
	// ably is what Ably's clients need of the room; nil until the first of them.
	ably *ablyRoom
	// missed are the users whose last socket died here, and when the others are to hear of it; nil: none.
	missed map[string]time.Time
}

func newRoom(name string) *Room {
	return &Room{name: name, members: make(map[*Member][]string), subs: make(map[string][]*Member)}
}

// subscribe adds the member to the event's subscribers, and to the room if it is new. Doing it again changes nothing.
func (r *Room) subscribe(m *Member, event string, limits *roomLimits) *Refusal {
	events, here := r.members[m]
	switch {
	case slices.Contains(events, event):
		return nil
	case !here && limits.users > 0 && r.population() >= limits.users:
		return limits.full
	case limits.events > 0 && len(events) >= limits.events:
		return limits.many
	}
	r.members[m] = append(events, event)
	r.subs[event] = append(r.subs[event], m)
	return nil
}

// unsubscribe removes the member from the event's subscribers; with its last event it leaves the room.
func (r *Room) unsubscribe(m *Member, event string) {
	events := r.members[m]
	i := slices.Index(events, event)
	if i < 0 {
		return
	}
	if len(events) == 1 {
		r.leave(m)
		return
	}
	r.members[m] = slices.Delete(events, i, i+1)
	r.unlist(m, event)
}

// leave removes the member and all its subscriptions.
func (r *Room) leave(m *Member) {
	for _, event := range r.members[m] {
		r.unlist(m, event)
	}
	delete(r.members, m)
}

// unlist takes the member out of the event's subscribers.
func (r *Room) unlist(m *Member, event string) {
	subs := r.subs[event]
	i := slices.Index(subs, m)
	if subs = slices.Delete(subs, i, i+1); len(subs) == 0 {
		delete(r.subs, event)
	} else {
		r.subs[event] = subs
	}
}

// has reports whether the member is in the room.
func (r *Room) has(m *Member) bool {
	_, here := r.members[m]
	return here
}

// population is how many members of either protocol are here.
func (r *Room) population() int {
	if r.ably == nil {
		return len(r.members)
	}
	return len(r.members) + len(r.ably.attached)
}

// empty reports whether the room has no reason to exist: nobody is in it, and neither a transfer nor anything of Ably's clients
// is remembered.
func (r *Room) empty() bool { return len(r.members) == 0 && len(r.transfers) == 0 && r.ably == nil }

// admit refuses a publish, or lets it through to apply.
func (r *Room) admit(publisher *Member) *Refusal {
	if !r.has(publisher) {
		return refuseNotSubscribed
	}
	return nil
}

// isForOne reports whether the message is for one member at the most, so that nothing else refers to it once that has it.
func (r *Room) isForOne(message *Message) bool {
	return r.ably == nil && len(r.subs[message.event]) == 1
}

// apply stamps the message and calls deliver for every member that is to have it: those subscribed to exactly
// its event, but for the publisher. Timestamps of a room never go back.
func (r *Room) apply(publisher *Member, message *Message, now time.Time, deliver func(*Member)) {
	r.last = max(r.last, now.UnixMilli())
	message.timestamp = r.last
	for _, m := range r.subs[message.event] {
		if m != publisher {
			deliver(m)
		}
	}
}
