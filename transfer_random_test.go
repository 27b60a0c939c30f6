package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Two random tests. In the first, model parties act exactly as the app does over links that are cut at random; in the
// second, anybody says anything at any time.

// maxCuts is how often the receiver of one run loses its socket.
const maxCuts = 4

// modelRelay is a relay of one transfer: the machine, the receiver's lane, and the two parties at their ends of links
// that keep order until they are cut.
type modelRelay struct {
	*transferStory
	rng  *rand.Rand
	lane []laneEntry // what the receiver's socket has yet to get, and frames kept for a replay

	toReceiver, toSender, fromReceiver []string // on the way
	receiverSocket                     string   // "" while it has none
	backAt                             time.Time
	sockets, cuts                      int
	completeLost                       bool // it went down with a socket, and the app does not say it again

	sender   modelSender
	receiver modelReceiver
}

type laneEntry struct {
	message string
	frame   bool // kept after it was written, until it is dropped
	written bool
}

// modelSender is the app's sending side.
type modelSender struct {
	accepted, flow       bool
	next, acked          int64
	again                []int64 // chunks asked for again
	endDue, ended        bool
	held                 int64 // chunk whose frame waits in the relay's hand; -1 none
	success, failed      bool
	completesBeforeEnded int
}

// modelReceiver is the app's receiving side.
type modelReceiver struct {
	has               map[int64]bool
	sinceAck          int
	lastNews          time.Time
	completed, failed bool
}

func newModelRelay(t *testing.T, seed uint64, chunks int64, flow bool) *modelRelay {
	m := &modelRelay{transferStory: newStory(t, chunks, flow), rng: rand.New(rand.NewPCG(seed, 0)), receiverSocket: "phone", sockets: 2}
	m.sender = modelSender{flow: flow, held: -1}
	m.receiver = modelReceiver{has: map[int64]bool{}}
	ev := m.event("accept phone")
	ev.Flow = flow
	m.relay(ev, "accept")
	m.receiver.lastNews = m.now
	return m
}

// relay steps an event and carries out all that the machine wants, as the program will.
func (m *modelRelay) relay(ev TransferEvent, message string) {
	effects, _ := m.step(ev) // checks and keeps the indexes
	for _, e := range effects {
		switch e.Kind {
		case EffectHold:
			m.sender.held = ev.Index
		case EffectForward, EffectCancel, EffectError, EffectEnd, EffectComplete, EffectAck:
			m.send(e, message)
		case EffectQueue:
			m.lane = append(m.lane, laneEntry{message: message, frame: true})
		case EffectRewrite:
			m.lane[m.frameEntry(int(e.N))].written = false
		case EffectDrop:
			for range e.N {
				i := m.frameEntry(0)
				m.lane = append(m.lane[:i], m.lane[i+1:]...)
			}
		case EffectReplay:
			for i := range m.lane {
				m.lane[i].written = false
			}
		}
	}
}

// frameEntry finds the n-th kept frame in the lane.
func (m *modelRelay) frameEntry(n int) int {
	for i, e := range m.lane {
		if e.frame {
			if n == 0 {
				return i
			}
			n--
		}
	}
	m.fatalf("the lane has too few frames")
	return -1
}

func (m *modelRelay) send(e TransferEffect, message string) {
	switch e.Kind {
	case EffectError:
		message = "error"
	case EffectEnd:
		message = "end"
	case EffectComplete:
		message = "complete"
	case EffectCancel:
		return // to tablet
	case EffectAck:
		message = fmt.Sprintf("ack %d/%d", e.N-1, e.N)
	}
	if e.To == endpoint("laptop") {
		m.toSender = append(m.toSender, message)
	} else {
		m.lane = append(m.lane, laneEntry{message: message})
	}
}

// writeOne writes the first entry of the lane that is not written to the receiver's socket.
func (m *modelRelay) writeOne() bool {
	if m.receiverSocket == "" || len(m.toReceiver) >= 6 || m.receiverSocket != m.tr.Receiver() && !m.tr.State().Over() {
		return false
	}
	for i := range m.lane {
		e := &m.lane[i]
		if e.written {
			continue
		}
		m.toReceiver = append(m.toReceiver, e.message)
		if !e.frame {
			m.lane = append(m.lane[:i], m.lane[i+1:]...)
			return true
		}
		e.written = true
		m.relay(TransferEvent{Kind: EventWritten}, "written")
		return true
	}
	return false
}

// senderActs lets the app's sending side do one thing, if the relay reads it.
func (m *modelRelay) senderActs() bool {
	s := &m.sender
	if s.success || s.failed || m.paused || !s.accepted {
		return false
	}
	switch {
	case s.held >= 0:
		index := s.held
		s.held = -1
		m.frame(index)
	case len(s.again) > 0:
		index := s.again[0]
		s.again = s.again[1:]
		m.frame(index)
	case s.next < m.tr.TotalChunks && (!s.flow || s.next-s.acked < 24):
		s.next++
		m.frame(s.next - 1)
	case s.next == m.tr.TotalChunks && (!s.flow || s.acked == s.next) && (s.endDue || !s.ended):
		s.endDue, s.ended = false, true
		m.relay(m.event("end laptop"), "end")
	default:
		return false
	}
	return true
}

