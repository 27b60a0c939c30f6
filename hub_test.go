package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// stillServer is a server whose shards run only when they are told to, on the caller's goroutine, and whose connections
// have no sockets: what is sent to them stays in their outboxes.
func stillServer(t testing.TB, change func(*Config)) *Server {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Log.File = ""
	cfg.WebSocket.MessagesPerSecond = 0
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatalf("the test's configuration is wrong: %v", err)
	}
	s, err := newServer(&cfg, slog.New(slog.DiscardHandler), 0, newPipeListener())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.traffic.Close)
	rules := s.hubRules(s.rules.Load(), false)
	s.hub = &Hub{seed: maphash.MakeSeed()}
	for range 3 {
		s.hub.shards = append(s.hub.shards, &shard{mailbox: make(chan op, mailboxOps), hubRules: rules,
			rooms: make(map[string]*Room), relaying: make(map[string]*Room), writer: newInlineWriter()})
	}
	return s
}

// connectStill makes a connection without a socket.
func connectStill(s *Server, identity Identity) *conn {
	c := s.newConn(s.rules.Load(), netip.Addr{}, identity)
	c.outbox.socket, c.outbox.writing = deadSocket{}, true
	c.wire.clock, c.wire.outbox, c.wire.limits = s.clock, &c.outbox, c.limits
	return c
}

// settleHub lets the shards do what waits for them.
func settleHub(s *Server) {
	for _, sh := range s.hub.shards {
		sh.now = time.Now()
		sh.drain()
		sh.flush()
	}
}

// takeFrames empties the queue of a connection that connectStill made.
func takeFrames(c *conn) [][]byte {
	c.outbox.mu.Lock()
	defer c.outbox.mu.Unlock()
	frames := make([][]byte, len(c.outbox.queue))
	for i, f := range c.outbox.queue {
		frames[i] = f.bytes
	}
	c.outbox.queue, c.outbox.queued = c.outbox.queue[:0], 0
	return frames
}

// said is a frame of the server in the model's words.
func said(t *testing.T, frame []byte) string {
	t.Helper()
	var m struct {
		Type, Channel, Event string
		Data, ID             json.RawMessage
		Error                struct {
			Code   int
			Reason string
		}
		Timestamp int64
	}
	_, payload, err := readServerFrame(bytes.NewReader(frame))
	if err == nil {
		err = json.Unmarshal(payload, &m)
	}
	if err != nil {
		t.Fatalf("%q: %v", frame, err)
	}
	if m.Timestamp == 0 {
		t.Fatalf("%q has no timestamp", frame)
	}
	switch m.Type {
	case "message":
		return fmt.Sprintf("message %s %s %s", m.Channel, m.Event, m.Data)
	case "ack":
		return fmt.Sprintf("ack %s", m.ID)
	case "error":
		return fmt.Sprintf("error %d %s %s %s", m.Error.Code, m.Error.Reason, m.Channel, m.ID)
	}
	var data struct{ Members int }
	json.Unmarshal(m.Data, &data)
	return fmt.Sprintf("%s %s %s %d %s", m.Type, m.Channel, m.Event, data.Members, m.ID)
}

// model is the server as its description has it, with plain maps and no thought for speed.
type model struct {
	rooms   map[string]map[int]map[string]bool // room → client → events
	clients []*modelClient
}

// modelClient is one client and what it must be told.
type modelClient struct {
	identity, only string
	strict, ended  bool
	bad            int // errors of code 400 in a row
	told           map[string]time.Time
	want           []string
}

// The model's limits, small enough to be met.
const (
	modelUsers, modelRooms, modelEvents, modelEventBytes = 3, 2, 3, 20
)

func (m *model) say(to int, format string, args ...any) {
	if c := m.clients[to]; !c.ended {
		c.want = append(c.want, fmt.Sprintf(format, args...))
	}
}

// refuse is the answer to a message that is refused, unless the same was said of late.
func (m *model) refuse(from int, code int, reason, room, id string) {
	c := m.clients[from]
	if code == 400 {
		c.bad++
	} else {
		c.bad = 0
	}
	if key := reason + " " + room; id == "" && c.bad < maxErrorsInARow {
		if at, ok := c.told[key]; ok && time.Since(at) < errorRepeat {
			return
		}
		if _, ok := c.told[key]; !ok && len(c.told) == maxThrottled {
			oldest := key
			for k, at := range c.told {
				if oldest == key || at.Before(c.told[oldest]) {
					oldest = k
				}
			}
			delete(c.told, oldest)
		}
		c.told[key] = time.Now()
	}
	m.say(from, "error %d %s %s %s", code, reason, room, id)
	if c.bad >= maxErrorsInARow {
		c.ended = true
	}
}

