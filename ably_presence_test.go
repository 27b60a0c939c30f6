package main

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"letshare/ably"
)

// member is an item of a presence message, with data as text.
func member(action ably.PresenceAction, clientID, data string) ably.PresenceMessage {
	m := ably.PresenceMessage{Action: action, ClientID: clientID}
	if data != "" {
		m.Data = ably.Data{Kind: ably.DataText, Bytes: []byte(data)}
	}
	return m
}

// postPresence sends a presence message and does not wait for its answer.
func (c *ablyClient) postPresence(t testing.TB, channel string, items ...ably.PresenceMessage) (msgSerial int64) {
	t.Helper()
	c.say(t, ably.ProtocolMessage{Action: ably.ActionPresence, Channel: ably.Some(channel), MsgSerial: ably.Some(c.serial), Presence: items})
	c.serial++
	return c.serial - 1
}

// until reads on to the first message of an action. What is passed over is lost.
func (c *ablyClient) until(t testing.TB, action ably.Action) ably.ProtocolMessage {
	t.Helper()
	for {
		if m := c.next(t); m.Action == action {
			return m
		}
	}
}

// enters sends a presence message and waits for its ACK, past everything else.
func (c *ablyClient) enters(t testing.TB, channel string, items ...ably.PresenceMessage) {
	t.Helper()
	n := c.postPresence(t, channel, items...)
	if m := c.until(t, ably.ActionAck); m.MsgSerial != ably.Some(n) || m.Count != 1 {
		t.Fatalf("%s: the ACK of %d is %s", c.name, n, m.Append(nil, ably.JSON))
	}
}

// wantPresence reads the next message, which must tell exactly this, as "action clientId data".
func (c *ablyClient) wantPresence(t testing.TB, channel string, want ...string) ably.ProtocolMessage {
	t.Helper()
	m := c.next(t)
	if got := toldIn(m); m.Action != ably.ActionPresence || m.Channel.V != channel || !slices.Equal(got, want) {
		t.Fatalf("%s gets %s, want the presence %q", c.name, m.Append(nil, ably.JSON), want)
	}
	if m.ChannelSerial == "" {
		t.Errorf("%s gets a PRESENCE without a channelSerial", c.name)
	}
	return m
}

// toldIn is what a PRESENCE or SYNC tells.
func toldIn(m ably.ProtocolMessage) (told []string) {
	actions := [...]string{"absent", "present", "enter", "leave", "update"}
	for _, item := range m.Presence {
		told = append(told, strings.TrimSpace(actions[item.Action]+" "+item.ClientID+" "+string(item.Data.Bytes)))
	}
	return told
}

// wantSync reads the pages of a sync and wants these members in them.
func (c *ablyClient) wantSync(t testing.TB, channel string, want ...string) (pages int) {
	t.Helper()
	var got []string
	id := ""
	for {
		m := c.wantAction(t, ably.ActionSync, channel)
		pages++
		got = append(got, toldIn(m)...)
		syncID, cursor, ok := strings.Cut(m.ChannelSerial, ":")
		if !ok || id != "" && syncID != id || m.Presence == nil {
			t.Fatalf("%s gets the page %s of the sync %q", c.name, m.Append(nil, ably.JSON), id)
		}
		if id = syncID; cursor == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%s is told %q, want %q", c.name, got, want)
	}
	return pages
}

