package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// The people of these stories: laptop sends, phone and tablet are two sockets of the receiver's user, phone2 is the
// socket on which phone comes back, thief is nobody.

var transferEpoch = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

const testChunk = 10 // bytes

// transferStory drives one transfer and keeps what a caller would: the frames' indexes, as its buffer.
type transferStory struct {
	t      *testing.T
	tr     *Transfer
	now    time.Time
	kept   []int64 // the caller's buffer
	paused bool
	gone   bool        // EffectRemove was seen
	log    []storyLine // the last steps, for a failure's message
	steps  int
}

type storyLine struct {
	at      time.Duration
	event   TransferEvent
	effects []TransferEffect
	problem relayProblem
}

// newStory begins a transfer of so many chunks, the last of them shorter, offered to phone and tablet.
func newStory(t *testing.T, chunks int64, flow bool) *transferStory {
	req := &relayMessage{
		Kind: relayRequest, ID: "t1", Room: "room", ToUser: "bob", FlowControl: flow,
		FileSize: chunks*testChunk - 3, ChunkSize: testChunk, TotalChunks: chunks,
	}
	s := &transferStory{t: t, now: transferEpoch}
	var effects []TransferEffect
	s.tr, effects = newTransfer(req, "laptop", "alice", []endpoint{"phone", "tablet"}, s.now)
	if got := describe(effects, relayNoProblem); got != "request→phone request→tablet" {
		t.Fatalf("a new transfer: %s", got)
	}
	return s
}

// event builds an event from its name and sender, as in "frame 3 laptop", "ack 7/8 phone" (chunk 7, 8 received).
func (s *transferStory) event(text string) TransferEvent {
	f := strings.Fields(text)
	ev := TransferEvent{Kind: TransferEventKind(slices.Index(eventNames[:], f[0])), Total: s.tr.TotalChunks, Flow: true}
	if ev.Kind >= transferEvents {
		s.t.Fatalf("no such event: %s", text)
	}
	if len(f) > 1 {
		ev.By = f[len(f)-1]
	}
	switch ev.Kind {
	case EventFrame:
		fmt.Sscan(f[1], &ev.Index)
		ev.Size = frameSize(s.tr, ev.Index)
	case EventAck:
		fmt.Sscanf(f[1], "%d/%d", &ev.Index, &ev.Received)
	case EventResend:
		fmt.Sscan(f[1], &ev.Index)
	case EventAbort:
		ev.Why, ev.By = relayStopping, nil
	}
	return ev
}

func frameSize(tr *Transfer, index int64) int64 {
	return min(tr.ChunkSize, tr.FileSize-index*tr.ChunkSize)
}

// do steps one event and returns the effects in words.
func (s *transferStory) do(text string) string {
	s.t.Helper()
	return describe(s.step(s.event(text)))
}

// step steps an event, carries its effects out on the caller's buffer, and checks that the two agree.
func (s *transferStory) step(ev TransferEvent) ([]TransferEffect, relayProblem) {
	s.t.Helper()
	was := s.tr.State()
	effects, problem := s.tr.Step(ev, s.now)
	s.note(ev, effects, problem)
	for _, e := range effects {
		s.carryOut(e, ev)
	}
	if problem != relayNoProblem && (len(effects) > 0 || s.tr.State() != was) {
		s.fatalf("a refused event had an effect")
	}
	if len(s.kept) != s.tr.Buffered() || len(s.kept) > maxRelayUnacked {
		s.fatalf("the caller keeps %d frames, the transfer counts %d, at most %d", len(s.kept), s.tr.Buffered(), maxRelayUnacked)
	}
	if s.tr.State().Over() && (len(s.kept) > 0 || s.paused) {
		s.fatalf("ended with %d frames, sender paused: %v", len(s.kept), s.paused)
	}
	return effects, problem
}

// note keeps the last 30 steps.
func (s *transferStory) note(ev TransferEvent, effects []TransferEffect, problem relayProblem) {
	if s.log == nil {
		s.log = make([]storyLine, 30)
	}
	line := &s.log[s.steps%len(s.log)]
	s.steps++
	*line = storyLine{s.now.Sub(transferEpoch), ev, append(line.effects[:0], effects...), problem}
}

