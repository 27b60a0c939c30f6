package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestTransferTable is the protocol in full: what each event does in each state. A line is: event → state: effects.
// "=" stands for the same state.
func TestTransferTable(t *testing.T) {
	over := `
		request laptop       → =: refused relay_duplicate
		accept phone         → =: -
		reject phone         → =: -
		start laptop         → =: -
		frame 1 laptop       → =: -
		end laptop           → =: -
		ack 0/1 phone        → =: -
		resend 0 phone       → =: -
		complete phone       → =: -
		cancel laptop        → =: -
		cancel phone         → =: -
		written              → =: -
		receiver-lost phone  → =: -
		receiver-back phone2 → =: -
		sender-lost laptop   → =: -
		abort                → =: -
		tick                 → =: -`
	table := map[TransferState]string{
		StatePending: `
		request laptop       → =: refused relay_duplicate
		accept phone         → accepted: forward→laptop cancel→tablet
		accept tablet        → accepted: forward→laptop cancel→phone
		reject phone         → =: -
		start laptop         → =: refused relay_bad_state
		frame 0 laptop       → =: refused relay_bad_state
		end laptop           → =: refused relay_bad_state
		ack 0/1 phone        → =: refused relay_bad_state
		resend 0 phone       → =: refused relay_bad_state
		complete phone       → =: refused relay_bad_state
		cancel laptop        → cancelled: forward→phone forward→tablet
		cancel phone         → =: -
		written              → =: -
		receiver-lost phone  → =: -
		receiver-back phone2 → =: -
		sender-lost laptop   → failed: error:sender_gone→phone error:sender_gone→tablet
		abort                → failed: error:stopping→laptop error:stopping→phone error:stopping→tablet
		tick                 → =: -`,
		StateAccepted: `
		request laptop       → =: refused relay_duplicate
		accept phone         → =: refused relay_bad_state
		accept tablet        → =: cancel→tablet
		reject phone         → =: refused relay_bad_state
		start laptop         → transferring: forward→phone
		frame 0 laptop       → transferring: queue
		end laptop           → =: refused relay_bad_state
		ack 0/1 phone        → =: refused relay_bad_state
		resend 0 phone       → =: refused relay_bad_state
		complete phone       → =: refused relay_bad_state
		cancel laptop        → cancelled: forward→phone
		cancel phone         → cancelled: forward→laptop
		written              → =: -
		receiver-lost phone  → interrupted: -
		receiver-lost tablet → =: -
		receiver-back phone2 → =: -
		sender-lost laptop   → failed: error:sender_gone→phone
		abort                → failed: error:stopping→laptop error:stopping→phone
		tick                 → =: -`,
		StateTransferring: `
		request laptop       → =: refused relay_duplicate
		accept phone         → =: refused relay_bad_state
		accept tablet        → =: cancel→tablet
		reject phone         → =: refused relay_bad_state
		start laptop         → =: -
		frame 1 laptop       → =: queue
		frame 0 laptop       → =: rewrite0
		end laptop           → ending: forward→phone
		ack 0/1 phone        → =: drop1 forward→laptop
		resend 0 phone       → resending: forward→laptop
		complete phone       → completed: ack3→laptop forward→laptop drop1
		cancel laptop        → cancelled: forward→phone drop1
		cancel phone         → cancelled: forward→laptop drop1
		written              → =: -
		receiver-lost phone  → interrupted: -
		receiver-lost tablet → =: -
		receiver-back phone2 → =: replay1→phone2
		sender-lost laptop   → failed: error:sender_gone→phone drop1
		abort                → failed: error:stopping→laptop error:stopping→phone drop1
		tick                 → =: -`,
		StateEnding: `
		request laptop       → =: refused relay_duplicate
		accept phone         → =: refused relay_bad_state
		reject phone         → =: refused relay_bad_state
		start laptop         → =: -
		frame 1 laptop       → =: rewrite1
		end laptop           → =: forward→phone
		ack 1/2 phone        → =: drop2 forward→laptop
		resend 0 phone       → resending: forward→laptop
		complete phone       → completed: ack3→laptop forward→laptop drop3
		cancel laptop        → cancelled: forward→phone drop3
		cancel phone         → cancelled: forward→laptop drop3
		written              → =: -
		receiver-lost phone  → interrupted: -
		receiver-back phone2 → =: replay3→phone2 end→phone2
		sender-lost laptop   → failed: error:sender_gone→phone drop3
		abort                → failed: error:stopping→laptop error:stopping→phone drop3
		tick                 → =: -`,
		StateResending: `
		request laptop       → =: refused relay_duplicate
		accept phone         → =: refused relay_bad_state
		reject phone         → =: refused relay_bad_state
		start laptop         → =: -
		frame 0 laptop       → =: queue
		frame 2 laptop       → =: rewrite0
		end laptop           → ending: forward→phone
		ack 2/3 phone        → =: drop1 forward→laptop
		resend 0 phone       → =: forward→laptop
		complete phone       → completed: ack3→laptop forward→laptop drop1
		cancel laptop        → cancelled: forward→phone drop1
		cancel phone         → cancelled: forward→laptop drop1
		written              → =: -
		receiver-lost phone  → interrupted: -
		receiver-back phone2 → =: replay1→phone2
		sender-lost laptop   → failed: error:sender_gone→phone drop1
		abort                → failed: error:stopping→laptop error:stopping→phone drop1
		tick                 → =: -`,
		StateInterrupted: `
		request laptop       → =: refused relay_duplicate
		accept phone         → =: -
		accept tablet        → =: cancel→tablet
		reject phone         → =: -
		start laptop         → =: -
		frame 1 laptop       → =: queue
		frame 0 laptop       → =: rewrite0
		end laptop           → =: -
		ack 0/1 phone        → =: -
		resend 0 phone       → =: -
		complete phone       → =: -
		cancel laptop        → cancelled: drop1
		cancel phone         → =: -
		written              → =: -
		receiver-lost tablet → =: -
		receiver-lost phone  → =: -
		receiver-back phone2 → transferring: replay1→phone2
		sender-lost laptop   → failed: drop1
		abort                → failed: error:stopping→laptop drop1
		tick                 → =: -`,
		StateCompleted: strings.Replace(over, "end laptop           → =: -", "end laptop → =: complete→laptop", 1),
		StateCancelled: over,
		StateFailed:    over,
		StateRejected:  over,
	}
	for state := StatePending; state < transferStates; state++ {
		seen := [transferEvents]bool{}
		for _, line := range strings.Split(strings.TrimSpace(table[state]), "\n") {
			event, result, _ := strings.Cut(strings.TrimSpace(line), "→")
			next, effects, _ := strings.Cut(strings.TrimSpace(result), ": ")
			if next == "=" {
				next = stateNames[state]
			}
			s := transferIn(t, state)
			ev := s.event(event)
			seen[ev.Kind] = true
			got := s.do(event)
			if got != effects || stateNames[s.tr.State()] != next {
				t.Errorf("%s, %s\n got → %s: %s\nwant → %s: %s", stateNames[state], event, stateNames[s.tr.State()], got, next, effects)
			}
		}
		for kind, ok := range seen {
			if !ok {
				t.Errorf("%s: the table does not say what %s does", stateNames[state], eventNames[kind])
			}
		}
	}
}