// Ann enters, changes and leaves; Ben, who speaks the other format, hears each of it, and so does she herself, echo or not.
func TestAblyPresenceIsToldToAllAndToTheMemberItself(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	ann, ben := s.ably(t, "ann", "clientId=ann", "echo=false"), s.ably(t, "ben", "format=msgpack")
	for _, c := range []*ablyClient{ann, ben} {
		if m := c.attach(t, "room"); m.Flags&ably.FlagHasPresence != 0 {
			t.Errorf("%s: ATTACHED of an empty channel says that somebody is present", c.name)
		}
	}
	for i, step := range []struct {
		say  ably.PresenceMessage
		want string
	}{
		{member(ably.PresenceEnter, "", "one"), "enter ann one"},
		{member(ably.PresenceEnter, "ann", "two"), "update ann two"},
		{member(ably.PresenceUpdate, "", "three"), "update ann three"},
		{member(ably.PresencePresent, "", ""), "update ann"},
		{member(ably.PresenceUpdate, "", "four"), "update ann four"},
		{member(ably.PresenceLeave, "", ""), "leave ann four"},
		{member(ably.PresenceUpdate, "", "five"), "enter ann five"},
		{member(ably.PresenceLeave, "", "bye"), "leave ann bye"},
	} {
		ann.postPresence(t, "room", step.say)
		for _, c := range []*ablyClient{ann, ben} {
			m := c.wantPresence(t, "room", step.want)
			item := m.Presence[0]
			if want := fmt.Sprintf("%s:%d", ann.id, i); m.ID != want || item.ID != want+":0" || item.ConnectionID != ann.id || m.ConnectionID != ann.id ||
				item.Timestamp == 0 || m.Timestamp != item.Timestamp {
				t.Errorf("%s gets %s", c.name, m.Append(nil, ably.JSON))
			}
		}
		if m := ann.wantAction(t, ably.ActionAck, ""); m.MsgSerial != ably.Some(int64(i)) || m.Count != 1 {
			t.Errorf("the ACK of %d is %s", i, m.Append(nil, ably.JSON))
		}
	}
	ann.enters(t, "room", member(ably.PresenceLeave, "", "")) // not there: nothing to tell
	ben.publish(t, "elsewhere", ablyText("", "x"))            // nothing of it reached him
	wantHubConsistent(t, s)
}

// Whoever attaches is told who is there behind ATTACHED and before anything new, as often as it asks.
func TestAblyAttachTellsWhoIsPresent(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	ann := s.ably(t, "ann")
	ann.attach(t, "room")
	ann.enters(t, "room", member(ably.PresenceEnter, "a", "1"), member(ably.PresenceEnter, "b", "2"), member(ably.PresenceEnter, "a", "3"))
	for _, format := range []string{"json", "msgpack"} {
		ben := s.ably(t, "ben", "format="+format)
		for range 2 {
			if m := ben.attach(t, "room"); m.Flags&ably.FlagHasPresence == 0 {
				t.Errorf("ATTACHED has the flags %x", m.Flags)
			}
			ben.wantSync(t, "room", "present a 3", "present b 2")
		}
		ben.say(t, ably.ProtocolMessage{Action: ably.ActionSync, Channel: ably.Some("room")})
		ben.wantSync(t, "room", "present a 3", "present b 2")
		ben.attach(t, "empty")
		ben.say(t, ably.ProtocolMessage{Action: ably.ActionSync, Channel: ably.Some("empty")})
		ben.wantSync(t, "empty")
	}
	wantHubConsistent(t, s)
}

// Whoever attached without presence_subscribe hears of its own members alone.
func TestAblyPresenceNeedsItsMode(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	ann, ben := s.ably(t, "ann", "clientId=ann"), s.ably(t, "ben", "clientId=ben")
	ann.attach(t, "room")
	ann.enters(t, "room", member(ably.PresenceEnter, "", ""))
	modes := func(flags uint64) func(*ably.ProtocolMessage) {
		return func(m *ably.ProtocolMessage) { m.Flags = flags }
	}
	if m := ben.attach(t, "room", modes(ably.ModePresence|ably.ModePublish)); m.Flags&ably.FlagHasPresence != 0 {
		t.Errorf("ATTACHED without presence_subscribe has the flags %x", m.Flags)
	}
	ann.enters(t, "room", member(ably.PresenceUpdate, "", "x"))
	ben.postPresence(t, "room", member(ably.PresenceEnter, "", "y"))
	ben.wantPresence(t, "room", "enter ben y")
	ben.wantAction(t, ably.ActionAck, "")
	if m := ben.attach(t, "room", modes(ably.ModePresence)); m.Flags&ably.FlagHasPresence == 0 {
		t.Errorf("ATTACHED of one who is present has the flags %x", m.Flags)
	}
	ben.wantSync(t, "room", "present ben y")

	ben.attach(t, "other", modes(ably.ModeSubscribe))
	ben.postPresence(t, "other", member(ably.PresenceEnter, "", ""))
	if m := ben.wantAction(t, ably.ActionNack, ""); m.Error.Code != 40165 {
		t.Errorf("presence without its mode is refused with %d", m.Error.Code)
	}
	wantHubConsistent(t, s)
}

