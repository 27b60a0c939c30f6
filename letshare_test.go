package main

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// Two people in a room: what one says, the other hears, and nobody else.
func TestWhatOneSaysTheOthersHear(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	anna, bob, carol, eve := s.dial(t, "anna"), s.dial(t, "bob"), s.dial(t, "carol"), s.dial(t, "eve")
	for _, c := range []*client{anna, bob, carol} {
		c.subscribe(t, "room", "signal:all")
	}
	eve.subscribe(t, "other room", "signal:all")

	before := time.Now().UnixMilli()
	anna.publish(t, "room", "signal:all", `{"type":"discover","from":"anna"}`)
	after := time.Now().UnixMilli()

	for _, c := range []*client{bob, carol} {
		message := c.want(t, `{"type":"message","channel":"room","event":"signal:all","data":{"type":"discover","from":"anna"}}`)
		if at := numberIn(t, message, "timestamp"); at < before || at > after {
			t.Errorf("the timestamp %d is not between %d and %d", at, before, after)
		}
	}
	for _, c := range []*client{anna, bob, carol, eve} {
		c.wantNothing(t)
	}
	s.wantMetric(t, "websocket", "total_messages", 1)
	s.wantMetric(t, "websocket", "deliveries", 2)
	s.wantMetric(t, "websocket", "total_rooms", 2)
}

// Whoever holds signal:all does not get what is for somebody else.
func TestADirectedMessageReachesItsAddresseeAlone(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	anna, bob, carol := s.dial(t, "anna"), s.dial(t, "bob"), s.dial(t, "carol")
	for _, c := range []*client{anna, bob, carol} {
		c.subscribe(t, "room", "signal:"+c.name)
		c.subscribe(t, "room", "signal:all")
	}
	carol.subscribe(t, "room", "signal:Bob")
	carol.subscribe(t, "room", "signal:bob ")

	anna.publish(t, "room", "signal:bob", `{"type":"offer","to":"bob"}`)

	bob.want(t, `{"type":"message","channel":"room","event":"signal:bob","data":{"type":"offer","to":"bob","from":"anna"}}`)
	for _, c := range []*client{anna, bob, carol} {
		c.wantNothing(t)
	}
}

// The memory of a message for one is used again. What waits for a slow reader must not be: anna floods bob, who does not read,
// and signals to carol meanwhile, who does.
func TestWhatWaitsForASlowReaderIsNotOverwritten(t *testing.T) {
	t.Parallel()
	const signals = 400 // 4.4 MB for each, more than the kernel takes for bob
	s := startServer(t, func(c *Config) {
		c.WebSocket.MaxQueueBytes = 32 << 20
		c.WebSocket.MessagesPerSecond, c.WebSocket.MessageBurst = 10_000, 10_000
		c.WebSocket.BytesPerSecond, c.WebSocket.BytesBurst = 0, 0
	})
	anna, bob, carol := s.dial(t, "anna"), s.dial(t, "bob"), s.dial(t, "carol")
	for _, c := range []*client{anna, bob, carol} {
		c.subscribe(t, "room", "signal:"+c.name)
	}
	bob.socket.(*net.TCPConn).SetReadBuffer(16 << 10)
	data := func(n int) string {
		size := []int{10, 300, 3_000, 12_000, 40_000}[max(n, -n)%5]
		return fmt.Sprintf(`{"n":%d,"text":%q,"from":"anna"}`, n, strings.Repeat(string(rune('a'+(n+26*signals)%26)), size))
	}
	for n := range signals {
		anna.publish(t, "room", "signal:bob", data(n))
		anna.publish(t, "room", "signal:carol", data(-n))
		carol.wantData(t, data(-n))
	}
	if s.metric(t, "websocket", "buffered_bytes") == 0 {
		t.Fatal("nothing waits for bob")
	}
	for n := range signals {
		bob.wantData(t, data(n))
	}
}

