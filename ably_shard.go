package main

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"letshare/ably"
)

// ablyCallKind says what an Ably client, or a REST request, wants of a channel.
type ablyCallKind uint8

// The calls.
const (
	ablyAttach   ablyCallKind = iota
	ablyDetach                // the client wants to leave, or its connection has ended
	ablyPublish               // one publication
	ablyGrant                 // the capability has changed: the attachment has other modes
	ablyPresence              // one presence message
	ablyChange                // an update, delete or append of a message
	ablyAnnotate              // annotations of a message
	ablySync                  // the client wants to be told again who is present
	ablyReturn                // the connection has another socket
	ablyDepart                // the connection's socket has ended, or it may not be present any more
	ablyLook                  // a REST request, or the journal, looks at a room
)

// ablyCall is the Ably side of an operation (op.ably), which is always asked: the caller fills in what it wants, the shard
// what came of it, and the caller reads that after the answer. Between the two it belongs to the shard.
type ablyCall struct {
	kind       ablyCallKind
	attachment *attachment         // ablyAttach; ablyDetach and ablyGrant name it by member and name
	name       string              // of the channel, as the client writes it
	granted    uint64              // ablyGrant
	attach     attachWishes        // ablyAttach
	quiet      bool                // ablyDetach: nobody is there to be told
	message    *publication        // ablyPublish, ablyChange, ablyAnnotate
	rights     changeRights        // ablyChange
	look       func(*shard, *Room) // ablyLook; the room is nil if there is none

	// The connection that is, or was, present: ablyPresence, ablyReturn, ablyDepart, and ablyDetach with its connectionId alone,
	// "" to leave presence as it is.
	connectionID string
	generation   uint64                 // of its socket
	serial       ably.Opt[int64]        // ablyPresence: msgSerial
	presence     []ably.PresenceMessage // ablyPresence
	remain       time.Duration          // ablyDepart: for how long its members stay

	failure *ably.ErrorInfo // out; nil: done
	stale   bool            // out, ablyPresence: the connection has a newer socket; ablyReturn: or it is not known here any more
	done    *publication    // out, ablyPublish, ablyChange, ablyAnnotate: what holds the messages, an earlier one if they had been published before
}

// attachWishes is what a client wants at its attaching beside the modes.
type attachWishes struct {
	serial    string            // up to which it has seen everything, "" if it is new
	rewind    rewind            // how much of the past it wants, if it is new
	params    map[string]string // to be confirmed
	filter    *ablyFilter       // which messages it wants; nil: all
	occupancy occupancyMetrics  // which figures it wants to be told
}

// ablyAccount counts what all shards keep for Ably's clients, and bounds it. Any goroutine.
type ablyAccount struct {
	budget      *Budget      // what is kept is part of it; immutable
	limit       int64        // bytes; immutable
	held        atomic.Int64 // bytes of messages that are kept
	channels    atomic.Int64 // rooms with Ably state
	attachments atomic.Int64
	members     atomic.Int64 // of all presence sets
	audience    metaAudience // who listens to the server itself
	counts      ablyCounts   // for /stats
}

// add changes how many bytes are kept.
func (a *ablyAccount) add(n int) {
	a.held.Add(int64(n))
	a.budget.total.Add(int64(n))
}

// ablyShard is what a shard keeps for its rooms with Ably state. Owned by run.
type ablyShard struct {
	rooms     map[string]*Room // those with Ably state; nil until the first
	kept      publications     // of all rooms, oldest first
	persisted publications     // the same for persisted namespaces, which are kept for longer
	gone      int64            // bytes of those among them that their rooms have dropped, at the most
	lifecycle []ably.Message   // channels that have opened or closed, not yet told; nil: none
}

// handleAbly carries out a call and answers.
func (s *shard) handleAbly(o *op) {
	call := o.ably
	room := s.rooms[o.room]
	if call.kind == ablyLook {
		call.look(s, room)
		o.reply <- nil
		return
	}
	if room == nil && (call.kind == ablyAttach || call.kind == ablyPublish || call.kind == ablyPresence) {
		room = newRoom(o.room)
		s.rooms[o.room] = room
	}
	if room == nil && (call.kind == ablyChange || call.kind == ablyAnnotate) {
		call.failure = errAblyNoMessage
	}
	if room != nil {
		s.carryOutAbly(room, o.member, call)
		if room.empty() {
			delete(s.rooms, o.room)
		}
	}
	o.reply <- nil
}

