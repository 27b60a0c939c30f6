//go:build unix

package main

import (
	"testing"
	"time"
)

// What the socket takes at once is written in place; the rest goes to a goroutine; then the claim is free again.
func TestTheClaimGoesFromInlineToAGoroutineAndBack(t *testing.T) {
	server, client := tcpPair(t)
	spy := &deadlineSpy{Conn: server}
	o := outboxOn(server, 64<<20)
	o.socket = spy
	w := newInlineWriter()
	read := func(frame []byte) {
		t.Helper()
		client.SetReadDeadline(time.Now().Add(patience))
		if _, payload, err := readServerFrame(client); err != nil {
			t.Fatal(err)
		} else if _, _, err := checkNumbered(payload); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 2 {
		_, before := spy.state()
		small := numbered(1, round, 50)
		o.put(small)
		o.flush(w)
		if _, after := spy.state(); o.writing || o.held() != 0 || after != before {
			t.Fatalf("round %d: a small frame was not written in place", round)
		}
		read(small)
		large := numbered(2, round, 2<<20)
		o.put(large)
		o.flush(w)
		o.put(small) // while the goroutine writes
		o.flush(w)
		read(large)
		read(small)
		waitForClaim(t, o)
		if deadline, after := spy.state(); !deadline.IsZero() || after == before {
			t.Fatalf("round %d: the goroutine left the write deadline %v behind (%d calls)", round, deadline, after-before)
		}
	}
	if sent := o.sentBytes(); sent != uint64(2*(2*len(numbered(1, 0, 50))+len(numbered(2, 0, 2<<20)))) {
		t.Errorf("%d bytes are counted as sent", sent)
	}
}

func TestPuttingAndWritingASmallFrameAllocatesNothing(t *testing.T) {
	server, client := tcpPair(t)
	o, w, frame := outboxOn(server, 1<<20), newInlineWriter(), numbered(0, 0, 200)
	sink := make([]byte, 64<<10)
	if n := testing.AllocsPerRun(200, func() {
		if o.put(frame) {
			o.flush(w)
		}
		if _, err := client.Read(sink); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v objects for a frame", n)
	}
}
