package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// frames is one message many times over, ready to be sent in one go.
func frames(n int, message string) []byte {
	return bytes.Repeat(maskedFrame(finBit|opText, []byte(message)), n)
}

// publishToRoom is a message that nothing is wrong with.
const publishToRoom = `{"type":"publish","channel":"room","data":{},"id":1}`

func TestTheFiftyFirstMemberIsRefused(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	var members []*client
	for i := range 50 {
		c := s.dial(t, fmt.Sprintf("member %d", i))
		c.send(t, `{"type":"subscribe","channel":"room"}`)
		c.want(t, fmt.Sprintf(`{"type":"subscribed","data":{"members":%d}}`, i+1))
		members = append(members, c)
	}
	late := s.dial(t, "late")
	late.send(t, `{"type":"subscribe","channel":"room","id":1}`)
	refused := late.want(t, `{"type":"error","channel":"room","id":1,"error":{"code":409,"reason":"room_full"}}`)
	if !strings.Contains(refused, "50") {
		t.Errorf("the text does not name the limit: %s", refused)
	}
	// Who is inside may listen to more: members count, not events. Who is outside hears nothing, and stays connected.
	members[0].subscribe(t, "room", "signal:member 0")
	members[0].publish(t, "room", "", `{"n":1}`)
	for _, c := range members[1:] {
		c.want(t, `{"type":"message","data":{"n":1}}`)
	}
	late.wantNothing(t)
	s.wantMetric(t, "refusals", "room_full", 1)
	s.wantMetric(t, "websocket", "total_rooms", 1)

	members[7].leave(t)
	s.wantMetric(t, "websocket", "active_connections", 50)
	late.send(t, `{"type":"subscribe","channel":"room"}`)
	late.want(t, `{"type":"subscribed","data":{"members":50}}`)
}

// A connection has so many places for rooms. A room that refuses it gives the place back, and so does leaving one.
func TestRoomsPerConnection(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(cfg *Config) { cfg.WebSocket.MaxRoomsPerConnection, cfg.WebSocket.MaxRoomUsers = 2, 1 })
	anna, bob := s.dial(t, "anna"), s.dial(t, "bob")
	bob.subscribe(t, "taken", "")

	anna.subscribe(t, "one", "")
	for range 5 {
		anna.send(t, `{"type":"subscribe","channel":"taken","id":1}`)
		anna.wantError(t, 409, "room_full")
	}
	anna.subscribe(t, "two", "")
	anna.subscribe(t, "two", "signal:anna") // a room counts once
	anna.send(t, `{"type":"subscribe","channel":"three","id":1}`)
	if text := anna.wantError(t, 409, "too_many_rooms"); !strings.Contains(text, "2") {
		t.Errorf("the text does not name the limit: %s", text)
	}
	s.wantMetric(t, "refusals", "too_many_rooms", 1)
	s.wantMetric(t, "websocket", "total_rooms", 3)

	anna.send(t, `{"type":"unsubscribe","channel":"two","event":"signal:anna"}`)
	anna.want(t, `{"type":"unsubscribed"}`)
	anna.send(t, `{"type":"subscribe","channel":"three","id":1}`)
	anna.wantError(t, 409, "too_many_rooms") // it is still in the room
	anna.send(t, `{"type":"unsubscribe","channel":"two","event":"signal:all"}`)
	anna.want(t, `{"type":"unsubscribed"}`)
	anna.subscribe(t, "three", "")
	anna.send(t, `{"type":"unsubscribe","channel":"one"}`)
	anna.want(t, `{"type":"unsubscribed"}`)
	anna.send(t, `{"type":"unsubscribe","channel":"one"}`) // twice gives no second place
	anna.want(t, `{"type":"unsubscribed"}`)
	anna.subscribe(t, "four", "")
	anna.send(t, `{"type":"subscribe","channel":"five","id":1}`)
	anna.wantError(t, 409, "too_many_rooms")
}