// What is refused is refused by a NACK with its number, and leaves no trace.
func TestAblyPresenceRefusals(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys, func(c *Config) {
		c.Ably.MaxPresenceMembers, c.Ably.MaxMessageBytes = 3, 1000
	})
	refused := func(c *ablyClient, code int, channel string, items ...ably.PresenceMessage) {
		t.Helper()
		n := c.postPresence(t, channel, items...)
		if m := c.until(t, ably.ActionNack); m.MsgSerial != ably.Some(n) || m.Count != 1 || m.Error.Code != code || m.Error.StatusCode == 0 {
			t.Errorf("%s is answered %s, want %d", c.name, m.Append(nil, ably.JSON), code)
		}
	}
	wild, ann := s.ably(t, "wild"), s.ably(t, "ann", "clientId=ann")
	poor := s.ably(t, "poor", "key="+testAblyPoorKey, "clientId=poor")
	refused(wild, 40012, "room", member(ably.PresenceEnter, "", ""))
	refused(wild, 40012, "room", member(ably.PresenceEnter, "*", ""))
	refused(wild, 40012, "room", member(ably.PresenceEnter, strings.Repeat("x", maxAblyClientIDBytes+1), ""))
	refused(ann, 40012, "room", member(ably.PresenceEnter, "ben", ""))
	refused(ann, 40013, "room", member(ably.PresenceAbsent, "", ""))
	refused(ann, 40013, "room", member(17, "", ""))
	refused(ann, 40010, ":room", member(ably.PresenceEnter, "", ""))
	refused(ann, 40009, "room", member(ably.PresenceEnter, "", strings.Repeat("x", 998)))
	refused(poor, 40160, "news", member(ably.PresenceEnter, "", ""))
	wild.enters(t, "room", member(ably.PresenceEnter, "a", ""), member(ably.PresenceEnter, "b", ""))
	refused(wild, 91003, "room", member(ably.PresenceEnter, "c", ""), member(ably.PresenceEnter, "d", ""))
	ann.enters(t, "room", member(ably.PresenceEnter, "", strings.Repeat("x", 997)))
	wild.enters(t, "room", member(ably.PresenceUpdate, "a", "still possible"))
	refused(wild, 91003, "room", member(ably.PresenceEnter, "c", ""))
	wild.enters(t, "room", member(ably.PresenceLeave, "a", ""), member(ably.PresenceLeave, "b", ""))
	wild.attach(t, "room")
	wild.wantSync(t, "room", "present ann "+strings.Repeat("x", 997))
	wantHubConsistent(t, s)
}

// After a resume the client sends again what was not acknowledged: it is acknowledged, and nobody hears it twice.
func TestAblyPresenceThatIsSentAgain(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	ben := s.ably(t, "ben")
	ben.attach(t, "room")
	ann := s.ably(t, "ann", "clientId=ann")
	ann.attach(t, "room")
	ann.enters(t, "room", member(ably.PresenceEnter, "", "1"))
	ann.enters(t, "room", member(ably.PresenceLeave, "", ""))
	ann.enters(t, "room", member(ably.PresenceEnter, "", "2"))
	ann.socket.Close()
	again := s.ably(t, "ann", "clientId=ann", "resume="+ann.key)
	if again.id != ann.id {
		t.Fatal("the connection was not resumed")
	}
	again.enters(t, "room", member(ably.PresenceEnter, "", "1"))
	again.enters(t, "room", member(ably.PresenceLeave, "", ""))
	again.enters(t, "room", member(ably.PresenceEnter, "", "2"))
	again.enters(t, "room", member(ably.PresenceUpdate, "", "3"))
	for _, want := range []string{"enter ann 1", "leave ann 1", "enter ann 2", "update ann 3"} {
		ben.wantPresence(t, "room", want)
	}
	wantHubConsistent(t, s)
}

