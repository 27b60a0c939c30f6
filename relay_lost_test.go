package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The relay in a bubble: lost sockets, slow receivers and deadlines, by the clock.

// inRelayBubble runs a story with anna and bob in the room, and wants nothing of their files to be left after it.
func inRelayBubble(t *testing.T, change func(*Config), story func(s *pipeServer, anna, bob *pipeClient)) {
	t.Helper()
	inBubble(t, change, func(t *testing.T, s *pipeServer) {
		anna, bob := s.connect("anna"), s.connect("bob")
		anna.subscribe("room")
		bob.subscribe("room")
		story(s, anna, bob)
		s.wantNothingLeft()
	})
}

// sendFrames sends chunks from and up to but without to.
func (c *pipeClient) sendFrames(f file, from, to int64) {
	for i := from; i < to; i++ {
		c.frame(f, i)
	}
}

// wantLastFile wants the latest of what came about files.
func (c *pipeClient) wantLastFile(want string) {
	c.t.Helper()
	if got := c.files(); len(got) == 0 || got[len(got)-1] != want {
		c.t.Errorf("got %q at the end, want %s", got, want)
	}
}

func TestAReceiverComesBackInTheMiddle(t *testing.T) {
	inRelayBubble(t, nil, func(s *pipeServer, anna, bob *pipeClient) {
		f := newFile("middle", 40*appChunk)
		s.agree(anna, bob, f)
		anna.sendFrames(f, 0, 20)
		bob.send(f.ack(8))
		bob.socket.Close()
		anna.sendFrames(f, 20, 30) // the window goes on
		time.Sleep(29 * time.Second)
		anna.wantFiles("accept ack") // and is told nothing
		bob = s.connect("bob")
		bob.subscribe("room")
		bob.wantFiles(chunkList(8, 30))
		bob.send(f.ack(30))
		anna.sendFrames(f, 30, 40)
		anna.send(f.says("end", ""))
		bob.send(f.ack(40))
		bob.send(f.says("complete", ""))
		bob.wantFiles(chunkList(8, 40) + " end")
		anna.wantFiles("accept ack ack ack complete")
	})
}

// The app's sender drops a complete that comes before it has sent end, and hears it again then.
func TestACompleteBeforeTheEndIsRepeated(t *testing.T) {
	inRelayBubble(t, nil, func(s *pipeServer, anna, bob *pipeClient) {
		f := newFile("early", 2*appChunk)
		s.agree(anna, bob, f)
		anna.sendFrames(f, 0, 2)
		bob.send(f.ack(2))
		bob.send(f.says("complete", ""))
		anna.wantFiles("accept ack complete")
		anna.send(f.says("end", ""))
		anna.wantFiles("accept ack complete complete")
		bob.wantFiles("request #0 #1")
	})
}

// The end and the last acks are lost with the socket: the server says the one again, and what complete implies for the others.
func TestAReceiverComesBackAtTheEnd(t *testing.T) {
	inRelayBubble(t, nil, func(s *pipeServer, anna, bob *pipeClient) {
		f := newFile("tail", 3*appChunk)
		s.agree(anna, bob, f)
		anna.sendFrames(f, 0, 3)
		bob.socket.Close()
		synctest.Wait()
		anna.send(f.says("end", ""))
		bob = s.connect("bob")
		bob.send(`{"type":"subscribe","channel":"room"}`)
		bob.wantFiles(chunkList(0, 3) + " end")
		bob.send(f.says("complete", ""))
		anna.wantFiles("accept ack complete")
	})
}

func TestAReceiverThatIsGoneForGood(t *testing.T) {
	inRelayBubble(t, nil, func(s *pipeServer, anna, bob *pipeClient) {
		f := newFile("alone", 40*appChunk)
		s.agree(anna, bob, f)
		anna.sendFrames(f, 0, 10)
		bob.socket.Close()
		time.Sleep(relayGrace - time.Second)
		anna.wantFiles("accept")
		time.Sleep(2 * time.Second)
		anna.wantFiles("accept relay_receiver_gone")
		anna.sendFrames(f, 10, 12) // were on their way
		anna.alive()
		anna.wantFiles("accept relay_receiver_gone")
	})
}

