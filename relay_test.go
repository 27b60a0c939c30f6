package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// The relay as its users see it: over real sockets, through the whole server. Time passes in relay_lost_test.go.

func TestAFileGoesThrough(t *testing.T) {
	t.Parallel()
	s, anna, bob := relayPair(t)
	f := newFile("transfer_1_abcdefg", 3_000_000)

	// What nobody here knows is passed on too; who sends is not for the sender to say.
	f.more = flowControl + `,"file_type":"image/雪","from_user_id":"mallory","new":[1,{"x":1.50}]`
	anna.send(t, f.request("bob"))
	f.more = flowControl + `,"file_type":"image/雪","from_user_id":"anna","new":[1,{"x":1.50}]`
	request := bob.want(t, f.request("bob"))
	if at := numberIn(t, request, "timestamp"); at < time.Now().Add(-patience).UnixMilli() {
		t.Errorf("the request is of %d", at)
	}
	accept := f.says("accept", flowControl+`,"ack_every_chunks":8,"ack_window_chunks":24,"later":true`)
	bob.send(t, accept)
	anna.want(t, accept)
	// The app says neither start nor end in a room.
	anna.send(t, strings.Replace(f.says("start", ""), `"channel":"room",`, "", 1))
	bob.want(t, f.says("start", ""))

	// The frames arrive byte for byte and in order, and each side hears what the other said of them.
	for sent, acked := int64(0), int64(0); acked < f.chunks(); {
		next := min(acked+24, f.chunks())
		anna.sendFrames(t, f, sent, next)
		upTo := min(acked+8, f.chunks())
		bob.wantFrames(t, f, sent, next)
		bob.send(t, f.ack(upTo))
		anna.want(t, f.ack(upTo))
		sent, acked = next, upTo
	}
	anna.send(t, strings.Replace(f.says("end", ""), `"channel":"room",`, "", 1))
	bob.want(t, f.says("end", ""))
	bob.send(t, f.says("complete", ""))
	anna.want(t, f.says("complete", ""))

	anna.wantNothing(t)
	bob.wantNothing(t)
	s.wantMetric(t, "relay", "completed_transfers", 1)
	s.wantMetric(t, "relay", "total_transfers", 1)
	s.wantMetric(t, "relay", "bytes", float64(3_000_000+f.chunks()*(relayHeaderBytes+10)-6)) // the last frame's header is shorter
	s.wantNothingHeld(t)
}

// The flat form has the fields beside the type. An ack may leave out how many chunks there are.
func TestTheFlatFormIsUnderstood(t *testing.T) {
	t.Parallel()
	_, anna, bob := relayPair(t)
	f := newFile("flat", 10)
	flat := func(kind, more string) string {
		return `{"type":"file:transfer:` + kind + `","channel":"room","transfer_id":"flat"` + more + `}`
	}
	anna.send(t, flat("request", `,"file_name":"flat.bin","file_size":10,"chunk_size":65536,"total_chunks":1,"to_user_id":"bob",`+flowControl))
	bob.want(t, f.request("bob"))
	bob.send(t, flat("accept", ","+flowControl))
	anna.want(t, f.accept())
	anna.sendFrames(t, f, 0, 1)
	bob.wantFrame(t, f, 0)
	bob.send(t, flat("ack", `,"chunk_index":0`))
	anna.want(t, f.says("ack", `"chunk_index":0`))
	finish(t, anna, bob, f)
}

func TestControlAndFramesKeepTheirOrder(t *testing.T) {
	t.Parallel()
	s, anna, bob := relayPair(t)
	f := newFile("order", 20*appChunk)
	agree(t, anna, bob, f)
	anna.send(t, f.says("start", ""))
	anna.sendFrames(t, f, 0, 20)
	anna.send(t, f.says("end", ""))
	// The end stands behind the last frame although it is so much smaller.
	bob.want(t, f.says("start", ""))
	bob.wantFrames(t, f, 0, 20)
	bob.want(t, f.says("end", ""))
	bob.send(t, f.ack(20))
	bob.send(t, f.says("complete", ""))
	anna.want(t, f.ack(20))
	anna.want(t, f.says("complete", ""))
	s.wantNothingHeld(t)
}