// TestTransferAuthority: in no state can anyone do what is not his, and trying changes nothing.
func TestTransferAuthority(t *testing.T) {
	bySender := []string{"start", "frame 1", "end"}
	byReceiver := []string{"accept", "reject", "ack 0/1", "resend 0", "complete"}
	for state := StatePending; state < transferStates; state++ {
		refused := map[string][]string{
			"laptop": byReceiver,
			"thief":  slices.Concat(bySender, byReceiver, []string{"cancel"}),
		}
		if state != StateInterrupted && !state.Over() {
			refused["phone"] = bySender
		}
		for who, events := range refused {
			for _, e := range events {
				s := transferIn(t, state)
				s.want(e+" "+who, "refused relay_not_yours")
				s.wantState(state)
			}
		}
		if state == StatePending || state.Over() {
			continue
		}
		for _, e := range slices.Concat(bySender, byReceiver[1:], []string{"cancel"}) {
			s := transferIn(t, state)
			s.want(e+" tablet", "-") // it lost the race to accept: passed over
			s.wantState(state)
		}
	}
}

func TestTransferGoodPath(t *testing.T) {
	s := newStory(t, 3, true)
	s.want("accept phone", "forward→laptop cancel→tablet")
	s.want("start laptop", "forward→phone")
	s.want("frame 0 laptop", "queue")
	s.want("frame 1 laptop", "queue")
	s.want("frame 2 laptop", "queue")
	s.want("ack 2/3 phone", "drop3 forward→laptop")
	s.want("end laptop", "forward→phone")
	s.want("complete phone", "forward→laptop")
	s.wait(relayCompletedRetention-time.Second).want("tick", "-")
	s.wait(time.Second).want("tick", "remove")
}