// The place is taken when the subscribe is read, without waiting for the room: a hundred at once are no way around.
func TestRoomsPerConnectionInOnePacket(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(cfg *Config) { cfg.WebSocket.MaxRoomsPerConnection = 3 })
	anna := s.dial(t, "anna")
	var all []byte
	for i := range 100 {
		all = append(all, frames(1, fmt.Sprintf(`{"type":"subscribe","channel":"room %d","id":%d}`, i, i))...)
	}
	anna.raw(t, all)
	var admitted, refused int
	for range 100 {
		switch message := anna.message(t); {
		case strings.HasPrefix(message, `{"type":"subscribed"`):
			admitted++
		case strings.Contains(message, `"reason":"too_many_rooms"`):
			refused++
		default:
			t.Errorf("anna got %s", message)
		}
	}
	if admitted != 3 || refused != 97 {
		t.Errorf("%d rooms admitted and %d refused, want 3 and 97", admitted, refused)
	}
	s.wantMetric(t, "websocket", "total_rooms", 3)
}

func TestEventsPerRoom(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(cfg *Config) { cfg.WebSocket.MaxEventsPerRoom = 2 })
	anna, bob := s.dial(t, "anna"), s.dial(t, "bob")
	bob.subscribe(t, "room", "")
	anna.subscribe(t, "room", "one")
	anna.subscribe(t, "room", "two")
	anna.subscribe(t, "room", "one") // again is not more
	anna.send(t, `{"type":"subscribe","channel":"room","event":"three","id":1}`)
	if text := anna.wantError(t, 409, "too_many_events"); !strings.Contains(text, "2") {
		t.Errorf("the text does not name the limit: %s", text)
	}
	bob.publish(t, "room", "three", `{}`)
	anna.wantNothing(t)
	bob.publish(t, "room", "two", `{}`)
	anna.want(t, `{"type":"message","event":"two"}`)
	anna.subscribe(t, "other room", "three") // each room counts for itself
	anna.send(t, `{"type":"unsubscribe","channel":"room","event":"one"}`)
	anna.want(t, `{"type":"unsubscribed"}`)
	anna.subscribe(t, "room", "three")
	s.wantMetric(t, "refusals", "too_many_events", 1)
}

// The bytes of an event are counted as they are meant, not as they are escaped.
func TestLongEvents(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	anna, bob := s.dial(t, "anna"), s.dial(t, "bob")
	longest := strings.Repeat("雪", 64)
	anna.subscribe(t, "room", longest)
	bob.subscribe(t, "room", strings.Repeat("\x01", 192)) // 1152 bytes of escapes
	for _, kind := range []string{"subscribe", "unsubscribe", "publish"} {
		anna.send(t, `{"type":"`+kind+`","channel":"room","event":"`+longest+`x","data":{},"id":1}`)
		anna.wantError(t, 400, "bad_event")
	}
	anna.publish(t, "room", strings.Repeat("\x01", 192), `{}`)
	bob.want(t, toJSON(t, map[string]string{"type": "message", "event": strings.Repeat("\x01", 192)}))
	s.wantMetric(t, "refusals", "bad_event", 3)
}

// A message of exactly the limit passes; one byte more is closed with 1009. Nobody waits for the bytes that a header announces.
func TestMessagesThatAreTooLong(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	bob := s.dial(t, "bob")
	bob.subscribe(t, "room", "")
	const limit = 524288
	before, after := `{"type":"publish","channel":"room","data":{"from":"anna","text":"`, `"}}`
	longest := before + strings.Repeat("x", limit-len(before)-len(after)) + after
	anna := s.dial(t, "anna")
	anna.subscribe(t, "room", "")

	anna.send(t, longest)
	if got := len(bob.want(t, `{"type":"message"}`)); got < limit-100 {
		t.Errorf("bob got %d bytes", got)
	}
	half := []byte(longest[:limit/2])
	anna.raw(t, maskedFrame(opText, half)) // in two fragments
	anna.raw(t, maskedFrame(finBit|opContinuation, []byte(longest[limit/2:])))
	bob.want(t, `{"type":"message"}`)

	anna.send(t, longest+" ")
	anna.wantClose(t, 1009, "message_too_big")
	s.wantMetric(t, "closes", "message_too_big", 1)

	carol := s.dial(t, "carol")
	carol.subscribe(t, "room", "")
	carol.raw(t, maskedFrame(opText, half))
	carol.raw(t, maskedFrame(finBit|opContinuation, []byte(longest[limit/2:]+" ")))
	carol.wantClose(t, 1009, "message_too_big")
	s.wantMetric(t, "closes", "message_too_big", 2)

	dora := s.dial(t, "dora")
	dora.raw(t, binary.BigEndian.AppendUint64([]byte{finBit | opText, maskBit | 127}, 1<<62))
	dora.raw(t, []byte{1, 2, 3, 4, 5})
	dora.wantClose(t, 1009, "message_too_big")
	s.wantMetric(t, "closes", "message_too_big", 3)
	bob.wantNothing(t)
}