func (s *transferStory) carryOut(e TransferEffect, ev TransferEvent) {
	s.t.Helper()
	switch e.Kind {
	case EffectQueue:
		s.kept = append(s.kept, ev.Index)
	case EffectDrop:
		if e.N < 1 || int(e.N) > len(s.kept) {
			s.fatalf("%d of %d frames dropped", e.N, len(s.kept))
		}
		s.kept = s.kept[e.N:]
	case EffectRewrite:
		if int(e.N) >= len(s.kept) || s.kept[e.N] != ev.Index {
			s.fatalf("rewrite of place %d, which is not chunk %d in %v", e.N, ev.Index, s.kept)
		}
	case EffectReplay:
		if int(e.N) != len(s.kept) {
			s.fatalf("replay of %d frames, %d are kept", e.N, len(s.kept))
		}
	case EffectPause, EffectResume:
		if s.paused == (e.Kind == EffectPause) {
			s.fatalf("%s twice", effectNames[e.Kind])
		}
		s.paused = !s.paused
	case EffectRemove:
		s.gone = true
	}
	if (e.Kind <= EffectError) == (e.To == nil) && e.Kind != EffectReplay && e.Kind != EffectPause && e.Kind != EffectResume {
		s.fatalf("effect %s to %v", effectNames[e.Kind], e.To)
	}
}

func (s *transferStory) fatalf(format string, args ...any) {
	s.t.Helper()
	var story strings.Builder
	for i := max(0, s.steps-len(s.log)); i < s.steps; i++ {
		l := s.log[i%len(s.log)]
		fmt.Fprintf(&story, "%v %s %+v: %s\n", l.at, eventNames[l.event.Kind], l.event, describe(l.effects, l.problem))
	}
	s.t.Fatalf("%s, in state %s, after\n%s", fmt.Sprintf(format, args...), stateNames[s.tr.State()], &story)
}

// want steps an event and compares the effects in words.
func (s *transferStory) want(text, effects string) {
	s.t.Helper()
	if got := s.do(text); got != effects {
		s.fatalf("%s:\n got %s\nwant %s", text, got, effects)
	}
}

func (s *transferStory) wantState(want TransferState) {
	s.t.Helper()
	if s.tr.State() != want {
		s.fatalf("want %s", stateNames[want])
	}
}

// all steps several events whose effects do not matter here.
func (s *transferStory) all(events ...string) *transferStory {
	s.t.Helper()
	for _, e := range events {
		if got := s.do(e); strings.HasPrefix(got, "refused") {
			s.fatalf("%s: %s", e, got)
		}
	}
	return s
}

// frames steps the frames from first to last.
func (s *transferStory) frames(first, last int) *transferStory {
	s.t.Helper()
	for i := first; i <= last; i++ {
		s.all(fmt.Sprintf("frame %d laptop", i))
	}
	return s
}

func (s *transferStory) wait(d time.Duration) *transferStory {
	s.now = s.now.Add(d)
	return s
}

var eventNames = [transferEvents]string{
	"request", "accept", "reject", "start", "frame", "end", "ack", "resend", "complete", "cancel",
	"written", "receiver-lost", "receiver-back", "sender-lost", "abort", "tick",
}

var effectNames = [...]string{
	"forward", "request", "cancel", "ack", "end", "complete", "error",
	"queue", "rewrite", "hold", "drop", "replay", "pause", "resume", "remove",
}

var stateNames = [transferStates]string{
	"", "", "pending", "accepted", "transferring", "ending", "resending", "interrupted", "completed", "cancelled", "failed", "rejected",
}

// describe puts effects in words: "forward→phone drop3 error:relay_idle→laptop", "-" for none.
func describe(effects []TransferEffect, problem relayProblem) string {
	if problem != relayNoProblem {
		return "refused " + problem.String()
	}
	var words []string
	for _, e := range effects {
		w := effectNames[e.Kind]
		if e.Kind == EffectDrop || e.Kind == EffectRewrite || e.Kind == EffectAck || e.Kind == EffectReplay {
			w += fmt.Sprint(e.N)
		}
		if e.Kind == EffectError {
			w += ":" + strings.TrimPrefix(e.Why.String(), "relay_")
		}
		if e.To != nil {
			w += "→" + e.To.(string)
		}
		words = append(words, w)
	}
	if words == nil {
		return "-"
	}
	return strings.Join(words, " ")
}

// transferIn brings a transfer of three chunks into a state, by the shortest story that gets there.
func transferIn(t *testing.T, state TransferState) *transferStory {
	s := newStory(t, 3, true)
	accepted := []string{"accept phone"}
	transferring := append(accepted, "start laptop", "frame 0 laptop")
	ending := append(transferring, "frame 1 laptop", "frame 2 laptop", "end laptop")
	s.all(map[TransferState][]string{
		StatePending:      nil,
		StateAccepted:     accepted,
		StateTransferring: transferring,
		StateEnding:       ending,
		StateResending:    append(ending, "ack 1/2 phone", "resend 0 phone"),
		StateInterrupted:  append(transferring, "receiver-lost phone"),
		StateCompleted:    append(ending, "complete phone"),
		StateCancelled:    append(transferring, "cancel laptop"),
		StateFailed:       append(transferring, "abort"),
		StateRejected:     {"reject tablet", "reject phone"},
	}[state]...)
	s.wantState(state)
	return s
}