func (m *modelRelay) frame(index int64) {
	text := fmt.Sprintf("frame %d", index)
	m.relay(m.event(text+" laptop"), text)
}

// senderHears lets the sender take one message.
func (m *modelRelay) senderHears() bool {
	s := &m.sender
	if len(m.toSender) == 0 {
		return false
	}
	var index, n int64
	message := m.toSender[0]
	m.toSender = m.toSender[1:]
	switch {
	case message == "accept":
		s.accepted = true
		m.relay(m.event("start laptop"), "start")
	case message == "complete":
		if s.ended {
			s.success = true // before that the app drops it
		} else {
			s.completesBeforeEnded++
		}
	case message == "error", message == "cancel":
		s.failed = !s.success
	case scan(message, "ack %d/%d", &index, &n):
		s.acked = max(s.acked, n)
	case scan(message, "resend %d/%d", &index, &n):
		for i := range index + 1 {
			if i >= index-n {
				s.again = append(s.again, i)
			}
		}
		s.endDue = true
	}
	return true
}

func scan(message, format string, to ...any) bool {
	n, _ := fmt.Sscanf(message, format, to...)
	return n == len(to)
}

// receiverHears lets the receiver take one message, as the app does: it acknowledges every eighth new chunk and the last.
func (m *modelRelay) receiverHears() bool {
	r := &m.receiver
	if len(m.toReceiver) == 0 {
		return false
	}
	message := m.toReceiver[0]
	m.toReceiver = m.toReceiver[1:]
	var index int64
	switch {
	case message == "error", message == "cancel":
		r.failed = !r.completed
	case message == "end":
		m.assemble()
	case scan(message, "frame %d", &index) && !r.has[index]:
		r.has[index] = true
		r.lastNews = m.now
		r.sinceAck++
		if m.sender.flow && (r.sinceAck == 8 || len(r.has) == int(m.tr.TotalChunks)) {
			r.sinceAck = 0
			m.fromReceiver = append(m.fromReceiver, fmt.Sprintf("ack %d/%d", index, len(r.has)))
		}
	}
	return true
}

// assemble completes the file, or asks for the chunks that are missing.
func (m *modelRelay) assemble() {
	r := &m.receiver
	if r.completed || r.failed {
		return
	}
	r.lastNews = m.now
	if len(r.has) == int(m.tr.TotalChunks) {
		r.completed = true
		m.fromReceiver = append(m.fromReceiver, "complete")
		return
	}
	first, last := int64(-1), int64(0)
	for i := range m.tr.TotalChunks {
		if !r.has[i] {
			last = i
			if first < 0 {
				first = i
			}
		}
	}
	m.fromReceiver = append(m.fromReceiver, fmt.Sprintf("resend %d/%d", last, last-first))
}

// relayHearsReceiver takes one message that the receiver has sent.
func (m *modelRelay) relayHearsReceiver() bool {
	if len(m.fromReceiver) == 0 || m.receiverSocket == "" {
		return false
	}
	message := m.fromReceiver[0]
	m.fromReceiver = m.fromReceiver[1:]
	ev := m.event(message + " x")
	ev.By = m.receiverSocket
	if ev.Kind == EventResend {
		fmt.Sscanf(message, "resend %d/", &ev.Index)
	}
	m.relay(ev, message)
	return true
}

// cut takes the receiver's socket away with all that was under way on it, both ways.
func (m *modelRelay) cut(away time.Duration) {
	m.cuts++
	m.relay(m.event("receiver-lost "+m.receiverSocket), "receiver lost")
	m.receiverSocket, m.backAt = "", m.now.Add(away)
	m.completeLost = m.completeLost || slices.Contains(m.fromReceiver, "complete")
	m.toReceiver, m.fromReceiver = nil, nil
	kept := m.lane[:0]
	for _, e := range m.lane {
		if e.frame {
			kept = append(kept, e)
		}
	}
	m.lane = kept
}

func (m *modelRelay) comeBack() {
	m.sockets++
	m.receiverSocket = fmt.Sprintf("phone%d", m.sockets)
	m.relay(m.event("receiver-back "+m.receiverSocket), "receiver back")
}

// run plays until nothing is left to do; cuts of the receiver's socket last up to longest.
func (m *modelRelay) run(longest time.Duration) {
	moves := []func() bool{m.writeOne, m.senderActs, m.senderHears, m.receiverHears, m.relayHearsReceiver}
	for idle := 0; !m.gone; {
		m.now = m.now.Add(time.Millisecond)
		if m.receiverSocket == "" && !m.now.Before(m.backAt) {
			m.comeBack()
		}
		if m.receiverSocket != "" && !m.tr.State().Over() && m.cuts < maxCuts && m.rng.IntN(60) == 0 {
			m.cut(time.Duration(m.rng.Int64N(int64(longest))))
		}
		if moves[m.rng.IntN(len(moves))]() {
			idle = 0
			continue
		}
		if idle++; idle < 40 {
			continue
		}
		m.now = m.now.Add(100 * time.Millisecond) // nothing moves: time does
		m.relay(TransferEvent{Kind: EventTick}, "tick")
		if m.receiverSocket != "" && m.now.Sub(m.receiver.lastNews) > 30*time.Second {
			m.assemble()
		}
		if m.now.Sub(transferEpoch) > 24*time.Hour {
			m.fatalf("no end in a day: %+v %+v", m.sender, m.receiver)
		}
	}
}