// An endless message in empty fragments never grows, but the bytes around it do.
func TestAMessageMayNotTakeAnyNumberOfFragments(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(cfg *Config) { cfg.WebSocket.MaxMessageBytes = 1000 })
	anna, bob := s.dial(t, "anna"), s.dial(t, "bob")
	bob.subscribe(t, "room", "")
	budget := 2*1000 + 64<<10
	empty := maskedFrame(opContinuation, nil)
	anna.raw(t, maskedFrame(opText, []byte(`{`)))
	anna.raw(t, bytes.Repeat(empty, budget/len(empty)-10))
	anna.raw(t, maskedFrame(finBit|opContinuation, []byte(`"type":"subscribe","channel":"room","id":1}`)))
	anna.want(t, `{"type":"subscribed"}`) // just so

	anna.raw(t, maskedFrame(opText, []byte(`{`)))
	anna.raw(t, bytes.Repeat(empty, budget/len(empty)+10))
	anna.wantClose(t, 1008, "message_budget")
	s.wantMetric(t, "closes", "message_budget", 1)
	bob.wantNothing(t)
}

// Twenty errors of code 400 in a row end a connection. The twentieth is answered, even where it would be held back.
func TestTwentyErrorsInARow(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for i, bad := range []string{`{`, `{"type":"nonsense"}`, `{"type":"publish","channel":"room","data":[]}`, `{"type":"subscribe","channel":"!"}`} {
		anna := s.dial(t, "anna")
		anna.raw(t, frames(20, bad))
		// Answers that wait in a queue when the connection ends are lost, but not the last.
		answers := anna.untilClose(t, 1008, "too_many_errors")
		if len(answers) == 0 || subsetOf(t, `{"type":"error","error":{"code":400}}`, answers[len(answers)-1]) != "" {
			t.Errorf("%s twenty times is answered %q", bad, answers)
		}
		s.wantMetric(t, "closes", "too_many_errors", float64(i+1))
	}
	for _, reason := range []string{"bad_json", "bad_type", "bad_data", "bad_channel"} {
		s.wantMetric(t, "refusals", reason, 20) // those that were not answered are counted too
	}
	for range 20 {
		anna := s.dial(t, "anna")
		anna.raw(t, append(frames(19, `{"type":"publish","channel":"room","data":[],"id":1}`), frames(1, `{"type":"publish","channel":"room","data":[],"id":20}`)...))
		answers := anna.untilClose(t, 1008, "too_many_errors")
		if len(answers) == 0 || subsetOf(t, `{"type":"error","id":20}`, answers[len(answers)-1]) != "" {
			t.Errorf("the twentieth error is not answered: %q", answers)
		}
	}
	// What comes behind the twentieth is not carried out.
	anna, bob := s.dial(t, "anna"), s.dial(t, "bob")
	anna.subscribe(t, "room", "")
	bob.subscribe(t, "room", "")
	anna.raw(t, append(frames(20, `{"type":"nonsense","id":1}`), frames(1, publishToRoom)...))
	if answers := anna.untilClose(t, 1008, "too_many_errors"); len(answers) != 20 {
		t.Errorf("%d of 20 errors with an id are answered: %q", len(answers), answers)
	}
	bob.wantNothing(t)
}

// An accepted message, or an error of another code, starts the count again.
func TestWhatEndsARowOfErrors(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(cfg *Config) { cfg.WebSocket.MaxRoomsPerConnection, cfg.WebSocket.MaxRoomUsers = 1, 2 })
	anna, bob, carol := s.dial(t, "anna", withToken(s.token(t, Claims{UserID: "anna", Room: "room"}))), s.dial(t, "bob"), s.dial(t, "carol")
	bob.subscribe(t, "room", "")
	carol.subscribe(t, "full", "")
	for _, story := range []struct{ message, answer string }{
		{`{"type":"subscribe","channel":"room","id":"good"}`, "subscribed"},
		{`{"type":"publish","channel":"room","data":{},"id":"good"}`, "ack"},
		{`{"type":"subscribe","channel":"elsewhere","id":"good"}`, "error"}, // 403
		{`{"type":"unsubscribe","channel":"room","id":"good"}`, "unsubscribed"},
		{`{"type":"publish","channel":"room","data":{},"id":"good"}`, "error"}, // 403, by the room
	} {
		anna.raw(t, append(frames(19, `{"type":"nonsense","id":"bad"}`), frames(1, story.message)...))
		anna.raw(t, frames(19, `{"type":"nonsense","id":"bad"}`))
		// Between the room's answers and the others the order is free.
		bad := 0
		for range 39 {
			message := anna.message(t)
			if strings.Contains(message, `"reason":"bad_type"`) {
				bad++
			} else if subsetOf(t, `{"id":"good","type":"`+story.answer+`"}`, message) != "" {
				t.Errorf("%s is answered %s", story.message, message)
			}
		}
		if bad != 38 {
			t.Errorf("around %s there are %d errors, want 38", story.message, bad)
		}
		anna.send(t, `{"type":"unsubscribe","channel":"room","event":"none","id":"end of the row"}`)
		anna.want(t, `{"type":"unsubscribed","id":"end of the row"}`)
	}
	anna.raw(t, frames(20, `{"type":"nonsense","id":"bad"}`))
	anna.untilClose(t, 1008, "too_many_errors")
}

