package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"letshare/ably"
)

// Nobody is lost and no ghost stays, in whatever order clients join, drop, come back, detach and close: a model says who is
// there, and every client that looks must see exactly that. The clients keep what they hear as the SDK does.

// sight is a client's copy of a presence set, by the SDK's rules: what is older than what it knows is nothing new.
type sight struct {
	members  map[memberKey]ably.PresenceMessage
	residual map[memberKey]bool // during a sync: those that it has not confirmed yet
	sync     string             // id of the sync under way
	syncing  bool
}

// made reports whether the server itself made an event.
func made(m *ably.PresenceMessage) bool { return !strings.HasPrefix(m.ID, m.ConnectionID) }

// news reports whether a client takes an event for newer than what it knows.
func (s *sight) news(m *ably.PresenceMessage) bool {
	known, ok := s.members[memberKey{m.ConnectionID, m.ClientID}]
	if !ok {
		return true
	}
	if made(m) || made(&known) {
		return m.Timestamp >= known.Timestamp
	}
	at, _ := parsePresenceID(m.ID, m.ConnectionID)
	before, _ := parsePresenceID(known.ID, known.ConnectionID)
	return at.compare(before) > 0
}

func (s *sight) begin() {
	s.residual, s.syncing = make(map[memberKey]bool), true
	for key, m := range s.members {
		if m.Action != ably.PresenceAbsent {
			s.residual[key] = true
		}
	}
}

// attached is what ATTACHED says about presence.
func (s *sight) attached(has bool) {
	if s.members == nil || !has {
		*s = sight{members: make(map[memberKey]ably.PresenceMessage)}
	}
	if has {
		s.begin()
	}
}

// take takes a PRESENCE or a SYNC.
func (s *sight) take(m *ably.ProtocolMessage) {
	id, cursor, _ := strings.Cut(m.ChannelSerial, ":")
	if m.Action == ably.ActionSync {
		if !s.syncing || s.sync != "" && s.sync != id {
			s.begin()
		}
		s.sync = id
	}
	for _, item := range m.Presence {
		key := memberKey{item.ConnectionID, item.ClientID}
		if item.Action != ably.PresenceLeave {
			delete(s.residual, key)
		}
		switch {
		case !s.news(&item):
		case item.Action != ably.PresenceLeave:
			s.members[key] = item
		case s.syncing:
			item.Action = ably.PresenceAbsent
			s.members[key] = item
		default:
			delete(s.members, key)
		}
	}
	if m.Action == ably.ActionSync && cursor == "" {
		maps.DeleteFunc(s.members, func(key memberKey, m ably.PresenceMessage) bool {
			return s.residual[key] || m.Action == ably.PresenceAbsent
		})
		s.sync, s.syncing, s.residual = "", false, nil
	}
}

// list is who is there, as "clientId@connection data", or why it is not known.
func (s *sight) list() (list []string) {
	if s == nil || s.syncing {
		return []string{"not known yet"}
	}
	for key, m := range s.members {
		list = append(list, fmt.Sprintf("%s@%s %s", key.clientID, key.connectionID, m.Data.Bytes))
	}
	slices.Sort(list)
	return list
}

// actor is a client on one socket. Its reader goroutine writes what is guarded.
type actor struct {
	socket net.Conn
	format ably.Format
	done   chan struct{} // closed when the reader has ended

	mu     sync.Mutex
	first  ably.ProtocolMessage // CONNECTED
	acks   map[int64]bool       // msgSerial: true for ACK, false for NACK
	sights map[string]*sight
	heard  map[ably.Action]int
}

// arena is where a random test plays: a server, and how to wait there.
type arena struct {
	t     testing.TB
	rng   *rand.Rand
	dial  func() net.Conn
	await func(what string, condition func() bool, of *actor) // waits for what must come of a client
	pass  func(time.Duration)
	check func() error
	open  []*actor

	rooms    []string
	people   []*person
	watchers []*actor
}

