package main

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAClientIsPingedAndItsPongsKeepItAlive(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *pipeServer) {
		c := s.connect("ann")
		time.Sleep(time.Hour)
		pings := c.when(opPing)
		last := time.Duration(0)
		for _, at := range pings {
			if gap := at - last; gap < defaultPingInterval || gap > defaultPingInterval+sweepInterval {
				t.Fatalf("a ping %v after the one before; all: %v", gap, pings)
			}
			last = at
		}
		if len(pings) < 140 {
			t.Errorf("%d pings in an hour", len(pings))
		}
		c.alive()
	})
}

func TestASilentClientIsCutWithoutAWord(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *pipeServer) {
		silent, bystander := s.connectWith("ann", 0, false, true), s.connect("bob")
		silent.wantEnded(0, defaultIdleTimeout, defaultIdleTimeout+sweepInterval, "")
		if pings := silent.when(opPing); len(pings) != 2 {
			t.Errorf("pinged at %v, want two pings before the cut", pings)
		}
		s.wantCloses("idle_timeout 1")
		bystander.alive()
	})
}

// A single byte every now and then is life, even in the middle of a frame.
func TestAnyByteIsLife(t *testing.T) {
	inBubble(t, func(c *Config) { c.WebSocket.MessageTimeoutSeconds = 3600 }, func(t *testing.T, s *pipeServer) {
		c := s.connectWith("ann", 0, false, true)
		for _, b := range maskedFrame(finBit|opText, []byte(`{"type":"x"}`)) {
			time.Sleep(defaultIdleTimeout - time.Second)
			c.write([]byte{b})
		}
		c.wantLast(`{"type":"error"`)
	})
}

func TestAMessageHasItsTimeFromTheFirstByteWhateverComesBetween(t *testing.T) {
	for name, first := range map[string][]byte{
		"half a frame":            maskedFrame(finBit|opText, []byte("{}"))[:7],
		"a header's first byte":   {finBit | opText},
		"a first fragment":        maskedFrame(opText, []byte(`{"type":`)),
		"an empty first fragment": maskedFrame(opText, nil),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, s *pipeServer) {
				c, bystander := s.connectWith("ann", 0, false, true), s.connect("bob") // no pong into half a frame
				time.Sleep(10 * time.Second)
				began := s.since()
				c.write(first)
				for range 5 {
					time.Sleep(5 * time.Second)
					if name == "a first fragment" || name == "an empty first fragment" {
						c.write(maskedFrame(finBit|opPing, []byte("hello"))) // between fragments control frames may stand
					}
				}
				c.wantEnded(began, defaultMessageTimeout, defaultMessageTimeout+sweepInterval+closeLinger, "close 1008 message_timeout")
				if at := c.when(opClose)[0] - began; at > defaultMessageTimeout+sweepInterval {
					t.Errorf("told after %v", at)
				}
				s.wantCloses("message_timeout 1")
				bystander.alive()
			})
		})
	}
}

// The clock of a message runs for messages alone: control frames between them have none that adds up.
func TestPingsBetweenMessagesAreNoMessageUnderWay(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *pipeServer) {
		c := s.connect("ann")
		for range 100 {
			time.Sleep(3 * time.Second)
			c.write(maskedFrame(finBit|opPing, []byte("hello")))
		}
		if pongs := c.when(opPong); len(pongs) != 100 {
			t.Errorf("%d pongs for 100 pings", len(pongs))
		}
		c.alive()
	})
}

// Whole messages that follow each other without a gap each have a time of their own.
func TestATrainOfMessagesIsNotOneMessage(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *pipeServer) {
		c := s.connectWith("ann", 0, false, true) // no pong into half a frame
		frame := maskedFrame(finBit|opText, []byte(`{"type":"unsubscribe","channel":"nowhere"}`))
		half := len(frame) / 2
		c.write(frame[:half])
		for range 20 { // one's second half and the next one's first half come together
			time.Sleep(5 * time.Second)
			c.write(append(append([]byte(nil), frame[half:]...), frame[:half]...))
		}
		c.write(frame[half:])
		c.alive()
	})
}