// After a reconnect the SDK enters its members again, by the ids that it knows of them: what is older than what the server knows
// changes nothing, and whoever has left meanwhile does not come back.
func TestAblyPresenceEnteredAgainIsNoNews(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	ben, ann := s.ably(t, "ben"), s.ably(t, "ann")
	ben.attach(t, "room")
	ann.attach(t, "room")
	ann.enters(t, "room", member(ably.PresenceEnter, "a", "1"), member(ably.PresenceEnter, "b", "1"))
	ann.enters(t, "room", member(ably.PresenceUpdate, "a", "2"))
	ann.enters(t, "room", member(ably.PresenceLeave, "b", ""))
	for _, want := range [][]string{{"enter a 1", "enter b 1"}, {"update a 2"}, {"leave b 1"}} {
		ben.wantPresence(t, "room", want...)
	}
	with := func(m ably.PresenceMessage, id string) ably.PresenceMessage { m.ID = ann.id + id; return m }
	ann.enters(t, "room", with(member(ably.PresenceEnter, "a", "2"), ":1:0"))
	ann.enters(t, "room", with(member(ably.PresenceEnter, "a", "1"), ":0:0"))
	ann.postPresence(t, "room", with(member(ably.PresenceEnter, "b", "1"), ":0:1"))
	if m := ann.wantPresence(t, "room", "leave b"); m.Presence[0].ID != ann.id+":2:0" {
		t.Errorf("ann is told again %s", m.Append(nil, ably.JSON))
	}
	ann.wantAction(t, ably.ActionAck, "")
	ann.enters(t, "room", with(member(ably.PresenceEnter, "c", "1"), ":0:0")) // as after an absence
	ann.enters(t, "room", member(ably.PresenceEnter, "b", "3"))
	ben.wantPresence(t, "room", "enter c 1")
	ben.wantPresence(t, "room", "enter b 3")
	wantHubConsistent(t, s)
}

// Members leave at once when their connection closes or detaches, and with an id that clients do not take for old.
func TestAblyPresenceLeavesWithItsConnection(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	ben := s.ably(t, "ben")
	ben.attach(t, "room")
	for _, end := range []ably.Action{ably.ActionClose, ably.ActionDetach} {
		ann := s.ably(t, "ann", "clientId=ann")
		ann.attach(t, "room")
		ann.enters(t, "room", member(ably.PresenceEnter, "", "x"))
		ben.wantPresence(t, "room", "enter ann x")
		ann.say(t, ably.ProtocolMessage{Action: end, Channel: ably.Some("room")})
		m := ben.wantPresence(t, "room", "leave ann x")
		if id := m.Presence[0].ID; strings.HasPrefix(id, ann.id) || strings.HasPrefix(m.ID, ann.id) || id == "" || m.Presence[0].ConnectionID != ann.id {
			t.Errorf("the server's leave is %s", m.Append(nil, ably.JSON))
		}
		ann.until(t, ably.ActionClosed-ably.ActionClose+end)
	}
	wantHubConsistent(t, s)
}

// A connection that is attached under two names is present until it has left both.
func TestAblyPresenceUnderTwoNames(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	ann, ben := s.ably(t, "ann", "clientId=ann"), s.ably(t, "ben")
	ben.attach(t, "room")
	ann.attach(t, "room")
	ann.attach(t, "[?rewind=1]room")
	ann.enters(t, "[?rewind=1]room", member(ably.PresenceEnter, "", ""))
	ben.wantPresence(t, "room", "enter ann")
	ann.say(t, ably.ProtocolMessage{Action: ably.ActionDetach, Channel: ably.Some("room")})
	ann.until(t, ably.ActionDetached)
	ben.publish(t, "elsewhere", ablyText("", "nothing came"))
	ann.say(t, ably.ProtocolMessage{Action: ably.ActionDetach, Channel: ably.Some("[?rewind=1]room")})
	ben.wantPresence(t, "room", "leave ann")
	wantHubConsistent(t, s)
}