// A client over its rate is told so, without an id, for its messages are not even parsed. One that goes on is closed.
func TestMessagesOverTheRate(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(cfg *Config) { cfg.WebSocket.MessagesPerSecond, cfg.WebSocket.MessageBurst = 1, 10 })
	anna, bob := s.dial(t, "anna"), s.dial(t, "bob")
	bob.subscribe(t, "room", "")
	anna.subscribe(t, "room", "")
	began := time.Now()
	anna.raw(t, frames(12, publishToRoom))
	for limited := false; !limited; {
		answer := anna.message(t)
		if limited = strings.Contains(answer, "error"); !limited {
			continue
		}
		if subsetOf(t, `{"type":"error","error":{"code":429,"reason":"rate_limited"}}`, answer) != "" || strings.Contains(answer, `"id"`) {
			t.Errorf("anna got %s, want rate_limited without an id", answer)
		}
	}
	anna.raw(t, append(frames(5, `not JSON`), frames(12, publishToRoom)...))
	anna.untilClose(t, 1008, "rate_limited")
	refill := int(time.Since(began)/time.Second) + 1
	s.wantMetric(t, "refusals", "rate_limited", 10)
	// Whatever was accepted has been delivered when bob's own message is answered.
	bob.send(t, `{"type":"unsubscribe","channel":"room","event":"none","id":"fence"}`)
	accepted := 0
	for ; !strings.Contains(bob.message(t), `"id":"fence"`); accepted++ {
	}
	if accepted < 9 || accepted > 9+refill {
		t.Errorf("%d publishes were delivered, want 9 (or some more on a slow machine)", accepted)
	}
	s.wantMetric(t, "closes", "rate_limited", 1)
	s.dial(t, "anna").subscribe(t, "room", "") // another connection has a bucket of its own
}

func TestARateOfZeroIsNoLimit(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(cfg *Config) {
		cfg.WebSocket = WebSocketConfig{MaxMessageBytes: 4096, MaxQueueBytes: 1 << 20, MaxBufferedBytes: 1 << 26,
			MessageTimeoutSeconds: 30, PingIntervalSeconds: 25, IdleTimeoutSeconds: 60, PingsPerSecond: 10}
	})
	anna, bob := s.dial(t, "anna"), s.dial(t, "bob")
	bob.subscribe(t, "room", strings.Repeat("long", 500))
	for i := range 120 {
		anna.subscribe(t, fmt.Sprintf("room %d", i), "")
		anna.subscribe(t, "room", fmt.Sprintf("event %d", i))
	}
	anna.raw(t, frames(2000, publishToRoom))
	for range 2000 {
		anna.want(t, `{"type":"ack"}`)
	}
}

