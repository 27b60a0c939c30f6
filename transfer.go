package main

import "time"

// Transfer is one file on its way through the relay: a pure state machine without socket, clock or goroutine.
// Whoever owns it (the shard of its room) hands it events, carries out the effects, and keeps the frames' bytes.
//
//	pending ──accept──▶ accepted ──start, frame──▶ transferring ──end──▶ ending ──complete──▶ completed
//	   │                   │                          │   ▲                │
//	 reject             (receiver's socket lost,      │   └────resend──────┤ resending: frames, then end
//	   ▼                 back within the grace)       ▼                    ▼
//	rejected            interrupted ◀──────────────────────────────────────┘
//
// Every state but the four ends can also go to cancelled (either party) or failed (the server's decision).
//
// The replay buffer. Frames wait in a first-in first-out buffer, at most maxRelayUnacked of them, until the receiver
// has them for certain; after a lost socket all that are left are written again. The machine keeps their chunk
// indexes alone, oldest first; the caller keeps the bytes in the same order. When is a frame surely there?
//
//   - With flow control an ack names the chunk just written to the file (chunk_index) and how many were written so far
//     (received_chunks). One socket delivers in order, and a replay keeps the order, so the receiver has seen
//     each frame that was queued before the named one: the buffer is dropped up to and including it.
//     The count alone does not say which chunks it counts, as resends arrive out of order; it frees frames only
//     when it equals the number of chunks: then all are there.
//   - A re-sent chunk whose frame is still in the buffer takes no second place: the frame kept is written again and the
//     new bytes are discarded. So each chunk stands in the buffer once, where its first copy stands, and the rule above
//     holds for resends too. (The app acknowledges new chunks only: a buffer full of copies would never be freed.)
//   - For the same reason a full window may stand still after a replay: see openWindow.
//   - Without flow control (old clients) no ack comes: a frame is free when it is written to the receiver's socket.
//     What a lost socket then swallows, the receiver asks for with resend.
//
// What no server can mend: a complete that goes down with the receiver's socket is not said again by the app, and that all
// chunks were acknowledged is no proof that the file was saved. The sender is told a failure then, never a false success.
//
// That it ends. What restarts the idle clock (a chunk sent for the first time in order, a higher count of acknowledged
// chunks, accept, the first end) can happen only a bounded number of times, and so can frames (relayFrameBudget).
type Transfer struct {
	// Immutable after newTransfer.
	ID          string // the sender's transfer_id, unique among the server's transfers
	Room        string
	Sender      endpoint
	SenderID    string // identity (userId) of the sender
	ReceiverID  string // identity of the receiver, by which a receiver that comes back is known
	FileSize    int64  // bytes
	ChunkSize   int64  // bytes of every chunk but the last
	TotalChunks int64
	asksFlow    bool // the request offered flow control

	// Owned by whoever calls Step: one goroutine, the room's shard.
	state     TransferState
	before    TransferState // while interrupted: the state to go back to
	asked     []askedSocket // the receiver's sockets that got the request, or the transfer later
	receiver  endpoint      // the socket that accepted, or came back; nil before and while interrupted
	lost      endpoint      // the receiver's last lost socket: what it still says is passed over
	flow      bool          // flow control agreed in request and accept
	ended     bool          // the sender said end
	nextChunk int64         // chunks that came in unbroken order from 0
	acked     int64         // chunks that the sender has been told the receiver has
	frames    int64         // frames accepted, re-sent ones included
	buffer    [maxRelayUnacked]int64
	buffered  int // used places of buffer, oldest first

	// Deadlines; the zero time is none. For the same goroutine.
	answerUntil time.Time // pending: the receiver's answer
	graceUntil  time.Time // the receiver has no socket: its return
	pausedUntil time.Time // the sender is not read: room in the buffer
	idleUntil   time.Time // any progress
	forgetAt    time.Time // ended: the end of its memory

	// The step under way. For the same goroutine.
	now     time.Time
	event   TransferEvent    // here, so that no step allocates
	effects []TransferEffect // valid until the next Step
	problem relayProblem
	verdict relayProblem // ended: what an absent receiver is to be told when it comes back
}