func TestASenderThatIsGone(t *testing.T) {
	inRelayBubble(t, nil, func(s *pipeServer, anna, bob *pipeClient) {
		f := newFile("half", 40*appChunk)
		s.agree(anna, bob, f)
		anna.sendFrames(f, 0, 10)
		anna.socket.Close()
		bob.wantFiles("request " + chunkList(0, 10) + " relay_sender_gone")
		bob.send(f.ack(8))
		bob.alive()
	})
}

// The receiver is away when the sender gives up: it is told when it comes back, and does not wait for more.
func TestASenderCancelsWhileTheReceiverIsAway(t *testing.T) {
	inRelayBubble(t, nil, func(s *pipeServer, anna, bob *pipeClient) {
		f := newFile("given-up", 40*appChunk)
		s.agree(anna, bob, f)
		anna.sendFrames(f, 0, 10)
		bob.socket.Close()
		synctest.Wait()
		anna.send(f.says("cancel", ""))
		time.Sleep(10 * time.Second)
		bob = s.connect("bob")
		bob.subscribe("room")
		bob.wantFiles("relay_cancelled")
	})
}

// The network has changed and nobody said so: the receiver's new socket is in the room before the old one is known to be
// dead. When it is, the file goes on at once, and not at the end of the grace.
func TestAReceiverComesBackBeforeItsOldSocketIsKnownToBeDead(t *testing.T) {
	inRelayBubble(t, nil, func(s *pipeServer, anna, bob *pipeClient) {
		f := newFile("moved", 3*appChunk)
		s.agree(anna, bob, f)
		anna.sendFrames(f, 0, 2)
		again := s.connect("bob")
		again.subscribe("room")
		again.wantFiles("") // might be another of his pages
		bob.socket.Close()
		again.wantFiles("#0 #1")
		anna.frame(f, 2)
		anna.send(f.says("end", ""))
		again.send(f.says("complete", ""))
		again.wantFiles("#0 #1 #2 end")
		anna.wantFiles("accept ack complete")
	})
	// Before anybody has answered, the new socket is asked.
	inRelayBubble(t, nil, func(s *pipeServer, anna, bob *pipeClient) {
		f := newFile("asked", 10)
		anna.send(f.request("bob"))
		again := s.connect("bob")
		again.subscribe("room")
		again.wantFiles("")
		bob.socket.Close()
		again.wantFiles("request")
		again.send(f.says("reject", ""))
		anna.wantFiles("reject")
	})
}

// What the new socket says of the file shows that it is the receiver, also while the old one lives.
func TestAReceiverSpeaksFromItsNewSocket(t *testing.T) {
	inRelayBubble(t, nil, func(s *pipeServer, anna, bob *pipeClient) {
		f := newFile("stalled", 30*appChunk)
		s.agree(anna, bob, f)
		anna.sendFrames(f, 0, 3)
		again := s.connect("bob")
		again.subscribe("room")
		again.send(f.resend(3, 0, 1, 2))
		again.wantFiles(chunkList(0, 3))
		anna.wantFiles("accept resend")
		anna.sendFrames(f, 0, 3)
		again.send(f.says("cancel", ""))
		anna.wantFiles("accept resend cancel")
	})
}

// What the old socket still has to say takes the transfer back from nobody, and its end ends nothing.
func TestALateWordOfTheOldSocket(t *testing.T) {
	inRelayBubble(t, nil, func(s *pipeServer, anna, bob *pipeClient) {
		f := newFile("moved", 6*appChunk)
		s.agree(anna, bob, f)
		anna.sendFrames(f, 0, 3)
		again := s.connect("bob")
		again.subscribe("room")
		again.send(f.resend(3, 0, 1, 2))
		bob.send(f.ack(3))
		anna.sendFrames(f, 3, 6)
		bob.socket.Close()
		again.wantFiles(chunkList(0, 6))
		again.send(f.ack(6))
		anna.send(f.says("end", ""))
		again.send(f.says("complete", ""))
		anna.wantFiles("accept resend ack complete")
	})
}

// Who is not in the room cannot take a transfer there, whoever he is.
func TestASocketOutsideTheRoomTakesNoTransfer(t *testing.T) {
	inRelayBubble(t, nil, func(s *pipeServer, anna, bob *pipeClient) {
		f := newFile("here", 6*appChunk)
		s.agree(anna, bob, f)
		outside := s.connect("bob")
		outside.subscribe("another room")
		outside.send(f.ack(1))
		anna.sendFrames(f, 0, 6)
		bob.wantFiles("request " + chunkList(0, 6))
		outside.wantFiles("relay_not_yours")
		anna.send(f.says("cancel", ""))
	})
}

