package main

import (
	"net"
	"testing"
	"time"
)

// What relay_lost_test.go tells in a bubble, told here once over real sockets: with the kernel's buffers, inline writes and resets.

// comesBack resets bob's connection, as a dying network does, and lets him join the room on a new one.
func comesBack(t *testing.T, s *testServer, bob *client) *client {
	t.Helper()
	bob.socket.(*net.TCPConn).SetLinger(0)
	bob.close()
	again := s.dial(t, "bob")
	again.subscribe(t, "room", "")
	return again
}

func TestAResetInTheMiddleOfAFile(t *testing.T) {
	t.Parallel()
	s, anna, bob := relayPair(t)
	f := newFile("reset", 60*appChunk)
	agree(t, anna, bob, f)
	anna.sendFrames(t, f, 0, 24)
	bob.wantFrames(t, f, 0, 11)
	bob.send(t, f.ack(8))
	anna.want(t, f.ack(8))
	bob = comesBack(t, s, bob)
	anna.sendFrames(t, f, 24, 32)
	bob.wantFrames(t, f, 8, 32)
	for sent := int64(32); sent < 60; sent += 14 {
		bob.send(t, f.ack(sent))
		anna.want(t, f.ack(sent))
		anna.sendFrames(t, f, sent, sent+14)
		bob.wantFrames(t, f, sent, sent+14)
	}
	finish(t, anna, bob, f)
	s.wantNothingHeld(t)
}

// All that was under way had come, and no word of it came through: the sender may send as much more as brings the next one.
func TestAResetThatTakesTheAcknowledgements(t *testing.T) {
	t.Parallel()
	s, anna, bob := relayPair(t)
	f := newFile("silent", 40*appChunk)
	agree(t, anna, bob, f)
	anna.sendFrames(t, f, 0, relayWindow)
	bob.wantFrames(t, f, 0, relayWindow)
	bob = comesBack(t, s, bob)
	bob.wantFrames(t, f, 0, relayWindow)
	anna.want(t, f.says("ack", `"chunk_index":7,"received_chunks":8,"total_chunks":40`))
	anna.sendFrames(t, f, relayWindow, relayWindow+relayAckEvery)
	bob.wantFrames(t, f, relayWindow, relayWindow+relayAckEvery)
	bob.send(t, f.ack(32))
	anna.want(t, f.ack(32))
	anna.sendFrames(t, f, 32, 40)
	bob.wantFrames(t, f, 32, 40)
	finish(t, anna, bob, f)
	s.wantNothingHeld(t)
}

// The 33rd frame that nobody has acknowledged waits until one of the others is; what stands behind it waits with it.
func TestBeyondTheBufferASenderWaits(t *testing.T) {
	t.Parallel()
	s, anna, bob := relayPair(t)
	f := newFile("ahead", 40*appChunk)
	agree(t, anna, bob, f)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		anna.sendFrames(t, f, 0, 40)
	}()
	bob.wantFrames(t, f, 0, maxRelayUnacked)
	bob.wantNothing(t)
	bob.send(t, f.ack(8))
	bob.wantFrames(t, f, maxRelayUnacked, 40)
	<-sent
	anna.want(t, f.ack(8))
	finish(t, anna, bob, f)
	s.wantNothingHeld(t)
}

func TestAPacedFileArrivesWhole(t *testing.T) {
	t.Parallel()
	const perSecond = 10
	s, anna, bob := relayPair(t, func(c *Config) { c.Relay.MaxBytesPerSecond = perSecond * (appChunk + relayHeaderBytes) })
	f := newFile("unhurried", 16*appChunk)
	agree(t, anna, bob, f)
	began := time.Now()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		anna.sendFrames(t, f, 0, 16)
	}()
	bob.wantFrames(t, f, 0, 16)
	<-sent
	if took := time.Since(began); took < time.Second { // the first goes at once
		t.Errorf("16 frames took %v at %d a second", took, perSecond)
	}
	finish(t, anna, bob, f)
	s.wantNothingHeld(t)
}