// endpoint is the caller's name of one connection (a *Member); it is only ever compared. nil is none.
type endpoint any

// askedSocket is a socket of the receiver's user that knows of the transfer.
type askedSocket struct {
	socket endpoint
	open   bool // it may still accept
}

// TransferState is where a transfer stands.
type TransferState uint8

// The states. From StateCompleted on, a transfer has ended and holds no frames.
const (
	stateStay         TransferState = iota // in a rule: no change
	stateBefore                            // in a rule: back to where the transfer stood when the receiver was lost
	StatePending                           // the request has been passed on
	StateAccepted                          // the receiver waits for the first frame
	StateTransferring                      // frames flow
	StateEnding                            // the sender has sent all; the receiver assembles
	StateResending                         // the receiver has asked for chunks again
	StateInterrupted                       // the receiver has lost its socket, the grace runs
	StateCompleted
	StateCancelled
	StateFailed
	StateRejected
	transferStates // how many
)

// Over reports whether the transfer has ended: it no longer counts against anyone's limits.
func (s TransferState) Over() bool { return s >= StateCompleted }

// TransferEventKind says what happened.
type TransferEventKind uint8

// The events: first what the parties say, then what the server sees.
const (
	EventRequest TransferEventKind = iota // a second request with the same id
	EventAccept                           // uses Flow
	EventReject
	EventStart
	EventFrame // uses Index, Size, Total
	EventEnd
	EventAck    // uses Index, Received, Total (0: not given)
	EventResend // uses Index (the highest one asked for), Total
	EventComplete
	EventCancel

	EventWritten      // the oldest frame not yet written is now written whole to the receiver's present socket
	EventReceiverLost // By: a socket of the receiver is gone
	EventReceiverBack // By: the socket on which the receiver's user (ReceiverID) is now
	EventSenderLost   // the sender's socket is gone
	EventAbort        // uses Why: the server must end it (shutdown, memory)
	EventTick         // time has passed; once a second
	transferEvents    // how many
)

// TransferEvent is one thing that happened to a transfer.
type TransferEvent struct {
	Kind     TransferEventKind
	By       endpoint     // who said it, or whose socket it is about
	Flow     bool         // accept: flow control
	Index    int64        // chunk_index
	Size     int64        // payload bytes of a frame
	Total    int64        // total_chunks as the message says
	Received int64        // received_chunks
	Why      relayProblem // abort
}

// TransferEffectKind says what the caller must do.
type TransferEffectKind uint8

// The effects. To is the socket that is meant; N a number.
const (
	EffectForward  TransferEffectKind = iota // pass the message of this event on To, behind the frames queued before it
	EffectRequest                            // send the request (again) To
	EffectCancel                             // send a cancel of the server's own To
	EffectAck                                // send an ack of N chunks (index N-1) To the sender, for the receiver
	EffectEnd                                // send an end To the receiver, for the sender, behind all frames
	EffectComplete                           // send a complete To the sender (again)
	EffectError                              // send an error with the transfer's id To; Why says which

	EffectQueue   // append the frame of this event to the buffer and write it in turn
	EffectRewrite // discard this event's bytes; write the buffered frame at place N (0 is the oldest) again if it was written
	EffectHold    // no room: keep this frame unread or aside, and step it again after EffectResume
	EffectDrop    // drop the N oldest frames of the buffer
	EffectReplay  // write the whole buffer to the receiver's socket, oldest first

	EffectPause  // stop reading the sender's socket; its liveness is suspended
	EffectResume // read it again
	EffectRemove // forget the transfer
)

// TransferEffect is one thing that the caller must do. Effects are carried out in order.
type TransferEffect struct {
	Kind TransferEffectKind
	To   endpoint
	N    int64
	Why  relayProblem
}