func TestATokenEndsItsConnectionWhenItExpires(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *pipeServer) {
		const ttl = 10 * time.Minute
		watcher := s.connect("bob")
		watcher.subscribe("room")
		time.Sleep(time.Second - s.since()) // tokens count in whole seconds
		began := s.since()
		c := s.connectWith("ann", ttl, true, true)
		c.subscribe("room")
		c.wantEnded(began, ttl+tokenLeeway, ttl+tokenLeeway+time.Second, "close 4001 token_expired")
		s.wantCloses("token_expired 1")
		watcher.send(`{"type":"subscribe","channel":"room","event":"more"}`)
		if last := watcher.got()[len(watcher.got())-1]; !strings.Contains(last, `"members":1`) {
			t.Errorf("the room was not left: %s", last)
		}
		if live := s.conns.live(); live != 1 {
			t.Errorf("%d connections are counted, want 1", live)
		}
	})
}

// Somebody who sets the wall clock, or a machine that slept, must not make all clients silent at once.
func TestTheWallClockDecidesAboutTokensAlone(t *testing.T) {
	defaults := DefaultConfig()
	for _, jump := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
		socket, other := net.Pipe()
		limits := newConnLimits(&defaults.WebSocket)
		c := &conn{pinged: time.Minute}
		c.outbox.socket, c.outbox.limit, c.outbox.budget = socket, 1<<20, &Budget{limit: 1 << 20}
		c.wire.since.Store(int64(time.Minute))
		c.wire.lastRead.Store(int64(time.Minute))
		flushed := 0
		c.sweep(limits, time.Minute+time.Second, time.Now().Add(jump), func(*Outbox) { flushed++ })
		if end := c.outbox.ended(); end != notEnded || flushed != 0 {
			t.Errorf("the wall clock jumps by %v: %v, flushed %d times", jump, end, flushed)
		}
		c.expires = time.Now().UnixMilli()
		c.sweep(limits, time.Minute+time.Second, time.Now().Add(jump), func(*Outbox) { flushed++ })
		if end := c.outbox.ended(); (end == ExpiredToken) != (jump > 0) {
			t.Errorf("the wall clock jumps by %v: a token that expires now ends the connection with %v", jump, end)
		}
		socket.Close()
		other.Close()
	}
}

// A machine that was paused for an hour wakes up to clients that could not be heard meanwhile. Only what they said or
// left unsaid while it was awake counts.
func TestASleepOfTheServerIsNoSilenceOfItsClients(t *testing.T) {
	defaults := DefaultConfig()
	const asleep, awake = time.Hour, time.Hour + time.Minute
	for name, want := range map[string]struct {
		lastRead, since, now time.Duration
		end                  Ending
	}{
		"heard just before":                    {time.Minute, 0, awake, notEnded},
		"heard just before, now silent":        {time.Minute, 0, awake + defaultIdleTimeout, IdleTimeout},
		"half a message just before":           {time.Minute, time.Minute - time.Second, awake, notEnded},
		"half a message before, the rest late": {awake + time.Minute, time.Minute - time.Second, awake + defaultMessageTimeout, MessageTimeout},
		"heard since":                          {awake + time.Second, 0, awake + defaultIdleTimeout, notEnded},
	} {
		socket, other := net.Pipe()
		c := &conn{pinged: awake}
		c.outbox.socket, c.outbox.limit, c.outbox.budget = socket, 1<<20, &Budget{limit: 1 << 20}
		c.wire.lastRead.Store(int64(want.lastRead))
		c.wire.since.Store(int64(want.since))
		c.excuse(awake, asleep)
		if heard := time.Duration(c.wire.lastRead.Load()); heard > max(awake, want.lastRead) {
			t.Errorf("%s: heard at %v, which has not come yet", name, heard)
		}
		c.sweep(newConnLimits(&defaults.WebSocket), want.now, time.Now(), func(*Outbox) {})
		if end := c.outbox.ended(); end != want.end {
			t.Errorf("%s: ended with %v, want %v", name, end, want.end)
		}
		socket.Close()
		other.Close()
	}
}

// slowLane allows a kilobyte a second, so that a few bytes are a flood.
func slowLane(c *Config) {
	c.WebSocket.BytesPerSecond, c.WebSocket.BytesBurst = 1000, 1000
}