func TestTransferRandomCuts(t *testing.T) {
	repeated, lost := 0, 0
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		m := newModelRelay(t, seed, 1+rng.Int64N(80), seed%3 != 0)
		if seed%2 == 0 {
			// Back before anyone's patience ends, all absences together: the file always gets there and the sender hears of it.
			m.run(relayPauseTimeout/maxCuts - 100*time.Millisecond)
			if m.completeLost && m.sender.failed {
				lost++
				continue
			}
			if m.tr.State() != StateCompleted || !m.sender.success || len(m.receiver.has) != int(m.tr.TotalChunks) {
				m.fatalf("seed %d: %+v %+v", seed, m.sender, m.receiver)
			}
		} else {
			m.run(2 * relayGrace)
			if !m.sender.success && !m.sender.failed {
				m.fatalf("seed %d: the sender was not told: %+v", seed, m.sender)
			}
			if m.receiverSocket != "" && m.tr.State() != StateCompleted && m.tr.verdict != relayReceiverGone && !m.receiver.failed {
				m.fatalf("seed %d: the receiver was not told: %+v", seed, m.receiver)
			}
		}
		repeated += m.sender.completesBeforeEnded
	}
	if lost > 15 {
		t.Errorf("%d runs lost their complete: too many to be chance", lost)
	}
	if repeated == 0 {
		t.Error("no complete came before the end in any run: the model is too kind")
	}
}

// TestTransferRandomEvents: whatever anybody says in whatever order, twice or never, the frames stay within bounds
// (transferStory checks them at each step), the transfer ends, and each side is told by whatever ended it.
func TestTransferRandomEvents(t *testing.T) {
	ends := map[TransferState]int{}
	for seed := range uint64(1000) {
		rng := rand.New(rand.NewPCG(seed, 2))
		s := newStory(t, 1+rng.Int64N(70), rng.IntN(4) > 0)
		// Half of the runs leave out what ends a transfer: even then it must not go on for ever.
		busy := seed%2 == 0
		told := map[endpoint]bool{}
		for events := 0; !s.tr.State().Over(); events++ {
			s.wait(time.Duration(rng.Int64N(int64(4 * time.Second))))
			ev := s.randomEvent(rng, busy)
			was, receiver := s.tr.State(), s.tr.Receiver()
			effects, _ := s.step(ev)
			if s.tr.State().Over() {
				for _, e := range effects {
					if e.Kind == EffectForward || e.Kind == EffectError {
						told[e.To] = true
					}
				}
				told[ev.By] = true // who ends it knows
				if !told["laptop"] || was != StatePending && receiver != nil && !told[receiver] {
					s.fatalf("seed %d: told only %v", seed, told)
				}
			}
			if events > 100000 {
				s.fatalf("seed %d: no end after %v", seed, s.now.Sub(transferEpoch))
			}
		}
		ends[s.tr.State()]++
		for range 40 {
			s.wait(time.Second).step(s.randomEvent(rng, false))
		}
		if s.wait(time.Minute).do("tick"); !s.gone {
			s.fatalf("seed %d: not forgotten", seed)
		}
	}
	for state := StateCompleted; state < transferStates; state++ {
		if ends[state] == 0 {
			t.Errorf("no run ended %s", stateNames[state])
		}
	}
}

func (s *transferStory) randomEvent(rng *rand.Rand, busy bool) TransferEvent {
	who := []endpoint{"laptop", "phone", "tablet", "phone2", "thief"}
	ev := TransferEvent{
		Kind: TransferEventKind(rng.IntN(int(transferEvents))), By: who[rng.IntN(len(who))], Flow: rng.IntN(2) > 0,
		Index: rng.Int64N(s.tr.TotalChunks + 1), Total: s.tr.TotalChunks, Received: rng.Int64N(s.tr.TotalChunks + 1), Why: relayStopping,
	}
	if rng.IntN(2) > 0 {
		ev.Kind = EventFrame
		ev.By = "laptop"
	}
	ev.Size = frameSize(s.tr, ev.Index)
	switch ev.Kind {
	case EventComplete, EventCancel, EventAbort, EventSenderLost, EventReject:
		if busy || rng.IntN(8) > 0 {
			ev.Kind = EventAccept
		}
	case EventReceiverBack:
		if ev.By == endpoint("laptop") || ev.By == endpoint("thief") {
			ev.By = "phone2"
		}
	}
	if ev.Kind == EventSenderLost {
		ev.By = "laptop"
	}
	return ev
}