// newTransfer begins the transfer that req describes (a parsed, permitted request), from the sender's socket to each of
// the receiver's sockets in the room (at least one). The effects pass the request on.
func newTransfer(req *relayMessage, sender endpoint, senderID string, receivers []endpoint, now time.Time) (*Transfer, []TransferEffect) {
	t := &Transfer{
		ID: req.ID, Room: req.Room, Sender: sender, SenderID: senderID, ReceiverID: req.ToUser,
		FileSize: req.FileSize, ChunkSize: req.ChunkSize, TotalChunks: req.TotalChunks, asksFlow: req.FlowControl,
		state: StatePending, now: now, answerUntil: now.Add(relayRequestTimeout), idleUntil: now.Add(relayIdleTimeout),
	}
	for _, r := range receivers {
		t.asked = append(t.asked, askedSocket{r, true})
		t.emit(TransferEffect{Kind: EffectRequest, To: r})
	}
	return t, t.effects
}

// State says where the transfer stands. For the owner's goroutine, as all methods.
func (t *Transfer) State() TransferState { return t.state }

// Receiver is the socket that the frames go to; nil before accept and while the receiver is away.
func (t *Transfer) Receiver() endpoint { return t.receiver }

// Acknowledged is how many chunks the sender has been told the receiver has.
func (t *Transfer) Acknowledged() int64 { return t.acked }

// Buffered is how many frames the caller must be holding for this transfer.
func (t *Transfer) Buffered() int { return t.buffered }

// transferAction is one step of a rule. False ends the rule: neither the actions after it nor the change of state happen.
type transferAction func(*Transfer, *TransferEvent) bool

// transferRule is what an event does in a state.
type transferRule struct {
	do   []transferAction
	next TransferState
}

func acts(a ...transferAction) []transferAction { return a }

// eventParties says who may send what: the authority of the roles. Events of the server have no party.
var eventParties = [transferEvents]transferRole{
	EventAccept:   roleReceiver,
	EventReject:   roleReceiver,
	EventStart:    roleSender,
	EventFrame:    roleSender,
	EventEnd:      roleSender,
	EventAck:      roleReceiver,
	EventResend:   roleReceiver,
	EventComplete: roleReceiver,
	EventCancel:   roleSender | roleReceiver,
}

// transferRules is the protocol: what each event does in each state. What is not listed follows liveRules or
// endedRules; what is listed nowhere is refused in a live state (relayBadState) and passed over in an ended one.
var transferRules = [transferStates][transferEvents]transferRule{
	StatePending: {
		EventAccept:       {acts(bindReceiver, forwardToSender, cancelOthers, noteProgress), StateAccepted},
		EventReject:       {acts(unlessOthersAsked, forwardToSender), StateRejected},
		EventCancel:       {acts(unlessOthersAsked, forwardToPeer), StateCancelled},
		EventReceiverLost: {acts(forgetAsked, graceIfNobodyAsked), stateStay},
		EventReceiverBack: {acts(askIfNobodyAsked), stateStay},
	},
	StateAccepted: {
		EventStart: {acts(forwardToReceiver), StateTransferring},
		EventFrame: {acts(checkFrame, rewriteIfBuffered, holdIfFull, queueFrame), StateTransferring},
	},
	StateTransferring: {
		EventStart:    {acts(passOver), stateStay},
		EventFrame:    {acts(checkFrame, rewriteIfBuffered, holdIfFull, queueFrame), stateStay},
		EventEnd:      {acts(noteEnd, forwardToReceiver), StateEnding},
		EventAck:      {acts(dropAcknowledged, forwardToSender), stateStay},
		EventResend:   {acts(checkResend, forwardToSender), StateResending},
		EventComplete: {acts(ackAllToSender, forwardToSender), StateCompleted},
	},
	StateEnding: {
		EventStart:    {acts(passOver), stateStay},
		EventFrame:    {acts(checkFrame, rewriteIfBuffered, holdIfFull, queueFrame), stateStay},
		EventEnd:      {acts(forwardToReceiver), stateStay},
		EventAck:      {acts(dropAcknowledged, forwardToSender), stateStay},
		EventResend:   {acts(checkResend, forwardToSender), StateResending},
		EventComplete: {acts(ackAllToSender, forwardToSender), StateCompleted},
	},
	StateResending: {
		EventStart:    {acts(passOver), stateStay},
		EventFrame:    {acts(checkFrame, rewriteIfBuffered, holdIfFull, queueFrame), stateStay},
		EventEnd:      {acts(noteEnd, forwardToReceiver), StateEnding},
		EventAck:      {acts(dropAcknowledged, forwardToSender), stateStay},
		EventResend:   {acts(checkResend, forwardToSender), stateStay},
		EventComplete: {acts(ackAllToSender, forwardToSender), StateCompleted},
	},
	// The sender goes on and is not told: the receiver may be back before the window is full.
	StateInterrupted: {
		EventStart:        {acts(startMeanwhile), stateStay},
		EventFrame:        {acts(checkFrame, rewriteIfBuffered, holdIfFull, queueFrame, startMeanwhile), stateStay},
		EventEnd:          {acts(endMeanwhile, noteEnd), stateStay},
		EventWritten:      {acts(passOver), stateStay}, // into a socket that is gone: replayed
		EventReceiverLost: {acts(forgetAsked), stateStay},
		EventReceiverBack: {acts(moveReceiver, replayFrames, openWindow, endAfterReplay), stateBefore},
	},
	// The app's sender drops a complete that comes before it has sent end: it gets it again then.
	StateCompleted: {
		EventEnd: {acts(repeatComplete), stateStay},
	},
}

