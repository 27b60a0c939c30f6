package main

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"letshare/ably"
)

// presenceSet is who is present on a channel: pure state of the room, touched by the room's shard alone. A member is a clientId
// on a connection. What a connection has here outlives its socket for a grace, so that whoever comes back in time was never gone.
type presenceSet struct {
	members map[memberKey]*presenceMember
	order   []*presenceMember         // the same, by their numbers
	entered uint64                    // number of the latest to enter
	owners  map[string]*presenceOwner // connections that have had a part, by connectionId
	leaving int                       // how many of them have a deadline
	syncing []*attachment             // those that have not got the whole set yet
	events  publications              // what is kept of the past, oldest first
	size    int                       // bytes that members and owners cost
	charged int                       // of them in the account
}

// memberKey is who a member is.
type memberKey struct{ connectionID, clientID string }

// presenceMember is one member.
type presenceMember struct {
	number uint64               // counts those who enter; immutable
	serial presenceSerial       // of what it did last
	item   ably.PresenceMessage // what it did last, as PresencePresent
}

// presenceSerial is the order in which a connection does things.
type presenceSerial struct {
	message int64 // msgSerial
	index   int   // within the message
}

func (s presenceSerial) compare(t presenceSerial) int {
	return cmp.Or(cmp.Compare(s.message, t.message), cmp.Compare(s.index, t.index))
}

// presenceOwner is a connection that has, or had, members on the channel.
type presenceOwner struct {
	id         string    // connectionId; immutable
	generation uint64    // of the newest socket of the connection that was heard of: older ones have no say any more
	socket     *Member   // nil: it is gone
	leave      time.Time // when the members leave, if the socket is gone
	members    int
	recent     []int64        // the latest msgSerials that were carried out: they may come again after a resume
	left       []presenceLeft // the latest members that were taken out by their client
}

// presenceLeft says that a client has taken a member out. Its SDK may not know it yet, and enter it again after a reconnect.
type presenceLeft struct {
	item   ably.PresenceMessage
	serial presenceSerial
}

func newPresenceSet() *presenceSet {
	return &presenceSet{members: make(map[memberKey]*presenceMember), owners: make(map[string]*presenceOwner)}
}

// idle reports whether nothing is in the set and nothing is remembered.
func (p *presenceSet) idle() bool {
	return p == nil || len(p.members) == 0 && len(p.owners) == 0 && p.events.len() == 0
}

// join returns a connection's owner, made if there is none, for an operation by a socket of a generation. nil: the connection
// has a newer socket by now.
func (p *presenceSet) join(id string, generation uint64, socket *Member) *presenceOwner {
	o := p.owners[id]
	switch {
	case o == nil:
		o = &presenceOwner{id: id}
		p.owners[id] = o
		p.size += ablyEntryBytes
	case o.generation > generation:
		return nil
	}
	o.generation, o.socket = generation, socket
	p.stay(o)
	return o
}

// stay cancels an owner's deadline.
func (p *presenceSet) stay(o *presenceOwner) {
	if !o.leave.IsZero() {
		o.leave = time.Time{}
		p.leaving--
	}
}

// part notes that an owner's socket is gone, and when its members are to leave.
func (p *presenceSet) part(o *presenceOwner, until time.Time) {
	p.stay(o)
	o.socket, o.leave = nil, until
	p.leaving++
}

// done reports whether a message of the owner has been carried out already.
func (o *presenceOwner) done(serial ably.Opt[int64]) bool {
	return serial.OK && slices.Contains(o.recent, serial.V)
}

// note remembers that a message has been carried out.
func (o *presenceOwner) note(serial ably.Opt[int64]) {
	if !serial.OK {
		return
	}
	if len(o.recent) == maxPresenceRecent {
		o.recent = slices.Delete(o.recent, 0, 1)
	}
	o.recent = append(o.recent, serial.V)
}

// newcomers is how many of the items are about members that are not there yet.
func (p *presenceSet) newcomers(o *presenceOwner, items []ably.PresenceMessage) int {
	fresh := make(map[string]bool)
	for i := range items {
		key := memberKey{o.id, items[i].ClientID}
		if items[i].Action != ably.PresenceLeave && p.members[key] == nil {
			fresh[key.clientID] = true
		}
	}
	return len(fresh)
}

// carryOut does what a message of a connection says. events are to be told to all. again is what the connection alone is to be
// told again: it enters a member that it has taken out since.
func (p *presenceSet) carryOut(o *presenceOwner, serial ably.Opt[int64], items []ably.PresenceMessage, timestamp int64) (events, again []ably.PresenceMessage) {
	for i := range items {
		item, at := items[i], presenceSerial{serial.V, i}
		known, repeated := parsePresenceID(item.ID, o.id)
		item.ID = o.id + ":" + strconv.FormatInt(serial.V, 10) + ":" + strconv.Itoa(i)
		item.ConnectionID, item.Timestamp = o.id, timestamp
		member := p.members[memberKey{o.id, item.ClientID}]
		switch {
		case item.Action == ably.PresenceLeave && member == nil:
			continue
		case item.Action == ably.PresenceLeave:
			if item.Data.Kind == ably.DataNone {
				item.Data, item.Encoding = member.item.Data, member.item.Encoding
			}
			p.remove(o, member)
			p.noteLeft(o, item, at)
		case repeated && member != nil && known.compare(member.serial) <= 0:
			continue // after a reconnect the SDK enters its members again, for the case that they have left
		case member != nil:
			item.Action = ably.PresenceUpdate
			p.put(o, item, at)
		default:
			if left := o.hasLeft(item.ClientID); repeated && left != nil && known.compare(left.serial) < 0 {
				again = append(again, left.item)
				continue
			}
			item.Action = ably.PresenceEnter
			p.put(o, item, at)
		}
		events = append(events, item)
	}
	return events, again
}