// A lost connection's members stay for a while, and a resume in time keeps them: nobody hears anything.
func TestAblyPresenceGrace(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	ben := s.ably(t, "ben")
	ben.attach(t, "room")
	ann := s.ably(t, "ann", "clientId=ann", "remainPresentFor=0")
	ann.attach(t, "room")
	ann.enters(t, "room", member(ably.PresenceEnter, "", ""))
	ben.wantPresence(t, "room", "enter ann")
	ann.socket.Close()
	ben.wantPresence(t, "room", "leave ann")

	carl := s.ably(t, "carl", "clientId=carl", "remainPresentFor=1500")
	carl.attach(t, "room")
	carl.enters(t, "room", member(ably.PresenceEnter, "", ""))
	ben.wantPresence(t, "room", "enter carl")
	carl.socket.Close()
	again := s.ably(t, "carl", "clientId=carl", "resume="+carl.key, "remainPresentFor=100")
	time.Sleep(2500 * time.Millisecond) // the deadline, had it not been cancelled
	ben.publish(t, "elsewhere", ablyText("", "nothing came"))
	again.socket.Close()
	ben.wantPresence(t, "room", "leave carl")
	wantHubConsistent(t, s)
}

// A new capability that does not allow presence takes the members out at once.
func TestAblyPresenceEndsWithItsCapability(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	ben := s.ably(t, "ben")
	ben.attach(t, "room")
	for _, capability := range []map[string][]string{{"room": {"subscribe"}}, {"other": {"*"}}} {
		wide, narrow := map[string][]string{"*": {"*"}}, capability
		ann := s.ably(t, "ann", "key=", "access_token="+s.ablyToken(t, "ann", wide))
		ann.attach(t, "room")
		ann.enters(t, "room", member(ably.PresenceEnter, "", ""))
		ben.wantPresence(t, "room", "enter ann")
		ann.say(t, ably.ProtocolMessage{Action: ably.ActionAuth, AccessToken: s.ablyToken(t, "ann", narrow)})
		ben.wantPresence(t, "room", "leave ann")
		ann.until(t, ably.ActionConnected)
	}
	wantHubConsistent(t, s)
}

// ablyToken mints a token of the first key.
func (s *testServer) ablyToken(t testing.TB, clientID string, capability map[string][]string) string {
	t.Helper()
	name, _, _ := strings.Cut(testAblyKey, ":")
	var out bytes.Buffer
	if err := mintAblyToken(&out, io.Discard, s.cfg, ablyMint{key: name, clientID: clientID, capability: toJSON(t, capability)}, time.Now()); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out.String())
}

// A connection that was lost is there for exactly its grace, in the company of one that came back in time.
func TestAblyPresenceLeavesAfterItsGrace(t *testing.T) {
	t.Parallel()
	inBubble(t, func(c *Config) { withAblyKeys(c); c.WebSocket.IdleTimeoutSeconds = maxConfigSeconds }, func(t *testing.T, s *pipeServer) {
		a := bubbleArena(t, s)
		defer a.end()
		a.rooms = []string{"room"}
		a.watchers = []*actor{a.watch()}
		for _, remain := range []time.Duration{presenceGrace, 40 * time.Second} {
			lost, back := &person{remain: remain, rooms: a.nowhere()}, &person{remain: remain, rooms: a.nowhere()}
			a.people = append(a.people, lost, back)
			for _, p := range []*person{lost, back} {
				p.at = a.connect("", remain)
				p.meet()
				a.say(p, "room", "a", "x")
				p.at.cut()
				p.at, p.lost = nil, time.Now()
			}
			time.Sleep(remain - 2*time.Second)
			a.look("just before the end of the grace")
			a.resume(back)
			time.Sleep(2 * time.Second)
			a.look("at its end")
			if len(lost.rooms["room"]) != 0 || len(back.rooms["room"]) != 1 {
				t.Fatal("the model is wrong")
			}
			time.Sleep(time.Minute)
			a.look("long after it")
			a.ask(back.at, ably.ProtocolMessage{Action: ably.ActionClose}, ably.ActionClosed)
			back.rooms = nil
			back.remain = 0
			back.at, back.lost = nil, time.Now()
			a.look("when it has closed")
		}
	})
}