// liveRules hold in every state before the end that has no rule of its own for the event.
var liveRules = [transferEvents]transferRule{
	EventRequest:      {acts(refuseSecondRequest), stateStay},
	EventCancel:       {acts(forwardToPeer), StateCancelled},
	EventWritten:      {acts(dropWritten), stateStay},
	EventReceiverLost: {acts(forgetAsked, loseReceiver), StateInterrupted},
	EventReceiverBack: {acts(moveReceiver, replayFrames, openWindow, endAfterReplay), stateStay}, // before its old socket was known to be dead
	EventSenderLost:   {acts(failBecause(relaySenderGone)), StateFailed},
	EventAbort:        {acts(abortTransfer), StateFailed},
	EventTick:         {acts(checkDeadlines), stateStay},
}

// endedRules hold in every ended state. All else was on its way when the end came, and is passed over.
var endedRules = [transferEvents]transferRule{
	EventRequest:      {acts(refuseSecondRequest), stateStay},
	EventReceiverBack: {acts(tellVerdict), stateStay},
	EventTick:         {acts(removeWhenDue), stateStay},
}

// Step takes one event and returns what is to be done, in order, and whether the one who sent it (ev.By) is refused.
// The effects are valid until the next Step. A refused event changes nothing.
// A frame whose effects hold neither EffectQueue nor EffectHold is to be discarded.
func (t *Transfer) Step(ev TransferEvent, now time.Time) ([]TransferEffect, relayProblem) {
	t.now, t.event, t.effects, t.problem = now, ev, t.effects[:0], relayNoProblem
	if may := eventParties[ev.Kind]; may != 0 {
		who := t.roleOf(ev.By)
		if who == roleOther {
			t.answerOther(&t.event)
			return t.effects, relayNoProblem
		}
		if who&may == 0 {
			return nil, relayNotYours
		}
	}
	was := t.state
	t.apply(t.ruleFor(ev.Kind), &t.event)
	if t.state.Over() && !was.Over() {
		t.settle()
	}
	return t.effects, t.problem
}

// ruleFor finds what an event does in the present state.
func (t *Transfer) ruleFor(kind TransferEventKind) transferRule {
	if r := transferRules[t.state][kind]; r.do != nil {
		return r
	}
	if t.state.Over() {
		return endedRules[kind]
	}
	if r := liveRules[kind]; r.do != nil {
		return r
	}
	return transferRule{do: refusedHere}
}

var refusedHere = acts(func(t *Transfer, _ *TransferEvent) bool { return t.refuse(relayBadState) })

