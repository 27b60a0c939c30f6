package main

import (
	"hash/maphash"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// opKind says what an operation does.
type opKind uint8

// The operations. The shard answers each in the member's own dialect, in order with what else it delivers.
const (
	opSubscribe   opKind = iota // member listens to event in room
	opUnsubscribe               // member stops listening to event in room; "" is the whole room
	opPublish                   // member says message in room
	opRefuse                    // the dialect refuses a message about room; the answer keeps its place in the order
	opLeave                     // member's connection has ended; no answer
	opRelay                     // member says something about a file transfer in room
	opAbly                      // an Ably client, or a REST request, says something about the room; always asked
	opTick                      // a second has passed
	opReload                    // the rules have changed: the shard takes the new ones
	opCheck                     // the shard reports on its rooms
	opStop                      // the shard ends
)

// op is an operation on a room, a value on its way from a connection's read goroutine to a shard.
type op struct {
	kind    opKind
	member  *Member
	room    string
	event   string
	id      string              // the client's own id of its message, raw JSON; "": none
	seq     uint64              // counts the member's operations, for Member.gone
	message *Message            // opPublish
	refusal *Refusal            // opRefuse
	relay   *relayOp            // opRelay
	ably    *ablyCall           // opAbly
	reply   chan<- *Refusal     // ask: gets the outcome, nil for done; capacity 1. nil: nobody waits
	report  chan<- *shardReport // opCheck; never full
}

// codec is a dialect's side of delivery: it makes frames for its members. Its functions run on shards and keep no state.
type codec struct {
	// message encodes, or completes, the frame of an applied message, shared by all members of the dialect.
	// nil: the dialect cannot express it.
	message func(room string, m *Message) []byte
	// reply encodes the answer to an operation: done when refusal is nil. members is how many are in the
	// room now. nil: nothing is to be said.
	reply func(o *op, refusal *Refusal, members int, now time.Time) []byte
}

// Hub routes operations to a fixed number of shards by the hash of the room's name.
type Hub struct {
	seed     maphash.Seed
	shards   []*shard
	rules    atomic.Pointer[hubRules] // in force, or about to be in all shards
	done     sync.WaitGroup
	stopTick chan struct{} // closed by close
}

// hubRules are what the shards go by. Immutable, shared.
type hubRules struct {
	rooms    *roomLimits
	relay    *relayLimits
	codecs   [dialectCount]codec
	refused  func(Reason)   // counts a refusal; any goroutine
	relayed  *relayCounters // what the relay counts
	ably     *ablyRules     // nil: the Ably protocol is off
	account  *ablyAccount   // of what is kept for Ably's clients
	journal  *ablyJournal   // of persisted namespaces; nil: none
	flushAt  int            // bytes put into one outbox, after which a shard flushes at the latest
	announce time.Duration  // after which a room hears of a user who died; 0: never
	lowered  bool           // rooms may be over their limits, which were higher once
	stopping bool           // the server stops: no transfer begins
}

// newHub starts n shards.
func newHub(n int, rules *hubRules) *Hub {
	h := &Hub{seed: maphash.MakeSeed(), stopTick: make(chan struct{})}
	h.rules.Store(rules)
	for range n {
		s := &shard{
			mailbox:  make(chan op, mailboxOps),
			latest:   &h.rules,
			hubRules: rules,
			rooms:    make(map[string]*Room),
			relaying: make(map[string]*Room),
			writer:   newInlineWriter(),
		}
		h.shards = append(h.shards, s)
		h.done.Go(s.run)
	}
	h.done.Go(h.tick)
	return h
}

// tick tells every shard once a second that time has passed, until close.
func (h *Hub) tick() {
	ticker := time.NewTicker(tickInterval)
	defer ticker.Stop()
	for {
		select {
		case <-h.stopTick:
			return
		case <-ticker.C:
		}
		for _, s := range h.shards {
			select {
			case s.mailbox <- op{kind: opTick}:
			case <-h.stopTick:
				return
			}
		}
	}
}

// close ends the shards and waits for them. Nobody may post any more.
func (h *Hub) close() {
	close(h.stopTick)
	for _, s := range h.shards {
		s.mailbox <- op{kind: opStop}
	}
	h.done.Wait()
}

func (h *Hub) shard(room string) *shard {
	return h.shards[maphash.String(h.seed, room)%uint64(len(h.shards))]
}

// tryPost hands the operation to its shard unless the mailbox is full. Any goroutine but a shard's.
func (h *Hub) tryPost(o op) bool {
	select {
	case h.shard(o.room).mailbox <- o:
		return true
	default:
		return false
	}
}

// post hands the operation to its shard and waits while the mailbox is full: that is the backpressure on
// a publisher. Any goroutine but a shard's.
func (h *Hub) post(o op) { h.shard(o.room).mailbox <- o }

// totals is what all shards have counted.
type totals struct {
	rooms                          int64
	messages, deliveries, unspoken uint64
}

// totals adds up the shards' counters. Any goroutine.
func (h *Hub) totals() totals {
	var sum totals
	for _, s := range h.shards {
		sum.rooms += s.roomCount.Load()
		sum.messages += s.messages.Load()
		sum.deliveries += s.deliveries.Load()
		sum.unspoken += s.unspoken.Load()
	}
	return sum
}

// shard owns a part of the rooms. It never blocks: it puts frames into outboxes and goes on.
type shard struct {
	// Immutable.
	mailbox chan op // never closed
	latest  *atomic.Pointer[hubRules]

	// Owned by run.
	*hubRules
	rooms    map[string]*Room
	relaying map[string]*Room // those with transfers
	channels ablyShard        // what is kept for Ably
	missing  map[string]*Room // those that miss users; nil until the first
	missed   int              // users, in all of them
	writer   *inlineWriter
	touched  []*Outbox // to be flushed
	batch    int       // bytes of frames put since the last flush, at most so many for one outbox
	counted  []byte    // the frame that was put last; batch has it
	now      time.Time // read once for each batch
	current  op        // under way; a field so that it needs no object of its own
	tally    tally     // since the last batch

	// Atomic, written once for each batch.
	roomCount  atomic.Int64
	messages   atomic.Uint64 // publishes accepted
	deliveries atomic.Uint64 // frames of messages put into outboxes
	unspoken   atomic.Uint64 // deliveries left out because the member's dialect cannot express the message
}

// tally counts within one batch, without atomics.
type tally struct{ messages, deliveries, unspoken uint64 }

// run is the shard's goroutine. It works off what is in its mailbox, lets the others run once so that what they have
// under way comes along, and then flushes each outbox that it touched, with one write for all its frames.
func (s *shard) run() {
	for {
		s.current = <-s.mailbox
		s.now = time.Now()
		if !s.handle(&s.current) || !s.drain() {
			return
		}
		runtime.Gosched()
		if !s.drain() {
			return
		}
		s.flush()
	}
}

// drain works off what waits in the mailbox, a mailbox full at the most. False: the shard is to end.
func (s *shard) drain() bool {
	for range mailboxOps {
		select {
		case s.current = <-s.mailbox:
			if !s.handle(&s.current) {
				return false
			}
			if s.batch >= s.flushAt {
				s.flush()
			}
		default:
			return true
		}
	}
	return true
}

// flush sends what was put and publishes the counters.
func (s *shard) flush() {
	for i, o := range s.touched {
		o.flush(s.writer)
		s.touched[i] = nil
	}
	s.touched, s.batch, s.counted = s.touched[:0], 0, nil
	s.current = op{} // a shard at rest keeps no message and no member alive
	s.roomCount.Store(int64(len(s.rooms)))
	if s.tally != (tally{}) {
		s.messages.Add(s.tally.messages)
		s.deliveries.Add(s.tally.deliveries)
		s.unspoken.Add(s.tally.unspoken)
		s.tally = tally{}
	}
}

// handle carries out one operation. False: the shard is to end.
func (s *shard) handle(o *op) bool {
	switch o.kind {
	case opStop:
		return false
	case opTick:
		s.relayTick()
		s.leaveTick()
		s.ablyTick()
		return true
	case opReload:
		s.takeRules(o.reply)
		return true
	case opCheck:
		o.report <- s.check()
		return true
	case opAbly:
		s.handleAbly(o)
		return true
	}
	room := s.rooms[o.room]
	if room == nil {
		room = newRoom(o.room)
		if o.kind == opSubscribe {
			s.rooms[o.room] = room // a transfer begins between members: in a room that exists
		}
	}
	refusal := s.carryOut(room, o)
	if room.empty() {
		delete(s.rooms, o.room)
	}
	if o.kind != opLeave && o.kind != opRelay {
		if refusal != nil {
			s.refused(refusal.Reason)
		}
		s.put(o.member, s.codecs[o.member.dialect].reply(o, refusal, room.population(), s.now))
	}
	if o.reply != nil {
		o.reply <- refusal
	}
	return true
}

// carryOut changes the room. A room that is not in the map is empty and is thrown away afterwards.
func (s *shard) carryOut(room *Room, o *op) *Refusal {
	switch o.kind {
	case opSubscribe:
		return s.subscribe(room, o)
	case opUnsubscribe:
		if o.event == "" {
			room.leave(o.member)
		} else {
			room.unsubscribe(o.member, o.event)
		}
		if !room.has(o.member) {
			o.member.gone(o.room, o.seq)
			s.keepMissing(room)
		}
	case opPublish:
		if refusal := room.admit(o.member); refusal != nil {
			return refusal
		}
		s.publish(room, o)
	case opRefuse:
		return o.refusal
	case opLeave:
		if room.has(o.member) {
			room.leave(o.member)
			s.died(room, o.member)
			s.keepMissing(room)
		}
		s.relayLeft(room, o.member)
	case opRelay:
		return s.handleRelay(room, o)
	}
	return nil
}

// subscribe lets a member in. A place that it does not get is given back.
func (s *shard) subscribe(room *Room, o *op) *Refusal {
	here := room.has(o.member)
	refusal := room.subscribe(o.member, o.event, s.hubRules.rooms)
	switch {
	case refusal == nil && !here:
		s.returned(room, o.member)
		s.relayJoined(room, o.member)
	case refusal != nil && !here:
		o.member.gone(o.room, o.seq)
	}
	return refusal
}

// publish delivers a message: one frame for each dialect in the room, shared by all its members.
func (s *shard) publish(room *Room, o *op) {
	s.tally.messages++
	message, forOne := o.message, room.isForOne(o.message)
	room.apply(o.member, message, s.now, func(m *Member) {
		d := m.dialect
		if !message.encoded[d] {
			message.encoded[d] = true
			message.frames[d] = s.codecs[d].message(o.room, message)
		}
		f := queuedFrame{bytes: message.frames[d]}
		if f.bytes == nil {
			s.tally.unspoken++
			return
		}
		if forOne {
			f.message = message // the outbox's from now on
		}
		s.tally.deliveries++
		s.enqueue(m, f)
	})
	if room.ably != nil {
		s.crossToAbly(room, message)
	}
}

// put gives a member a frame; nil is nothing.
func (s *shard) put(m *Member, frame []byte) {
	if frame != nil {
		s.enqueue(m, queuedFrame{bytes: frame})
	}
}

// enqueue puts a frame into the member's outbox. What many share counts once: the batch is bounded for the sake of each client's queue,
// and none gets it twice. (A message for one may lie where the one before it lay.)
func (s *shard) enqueue(m *Member, f queuedFrame) {
	if f.message != nil || !sameFrame(f.bytes, s.counted) {
		s.counted = f.bytes
		s.batch += len(f.bytes)
	}
	if m.outbox.enqueue(f) {
		s.touched = append(s.touched, m.outbox)
	}
}