func TestSubscribeIsConfirmedWithTheRequestsOwnWords(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	anna, bob := s.dial(t, "小明🦊:a1"), s.dial(t, "bob")
	bob.subscribe(t, "雪 room-1_", "")

	anna.send(t, `{"type":"subscribe","channel":"雪 room-1_","event":"say \"hi\" \\ 🦊 <&>","id":"x"}`)
	anna.want(t, `{"type":"subscribed","channel":"雪 room-1_","event":"say \"hi\" \\ 🦊 <&>","id":"x",
		"data":{"status":"subscribed","room":"雪 room-1_","event":"say \"hi\" \\ 🦊 <&>","members":2,"user_id":"小明🦊:a1"}}`)
	bob.publish(t, "雪 room-1_", `say "hi" \ 🦊 <&>`, `{}`)
	anna.want(t, `{"type":"message","channel":"雪 room-1_","event":"say \"hi\" \\ 🦊 <&>","data":{"from":"bob"}}`)

	// Missing, null and "" are signal:all, and to say it again changes nothing.
	for _, event := range []string{``, `,"event":null`, `,"event":""`, `,"event":"signal:all"`} {
		anna.send(t, `{"type":"subscribe","channel":"雪 room-1_"`+event+`}`)
		message := anna.want(t, `{"type":"subscribed","event":"signal:all","data":{"members":2,"event":"signal:all"}}`)
		if strings.Contains(message, `"id"`) {
			t.Errorf("an id that was never sent: %s", message)
		}
		numberIn(t, message, "timestamp")
	}
	for _, event := range []string{``, `,"event":null`, `,"event":""`} {
		bob.send(t, `{"type":"publish","channel":"雪 room-1_","data":{"n":1}`+event+`,"id":1}`)
		bob.want(t, `{"type":"ack","id":1}`)
		anna.want(t, `{"type":"message","event":"signal:all","data":{"n":1}}`)
		anna.wantNothing(t) // though it has subscribed four times
	}
}

func TestUnsubscribe(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	anna, bob := s.dial(t, "anna"), s.dial(t, "bob")
	bob.subscribe(t, "room", "")
	anna.send(t, `{"type":"unsubscribe","channel":"room","event":"signal:all","id":1}`)
	anna.want(t, `{"type":"unsubscribed","channel":"room","event":"signal:all","id":1,"data":{"status":"unsubscribed","room":"room","members":1,"user_id":"anna"}}`)
	anna.send(t, `{"type":"unsubscribe","channel":"nowhere"}`)
	anna.want(t, `{"type":"unsubscribed","channel":"nowhere","data":{"members":0}}`)

	anna.subscribe(t, "room", "signal:anna")
	anna.subscribe(t, "room", "signal:all")
	anna.send(t, `{"type":"unsubscribe","channel":"room","event":"signal:all"}`)
	anna.want(t, `{"type":"unsubscribed","event":"signal:all","data":{"members":2}}`)
	bob.publish(t, "room", "signal:all", `{"n":1}`)
	anna.wantNothing(t)
	bob.publish(t, "room", "signal:anna", `{"n":2}`)
	anna.want(t, `{"type":"message","data":{"n":2}}`)

	// Without its last event it is not in the room any more.
	anna.send(t, `{"type":"unsubscribe","channel":"room","event":"signal:anna"}`)
	anna.want(t, `{"type":"unsubscribed","event":"signal:anna","data":{"members":1}}`)
	anna.send(t, `{"type":"publish","channel":"room","data":{},"id":1}`)
	anna.wantError(t, 403, "not_subscribed")

	// Without an event it leaves the whole room.
	for _, event := range []string{``, `,"event":null`, `,"event":""`} {
		anna.subscribe(t, "room", "signal:anna")
		anna.subscribe(t, "room", "signal:all")
		anna.send(t, `{"type":"unsubscribe","channel":"room"`+event+`}`)
		answer := anna.want(t, `{"type":"unsubscribed","channel":"room","data":{"members":1}}`)
		if strings.Contains(answer, `"event"`) {
			t.Errorf("the whole room was left, and the answer names an event: %s", answer)
		}
		bob.publish(t, "room", "signal:anna", `{}`)
		bob.publish(t, "room", "signal:all", `{}`)
		anna.wantNothing(t)
	}
	bob.send(t, `{"type":"unsubscribe","channel":"room"}`)
	bob.want(t, `{"type":"unsubscribed","data":{"members":0}}`)
	s.wantMetric(t, "websocket", "total_rooms", 0)
}