func (s *shard) carryOutAbly(room *Room, m *Member, call *ablyCall) {
	if room.ably == nil {
		switch call.kind {
		case ablyReturn:
			call.stale = true
			return
		case ablyDetach, ablyGrant, ablySync, ablyDepart:
			return
		case ablyChange, ablyAnnotate:
			call.failure = errAblyNoMessage
			return
		}
		s.openAbly(room)
	}
	switch call.kind {
	case ablyAttach:
		call.failure = s.attachAbly(room, call)
	case ablyDetach:
		s.detachAbly(room, m, call)
	case ablyPublish:
		call.done = s.publishAbly(room, call.message)
	case ablyGrant:
		if a := room.ably.find(m, call.name); a != nil {
			s.grantAbly(room.ably, a, call.granted)
		}
	case ablyPresence:
		call.failure = s.enterAbly(room, m, call)
	case ablyChange:
		call.failure = s.changeAbly(room, call)
	case ablyAnnotate:
		call.failure = s.annotateAbly(room, call)
	case ablySync:
		if a := room.ably.find(m, call.name); a != nil {
			s.syncAbly(room.ably, a)
		}
	case ablyReturn:
		s.returnAbly(room, m, call)
	case ablyDepart:
		s.departAbly(room, call)
	}
}

// openAbly gives a room Ably state.
func (s *shard) openAbly(room *Room) {
	room.ably = newAblyRoom(room.name, randomText(seriesBytes))
	room.ably.seen = s.now.UnixMilli()
	if s.channels.rooms == nil {
		s.channels.rooms = make(map[string]*Room)
	}
	s.channels.rooms[room.name] = room
	s.account.channels.Add(1)
	s.account.counts.add(statChannels, 1)
	s.account.add(ablyEntryBytes)
}

// attachAbly lets a client in. ATTACHED, what it has missed, who is present and then everything new stand in its outbox in this order: nothing
// of the channel may precede ATTACHED, and nothing may be missing behind it.
func (s *shard) attachAbly(room *Room, call *ablyCall) *ably.ErrorInfo {
	a, state := call.attachment, room.ably
	before := state.find(a.member, a.name)
	if before == nil && s.ably != nil && s.ably.maxAttachments > 0 && len(state.attached) >= s.ably.maxAttachments {
		return s.ably.full
	}
	answer := ably.ProtocolMessage{
		Action: ably.ActionAttached, Channel: ably.Some(a.name), Flags: a.granted, Params: call.attach.params,
		ChannelSerial: state.serial(max(room.last, s.now.UnixMilli())),
	}
	var backlog [][]byte
	switch {
	case before != nil:
		// The same socket goes on: what came meanwhile has gone over it, or is about to.
		before.granted, before.watches, before.told = a.granted, a.watches, ""
		answer.Flags |= ably.FlagResumed
	case call.attach.serial != "":
		missed, lost := state.after(call.attach.serial)
		if lost == nil {
			backlog, lost = s.backlog(a, missed)
		}
		if answer.Error = lost; lost == nil {
			answer.Flags |= ably.FlagResumed
		}
	case call.attach.rewind != rewind{}:
		if backlog, answer.Error = s.backlog(a, state.rewound(call.attach.rewind, s.now)); len(backlog) > 0 {
			answer.Flags |= ably.FlagHasBacklog
		}
	}
	attached := cmp.Or(before, a)
	present := state.presence.seesAnybody(attached)
	if present {
		answer.Flags |= ably.FlagHasPresence
	}
	s.put(a.member, ablyFrame(a.format(), &answer))
	for _, frame := range backlog {
		s.put(a.member, frame)
		s.tally.deliveries++
	}
	if before == nil {
		state.attached = append(state.attached, a)
		s.account.attachments.Add(1)
		s.attachedMeta(room)
	}
	if state.presence.forgetSync(attached); present {
		s.syncAbly(state, attached)
	}
	if attached.watches != 0 {
		state.watched = true
		s.tellOccupancy(state, attached, room.occupancy())
	}
	return nil
}

// backlog makes the frames of what an attachment has missed. More than half a queue of it is too much: its client would be
// cut for reading slowly, come back, and be cut again.
func (s *shard) backlog(a *attachment, missed []*publication) (frames [][]byte, lost *ably.ErrorInfo) {
	if a.granted&(ably.ModeSubscribe|ably.ModeAnnotationSubscribe) == 0 {
		return nil, nil
	}
	size, room := 0, a.member.outbox.room()/2
	for _, p := range missed {
		if !a.wants(p) {
			continue
		}
		frame := p.encode(a)
		if p.subjects = nil; frame == nil {
			continue
		}
		if size += len(frame); size > room {
			return nil, errAblyLongBacklog
		}
		frames = append(frames, frame)
	}
	return frames, nil
}

