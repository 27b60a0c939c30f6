package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"letshare/ably"
)

// unlimitedAbly lets one Ably client say as much as it likes.
func unlimitedAbly(cfg *Config) { cfg.Ably.MessagesPerSecond = 0 }

// numbered are n publishes of the client on a channel, as they go over the wire. The client's next publish has the next number.
func (c *ablyClient) numbered(channel string, n int, message func(i int) ably.Message) []byte {
	var all bytes.Buffer
	for i := range n {
		m := ably.ProtocolMessage{Action: ably.ActionMessage, Channel: ably.Some(channel), MsgSerial: ably.Some(c.serial), Messages: []ably.Message{message(i)}}
		all.Write(maskedFrame(finBit|c.opcode(), m.Append(nil, c.format)))
		c.serial++
	}
	return all.Bytes()
}

// 10,000 publishes at once, in either format: what is beyond the rate is refused one by one, the connection stays, and the room hears
// exactly what was acknowledged.
func TestAbuseA01_PublishFlood(t *testing.T) {
	t.Parallel()
	a := ablyUnderAttack(t)
	acknowledged := 0
	for _, format := range []string{"json", "msgpack"} {
		c, began := a.ably("mallory", "format="+format, "echo=false"), time.Now()
		const n = 5000
		all := c.numbered(nearRoom, n, func(i int) ably.Message { return ablyText("flood", "x") })
		stop := c.flood(all, len(all))
		taken := 0
		for i := range int64(n) {
			m := c.next(t)
			if m.MsgSerial.V != i || m.Action != ably.ActionAck && (m.Action != ably.ActionNack || m.Error.Code != 42911 || m.Error.StatusCode != 429) {
				t.Fatalf("publish %d is answered %s", i, m.Append(nil, ably.JSON))
			}
			if m.Action == ably.ActionAck {
				taken++
			}
		}
		stop()
		most := defaultAblyMessagesPerSecond * (ablyBurstSeconds + time.Since(began).Seconds())
		if taken < defaultAblyMessagesPerSecond || float64(taken) > most+1 {
			t.Errorf("%d of %d were taken, at most %.0f may be", taken, n, most)
		}
		acknowledged += taken
		// All at once in one publish is no way around it.
		list := make([]ably.Message, maxAblyMessages)
		c.refused(t, 42911, nearRoom, list...)
		c.wantAlive(t)
	}
	a.lull()
	a.silenceAbly()
	for _, b := range a.onAbly[:2] {
		if b.others["flood"] != acknowledged {
			t.Errorf("%s heard %d messages, %d were acknowledged", b.c.name, b.others["flood"], acknowledged)
		}
	}
	if b := a.onAbly[2]; b.others["flood"] != 0 {
		t.Errorf("%s heard another room", b.c.name)
	}
	a.calm()
}

// 10,000 channels asked for, one channel 1000 times, and a channel that is full.
func TestAbuseA02_TooManyChannels(t *testing.T) {
	t.Parallel()
	a := ablyUnderAttack(t, func(cfg *Config) { cfg.Ably.MaxAttachmentsPerChannel = 10 })
	c := a.ably("mallory")
	ask := func(channel string) []byte {
		m := ably.ProtocolMessage{Action: ably.ActionAttach, Channel: ably.Some(channel)}
		return maskedFrame(finBit|opText, m.Append(nil, ably.JSON))
	}
	const asked = 10_000
	var all bytes.Buffer
	for i := range asked {
		all.Write(ask(fmt.Sprint("channel ", i)))
	}
	stop := c.flood(all.Bytes(), all.Len())
	attached := 0
	for range asked {
		switch m := c.next(t); {
		case m.Action == ably.ActionAttached:
			attached++
		case m.Action != ably.ActionError || m.Error.Code != 90010 || !m.Channel.OK:
			t.Fatalf("answered %s", m.Append(nil, ably.JSON))
		}
	}
	stop()
	if attached != defaultAblyChannels {
		t.Errorf("%d channels attached, want %d", attached, defaultAblyChannels)
	}
	a.wantMetric(t, "ably", "channels", defaultAblyChannels+2)
	a.wantMetric(t, "ably", "attachments", defaultAblyChannels+4)
	c.close()
	a.wantMetric(t, "ably", "attachments", 4)

	c = a.ably("mallory")
	for range 1000 {
		c.attach(t, "again")
	}
	a.wantMetric(t, "ably", "attachments", 5)
	for i := range 9 {
		a.ably(fmt.Sprint("member ", i)).attach(t, "again")
	}
	late := a.ably("late")
	for range 3 {
		late.say(t, ably.ProtocolMessage{Action: ably.ActionAttach, Channel: ably.Some("again")})
		if m := late.wantAction(t, ably.ActionError, "again"); m.Error.Code != 90000 {
			t.Errorf("the eleventh is answered %d", m.Error.Code)
		}
	}
	a.wantMetric(t, "ably", "attachments", 14)
	late.attach(t, "another")
	a.calm()
}