// All that was under way had arrived, and its acknowledgements were lost with the socket: the app says nothing to what it gets
// twice, and its sender's window is full. The server lets the sender go on, by so much that the next acknowledgement comes.
func TestAWindowWhoseAcknowledgementsWereLost(t *testing.T) {
	inRelayBubble(t, nil, func(s *pipeServer, anna, bob *pipeClient) {
		f := newFile("stuck", 40*appChunk)
		s.agree(anna, bob, f)
		anna.sendFrames(f, 0, relayWindow)
		bob.wantFiles("request " + chunkList(0, relayWindow))
		bob.socket.Close()
		again := s.connect("bob")
		again.subscribe("room")
		again.wantFiles(chunkList(0, relayWindow))
		anna.wantFiles("accept ack")
		anna.sendFrames(f, relayWindow, relayWindow+relayAckEvery)
		again.wantFiles(chunkList(0, relayWindow+relayAckEvery))
		again.send(f.ack(relayWindow + relayAckEvery))
		anna.sendFrames(f, relayWindow+relayAckEvery, 40)
		again.send(f.ack(40))
		anna.send(f.says("end", ""))
		again.send(f.says("complete", ""))
		anna.wantFiles("accept ack ack ack complete")
	})
}

// A receiver that reads slowly is not cut because of what its sender says: the transfer fails. Until then it holds 2.2 MiB
// at most, with as many frames as may wait.
func TestAFloodOfControlEndsTheTransferAndNobody(t *testing.T) {
	inRelayBubble(t, nil, func(s *pipeServer, anna, bob *pipeClient) {
		f := newFile("chatter", 40*appChunk)
		s.agree(anna, bob, f)
		bob.freeze()
		anna.sendFrames(f, 0, maxRelayUnacked)
		most := int64(0)
		for range 3000 {
			anna.send(f.says("end", ""))
			most = max(most, s.budget.total.Load())
		}
		if most < 2<<20 || most > 22<<20/10 {
			t.Errorf("the server held %d bytes at most, want 2.0 to 2.2 MiB", most)
		}
		anna.wantLastFile("relay_too_slow")
		bob.thaw()
		bob.wantLastFile("relay_too_slow")
		bob.alive()
		anna.alive()
	})
}

func TestARequestThatNobodyAnswers(t *testing.T) {
	inRelayBubble(t, nil, func(s *pipeServer, anna, bob *pipeClient) {
		f := newFile("waiting", 10)
		anna.send(f.request("bob"))
		time.Sleep(relayRequestTimeout - time.Second)
		anna.wantFiles("")
		time.Sleep(2 * time.Second)
		anna.wantFiles("relay_unanswered")
		bob.wantFiles("request relay_unanswered")
	})
}

func TestATransferThatStandsStill(t *testing.T) {
	inRelayBubble(t, nil, func(s *pipeServer, anna, bob *pipeClient) {
		f := newFile("still", 40*appChunk)
		s.agree(anna, bob, f)
		anna.sendFrames(f, 0, 24)
		time.Sleep(relayIdleTimeout - 2*time.Second)
		anna.wantFiles("accept")
		time.Sleep(3 * time.Second)
		anna.wantFiles("accept relay_idle")
		bob.wantLastFile("relay_idle")
		anna.alive()
		bob.alive()
	})
}

// Inside its window a sender is never held up, however slow the receiver: it goes on to speak and to listen.
func TestASenderInsideItsWindowIsNotPaused(t *testing.T) {
	inRelayBubble(t, nil, func(s *pipeServer, anna, bob *pipeClient) {
		f := newFile("window", 40*appChunk)
		s.agree(anna, bob, f)
		bob.freeze()
		anna.sendFrames(f, 0, 24)
		anna.alive()
		bob.thaw()
		bob.wantFiles("request " + chunkList(0, 24))
		bob.send(f.says("cancel", ""))
	})
}