// A receiver may complete before the end has come through. The app drops that complete, so it is said again.
func TestTransferCompleteBeforeEnd(t *testing.T) {
	s := newStory(t, 3, true).all("accept phone", "start laptop").frames(0, 2)
	s.want("complete phone", "ack3→laptop forward→laptop drop3")
	s.want("end laptop", "complete→laptop")
	s.want("end laptop", "complete→laptop")
}

func TestTransferDeclined(t *testing.T) {
	t.Run("both sockets", func(t *testing.T) {
		s := newStory(t, 1, true)
		s.want("reject phone", "-")
		s.want("reject phone", "-") // said twice it does not count for tablet
		s.want("accept phone", "refused relay_bad_state")
		s.want("reject tablet", "forward→laptop")
		s.wantState(StateRejected)
	})
	t.Run("one declines, the other accepts", func(t *testing.T) {
		s := newStory(t, 1, true)
		s.want("cancel phone", "-")
		s.want("accept tablet", "forward→laptop")
	})
	t.Run("nobody answers", func(t *testing.T) {
		s := newStory(t, 1, true)
		s.wait(relayRequestTimeout-1).want("tick", "-")
		s.wait(1).want("tick", "error:unanswered→laptop error:unanswered→phone error:unanswered→tablet")
		s.wait(relayEndedRetention).want("tick", "remove")
	})
}

// Acknowledged frames leave the buffer, all others stay, whatever order the chunks came in.
func TestTransferAcknowledgedFrames(t *testing.T) {
	s := newStory(t, 40, true).all("accept phone", "start laptop").frames(0, 23)
	s.want("ack 7/8 phone", "drop8 forward→laptop")
	s.want("ack 7/8 phone", "forward→laptop") // repeated: nothing more is proved
	// Chunk 3 was lost on the way to the file, and is sent again behind 23.
	s.all("resend 3 phone").want("frame 3 laptop", "queue")
	s.want("frame 24 laptop", "queue")
	// Nine more written. The count alone could mean 8..16; the index says that what stood before chunk 15 is there.
	s.want("ack 15/16 phone", "drop8 forward→laptop")
	s.want("ack 3/25 phone", "drop9 forward→laptop")
	if got := fmt.Sprint(s.kept); got != "[24]" {
		t.Fatalf("kept %s", got)
	}
	// The last count frees all, though the named chunk is long gone.
	s.want("ack 15/40 phone", "drop1 forward→laptop")
	for _, bad := range []string{"ack 40/1 phone", "ack -1/1 phone", "ack 0/0 phone", "ack 0/41 phone"} {
		s.want(bad, "refused relay_bad_message")
	}
}

// A chunk that is re-sent while its frame is still kept takes no second place, and the rule of acks holds for it.
func TestTransferResentChunkIsKeptOnce(t *testing.T) {
	s := newStory(t, 40, true).all("accept phone", "start laptop").frames(0, 23).all("resend 23 phone")
	for i := range 24 {
		s.want(fmt.Sprintf("frame %d laptop", i), fmt.Sprintf("rewrite%d", i))
	}
	s.want("ack 7/8 phone", "drop8 forward→laptop")
	s.want("frame 8 laptop", "rewrite0")
}