// detachAbly lets a client go.
func (s *shard) detachAbly(room *Room, m *Member, call *ablyCall) {
	if room.ably.detach(m, call.name, s.now) {
		s.account.attachments.Add(-1)
		s.keepMissing(room)
	}
	s.detachedAbly(room, m, call.connectionID)
	if !call.quiet {
		s.put(m, ablyFrame(m.dialect.format(), &ably.ProtocolMessage{Action: ably.ActionDetached, Channel: ably.Some(call.name)}))
	}
}

// publishAbly publishes what an Ably client or a REST request says, and returns what holds it: the same again is not published again.
func (s *shard) publishAbly(room *Room, p *publication) *publication {
	if earlier := room.ably.published(p); earlier != nil {
		return earlier
	}
	room.last = max(room.last, s.now.UnixMilli())
	s.place(room, p)
	s.tally.messages += uint64(len(p.message.Messages))
	for i := range p.message.Messages {
		s.crossToLetShare(room, p, i)
	}
	return p
}

// crossToAbly lets the Ably clients of a room hear what a LetShare member has said.
func (s *shard) crossToAbly(room *Room, m *Message) {
	s.place(room, fromLetShare(room, m))
}

// place gives a publication its serials, keeps it and delivers it to those who are attached.
func (s *shard) place(room *Room, p *publication) {
	p.state = room.ably
	p.message.Channel = ably.Some(room.name)
	before := room.ably.said
	room.ably.apply(p, room.last)
	s.keepAbly(p)
	if p.about == nil {
		room.ably.said = p.message.ChannelSerial
	}
	if s.journal != nil && p.about == nil && s.ably != nil && s.ably.namespace(room.name).Persisted {
		s.journal.record(p, before)
	}
	sent := 0
	for _, a := range room.ably.attached {
		if !a.wants(p) {
			continue
		}
		if frame := p.frame(a); frame != nil {
			sent++
			s.put(a.member, frame)
		}
	}
	s.tally.deliveries += uint64(sent)
	if sent > 0 {
		s.account.counts.take(&p.message, statSent, statSentPresence, sent)
	}
	p.frames, p.subjects = [2][]byte{}, nil // those who need it later are few
}

// keepAbly keeps a publication for those who are cut off, as long as there is memory for it; the oldest go first, of its channel
// and then of all.
func (s *shard) keepAbly(p *publication) {
	queue, ttl := &s.channels.kept, s.historyOf(p.state.name)
	if ttl <= 0 {
		p.state.lose(p)
		return
	}
	if ttl == s.ably.persisted {
		queue = &s.channels.persisted
	}
	s.thinOut(p.state, p.size)
	for s.account.held.Load()+int64(p.size) > s.account.limit {
		if !s.forgetSomething() {
			p.state.lose(p)
			return
		}
	}
	s.account.add(p.size)
	queue.push(p)
	p.state.keep(p)
	s.account.add(p.state.adopt(p))
}

// thinOut drops what is oldest of a channel until n bytes more are within what one channel may keep.
func (s *shard) thinOut(state *ablyRoom, n int) {
	for int64(state.size+n) > s.account.limit/ablyChannelShare {
		p := state.oldest()
		if p == nil {
			return
		}
		state.forgetThrough(p)
		s.channels.gone += int64(p.size)
	}
	// The shard's own queues still hold it. To look through them is worth while only now and then.
	if s.channels.gone <= s.account.limit/ablyChannelShare {
		return
	}
	s.channels.gone = 0
	for _, queue := range []*publications{&s.channels.kept, &s.channels.persisted} {
		queue.keepOnly(func(p *publication) bool {
			kept := p.state.keeps(p)
			if !kept {
				s.account.add(-p.size)
			}
			return kept
		})
	}
}

// historyOf is how long messages of a channel are kept.
func (s *shard) historyOf(channel string) time.Duration {
	switch {
	case s.ably == nil:
		return 0
	case s.ably.namespace(channel).Persisted:
		return s.ably.persisted
	}
	return s.ably.history
}

// forgetSomething drops the oldest publication of the shard. False: it keeps none.
func (s *shard) forgetSomething() bool {
	for _, queue := range []*publications{&s.channels.kept, &s.channels.persisted} {
		if queue.len() > 0 {
			s.forget(queue)
			return true
		}
	}
	return false
}

// forget drops the oldest publication of a queue. It is the oldest of its room too, unless a reload has changed for how long
// the room's messages are kept; then everything older goes with it.
func (s *shard) forget(queue *publications) {
	p := queue.pop()
	p.state.forgetThrough(p)
	s.account.add(-p.size)
}