// address checks what all messages have in common.
func (m *model) address(from int, room, event, id string) (ok bool) {
	switch c := m.clients[from]; {
	case len([]rune(room)) < 2 || len([]rune(room)) > 12 || strings.Contains(room, "!"):
		m.refuse(from, 400, "bad_channel", "", id)
	case c.only != "" && c.only != room:
		m.refuse(from, 403, "room_not_allowed", room, id)
	case len(event) > modelEventBytes:
		m.refuse(from, 400, "bad_event", room, id)
	default:
		return true
	}
	return false
}

func (m *model) subscribe(from int, room, event, id string) {
	if !m.address(from, room, event, id) {
		return
	}
	if event == "" {
		event = "signal:all"
	}
	c, here := m.clients[from], m.rooms[room][from]
	of := 0
	for _, members := range m.rooms {
		if members[from] != nil {
			of++
		}
	}
	other, directed := strings.CutPrefix(event, "signal:")
	switch {
	case c.strict && directed && other != "all" && other != c.identity:
		m.refuse(from, 403, "event_not_allowed", room, id)
	case here == nil && of >= modelRooms:
		m.refuse(from, 409, "too_many_rooms", room, id)
	case here == nil && len(m.rooms[room]) >= modelUsers:
		m.refuse(from, 409, "room_full", room, id)
	case !here[event] && len(here) >= modelEvents:
		m.refuse(from, 409, "too_many_events", room, id)
	default:
		c.bad = 0
		if m.rooms[room] == nil {
			m.rooms[room] = make(map[int]map[string]bool)
		}
		if here == nil {
			m.rooms[room][from] = make(map[string]bool)
		}
		m.rooms[room][from][event] = true
		m.say(from, "subscribed %s %s %d %s", room, event, len(m.rooms[room]), id)
	}
}

func (m *model) unsubscribe(from int, room, event, id string) {
	if !m.address(from, room, event, id) {
		return
	}
	m.clients[from].bad = 0
	if delete(m.rooms[room][from], event); event == "" || len(m.rooms[room][from]) == 0 {
		m.leave(from, room)
	}
	m.say(from, "unsubscribed %s %s %d %s", room, event, len(m.rooms[room]), id)
}

func (m *model) leave(who int, room string) {
	if delete(m.rooms[room], who); len(m.rooms[room]) == 0 {
		delete(m.rooms, room)
	}
}

func (m *model) publish(from int, room, event, sender, id string, n int) {
	if !m.address(from, room, event, id) {
		return
	}
	if event == "" {
		event = "signal:all"
	}
	c := m.clients[from]
	var data string
	switch {
	case sender == "":
		data = fmt.Sprintf(`{"from":%q,"n":%d}`, c.identity, n)
	case sender != c.identity && c.strict:
		m.refuse(from, 403, "from_mismatch", room, id)
		return
	default:
		data = fmt.Sprintf(`{"n":%d,"from":%q}`, n, sender)
	}
	c.bad = 0
	if m.rooms[room][from] == nil {
		m.refuse(from, 403, "not_subscribed", room, id)
		return
	}
	for to, events := range m.rooms[room] {
		if to != from && events[event] {
			m.say(to, "message %s %s %s", room, event, data)
		}
	}
	if id != "" {
		m.say(from, "ack %s", id)
	}
}