// The set is told in pages that leave room in the queue, however large it is, and a tick goes on where the last has stopped.
// Whoever is too slow for what the server itself has to tell gets the whole set anew instead of being cut.
func TestAblyPresenceIsToldAsTheQueueDrains(t *testing.T) {
	s := stillServer(t, func(c *Config) { withAblyKeys(c); c.WebSocket.MaxQueueBytes = 128 << 10 })
	sh := s.hub.shards[0]
	sh.account, sh.ably = s.account, s.rules.Load().ably
	do := func(m *Member, call ablyCall) {
		t.Helper()
		reply := make(chan *Refusal, 1)
		sh.now = time.Now()
		if sh.handleAbly(&op{kind: opAbly, member: m, room: "room", ably: &call, reply: reply}); call.failure != nil {
			t.Fatal(call.failure)
		}
	}
	client := func(name string) *conn {
		c := connectStill(s, Identity{UserID: name})
		c.member.dialect = dialectAblyJSON
		return c
	}
	see := &sight{}
	read := func(c *conn) (bytes int) {
		for _, frame := range takeFrames(c) {
			_, payload, err := readServerFrame(strings.NewReader(string(frame)))
			if err != nil {
				t.Fatal(err)
			}
			m, err := ably.Decode(ably.JSON, payload)
			if err != nil {
				t.Fatal(err)
			}
			if m.Action == ably.ActionAttached {
				see.attached(m.Flags&ably.FlagHasPresence != 0)
			} else {
				see.take(&m)
			}
			bytes += len(frame)
		}
		return bytes
	}
	crowd := client("crowd")
	for i := range 60 {
		do(&crowd.member, ablyCall{kind: ablyPresence, connectionID: "crowd", generation: 1, serial: ably.Some(int64(i)),
			presence: []ably.PresenceMessage{member(ably.PresenceEnter, fmt.Sprint(i), strings.Repeat("x", 10_000))}})
	}
	ann := client("ann")
	do(&ann.member, ablyCall{kind: ablyAttach, attachment: &attachment{member: &ann.member, name: "room", connectionID: "ann", granted: ablyDefaultModes}})
	ticks := 0
	for ; ticks < 100 && (ticks == 0 || see.syncing); ticks++ {
		if n := read(ann); n > 128<<10 {
			t.Fatalf("%d bytes at once", n)
		}
		sh.ablyTick()
	}
	read(ann)
	if got := len(see.list()); got != 60 || ticks < 4 {
		t.Fatalf("%d members are seen after %d ticks", got, ticks)
	}
	// A queue that is nearly full of other things does not take sixty leaves with data.
	if ann.outbox.put(make([]byte, 120<<10)); ann.outbox.ended() != notEnded {
		t.Fatal("the queue takes too little")
	}
	do(&crowd.member, ablyCall{kind: ablyDepart, connectionID: "crowd", generation: 1})
	if ann.outbox.ended() != notEnded {
		t.Fatal("a slow client is cut for what the server itself says")
	}
	takeFrames(ann)
	sh.ablyTick()
	if read(ann); len(see.list()) != 0 {
		t.Fatalf("%q are still seen", see.list())
	}
	for _, report := range []*shardReport{sh.check()} {
		if len(report.findings) > 0 || report.kept != s.account.held.Load() {
			t.Errorf("%q; %d bytes are kept, %d in the account", report.findings, report.kept, s.account.held.Load())
		}
	}
}