// parsePresenceID reads what a client names as what it did earlier. Not ok: it names nothing of this connection's.
func parsePresenceID(id, connectionID string) (s presenceSerial, ok bool) {
	rest, found := strings.CutPrefix(id, connectionID+":")
	message, index, cut := strings.Cut(rest, ":")
	if !found || !cut {
		return s, false
	}
	n, err := strconv.ParseInt(message, 10, 64)
	i, indexErr := strconv.Atoi(index)
	return presenceSerial{n, i}, err == nil && indexErr == nil
}

// put lets a member in, or changes it.
func (p *presenceSet) put(o *presenceOwner, item ably.PresenceMessage, at presenceSerial) {
	key := memberKey{o.id, item.ClientID}
	m := p.members[key]
	if m == nil {
		p.entered++
		m = &presenceMember{number: p.entered}
		p.members[key] = m
		p.order = append(p.order, m)
		o.members++
		p.forgive(o, item.ClientID)
	} else {
		p.size -= presenceCost(&m.item)
	}
	item.Action = ably.PresencePresent
	m.item, m.serial = item, at
	p.size += presenceCost(&m.item)
}

// remove takes a member out.
func (p *presenceSet) remove(o *presenceOwner, m *presenceMember) {
	delete(p.members, memberKey{o.id, m.item.ClientID})
	i := p.after(m.number - 1)
	p.order = slices.Delete(p.order, i, i+1)
	p.size -= presenceCost(&m.item)
	o.members--
}

// noteLeft remembers the latest members that their client has taken out.
func (p *presenceSet) noteLeft(o *presenceOwner, item ably.PresenceMessage, at presenceSerial) {
	if len(o.left) == maxPresenceLeft {
		p.forgive(o, o.left[0].item.ClientID)
	}
	item.Data, item.Encoding, item.Extras = ably.Data{}, "", nil
	o.left = append(o.left, presenceLeft{item, at})
	p.size += presenceCost(&item)
}

// forgive forgets that a member was taken out.
func (p *presenceSet) forgive(o *presenceOwner, clientID string) {
	for i := range o.left {
		if o.left[i].item.ClientID == clientID {
			p.size -= presenceCost(&o.left[i].item)
			o.left = slices.Delete(o.left, i, i+1)
			return
		}
	}
}

// hasLeft returns what is remembered of a member that was taken out, nil if nothing.
func (o *presenceOwner) hasLeft(clientID string) *presenceLeft {
	for i := range o.left {
		if o.left[i].item.ClientID == clientID {
			return &o.left[i]
		}
	}
	return nil
}

// depart forgets a connection, and returns its members as leaves that still need an id.
func (p *presenceSet) depart(o *presenceOwner, timestamp int64) (leaves []ably.PresenceMessage) {
	p.stay(o)
	for len(o.left) > 0 {
		p.forgive(o, o.left[0].item.ClientID)
	}
	p.order = slices.DeleteFunc(p.order, func(m *presenceMember) bool {
		if m.item.ConnectionID != o.id {
			return false
		}
		delete(p.members, memberKey{o.id, m.item.ClientID})
		p.size -= presenceCost(&m.item)
		leave := m.item
		leave.Action, leave.Timestamp, leave.ID = ably.PresenceLeave, timestamp, ""
		leaves = append(leaves, leave)
		return true
	})
	o.members = 0
	delete(p.owners, o.id)
	p.size -= ablyEntryBytes
	return leaves
}

// overdue returns a connection whose grace is over, nil if there is none.
func (p *presenceSet) overdue(now time.Time) *presenceOwner {
	if p.leaving == 0 {
		return nil
	}
	for _, o := range p.owners {
		if !o.leave.IsZero() && !now.Before(o.leave) {
			return o
		}
	}
	return nil
}

// after is the place in order of the first member with a greater number.
func (p *presenceSet) after(number uint64) int {
	i, _ := slices.BinarySearchFunc(p.order, number+1, func(m *presenceMember, n uint64) int { return cmp.Compare(m.number, n) })
	return i
}

// past returns what has happened of late, as far as it is kept: publications of presence events, oldest first. They belong to
// the room's shard and are never changed.
func (p *presenceSet) past() []*publication {
	if p == nil {
		return nil
	}
	return p.events.all()
}

// presenceSize is a member's size as Ably counts a message's.
func presenceSize(m *ably.PresenceMessage) int {
	return len(m.ClientID) + len(m.Data.Bytes) + len(m.Extras)
}

// presenceCost is how many bytes keeping a member costs.
func presenceCost(m *ably.PresenceMessage) int {
	return presenceSize(m) + len(m.Encoding) + ablyEntryBytes
}
