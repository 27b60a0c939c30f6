package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// wireOn is a wire on one end of a pipe, without a server around it.
func wireOn(socket net.Conn, began time.Time) *wire {
	cfg := DefaultConfig()
	w := &wire{Conn: socket, outbox: outboxOn(socket, 1<<20), limits: newConnLimits(&cfg.WebSocket)}
	w.clock = func() time.Duration { return time.Hour + time.Since(began) }
	w.onRead = w.readFirst
	return w
}

func TestOnlyAPongThatStandsAloneIsPassedOver(t *testing.T) {
	pong := maskedFrame(finBit|opPong, []byte("hi"))
	for name, c := range map[string]struct {
		bytes []byte
		want  bool
	}{
		"a pong":              {pong, true},
		"an empty pong":       {maskedFrame(finBit|opPong, nil), true},
		"a pong and a byte":   {append(append([]byte(nil), pong...), finBit|opText), false},
		"a pong without end":  {pong[:len(pong)-1], false},
		"a pong not masked":   {[]byte{finBit | opPong, 0, 0, 0, 0, 0}, false},
		"a fragment":          {maskedFrame(opPong, nil), false},
		"a reserved bit":      {maskedFrame(finBit|0x40|opPong, nil), false},
		"a ping":              {maskedFrame(finBit|opPing, nil), false},
		"an overlong control": {maskedFrame(finBit|opPong, make([]byte, 126)), false},
		"nothing":             {nil, false},
	} {
		if got := isLonePong(c.bytes); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// Between messages the wire hands over nothing and does not wait: that is await's business, on a small stack.
func TestAWireDoesNotWaitBetweenMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer here.Close()
		defer there.Close()
		w := wireOn(there, time.Now())
		buffer := make([]byte, 100)
		if _, err := w.Read(buffer); !errors.Is(err, errIdle) {
			t.Fatalf("at rest: %v", err)
		}
		frame := maskedFrame(finBit|opText, []byte("hello"))
		go here.Write(frame)
		if err := w.await(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(io.LimitReader(w, int64(len(frame)))); err != nil || string(got) != string(frame) {
			t.Errorf("%q, %v", got, err)
		}
		if _, err := w.Read(buffer); !errors.Is(err, errIdle) || w.received.Load() != int64(len(frame)) {
			t.Errorf("behind the message: %v, %d bytes counted", err, w.received.Load())
		}
	})
}

// A nudge wakes a wire from its rest and nothing else; an end cannot be slept through.
func TestANudgeIsNoEndAndAnEndIsNoNudge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer here.Close()
		defer there.Close()
		w := wireOn(there, time.Now())
		w.Conn.SetReadDeadline(time.Unix(1, 0))
		w.outbox.end(GoingAway)
		if err := w.await(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after an end, await returns %v", err)
		}
	})
}

// What a message takes in raw bytes is bounded, whatever its fragments say: a million empty ones are no message.
func TestAMessageOfNothingHasABudget(t *testing.T) {
	inBubble(t, func(c *Config) { c.WebSocket.MaxMessageBytes, c.WebSocket.BytesPerSecond = 4096, 0 }, func(t *testing.T, s *pipeServer) {
		c, bystander := s.connectWith("ann", 0, true, false), s.connect("bob")
		began := s.since()
		empty := maskedFrame(opContinuation, nil)
		var train []byte
		for range 1000 {
			train = append(train, empty...)
		}
		c.write(maskedFrame(opText, []byte("{")))
		sent := len(empty)
		for c.queue(train) {
			sent += len(train)
			if synctest.Wait(); len(c.when(opClose)) > 0 {
				break
			}
			if sent > 1<<20 {
				t.Fatal("a megabyte of nothing is read")
			}
		}
		c.wantEnded(began, 0, closeLinger+time.Second, "close 1008 message_budget")
		if budget := 2*4096 + messageBudgetSlack; sent < budget-len(train) || sent > budget+2*len(train) {
			t.Errorf("cut after %d bytes, the budget is %d", sent, budget)
		}
		bystander.alive()
	})
}

// What a client sent right behind its handshake, in the same packet, is not lost.
func TestEarlyBytesAreRead(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *pipeServer) {
		socket, err := s.listener.dial()
		if err != nil {
			t.Fatal(err)
		}
		early := append(maskedFrame(finBit|opText, []byte(`{"type":"subscribe","channel":"room"}`)), maskedFrame(finBit|opText, []byte(`{"type":"unsubscribe","channel":"room"}`))[:9]...)
		go socket.Write(append([]byte(s.pipeUpgrade("ann", 0)), early...))
		c := &pipeClient{t: t, server: s, socket: socket, pongs: true, closes: true, closed: make(chan struct{}),
			out: make(chan []byte, 64), gate: make(chan struct{}, 1)}
		defer func() { socket.Close(); <-c.closed }()
		reader := bufio.NewReader(socket)
		for line := ""; line != "\r\n"; {
			if line, err = reader.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		go c.readFrames(reader)
		go c.writeAll()
		c.wantLast(`{"type":"subscribed"`)
		c.write(maskedFrame(finBit|opText, []byte(`{"type":"unsubscribe","channel":"room"}`))[9:])
		c.wantLast(`{"type":"unsubscribed"`)
	})
}