// Nobody waits for a member that does not read: it is cut, and the others lose nothing.
func TestASlowMemberIsCutAndTheOthersLoseNothing(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(cfg *Config) {
		cfg.WebSocket.BytesPerSecond, cfg.WebSocket.MessagesPerSecond = 0, 0
	})
	anna, bob, carol := s.dial(t, "anna"), s.dial(t, "bob"), s.dial(t, "carol")
	frozen := s.dial(t, "frozen")
	for _, c := range []*client{anna, bob, carol, frozen} {
		c.subscribe(t, "room", "")
	}
	// The kernel takes some megabytes for the frozen one before the server's own queue fills.
	const size, most = 128 << 10, 500
	rest := maskedFrame(finBit|opContinuation, []byte(strings.Repeat("x", size)+`"}}`))
	sent := 0
	for ; sent < most && s.server.counters.endings[SlowConsumer].Load() == 0; sent++ {
		anna.raw(t, maskedFrame(opText, []byte(fmt.Sprintf(`{"type":"publish","channel":"room","id":%d,"data":{"n":%d,"x":"`, sent, sent))))
		anna.raw(t, rest)
		anna.want(t, fmt.Sprintf(`{"type":"ack","id":%d}`, sent))
		for _, c := range []*client{bob, carol} {
			message := c.message(t)
			if !strings.Contains(message[:200], fmt.Sprintf(`"n":%d,`, sent)) || len(message) < size {
				t.Fatalf("%s got %d bytes, %s…, want message %d", c.name, len(message), message[:200], sent)
			}
		}
	}
	if sent == most {
		t.Fatalf("after %d messages of 128 KiB the frozen member is still there", sent)
	}
	s.wantMetric(t, "closes", "slow_consumer", 1)
	s.wantMetric(t, "websocket", "active_connections", 3)
	s.wantMetric(t, "websocket", "buffered_bytes", 0)
	carol.send(t, `{"type":"subscribe","channel":"room"}`)
	carol.want(t, `{"type":"subscribed","data":{"members":3}}`)
	// What it reads at last is cut off within a frame: no close frame can be sent behind that.
	frozen.wantCut(t)
}

// A client that holds more unfinished bytes than all may together is cut; who holds little is not.
func TestTheLargestHolderIsCutWhenMemoryRunsOut(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(cfg *Config) { cfg.WebSocket.MaxBufferedBytes = 256 << 10 })
	anna, bob := s.dial(t, "anna"), s.dial(t, "bob")
	text := `{"type":"subscribe","channel":"room","unknown":"` + strings.Repeat("x", 8<<10) + `"}`
	unfinished := maskedFrame(finBit|opText, []byte(text))
	bob.raw(t, unfinished[:6<<10])
	anna.raw(t, binary.BigEndian.AppendUint64([]byte{finBit | opText, maskBit | 127}, 500<<10))
	// Whatever the server holds of it, it may not hold all.
	anna.raw(t, make([]byte, 4+400<<10))
	anna.wantClose(t, 1013, "memory_pressure")
	s.wantMetric(t, "closes", "memory_pressure", 1)
	bob.raw(t, unfinished[6<<10:])
	bob.want(t, `{"type":"subscribed"}`)
	s.wantMetric(t, "websocket", "buffered_bytes", 0)
}

func TestPingsAreAnsweredAndFloodsAreNot(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	anna, bob := s.dial(t, "anna"), s.dial(t, "bob")
	for _, payload := range []string{"", "hello", strings.Repeat("p", 125)} {
		anna.frame(t, opPing, []byte(payload))
		if opcode, pong, err := anna.read(); err != nil || opcode != opPong || string(pong) != payload {
			t.Errorf("a ping with %q is answered %d %q %v", payload, opcode, pong, err)
		}
	}
	anna.frame(t, opPong, []byte("nobody asked")) // allowed, RFC 6455 section 5.5.3
	anna.subscribe(t, "room", "")
	bob.subscribe(t, "room", "")

	anna.raw(t, bytes.Repeat(maskedFrame(finBit|opPing, []byte("flood")), 100))
	if messages := anna.untilClose(t, 1008, "ping_flood"); len(messages) > 0 {
		t.Errorf("a flood of pings is answered %q", messages)
	}
	s.wantMetric(t, "closes", "ping_flood", 1)
	bob.send(t, `{"type":"subscribe","channel":"room"}`)
	bob.want(t, `{"type":"subscribed","data":{"members":1}}`)
}

// When the server stops, everybody is told, and it waits for nobody who does not answer for long.
func TestEverybodyIsToldWhenTheServerStops(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	anna, bob := s.dial(t, "anna"), s.dial(t, "bob")
	anna.subscribe(t, "room", "")
	stopped := make(chan struct{})
	go func() { s.stop(); close(stopped) }()
	anna.wantClose(t, 1001, "going_away")
	bob.wantClose(t, 1001, "going_away")
	select {
	case <-stopped:
	case <-time.After(patience):
		t.Fatal("the server does not stop")
	}
	if _, err := bob.socket.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the socket outlives the server: %v", err)
	}
}