func TestSmallestAndLargestFiles(t *testing.T) {
	t.Parallel()
	const limit = 3*appChunk + 17
	s, anna, bob := relayPair(t, func(c *Config) { c.Relay.MaxFileBytes = limit })
	for _, size := range []int64{0, 1, appChunk, appChunk + 1, limit} {
		f := newFile(fmt.Sprintf("of-%d", size), size)
		agree(t, anna, bob, f)
		transport(t, anna, bob, f)
	}
	// One byte more is refused with the text that the app knows, and the receiver hears nothing of it.
	f := newFile("over", limit+1)
	anna.send(t, f.request("bob"))
	answer := anna.wantRelayError(t, 413, "relay_over_limit", f)
	if !strings.Contains(answer, "文件大小超过限制") {
		t.Errorf("the app would not know %s", answer)
	}
	bob.wantNothing(t)
	s.wantNothingHeld(t)
}

func TestTheDefaultLimitIsTheAppsOwn(t *testing.T) {
	t.Parallel()
	_, anna, bob := relayPair(t)
	agree(t, anna, bob, newFile("free-tier", 52_428_800))
	over := newFile("more", 52_428_801)
	anna.send(t, over.request("bob"))
	anna.wantRelayError(t, 413, "relay_over_limit", over)
}

func TestPROUsersSendLargerFiles(t *testing.T) {
	t.Parallel()
	const secret = "the key of the original's PRO tokens"
	s := startServer(t, func(c *Config) {
		c.Relay.MaxFileBytes, c.Relay.ProSecret, c.Relay.ProMaxFileBytes = 1000, secret, 2000
	})
	bob := s.dial(t, "bob")
	bob.subscribe(t, "room", "")
	pro := func(key string, claims jwt.MapClaims) dialOption {
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(key))
		if err != nil {
			t.Fatal(err)
		}
		return func(h *handshake) { h.query += "&pro_token=" + url.QueryEscape(token) }
	}
	soon, past := time.Now().Add(time.Hour).Unix(), time.Now().Add(-time.Hour).Unix()
	stories := map[string]struct {
		option dialOption
		isPro  bool
	}{
		"good":            {pro(secret, jwt.MapClaims{"is_pro": true, "sub": "anna", "exp": soon}), true},
		"of someone else": {pro(secret, jwt.MapClaims{"is_pro": true, "sub": "carl", "exp": soon}), false},
		"another key":     {pro(secret+"!", jwt.MapClaims{"is_pro": true, "sub": "anna", "exp": soon}), false},
		"expired":         {pro(secret, jwt.MapClaims{"is_pro": true, "sub": "anna", "exp": past}), false},
		"without an end":  {pro(secret, jwt.MapClaims{"is_pro": true, "sub": "anna"}), false},
		"not pro":         {pro(secret, jwt.MapClaims{"is_pro": "true", "sub": "anna", "exp": soon}), false},
		"none":            {func(*handshake) {}, false},
		"no token at all": {func(h *handshake) { h.query += "&pro_token=x.y.z" }, false},
	}
	number := 0
	for name, story := range stories {
		number++
		anna := s.dial(t, "anna", story.option)
		anna.subscribe(t, "room", "")
		f := newFile(fmt.Sprintf("pro-%d", number), 2000)
		anna.send(t, f.request("bob"))
		if story.isPro {
			bob.want(t, f.request("bob"))
			over := newFile("over", 2001)
			anna.send(t, over.request("bob"))
			anna.wantRelayError(t, 413, "relay_over_limit", over)
			anna.send(t, f.says("cancel", ""))
			bob.want(t, f.says("cancel", ""))
		} else if answer := anna.wantRelayError(t, 413, "relay_over_free_limit", f); !strings.Contains(answer, "升级到 PRO") {
			t.Errorf("%s: the app would not know %s", name, answer)
		}
		anna.leave(t)
	}
	bob.wantNothing(t)
	if strings.Contains(s.log.String(), "pro_token") {
		t.Error("a PRO token is in the log")
	}
}