func TestOnlyMembersPublish(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	anna, bob := s.dial(t, "anna"), s.dial(t, "bob")
	bob.subscribe(t, "room", "")
	anna.subscribe(t, "another", "")
	anna.send(t, `{"type":"publish","channel":"room","data":{},"id":"p1"}`)
	anna.want(t, `{"type":"error","channel":"room","id":"p1","error":{"code":403,"reason":"not_subscribed"}}`)
	anna.subscribe(t, "room", "")
	anna.publish(t, "room", "", `{"n":1}`)
	bob.want(t, `{"data":{"n":1}}`)
	anna.send(t, `{"type":"unsubscribe","channel":"room"}`)
	anna.want(t, `{"type":"unsubscribed"}`)
	anna.send(t, `{"type":"publish","channel":"room","data":{},"id":"p2"}`)
	anna.want(t, `{"type":"error","id":"p2","error":{"reason":"not_subscribed"}}`)
	bob.wantNothing(t)
	s.wantMetric(t, "refusals", "not_subscribed", 2)
	s.wantMetric(t, "websocket", "total_messages", 1)
	s.wantMetric(t, "websocket", "total_rooms", 2)
}

// A member that leaves, with a close frame or without, is counted no more, and its room ends with it.
func TestWhoLeavesIsGone(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	anna, bob, carol := s.dial(t, "anna"), s.dial(t, "bob"), s.dial(t, "carol")
	for _, c := range []*client{anna, bob, carol} {
		c.subscribe(t, "room", "")
		c.subscribe(t, "room", "signal:all")
		c.subscribe(t, "only "+c.name, "")
	}
	s.wantMetric(t, "websocket", "total_rooms", 4)
	anna.leave(t)
	s.wantMetric(t, "closes", "peer_closed", 1)
	bob.close()
	s.wantMetric(t, "closes", "connection_lost", 1)
	s.wantMetric(t, "websocket", "total_rooms", 2)
	carol.send(t, `{"type":"subscribe","channel":"room"}`)
	carol.want(t, `{"type":"subscribed","data":{"members":1}}`)
	carol.publish(t, "room", "", `{}`)
	carol.wantNothing(t)
	s.wantMetric(t, "websocket", "active_connections", 1)
	s.wantMetric(t, "websocket", "deliveries", 0)
}

// data arrives byte for byte; a from that is missing is put in, and nothing else is touched.
func TestDataArrivesByteForByte(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	anna, bob := s.dial(t, `anna "a\b" 雪`), s.dial(t, "bob")
	anna.subscribe(t, "room", "")
	bob.subscribe(t, "room", "")
	const from = `"from":"anna \"a\\b\" 雪"`
	for _, story := range []struct{ sent, want string }{
		{`{"from":"x","n":1e400}`, ""},
		{`{"from":"x","n":-0,"m":12345678901234567890123456789,"k":0.10,"e":1E+2}`, ""},
		{`{"z":1,"a":2,"from":"x","m":3}`, ""},
		{`{"from":"x","a":1,"a":2,"b":[{"type":1,"type":2}]}`, ""},
		{`{"from":"x","s":"\u0041\/\u2028\ud83e\udd8a🦊<&>\u0000"}`, ""},
		{`{"from":"x","lone":"\ud800"}`, ""},
		{`{ "from" : "x" ,` + "\t\r\n" + ` "n" : [ 1 , { } ] }`, ""},
		{`{"from":null}`, ""},
		{`{"from":""}`, ""},
		{`{"from":{"deep":[1]}}`, ""},
		{`{"fr\u006fm":"x"}`, ""},
		{`{"n":{"from":"y"},"from":"x"}`, ""},

		{`{}`, `{` + from + `}`},
		{`{ }`, `{` + from + ` }`},
		{`{` + "\n" + `}`, `{` + from + "\n" + `}`},
		{`{"n":1e400}`, `{` + from + `,"n":1e400}`},
		{`{ "n" : 1 }`, `{` + from + `, "n" : 1 }`},
		{`{"inner":{"from":"y"}}`, `{` + from + `,"inner":{"from":"y"}}`},
		{`{"FROM":"x"}`, `{` + from + `,"FROM":"x"}`},
		{`{"from ":"x"}`, `{` + from + `,"from ":"x"}`},
		{`{"text":"\"from\":"}`, `{` + from + `,"text":"\"from\":"}`},
	} {
		if story.want == "" {
			story.want = story.sent
		}
		anna.publish(t, "room", "signal:all", story.sent)
		bob.wantData(t, story.want)
	}
	bob.wantNothing(t)
}