// playAgainstModel plays a script, each step a few of its bytes, on the server and on the model, and compares all that
// every client is told, in order. It runs in a bubble.
func playAgainstModel(t *testing.T, script []byte) {
	time.Sleep(time.Until(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)))
	s := stillServer(t, func(c *Config) {
		c.WebSocket.MaxRoomUsers, c.WebSocket.MaxRoomsPerConnection = modelUsers, modelRooms
		c.WebSocket.MaxEventsPerRoom, c.WebSocket.MaxEventBytes = modelEvents, modelEventBytes
	})
	identities := []Identity{{UserID: "ann"}, {UserID: "ann"}, {UserID: "bob"}, {UserID: "cid"}, {UserID: "dot", Bound: true}, {UserID: "eve", Room: "rooma"}}
	rooms := []string{"rooma", "roomb", "roomc", "roomd", "roome", "x", "bad!"}
	events := []string{"", "signal:all", "signal:ann", "signal:bob", "signal:dot", "more", "far too long to be an event"}
	m := &model{rooms: make(map[string]map[int]map[string]bool)}
	var conns []*conn
	for _, identity := range identities {
		conns = append(conns, connectStill(s, identity))
		m.clients = append(m.clients, &modelClient{identity: identity.UserID, only: identity.Room, strict: identity.Bound, told: make(map[string]time.Time)})
	}
	for step := 0; len(script) >= 4; step++ {
		who, what, where, more := int(script[0])%len(conns), script[1]%16, int(script[2]), int(script[3])
		script = script[4:]
		room, event, id, sender := rooms[where%len(rooms)], events[where/len(rooms)%len(events)], "", ""
		if more&1 == 0 {
			id = fmt.Sprint(step)
		}
		if more&2 != 0 {
			sender = identities[more/8%len(identities)].UserID
		}
		time.Sleep(time.Duration(1+more%4*more) * time.Millisecond) // distinct times, and now and then more than a second
		c, client := conns[who], m.clients[who]
		message := map[string]any{"channel": room}
		if event != "" || more&4 != 0 {
			message["event"] = event
		}
		if id != "" {
			message["id"] = json.RawMessage(id)
		}
		send := func(kind string) {
			message["type"] = kind
			c.letshare.text([]byte(toJSON(t, message)))
			settleHub(s)
		}
		switch {
		case client.ended || what == 15: // the connection goes, and its client comes back
			c.outbox.end(ConnectionLost)
			c.letshare.leave()
			settleHub(s)
			for room := range m.rooms {
				m.leave(who, room)
			}
			compareSaid(t, step, who, conns, m)
			*client = modelClient{identity: client.identity, only: client.only, strict: client.strict, told: make(map[string]time.Time)}
			conns[who] = connectStill(s, identities[who])
		case what == 14: // cut, and not out of its rooms yet
			c.outbox.end(SlowConsumer)
			client.ended = true
		case what < 5:
			send("subscribe")
			m.subscribe(who, room, event, id)
		case what < 7:
			send("unsubscribe")
			m.unsubscribe(who, room, event, id)
		default:
			message["data"] = json.RawMessage(fmt.Sprintf(`{"n":%d}`, step))
			if sender != "" {
				message["data"] = json.RawMessage(fmt.Sprintf(`{"n":%d,"from":%q}`, step, sender))
			}
			send("publish")
			m.publish(who, room, event, sender, id, step)
		}
		for i := range conns {
			compareSaid(t, step, i, conns, m)
		}
	}
	compareRooms(t, s, m)
}

// compareSaid compares what a client was told since the last time.
func compareSaid(t *testing.T, step, who int, conns []*conn, m *model) {
	t.Helper()
	var got []string
	for _, frame := range takeFrames(conns[who]) {
		got = append(got, said(t, frame))
	}
	if last := conns[who].lastWord; last != nil { // leaves with the close frame
		got = append(got, said(t, last))
		conns[who].lastWord = nil
	}
	if want := m.clients[who].want; !slices.Equal(got, want) {
		t.Fatalf("step %d: client %d (%s) was told\n%q, the model says\n%q", step, who, m.clients[who].identity, got, want)
	}
	m.clients[who].want = nil
	if m.clients[who].ended && conns[who].outbox.ended() == notEnded {
		t.Fatalf("step %d: client %d is alive, the model has ended it", step, who)
	}
}

// compareRooms compares who is where at the end.
func compareRooms(t *testing.T, s *Server, m *model) {
	t.Helper()
	n := 0
	for _, sh := range s.hub.shards {
		n += len(sh.rooms)
		for name, room := range sh.rooms {
			wantConsistent(t, room)
			if len(room.members) != len(m.rooms[name]) {
				t.Errorf("room %s has %d members, the model %d", name, len(room.members), len(m.rooms[name]))
			}
		}
	}
	if n != len(m.rooms) {
		t.Errorf("%d rooms, the model has %d", n, len(m.rooms))
	}
}

func TestRandomOperationsDoWhatANaiveModelDoes(t *testing.T) {
	for seed := range uint64(12) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 42))
			script := make([]byte, 4*1000)
			for i := range script {
				script[i] = byte(random.Uint32())
			}
			playAgainstModel(t, script)
		})
	}
}