// An old client knows no window. Beyond 32 frames it is not read until the receiver has taken some.
func TestAnOldSenderIsHeldUpAndGoesOn(t *testing.T) {
	inRelayBubble(t, nil, func(s *pipeServer, anna, bob *pipeClient) {
		f := file{"old", 40 * 1000, 1000, ""}
		s.agree(anna, bob, f)
		bob.freeze()
		anna.sendFrames(f, 0, 40)
		time.Sleep(9 * time.Second)
		anna.wantFiles("accept")
		bob.thaw()
		time.Sleep(time.Second)
		bob.wantFiles("request " + chunkList(0, 40))
		anna.send(f.says("end", ""))
		bob.send(f.says("complete", ""))
		anna.wantFiles("accept complete")
	})
}

func TestAnOldSenderIsHeldUpTenSecondsAtMost(t *testing.T) {
	idle := func(c *Config) {
		c.WebSocket.IdleTimeoutSeconds, c.WebSocket.PingIntervalSeconds, c.WebSocket.MessageTimeoutSeconds = 5, 2, 5
	}
	inRelayBubble(t, idle, func(s *pipeServer, anna, bob *pipeClient) {
		f := newFile("fast", 60*appChunk)
		s.agree(anna, bob, f)
		began := s.since()
		anna.sendFrames(f, 0, 40) // although both agreed on a window; the last ones stay unread
		time.Sleep(relayPauseTimeout - time.Second)
		anna.wantFiles("accept")
		time.Sleep(2 * time.Second)
		anna.wantFiles("accept relay_too_slow")
		bob.wantLastFile("relay_too_slow")
		// The transfer is over, the sockets are not, although nothing was read from anna for longer than a silence may last.
		anna.alive()
		bob.alive()
		if took := s.since() - began; took > relayPauseTimeout+2*time.Second {
			t.Errorf("it took %v", took)
		}
		s.wantCloses()
	})
}

// arrivals are when chunks came.
func (c *pipeClient) arrivals() []time.Duration { return c.when(opBinary) }

func TestATransferIsPaced(t *testing.T) {
	const frameBytes = appChunk + relayHeaderBytes + 10
	paced := func(c *Config) { c.Relay.MaxBytesPerSecond = frameBytes } // a frame a second
	inRelayBubble(t, paced, func(s *pipeServer, anna, bob *pipeClient) {
		f := newFile("paced", 20*appChunk)
		s.agree(anna, bob, f)
		began := s.since()
		for i := range int64(20) {
			anna.queue(maskedFrame(finBit|opBinary, f.frame(i)))
		}
		time.Sleep(25 * time.Second)
		at := bob.arrivals()
		if len(at) != 20 {
			t.Fatalf("%d frames have come in 25 s, want 20", len(at))
		}
		for i, when := range at {
			if want := time.Duration(i) * time.Second; when-began < want-200*time.Millisecond || when-began > want+time.Second {
				t.Errorf("chunk %d comes after %v, want about %v", i, when-began, want)
			}
		}
		bob.send(f.says("cancel", ""))
		s.wantCloses()
	})
}

// All transfers together have a rate too, and none starves: each gets its turn.
func TestAllTransfersArePacedFairly(t *testing.T) {
	const frameBytes = appChunk + relayHeaderBytes + 10
	paced := func(c *Config) { c.Relay.MaxTotalBytesPerSecond = 10 * frameBytes }
	inRelayBubble(t, paced, func(s *pipeServer, anna, bob *pipeClient) {
		carl := s.connect("carl")
		carl.subscribe("room")
		hers, his := newFile("hers", 24*appChunk), newFile("his", 24*appChunk)
		s.agree(anna, bob, hers)
		s.agree(carl, bob, his)
		began := s.since()
		for i := range int64(24) {
			anna.queue(maskedFrame(finBit|opBinary, hers.frame(i)))
			carl.queue(maskedFrame(finBit|opBinary, his.frame(i)))
		}
		time.Sleep(2 * time.Second)
		if n := len(bob.arrivals()); n < 18 || n > 22 {
			t.Errorf("%d frames in 2 s, want about 20", n)
		}
		time.Sleep(4 * time.Second)
		at := bob.arrivals()
		if len(at) != 48 {
			t.Fatalf("%d frames have come, want 48", len(at))
		}
		if took := at[47] - began; took < 4*time.Second || took > 6*time.Second {
			t.Errorf("48 frames took %v, want about 4.7 s", took)
		}
		bob.send(hers.says("cancel", ""))
		bob.send(his.says("cancel", ""))
		// At no time is one far ahead.
		ahead := 0
		bob.mu.Lock()
		defer bob.mu.Unlock()
		for _, frame := range bob.frames {
			switch header, problem := parseRelayFrame([]byte(frame.payload)); {
			case problem != relayNoProblem:
			case string(header.ID) == "hers":
				ahead++
			default:
				ahead--
			}
			if ahead > 3 || ahead < -3 {
				t.Fatalf("one sender is %d frames ahead", ahead)
			}
		}
	})
}