// Before a large file the app leaves its old socket open and comes again, with its pro_token. Not configured, that means nothing.
func TestAPROTokenIsIgnoredUnlessConfigured(t *testing.T) {
	t.Parallel()
	s, anna, bob := relayPair(t)
	for _, event := range []string{"signal:anna", "signal:all"} {
		anna.send(t, `{"type":"unsubscribe","channel":"room","event":"`+event+`"}`)
		anna.want(t, `{"type":"unsubscribed"}`)
	}
	again := s.dial(t, "anna", func(h *handshake) { h.query += "&pro_token=eyJh.e30.x" })
	again.subscribe(t, "room", "")
	f := newFile("large", 51<<20)
	again.send(t, f.request("bob"))
	again.wantRelayError(t, 413, "relay_over_limit", f)
	// The old socket is there still, and out of the room.
	f = newFile("old", 1)
	anna.send(t, f.request("bob"))
	anna.wantRelayError(t, 403, "relay_not_in_room", f)
	f = newFile("new", 1)
	agree(t, again, bob, f)
	transport(t, again, bob, f)
}

func TestAFileIsRejected(t *testing.T) {
	t.Parallel()
	s, anna, bob := relayPair(t)
	f := newFile("unwanted", 1000)
	anna.send(t, f.request("bob"))
	bob.want(t, f.request("bob"))
	bob.send(t, f.says("reject", `"reason":"内存不足"`))
	anna.want(t, f.says("reject", `"reason":"内存不足"`))
	// What was on its way when it ended is passed over without a word.
	anna.send(t, f.says("start", ""))
	anna.sendFrames(t, f, 0, 1)
	anna.send(t, f.says("cancel", ""))
	bob.send(t, f.accept())
	anna.wantNothing(t)
	bob.wantNothing(t)
	s.wantNothingHeld(t)
}

func TestEitherSideCancels(t *testing.T) {
	t.Parallel()
	s, anna, bob := relayPair(t)
	for who, parties := range map[string][2]*client{"sender": {anna, bob}, "receiver": {bob, anna}} {
		f := newFile("by-"+who, 30*appChunk)
		agree(t, anna, bob, f)
		anna.sendFrames(t, f, 0, 10)
		bob.wantFrames(t, f, 0, 10)
		cancel := f.says("cancel", `"reason":"changed my mind"`)
		parties[0].send(t, strings.Replace(cancel, `"channel":"room",`, "", 1))
		parties[1].want(t, cancel)
		anna.sendFrames(t, f, 10, 12)
		bob.send(t, f.ack(8))
		anna.wantNothing(t)
		bob.wantNothing(t)
		s.wantNothingHeld(t)
	}
	// Before anybody has accepted, too.
	f := newFile("early", 1)
	anna.send(t, f.request("bob"))
	bob.want(t, f.request("bob"))
	anna.send(t, f.says("cancel", ""))
	bob.want(t, f.says("cancel", ""))
	s.wantNothingHeld(t)
}

// The receiver may miss more chunks than one message can name: missing_count says how many, chunk_indexes names the first.
func TestChunksAreSentAgain(t *testing.T) {
	t.Parallel()
	s, anna, bob := relayPair(t)
	f := file{"again", 400 * 1000, 1000, flowControl}
	agree(t, anna, bob, f)
	for sent := int64(0); sent < 400; sent += 20 {
		anna.sendFrames(t, f, sent, sent+20)
		bob.wantFrames(t, f, sent, sent+20)
		bob.send(t, f.ack(sent+20))
		anna.want(t, f.ack(sent+20))
	}
	anna.send(t, f.says("end", ""))
	bob.want(t, f.says("end", ""))
	// The disk was full: all but the first hundred are lost.
	var named []int64
	for i := range int64(maxRelayResendIndexes) {
		named = append(named, 100+i)
	}
	bob.send(t, f.resend(300, named...))
	anna.want(t, f.resend(300, named...))
	for _, i := range named {
		anna.sendFrames(t, f, i, i+1)
		bob.wantFrame(t, f, i)
		if (i+1)%8 == 0 || i == named[len(named)-1] {
			bob.send(t, f.says("ack", fmt.Sprintf(`"chunk_index":%d,"received_chunks":%d`, i, i+1)))
			anna.want(t, f.says("ack", fmt.Sprintf(`"chunk_index":%d,"received_chunks":%d`, i, i+1)))
		}
	}
	anna.send(t, f.says("end", ""))
	bob.want(t, f.says("end", ""))
	bob.send(t, f.resend(44, 356))
	anna.want(t, f.resend(44, 356))
	anna.sendFrames(t, f, 356, 376)
	bob.wantFrames(t, f, 356, 376)
	finish(t, anna, bob, f)
	s.wantNothingHeld(t)
}

