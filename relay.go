package main

import (
	"slices"
	"sync/atomic"
	"time"
)

// The relay carries files of people without a direct path. A transfer is state of its room's shard; its frames and its
// control towards the receiver travel in a lane of the receiver's outbox. What happens when is decided in transfer.go.

// relayOp is the relay's part of an operation.
type relayOp struct {
	id      string        // of the transfer
	message *relayMessage // control
	header  relayFrame    // of a binary frame; ID is not used
	frame   []byte        // a binary frame as it goes out, with its WebSocket header; nil for control
	buffer  *relayBuffer  // what frame lies in, if that is to be given back; nil: nothing
	kept    bool          // the outcome: frame and buffer are the lane's now
	pro     bool          // the sender may send larger files
}

// relayLimits bound the relay. Immutable, shared.
type relayLimits struct {
	enabled     bool
	maxFile     int64   // bytes
	proMaxFile  int64   // bytes, for senders with PRO; 0: there is no PRO here
	perSender   int     // transfers of one connection at once; 0: no limit
	maxMemory   int64   // bytes that all transfers together may hold
	perTransfer rate    // bytes
	total       float64 // bytes a second of all transfers together; 0: no limit
	messages    rate    // frames and control messages of one connection
}

func newRelayLimits(cfg *RelayConfig) *relayLimits {
	l := &relayLimits{
		enabled:   cfg.Enabled,
		maxFile:   cfg.MaxFileBytes,
		perSender: cfg.MaxTransfersPerConnection,
		maxMemory: cfg.MaxMemory,
		// A burst of one frame: a transfer may not run ahead of its rate, only round to whole frames.
		perTransfer: rate{float64(cfg.MaxBytesPerSecond), relayHeaderBytes + maxRelayChunkBytes},
		total:       float64(cfg.MaxTotalBytesPerSecond),
		messages:    rate{float64(cfg.MessagesPerSecond), float64(cfg.MessagesPerSecond)},
	}
	if cfg.ProSecret != "" {
		l.proMaxFile = cfg.ProMaxFileBytes
	}
	return l
}

// relayCounters are what the relay counts. Any goroutine.
type relayCounters struct {
	reserved  atomic.Int64 // bytes that the live transfers may hold at most
	active    atomic.Int64
	started   atomic.Uint64
	completed atomic.Uint64
	bytes     atomic.Uint64 // of frames taken from senders, headers included
	strangers atomic.Uint64 // frames dropped: of an unknown transfer, or not the sender's
	problems  [relayProblemCount]atomic.Uint64
}

// relayed is a transfer and what the relay holds for it. Its shard's.
type relayed struct {
	transfer *Transfer
	request  []byte // the request's frame, for a receiver that comes back before it has answered
	lane     *lane
	at       *Member   // whose outbox the lane is attached to, nil: none
	involved []*Member // who knows the transfer's room by its id
	reserved int64     // bytes, given back when the transfer is over
	flooded  bool      // more control waits for the receiver than may
}

// relayHold is the reply to a frame for which there is no room: the sender's goroutine tries it again.
var relayHold = &Refusal{429, RateLimited, "hold"}

// handleRelay carries out what a client sent about a transfer. Shard.
func (s *shard) handleRelay(room *Room, o *op) *Refusal {
	relay, m := o.relay, o.member
	id := relay.id
	r := room.transfers[id]
	switch {
	case relay.frame == nil && relay.message.Kind == relayRequest && r == nil:
		if problem := s.beginTransfer(room, o); problem != relayNoProblem {
			s.relayProblem(m, id, problem)
		}
		return nil
	case r == nil:
		s.answerStranger(m, id, relayUnknownTransfer)
		return nil
	case relay.frame != nil:
		return s.stepFrame(room, r, o)
	}
	ev := relay.message.Event(m)
	switch relay.message.Kind {
	case relayAck, relayResend, relayComplete:
		// The receiver's page may have gone on with a new socket, before the old one was known to be dead.
		if r.at != nil && room.has(m) && r.follows(m) {
			s.step(room, r, TransferEvent{Kind: EventReceiverBack, By: m}, nil)
		}
	}
	if problem := s.step(room, r, ev, relay); problem != relayNoProblem {
		s.answerStranger(m, id, problem)
	}
	return nil
}