// nowhere is where a person is who is not there.
func (a *arena) nowhere() map[string]map[string]string {
	rooms := make(map[string]map[string]string)
	for _, room := range a.rooms {
		rooms[room] = make(map[string]string)
	}
	return rooms
}

// connect makes a client; a resume key may be "".
func (a *arena) connect(key string, remain time.Duration) *actor {
	c := &actor{socket: a.dial(), format: ably.Format(a.rng.IntN(2)), done: make(chan struct{}),
		acks: make(map[int64]bool), sights: make(map[string]*sight), heard: make(map[ably.Action]int)}
	query := url.Values{"key": {testAblyKey}, "v": {"6"}, "format": {[]string{"json", "msgpack"}[c.format]}}
	if key != "" {
		query.Set("resume", key)
	}
	if remain != presenceGrace {
		query.Set("remainPresentFor", fmt.Sprint(remain.Milliseconds()))
	}
	fmt.Fprintf(c.socket, "GET /?%s HTTP/1.1\r\nHost: letshare.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", query.Encode())
	reader := bufio.NewReader(c.socket)
	answer, err := http.ReadResponse(reader, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		a.t.Fatalf("a client cannot connect: %v, %v", answer, err)
	}
	go c.listen(reader)
	a.open = append(a.open, c)
	a.await("CONNECTED", func() bool { return c.first.Action == ably.ActionConnected }, c)
	return c
}

// listen is the reader.
func (c *actor) listen(r io.Reader) {
	defer close(c.done)
	for {
		opcode, payload, err := readServerFrame(r)
		if err != nil {
			return
		}
		if opcode != opText && opcode != opBinary {
			continue
		}
		m, err := ably.Decode(c.format, payload)
		if err != nil {
			panic(err)
		}
		c.mu.Lock()
		c.take(&m)
		c.mu.Unlock()
	}
}

// take takes a message. Called with mu held.
func (c *actor) take(m *ably.ProtocolMessage) {
	c.heard[m.Action]++
	switch m.Action {
	case ably.ActionConnected:
		c.first = *m
	case ably.ActionAck, ably.ActionNack:
		c.acks[m.MsgSerial.V] = m.Action == ably.ActionAck
	case ably.ActionAttached:
		if c.sights[m.Channel.V] == nil {
			c.sights[m.Channel.V] = &sight{}
		}
		c.sights[m.Channel.V].attached(m.Flags&ably.FlagHasPresence != 0)
	case ably.ActionPresence, ably.ActionSync:
		if s := c.sights[m.Channel.V]; s != nil {
			s.take(m)
		}
	}
}

// say sends a message; a connection that has ended does not matter.
func (c *actor) say(m ably.ProtocolMessage) {
	c.socket.Write(maskedFrame(finBit|[]byte{opText, opBinary}[c.format], m.Append(nil, c.format)))
}

func (c *actor) cut() {
	c.socket.Close()
	<-c.done
}

// ask sends a message and waits for the answer.
func (a *arena) ask(c *actor, m ably.ProtocolMessage, answer ably.Action) {
	a.t.Helper()
	c.mu.Lock()
	before := c.heard[answer]
	c.mu.Unlock()
	c.say(m)
	a.await(fmt.Sprintf("the answer %d", answer), func() bool { return c.heard[answer] > before }, c)
}

// person is a session in the model.
type person struct {
	id, key string
	at      *actor // nil: lost
	remain  time.Duration
	lost    time.Time
	serial  int64
	rooms   map[string]map[string]string // room → clientId → data
	closed  bool
}

// presenceNames are the members of the random tests.
var presenceNames = []string{"a", "b", "c"}