func FuzzShardOps(f *testing.F) {
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 4*2000 {
			return // longer scripts find nothing new
		}
		synctest.Test(t, func(t *testing.T) { playAgainstModel(t, script) })
	})
}

// crowdedRoom is a room of n listeners and a publisher; say publishes once, with everything that belongs to it but the
// system calls.
func crowdedRoom(t testing.TB, n int) (say func()) {
	s := stillServer(t, func(c *Config) { c.WebSocket.MaxRoomUsers = n + 1 })
	var listeners []*conn
	for i := range n {
		c := connectStill(s, Identity{UserID: fmt.Sprint("listener", i)})
		c.letshare.text([]byte(`{"type":"subscribe","channel":"room"}`))
		listeners = append(listeners, c)
		settleHub(s)
	}
	publisher := connectStill(s, Identity{UserID: "publisher"})
	publisher.letshare.text([]byte(`{"type":"subscribe","channel":"room"}`))
	settleHub(s)
	message := []byte(`{"type":"publish","channel":"room","event":"signal:all","data":{"type":"discover","userType":"desktop","from":"publisher"}}`)
	return func() {
		publisher.letshare.text(message)
		settleHub(s)
		for _, c := range listeners {
			if len(c.outbox.queue) == 0 {
				t.Fatal("not delivered")
			}
			c.outbox.queue, c.outbox.queued = c.outbox.queue[:0], 0
		}
	}
}

func TestAPublishToFiftyAllocatesThreeObjectsAtMost(t *testing.T) {
	if n := testing.AllocsPerRun(200, crowdedRoom(t, 50)); n > 3 {
		t.Errorf("%v objects", n)
	}
}

func TestASignalToOneMemberLeavesNoGarbage(t *testing.T) {
	s := stillServer(t, func(*Config) {})
	anna, bob := connectStill(s, Identity{UserID: "anna"}), connectStill(s, Identity{UserID: "bob"})
	for _, c := range []*conn{anna, bob} {
		c.letshare.text([]byte(`{"type":"subscribe","channel":"room","event":"signal:` + c.member.identity + `"}`))
		settleHub(s)
	}
	takeFrames(bob)
	message := []byte(`{"type":"publish","channel":"room","event":"signal:bob","data":{"type":"candidate","from":"anna","to":"bob"}}`)
	if n := testing.AllocsPerRun(200, func() {
		anna.letshare.text(message)
		settleHub(s)
		bob.outbox.mu.Lock()
		defer bob.outbox.mu.Unlock()
		if bob.outbox.queued < len(message) {
			t.Fatal("not delivered")
		}
		bob.outbox.took(bob.outbox.queued, nil)
	}); n > 0 {
		t.Errorf("%v objects", n)
	}
}

// Whoever is charged for a small frame does not keep the memory of a large one.
func TestAMessagesMemoryFitsItsFrame(t *testing.T) {
	for _, size := range []int{keptMessageBytes, 1, messageStep, messageStep + 1, 3000, keptMessageBytes + 1, 60_000, 100, 1} {
		for range 2 { // made, and lent again
			m, memory := newMessage(size)
			if len(memory) != 0 || cap(memory) < size || cap(memory) >= size+messageStep {
				t.Errorf("%d bytes of memory for a frame of %d", cap(memory), size)
			}
			m.event, m.frames[dialectLetShare] = "said before", append(memory, make([]byte, size)...)
			m.giveBack()
		}
	}
	if m, _ := newMessage(1); m.event != "" || m.timestamp != 0 {
		t.Errorf("a new message has %+v", m)
	}
}

func BenchmarkPublish50(b *testing.B) {
	say := crowdedRoom(b, 50)
	b.ReportAllocs()
	for b.Loop() {
		say()
	}
}

func BenchmarkParseEnvelope(b *testing.B) {
	message := []byte(`{"type":"publish","channel":"room","event":"signal:bob:abc123","data":{"type":"offer","offer":{"type":"offer","sdp":"` +
		strings.Repeat(`a=candidate:1 1 udp 2113937151 192.0.2.1 54400 typ host\r\n`, 30) + `"},"to":"bob:abc123","from":"ann:xyz789"}}`)
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := parseEnvelope(message); !ok {
			b.Fatal("refused")
		}
	}
}
