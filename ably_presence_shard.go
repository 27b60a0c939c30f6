package main

import (
	"fmt"
	"slices"
	"strconv"

	"letshare/ably"
)

// presenceOf returns a room's presence set, made if there is none.
func (r *ablyRoom) presenceOf() *presenceSet {
	if r.presence == nil {
		r.presence = newPresenceSet()
	}
	return r.presence
}

// enterAbly carries out a presence message, as a whole or not at all.
func (s *shard) enterAbly(room *Room, m *Member, call *ablyCall) *ably.ErrorInfo {
	set := room.ably.presenceOf()
	owner := set.join(call.connectionID, call.generation, m)
	s.chargePresence(set)
	switch {
	case owner == nil:
		call.stale = true
		return nil
	case owner.done(call.serial):
		return nil
	}
	fresh := set.newcomers(owner, call.presence)
	if s.ably != nil && s.ably.maxMembers > 0 && fresh > 0 && len(set.members)+fresh > s.ably.maxMembers {
		return s.ably.crowded
	}
	if !s.spareAbly(call.presence) {
		return errAblyNoMemory
	}
	room.last = max(room.last, s.now.UnixMilli())
	members := len(set.members)
	events, again := set.carryOut(owner, call.serial, call.presence, room.last)
	owner.note(call.serial)
	s.chargePresence(set)
	s.account.members.Add(int64(len(set.members) - members))
	if len(events) > 0 {
		id := owner.id + ":" + strconv.FormatInt(call.serial.V, 10)
		s.tellPresence(room, &ably.ProtocolMessage{ID: id, ConnectionID: owner.id, Presence: events}, false)
	}
	if len(again) > 0 {
		s.tellAgain(room, m, again)
	}
	return nil
}

// spareAbly makes room in memory for members. Messages that are kept give way to those who are there.
func (s *shard) spareAbly(items []ably.PresenceMessage) bool {
	size := int64(ablyEntryBytes)
	for i := range items {
		size += int64(presenceCost(&items[i]))
	}
	for s.account.held.Load()+size > s.account.limit {
		if !s.forgetSomething() {
			return false
		}
	}
	return true
}

// chargePresence brings the account up to date.
func (s *shard) chargePresence(set *presenceSet) {
	s.account.add(set.size - set.charged)
	set.charged = set.size
}

// grantAbly gives an attachment other modes.
func (s *shard) grantAbly(state *ablyRoom, a *attachment, granted uint64) {
	sight := granted &^ a.granted & ably.ModePresenceSubscribe
	a.granted = granted
	if sight != 0 && state.presence.seesAnybody(a) {
		s.syncAbly(state, a)
	}
}

// tellPresence tells those who are attached, and remembers it. made: the server itself says so; whoever is too slow to hear it
// gets the whole set later instead.
func (s *shard) tellPresence(room *Room, m *ably.ProtocolMessage, made bool) {
	state := room.ably
	m.Action, m.Channel = ably.ActionPresence, ably.Some(room.name)
	p := &publication{state: state, message: *m}
	state.apply(p, room.last)
	s.keepAbly(p)
	for _, a := range state.attached {
		if !a.wants(p) {
			continue
		}
		frame := p.frame(a)
		if made && !a.member.outbox.takes(len(frame)) {
			state.presence.sync(a)
			continue
		}
		s.tally.deliveries++
		s.put(a.member, frame)
	}
	p.frames = [2][]byte{}
}

// tellAgain tells a connection alone of leaves that it does not know of.
func (s *shard) tellAgain(room *Room, m *Member, leaves []ably.PresenceMessage) {
	for _, a := range room.ably.attached {
		if a.member == m {
			s.put(m, ablyFrame(a.format(), &ably.ProtocolMessage{
				Action: ably.ActionPresence, Channel: ably.Some(a.name), ChannelSerial: room.ably.serial(room.last),
				ConnectionID: a.connectionID, Timestamp: room.last, Presence: leaves,
			}))
		}
	}
}

// returnAbly notes that a connection has another socket.
func (s *shard) returnAbly(room *Room, m *Member, call *ablyCall) {
	if set := room.ably.presence; set != nil && set.owners[call.connectionID] != nil {
		call.stale = set.join(call.connectionID, call.generation, m) == nil
		return
	}
	call.stale = true
}