func TestSeveralFilesAtOnce(t *testing.T) {
	t.Parallel()
	s, anna, bob := relayPair(t)
	carl := s.dial(t, "carl")
	carl.subscribe(t, "room", "")
	first, second, back := newFile("first", 4*appChunk), newFile("second", 4*appChunk), newFile("back", 2*appChunk)
	agree(t, anna, bob, first)
	agree(t, carl, bob, second)
	agree(t, bob, anna, back)
	for i := range int64(4) {
		anna.sendFrames(t, first, i, i+1)
		bob.wantFrame(t, first, i)
		carl.sendFrames(t, second, i, i+1)
		bob.wantFrame(t, second, i)
	}
	bob.sendFrames(t, back, 0, 2)
	anna.wantFrames(t, back, 0, 2)
	finish(t, anna, bob, first)
	finish(t, carl, bob, second)
	finish(t, bob, anna, back)
	s.wantMetric(t, "relay", "completed_transfers", 3)
	s.wantNothingHeld(t)
}

func TestAConnectionSendsFourFilesAtOnce(t *testing.T) {
	t.Parallel()
	s, anna, bob := relayPair(t)
	var files []file
	for i := range 4 {
		files = append(files, newFile(fmt.Sprintf("file-%d", i), 100))
		agree(t, anna, bob, files[i])
	}
	fifth := newFile("fifth", 100)
	anna.send(t, fifth.request("bob"))
	anna.wantRelayError(t, 429, "relay_too_many_transfers", fifth)
	agree(t, bob, anna, newFile("back", 100)) // receiving counts for nobody
	transport(t, anna, bob, files[2])
	agree(t, anna, bob, fifth)
	anna.leave(t)
	for range 4 {
		bob.want(t, `{"type":"error","error":{"code":410,"reason":"relay_sender_gone"}}`)
	}
	s.wantMetric(t, "relay", "active_transfers", 1) // back: its receiver may return
}

// A transfer belongs to one room; the receiver may be in others, and the same two may share several.
func TestAReceiverInTwoRooms(t *testing.T) {
	t.Parallel()
	s, anna, bob := relayPair(t)
	for _, c := range []*client{anna, bob} {
		c.subscribe(t, "other", "")
	}
	carl := s.dial(t, "carl")
	carl.subscribe(t, "other", "")
	here, there, his := newFile("here", 10), newFile("there", 20), newFile("his", 30)
	anna.send(t, here.request("bob"))
	bob.want(t, here.request("bob"))
	anna.send(t, there.requestIn("other", "bob"))
	bob.want(t, there.requestIn("other", "bob"))
	carl.send(t, his.requestIn("other", "bob"))
	bob.want(t, his.requestIn("other", "bob"))
	for _, f := range []file{his, there, here} {
		sender := anna
		if f == his {
			sender = carl
		}
		// Without the room, as the app says some of it: the id finds it.
		bob.send(t, strings.Replace(f.accept(), `"channel":"room",`, "", 1))
		sender.want(t, `{"type":"file:transfer:accept","data":{"transfer_id":"`+f.id+`"}}`)
		sender.sendFrames(t, f, 0, 1)
		bob.wantFrame(t, f, 0)
		bob.send(t, strings.Replace(f.says("complete", ""), `"channel":"room",`, "", 1))
		sender.want(t, `{"type":"file:transfer:ack","data":{"transfer_id":"`+f.id+`","received_chunks":1}}`)
		sender.want(t, `{"type":"file:transfer:complete","data":{"transfer_id":"`+f.id+`"}}`)
	}
	// Who is in another room alone does not get it.
	f := newFile("carls", 1)
	anna.send(t, f.request("carl"))
	anna.wantRelayError(t, 404, "relay_no_receiver", f)
	s.wantNothingHeld(t)
}

