package main

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"letshare/ably"
)

// The key that tests connect with, and one that may do little.
const (
	testAblyKey     = "app.all:secret-of-the-key-that-may-all"
	testAblyPoorKey = "app.poor:secret-of-the-key-that-may-little"
)

// withAblyKeys configures them.
func withAblyKeys(c *Config) {
	name, secret, _ := strings.Cut(testAblyKey, ":")
	poorName, poorSecret, _ := strings.Cut(testAblyPoorKey, ":")
	c.Ably.Keys = []AblyKey{
		{Name: name, Secret: secret},
		{Name: poorName, Secret: poorSecret, Capability: map[string][]string{"news": {"subscribe"}, "mail:*": {"publish"}}},
	}
}

// ablyClient is an Ably client, message by message. Used by one goroutine.
type ablyClient struct {
	*client
	format ably.Format
	id     string // connectionId
	key    string // connectionKey
	serial int64  // msgSerial of the next publish
	first  ably.ProtocolMessage
}

// ably connects with the test's key; options are "name=value" of the query, and replace what is there.
func (s *testServer) ably(t testing.TB, name string, options ...string) *ablyClient {
	t.Helper()
	c := s.openAbly(t, name, options...)
	if c.first.Action != ably.ActionConnected {
		t.Fatalf("%s is answered %+v, want CONNECTED", name, c.first)
	}
	return c
}

// openAbly connects and reads the first message, whatever it is.
func (s *testServer) openAbly(t testing.TB, name string, options ...string) *ablyClient {
	t.Helper()
	query := url.Values{"key": {testAblyKey}, "v": {"6"}, "heartbeats": {"true"}}
	for _, option := range options {
		key, value, _ := strings.Cut(option, "=")
		if query.Del(key); value != "" {
			query.Set(key, value)
		}
	}
	c := &ablyClient{client: s.dial(t, name, withQuery(query.Encode()))}
	if query.Get("format") == "msgpack" {
		c.format = ably.Msgpack
	}
	c.first = c.next(t)
	if d := c.first.ConnectionDetails; d != nil {
		c.id, c.key = c.first.ConnectionID, d.ConnectionKey
	}
	return c
}

// say sends a message.
func (c *ablyClient) say(t testing.TB, m ably.ProtocolMessage) {
	t.Helper()
	c.frame(t, []byte{opText, opBinary}[c.format], m.Append(nil, c.format))
}

// next reads the next message but heartbeats without an id, and answers pings on the way.
func (c *ablyClient) next(t testing.TB) ably.ProtocolMessage {
	t.Helper()
	for {
		opcode, payload, err := c.read()
		switch {
		case err != nil:
			t.Fatalf("%s waits for a message: %v", c.name, err)
		case opcode == opPing:
			c.frame(t, opPong, payload)
		case opcode == []byte{opText, opBinary}[c.format]:
			m, err := ably.Decode(c.format, payload)
			if err != nil {
				t.Fatalf("%s gets %q: %v", c.name, payload, err)
			}
			if m.Action != ably.ActionHeartbeat || m.ID != "" {
				return m
			}
		default:
			t.Fatalf("%s waits for a message and gets opcode %d, %q", c.name, opcode, payload)
		}
	}
}

// want reads the next message, which must be of this action and about this channel ("": about none).
func (c *ablyClient) wantAction(t testing.TB, action ably.Action, channel string) ably.ProtocolMessage {
	t.Helper()
	m := c.next(t)
	if m.Action != action || m.Channel.V != channel {
		t.Fatalf("%s gets %s, want action %d of channel %q", c.name, m.Append(nil, ably.JSON), action, channel)
	}
	return m
}

// attach attaches to a channel and returns the ATTACHED. change, if given, completes the ATTACH.
func (c *ablyClient) attach(t testing.TB, channel string, change ...func(*ably.ProtocolMessage)) ably.ProtocolMessage {
	t.Helper()
	m := ably.ProtocolMessage{Action: ably.ActionAttach, Channel: ably.Some(channel)}
	for _, set := range change {
		set(&m)
	}
	c.say(t, m)
	return c.wantAction(t, ably.ActionAttached, channel)
}

// ablyText is a message whose data is a string.
func ablyText(name, data string) ably.Message {
	return ably.Message{Name: ably.Some(name), Data: ably.Data{Kind: ably.DataText, Bytes: []byte(data)}}
}

// ablyObject is a message whose data is an object, as the SDK sends it.
func ablyObject(name, data string) ably.Message {
	m := ablyText(name, data)
	m.Encoding = "json"
	return m
}

// post sends a publish and does not wait for its answer.
func (c *ablyClient) post(t testing.TB, channel string, messages ...ably.Message) (msgSerial int64) {
	t.Helper()
	c.say(t, ably.ProtocolMessage{Action: ably.ActionMessage, Channel: ably.Some(channel), MsgSerial: ably.Some(c.serial), Messages: messages})
	c.serial++
	return c.serial - 1
}

// publish publishes and wants the ACK next. It returns the serials.
func (c *ablyClient) publish(t testing.TB, channel string, messages ...ably.Message) []string {
	t.Helper()
	n := c.post(t, channel, messages...)
	m := c.wantAction(t, ably.ActionAck, "")
	if m.MsgSerial != ably.Some(n) || m.Count != 1 || len(m.Results) != 1 || len(m.Results[0].Serials) != len(messages) {
		t.Fatalf("%s: the ACK of %d is %s", c.name, n, m.Append(nil, ably.JSON))
	}
	return m.Results[0].Serials
}

// refused publishes and wants a NACK of this code next.
func (c *ablyClient) refused(t testing.TB, code int, channel string, messages ...ably.Message) {
	t.Helper()
	n := c.post(t, channel, messages...)
	m := c.wantAction(t, ably.ActionNack, "")
	if m.MsgSerial != ably.Some(n) || m.Count != 1 || m.Error == nil || m.Error.Code != code || m.Error.StatusCode == 0 {
		t.Fatalf("%s: the NACK of %d is %s, want %d", c.name, n, m.Append(nil, ably.JSON), code)
	}
}

// hears reads the next message, which must be of the channel and hold exactly these, as "name data".
func (c *ablyClient) hears(t testing.TB, channel string, want ...string) ably.ProtocolMessage {
	t.Helper()
	m := c.wantAction(t, ably.ActionMessage, channel)
	var got []string
	for _, item := range m.Messages {
		got = append(got, strings.TrimSpace(item.Name.V+" "+string(item.Data.Bytes)))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("%s hears %q, want %q", c.name, got, want)
	}
	return m
}

// hearsNothing proves that nothing of the client's channels is on its way: the answer to a ping through each of them comes next.
func (c *ablyClient) hearsNothing(t testing.TB, channels ...string) {
	t.Helper()
	for _, channel := range channels {
		c.attach(t, channel)
	}
	id := fmt.Sprint("fence ", c.server.count())
	c.say(t, ably.ProtocolMessage{Action: ably.ActionHeartbeat, ID: id})
	if m := c.wantAction(t, ably.ActionHeartbeat, ""); m.ID != id {
		t.Fatalf("%s gets the heartbeat %q, want %q", c.name, m.ID, id)
	}
}