// departAbly notes that a connection's socket has ended, or may not be present any more: its members leave now, or after a grace.
func (s *shard) departAbly(room *Room, call *ablyCall) {
	set := room.ably.presence
	if set == nil {
		return
	}
	owner := set.owners[call.connectionID]
	switch {
	case owner == nil || owner.generation > call.generation:
	case call.remain > 0:
		set.part(owner, s.now.Add(call.remain))
	default:
		s.dismiss(room, owner)
	}
}

// detachedAbly lets the members leave that a connection has on a channel from which its socket has detached altogether.
func (s *shard) detachedAbly(room *Room, m *Member, connectionID string) {
	state := room.ably
	if state.presence == nil || slices.ContainsFunc(state.attached, func(a *attachment) bool { return a.member == m }) {
		return
	}
	if owner := state.presence.owners[connectionID]; owner != nil && owner.socket == m {
		s.dismiss(room, owner)
	}
}

// dismiss takes a connection and its members out of a presence set, and tells the others.
func (s *shard) dismiss(room *Room, owner *presenceOwner) {
	room.last = max(room.last, s.now.UnixMilli())
	set := room.ably.presence
	leaves := set.depart(owner, room.last)
	s.chargePresence(set)
	s.account.members.Add(-int64(len(leaves)))
	size := 0
	for i := range leaves {
		// The members' data is told as far as it is bearable: all of it may be more than a queue holds.
		if size += presenceSize(&leaves[i]); size > presencePageBytes {
			leaves[i].Data, leaves[i].Encoding, leaves[i].Extras = ably.Data{}, "", nil
		}
	}
	for page := range slices.Chunk(leaves, presencePageMembers) {
		// Not an id of the connection's own: clients would take it for older than what the member did.
		id := "leave-" + room.ably.series + "-" + strconv.FormatUint(room.ably.count+1, 10)
		for i := range page {
			page[i].ID = id + ":" + strconv.Itoa(i)
		}
		s.tellPresence(room, &ably.ProtocolMessage{ID: id, ConnectionID: owner.id, Presence: page}, true)
	}
}

// presenceTick lets those leave whose grace is over, and goes on with what has not been told yet.
func (s *shard) presenceTick(room *Room) {
	set := room.ably.presence
	if set == nil {
		return
	}
	for owner := set.overdue(s.now); owner != nil; owner = set.overdue(s.now) {
		s.dismiss(room, owner)
	}
	set.syncing = slices.DeleteFunc(set.syncing, s.goOnSync(room.ably))
}

// presenceSync is how far an attachment has been told who is present.
type presenceSync struct {
	id    string // for the client to know the pages by
	after uint64 // number of the last member it has been told of
}

// sees reports whether an attachment is told of a connection's members.
func (a *attachment) sees(connectionID string) bool {
	return a.granted&ably.ModePresenceSubscribe != 0 || a.connectionID == connectionID
}

// seesAnybody reports whether there are members that the attachment is told of.
func (p *presenceSet) seesAnybody(a *attachment) bool {
	return p != nil && slices.ContainsFunc(p.order, func(m *presenceMember) bool { return a.sees(m.item.ConnectionID) })
}

// sync has an attachment be told of the whole set, from the beginning.
func (p *presenceSet) sync(a *attachment) {
	if a.sync == nil {
		p.syncing = append(p.syncing, a)
	}
	a.sync = &presenceSync{id: randomText(syncIDBytes)}
}

// forgetSync is for an attachment that has ended.
func (p *presenceSet) forgetSync(a *attachment) {
	if p != nil && a.sync != nil {
		a.sync = nil
		p.syncing = slices.DeleteFunc(p.syncing, func(b *attachment) bool { return a == b })
	}
}

// syncAbly tells an attachment who is present, as far as its outbox takes it. The rest follows with the ticks.
func (s *shard) syncAbly(state *ablyRoom, a *attachment) {
	set := state.presenceOf()
	set.sync(a)
	set.syncing = slices.DeleteFunc(set.syncing, func(b *attachment) bool { return a == b && s.goOnSync(state)(b) })
}