func TestALargeMessageArrivesWhole(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	anna, bob := s.dial(t, "anna"), s.dial(t, "bob")
	anna.subscribe(t, "room", "")
	bob.subscribe(t, "room", "")
	// Around the sizes at which frame headers, the first read's buffer and the way through the mailbox change.
	for _, size := range []int{90, 125, 126, 127, 4090, 16 << 10, 65535, 65536, 200 << 10} {
		data := `{"from":"anna","text":"` + strings.Repeat("雪a", size/4) + strings.Repeat("x", size%4) + `"}`
		anna.publish(t, "room", "", data)
		bob.wantData(t, data)
	}
}

func TestEnvelopes(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	anna, bob := s.dial(t, "anna"), s.dial(t, "bob")
	anna.subscribe(t, "room", "")
	bob.subscribe(t, "room", "")
	refused := map[string]float64{}
	for _, story := range []struct{ reason, message string }{
		{"bad_json", ``},
		{"bad_json", `null`},
		{"bad_json", `[]`},
		{"bad_json", `"publish"`},
		{"bad_json", `{"type":"publish","channel":"room","data":{}`},
		{"bad_json", `{"type":"publish","channel":"room","data":{}} x`},
		{"bad_json", `{"type":"publish","channel":"room","data":{"n":01}}`},
		{"bad_json", `{"type":"publish","channel":"room","data":{"n":NaN}}`},
		{"bad_json", `{'type':'publish'}`},
		{"bad_json", "\ufeff" + `{"type":"publish","channel":"room","data":{}}`},
		{"bad_json", `{"type":"publish","type":"subscribe","channel":"room","data":{}}`},
		{"bad_json", `{"type":"publish","TYPE":"publish","channel":"room","data":{}}`},
		{"bad_json", `{"type":"publish","channel":"room","chann\u0065l":"room","data":{}}`},
		{"bad_json", `{"type":"publish","channel":"room","data":{},"Data":{}}`},
		{"bad_json", `{"type":"publish","channel":"room","data":{},"id":1,"Id":1}`},
		{"bad_json", `{"type":"publish","channel":"room","data":{},"unknown":1,"unknown":1}`},
		{"bad_json", `{"type":"publish","channel":"room","data":` + strings.Repeat("[", 20000) + `}`},

		{"bad_type", `{"channel":"room","data":{},"id":1}`},
		{"bad_type", `{"TYPE":"publish","channel":"room","data":{},"id":1}`},
		{"bad_type", `{"type":"Publish","channel":"room","data":{},"id":1}`},
		{"bad_type", `{"type":null,"channel":"room","data":{},"id":1}`},
		{"bad_type", `{"type":["publish"],"channel":"room","data":{},"id":1}`},
		{"bad_type", `{"type":"","channel":"room","data":{},"id":1}`},
		{"bad_type", `{"type":"file:transfe","channel":"room","data":{},"id":1}`},

		{"bad_channel", `{"type":"publish","data":{},"id":1}`},
		{"bad_channel", `{"type":"publish","channel":null,"data":{},"id":1}`},
		{"bad_channel", `{"type":"publish","channel":["room"],"data":{},"id":1}`},
		{"bad_channel", `{"type":"publish","CHANNEL":"room","data":{},"id":1}`},

		{"bad_event", `{"type":"publish","channel":"room","event":1,"data":{},"id":1}`},
		{"bad_event", `{"type":"publish","channel":"room","event":{},"data":{},"id":1}`},
		{"bad_event", `{"type":"publish","channel":"room","event":true,"data":{},"id":1}`},
		{"bad_event", `{"type":"subscribe","channel":"room","event":1,"id":1}`},
		{"bad_event", `{"type":"unsubscribe","channel":"room","event":[],"id":1}`},

		{"bad_data", `{"type":"publish","channel":"room","id":1}`},
		{"bad_data", `{"type":"publish","channel":"room","data":null,"id":1}`},
		{"bad_data", `{"type":"publish","channel":"room","data":"{}","id":1}`},
		{"bad_data", `{"type":"publish","channel":"room","data":[{}],"id":1}`},
		{"bad_data", `{"type":"publish","channel":"room","DATA":{},"id":1}`},
		{"bad_data", `{"type":"publish","channel":"room","data":{"from":"a","from":"a"},"id":1}`},
		{"bad_data", `{"type":"publish","channel":"room","data":{"from":"a","From":"b"},"id":1}`},
		{"bad_data", `{"type":"publish","channel":"room","data":{"FROM":"a","From":"b"},"id":1}`},
		{"bad_data", `{"type":"publish","channel":"room","data":{"type":"text","tYpe":"file:transfer:start"},"id":1}`},
		{"bad_data", `{"type":"publish","channel":"room","data":{"type":"file:transfer:start"},"id":1}`},
		{"bad_data", `{"type":"publish","channel":"room","data":{"type":"file:transfer:"},"id":1}`},
		{"bad_data", `{"type":"publish","channel":"room","data":{"type":"\u0066ile:transfer:request"},"id":1}`},

		{"bad_id", `{"type":"publish","channel":"room","data":{},"id":null}`},
		{"bad_id", `{"type":"publish","channel":"room","data":{},"id":{}}`},
		{"bad_id", `{"type":"publish","channel":"room","data":{},"id":[1]}`},
		{"bad_id", `{"type":"publish","channel":"room","data":{},"id":true}`},
		{"bad_id", `{"type":"publish","channel":"room","data":{},"id":"` + strings.Repeat("x", 65) + `"}`},
		{"bad_id", `{"type":"subscribe","channel":"room","id":` + strings.Repeat("1", 65) + `}`},
	} {
		anna.frame(t, opText, []byte(story.message))
		refused[story.reason]++
		// What is wrong before the id is known is answered without one, and then once a second at most: the answers are
		// counted below. The next message, which is good, must be the first thing that bears an id.
		if story.reason != "bad_json" && story.reason != "bad_id" {
			answer := anna.wantErrorAfterOthers(t, story.reason)
			if subsetOf(t, `{"id":1,"error":{"code":400,"reason":"`+story.reason+`"}}`, answer) != "" {
				t.Errorf("%s is answered %s, want %s", story.message, answer, story.reason)
			}
		}
		anna.publish(t, "room", "", `{"n":1}`)
		bob.wantData(t, `{"from":"anna","n":1}`)
	}
	bob.wantNothing(t)
	for reason, count := range refused {
		s.wantMetric(t, "refusals", reason, count)
	}
	told := map[string]int{}
	for _, message := range anna.kept {
		var answer struct {
			Error struct{ Reason string }
			ID    json.RawMessage
		}
		if err := json.Unmarshal([]byte(message), &answer); err != nil || answer.ID != nil {
			t.Errorf("anna got %s", message)
		}
		told[answer.Error.Reason]++
	}
	if len(told) != 2 || told["bad_json"] == 0 || told["bad_id"] == 0 {
		t.Errorf("anna was told %v, want bad_json and bad_id", told)
	}
}