// Sessions opened and dropped by the thousand: each waits for its client and is in the account, and when its time is over nothing is
// left of it.
func TestAbuseA03_ThousandsOfSessions(t *testing.T) {
	t.Parallel()
	a := ablyUnderAttack(t, func(cfg *Config) { cfg.Ably.ConnectionStateSeconds = 120 })
	const n = 2000
	before := a.metric(t, "websocket", "buffered_bytes")
	var workers sync.WaitGroup
	var next, failed atomic.Int64
	for range 8 {
		workers.Go(func() {
			for next.Add(1) <= n {
				opened, drop, err := ablyQuick(a.addr)
				if err != nil || opened.Action != ably.ActionConnected {
					failed.Add(1)
				}
				if drop != nil {
					drop()
				}
			}
		})
	}
	workers.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of %d were not let in", failed.Load(), n)
	}
	a.wantMetric(t, "ably", "waiting_sessions", n)
	if held := a.metric(t, "websocket", "buffered_bytes") - before; held < n*ablySessionBytes {
		t.Errorf("%v bytes are accounted for %d sessions", held, n)
	}
	a.wantConsistent()
	a.calm() // sees all of it gone
	a.wantMetric(t, "ably", "waiting_sessions", 0)

	// Whatever the number: those that have waited longest are forgotten for others.
	sessions := newAblySessions(&Budget{limit: 1 << 30})
	var keys []string
	for range maxWaitingSessions + 1000 {
		session := sessions.open(nil, ablyIdentity{})
		keys = append(keys, sessions.key(session))
		sessions.leave(session, nil, 0, false)
	}
	if waiting, held := sessions.waitingNow(), sessions.held(); waiting != maxWaitingSessions || held != maxWaitingSessions*ablySessionBytes {
		t.Errorf("%d sessions wait, with %d bytes", waiting, held)
	}
	if _, gone, _ := sessions.resume(keys[999], nil, ablyIdentity{}); gone != errAblyGone {
		t.Errorf("a forgotten session is resumed: %v", gone)
	}
	if _, gone, _ := sessions.resume(keys[1000], nil, ablyIdentity{}); gone != nil {
		t.Errorf("the oldest that waits is not resumed: %v", gone)
	}
}

// ablyGarbage is what is no protocol message, or none that can be carried out, by format.
var ablyGarbage = map[string][]string{
	"json": {
		"", " ", "null", "[]", "7", `"`, `{`, `{"action"`, `{"action":}`, `{"action":-1}`, `{"action":1e400}`, `{"action":"15"}`, `{"action":[15]}`,
		`{"action":15,"channel":7}`, `{"action":15,"channel":"room","messages":7}`, `{"action":15,"channel":"room","messages":[7]}`,
		`{"action":15,"channel":"room","messages":[{"name":{}}],"msgSerial":0}`, `{"action":10,"channel":"room","params":7}`,
		`{"action":15,"channel":"room","messages":[{"data":` + strings.Repeat("[", 20_000) + `}]}`, strings.Repeat("[", 20_000),
		`{"action":15,"channel":"room","messages":[{"data":` + strings.Repeat("9", 200_000) + `}`, "\ufeff{}", `{"action":15}}`,
	},
	"msgpack": {
		"", "\xc0", "\xc1", "\x90", "\x07", "\x81", "\x81\xa6action", "\x81\xa6action\xff", "\x81\xa6action\xa215", "\x81\xa6action\x91\x0f",
		"\xdf\xff\xff\xff\xff", "\xdd\xff\xff\xff\xff", "\xdb\xff\xff\xff\xff", "\xc6\xff\xff\xff\xff", "\xc9\xff\xff\xff\xff\x00",
		"\x82\xa6action\x0f\xa8messages\xdd\xff\xff\xff\xff", "\x82\xa6action\x0f\xa8messages\x91\xdf\xff\xff\xff\xff",
		"\x83\xa6action\x0f\xa7channel\xa4room\xa8messages\x91\x81\xa4data" + strings.Repeat("\x91", 20_000), strings.Repeat("\x91", 20_000),
		"\x82\xa6action\x0a\xa7channel\xa2\xff\xfe", "\x81\xa6action\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
	},
}