// play is a random story of so many steps.
func (a *arena) play(steps int) {
	t, rng := a.t, a.rng
	a.rooms = []string{fmt.Sprint("red", len(a.open)), fmt.Sprint("blue", len(a.open))}
	a.people, a.watchers = nil, []*actor{a.watch(), a.watch()}
	for step := range steps {
		a.expire()
		switch n := rng.IntN(100); {
		case len(a.people) < 3 || n < 4 && len(a.people) < 8:
			p := &person{remain: []time.Duration{0, presenceGrace}[rng.IntN(2)], rooms: a.nowhere()}
			p.at = a.connect("", p.remain)
			p.meet()
			a.people = append(a.people, p)
		case n < 8:
			i := rng.IntN(len(a.watchers))
			a.watchers[i].cut()
			a.watchers[i] = a.watch()
		case n < 12:
			a.pass(time.Duration(rng.IntN(20_000)) * time.Millisecond)
		case n < 20:
			a.look(fmt.Sprintf("after step %d", step))
		default:
			i := rng.IntN(len(a.people))
			a.step(a.people[i], rng.IntN(100))
			if a.people[i].closed {
				a.people = slices.Delete(a.people, i, i+1)
			}
		}
		if t.Failed() {
			return
		}
	}
	a.look("at the end")
	for _, p := range a.people {
		if p.at != nil {
			a.ask(p.at, ably.ProtocolMessage{Action: ably.ActionClose}, ably.ActionClosed)
			p.rooms = nil
		}
	}
	a.look("after all have closed")
}

// meet takes what CONNECTED says.
func (p *person) meet() {
	p.at.mu.Lock()
	defer p.at.mu.Unlock()
	p.id, p.key = p.at.first.ConnectionID, p.at.first.ConnectionDetails.ConnectionKey
}

// expire lets the members leave whose grace is over.
func (a *arena) expire() {
	for _, p := range a.people {
		if p.at == nil && !time.Now().Before(p.lost.Add(p.remain)) {
			p.rooms = a.nowhere()
		}
	}
}

// step lets a person do something.
func (a *arena) step(p *person, n int) {
	room, name := a.rooms[a.rng.IntN(2)], presenceNames[a.rng.IntN(3)]
	if p.at == nil {
		if n < 50 {
			a.resume(p)
		}
		return
	}
	switch {
	case n < 45: // enter or update
		a.say(p, room, name, fmt.Sprint(p.serial))
	case n < 60:
		a.say(p, room, name, "")
	case n < 68:
		a.ask(p.at, ably.ProtocolMessage{Action: ably.ActionAttach, Channel: ably.Some(room)}, ably.ActionAttached)
	case n < 74:
		a.ask(p.at, ably.ProtocolMessage{Action: ably.ActionDetach, Channel: ably.Some(room)}, ably.ActionDetached)
		clear(p.rooms[room])
	case n < 84: // lost
		p.at.cut()
		if p.at, p.lost = nil, time.Now(); p.remain == 0 {
			a.look("when one has left at once") // before it comes back: the server may not have noticed
		}
	case n < 90: // comes back while the old socket still looks alive
		old := p.at
		a.resume(p)
		old.cut()
	case n < 96 && p.remain > 0: // lost with something under way, which it sends again
		p.at.say(p.message(room, name, fmt.Sprint(p.serial)))
		p.at.cut()
		a.resume(p)
		a.say(p, room, name, fmt.Sprint(p.serial))
	case n >= 97:
		a.ask(p.at, ably.ProtocolMessage{Action: ably.ActionClose}, ably.ActionClosed)
		p.closed = true
	}
}

// message is the next presence message: data "" leaves.
func (p *person) message(room, name, data string) ably.ProtocolMessage {
	item := member(ably.PresenceEnter, name, data)
	if data == "" {
		item.Action = ably.PresenceLeave
	}
	return ably.ProtocolMessage{Action: ably.ActionPresence, Channel: ably.Some(room), MsgSerial: ably.Some(p.serial), Presence: []ably.PresenceMessage{item}}
}

// say sends the next presence message and waits for its ACK.
func (a *arena) say(p *person, room, name, data string) {
	a.ask(p.at, p.message(room, name, data), ably.ActionAck)
	p.serial++
	if data == "" {
		delete(p.rooms[room], name)
	} else {
		p.rooms[room][name] = data
	}
}