// beginTransfer checks a request and passes it on.
func (s *shard) beginTransfer(room *Room, o *op) relayProblem {
	m, request := o.member, o.relay.message
	limits := s.hubRules.relay
	switch {
	case s.stopping:
		return relayStopping
	case !limits.enabled: // since a moment ago
		return relayOff
	case !room.has(m):
		return relayNotInRoom
	}
	if request.FileSize > limits.maxFile {
		if limits.proMaxFile == 0 || request.FileSize > limits.proMaxFile {
			return relayOverLimit
		}
		if !o.relay.pro {
			return relayOverFreeLimit
		}
	}
	var receivers []endpoint
	involved := []*Member{m}
	for other := range room.members {
		if other.identity == request.ToUser && other != m && other.dialect == dialectLetShare {
			receivers = append(receivers, other)
			involved = append(involved, other)
		}
	}
	if receivers == nil {
		return relayNoReceiver
	}
	request.SetFrom(m.identity)
	text := s.relayText(request.Encode(s.now.UnixMilli()))
	reserve := int64(len(text)) + min(maxRelayUnacked, request.TotalChunks)*(request.ChunkSize+relayHeaderBytes+maxFrameHeader)
	if s.relayed.reserved.Add(reserve) > limits.maxMemory {
		s.relayed.reserved.Add(-reserve)
		return relayFull
	}
	if problem := m.beginSending(request.ID, o.room, limits.perSender); problem != relayNoProblem {
		s.relayed.reserved.Add(-reserve)
		return problem
	}
	for _, other := range involved[1:] {
		other.involve(request.ID, o.room)
	}
	transfer, effects := newTransfer(request, m, m.identity, receivers, s.now)
	r := &relayed{transfer: transfer, request: text, lane: &lane{}, involved: involved, reserved: reserve}
	if room.transfers == nil {
		room.transfers = make(map[string]*relayed)
	}
	room.transfers[request.ID] = r
	s.relaying[room.name] = room
	s.relayed.active.Add(1)
	s.relayed.started.Add(1)
	s.carryOutEffects(room, r, effects, nil)
	return relayNoProblem
}

// stepFrame hands a binary frame to its transfer. relayHold: there is no room for it yet.
func (s *shard) stepFrame(room *Room, r *relayed, o *op) *Refusal {
	s.noteWritten(room, r)
	ev := o.relay.header.Event(o.member)
	effects, problem := r.transfer.Step(ev, s.now)
	if problem != relayNoProblem {
		s.relayed.strangers.Add(1)
		s.answerStranger(o.member, r.transfer.ID, problem)
		return nil
	}
	var outcome *Refusal
	for _, e := range effects {
		switch e.Kind {
		case EffectHold:
			outcome = relayHold
		case EffectQueue:
			s.relayed.bytes.Add(uint64(len(o.relay.frame)))
		}
	}
	s.carryOutEffects(room, r, effects, o.relay)
	return outcome
}

// noteWritten tells the transfer of the frames that have been written since the last look: without acks that is
// what frees them.
func (s *shard) noteWritten(room *Room, r *relayed) {
	if r.at == nil {
		return
	}
	n := 0
	s.changeLane(r, func(l *lane) { n, l.written = l.written, 0 })
	for range n {
		s.step(room, r, TransferEvent{Kind: EventWritten}, nil)
	}
}

// step hands an event to a transfer and carries out the effects.
func (s *shard) step(room *Room, r *relayed, ev TransferEvent, relay *relayOp) relayProblem {
	effects, problem := r.transfer.Step(ev, s.now)
	s.carryOutEffects(room, r, effects, relay)
	return problem
}