// apply runs a rule's actions and, if none of them ended it, changes the state.
func (t *Transfer) apply(r transferRule, ev *TransferEvent) {
	for _, do := range r.do {
		if !do(t, ev) {
			return
		}
	}
	switch r.next {
	case stateStay:
	case stateBefore:
		t.state = t.before
	default:
		t.state = r.next
	}
}

// transferRole is what a socket is to a transfer. A set of bits, so that a rule can admit several.
type transferRole uint8

const (
	roleStranger transferRole = 0
	roleSender   transferRole = 1 << iota
	roleReceiver              // the socket that accepted; until one has, each socket that was asked
	roleOther                 // another socket of the receiver's user that was asked
)

// roleOf says what the socket is to this transfer.
func (t *Transfer) roleOf(s endpoint) transferRole {
	switch {
	case s == nil:
		return roleStranger
	case s == t.Sender:
		return roleSender
	case s == t.receiver:
		return roleReceiver
	case s == t.lost:
		return roleOther
	}
	for _, a := range t.asked {
		if a.socket == s && t.state == StatePending {
			return roleReceiver
		} else if a.socket == s {
			return roleOther
		}
	}
	return roleStranger
}

// answerOther is for a socket of the receiver's user that is not the one in the transfer: it lost the race to accept
// or is closing. It can do nothing to the transfer; who accepts too late is sent away.
func (t *Transfer) answerOther(ev *TransferEvent) {
	if ev.Kind == EventAccept && !t.state.Over() && ev.By != t.lost {
		t.emit(TransferEffect{Kind: EffectCancel, To: ev.By})
	}
}

func (t *Transfer) emit(e TransferEffect) { t.effects = append(t.effects, e) }

// refuse ends the rule and answers the one who spoke.
func (t *Transfer) refuse(why relayProblem) bool {
	t.problem = why
	return false
}

// tellReceiver emits one effect to the receiver, or while pending to each socket that may still accept.
func (t *Transfer) tellReceiver(kind TransferEffectKind, why relayProblem) {
	if t.receiver != nil {
		t.emit(TransferEffect{Kind: kind, To: t.receiver, Why: why})
	}
	if t.state != StatePending {
		return
	}
	for _, a := range t.asked {
		if a.open {
			t.emit(TransferEffect{Kind: kind, To: a.socket, Why: why})
		}
	}
}

// fail ends the transfer by the server's decision and tells both parties. The last act of a rule.
func (t *Transfer) fail(why relayProblem) bool {
	if why != relaySenderGone {
		t.emit(TransferEffect{Kind: EffectError, To: t.Sender, Why: why})
	}
	t.tellReceiver(EffectError, why)
	t.verdict = why
	t.state = StateFailed
	return false
}

// settle follows every end: no frame is kept, nobody is held up, and the transfer is remembered for a while.
func (t *Transfer) settle() {
	t.drop(t.buffered)
	t.letSenderGoOn()
	keep := relayEndedRetention
	if t.state == StateCompleted {
		keep = relayCompletedRetention
	}
	t.forgetAt = t.now.Add(keep)
	if t.state == StateCancelled {
		t.verdict = relayCancelled
	}
	if t.graceUntil.After(t.forgetAt) {
		t.forgetAt = t.graceUntil // the receiver is away: if it comes back, it is told
	}
}

// drop frees the n oldest frames.
func (t *Transfer) drop(n int) {
	if n == 0 {
		return
	}
	copy(t.buffer[:], t.buffer[n:t.buffered])
	t.buffered -= n
	t.emit(TransferEffect{Kind: EffectDrop, N: int64(n)})
}

// place says where in the buffer the chunk's frame stands, 0 the oldest; -1 if it does not.
func (t *Transfer) place(index int64) int {
	for i, b := range t.buffer[:t.buffered] {
		if b == index {
			return i
		}
	}
	return -1
}

// letSenderGoOn resumes reading the sender, if it was paused.
func (t *Transfer) letSenderGoOn() {
	if !t.pausedUntil.IsZero() {
		t.pausedUntil = time.Time{}
		t.emit(TransferEffect{Kind: EffectResume, To: t.Sender})
	}
}
