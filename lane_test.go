package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
)

// laneStory is an outbox in a bubble whose peer reads a frame only when the story says so: what comes next shows.
type laneStory struct {
	t      *testing.T
	outbox *Outbox
	budget *Budget
	peer   net.Conn
	writer *inlineWriter
}

// laneTestFrame is a frame; its bytes name it.
func laneTestFrame(name byte) []byte { return bytes.Repeat([]byte{name}, 1000) }

// tellLaneStory runs a story in a bubble. At its end nothing may wait, and nothing be charged but what lanes keep.
func tellLaneStory(t *testing.T, story func(*laneStory)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		socket, peer := net.Pipe()
		s := &laneStory{t: t, budget: &Budget{limit: 1 << 20, each: func(func(*Outbox)) {}}, peer: peer, writer: newInlineWriter()}
		s.outbox = &Outbox{socket: socket, limit: 64 << 10, budget: s.budget}
		defer func() {
			peer.Close()
			socket.Close()
		}()
		story(s)
	})
}

// newLane attaches a lane.
func (s *laneStory) newLane() *lane {
	l := &lane{}
	s.outbox.attachLane(l)
	return l
}

// change changes a lane as a shard does.
func (s *laneStory) change(l *lane, change func(*lane)) {
	if s.outbox.change(l, change) {
		s.outbox.flush(s.writer)
	}
	synctest.Wait()
}

// keep hands frames to a lane.
func (s *laneStory) keep(l *lane, names string) {
	for _, name := range []byte(names) {
		s.change(l, func(l *lane) { l.keep(laneTestFrame(name), nil) })
	}
}

// say hands control messages to a lane.
func (s *laneStory) say(l *lane, names string) {
	for _, name := range []byte(names) {
		s.change(l, func(l *lane) { l.say(laneTestFrame(name)) })
	}
}

// signal puts a frame beside the lanes.
func (s *laneStory) signal(name byte) {
	if s.outbox.put(laneTestFrame(name)) {
		s.outbox.flush(s.writer)
	}
	synctest.Wait()
}

// want reads frames and wants these, in this order.
func (s *laneStory) want(names string) {
	s.t.Helper()
	for i := range len(names) {
		frame := make([]byte, 1000)
		if _, err := io.ReadFull(s.peer, frame); err != nil {
			s.t.Fatal(err)
		}
		if !bytes.Equal(frame, laneTestFrame(frame[0])) {
			s.t.Fatalf("frames are mixed: %q", frame)
		}
		if frame[0] != names[i] {
			s.t.Fatalf("after %q comes %c, want %c", names[:i], frame[0], names[i])
		}
		synctest.Wait()
	}
}

// wantRest wants that nothing waits and that so many bytes are charged.
func (s *laneStory) wantRest(charged int64) {
	s.t.Helper()
	synctest.Wait()
	s.outbox.mu.Lock()
	defer s.outbox.mu.Unlock()
	if s.outbox.queued > 0 || s.outbox.lanes.wait() || s.outbox.writing {
		s.t.Error("frames wait, and nobody reads any more")
	}
	if got := s.budget.total.Load(); got != charged {
		s.t.Errorf("%d bytes are charged, want %d", got, charged)
	}
}

func TestALaneKeepsItsOrder(t *testing.T) {
	tellLaneStory(t, func(s *laneStory) {
		l := s.newLane()
		s.say(l, "s")
		s.keep(l, "abc")
		s.say(l, "e")
		s.want("sabce")
		s.wantRest(3000) // control is gone when it is written, frames when they are dropped
		s.change(l, func(l *lane) { l.drop(3) })
		s.wantRest(0)
	})
}

// Signalling waits for the frame under way and for no other.
func TestSignallingGoesFirst(t *testing.T) {
	tellLaneStory(t, func(s *laneStory) {
		l := s.newLane()
		s.keep(l, "abc")
		s.signal('1')
		s.signal('2')
		s.want("a12b")
		s.signal('3')
		s.want("c3")
		s.wantRest(3000)
	})
}

func TestLanesTakeTurns(t *testing.T) {
	tellLaneStory(t, func(s *laneStory) {
		a, b, c := s.newLane(), s.newLane(), s.newLane()
		s.keep(a, "aaaa")
		s.keep(b, "bb")
		s.keep(c, "ccc")
		s.want("abcabcaca")
		s.wantRest(9000)
	})
}