// carryOutEffects does what the transfer decided. relay is what the event came with, nil when it came of itself.
func (s *shard) carryOutEffects(room *Room, r *relayed, effects []TransferEffect, relay *relayOp) {
	t := r.transfer
	// Before anything is said: a forwarded message goes to where the receiver is now.
	if to, _ := t.Receiver().(*Member); to != r.at {
		s.moveLane(r, to)
	}
	for _, e := range effects {
		to, _ := e.To.(*Member)
		switch e.Kind {
		case EffectForward:
			s.say(r, to, s.relayText(relay.message.Encode(s.now.UnixMilli())))
		case EffectRequest:
			r.involve(to)
			s.say(r, to, r.request)
		case EffectCancel:
			s.say(r, to, s.relayText(newRelayCancel(room.name, t.ID, "taken elsewhere").Encode(s.now.UnixMilli())))
		case EffectAck:
			s.say(r, to, s.relayText(newRelayAck(room.name, t.ID, e.N, t.TotalChunks).Encode(s.now.UnixMilli())))
		case EffectEnd:
			s.say(r, to, s.relayText(newRelayMessage(relayEnd, room.name, t.ID).Encode(s.now.UnixMilli())))
		case EffectComplete:
			s.say(r, to, s.relayText(newRelayMessage(relayComplete, room.name, t.ID).Encode(s.now.UnixMilli())))
		case EffectError:
			s.relayed.problems[e.Why].Add(1)
			s.say(r, to, s.relayText(encodeRelayError(e.Why, t.ID, s.now.UnixMilli())))
		case EffectQueue:
			relay.kept = true
			s.changeLane(r, func(l *lane) { l.keep(relay.frame, relay.buffer) })
		case EffectRewrite:
			s.changeLane(r, func(l *lane) { l.again(int(e.N)) })
		case EffectDrop:
			s.changeLane(r, func(l *lane) { l.drop(int(e.N)) })
		case EffectReplay:
			s.changeLane(r, (*lane).replay)
		case EffectRemove:
			s.forgetTransfer(room, r)
		}
	}
	if t.State().Over() && r.reserved > 0 {
		s.settleTransfer(r)
	}
	if r.flooded && !t.State().Over() {
		s.step(room, r, TransferEvent{Kind: EventAbort, Why: relayTooSlow}, nil)
	}
}

// settleTransfer gives back what a transfer held, as soon as it is over.
func (s *shard) settleTransfer(r *relayed) {
	s.relayed.reserved.Add(-r.reserved)
	s.relayed.active.Add(-1)
	r.reserved, r.request = 0, nil
	if r.transfer.State() == StateCompleted {
		s.relayed.completed.Add(1)
	}
	if sender, ok := r.transfer.Sender.(*Member); ok {
		sender.endSending()
	}
}

// forgetTransfer removes the last trace of a transfer.
func (s *shard) forgetTransfer(room *Room, r *relayed) {
	if at := r.at; at != nil {
		var unsaid [][]byte
		s.changeLane(r, func(l *lane) { unsaid = l.unsaid() })
		s.moveLane(r, nil)
		for _, frame := range unsaid { // a slow receiver must learn of the end all the same
			s.put(at, frame)
		}
	}
	for _, m := range r.involved {
		m.forget(r.transfer.ID, room.name)
	}
	delete(room.transfers, r.transfer.ID)
	if len(room.transfers) == 0 {
		delete(s.relaying, room.name)
	}
}

// moveLane attaches the transfer's lane to a member's outbox, nil: to none.
func (s *shard) moveLane(r *relayed, to *Member) {
	if r.at != nil {
		r.at.outbox.detachLane(r.lane)
	}
	r.at = to
	if to != nil {
		r.involve(to)
		to.outbox.attachLane(r.lane)
	}
}

// changeLane changes the lane where it is.
func (s *shard) changeLane(r *relayed, change func(*lane)) {
	if r.at == nil {
		change(r.lane)
		return
	}
	if r.at.outbox.change(r.lane, func(l *lane) { change(l); r.flooded = l.control > maxLaneControl }) {
		s.touched = append(s.touched, r.at.outbox)
	}
}

// say sends a control message: to the receiver in the lane, behind the frames before it, to others as signalling.
func (s *shard) say(r *relayed, to *Member, frame []byte) {
	if to == r.at {
		s.changeLane(r, func(l *lane) { l.say(frame) })
		return
	}
	s.put(to, frame)
}