// wantErrorAfterOthers reads up to an error of a reason, and keeps what came before it.
func (c *client) wantErrorAfterOthers(t *testing.T, reason string) string {
	t.Helper()
	kept := c.kept
	c.kept = nil
	for {
		message := c.message(t)
		if strings.Contains(message, `"reason":"`+reason+`"`) {
			c.kept = kept
			return message
		}
		kept = append(kept, message)
	}
}

func TestWhatIsStrangeButAllowed(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	anna, bob := s.dial(t, "anna"), s.dial(t, "bob")
	anna.subscribe(t, "room", "")
	bob.subscribe(t, "room", "")
	for _, message := range []string{
		`{"type":"publish","channel":"room","data":{"n":1},"id":1,"timestamp":1,"from":"mallory","x":[{}],"":0}`,
		`{"id":1,"data":{"n":1},"EVENT":5,"channel":"room","type":"publish"}`,
		`{"\u0074ype":"p\u0075blish","channel":"r\u006fom","data":{"n":1},"id":1}`,
		" \t\r\n" + `{ "type" : "publish" , "channel" : "room" , "data" : {"n":1} , "id" : 1 }` + "\n",
	} {
		anna.send(t, message)
		anna.want(t, `{"type":"ack","id":1}`)
		got := bob.want(t, `{"type":"message","channel":"room","event":"signal:all"}`)
		if !strings.Contains(got, `"data":{"from":"anna","n":1}`) {
			t.Errorf("%s arrives as %s", message, got)
		}
		if at := numberIn(t, got, "timestamp"); at < time.Now().Add(-patience).UnixMilli() {
			t.Errorf("%s arrives with the timestamp %d", message, at)
		}
	}
	// Only a data.type that begins so is a transfer's.
	for _, kind := range []string{`"File:transfer:start"`, `" file:transfer:start"`, `"file:transfe"`, `["file:transfer:start"]`, `null`} {
		anna.publish(t, "room", "", `{"from":"anna","type":`+kind+`,"TYP":"file:transfer:start"}`)
		bob.wantData(t, `{"from":"anna","type":`+kind+`,"TYP":"file:transfer:start"}`)
	}
	anna.publish(t, "room", "", `{"from":"anna","TYPE":"text"}`)
	bob.wantData(t, `{"from":"anna","TYPE":"text"}`)
}

