package main

import (
	"fmt"
	"strings"
	"testing"

	"letshare/ably"
)

// Ann and Ben speak the two formats; each hears what the other says, in the form it can read.
func TestAblyClientsOfBothFormatsHearEachOther(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	ann, ben := s.ably(t, "ann"), s.ably(t, "ben", "format=msgpack")
	for _, c := range []*ablyClient{ann, ben} {
		m := c.attach(t, "room")
		if m.ChannelSerial == "" || m.Flags&ablyDefaultModes != ablyDefaultModes || m.Flags&ably.FlagResumed != 0 {
			t.Errorf("%s: ATTACHED is %s", c.name, m.Append(nil, ably.JSON))
		}
	}
	serials := ann.publishEchoed(t, "room", ablyText("hello", "world"), ably.Message{Data: ably.Data{Kind: ably.DataBinary, Bytes: []byte{0, 255}}})
	m := ben.hears(t, "room", "hello world", "\x00\xff")
	if m.ConnectionID != ann.id || m.Timestamp == 0 || m.Messages[1].Name.OK || m.Messages[1].Data.Kind != ably.DataBinary ||
		m.Messages[0].Serial != serials[0] || m.Messages[1].ID != ann.id+":0:1" || serials[0] >= serials[1] {
		t.Errorf("ben hears %s", m.Append(nil, ably.JSON))
	}
	ben.publishEchoed(t, "room", ablyText("", "back"))
	ann.hears(t, "room", "back")
	wantHubConsistent(t, s)
}

// publishEchoed publishes and wants the echo before the ACK, or behind it.
func (c *ablyClient) publishEchoed(t testing.TB, channel string, messages ...ably.Message) (serials []string) {
	t.Helper()
	c.post(t, channel, messages...)
	for range 2 {
		switch m := c.next(t); m.Action {
		case ably.ActionAck:
			serials = m.Results[0].Serials
		case ably.ActionMessage:
			if len(m.Messages) != len(messages) {
				t.Errorf("%s: the echo holds %d messages", c.name, len(m.Messages))
			}
		default:
			t.Fatalf("%s gets %s", c.name, m.Append(nil, ably.JSON))
		}
	}
	return serials
}

// wantHubConsistent checks the server's own consistency.
func wantHubConsistent(t testing.TB, s *testServer) {
	t.Helper()
	if err := s.server.ConsistencyCheck(); err != nil {
		t.Error(err)
	}
}

// What is wrong with a credential is told inside the socket, for good or not, and nothing of it reaches the log.
func TestAblyRefusalsComeInsideTheSocket(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys, func(c *Config) { c.Ably.AllowedOrigins = []string{"https://app.example"} })
	for _, refused := range []struct {
		options []string
		code    int
	}{
		{[]string{"key=app.all:wrong-secret"}, 40101},
		{[]string{"key=app.none:secret-of-the-key-that-may-all"}, 40101},
		{[]string{"key=garbage"}, 40101},
		{[]string{"v=1"}, 40025},
	} {
		c := s.openAbly(t, "mallory", refused.options...)
		if e := c.first.Error; c.first.Action != ably.ActionError || c.first.Channel.OK || e == nil || e.Code != refused.code || e.StatusCode < 400 {
			t.Errorf("%v is answered %s, want ERROR %d", refused.options, c.first.Append(nil, ably.JSON), refused.code)
		}
		c.wantClose(t, 1000, "")
	}
	if log := s.log.String(); strings.Contains(log, "secret-") || strings.Contains(log, "-secret") {
		t.Error("the log holds a secret")
	}
	s.wantMetric(t, "websocket", "active_connections", 0)
}