// relayText makes a text frame of an encoded message.
func (s *shard) relayText(payload []byte) []byte {
	return textFrame(func(b []byte) []byte { return append(b, payload...) })
}

// relayProblem answers a request that was refused.
func (s *shard) relayProblem(m *Member, id string, why relayProblem) {
	s.relayed.problems[why].Add(1)
	s.put(m, s.relayText(encodeRelayError(why, id, s.now.UnixMilli())))
}

// answerStranger answers a message that has no business in a transfer, once for each connection and transfer.
func (s *shard) answerStranger(m *Member, id string, why relayProblem) {
	if m.firstAnswer(id) {
		s.relayProblem(m, id, why)
	} else {
		s.relayed.problems[why].Add(1)
	}
}

// relayJoined tells the room's transfers that a member is there: a receiver that was away may be back.
func (s *shard) relayJoined(room *Room, m *Member) {
	for _, r := range room.transfers {
		if m.identity == r.transfer.ReceiverID && m != r.transfer.Sender {
			s.relayBack(room, r, m)
		}
	}
}

// relayBack gives a transfer that has lost its receiver a new socket of the same user.
func (s *shard) relayBack(room *Room, r *relayed, m *Member) {
	if state := r.transfer.State(); state == StateInterrupted || state == StatePending || state.Over() {
		s.step(room, r, TransferEvent{Kind: EventReceiverBack, By: m}, nil)
	}
}

// relayLeft tells the room's transfers that a member's socket is gone.
func (s *shard) relayLeft(room *Room, m *Member) {
	for _, r := range room.transfers {
		switch {
		case r.transfer.Sender == endpoint(m):
			s.step(room, r, TransferEvent{Kind: EventSenderLost}, nil)
		case r.at == m && m.outbox.ended() == MemoryPressure:
			// Its frames are what the memory was needed for: they cannot wait for it to come back.
			s.step(room, r, TransferEvent{Kind: EventAbort, Why: relayFull}, nil)
		}
		s.step(room, r, TransferEvent{Kind: EventReceiverLost, By: m}, nil)
		if next := r.successor(room); next != nil && m.identity == r.transfer.ReceiverID {
			s.relayBack(room, r, next)
		}
	}
}

// successor is the member to which the receiver's user has moved, when its old socket was not known to be dead yet: one
// that came after the transfer had begun. Those that were asked are other devices. nil: there is none.
func (r *relayed) successor(room *Room) *Member {
	for m := range room.members {
		if r.follows(m) {
			return m
		}
	}
	return nil
}

// follows reports whether a member of the room may be the receiver's next socket.
func (r *relayed) follows(m *Member) bool {
	return m.identity == r.transfer.ReceiverID && m != r.transfer.Sender && !slices.Contains(r.involved, m)
}

// relayTick runs the deadlines of all transfers of the shard.
func (s *shard) relayTick() {
	for _, room := range s.relaying {
		for _, r := range room.transfers {
			s.noteWritten(room, r)
			s.step(room, r, TransferEvent{Kind: EventTick}, nil)
		}
		if room.empty() {
			delete(s.rooms, room.name)
		}
	}
}

// involve lets a member know the transfer by its id.
func (r *relayed) involve(m *Member) {
	m.involve(r.transfer.ID, r.transfer.Room)
	if !slices.Contains(r.involved, m) {
		r.involved = append(r.involved, m)
	}
}

// relayPacer spaces the frames of all transfers together: each takes the next free moment, in the order of asking, so
// that none starves. Any goroutine.
type relayPacer struct {
	next atomic.Int64 // when the next frame may go, ns by the server's clock
}

// reserve takes the moment for n bytes at perSecond bytes a second, 0: no limit, and returns how long it is until then.
func (p *relayPacer) reserve(n int, perSecond float64, now time.Duration) time.Duration {
	if perSecond == 0 {
		return 0
	}
	cost := int64(float64(n) / perSecond * float64(time.Second))
	for {
		next := p.next.Load()
		begin := max(next, int64(now))
		if p.next.CompareAndSwap(next, begin+cost) {
			return time.Duration(begin) - now
		}
	}
}