// While the server itself does not read, the client can neither finish its message nor answer a ping.
func TestAPacedClientLosesNoTime(t *testing.T) {
	inBubble(t, func(c *Config) {
		slowLane(c)
		c.WebSocket.MessageTimeoutSeconds, c.WebSocket.IdleTimeoutSeconds, c.WebSocket.PingIntervalSeconds = 2, 3, 1
	}, func(t *testing.T, s *pipeServer) {
		c, bystander := s.connect("ann"), s.connect("bob")
		frame := maskedFrame(finBit|opText, []byte(`{"type":"unsubscribe","channel":"ab","pad":"`+strings.Repeat("x", 5000)+`"}`))
		began := s.since()
		c.write(frame) // four seconds' worth too much; the last kilobyte is read at once
		time.Sleep(2500 * time.Millisecond)
		if got := c.got(); len(got) > 0 {
			t.Errorf("read ahead of its rate: %q", got)
		}
		bystander.alive()
		time.Sleep(2 * time.Second)
		c.wantLast(`{"type":"unsubscribed"`)
		if took := c.when(opText)[0] - began; took < 3*time.Second || took > 4200*time.Millisecond {
			t.Errorf("the message was whole after %v, want 3 to 4 s", took)
		}
		s.wantCloses()
	})
}

func TestAFloodOfBytesIsCutAfterFiveSeconds(t *testing.T) {
	inBubble(t, slowLane, func(t *testing.T, s *pipeServer) {
		c, bystander := s.connect("ann"), s.connect("bob")
		began := s.since()
		go func() {
			for frame := maskedFrame(finBit|opBinary, make([]byte, 500)); c.queue(frame); {
			}
		}()
		c.wantEnded(began, maxPacing, maxPacing+closeLinger+time.Second, "close 1008 rate_limited")
		if at := c.when(opClose)[0] - began; at < maxPacing || at > maxPacing+time.Second {
			t.Errorf("told after %v", at)
		}
		s.wantCloses("rate_limited 1")
		bystander.alive()
	})
}

// A client that keeps to its rate on average is never cut, however long it goes on.
func TestASteadyStreamWithinTheRateGoesOn(t *testing.T) {
	inBubble(t, slowLane, func(t *testing.T, s *pipeServer) {
		c := s.connect("ann")
		frame := maskedFrame(finBit|opBinary, make([]byte, 892)) // 900 bytes in all
		for range 60 {
			c.write(frame)
			time.Sleep(time.Second)
		}
		c.alive()
	})
}

func TestMessagesAreRefusedOverTheRateAndThenTheConnectionEnds(t *testing.T) {
	inBubble(t, func(c *Config) { c.WebSocket.MessagesPerSecond, c.WebSocket.MessageBurst = 5, 10 }, func(t *testing.T, s *pipeServer) {
		c := s.connect("ann")
		message := func(n int) { // n messages with ids, which are always answered when they are let in
			for i := range n {
				c.send(fmt.Sprintf(`{"type":"unsubscribe","channel":"ab","id":%d}`, i))
			}
		}
		refused := func() uint64 { return s.counters.refusals[RateLimited].Load() }
		message(10)
		if refused() != 0 {
			t.Fatal("refused within the burst")
		}
		message(9)
		if refused() != 9 {
			t.Errorf("%d refused after the burst, want 9", refused())
		}
		c.wantLast(`{"type":"error","error":{"code":429,"reason":"rate_limited"`)
		if last := c.got()[len(c.got())-1]; strings.Contains(last, `"id"`) {
			t.Errorf("the error of a message that was not parsed has an id: %s", last)
		}
		time.Sleep(2 * time.Second) // full again: what was refused is forgiven
		message(19)
		if refused() != 18 {
			t.Errorf("%d refused after a rest and 19 more, want 18", refused())
		}
		time.Sleep(time.Second) // half full: nothing is forgiven
		message(5)
		began := s.since()
		c.send(`{}`)
		c.wantEnded(began, 0, time.Second, "close 1008 rate_limited")
		s.wantCloses("rate_limited 1")
	})
}

