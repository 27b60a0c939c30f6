package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// 10,000 publishes as fast as they go: the room gets what the rate allows, the sender is told, and then closed.
func TestAbuse19_PublishFlood(t *testing.T) {
	t.Parallel()
	a := underAttack(t)
	c := a.member("mallory")
	began := time.Now()
	message := maskedFrame(finBit|opText, []byte(`{"type":"publish","channel":"room","data":{"flood":true}}`))
	stop := c.flood(bytes.Repeat(message, 100), 10_000*len(message))
	texts := c.wantClosed(t, 1008, "rate_limited")
	stop()
	allowed := defaultMessageBurst + int(time.Since(began).Seconds()*defaultMessagesPerSecond) + 1
	if len(texts) == 0 || !strings.Contains(texts[0], `"code":429,"reason":"rate_limited"`) {
		t.Errorf("the sender was told %q", texts)
	}
	a.lull()
	if heard := len(a.overheard()); heard > allowed || heard < defaultMessageBurst/2 {
		t.Errorf("the room heard %d messages, the rate allows %d", heard, allowed)
	}
	a.wantMetric(t, "closes", "rate_limited", 1)
	a.calm()
}

// JSON that is wrong in each way gets its error, and the connection stays, until there are twenty in a row.
func TestAbuse20_BadJSON(t *testing.T) {
	t.Parallel()
	a := underAttack(t)
	c := a.member("mallory")
	publish := func(data string) string {
		return `{"type":"publish","channel":"room","data":` + data + `,"id":1}`
	}
	for name, row := range map[string]struct{ message, reason string }{
		"nothing":                {``, "bad_json"},
		"null":                   {`null`, "bad_json"},
		"a list":                 {`[{}]`, "bad_json"},
		"a number":               {`1`, "bad_json"},
		"cut":                    {`{"type":"subscribe","channel":"ro`, "bad_json"},
		"two":                    {`{} {}`, "bad_json"},
		"20,000 brackets":        {strings.Repeat("[", 20000), "bad_json"},
		"20,000 brackets inside": {publish(strings.Repeat("[", 20000)), "bad_json"},
		"20,000 braces inside":   {publish(strings.Repeat(`{"a":`, 20000)), "bad_json"},
		"a mark of byte order":   {"\ufeff" + publish(`{}`), "bad_json"},
		"type twice":             {`{"type":"publish","type":"subscribe","channel":"room"}`, "bad_json"},
		"TYPE beside type":       {`{"type":"publish","TYPE":"subscribe","channel":"room"}`, "bad_json"},
		"type escaped":           {`{"type":"publish","\u0074ype":"subscribe","channel":"room"}`, "bad_json"},
		"no type":                {`{"channel":"room"}`, "bad_type"},
		"type is a number":       {`{"type":1,"channel":"room"}`, "bad_type"},
		"no channel":             {`{"type":"subscribe"}`, "bad_channel"},
		"channel is a list":      {`{"type":"subscribe","channel":["room"]}`, "bad_channel"},
		"NUL in the channel":     {`{"type":"subscribe","channel":"ro\u0000om"}`, "bad_channel"},
		"event is a number":      {`{"type":"subscribe","channel":"room","event":1}`, "bad_event"},
		"data is a list":         {publish(`[]`), "bad_data"},
		"data is a text":         {publish(`"x"`), "bad_data"},
		"data is null":           {publish(`null`), "bad_data"},
		"two from":               {publish(`{"from":"a","from":"mallory"}`), "bad_data"},
		"From beside from":       {publish(`{"from":"a","From":"mallory"}`), "bad_data"},
		"a relay's message":      {publish(`{"type":"file:transfer:request"}`), "bad_data"},
		"a relay's, escaped":     {publish(`{"type":"file\u003atransfer:request"}`), "bad_data"},
		"id is a list":           {`{"type":"subscribe","channel":"room","id":[]}`, "bad_id"},
	} {
		t.Run(name, func(t *testing.T) {
			c := a.member("mallory") // on a connection of its own: the same error is said once a second
			c.send(t, row.message)
			c.wantError(t, 400, row.reason)
			c.subscribe(t, nearRoom, "")
		})
	}
	number := strings.Repeat("9", 500_000) // a number of any length is one, and stays as it is
	c.send(t, publish(`{"from":"mallory","n":`+number+`}`))
	c.want(t, `{"type":"ack","id":1}`)
	a.lull()
	if heard := a.overheard(); len(heard) != 1 || !strings.Contains(heard[0], `"n":9999`) {
		t.Errorf("the room heard %q, want the long number alone", heard)
	}
	c.raw(t, frames(maxErrorsInARow, `[]`))
	c.wantClosed(t, 1008, "too_many_errors")
	a.calm()
}