func TestTwoSocketsOfTheReceiversUser(t *testing.T) {
	t.Parallel()
	s, anna, phone := relayPair(t)
	tablet := s.dial(t, "bob")
	tablet.subscribe(t, "room", "")
	f := newFile("shared", 3*appChunk)
	anna.send(t, f.request("bob"))
	phone.want(t, f.request("bob"))
	tablet.want(t, f.request("bob"))
	tablet.send(t, f.accept())
	anna.want(t, f.accept())
	phone.want(t, f.says("cancel", ""))
	phone.send(t, f.accept()) // too late
	phone.want(t, f.says("cancel", ""))
	// Nor does it take the transfer by what else it says.
	phone.send(t, f.ack(1))
	phone.send(t, f.resend(1, 0))
	transport(t, anna, tablet, f)
	phone.wantNothing(t)

	// One that declines does not speak for the other.
	f = newFile("declined", 1)
	anna.send(t, f.request("bob"))
	phone.want(t, f.request("bob"))
	tablet.want(t, f.request("bob"))
	phone.send(t, f.says("reject", `"reason":"no"`))
	phone.wantNothing(t)
	anna.wantNothing(t)
	tablet.send(t, f.says("reject", `"reason":"nor I"`))
	anna.want(t, f.says("reject", `"reason":"nor I"`))
	s.wantNothingHeld(t)
}

func TestWhoHasNoBusinessInATransfer(t *testing.T) {
	t.Parallel()
	s, anna, bob := relayPair(t)
	carl := s.dial(t, "carl")
	carl.subscribe(t, "room", "")
	f := newFile("private", 3*appChunk)
	agree(t, anna, bob, f)
	anna.sendFrames(t, f, 0, 1)
	bob.wantFrame(t, f, 0)

	// A stranger in the same room is told once, whatever he says and however often.
	carl.send(t, f.says("cancel", ""))
	carl.wantRelayError(t, 403, "relay_not_yours", f)
	for _, message := range []string{f.accept(), f.ack(1), f.says("start", ""), f.says("end", ""), f.says("complete", ""), f.says("cancel", ""), f.resend(1, 0)} {
		carl.send(t, message)
	}
	carl.sendFrames(t, f, 1, 3)
	carl.wantNothing(t)
	// Each in its own role.
	anna.send(t, f.ack(1))
	anna.wantRelayError(t, 403, "relay_not_yours", f)
	anna.send(t, f.says("complete", ""))
	bob.send(t, f.says("end", ""))
	bob.wantRelayError(t, 403, "relay_not_yours", f)
	bob.sendFrames(t, f, 1, 2)
	anna.wantNothing(t)
	bob.wantNothing(t)
	// Nobody knows this one: the answer names it, and another has an answer of its own.
	for _, unknown := range []file{newFile("unknown-1", 10), newFile("unknown-2", 10)} {
		carl.sendFrames(t, unknown, 0, 1)
		carl.wantRelayError(t, 404, "relay_unknown_transfer", unknown)
		carl.sendFrames(t, unknown, 0, 1)
		carl.send(t, unknown.ack(1))
	}
	carl.wantNothing(t)
	s.wantMetric(t, "drops", "relay_unknown_frame", 2+1+4)
	// It all did nothing to the transfer.
	anna.sendFrames(t, f, 1, 3)
	bob.wantFrames(t, f, 1, 3)
	finish(t, anna, bob, f)
	s.wantNothingHeld(t)
}