// Members need memory, which they get from messages that are kept; when there is none they are refused.
func TestAblyPresenceIsBoundedByMemory(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys, func(c *Config) {
		c.WebSocket.MaxBufferedBytes, c.WebSocket.MaxQueueBytes, c.WebSocket.MaxMessageBytes = 2<<20, 1<<20, 64<<10
		c.Ably.MaxPresenceMembers, c.Ably.MessagesPerSecond = 0, 0
	})
	ann := s.ably(t, "ann")
	entered := 0
	for ; entered < 100; entered++ {
		ann.postPresence(t, "room", member(ably.PresenceEnter, fmt.Sprint(entered), strings.Repeat("x", 60_000)))
		if m := ann.next(t); m.Action == ably.ActionNack {
			if m.Error.Code != 91003 {
				t.Errorf("refused with %d", m.Error.Code)
			}
			break
		}
	}
	if limit := int(s.server.account.limit) / 60_000; entered > limit || entered < limit/4 {
		t.Errorf("%d members of 60000 bytes are let in, where the limit is %d bytes", entered, s.server.account.limit)
	}
	wantHubConsistent(t, s)
	ann.enters(t, "room", member(ably.PresenceLeave, "0", ""), member(ably.PresenceLeave, "1", ""))
	ann.enters(t, "room", member(ably.PresenceEnter, "small", ""))
	ann.say(t, ably.ProtocolMessage{Action: ably.ActionClose})
	ann.until(t, ably.ActionClosed)
	wantHubConsistent(t, s)
}

// LetShare members hear nothing of presence, are no members of the set, and count among those who are there.
func TestAblyPresenceLeavesLetShareMembersAlone(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	ming := s.dial(t, "ming")
	ming.subscribe(t, "room", eventAll)
	ann, ben := s.ably(t, "ann", "clientId=ann"), s.ably(t, "ben")
	ann.attach(t, "room")
	ann.attach(t, "[?rewind=1]room")
	ben.attach(t, "room", func(m *ably.ProtocolMessage) { m.Flags = ably.ModeSubscribe })
	ann.enters(t, "room", member(ably.PresenceEnter, "", "x"))
	var got ablyOccupancy
	s.server.hub.each(func(sh *shard) {
		if room := sh.rooms["room"]; room != nil {
			got = room.occupancy()
		}
	})
	if want := (ablyOccupancy{connections: 3, publishers: 2, subscribers: 3, presenceConnections: 1, presenceMembers: 1, presenceSubscribers: 1}); got != want {
		t.Errorf("the occupancy is %+v, want %+v", got, want)
	}
	ann.enters(t, "room", member(ably.PresenceLeave, "", ""))
	ann.say(t, ably.ProtocolMessage{Action: ably.ActionClose})
	ann.until(t, ably.ActionClosed)
	ming.publish(t, "room", eventAll, `{"type":"discover"}`) // whatever came for her before would be kept
	if len(ming.kept) > 0 {
		t.Errorf("a LetShare member gets %q", ming.kept)
	}
	wantHubConsistent(t, s)
}

// A channel that fails is left, members included: for its client it is over.
func TestAblyPresenceEndsWithItsChannel(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	ann, ben := s.ably(t, "ann", "clientId=ann"), s.ably(t, "ben")
	ben.attach(t, "room")
	ann.attach(t, "room")
	ann.enters(t, "room", member(ably.PresenceEnter, "", ""))
	ben.wantPresence(t, "room", "enter ann")
	ann.say(t, ably.ProtocolMessage{Action: ably.ActionAttach, Channel: ably.Some("room"), Params: map[string]string{"modes": "nonsense"}})
	ben.wantPresence(t, "room", "leave ann")
	if m := ann.until(t, ably.ActionError); m.Channel.V != "room" {
		t.Errorf("ann gets %s", m.Append(nil, ably.JSON))
	}
	ben.publishEchoed(t, "room", ablyText("", "x"))
	ann.hearsNothing(t)
	wantHubConsistent(t, s)
}