func TestARepeatedFrameIsWrittenAgainAndNotCountedAgain(t *testing.T) {
	tellLaneStory(t, func(s *laneStory) {
		l := s.newLane()
		s.keep(l, "abc")
		s.change(l, func(l *lane) { l.again(2) }) // waits still: no second time
		s.want("ab")
		s.change(l, func(l *lane) { l.again(0) })
		s.want("ca")
		s.wantRest(3000)
		if l.written != 3 {
			t.Errorf("%d frames count as written, want 3", l.written)
		}
	})
}

func TestDroppedFramesAreNotWritten(t *testing.T) {
	tellLaneStory(t, func(s *laneStory) {
		l := s.newLane()
		s.keep(l, "abc")
		s.say(l, "x")
		s.change(l, func(l *lane) { l.drop(3) }) // a is under way
		s.want("ax")
		s.wantRest(0)
	})
}

// A receiver comes back on another socket: all that is kept is written again, and nothing that was merely said.
func TestALaneMovesToAnotherOutbox(t *testing.T) {
	tellLaneStory(t, func(old *laneStory) {
		l := old.newLane()
		old.keep(l, "abc")
		old.say(l, "x")
		old.want("ab")
		old.outbox.detachLane(l)
		if got := old.budget.total.Load(); got != 0 {
			t.Errorf("%d bytes are charged to the old outbox, want 0", got)
		}
		old.want("c") // was under way
		old.wantRest(0)
		if l.bytes != 3000 || l.control != 0 {
			t.Errorf("the lane counts %d bytes, %d of them control, want 3000 and 0", l.bytes, l.control)
		}
		l.keep(laneTestFrame('d'), nil) // while it is nowhere

		socket, peer := net.Pipe()
		defer socket.Close()
		defer peer.Close()
		fresh := *old
		fresh.peer, fresh.budget = peer, &Budget{limit: 1 << 20}
		fresh.outbox = &Outbox{socket: socket, limit: 64 << 10, budget: fresh.budget}
		fresh.outbox.attachLane(l)
		fresh.change(l, (*lane).replay)
		fresh.say(l, "e")
		fresh.want("abcde")
		fresh.wantRest(4000)
		fresh.outbox.detachLane(l)
		fresh.wantRest(0)
	})
}

func TestWhatWasSaidLastOutlivesTheLane(t *testing.T) {
	l := &lane{}
	for _, name := range []byte("ab") {
		l.keep(laneTestFrame(name), nil)
		l.say(laneTestFrame(name + 'A' - 'a'))
	}
	said := ""
	for _, frame := range l.unsaid() {
		said += fmt.Sprintf("%c", frame[0])
	}
	if said != "AB" || len(l.queue) != 2 || l.bytes != 2000 || l.control != 0 {
		t.Errorf("unsaid is %s; %d frames of %d bytes stay, %d of control", said, len(l.queue), l.bytes, l.control)
	}
}

// A buffer goes back to where the next frame takes it from only when nobody can be writing what lies in it.
func TestABufferIsGivenBackWhenNobodyWritesIt(t *testing.T) {
	tellLaneStory(t, func(s *laneStory) {
		l := s.newLane()
		var buffers []*relayBuffer
		keep := func(name byte) {
			buffer := new(relayBuffer)
			buffers = append(buffers, buffer)
			frame := append(buffer[:0], laneTestFrame(name)...)
			s.change(l, func(l *lane) { l.keep(frame, buffer) })
		}
		// Whoever gets a buffer back, writes into it at once.
		spoil := func() {
			for range 8 {
				clear(relayBuffers.Get().(*relayBuffer)[:])
			}
		}
		keep('a')
		keep('b')
		s.change(l, func(l *lane) { l.drop(1) }) // a is under way
		spoil()
		s.want("a")
		keep('c')
		s.want("bc")
		keep('d')
		s.outbox.detachLane(l) // d is under way
		l.drop(3)
		spoil()
		s.want("d")
		s.wantRest(0)
		if l.underWay != nil || !l.moved {
			t.Errorf("the old outbox has changed a lane that is no longer its own")
		}
	})
}