func TestIDsAreSentBackAsTheyCame(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	anna := s.dial(t, "anna")
	for _, id := range []string{
		`1`, `0`, `-1`, `1.50`, `1e3`, `1E400`, `12345678901234567890`, `""`, `"a"`, `"\u0041\/"`, `"雪 🦊 <&>"`,
		`"` + strings.Repeat("x", 64) + `"`, `"` + strings.Repeat(`\u0041`, 64) + `"`, strings.Repeat("9", 64),
	} {
		for _, story := range []struct{ message, answer string }{
			{`{"type":"subscribe","channel":"room","id":` + id + `}`, "subscribed"},
			{`{"type":"publish","channel":"room","data":{},"id":` + id + `}`, "ack"},
			{`{"type":"unsubscribe","channel":"room","id":` + id + `}`, "unsubscribed"},
			{`{"type":"publish","channel":"room","data":{},"id":` + id + `}`, "error"},
			{`{"type":"publish","channel":"room","data":1,"id":` + id + `}`, "error"},
			{`{"type":"nonsense","id":` + id + `}`, "error"},
		} {
			anna.send(t, story.message)
			var answer struct {
				Type string
				ID   json.RawMessage
			}
			text := anna.message(t)
			if err := json.Unmarshal([]byte(text), &answer); err != nil || answer.Type != story.answer || string(answer.ID) != id {
				t.Errorf("%s is answered %s", story.message, text)
			}
		}
	}
	// Without an id a publish is not answered.
	anna.subscribe(t, "room", "")
	anna.send(t, `{"type":"publish","channel":"room","data":{}}`)
	anna.wantNothing(t)
}

func TestRoomNames(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	anna, bob := s.dial(t, "anna"), s.dial(t, "bob")
	for _, room := range []string{"ab", "一二", "龥龥", "A1 _-z", "  ", "一二三四五六七八九十一二", "abcdefghijkl"} {
		anna.subscribe(t, room, "")
	}
	for _, room := range []string{"", "a", "雪", "abcdefghijklm", "一二三四五六七八九十一二三", "a.b", "é雪", "a🦊", "\u9fa6\u9fa6", "\u4dff\u4dff",
		"ａｂ", "a\tb", "a\nb", "a\u00a0b", "a\u0301b", "a\x00b", "room/1", "שלום"} {
		anna.send(t, `{"type":"subscribe","channel":`+toJSON(t, room)+`,"id":1}`)
		anna.wantError(t, 400, "bad_channel")
		anna.send(t, `{"type":"unsubscribe","channel":"ab","event":"x"}`) // so that it is not twenty in a row
		anna.want(t, `{"type":"unsubscribed"}`)
	}
	s.wantMetric(t, "refusals", "bad_channel", 18)
	s.wantMetric(t, "websocket", "total_rooms", 7)

	// Nothing is trimmed or folded: these are four rooms.
	for _, room := range []string{"room", "Room", "room ", " room"} {
		bob.subscribe(t, room, "")
		anna.subscribe(t, room, "")
	}
	anna.publish(t, "Room", "", `{}`)
	bob.want(t, `{"type":"message","channel":"Room"}`)
	bob.wantNothing(t)
}