// Each refusal names what it is about, and the connection goes on.
func TestWhatAnAblyClientGetsWrongNeverCutsIt(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys, func(c *Config) {
		c.Ably.MaxMessageBytes, c.Ably.MaxChannelsPerConnection, c.Ably.MaxAttachmentsPerChannel = 1000, 3, 2
	})
	c := s.ably(t, "cleo", "clientId=cleo", "echo=false")
	failed := func(code int, channel string, change func(*ably.ProtocolMessage)) {
		t.Helper()
		m := ably.ProtocolMessage{Action: ably.ActionAttach, Channel: ably.Some(channel)}
		if change != nil {
			change(&m)
		}
		c.say(t, m)
		if m := c.wantAction(t, ably.ActionError, channel); !m.Channel.OK || m.Error.Code != code {
			t.Errorf("ATTACH of %q is answered %s, want %d", channel, m.Append(nil, ably.JSON), code)
		}
	}
	for _, name := range []string{"", ":colon", "[bracket", "two\nlines", "[?rewind=1", "[?rewind=1]", strings.Repeat("x", 3000)} {
		failed(40010, name, nil)
	}
	failed(40000, "room", func(m *ably.ProtocolMessage) { m.Params = map[string]string{"rewind": "yesterday"} })
	failed(40000, "room", func(m *ably.ProtocolMessage) { m.Params = map[string]string{"modes": "publish,everything"} })
	failed(40000, "room", func(m *ably.ProtocolMessage) { m.Params = map[string]string{"delta": "xdelta"} })
	c.refused(t, 40010, "", ablyText("a", "b"))
	c.refused(t, 40009, "room", ablyText("a", strings.Repeat("b", 1000)))
	mallory := ablyText("a", "b")
	mallory.ClientID = "mallory"
	c.refused(t, 40012, "room", mallory)
	mallory.ClientID = "*"
	c.refused(t, 40012, "room", mallory)
	numbered, other := ablyText("a", "b"), ablyText("c", "d")
	numbered.ID, other.ID = "base:0", "other:1"
	c.refused(t, 40031, "room", numbered, other)
	c.frame(t, opText, []byte(`{"action":15,"channel":"room","messages":[{"name":7}],"msgSerial":99}`))
	if m := c.wantAction(t, ably.ActionNack, ""); m.MsgSerial.V != 99 || m.Error.Code != 40013 {
		t.Errorf("a name that is a number is answered %s", m.Append(nil, ably.JSON))
	}
	c.frame(t, opText, []byte(`not even JSON`))
	c.frame(t, opText, []byte(`{"action":200}`))

	// Modes and bounds.
	c.attach(t, "deaf", func(m *ably.ProtocolMessage) { m.Flags = ably.ModeSubscribe })
	c.refused(t, 40165, "deaf", ablyText("a", "b"))
	for _, other := range []string{"first", "second"} {
		s.ably(t, other).attach(t, "full")
	}
	failed(90000, "full", nil)
	c.attach(t, "two")
	c.attach(t, "three")
	failed(90010, "four", nil)
	if serials := c.publish(t, "two", ablyText("it", "works")); len(serials) != 1 {
		t.Errorf("serials %q", serials)
	}
	c.hearsNothing(t)
	wantHubConsistent(t, s)
}

// A capability bounds what a key may do, channel by channel.
func TestAblyCapabilities(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	poor := s.ably(t, "poor", "key="+testAblyPoorKey)
	if m := poor.attach(t, "news"); m.Flags&ably.ModeAll != ably.ModeSubscribe|ably.ModePresenceSubscribe {
		t.Errorf("modes %x are granted", m.Flags)
	}
	poor.refused(t, 40160, "news", ablyText("a", "b"))
	poor.publish(t, "mail:ann", ablyText("a", "b"))
	poor.say(t, ably.ProtocolMessage{Action: ably.ActionAttach, Channel: ably.Some("else")})
	if m := poor.wantAction(t, ably.ActionError, "else"); m.Error.Code != 40160 || m.Error.StatusCode != 401 {
		t.Errorf("the error is %v", m.Error)
	}
	s.ably(t, "rich").publish(t, "news", ablyText("it", "rains"))
	poor.hears(t, "news", "it rains")
}

