//go:build unix

package main

import (
	"runtime"
	"testing"
	"time"
)

// A third of an idle connection's memory hangs on this: small whole frames do without the library. Where it joins, in
// the middle of a connection's life, nothing is lost before, in or behind the frame that needs it.
func TestTheLibraryJoinsWhereItIsNeeded(t *testing.T) {
	for name, c := range map[string]struct {
		bytes []byte
		joins bool
	}{
		"a pong":    {maskedFrame(finBit|opPong, nil), false},
		"a message": {maskedFrame(finBit|opText, []byte(`{"type":"subscribe","channel":"other"}`)), false},
		"fragments": {append(maskedFrame(opText, []byte(`{"type":`)), maskedFrame(finBit|opContinuation, []byte(`"subscribe","channel":"other"}`))...), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			ann := s.dial(t, "ann")
			ann.subscribe(t, "room", "")
			conn := s.server.conns.snapshot()[0]
			ann.raw(t, c.bytes)
			if name != "a pong" {
				ann.want(t, `{"type":"subscribed","channel":"other"}`)
			}
			ann.subscribe(t, "room", "more")
			ann.leave(t)
			for end := time.Now().Add(patience); s.server.conns.live() > 0; runtime.Gosched() {
				if time.Now().After(end) {
					t.Fatal("the connection stays")
				}
			}
			if joined := conn.library != nil; joined != c.joins {
				t.Errorf("the library joined: %t", joined)
			}
		})
	}
}