// The rule for the names of rooms is the front-end's own: /^[\u4e00-\u9fa5a-zA-Z0-9 _-]{2,12}$/.
func TestAbuse21_RoomNames(t *testing.T) {
	t.Parallel()
	a := underAttack(t, func(cfg *Config) { cfg.WebSocket.MessagesPerSecond = 0 })
	c := a.dial("mallory")
	for name, good := range map[string]bool{
		"": false, "a": false, "ab": true, "twelve chars": true, "thirteen char": false,
		"房": false, "房间": true, strings.Repeat("房", 12): true, strings.Repeat("房", 13): false,
		"\u4e00\u9fa5": true, "\u4dff\u4e00": false, "\u9fa6\u4e00": false, // one before the block, one behind
		"😀😀": false, "שלום": false, "e\u0301e\u0301": false, "ＡＢ": false, "a\u200bb": false, "\u202eab": false, // emoji, RTL, combining, full-width, zero-width, override
		"a\tb": false, "a\nb": false, "a\x7fb": false, "a\u0000b": false,
		" ab": true, "ab ": true, "  ": true, "a_b-C 9": true, // nothing is trimmed
		"a.b": false, "a/b": false, "a:b": false, "a'b": false, "..": false, strings.Repeat("雪", 16): false,
	} {
		c.send(t, toJSON(t, map[string]any{"type": "subscribe", "channel": name, "id": 1}))
		if good {
			c.want(t, toJSON(t, map[string]any{"type": "subscribed", "channel": name, "id": 1}))
			c.send(t, toJSON(t, map[string]any{"type": "unsubscribe", "channel": name}))
			c.want(t, `{"type":"unsubscribed"}`)
		} else if message := c.message(t); subsetOf(t, `{"type":"error","error":{"code":400,"reason":"bad_channel"},"id":1}`, message) != "" {
			t.Errorf("%q is answered %s", name, message)
		}
	}
	c.subscribe(t, "Case", "")
	c.send(t, `{"type":"publish","channel":"case","data":{},"id":1}`) // another room: nothing is folded
	c.wantError(t, 403, "not_subscribed")
	a.calm()
}

// Who is not in a room says nothing in it, and leaving it twice is no error.
func TestAbuse23_OutsidersSayNothing(t *testing.T) {
	t.Parallel()
	a := underAttack(t)
	c := a.dial("mallory")
	publish := `{"type":"publish","channel":"room","data":{"n":1},"id":1}`
	c.send(t, publish)
	c.wantError(t, 403, "not_subscribed")
	for range 2 {
		c.send(t, `{"type":"unsubscribe","channel":"room"}`)
		c.want(t, `{"type":"unsubscribed"}`)
		c.send(t, `{"type":"unsubscribe","channel":"nowhere","event":"none"}`)
		c.want(t, `{"type":"unsubscribed"}`)
	}
	c.raw(t, append(frames(1, `{"type":"subscribe","channel":"room"}`), append(frames(1, `{"type":"unsubscribe","channel":"room"}`), frames(1, publish)...)...))
	c.want(t, `{"type":"subscribed"}`)
	c.want(t, `{"type":"unsubscribed"}`)
	c.wantError(t, 403, "not_subscribed")
	a.lull()
	if heard := a.overheard(); len(heard) > 0 {
		t.Errorf("the room heard %q", heard)
	}
	a.calm()
}

// Who says what: a missing from is filled in, a foreign one travels or, under strict identity, is refused; the time is always
// the server's; a directed message reaches its addressee alone.
func TestAbuse24_ForgedSenders(t *testing.T) {
	t.Parallel()
	for _, strict := range []bool{false, true} {
		t.Run(fmt.Sprintf("strict %t", strict), func(t *testing.T) {
			a := underAttack(t, func(cfg *Config) { cfg.WebSocket.StrictIdentity = strict })
			mallory, ann, bob := a.member("mallory"), a.member("ann"), a.member("bob")
			ann.subscribe(t, nearRoom, "signal:ann")
			began := time.Now().UnixMilli()
			mallory.publish(t, nearRoom, "", `{"n":1}`)
			ann.want(t, `{"data":{"n":1,"from":"mallory"}}`)
			mallory.send(t, `{"type":"publish","channel":"room","data":{"n":2},"timestamp":1,"id":"forged time"}`)
			mallory.want(t, `{"type":"ack","id":"forged time"}`)
			if at := numberIn(t, ann.want(t, `{"data":{"n":2}}`), "timestamp"); at < began {
				t.Errorf("the client's timestamp travelled: %d", at)
			}
			mallory.publish(t, nearRoom, "signal:ann", `{"n":3}`)
			ann.want(t, `{"event":"signal:ann","data":{"n":3}}`)
			for _, data := range []string{`{"from":"bob"}`, `{"from":null}`, `{"from":""}`, `{"f\u0072om":"bob"}`} {
				mallory.send(t, `{"type":"publish","channel":"room","data":`+data+`,"id":4}`)
				if strict {
					mallory.wantError(t, 403, "from_mismatch")
				} else {
					mallory.want(t, `{"type":"ack","id":4}`)
					ann.want(t, `{"data":`+data+`}`)
				}
			}
			mallory.send(t, `{"type":"subscribe","channel":"room","event":"signal:ann","id":5}`)
			if strict {
				mallory.wantError(t, 403, "event_not_allowed")
			} else {
				mallory.want(t, `{"type":"subscribed","id":5}`)
			}
			for _, n := range []string{`{"n":1}`, `{"n":2}`} { // bob never hears number 3
				bob.want(t, `{"data":`+n+`}`)
			}
			if !strict {
				for range 4 {
					bob.message(t)
				}
			}
			bob.wantNothing(t)
			ann.wantNothing(t)
			a.calm()
		})
	}
}

