package main

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"letshare/ably"
)

// ablyCrowd is a channel with n listeners of a format; say publishes once, with everything that belongs to it but the system calls.
func ablyCrowd(t testing.TB, n int, format ably.Format) (say func()) {
	s := stillServer(t, func(c *Config) { withAblyKeys(c); c.Ably.MessagesPerSecond, c.Ably.HistorySeconds = 0, 1 })
	sh := s.hub.shard("room")
	attach := func(name string) *ablyConn {
		c := connectStill(s, Identity{UserID: name})
		c.member.dialect = dialectAblyJSON + dialect(format)
		a := &ablyConn{conn: c, rules: s.rules.Load().ably, format: format, channels: make(map[string]*ablyChannel)}
		c.ably = a
		a.become(ablyIdentity{clientID: "*", capability: s.rules.Load().ably.auth.keys["app.all"].capability})
		a.session = s.sessions.open(c, a.identity)
		return a
	}
	carryOut := func(call *ablyCall, m *Member) {
		sh.now = time.Now()
		sh.handleAbly(&op{kind: opAbly, member: m, room: "room", ably: call, reply: make(chan *Refusal, 1)})
		sh.flush()
	}
	var listeners []*conn
	for range n {
		a := attach("listener")
		carryOut(&ablyCall{kind: ablyAttach, attachment: &attachment{member: &a.conn.member, name: "room", connectionID: a.session.id, echo: true, granted: ablyDefaultModes}}, &a.conn.member)
		takeFrames(a.conn)
		listeners = append(listeners, a.conn)
	}
	publisher := attach("publisher")
	m := ably.ProtocolMessage{Action: ably.ActionMessage, Channel: ably.Some("room"), MsgSerial: ably.Some(int64(0)),
		Messages: []ably.Message{ablyObject("signal:all", `{"type":"discover","userType":"desktop","from":"publisher"}`)}}
	return func() {
		m.MsgSerial.V++
		publisher.sayStill(t, sh, m.Append(nil, format))
		for _, c := range listeners {
			if len(c.outbox.queue) == 0 {
				t.Fatal("not delivered")
			}
			c.outbox.queue, c.outbox.queued = c.outbox.queue[:0], 0
		}
		publisher.conn.outbox.queue, publisher.conn.outbox.queued = publisher.conn.outbox.queue[:0], 0
	}
}

// sayStill lets a connection take a message while the shard runs beside it, for one operation.
func (a *ablyConn) sayStill(t testing.TB, sh *shard, p []byte) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		o := <-sh.mailbox
		sh.now = time.Now()
		sh.ablyTick() // as if a second had passed: what is kept does not grow without bound
		sh.handle(&o)
		sh.flush()
	}()
	a.take(p)
	<-done
}

// Beside BenchmarkPublish50: what an Ably publish to fifty costs without system calls. It waits for its shard, and the numbers
// hold two switches of goroutines.
func BenchmarkAblyPublish50(b *testing.B) {
	for format, name := range []string{"json", "msgpack"} {
		b.Run(name, func(b *testing.B) {
			say := ablyCrowd(b, 50, ably.Format(format))
			b.ReportAllocs()
			for b.Loop() {
				say()
			}
		})
	}
}

// The frames of a publish are shared: what it allocates does not grow with the listeners.
func TestAnAblyPublishAllocatesTheSameForAnyNumberOfListeners(t *testing.T) {
	few, many := testing.AllocsPerRun(200, ablyCrowd(t, 5, ably.JSON)), testing.AllocsPerRun(200, ablyCrowd(t, 50, ably.JSON))
	if many > few+2 {
		t.Errorf("%v objects for 5 listeners, %v for 50", few, many)
	}
}

// What a message to fifty costs over real sockets, server and clients together, in one run: Ably's may cost at most twice
// LetShare's. Compare the three.
func BenchmarkFanOut50(b *testing.B) {
	const data = `{"type":"discover","userType":"desktop","from":"publisher"}`
	b.Run("letshare", func(b *testing.B) {
		s := startServer(b, func(c *Config) { c.WebSocket.MessagesPerSecond, c.WebSocket.MaxRoomUsers = 0, 0 })
		fan := make([]*client, 50)
		for i := range fan {
			fan[i] = s.dial(b, fmt.Sprint("listener", i))
			fan[i].subscribe(b, "room", "signal:all")
		}
		publisher := s.dial(b, "publisher")
		publisher.subscribe(b, "room", "signal:ben")
		say := maskedFrame(finBit|opText, []byte(`{"type":"publish","channel":"room","event":"signal:all","data":`+data+`}`))
		fanOut(b, fan, func() { publisher.raw(b, say) })
	})
	for format, name := range []string{"ably-json", "ably-msgpack"} {
		b.Run(name, func(b *testing.B) {
			s := startServer(b, withAblyKeys, func(c *Config) { c.Ably.MessagesPerSecond, c.Ably.HistorySeconds = 0, 1 })
			option := "format=" + []string{"json", "msgpack"}[format]
			fan := make([]*client, 50)
			for i := range fan {
				c := s.ably(b, "listener", option)
				c.attach(b, "room")
				fan[i] = c.client
			}
			publisher := s.ably(b, "publisher", option)
			fanOut(b, fan, func() { publisher.publish(b, "room", ablyObject("signal:all", data)) })
		})
	}
}

// fanOut times say together with the arrival of one frame at each of the fan.
func fanOut(b *testing.B, fan []*client, say func()) {
	var arrived, ended sync.WaitGroup
	for _, c := range fan {
		ended.Go(func() {
			for {
				opcode, _, err := c.read()
				if err != nil {
					return
				}
				if opcode == opText || opcode == opBinary {
					arrived.Done()
				}
			}
		})
	}
	for b.Loop() {
		arrived.Add(len(fan))
		say()
		arrived.Wait()
	}
	for _, c := range fan {
		c.close()
	}
	ended.Wait()
}