func TestMembersAlone(t *testing.T) {
	t.Parallel()
	s, anna, _ := relayPair(t)
	carl := s.dial(t, "carl")
	f := newFile("outside", 10)
	carl.send(t, f.request("bob"))
	carl.wantRelayError(t, 403, "relay_not_in_room", f)
	carl.send(t, f.request("bob")) // each request is answered
	carl.wantRelayError(t, 403, "relay_not_in_room", f)
	anna.send(t, f.request("carl"))
	anna.wantRelayError(t, 404, "relay_no_receiver", f)
	anna.send(t, f.request("anna")) // herself
	anna.wantRelayError(t, 404, "relay_no_receiver", f)
	anna.send(t, f.requestIn("x", "bob")) // no room's name
	anna.wantRelayError(t, 403, "relay_not_in_room", f)
	dora := s.dial(t, "dora", withToken(s.token(t, Claims{UserID: "dora", Room: "lobby"})))
	dora.send(t, f.request("bob")) // her token is for another room
	dora.wantRelayError(t, 403, "relay_not_in_room", f)
	agree(t, anna, s.dialIn(t, "bob2"), f)
	anna.send(t, f.request("bob2"))
	anna.wantRelayError(t, 409, "relay_duplicate", f)
}

// dialIn connects as user and enters the room.
func (s *testServer) dialIn(t testing.TB, user string) *client {
	t.Helper()
	c := s.dial(t, user)
	c.subscribe(t, "room", "")
	return c
}

func TestWrongFramesAndMessagesEndNothing(t *testing.T) {
	t.Parallel()
	s, anna, bob := relayPair(t)
	f := newFile("wrong", 3*appChunk)
	agree(t, anna, bob, f)
	good := f.frame(0)
	wrong := f
	wrong.size = 4 * appChunk // of another number of chunks
	anna.sendFrames(t, wrong, 0, 1)
	anna.wantRelayError(t, 400, "relay_bad_frame", f)
	short := newFile("wrong", 2*appChunk+1)
	anna.sendFrames(t, short, 2, 3) // the last chunk is too short
	for range 25 {                  // none is a protocol error
		anna.frame(t, opBinary, good[:255])
		anna.frame(t, opBinary, append([]byte("no JSON"), make([]byte, 300)...))
		anna.frame(t, opBinary, nil)
		anna.send(t, `{"type":"file:transfer:ack","channel":"room","data":{}}`)
		anna.send(t, `{"type":"file:transfer:request","channel":"room","data":{"transfer_id":"half"}}`)
		bob.send(t, f.says("ack", `"chunk_index":-1`))
	}
	anna.frame(t, opBinary, make([]byte, relayHeaderBytes+appChunk+1))
	anna.want(t, `{"type":"error","error":{"reason":"relay_bad_message","transfer_id":""}}`)
	anna.wantRelayError(t, 400, "relay_bad_message", file{id: "half"})
	bob.wantRelayError(t, 400, "relay_bad_message", f)
	bob.wantNothing(t)
	s.wantMetric(t, "drops", "binary_ignored", 76)
	transport(t, anna, bob, f)
	s.wantNothingHeld(t)
}

// The rates for signalling are for signalling. A file has many more bytes and messages, and neither slows down nor
// ends who sends it.
func TestFilesDoNotCountAgainstTheRatesOfSignalling(t *testing.T) {
	t.Parallel()
	s, anna, bob := relayPair(t, func(c *Config) {
		c.WebSocket.MessagesPerSecond, c.WebSocket.MessageBurst = 1, 8
		c.WebSocket.BytesPerSecond, c.WebSocket.BytesBurst = 100, 2000
	})
	began := time.Now()
	f := newFile("unhindered", 1_000_000)
	agree(t, anna, bob, f)
	transport(t, anna, bob, f)
	for i := range 20 {
		g := file{fmt.Sprintf("small-%d", i), 10, 1, flowControl}
		agree(t, anna, bob, g)
		transport(t, anna, bob, g)
	}
	// At 100 bytes a second this would have taken hours, at a message a second minutes; and a second of pacing would show.
	if took := time.Since(began); took > patience {
		t.Errorf("it took %v", took)
	}
	s.wantMetric(t, "closes", "rate_limited", 0)
	s.wantNothingHeld(t)
}

