package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"letshare/ably"
)

// The key that may listen to the server itself.
const testAblyMetaKey = "app.meta:secret-of-the-key-that-may-listen-to-the-server"

// withAblyMeta configures it beside the others.
func withAblyMeta(c *Config) {
	withAblyKeys(c)
	name, secret, _ := strings.Cut(testAblyMetaKey, ":")
	c.Ably.Keys = append(c.Ably.Keys, AblyKey{Name: name, Secret: secret, Capability: map[string][]string{"[*]*": {"*"}}})
}

// said are the messages that a client of a bubble has got on a channel, as "name data".
func (c *pipeClient) said(channel string) (list []string) {
	c.t.Helper()
	for _, text := range c.got() {
		var m struct {
			Action   int
			Channel  string
			Messages []struct {
				Name, Data string
			}
		}
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			c.t.Fatal(err)
		}
		if m.Action != 15 || m.Channel != channel {
			continue
		}
		for _, item := range m.Messages {
			list = append(list, item.Name+" "+item.Data)
		}
	}
	return list
}

// wantSaid compares them with what is wanted, since the first n.
func (c *pipeClient) wantSaid(channel string, n int, want ...string) {
	c.t.Helper()
	got := c.said(channel)
	if n > len(got) || strings.Join(got[n:], "\n") != strings.Join(want, "\n") {
		c.t.Errorf("on %s is said, from the %dth:\n%s\nwant:\n%s", channel, n, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Who asks for the occupancy is told it at attaching and, at most once a second, when it has changed; who asks for one figure is
// told that one alone; who does not ask is told nothing.
func TestOccupancyIsToldToWhoAsksForIt(t *testing.T) {
	t.Parallel()
	inBubble(t, withAblyMeta, func(t *testing.T, s *pipeServer) {
		all, one, none := s.ablyJoin("all"), s.ablyJoin("one"), s.ablyJoin("none")
		all.send(`{"action":10,"channel":"room","params":{"occupancy":"metrics"}}`)
		time.Sleep(1500 * time.Millisecond)
		first := `[meta]occupancy {"metrics":{"connections":1,"publishers":1,"subscribers":1,"presenceConnections":1,"presenceMembers":0,"presenceSubscribers":1}}`
		all.wantSaid("room", 0, first)
		if got := all.got(); !strings.Contains(got[len(got)-1], `"action":3`) || strings.Contains(got[len(got)-1], "channelSerial") {
			t.Errorf("the event is no message about the channel: %s", got[len(got)-1])
		}
		one.send(`{"action":10,"channel":"room","params":{"occupancy":"metrics.publishers,metrics.presenceMembers"}}`)
		none.send(`{"action":10,"channel":"room","params":{"modes":"subscribe"}}`)
		time.Sleep(time.Second)
		one.wantSaid("room", 0, `[meta]occupancy {"metrics":{"publishers":2,"presenceMembers":0}}`)
		all.wantSaid("room", 1, `[meta]occupancy {"metrics":{"connections":3,"publishers":2,"subscribers":3,"presenceConnections":2,"presenceMembers":0,"presenceSubscribers":2}}`)
		one.send(`{"action":14,"channel":"room","msgSerial":0,"presence":[{"action":2,"clientId":"anna"}]}`)
		time.Sleep(time.Second)
		one.wantSaid("room", 1, `[meta]occupancy {"metrics":{"publishers":2,"presenceMembers":1}}`)
		none.send(`{"action":12,"channel":"room"}`)
		time.Sleep(time.Minute)
		one.wantSaid("room", 2) // its figures are the same
		if n := len(all.said("room")); n != 4 {
			t.Errorf("all is told %d times in a quiet minute", n)
		}
		none.wantSaid("room", 0)

		// Asked for no longer, nothing is said; asked for again, it is, though nothing has changed.
		all.send(`{"action":10,"channel":"room"}`)
		one.send(`{"action":12,"channel":"room"}`)
		time.Sleep(time.Minute)
		if n := len(all.said("room")); n != 4 {
			t.Errorf("all is told %d times, and does not want to know", n)
		}
		all.send(`{"action":10,"channel":"room","params":{"occupancy":"metrics.connections"}}`)
		time.Sleep(time.Second)
		all.wantSaid("room", 4, `[meta]occupancy {"metrics":{"connections":1}}`)
	})
}

// Figures that nobody knows are an error, and so is to ask for any without channel-metadata.
func TestOccupancyNeedsItsCapability(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	for key, want := range map[string]struct {
		param string
		code  int
	}{testAblyPoorKey: {"metrics", 40160}, testAblyKey: {"metrics.nobody", 40000}} {
		c := s.ably(t, "ann", "key="+key)
		c.say(t, ably.ProtocolMessage{Action: ably.ActionAttach, Channel: ably.Some("news"), Params: map[string]string{"occupancy": want.param}})
		if m := c.wantAction(t, ably.ActionError, "news"); m.Error.Code != want.code {
			t.Errorf("%s: %v, want %d", want.param, m.Error, want.code)
		}
	}
}

// Who listens to the lifecycle hears of channels that open and close, wherever they are, and of no others.
func TestLifecycleIsTold(t *testing.T) {
	t.Parallel()
	inBubble(t, withAblyMeta, func(t *testing.T, s *pipeServer) {
		early, ear := s.ablyJoin("early"), s.ablyJoin("ear", "key="+testAblyMetaKey)
		early.send(`{"action":10,"channel":"before"}`)
		time.Sleep(2 * time.Second)
		ear.send(`{"action":10,"channel":"[meta]channel.lifecycle"}`)
		time.Sleep(time.Second)
		details := func(name, channel, active, n string) string {
			return name + ` {"channelId":"` + channel + `","status":{"isActive":` + active + `,"occupancy":{"metrics":{"connections":` + n + `,"publishers":` + n +
				`,"subscribers":` + n + `,"presenceConnections":` + n + `,"presenceMembers":0,"presenceSubscribers":` + n + `}}}}`
		}
		early.send(`{"action":10,"channel":"a"}`)
		early.send(`{"action":12,"channel":"a"}`) // within one second
		time.Sleep(3 * time.Second)
		early.send(`{"action":10,"channel":"b"}`)
		time.Sleep(3 * time.Second)
		early.send(`{"action":12,"channel":"before"}`)
		time.Sleep(3 * time.Second)
		ear.wantSaid("[meta]channel.lifecycle", 0, details("channel.opened", "a", "true", "1"), details("channel.closed", "a", "false", "0"),
			details("channel.opened", "b", "true", "1"), details("channel.closed", "before", "false", "0"))

		ear.send(`{"action":12,"channel":"[meta]channel.lifecycle"}`)
		time.Sleep(3 * time.Second)
		early.send(`{"action":10,"channel":"c"}`)
		time.Sleep(3 * time.Second)
		for _, shard := range s.hub.shards {
			if len(shard.channels.lifecycle) > 0 {
				t.Error("events are gathered that nobody wants to hear")
			}
		}
	})
}

// On the server's own channels nobody else speaks, and nobody listens without the right to.
func TestNobodySpeaksOnTheServersChannels(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyMeta)
	c := s.ably(t, "ann", "key="+testAblyMetaKey)
	if m := c.attach(t, metaLifecycle); m.Flags&ably.ModeAll != ably.ModeSubscribe {
		t.Errorf("the modes are %x", m.Flags)
	}
	c.refused(t, 40160, metaLifecycle, ablyText("channel.opened", "never"))
	c.say(t, ably.ProtocolMessage{Action: ably.ActionPresence, Channel: ably.Some(metaLifecycle), MsgSerial: ably.Some(c.serial),
		Presence: []ably.PresenceMessage{{Action: ably.PresenceEnter, ClientID: "ann"}}})
	if m := c.wantAction(t, ably.ActionNack, ""); m.Error.Code != 40160 {
		t.Errorf("presence: %v", m.Error)
	}
	if a := s.rest(t, "POST", "/channels/%5Bmeta%5Dchannel.lifecycle/messages", `{"name":"x"}`, withRestKey(testAblyMetaKey)); a.status != 401 {
		t.Errorf("a publish by REST: %d %s", a.status, a.body)
	}
	if a := s.rest(t, "GET", "/channels/%5Bmeta%5Dchannel.lifecycle/messages", "", withRestKey(testAblyMetaKey)); a.status != 200 {
		t.Errorf("its history: %d %s", a.status, a.body)
	}
	if a := s.rest(t, "GET", "/channels?by=id", "", withRestKey(testAblyMetaKey)); a.value(t) != "[]" {
		t.Errorf("the channels are %s", a.body)
	}
	for name, code := range map[string]int{"[meta]channel.lifecycle": 40160, "[meta]stats:minute": 40160, "[meta]log": 40010, "[meta]": 40010, "[queue]x": 40010} {
		other := s.ably(t, "other")
		other.say(t, ably.ProtocolMessage{Action: ably.ActionAttach, Channel: ably.Some(name)})
		if m := other.wantAction(t, ably.ActionError, name); m.Error.Code != code {
			t.Errorf("%s: %v, want %d", name, m.Error, code)
		}
	}
	wantHubConsistent(t, s)
}