// What cannot be read costs nobody anything: a NACK, an ERROR of the channel, or nothing; 20 in a row end the connection for good. Text
// that is not UTF-8 reaches nobody.
func TestAbuseA04_Garbage(t *testing.T) {
	t.Parallel()
	a := ablyUnderAttack(t, unlimitedAbly)
	for format, list := range ablyGarbage {
		c := a.ably("mallory", "format="+format)
		for _, text := range list {
			c.frame(t, c.opcode(), []byte(text))
			c.wantAlive(t)
		}
		for range maxErrorsInARow {
			c.frame(t, c.opcode(), []byte(list[len(list)-1]))
		}
		m := c.next(t)
		for m.Action == ably.ActionNack || m.Action == ably.ActionError && m.Channel.OK {
			m = c.next(t)
		}
		if m.Action != ably.ActionError || m.Error.Code != 40000 {
			t.Errorf("%s: %d in a row are answered %s", format, maxErrorsInARow, m.Append(nil, ably.JSON))
		}
		c.wantClosed(t, 1000, "failed")
	}
	c := a.ably("mallory")
	c.frame(t, opText, []byte("{\"action\":15,\"channel\":\"room\",\"messages\":[{\"name\":\"bad\xff\"}],\"msgSerial\":0}"))
	c.untilEnded(t)
	c = a.ably("mallory", "format=msgpack")
	for i, item := range []string{"\xa4name\xa4bad\xff", "\xa4data\xa4bad\xff", "\xa8clientId\xa4bad\xff", "\xa2id\xa4bad\xff", "\xa8encoding\xa4bad\xff", "\xa6extras\x81\xa1k\xa4bad\xff", "\xa6extras\x81\xa4bad\xff\x01"} {
		c.frame(t, opBinary, []byte("\x84\xa6action\x0f\xa7channel\xa4room\xa9msgSerial"+string(rune(i))+"\xa8messages\x91\x81"+item))
	}
	c.wantAlive(t)
	a.calm() // the JSON bystander wants UTF-8
}

// untilEnded reads until the socket ends, which it must.
func (c *client) untilEnded(t testing.TB) {
	t.Helper()
	for {
		if _, _, err := c.read(); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s is not cut", c.name)
			return
		} else if err != nil {
			c.close()
			return
		}
	}
}

// A publish of the limit passes, a byte more is refused; a frame beyond all publishes ends the connection, before its bytes are waited for.
func TestAbuseA05_HugeFrames(t *testing.T) {
	t.Parallel()
	a := ablyUnderAttack(t)
	const limit = defaultAblyMessageBytes
	for _, format := range []string{"json", "msgpack"} {
		c := a.ably("mallory", "format="+format, "echo=false")
		c.publish(t, nearRoom, ablyText("fits", strings.Repeat("\x01", limit-len("fits")))) // JSON writes six bytes for each
		c.refused(t, 40009, nearRoom, ablyText("large", strings.Repeat("x", limit-len("large")+1)))
		c.refused(t, 40009, nearRoom, ablyText("large", strings.Repeat("x", limit/2)), ablyText("large", strings.Repeat("x", limit/2)))
		named := ablyText(strings.Repeat("n", limit), "large")
		c.refused(t, 40009, nearRoom, named)
		c.wantAlive(t)
		frame := ablyFrameGrowth*limit + ablyFrameSlack
		c.frame(t, c.opcode(), bytes.Repeat([]byte(" "), frame)) // garbage, but not too long
		c.wantAlive(t)
		for _, n := range []int{frame + 1, 1<<63 - 1} {
			c := a.ably("mallory", "format="+format)
			header := announced(n, nil)
			header[0] = finBit | c.opcode()
			c.raw(t, header)
			c.wantClosed(t, 1009, "message_too_big")
		}
	}
	half := announced(ablyFrameGrowth*limit, bytes.Repeat([]byte(" "), limit))
	for range 20 {
		a.ably("mallory").raw(t, half)
	}
	a.silenceAbly()
	for _, b := range a.onAbly[:2] {
		if b.others["fits"] != 2 || b.others["large"] != 0 || len(b.others) > 1 {
			t.Errorf("%s heard %v", b.c.name, b.others)
		}
	}
	a.calm()
}

