package main

import (
	"fmt"
	"strings"
	"testing"

	"letshare/ably"
)

// Each entry to what is not there is answered in Ably's shape and says what is missing; polling, which is a client's second
// choice, with a code by which it goes on trying.
func TestWhatIsNotThereSaysSo(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	for _, c := range []struct {
		method, path, word string
		code               int
	}{
		{"POST", "/push/publish", "push", 40400},
		{"GET", "/push/deviceRegistrations", "push", 40400},
		{"PUT", "/push/deviceRegistrations/x", "push", 40400},
		{"GET", "/push/channelSubscriptions?channel=x", "push", 40400},
		{"GET", "/channels/a/object", "LiveObjects", 40400},
		{"POST", "/channels/a/object", "LiveObjects", 40400},
		{"GET", "/channels/a%2Fb/objects/root@1", "LiveObjects", 40400},
		{"GET", "/sse?channels=a&v=1.2", "server-sent", 40400},
		{"GET", "/event-stream?channels=a", "server-sent", 40400},
		{"GET", "/comet/connect?stream=true", "polling", 80000},
		{"POST", "/comet/key/send", "polling", 80000},
		{"GET", "/channels/a/nothing", "nothing here", 40400},
		{"GET", "/keys/app.all/nothing", "nothing here", 40400},
	} {
		for _, accept := range []string{"Accept: application/json", withMsgpack} {
			a := s.rest(t, c.method, c.path, "", accept, "Origin: https://page.example")
			if a.status != 404 || a.header.Get("X-Ably-ErrorCode") != fmt.Sprint(c.code) || !strings.Contains(a.header.Get("X-Ably-ErrorMessage"), c.word) ||
				a.header.Get("Access-Control-Allow-Origin") == "" {
				t.Errorf("%s %s: %d %v %s", c.method, c.path, a.status, a.header, a.body)
			}
		}
	}
}

// LiveObjects are refused over realtime without harm to the connection: a channel for them alone fails, one for more is attached
// without them, and what is said of them is not acknowledged. Deltas are not there either: messages come whole, and the param is not
// confirmed.
func TestObjectsAndDeltasAreNotThere(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	c := s.ably(t, "ann")
	c.say(t, ably.ProtocolMessage{Action: ably.ActionAttach, Channel: ably.Some("a"), Flags: ablyObjectModes})
	if m := c.wantAction(t, ably.ActionError, "a"); m.Error.Code != 40020 || !strings.Contains(m.Error.Message, "LiveObjects") {
		t.Errorf("a channel for objects alone: %v", m.Error)
	}
	m := c.attach(t, "b", func(m *ably.ProtocolMessage) {
		m.Params = map[string]string{"modes": "subscribe,publish,object_subscribe,object_publish", "delta": "vcdiff"}
	})
	if m.Flags&ably.ModeAll != ably.ModePublish|ably.ModeSubscribe || m.Params["modes"] != "publish,subscribe" || m.Flags&ably.FlagHasObjects != 0 {
		t.Errorf("ATTACHED is %s", m.Append(nil, ably.JSON))
	}
	if _, confirmed := m.Params["delta"]; confirmed {
		t.Errorf("deltas are promised: %v", m.Params)
	}
	c.say(t, ably.ProtocolMessage{Action: ably.ActionObject, Channel: ably.Some("b"), MsgSerial: ably.Some(c.serial)})
	c.serial++
	if m := c.wantAction(t, ably.ActionNack, ""); m.Error.Code != 40020 || !strings.Contains(m.Error.Message, "LiveObjects") {
		t.Errorf("an OBJECT is answered %v", m.Error)
	}
	for range 3 {
		c.publishEchoed(t, "b", ablyText("same", "the same again and again"))
	}
	wantHubConsistent(t, s)
}