// The replies of a room stand in order with what is delivered in it, however fast the requests come.
func TestRepliesAndDeliveriesOfARoomComeInOrder(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	anna, bob := s.dial(t, "anna"), s.dial(t, "bob")
	bob.subscribe(t, "room", "")
	var all []byte
	const rounds = 50
	for i := range rounds {
		for _, message := range []string{
			`{"type":"subscribe","channel":"room","id":"s%d"}`,
			`{"type":"publish","channel":"room","data":{"n":%d},"id":1}`,
			`{"type":"publish","channel":"room","data":"bad","id":"e%d"}`,
			`{"type":"unsubscribe","channel":"room","id":"u%d"}`,
			`{"type":"publish","channel":"room","data":{},"id":"r%d"}`,
		} {
			all = append(all, maskedFrame(finBit|opText, []byte(fmt.Sprintf(message, i)))...)
		}
	}
	anna.raw(t, all)
	for i := range rounds {
		anna.want(t, fmt.Sprintf(`{"type":"subscribed","id":"s%d","data":{"members":2}}`, i))
		anna.want(t, `{"type":"ack","id":1}`)
		anna.want(t, fmt.Sprintf(`{"type":"error","id":"e%d","error":{"reason":"bad_data"}}`, i))
		anna.want(t, fmt.Sprintf(`{"type":"unsubscribed","id":"u%d","data":{"members":1}}`, i))
		anna.want(t, fmt.Sprintf(`{"type":"error","id":"r%d","error":{"reason":"not_subscribed"}}`, i))
		bob.want(t, fmt.Sprintf(`{"type":"message","data":{"n":%d}}`, i))
	}
	bob.wantNothing(t)
}

// The app shows each error as a toast. Without an id the same reason for the same room is said once a second at most,
// but always counted; with an id it is always said.
func TestErrorsWithoutAnIDAreSaidOnceASecond(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	anna := s.dial(t, "anna")
	var all []byte
	const each = 15
	for range each {
		for _, message := range []string{
			`{"type":"publish","channel":"room one","data":{}}`,
			`{"type":"publish","channel":"room two","data":{}}`,
			`{"type":"publish","channel":"room two","data":{},"id":1}`,
			`{"type":"publish","channel":"room two","data":5}`,
			`{"type":"subscribe","channel":"!"}`,
		} {
			all = append(all, maskedFrame(finBit|opText, []byte(message))...)
		}
	}
	began := time.Now()
	anna.raw(t, all)
	// Between rooms the order is free: each room is fenced.
	said := map[string]int{}
	for _, room := range []string{"room one", "room two"} {
		anna.send(t, `{"type":"unsubscribe","channel":"`+room+`","id":"fence"}`)
	}
	for fences := 0; fences < 2; {
		message := anna.message(t)
		if strings.Contains(message, `"id":"fence"`) {
			fences++
			continue
		}
		var answer struct {
			Channel string
			ID      json.RawMessage
			Error   struct{ Reason string }
		}
		if err := json.Unmarshal([]byte(message), &answer); err != nil {
			t.Fatal(err)
		}
		said[answer.Error.Reason+" "+answer.Channel+string(answer.ID)]++
	}
	most := 1 + int(time.Since(began)/time.Second)
	for _, what := range []string{"not_subscribed room one", "not_subscribed room two", "bad_data room two", "bad_channel "} {
		if said[what] < 1 || said[what] > most {
			t.Errorf("%q was said %d times, want 1 to %d", what, said[what], most)
		}
	}
	if n := said["not_subscribed room two1"]; n != each {
		t.Errorf("with an id the error was said %d times, want %d", n, each)
	}
	s.wantMetric(t, "refusals", "not_subscribed", 3*each)
	s.wantMetric(t, "refusals", "bad_data", each)
	s.wantMetric(t, "refusals", "bad_channel", each)
}