// An Ably client that reads no more is cut when its queue is full, and its rooms never wait. When it comes back, so much has been said
// that it would be cut again: it is told that messages are missing, and hears what is said from then on.
func TestAbuseA06_NeverReads(t *testing.T) {
	t.Parallel()
	const queue, size, busy = 256 << 10, 60_000, "busy"
	a := ablyUnderAttack(t, unlimitedAbly, func(cfg *Config) { cfg.WebSocket.MaxQueueBytes = queue })
	for _, format := range []string{"json", "msgpack"} {
		loud, frozen := a.ably("loud", "format="+format), a.ably("frozen", "format="+format)
		say := func(n int) {
			for range n {
				loud.publish(t, busy, ablyText("big", strings.Repeat("x", size)))
			}
		}
		frozen.attach(t, nearRoom)
		frozen.say(t, ably.ProtocolMessage{Action: ably.ActionAttach, Channel: ably.Some(busy)})
		serial := frozen.until(t, ably.ActionAttached).ChannelSerial
		if err := frozen.socket.(*net.TCPConn).SetReadBuffer(128); err != nil {
			t.Fatal(err)
		}
		cut := a.server.counters.endings[SlowConsumer].Load()
		for said := 0; a.server.counters.endings[SlowConsumer].Load() == cut; said++ {
			if said == 2000 {
				t.Fatal("after 2000 messages of 60 KB it is not cut")
			}
			say(1)
		}
		frozen.wantCut(t)
		key := frozen.key
		for range 2 { // again and again it is the same, and no loop
			say(queue/size + 1)
			back := a.ably("frozen", "format="+format, "resume="+key)
			if back.id != frozen.id || back.first.Error != nil {
				t.Errorf("the connection is not resumed: %s", back.first.Append(nil, ably.JSON))
			}
			m := back.attach(t, busy, func(m *ably.ProtocolMessage) { m.ChannelSerial = serial })
			if m.Error == nil || m.Error.Code != 90004 || m.Flags&(ably.FlagResumed|ably.FlagHasBacklog) != 0 {
				t.Errorf("ATTACHED is %s, want the error 90004", m.Append(nil, ably.JSON))
			}
			loud.publish(t, busy, ablyText("news", "for you"))
			serial = back.hears(t, busy, "news for you").ChannelSerial
			if m := back.attach(t, busy); m.Error != nil || m.Flags&ably.FlagResumed == 0 {
				t.Errorf("attached again: %s", m.Append(nil, ably.JSON))
			}
			key = back.key
			back.close()
		}
		if n := a.server.counters.endings[SlowConsumer].Load(); n != cut+1 {
			t.Errorf("%d clients were cut, want one", n-cut)
		}
	}
	a.calm()
}

