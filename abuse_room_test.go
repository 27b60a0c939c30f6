package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Rooms by the thousand, one room a thousand times, and a room that is full.
func TestAbuse22_TooManyRooms(t *testing.T) {
	t.Parallel()
	a := underAttack(t, func(cfg *Config) { cfg.WebSocket.MessagesPerSecond = 0 })
	c := a.dial("mallory")
	const asked = 10_000
	var all bytes.Buffer
	for i := range asked {
		all.Write(maskedFrame(finBit|opText, []byte(fmt.Sprintf(`{"type":"subscribe","channel":"room %d","id":%d}`, i, i))))
	}
	stop := c.flood(all.Bytes(), all.Len())
	admitted := 0
	for range asked {
		message := c.message(t)
		if strings.HasPrefix(message, `{"type":"subscribed"`) {
			admitted++
		} else if !strings.Contains(message, `"code":409,"reason":"too_many_rooms"`) {
			t.Fatalf("answered %s", message)
		}
	}
	stop()
	if admitted != defaultMaxRoomsPerConnection {
		t.Errorf("%d rooms admitted, want %d", admitted, defaultMaxRoomsPerConnection)
	}
	a.wantMetric(t, "websocket", "total_rooms", float64(admitted+2))
	c.close()
	a.wantMetric(t, "websocket", "total_rooms", 2)

	c = a.member("mallory")
	for range 1000 {
		c.send(t, `{"type":"subscribe","channel":"room"}`)
		c.want(t, `{"type":"subscribed","data":{"members":3}}`)
	}
	for i := range defaultMaxRoomUsers - 3 {
		a.member(fmt.Sprint("member ", i))
	}
	late := a.dial("late")
	for range 3 {
		late.send(t, `{"type":"subscribe","channel":"room","id":1}`)
		late.wantError(t, 409, "room_full")
	}
	a.wantMetric(t, "websocket", "total_rooms", 2)
	late.subscribe(t, "another", "") // its place was given back
	a.calm()
}

// Several connections of one user all stay, and each gets what is for that user.
func TestAbuse25_OneUserManyConnections(t *testing.T) {
	t.Parallel()
	a := underAttack(t)
	bob := a.member("bob")
	var anns []*client
	for range 10 {
		c := a.member("ann")
		c.subscribe(t, nearRoom, "signal:ann")
		anns = append(anns, c)
	}
	for n := range 20 {
		bob.publish(t, nearRoom, "signal:ann", fmt.Sprintf(`{"n":%d}`, n))
	}
	for _, c := range anns {
		for n := range 20 {
			c.want(t, fmt.Sprintf(`{"event":"signal:ann","data":{"n":%d}}`, n))
		}
	}
	anns[0].publish(t, nearRoom, "signal:ann", `{"n":"to my other self"}`)
	anns[1].want(t, `{"data":{"n":"to my other self"}}`)
	bob.wantNothing(t)
	a.wantMetric(t, "websocket", "active_connections", 4+11)
	a.calm()
}

// One room with nearly all of the traffic, and then a shard that stands still: the other shards go on, and when the shard
// goes on too, nothing is lost.
func TestAbuse41_ShardUnderPressure(t *testing.T) {
	t.Parallel()
	a := underAttack(t, func(cfg *Config) { cfg.WebSocket.MessagesPerSecond, cfg.WebSocket.BytesPerSecond = 0, 0 })
	var stops []func()
	message := bytes.Repeat(maskedFrame(finBit|opText, []byte(`{"type":"publish","channel":"busy","event":"noise","data":{}}`)), 50)
	for i := range 8 {
		c := a.dial(fmt.Sprint("talker ", i))
		c.subscribe(t, "busy", "")
		stops = append(stops, c.flood(message, 200*len(message)))
	}
	a.lull()
	for _, stop := range stops {
		stop()
	}
	// An answer that nobody takes holds up the shard of a room on another shard than the bystanders'.
	hub, held := a.server.hub, "held"
	for i := 0; hub.shard(held) == hub.shard(nearRoom) || hub.shard(held) == hub.shard(farRoom); i++ {
		if held = fmt.Sprint("held ", i); i == 1000 {
			t.Fatal("all rooms are on the bystanders' shards")
		}
	}
	listener, talker := a.dial("listener"), a.dial("talker")
	listener.subscribe(t, held, "")
	talker.subscribe(t, held, "")
	answer := make(chan *Refusal)
	hub.post(op{kind: opLeave, member: new(Member), room: held, reply: answer})
	const said = 2 * mailboxOps // more than wait in front of a shard: the talker waits as well
	var all bytes.Buffer
	for n := range said {
		all.Write(maskedFrame(finBit|opText, []byte(fmt.Sprintf(`{"type":"publish","channel":%q,"data":{"n":%d}}`, held, n))))
	}
	talker.raw(t, all.Bytes())
	a.lull()
	<-answer
	for n := range said {
		listener.want(t, fmt.Sprintf(`{"data":{"n":%d}}`, n))
	}
	a.calm()
}

// A server is stopped amidst joins and leaves, a thousand times, each at another moment: it always comes to its end. The clock is the
// bubble's, so that nothing but the work takes time.
func TestAbuse41_StopAmidstJoinsAndLeaves(t *testing.T) {
	t.Parallel()
	for i := range 1000 {
		synctest.Test(t, func(t *testing.T) { stopAmidst(t, int64(1+i%97)) })
	}
}

// stopAmidst stops a server when its clients, which join and leave without a pause, have got so many answers.
func stopAmidst(t *testing.T, answers int64) {
	t.Helper()
	s := newPipeServer(t, func(cfg *Config) {
		cfg.Server.DrainSeconds = 0 // all at once
		cfg.WebSocket.MessagesPerSecond = 0
	}, nil)
	s.run()
	time.Sleep(time.Millisecond)
	words := frames(1, `{"type":"subscribe","channel":"room"}`)
	words = append(words, frames(1, `{"type":"publish","channel":"room","data":{}}`)...)
	words = append(words, frames(1, `{"type":"unsubscribe","channel":"room"}`)...)
	token, err := MintToken(s.cfg, Claims{UserID: "mallory"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var clients sync.WaitGroup
	var answered atomic.Int64
	enough := make(chan struct{})
	for range 3 {
		socket, err := s.listener.dial()
		if err != nil {
			t.Fatal(err)
		}
		clients.Go(func() {
			io.WriteString(socket, "GET /?"+url.Values{"token": {token}}.Encode()+" HTTP/1.1\r\n"+strings.Join(usualHandshake, "\r\n")+"\r\n\r\n")
			for {
				if _, err := socket.Write(words); err != nil {
					return
				}
			}
		})
		clients.Go(func() {
			defer socket.Close()
			reader := bufio.NewReader(socket)
			answer, err := http.ReadResponse(reader, nil)
			if err != nil || answer.StatusCode == http.StatusServiceUnavailable {
				return // it came when the server stopped
			}
			if answer.StatusCode != http.StatusSwitchingProtocols {
				t.Errorf("a client is answered %s", answer.Status)
			}
			for {
				if opcode, _, err := readServerFrame(reader); err != nil || opcode == opClose {
					return
				}
				if answered.Add(1) == answers {
					close(enough)
				}
			}
		})
	}
	<-enough
	s.stop()
	if err := <-s.ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	clients.Wait()
}