// ablyTick forgets what is old: publications, and the state of rooms that no Ably client has used for a while.
func (s *shard) ablyTick() {
	s.now = time.Now()
	var history, persisted, patience time.Duration
	if s.ably != nil {
		history, persisted, patience = s.ably.history, s.ably.persisted, s.ably.connectionState
	}
	s.forgetUntil(&s.channels.kept, s.now.Add(-history).UnixMilli())
	s.forgetUntil(&s.channels.persisted, s.now.Add(-persisted).UnixMilli())
	for name, room := range s.channels.rooms {
		s.presenceTick(room)
		s.occupancyTick(room)
		s.metaTick(room)
		if !room.ably.idle(s.now, patience) {
			continue
		}
		room.ably = nil
		delete(s.channels.rooms, name)
		s.account.channels.Add(-1)
		s.account.add(-ablyEntryBytes)
		if room.empty() {
			delete(s.rooms, name)
		}
	}
}

// forgetUntil drops what was published before a time, in ms since 1970.
func (s *shard) forgetUntil(queue *publications, oldest int64) {
	for queue.len() > 0 && queue.first().message.Timestamp < oldest {
		s.forget(queue)
	}
}

// wants reports whether the attachment is to have the publication.
func (a *attachment) wants(p *publication) bool {
	if p.isPresence() {
		return a.sees(p.message.ConnectionID)
	}
	if p.superseded() {
		return false
	}
	mode := ably.ModeSubscribe
	if p.message.Action == ably.ActionAnnotation {
		mode = ably.ModeAnnotationSubscribe
	}
	return a.granted&mode != 0 && (a.echo || a.connectionID != p.message.ConnectionID)
}

// format is the codec that the attachment's client speaks.
func (a *attachment) format() ably.Format { return a.member.dialect.format() }

// frame is the publication's frame for an attachment, shared by all that attached under the room's own name. nil: a filter
// leaves nothing of it.
func (p *publication) frame(a *attachment) []byte {
	format := a.format()
	if a.name != p.state.name {
		return p.encode(a)
	}
	if p.frames[format] == nil {
		p.frames[format] = ablyFrame(format, p.content())
	}
	return p.frames[format]
}

// encode makes the frame for an attachment alone. nil: its filter leaves nothing of it.
func (p *publication) encode(a *attachment) []byte {
	message := *p.content()
	message.Channel = ably.Some(a.name)
	if a.filter != nil && message.Action == ably.ActionMessage {
		if p.subjects == nil {
			p.subjects = filterSubjects(message.Messages)
		}
		if message.Messages = a.filter.pick(message.Messages, p.subjects); len(message.Messages) == 0 {
			return nil
		}
	}
	return ablyFrame(a.format(), &message)
}

// check compares what the shard keeps for Ably's clients.
func (s *shard) checkAbly(r *shardReport) {
	for name, room := range s.channels.rooms {
		if s.rooms[name] != room || room.ably == nil {
			r.note("room %q is listed among those with Ably state, and is not there or has none", name)
			continue
		}
		r.kept += ablyEntryBytes
		r.attachments += int64(len(room.ably.attached))
		r.channels++
		room.ably.check(r, room)
	}
	for _, queue := range []*publications{&s.channels.kept, &s.channels.persisted} {
		for _, p := range queue.all() {
			r.kept += int64(p.size)
		}
	}
	for name, room := range s.rooms {
		if room.ably != nil && s.channels.rooms[name] != room {
			r.note("room %q has Ably state and is not listed", name)
		}
	}
}

// check compares what a room keeps.
func (r *ablyRoom) check(report *shardReport, room *Room) {
	wrong := func(format string, args ...any) {
		report.note("channel %q: %s", room.name, fmt.Sprintf(format, args...))
	}
	last, ids := r.lost, 0
	for _, p := range r.kept.all() {
		if p.number <= last || p.state != r {
			wrong("publication %d stands behind %d, or belongs elsewhere", p.number, last)
		}
		last = p.number
		for range p.ids {
			ids++
		}
		if p.key != "" {
			ids++
		}
	}
	if last > r.count {
		wrong("publication %d is kept, %d are counted", last, r.count)
	}
	if len(r.ids) > ids {
		wrong("%d ids are remembered of %d messages", len(r.ids), ids)
	}
	if r.presence != nil {
		r.presence.check(report, r)
	}
	for i, a := range r.attached {
		report.attached[a.member]++
		if slices.IndexFunc(r.attached, func(b *attachment) bool { return b.member == a.member && b.name == a.name }) != i {
			wrong("a connection is attached twice under %q", a.name)
		}
	}
}