// Names and ids of the longest length pass whole, a byte more is refused, and nobody is cut.
func TestAbuseA07_NamesAndIDsAtTheirBounds(t *testing.T) {
	t.Parallel()
	a := ablyUnderAttack(t, unlimitedAbly)
	longest := strings.Repeat("c", maxAblyClientIDBytes)
	if opened, drop, err := ablyQuick(a.addr, "clientId="+longest+"c"); err != nil || opened.Action != ably.ActionError || opened.Error.Code != 40012 {
		t.Errorf("a clientId that is too long is answered %+v, %v", opened, err)
	} else {
		drop()
	}
	for _, format := range []string{"json", "msgpack"} {
		c, listener := a.ably("mallory", "format="+format, "clientId="+longest, "echo=false"), a.ably("listener")
		for name, good := range map[string]bool{
			strings.Repeat("n", maxAblyChannelBytes): true, strings.Repeat("n", maxAblyChannelBytes+1): false, strings.Repeat("🎉", maxAblyChannelBytes/4): true,
			"a": true, "\u202e\u0000": true, "a/../%2F": true, ":a": false, "[a": false, "a\nb": false, "": false,
		} {
			c.say(t, ably.ProtocolMessage{Action: ably.ActionAttach, Channel: ably.Some(name)})
			m := c.next(t)
			if m.Channel.V != name || good != (m.Action == ably.ActionAttached) || !good && (m.Action != ably.ActionError || m.Error.Code != 40010) {
				t.Errorf("ATTACH of %.40q is answered %.200s", name, m.Append(nil, ably.JSON))
			}
			if !good {
				c.refused(t, 40010, name, ablyText("a", "b"))
				continue
			}
			listener.attach(t, name)
			item := ablyText(strings.Repeat("e", 1000), "data")
			item.ID = fmt.Sprintf("%s %q", format, name)
			if len(item.ID) > maxAblyIDBytes {
				item.ID = format[:1] + strings.Repeat("i", maxAblyIDBytes-1)
			}
			c.publish(t, name, item)
			m = listener.hears(t, name, item.Name.V+" data")
			if m.Messages[0].ID != item.ID || m.Messages[0].ClientID != longest {
				t.Errorf("the listener hears %s", m.Append(nil, ably.JSON))
			}
		}
		long := ablyText("a", "b")
		long.ID = strings.Repeat("i", maxAblyIDBytes+1)
		c.refused(t, 40031, nearRoom, long)
		nobody := a.ably("nobody", "format="+format, "echo=false") // its messages carry no clientId, and have no size at all
		nobody.publish(t, nearRoom, make([]ably.Message, maxAblyMessages)...)
		nobody.refused(t, 40013, nearRoom, make([]ably.Message, maxAblyMessages+1)...)
		c.say(t, ably.ProtocolMessage{Action: ably.ActionMessage, Channel: ably.Some(nearRoom), MsgSerial: ably.Some[int64](-1 << 63), Messages: []ably.Message{ablyText("a", "b")}})
		c.wantAction(t, ably.ActionAck, "")
		c.wantAlive(t)
	}
	a.calm()
}

// Members come, change and go as fast as they can, and more than a channel has room for. In the end everybody knows who is there.
func TestAbuseA08_PresenceChurn(t *testing.T) {
	t.Parallel()
	const most = 20
	a := ablyUnderAttack(t, unlimitedAbly, func(cfg *Config) { cfg.Ably.MaxPresenceMembers = most })
	const churners, rounds = 4, 250
	var clients []*ablyClient
	for i := range churners {
		clients = append(clients, a.ably(fmt.Sprint("churner ", i), "format="+[]string{"json", "msgpack"}[i%2], "remainPresentFor=100"))
	}
	var stops []func()
	for i, c := range clients {
		var all bytes.Buffer
		for range rounds {
			for _, action := range []ably.PresenceAction{ably.PresenceEnter, ably.PresenceUpdate, ably.PresenceLeave} {
				m := ably.ProtocolMessage{Action: ably.ActionPresence, Channel: ably.Some(nearRoom), MsgSerial: ably.Some(c.serial),
					Presence: []ably.PresenceMessage{member(action, fmt.Sprint("churner ", i), "x")}}
				all.Write(maskedFrame(finBit|c.opcode(), m.Append(nil, c.format)))
				c.serial++
			}
		}
		stops = append(stops, c.flood(all.Bytes(), all.Len()))
	}
	for i, c := range clients {
		for answered := int64(0); answered < c.serial; {
			switch m := c.next(t); m.Action {
			case ably.ActionAck:
				answered += int64(m.Count)
			case ably.ActionPresence:
			default:
				t.Fatalf("%s gets %s", c.name, m.Append(nil, ably.JSON))
			}
		}
		stops[i]()
	}
	a.wantMembers(0)

	c := a.ably("mallory") // the key may speak for anybody
	taken := 0
	for i := range 10 * most {
		n := c.postPresence(t, nearRoom, member(ably.PresenceEnter, fmt.Sprint("member ", i), ""))
		m := c.next(t)
		for m.Action == ably.ActionPresence {
			m = c.next(t)
		}
		switch {
		case m.MsgSerial.V != n:
			t.Fatalf("member %d is answered %s", i, m.Append(nil, ably.JSON))
		case m.Action == ably.ActionAck:
			taken++
		case m.Action != ably.ActionNack || m.Error.Code != 91003:
			t.Fatalf("member %d is answered %s", i, m.Append(nil, ably.JSON))
		}
	}
	if taken != most {
		t.Errorf("%d members were taken, want %d", taken, most)
	}
	a.wantMembers(most)
	witness, seen := a.ably("witness"), make(map[string]bool)
	if m := witness.attach(t, nearRoom); m.Flags&ably.FlagHasPresence == 0 {
		t.Error("the witness is promised no members")
	}
	for len(seen) < most {
		if m := witness.next(t); m.Action == ably.ActionSync {
			for _, item := range m.Presence {
				seen[item.ClientID] = true
			}
		}
	}
	for i := range most {
		if !seen[fmt.Sprint("member ", i)] {
			t.Errorf("the witness does not see member %d", i)
		}
	}
	c.say(t, ably.ProtocolMessage{Action: ably.ActionClose}) // they leave at once
	a.wantMembers(0)
	a.calm()
}