// 10,000 random operations, of clients that come and go and are cut, end as they do in a naive model: the same deliveries,
// in the same order.
func TestAbuse42_RandomOperations(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(42, 42))
		script := make([]byte, 4*10_000)
		for i := range script {
			script[i] = byte(random.Uint32())
		}
		playAgainstModel(t, script)
	})
}

// The same over real sockets: six clients, one after the other, each with up to eight operations on one room in one packet, which come and
// go. Everybody is told what the model says, in its order.
func TestAbuse42_RandomOperationsOverSockets(t *testing.T) {
	t.Parallel()
	a := underAttack(t, func(c *Config) {
		c.WebSocket.MessagesPerSecond, c.WebSocket.BytesPerSecond = 0, 0
		c.WebSocket.MaxRoomUsers, c.WebSocket.MaxRoomsPerConnection = modelUsers, modelRooms
		c.WebSocket.MaxEventsPerRoom, c.WebSocket.MaxEventBytes = modelEvents, modelEventBytes
	})
	claims := []Claims{{UserID: "ann"}, {UserID: "ann"}, {UserID: "bob"}, {UserID: "cid"}, {UserID: "dot", Bind: true}, {UserID: "eve", Room: "rooma"}}
	rooms, events := []string{"rooma", "roomb", "roomc", "roomd", "x"}, []string{"", "signal:all", "signal:ann", "signal:dot", "more", "far too long to be an event"}
	m, clients := &model{rooms: make(map[string]map[int]map[string]bool)}, make([]*client, len(claims))
	connect := func(who int) {
		clients[who] = a.dial(claims[who].UserID, withToken(a.token(t, claims[who])))
	}
	for who, c := range claims {
		m.clients = append(m.clients, &modelClient{identity: c.UserID, only: c.Room, strict: c.Bind, told: make(map[string]time.Time)})
		connect(who)
	}
	random := rand.New(rand.NewPCG(42, 43))
	pick := func(list []string) string { return list[random.IntN(len(list))] }
	const operations = 10_000
	for done := 0; done < operations; {
		who, room := random.IntN(len(clients)), pick(rooms)
		if m.clients[who].bad > maxErrorsInARow/2 {
			room = "rooma" // how a connection ends by its errors is told elsewhere
		}
		var packet bytes.Buffer
		for range 1 + random.IntN(8) {
			event, id := pick(events[:len(events)-min(1, m.clients[who].bad)]), fmt.Sprint(done)
			message := fmt.Sprintf(`{"channel":%q,"event":%q,"id":%s`, room, event, id)
			switch kind := random.IntN(10); {
			case kind < 4:
				message += `,"type":"subscribe"}`
				m.subscribe(who, room, event, id)
			case kind < 5:
				message += `,"type":"unsubscribe"}`
				m.unsubscribe(who, room, event, id)
			case kind < 8:
				message += fmt.Sprintf(`,"type":"publish","data":{"n":%d}}`, done)
				m.publish(who, room, event, "", id, done)
			default:
				from := claims[random.IntN(len(claims))].UserID
				message += fmt.Sprintf(`,"type":"publish","data":{"n":%d,"from":%q}}`, done, from)
				m.publish(who, room, event, from, id, done)
			}
			packet.Write(maskedFrame(finBit|opText, []byte(message)))
			done++
		}
		clients[who].raw(t, packet.Bytes())
		clients[who].wantSaid(t, done, m.clients[who])
		if random.IntN(50) == 0 { // it goes, after it has been told everything, and comes back
			clients[who].leave(t)
			for room := range m.rooms {
				m.leave(who, room)
			}
			m.clients[who].bad = 0
			connect(who)
		}
	}
	for who, c := range clients {
		c.wantSaid(t, operations, m.clients[who])
	}
	a.calm()
}

// wantSaid reads as much as the model says that the client has been told since the last time, which must be the same.
func (c *client) wantSaid(t *testing.T, step int, model *modelClient) {
	t.Helper()
	for i, want := range model.want {
		payload := c.message(t)
		if got := said(t, append(appendFrameHeader(nil, opText, len(payload)), payload...)); got != want {
			t.Fatalf("before step %d %s is told %q as number %d, the model says %q", step, c.name, got, i, want)
		}
	}
	model.want = nil
}