// resume brings a person back, as another if it was away for too long.
func (a *arena) resume(p *person) {
	if away := time.Since(p.lost); p.at == nil && away >= p.remain && away < p.remain+2*tickInterval {
		a.pass(2 * tickInterval) // the grace is over, and no tick may have noticed yet: both would be right
	}
	id := p.id
	p.at = a.connect(p.key, p.remain)
	if p.meet(); p.id != id {
		if time.Since(p.lost) < 100*time.Second {
			a.t.Fatal("a connection was not resumed")
		}
		p.serial, p.rooms = 0, a.nowhere()
	}
}

// watch is a client that looks at all channels.
func (a *arena) watch() *actor {
	c := a.connect("", presenceGrace)
	for _, room := range a.rooms {
		c.say(ably.ProtocolMessage{Action: ably.ActionAttach, Channel: ably.Some(room)})
	}
	a.await("both channels", func() bool { return c.heard[ably.ActionAttached] == len(a.rooms) }, c)
	return c
}

// look wants everybody to see exactly who is there, those who have just come included.
func (a *arena) look(when string) {
	a.t.Helper()
	late := a.watch()
	for _, room := range a.rooms {
		var want []string
		for i, c := range append(a.watchers, late) {
			var got []string
			a.await(fmt.Sprintf("%s: watcher %d sees who is in %s", when, i, room), func() bool {
				want = want[:0]
				a.expire()
				for _, p := range a.people {
					for name, data := range p.rooms[room] {
						want = append(want, fmt.Sprintf("%s@%s %s", name, p.id, data))
					}
				}
				slices.Sort(want)
				got = c.sights[room].list()
				return slices.Equal(got, want)
			}, c)
			if a.t.Failed() {
				a.t.Fatalf("%s: watcher %d sees %q in %s, want %q", when, i, got, room, want)
			}
		}
	}
	late.cut()
	if err := a.check(); err != nil {
		a.t.Fatalf("%s: %v", when, err)
	}
}

func TestAblyPresenceMeetsItsModelOverRealSockets(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	a := &arena{t: t, rng: rand.New(rand.NewPCG(seed, 0)), check: s.server.ConsistencyCheck, pass: func(time.Duration) {}}
	a.dial = func() net.Conn {
		socket, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		return socket
	}
	a.await = func(what string, condition func() bool, c *actor) {
		t.Helper()
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			c.mu.Lock()
			ok := condition()
			c.mu.Unlock()
			if ok {
				return
			}
		}
		t.Errorf("waited in vain: %s", what)
	}
	defer a.end()
	// Well within the grace: who is lost and does not come back is there until the end.
	for until := time.Now().Add(3 * time.Second); time.Now().Before(until) && !t.Failed(); {
		a.play(60)
	}
}

// end closes all sockets and waits for the readers.
func (a *arena) end() {
	for _, c := range a.open {
		c.cut()
	}
}

func TestAblyPresenceMeetsItsModelThroughHours(t *testing.T) {
	t.Parallel()
	for range 4 {
		inBubble(t, func(c *Config) { withAblyKeys(c); c.WebSocket.IdleTimeoutSeconds = maxConfigSeconds }, func(t *testing.T, s *pipeServer) {
			a := bubbleArena(t, s)
			defer a.end()
			a.play(400)
		})
	}
}

// bubbleArena is an arena in a bubble, where hours take no time.
func bubbleArena(t *testing.T, s *pipeServer) *arena {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	a := &arena{t: t, rng: rand.New(rand.NewPCG(seed, 0)), check: s.ConsistencyCheck, pass: time.Sleep}
	a.dial = func() net.Conn {
		socket, err := s.listener.dial()
		if err != nil {
			t.Fatal(err)
		}
		return socket
	}
	a.await = func(what string, condition func() bool, c *actor) {
		t.Helper()
		for range 3 { // deadlines are looked at once a second
			synctest.Wait()
			c.mu.Lock()
			ok := condition()
			c.mu.Unlock()
			if ok {
				return
			}
			time.Sleep(time.Second)
		}
		t.Errorf("waited in vain: %s", what)
	}
	return a
}