func TestTheSameErrorIsSaidOnceASecond(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *pipeServer) {
		c := s.connect("ann")
		errorsAfter := func(want int, texts ...string) {
			t.Helper()
			before := len(c.got())
			for _, text := range texts {
				c.send(text)
			}
			if got := c.got()[before:]; len(got) != want {
				t.Errorf("%d errors for %q, want %d: %q", len(got), texts, want, got)
			}
		}
		const stray, elsewhere = `{"type":"publish","channel":"aa","data":{}}`, `{"type":"publish","channel":"bb","data":{}}`
		const numbered = `{"type":"publish","channel":"aa","data":{},"id":1}`
		errorsAfter(1, stray, stray, stray)
		errorsAfter(1, elsewhere, elsewhere)
		errorsAfter(3, numbered, numbered, numbered)
		time.Sleep(errorRepeat - time.Millisecond)
		errorsAfter(0, stray)
		time.Sleep(time.Millisecond)
		errorsAfter(1, stray, stray)
		if n := s.counters.refusals[NotSubscribed].Load(); n != 11 {
			t.Errorf("%d refusals counted, want all 11, held back or not", n)
		}
	})
}

func TestAClientThatTakesNothingForTenSecondsIsTooSlow(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *pipeServer) {
		frozen, talker := s.connect("ann"), s.connect("bob")
		frozen.subscribe("room")
		talker.subscribe("room")
		frozen.freeze() // reads one more frame at most
		began := s.since()
		for range 3 {
			talker.send(`{"type":"publish","channel":"room","data":{"n":1}}`)
		}
		time.Sleep(writeTimeout + time.Second)
		s.wantCloses("slow_consumer 1")
		frozen.thaw()
		frozen.wantEnded(began, writeTimeout, writeTimeout+time.Second, "")
		talker.send(`{"type":"subscribe","channel":"room","event":"more"}`)
		if last := talker.got()[len(talker.got())-1]; !strings.Contains(last, `"members":1`) {
			t.Errorf("the slow member is in the room still: %s", last)
		}
	})
}

func TestAHandshakeThatDribblesIsCut(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *pipeServer) {
		for name, dribble := range map[string]string{
			"nothing at all":     "",
			"a byte in a while":  "GET /ws HTTP/1.1\r\nHost: a.letshare.test\r\n",
			"half of the header": "",
		} {
			socket, err := s.listener.dial()
			if err != nil {
				t.Fatal(err)
			}
			began := s.since()
			if name == "half of the header" {
				io.WriteString(socket, "GET /ws HTTP/1.1\r\nHost")
			}
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				io.Copy(io.Discard, socket)
			}()
			dribbled := make(chan struct{})
			go func() {
				defer close(dribbled)
				for i := range dribble {
					time.Sleep(time.Second)
					if _, err := socket.Write([]byte{dribble[i]}); err != nil {
						return
					}
				}
			}()
			<-gone
			// net/http answers 408 to a half header; what counts is that the socket is free again.
			if took := s.since() - began; took < readHeaderTimeout || took > readHeaderTimeout+2*time.Second {
				t.Errorf("%s: cut after %v, want about %v", name, took, readHeaderTimeout)
			}
			socket.Close()
			<-dribbled
			synctest.Wait()
		}
		if open := len(s.Server.listener.open); open != 1 {
			t.Errorf("%d sockets are counted as open, want the one that Accept waits with", open)
		}
	})
}

// After its close frame the server waits for the client's, but not for ever.
func TestTheServerWaitsTwoSecondsForAnAnswerToItsCloseFrame(t *testing.T) {
	twenty := strings.Repeat("x", maxErrorsInARow)
	for answers, earliest := range map[bool]time.Duration{false: closeLinger, true: 0} {
		inBubble(t, nil, func(t *testing.T, s *pipeServer) {
			c := s.connectWith("ann", 0, true, answers)
			began := s.since()
			for range twenty {
				c.send(`[]`)
			}
			c.wantEnded(began, earliest, earliest+100*time.Millisecond, "close 1008 too_many_errors")
			s.wantCloses("too_many_errors 1")
		})
	}
}

// While the server waits, it throws away what the client goes on sending: unread input would reset the connection.
func TestTheServerReadsOnAfterItsCloseFrame(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *pipeServer) {
		c := s.connectWith("ann", 0, true, false)
		for range maxErrorsInARow {
			c.send(`[]`)
		}
		began := s.since()
		for range 10 {
			time.Sleep(100 * time.Millisecond)
			c.send(`{"type":"subscribe","channel":"late"}`)
		}
		c.write(maskedFrame(finBit|opClose, nil))
		c.wantEnded(began, time.Second, 1100*time.Millisecond, "close 1008 too_many_errors")
		if rooms := s.hub.totals().rooms; rooms != 0 {
			t.Errorf("%d rooms: what came after the close frame was carried out", rooms)
		}
	})
}