// Too many messages a second are refused one by one; those within the rate are delivered all the same.
func TestAblyMessagesOverTheRateAreRefused(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys, func(c *Config) { c.Ably.MessagesPerSecond = 5 })
	listener, flood := s.ably(t, "listener"), s.ably(t, "flood")
	listener.attach(t, "room")
	for range 40 {
		flood.post(t, "room", ablyText("n", "x"))
	}
	acked := 0
	for i := range 40 {
		m := flood.next(t)
		switch {
		case m.MsgSerial.V != int64(i):
			t.Fatalf("answer %d is to %d", i, m.MsgSerial.V)
		case m.Action == ably.ActionAck:
			acked++
		case m.Action != ably.ActionNack || m.Error.Code != 42911:
			t.Fatalf("answer %s", m.Append(nil, ably.JSON))
		}
	}
	if acked < 5*ablyBurstSeconds || acked == 40 {
		t.Errorf("%d of 40 are accepted", acked)
	}
	for range acked {
		listener.hears(t, "room", "n x")
	}
	listener.hearsNothing(t)
}

// Who is cut off comes back as the same, is told what it has missed, once, and its own unanswered publish is not made twice.
func TestAnAblyClientResumes(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	ann, ben := s.ably(t, "ann", "echo=false"), s.ably(t, "ben")
	ann.attach(t, "room")
	attached := ben.attach(t, "room")
	ann.publish(t, "room", ablyText("n", "1"))
	last := ben.hears(t, "room", "n 1")
	ben.close()
	ann.publish(t, "room", ablyText("n", "2"))
	ann.publish(t, "room", ablyText("n", "3"))

	back := s.ably(t, "ben", "resume="+ben.key)
	if back.id != ben.id || back.key == ben.key || back.first.Error != nil {
		t.Fatalf("ben comes back as %s", back.first.Append(nil, ably.JSON))
	}
	m := back.attach(t, "room", func(m *ably.ProtocolMessage) { m.ChannelSerial = last.ChannelSerial })
	if m.Flags&ably.FlagResumed == 0 || m.Error != nil {
		t.Errorf("ATTACHED is %s", m.Append(nil, ably.JSON))
	}
	back.hears(t, "room", "n 2")
	back.hears(t, "room", "n 3")
	back.hearsNothing(t)

	// The ACK was lost: the same number again.
	serials := ann.publish(t, "room", ablyText("n", "4"))
	ann.close()
	again := s.ably(t, "ann", "resume="+ann.key, "echo=false")
	again.serial = ann.serial - 1
	if repeated := again.publish(t, "room", ablyText("n", "4")); repeated[0] != serials[0] {
		t.Errorf("the repeated publish got %q, the first %q", repeated, serials)
	}
	back.hears(t, "room", "n 4")
	back.hearsNothing(t)

	// A key of before the last one is good, too: the CONNECTED that brought the last may have been lost.
	third := s.ably(t, "ben", "resume="+ben.key)
	if third.id != ben.id {
		t.Errorf("ben comes back as %q, was %q", third.id, ben.id)
	}
	back.wantClose(t, 4004, "superseded")
	m = third.attach(t, "room", func(m *ably.ProtocolMessage) { m.ChannelSerial = attached.ChannelSerial })
	for i := range 4 {
		third.hears(t, "room", fmt.Sprint("n ", i+1))
	}
	third.hearsNothing(t)
	wantHubConsistent(t, s)
}

// A resume that cannot be says so, and the client is connected all the same.
func TestAFailedAblyResumeSaysSo(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	closed := s.ably(t, "closed")
	closed.say(t, ably.ProtocolMessage{Action: ably.ActionClose})
	closed.wantAction(t, ably.ActionClosed, "")
	closed.wantClose(t, 1000, "closed")
	for key, code := range map[string]int{"nonsense": 80018, "abc-1-0123": 80018, closed.key: 80008} {
		c := s.ably(t, "late", "resume="+key)
		if e := c.first.Error; c.id == closed.id || e == nil || e.Code != code {
			t.Errorf("resume with %q is answered %s, want %d", key, c.first.Append(nil, ably.JSON), code)
		}
		m := c.attach(t, "room", func(m *ably.ProtocolMessage) { m.ChannelSerial = "01700000000000-000000007@elsewhere" })
		if m.Flags&ably.FlagResumed != 0 || m.Error == nil || m.Error.Code != 80012 {
			t.Errorf("ATTACHED of an unknown serial is %s", m.Append(nil, ably.JSON))
		}
	}
	// Somebody else's key.
	ann := s.ably(t, "ann", "clientId=ann")
	thief := s.openAbly(t, "thief", "clientId=thief", "resume="+ann.key)
	if thief.first.Action != ably.ActionError || thief.first.Error.Code != 40102 {
		t.Errorf("the thief is answered %s", thief.first.Append(nil, ably.JSON))
	}
	ann.publish(t, "room", ablyText("still", "there"))
}