// goOnSync returns a function that tells an attachment more, and reports whether that was all. A page leaves half of the queue's
// room to others, or goes into an empty one.
func (s *shard) goOnSync(state *ablyRoom) func(*attachment) bool {
	return func(a *attachment) bool {
		for {
			members, size, last := state.presence.page(a)
			if !a.member.outbox.takes(size) {
				return false
			}
			message := ably.ProtocolMessage{Action: ably.ActionSync, Channel: ably.Some(a.name), ChannelSerial: a.sync.id + ":", Presence: members}
			if last > 0 {
				message.ChannelSerial += strconv.FormatUint(last, 10)
			}
			frame := ablyFrame(a.format(), &message)
			if !a.member.outbox.takes(len(frame)) {
				return false
			}
			s.put(a.member, frame)
			if a.sync.after = last; last == 0 {
				a.sync = nil
				return true
			}
		}
	}
}

// page returns the next members that an attachment is to be told of, not nil, about how many bytes they take, and the number of
// the last of them if more follow.
func (p *presenceSet) page(a *attachment) (members []ably.PresenceMessage, size int, last uint64) {
	members = []ably.PresenceMessage{}
	for _, m := range p.order[p.after(a.sync.after):] {
		if !a.sees(m.item.ConnectionID) {
			continue
		}
		cost := presenceCost(&m.item)
		if len(members) == presencePageMembers || len(members) > 0 && size+cost > presencePageBytes {
			return members, size, last
		}
		members = append(members, m.item)
		size += cost
		last = m.number
	}
	return members, size, 0
}

// check compares what a presence set keeps.
func (p *presenceSet) check(report *shardReport, state *ablyRoom) {
	wrong := func(format string, args ...any) {
		report.note("channel %q: %s", state.name, fmt.Sprintf(format, args...))
	}
	size, leaving, last := 0, 0, uint64(0)
	of := make(map[string]int)
	for _, m := range p.order {
		key := memberKey{m.item.ConnectionID, m.item.ClientID}
		if m.number <= last || p.members[key] != m || m.item.Action != ably.PresencePresent {
			wrong("member %q of %q is not kept as it should be", m.item.ClientID, m.item.ConnectionID)
		}
		last = m.number
		of[m.item.ConnectionID]++
		size += presenceCost(&m.item)
	}
	if len(p.members) != len(p.order) || last > p.entered {
		wrong("%d members, %d in order; the last is number %d of %d", len(p.members), len(p.order), last, p.entered)
	}
	for id, o := range p.owners {
		size += ablyEntryBytes
		for i := range o.left {
			size += presenceCost(&o.left[i].item)
		}
		if o.id != id || o.members != of[id] || (o.socket == nil) == o.leave.IsZero() {
			wrong("connection %q has %d members, %d are counted; its socket is gone: %t, and it leaves: %t", id, of[id], o.members, o.socket == nil, !o.leave.IsZero())
		}
		delete(of, id)
		if o.socket != nil {
			report.entered[o.socket]++
		}
		if !o.leave.IsZero() {
			leaving++
		}
	}
	for id, n := range of {
		wrong("%d members belong to the connection %q, which is not there", n, id)
	}
	if size != p.size || p.charged != p.size || leaving != p.leaving {
		wrong("presence takes %d bytes, %d are counted and %d charged; %d connections leave, %d are counted", size, p.size, p.charged, leaving, p.leaving)
	}
	for _, a := range state.attached {
		if (a.sync != nil) != slices.Contains(p.syncing, a) {
			wrong("an attachment under %q is still to be told who is present: %t, and is listed: %t", a.name, a.sync != nil, a.sync == nil)
		}
	}
	for _, a := range p.syncing {
		if !slices.Contains(state.attached, a) {
			wrong("an attachment under %q is to be told who is present, and is gone", a.name)
		}
	}
	report.members += int64(len(p.members))
	report.kept += int64(p.size)
}

// takes reports whether n bytes more leave at least as much room in the queue, or nothing is queued. Any goroutine.
func (o *Outbox) takes(n int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.queued == 0 || 2*n <= o.limit-o.queued
}