func TestTheRelaysMemoryIsBounded(t *testing.T) {
	t.Parallel()
	s, anna, bob := relayPair(t, func(c *Config) { c.Relay.MaxMemory = minRelayMemory + minRelayMemory/2 })
	first, second := newFile("first", 50<<20), newFile("second", 50<<20)
	agree(t, anna, bob, first)
	anna.send(t, second.request("bob"))
	answer := anna.wantRelayError(t, 503, "relay_full", second)
	if !strings.Contains(answer, "as many files as it can") {
		t.Errorf("the app would show %s", answer)
	}
	bob.wantNothing(t)
	small := newFile("small", appChunk) // there is room for a small one
	agree(t, anna, bob, small)
	transport(t, anna, bob, small)
	anna.send(t, first.says("cancel", ""))
	bob.want(t, first.says("cancel", ""))
	s.wantNothingHeld(t)
	second.id = "third" // the refused id may be used again, another one as well
	agree(t, anna, bob, second)
}

// Tiny frames must not hold the memory of large ones: what is reserved is what is used.
func TestTinyFramesHoldLittleMemory(t *testing.T) {
	t.Parallel()
	s, anna, bob := relayPair(t)
	f := file{"tiny", 30, 1, flowControl}
	agree(t, anna, bob, f)
	anna.sendFrames(t, f, 0, 30)
	bob.wantFrames(t, f, 0, 30)
	held, counted := 0, 0
	s.server.conns.each(func(c *conn) {
		c.outbox.mu.Lock()
		defer c.outbox.mu.Unlock()
		if c.outbox.lanes == nil {
			return
		}
		counted += c.outbox.lanes.bytes
		for _, l := range c.outbox.lanes.all {
			for _, k := range l.kept {
				held += cap(k.frame)
			}
		}
	})
	if counted == 0 || held > 2*counted {
		t.Errorf("%d bytes are held for frames of %d", held, counted)
	}
	finish(t, anna, bob, f)
}

// The memory of ended transfers is bounded too: who asks and cancels without end is stopped.
func TestEndedTransfersAreRememberedInBoundedNumber(t *testing.T) {
	t.Parallel()
	_, anna, bob := relayPair(t)
	for i := range maxRelayRemembered {
		f := newFile(fmt.Sprintf("f%d", i), 1)
		anna.send(t, f.request("bob"))
		bob.want(t, f.request("bob"))
		anna.send(t, f.says("cancel", ""))
		bob.want(t, f.says("cancel", ""))
	}
	f := newFile("too-much", 1)
	anna.send(t, f.request("bob"))
	anna.wantRelayError(t, 429, "relay_too_many_transfers", f)
	agree(t, bob, anna, newFile("other", 1)) // her own doing
}

// When all memory is used up, the receiver that holds most is cut; its files end at once, for they are the memory.
func TestMemoryPressureEndsTheLargestTransfers(t *testing.T) {
	t.Parallel()
	s, anna, bob := relayPair(t, func(c *Config) {
		c.WebSocket.MaxBufferedBytes = 600 << 10
		c.WebSocket.MaxQueueBytes, c.WebSocket.MaxMessageBytes = 300<<10, 100<<10
	})
	f := newFile("large", 50<<20)
	agree(t, anna, bob, f)
	anna.sendFrames(t, f, 0, 20) // not acknowledged: 1.3 MB
	answer := anna.wantRelayError(t, 503, "relay_full", f)
	if numberIn(t, answer, "error.code") != 503 {
		t.Error(answer)
	}
	s.wantMetric(t, "closes", "memory_pressure", 1)
	s.wantNothingHeld(t)
	anna.wantNothing(t)
}

// A stop must not wait for files.
func TestAStopDuringATransfer(t *testing.T) {
	t.Parallel()
	s, anna, bob := relayPair(t)
	f := newFile("unfinished", 50<<20)
	agree(t, anna, bob, f)
	anna.sendFrames(t, f, 0, 24)
	bob.wantFrames(t, f, 0, 3)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.stop()
	}()
	anna.untilClose(t, 1001, "going_away")
	// A frame to bob may be cut in two: then there is nothing more to say to him.
	for {
		opcode, _, err := bob.read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("bob is not told")
		}
		if err != nil || opcode == opClose {
			break
		}
	}
	bob.close()
	<-stopped
}