// A receiver takes a file slowly. A message to it waits for the frame under way and for the one that the reader has in hand.
func TestSignallingPassesAFile(t *testing.T) {
	inRelayBubble(t, nil, func(s *pipeServer, anna, bob *pipeClient) {
		f := newFile("slow", 24*appChunk)
		s.agree(anna, bob, f)
		bob.freeze()
		anna.sendFrames(f, 0, 24)
		anna.send(`{"type":"publish","channel":"room","data":{"from":"anna","type":"text"}}`)
		anna.send(f.says("end", ""))
		bob.thaw()
		bob.wantFiles("request " + chunkList(0, 2) + " message " + chunkList(2, 24) + " end")
		bob.send(f.says("complete", ""))
	})
}

// A receiver whose line stands still hears how the file ended, even when the server has forgotten the file by then.
func TestTheLastWordOutlivesTheTransfer(t *testing.T) {
	inRelayBubble(t, nil, func(s *pipeServer, anna, bob *pipeClient) {
		f := newFile("cancelled", 24*appChunk)
		s.agree(anna, bob, f)
		bob.freeze()
		anna.sendFrames(f, 0, 10)
		anna.send(f.says("cancel", ""))
		time.Sleep(relayEndedRetention + 2*time.Second)
		bob.thaw()
		bob.wantFiles("request #0 #1 cancel")
	})
}

// A receiver that takes nothing at all is cut, as for signalling; then its grace runs.
func TestAReceiverThatTakesNothing(t *testing.T) {
	inRelayBubble(t, nil, func(s *pipeServer, anna, bob *pipeClient) {
		f := newFile("stuck", 24*appChunk)
		s.agree(anna, bob, f)
		bob.freeze()
		anna.sendFrames(f, 0, 10)
		time.Sleep(writeTimeout + time.Second)
		s.wantCloses("slow_consumer 1")
		bob.thaw()
		time.Sleep(relayGrace)
		anna.wantFiles("accept relay_receiver_gone")
	})
}

// A server that stops ends the files under way and begins no other, as long as it listens still.
func TestAServerThatStopsBeginsNothing(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *pipeServer) {
		anna, bob := s.connect("anna"), s.connect("bob")
		anna.subscribe("room")
		bob.subscribe("room")
		f := newFile("under-way", 2*appChunk)
		s.agree(anna, bob, f)
		anna.frame(f, 0)
		s.stop()
		bob.wantFiles("request #0 relay_stopping")
		anna.wantFiles("accept relay_stopping")
		anna.frame(f, 1)
		anna.send(newFile("late", 1).request("bob"))
		anna.wantFiles("accept relay_stopping relay_stopping")
		bob.wantFiles("request #0 relay_stopping")
		if reserved := s.relayed.reserved.Load(); reserved != 0 {
			t.Errorf("%d bytes are reserved still", reserved)
		}
	})
}

// A party that leaves the room goes on with its file: the app does so with its old socket.
func TestAPartyLeavesTheRoom(t *testing.T) {
	inRelayBubble(t, nil, func(s *pipeServer, anna, bob *pipeClient) {
		f := newFile("on", 2*appChunk)
		s.agree(anna, bob, f)
		for _, c := range []*pipeClient{anna, bob} {
			c.send(`{"type":"unsubscribe","channel":"room"}`)
			c.wantLast(`{"type":"unsubscribed"`)
		}
		anna.sendFrames(f, 0, 2)
		anna.send(strings.Replace(f.says("end", ""), `"channel":"room",`, "", 1))
		bob.send(f.ack(2))
		bob.send(f.says("complete", ""))
		bob.wantFiles("request #0 #1 end")
		anna.wantFiles("accept ack complete")
		time.Sleep(relayCompletedRetention + 2*time.Second)
		if rooms := s.hub.totals().rooms; rooms != 0 {
			t.Errorf("%d rooms are left", rooms)
		}
	})
}