// More than half a queue is not replayed: the client would be cut, come back, and be cut again.
func TestALongAblyBacklogIsNotReplayed(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys, func(c *Config) { c.WebSocket.MaxQueueBytes, c.Ably.MessagesPerSecond = 64<<10, 0 })
	ann, ben := s.ably(t, "ann", "echo=false"), s.ably(t, "ben")
	before := ben.attach(t, "room").ChannelSerial
	ben.close()
	s.wantMetric(t, "websocket", "active_connections", 1)
	for range 40 {
		ann.publish(t, "room", ablyText("n", strings.Repeat("x", 1000)))
	}
	back := s.ably(t, "ben", "resume="+ben.key)
	m := back.attach(t, "room", func(m *ably.ProtocolMessage) { m.ChannelSerial = before })
	if m.Flags&ably.FlagResumed != 0 || m.Error == nil || m.Error.Code != 90004 {
		t.Errorf("ATTACHED is %s", m.Append(nil, ably.JSON))
	}
	ann.publish(t, "room", ablyText("goes", "on"))
	back.hears(t, "room", "goes on")
}

// A fresh attachment can begin in the past.
func TestAblyRewind(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	ann, ben := s.ably(t, "ann", "echo=false"), s.ably(t, "ben")
	for i := range 5 {
		ann.publish(t, "room", ablyText("n", fmt.Sprint(i)))
	}
	m := ben.attach(t, "[?rewind=2]room")
	if m.Flags&ably.FlagHasBacklog == 0 || m.Params["rewind"] != "2" {
		t.Errorf("ATTACHED is %s", m.Append(nil, ably.JSON))
	}
	ben.hears(t, "[?rewind=2]room", "n 3")
	ben.hears(t, "[?rewind=2]room", "n 4")
	ann.publish(t, "room", ablyText("n", "5"))
	ben.hears(t, "[?rewind=2]room", "n 5")
	if m := ben.attach(t, "empty", func(m *ably.ProtocolMessage) { m.Params = map[string]string{"rewind": "2m"} }); m.Flags&ably.FlagHasBacklog != 0 {
		t.Errorf("ATTACHED of an empty channel is %s", m.Append(nil, ably.JSON))
	}
	ben.hearsNothing(t)
}

// Memory for the past is bounded: the oldest goes first, and whoever needs it learns that it is gone.
func TestMemoryForAblyClientsIsBounded(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys, func(c *Config) { c.WebSocket.MaxBufferedBytes, c.Ably.MessagesPerSecond = 1<<20, 0 })
	ann, ben := s.ably(t, "ann", "echo=false"), s.ably(t, "ben")
	serial := ben.attach(t, "room").ChannelSerial
	ben.close()
	s.wantMetric(t, "websocket", "active_connections", 1)
	for range 100 {
		ann.publish(t, "room", ablyText("n", strings.Repeat("x", 10_000)))
	}
	if kept := s.metric(t, "ably", "kept_bytes"); kept > 512<<10 || kept < 100_000 {
		t.Errorf("%v bytes are kept", kept)
	}
	wantHubConsistent(t, s)
	m := s.ably(t, "ben", "resume="+ben.key).attach(t, "room", func(m *ably.ProtocolMessage) { m.ChannelSerial = serial })
	if m.Flags&ably.FlagResumed != 0 || m.Error == nil || m.Error.Code != 90003 {
		t.Errorf("ATTACHED is %s", m.Append(nil, ably.JSON))
	}
}

// A planned stop tells Ably's clients to come back.
func TestAblyClientsAreToldOfAStop(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	ann := s.ably(t, "ann")
	ann.attach(t, "room")
	s.stop()
	if m := ann.wantAction(t, ably.ActionDisconnected, ""); m.Error == nil || m.Error.Code != 80003 || m.Error.StatusCode != 503 {
		t.Errorf("the stop is told as %s", m.Append(nil, ably.JSON))
	}
	ann.wantClose(t, 1001, "going_away")
}