func TestTransferBeyondTheBuffer(t *testing.T) {
	full := func(t *testing.T) *transferStory {
		s := newStory(t, 60, true).all("accept phone", "start laptop").frames(0, 31)
		s.want("frame 32 laptop", "hold pause→laptop")
		return s
	}
	t.Run("room again", func(t *testing.T) {
		s := full(t)
		s.want("frame 32 laptop", "hold") // whoever steps it too early
		s.wait(9*time.Second).want("ack 0/1 phone", "drop1 resume→laptop forward→laptop")
		s.want("frame 32 laptop", "queue")
		s.want("frame 33 laptop", "hold pause→laptop")
		s.wait(9*time.Second).want("tick", "-") // each pause has its own time
	})
	t.Run("too slow", func(t *testing.T) {
		s := full(t)
		s.wait(relayPauseTimeout-1).want("tick", "-")
		s.wait(1).want("tick", "error:too_slow→laptop error:too_slow→phone drop32 resume→laptop")
		s.wantState(StateFailed)
		s.want("frame 32 laptop", "-")
	})
	t.Run("too slow, before the tick", func(t *testing.T) {
		s := full(t)
		s.wait(relayPauseTimeout-1).want("frame 32 laptop", "hold")
		s.wait(1).want("frame 32 laptop", "error:too_slow→laptop error:too_slow→phone drop32 resume→laptop")
		s.wantState(StateFailed)
	})
}

// Old clients acknowledge nothing: what is written is free, and what a lost socket swallowed is asked for again.
func TestTransferWithoutFlowControl(t *testing.T) {
	for _, who := range []string{"sender", "receiver"} {
		s := newStory(t, 60, who == "receiver")
		ev := s.event("accept phone")
		ev.Flow = who == "sender"
		s.step(ev)
		s.all("start laptop").frames(0, 31)
		s.want("frame 32 laptop", "hold pause→laptop")
		s.want("written", "drop1 resume→laptop")
		s.want("frame 32 laptop", "queue")
		s.want("ack 7/8 phone", "forward→laptop") // frees nothing: what is written is already counted
		s.want("receiver-lost phone", "-")
		s.want("written", "-") // into the lost socket: not there
		s.want("receiver-back phone2", "replay32→phone2")
		for range 32 {
			s.want("written", "drop1")
		}
		s.want("written", "-")
		s.frames(33, 59).all("end laptop")
		s.want("resend 5 phone2", "forward→laptop")
		s.want("frame 5 laptop", "queue")
		s.want("end laptop", "forward→phone2")
		s.want("complete phone2", "forward→laptop drop28")
	}
}