func TestABrokenFrameEndsTheConnectionWithinASecond(t *testing.T) {
	for name, broken := range map[string]struct {
		frame []byte
		last  string
	}{
		"reserved bit":         {maskedFrame(finBit|0x40|opText, []byte("{}")), "close 1002 protocol_error"},
		"reserved opcode":      {maskedFrame(finBit|3, nil), "close 1002 protocol_error"},
		"not masked":           {[]byte{finBit | opText, 2, '{', '}'}, "close 1002 protocol_error"},
		"a control fragment":   {maskedFrame(opPing, nil), "close 1002 protocol_error"},
		"a lone continuation":  {maskedFrame(finBit|opContinuation, []byte("{}")), "close 1002 protocol_error"},
		"a close code of 999":  {maskedFrame(finBit|opClose, []byte{999 >> 8, 999 & 0xFF}), "close 1002 protocol_error"},
		"invalid UTF-8":        {maskedFrame(finBit|opText, []byte("\"\xff\"")), "close 1007 invalid_utf8"},
		"an announced monster": {append([]byte{finBit | opText, 127 | maskBit, 0x7F, 255, 255, 255, 255, 255, 255, 255}, 1, 2, 3, 4), "close 1009 message_too_big"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, s *pipeServer) {
				c, bystander := s.connectWith("ann", 0, true, false), s.connect("bob")
				began := s.since()
				c.write(broken.frame)
				c.wantEnded(began, 0, time.Second, broken.last)
				bystander.alive()
			})
		})
	}
}

func TestAFloodOfPingsIsCut(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *pipeServer) {
		c := s.connect("ann")
		for range 3 { // at the limit, again and again
			for range defaultPingsPerSecond {
				c.write(maskedFrame(finBit|opPing, nil))
			}
			time.Sleep(time.Second)
		}
		began := s.since()
		for range defaultPingsPerSecond + 1 {
			c.write(maskedFrame(finBit|opPing, nil))
		}
		c.wantEnded(began, 0, time.Second, "close 1008 ping_flood")
		if pongs := len(c.when(opPong)); pongs != 4*defaultPingsPerSecond {
			t.Errorf("%d pongs, want %d", pongs, 4*defaultPingsPerSecond)
		}
	})
}

func TestADrainSendsEverybodyAwayAndDoesNotWaitForTheStubborn(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *pipeServer) {
		polite, mute, deaf := s.connect("ann"), s.connectWith("bob", 0, true, false), s.connect("cid")
		for _, c := range []*pipeClient{polite, mute, deaf} {
			c.subscribe("room")
		}
		deaf.freeze() // takes no byte, so that the close frame does not leave either
		polite.send(`{"type":"publish","channel":"room","data":{}}`)
		polite.send(`{"type":"publish","channel":"room","data":{}}`)
		half, err := s.listener.dial() // an HTTP client in the middle of its request
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(half, "GET /health HTTP/1.1\r\n")
		began := s.since()
		s.stop()
		synctest.Wait()

		if answer := s.request("GET", "/health"); answer.StatusCode != 503 {
			t.Errorf("/health during the drain: %s", answer.Status)
		}
		answer := s.request("GET", "/ws", "Connection: Upgrade", "Upgrade: websocket")
		if answer.StatusCode != 503 || answer.Header.Get("Retry-After") == "" {
			t.Errorf("an upgrade during the drain: %s, Retry-After %q", answer.Status, answer.Header.Get("Retry-After"))
		}
		polite.wantEnded(began, 0, 100*time.Millisecond, "close 1001 going_away")
		mute.wantEnded(began, drainStep+closeLinger, drainStep+closeLinger+100*time.Millisecond, "close 1001 going_away")
		err = <-s.ended
		if took := s.since() - began; err != nil || took > defaultDrain+2*time.Second {
			t.Errorf("Run returned %v after %v", err, took)
		}
		deaf.thaw()
		deaf.wantEnded(began, 0, defaultDrain+2*time.Second, "")
		half.Close()
		s.wantCloses("going_away 3")
		s.ended <- nil // for the bubble's own stop
	})
}