// Whoever guesses the key of another's connection, or steals it without having its credentials, gets a connection of its own, or none. The
// other one goes on.
func TestAbuseA09_ResumeKeysGuessed(t *testing.T) {
	t.Parallel()
	a := ablyUnderAttack(t)
	victim := a.ably("victim", "clientId=victim")
	victim.attach(t, nearRoom, func(m *ably.ProtocolMessage) { m.Params = map[string]string{"modes": "publish"} })
	id, rest, _ := strings.Cut(victim.key, "-")
	generation, signature, _ := strings.Cut(rest, "-")
	guesses := []string{"x", "-", "--", id, id + "-", id + "-" + generation, id + "-" + generation + "-", id + "-" + generation + "-" + signature[1:],
		id + "-2-" + signature, id + "-" + generation + "-" + strings.Repeat("0", len(signature)), strings.ToUpper(victim.key), victim.key + "0",
		"x" + victim.key, randomText(connectionIDBytes) + "-1-" + signature}
	for i := range 200 {
		guesses = append(guesses, fmt.Sprintf("%s-%s-%032x", id, generation, i))
	}
	for i, guess := range guesses {
		opened, drop, err := ablyQuick(a.addr, "clientId=victim", []string{"resume=", "recover="}[i%2]+guess)
		if err != nil {
			t.Fatal(err)
		}
		drop()
		if opened.Action != ably.ActionConnected || opened.ConnectionID == victim.id || opened.Error == nil || opened.Error.Code != 80018 {
			t.Fatalf("the guess %q is answered %s", guess, opened.Append(nil, ably.JSON))
		}
	}
	for _, other := range []string{"clientId=mallory", "key=" + testAblyPoorKey} {
		thief := a.openAbly(t, "mallory", "clientId=victim", other, "resume="+victim.key)
		if thief.first.Action != ably.ActionError || thief.first.Error.Code != 40102 {
			t.Errorf("with %s the stolen key is answered %s", strings.Split(other, "=")[0], thief.first.Append(nil, ably.JSON))
		}
		thief.close()
	}
	victim.publish(t, nearRoom, ablyText("still", "here"))
	a.lull()
	a.silenceAbly()
	for _, b := range a.onAbly[:2] {
		if b.others["still"] != 1 {
			t.Errorf("%s heard %v", b.c.name, b.others)
		}
	}
	a.calm()
}

// What is kept for those who are cut off has a bound: one channel keeps its part of it, all together no more than the whole, and the
// oldest goes first.
func TestAbuseA10_MuchToKeep(t *testing.T) {
	t.Parallel()
	const limit = 8 << 20
	a := ablyUnderAttack(t, unlimitedAbly, func(cfg *Config) { cfg.WebSocket.MaxBufferedBytes = limit })
	const kept = limit / ablyKeptShare
	big := strings.Repeat("x", 60_000)
	for _, channels := range []int{1, 12} {
		for range 8 {
			loud := a.ably("loud", "format=msgpack")
			for i := range 12 {
				loud.publish(t, fmt.Sprint("keeps ", i%channels), ablyText("big", big))
			}
			if held := a.metric(t, "ably", "kept_bytes"); held > kept {
				t.Fatalf("%v bytes are kept, at most %d may be", held, kept)
			}
			size := 0
			a.server.askAbly("keeps 0", &ablyCall{kind: ablyLook, look: func(_ *shard, room *Room) { size = room.ably.size }})
			if size > kept/ablyChannelShare || size == 0 {
				t.Fatalf("one channel keeps %d bytes, at most %d may be", size, kept/ablyChannelShare)
			}
			loud.close()
		}
	}
	a.wantMetric(t, "closes", "memory_pressure", 0)
	reader := a.ably("reader")
	reader.attach(t, "keeps 11", func(m *ably.ProtocolMessage) { m.Params = map[string]string{"rewind": "1"} })
	reader.hears(t, "keeps 11", "big "+big)
	a.calm()
}