func TestBinaryFramesAreIgnoredAndCounted(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	anna, bob := s.dial(t, "anna"), s.dial(t, "bob")
	anna.subscribe(t, "room", "")
	bob.subscribe(t, "room", "")
	for range 25 {
		anna.frame(t, opBinary, []byte(`{"type":"publish","channel":"room","data":{}}`))
	}
	anna.frame(t, opBinary, []byte{0xff, 0xfe})
	anna.frame(t, opBinary, nil)
	anna.wantNothing(t)
	bob.wantNothing(t)
	s.wantMetric(t, "drops", "binary_ignored", 27)
}

// A browser that is sent bytes that are not UTF-8 must cut its connection: one member could throw out all others.
func TestInvalidUTF8EndsItsSenderAlone(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	bob := s.dial(t, "bob")
	bob.subscribe(t, "room", "")
	for i, bad := range []string{"\xff", "\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe9\x9b"} {
		anna := s.dial(t, "anna")
		anna.subscribe(t, "room", "")
		anna.frame(t, opText, []byte(`{"type":"publish","channel":"room","data":{"text":"`+bad+`"}}`))
		anna.wantClose(t, 1007, "invalid_utf8")
		s.wantMetric(t, "closes", "invalid_utf8", float64(i+1))
		bob.wantNothing(t)
	}
	// A character may be cut in two by fragments.
	anna := s.dial(t, "anna")
	anna.subscribe(t, "room", "")
	message := []byte(`{"type":"publish","channel":"room","data":{"text":"雪"}}`)
	cut := strings.Index(string(message), "雪") + 1
	anna.raw(t, maskedFrame(opText, message[:cut]))
	anna.raw(t, maskedFrame(finBit|opPing, []byte("between")))
	anna.raw(t, maskedFrame(finBit|opContinuation, message[cut:]))
	bob.wantData(t, `{"from":"anna","text":"雪"}`)
}

// Where files are not relayed, whoever asks for it is told at once, with the transfer's id: the app ends that transfer alone.
// Everything else about transfers is left alone.
func TestARelayThatIsOffSaysSo(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(cfg *Config) { cfg.Relay.Enabled = false })
	anna, bob := s.dial(t, "anna"), s.dial(t, "bob")
	anna.subscribe(t, "room", "")
	bob.subscribe(t, "room", "signal:all")
	bob.subscribe(t, "room", "signal:bob")
	for i := range 25 { // none is a protocol error: twenty in a row end nothing
		id := fmt.Sprintf("transfer_%d_abcdefg", i)
		anna.send(t, `{"type":"file:transfer:request","channel":"room","event":"signal:bob","data":{"transfer_id":"`+id+`","file_name":"a.txt","file_size":1,
			"file_type":"text/plain","chunk_size":65536,"total_chunks":1,"from_user_id":"anna","to_user_id":"bob","room_name":"room","flow_control":"receiver_ack_v1"}}`)
		anna.want(t, `{"type":"error","error":{"code":501,"reason":"relay_disabled","transfer_id":"`+id+`"}}`)
	}
	for range 5 {
		for _, kind := range []string{"accept", "start", "ack", "end", "complete", "cancel", "unheard-of"} {
			anna.send(t, `{"type":"file:transfer:`+kind+`","channel":"room","data":{"transfer_id":"transfer_1_abcdefg","chunk_index":0,"reason":"x"}}`)
		}
	}
	bob.wantNothing(t)
	s.wantMetric(t, "refusals", "relay_disabled", 25)
	s.wantMetric(t, "refusals", "bad_type", 0)
	anna.publish(t, "room", "", `{"n":1}`)
	bob.want(t, `{"type":"message","data":{"n":1}}`)
}

// A type of the file transfer that nobody knows is no error, in any number.
func TestUnknownTransferMessagesAreIgnored(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	anna, bob := s.dial(t, "anna"), s.dial(t, "bob")
	anna.subscribe(t, "room", "")
	bob.subscribe(t, "room", "")
	for range 25 {
		anna.send(t, `{"type":"file:transfer:unheard-of","channel":"room","data":{}}`)
	}
	anna.wantNothing(t)
	bob.wantNothing(t)
	s.wantMetric(t, "refusals", "bad_type", 0)
}