func TestTransferFrameChecks(t *testing.T) {
	s := newStory(t, 3, true).all("accept phone", "start laptop")
	good := s.event("frame 2 laptop")
	for name, spoil := range map[string]func(*TransferEvent){
		"index":         func(ev *TransferEvent) { ev.Index = 3 },
		"negative":      func(ev *TransferEvent) { ev.Index = -1 },
		"another total": func(ev *TransferEvent) { ev.Total = 4 },
		"short":         func(ev *TransferEvent) { ev.Size-- },
		"long last":     func(ev *TransferEvent) { ev.Size = testChunk },
		"short inner":   func(ev *TransferEvent) { ev.Index = 1 },
	} {
		bad := good
		spoil(&bad)
		if got := describe(s.step(bad)); got != "refused relay_bad_frame" {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := describe(s.step(good)); got != "queue" {
		t.Errorf("a good frame: %s", got)
	}
}

func TestTransferEmptyFile(t *testing.T) {
	req := &relayMessage{ID: "t", Room: "room", ToUser: "bob", ChunkSize: maxRelayChunkBytes, TotalChunks: 1, FlowControl: true}
	s := &transferStory{t: t, now: transferEpoch}
	s.tr, _ = newTransfer(req, "laptop", "alice", []endpoint{"phone"}, s.now)
	s.all("accept phone", "start laptop")
	s.want("frame 0 laptop", "queue")
	s.want("ack 0/1 phone", "drop1 forward→laptop")
	s.want("end laptop", "forward→phone")
	s.want("complete phone", "forward→laptop")
}

func TestTransferReceiverLost(t *testing.T) {
	lost := func(t *testing.T) *transferStory {
		s := newStory(t, 40, true).all("accept phone", "start laptop").frames(0, 23)
		return s.all("ack 7/8 phone", "receiver-lost phone")
	}
	t.Run("back in time", func(t *testing.T) {
		s := lost(t)
		s.want("frame 24 laptop", "queue") // the sender goes on inside its window
		s.wait(relayGrace-1).want("tick", "-")
		s.want("receiver-back phone2", "replay17→phone2")
		s.wait(time.Hour).want("ack 24/25 phone2", "drop17 forward→laptop")
	})
	t.Run("gone for good", func(t *testing.T) {
		s := lost(t)
		s.wait(relayGrace).want("tick", "error:receiver_gone→laptop drop16")
		s.want("receiver-back phone2", "error:receiver_gone→phone2") // late, it is told
		s.want("receiver-back phone2", "-")
		s.wait(relayEndedRetention).want("tick", "remove")
	})
	t.Run("the sender cancels meanwhile", func(t *testing.T) {
		s := lost(t)
		s.want("cancel laptop", "drop16")
		s.wait(relayGrace-1).want("tick", "-")
		s.want("receiver-back phone2", "error:cancelled→phone2")
	})
	t.Run("the sender is lost meanwhile", func(t *testing.T) {
		s := lost(t)
		s.want("sender-lost laptop", "drop16")
		s.want("receiver-back phone2", "error:sender_gone→phone2")
	})
	t.Run("the end meanwhile", func(t *testing.T) {
		s := newStory(t, 2, true).all("accept phone", "start laptop").frames(0, 1).all("receiver-lost phone")
		s.want("end laptop", "-")
		s.want("receiver-back phone2", "replay2→phone2 end→phone2")
		s.wantState(StateEnding)
	})
	t.Run("the last ack went with the socket", func(t *testing.T) {
		s := newStory(t, 2, true).all("accept phone", "start laptop").frames(0, 1).all("receiver-lost phone")
		// Both wait: the sender for the ack, the receiver for the end. The end is said for the sender.
		s.want("receiver-back phone2", "replay2→phone2 end→phone2")
		s.want("complete phone2", "ack2→laptop forward→laptop drop2")
		s.want("end laptop", "complete→laptop")
	})
	t.Run("before its old socket is known to be dead", func(t *testing.T) {
		s := newStory(t, 40, true).all("accept phone", "start laptop").frames(0, 9)
		s.want("receiver-back phone2", "replay10→phone2")
		s.want("ack 9/10 phone", "-")
		s.want("receiver-lost phone", "-")
		s.wantState(StateTransferring)
		s.want("ack 7/8 phone2", "drop8 forward→laptop")
	})
	t.Run("before it answered", func(t *testing.T) {
		s := newStory(t, 1, true)
		s.all("receiver-lost phone", "receiver-lost tablet")
		s.wait(4*time.Second).want("receiver-back phone2", "request→phone2")
		s.want("accept phone2", "forward→laptop")
	})
	t.Run("before it answered, for good", func(t *testing.T) {
		s := newStory(t, 1, true).wait(time.Second).all("receiver-lost phone", "receiver-lost tablet")
		s.wait(relayGrace).want("tick", "error:receiver_gone→laptop")
	})
}

func TestTransferIdle(t *testing.T) {
	s := newStory(t, 3, true).all("accept phone", "start laptop").frames(0, 1)
	for range 9 {
		s.wait(time.Minute).all("frame 0 laptop", "resend 0 phone", "tick") // busy, but no progress
	}
	s.wait(time.Minute).want("tick", "error:idle→laptop error:idle→phone drop2")
}

func TestTransferFrameBudget(t *testing.T) {
	s := newStory(t, 3, true).all("accept phone", "start laptop")
	for range relayFrameBudget*3 + relayFrameBudgetSlack {
		s.all("frame 0 laptop")
	}
	s.want("frame 0 laptop", "error:too_many_frames→laptop error:too_many_frames→phone drop1")
}

// TestTransferStepAllocatesNothing: frames and acks are the hot path.
func TestTransferStepAllocatesNothing(t *testing.T) {
	s := newStory(t, 1<<20, true).all("accept phone", "start laptop", "frame 0 laptop", "ack 0/1 phone")
	frame, ack := s.event("frame 1 laptop"), s.event("ack 1/2 phone")
	if n := testing.AllocsPerRun(1000, func() {
		s.tr.Step(frame, s.now)
		s.tr.Step(ack, s.now)
		frame.Index++
		ack.Index++
		ack.Received++
	}); n != 0 || s.tr.State() != StateTransferring {
		t.Fatalf("%v allocations, state %s", n, stateNames[s.tr.State()])
	}
}
