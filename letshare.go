package main

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The LetShare protocol's words.
const (
	eventAll       = "signal:all" // the event of a message without one
	directedPrefix = "signal:"    // followed by an identity: a message for that one alone
)

// letshare is one connection's side of the LetShare protocol: it turns the client's messages into operations.
// The answers and deliveries are made by letshareCodec on the shards. Owned by the read goroutine.
type letshare struct {
	conn    *conn
	places  []place // rooms that were asked for
	seq     uint64  // operations so far
	inflow  bucket  // messages
	refused int32   // messages refused since inflow was last full
	bad     int32   // errors of code 400 in a row
	relayed bucket  // frames and control messages of transfers
	spoken  string  // the event of the last message: whoever signals to somebody does so several times
}

// place is a room that the connection has asked to be in, whether or not the shard has answered yet.
type place struct {
	room string
	seq  uint64 // of the latest subscribe
}

// text takes one text message, valid UTF-8. p is scratch: nothing may keep it.
func (l *letshare) text(p []byte) {
	// What concerns a file has bounds of its own. The cheap look may be wrong; then the message counts after all.
	maybeTransfer := bytes.Contains(p, []byte(relayPrefix))
	if !maybeTransfer && !l.admitMessage() {
		return
	}
	e, ok := parseEnvelope(p)
	kind, _ := jsonString(e.kind)
	isTransfer := bytes.HasPrefix(kind, []byte(relayPrefix))
	if maybeTransfer && !isTransfer && !l.admitMessage() {
		return
	}
	if !ok {
		l.refuse(refuseBadJSON, "", "")
		return
	}
	if isTransfer {
		l.transfer(string(kind), p)
		return
	}
	if !validMessageID(e.id) {
		l.refuse(refuseBadID, "", "")
		return
	}
	id := string(e.id)
	switch string(kind) {
	case "subscribe":
		l.subscribe(&e, id)
	case "unsubscribe":
		l.unsubscribe(&e, id)
	case "publish":
		l.publish(&e, id)
	default:
		l.refuse(refuseBadType, "", id)
	}
}

// admitMessage spends a message of the client's rate. A refused message is not even parsed; as many refusals as the
// burst, since the bucket was last full, end the connection.
func (l *letshare) admitMessage() bool {
	limit := l.conn.limits.messages
	now := time.Duration(l.conn.wire.lastRead.Load()) // the clock, when the message came
	if l.inflow.refill(limit, now) {
		l.refused = 0
	}
	if l.inflow.take(limit, 1, now) {
		return true
	}
	l.refuse(refuseRateLimited, "", "")
	if l.refused++; l.refused >= int32(limit.burst) {
		l.conn.outbox.end(FloodedMessages)
	}
	return false
}

// target reads the room and the event of a message. The room is returned with a refusal too, if it has one, so that
// the answer stands in order with the room's others.
func (l *letshare) target(e *envelope, missingEvent string) (room, event string, refusal *Refusal) {
	if room, refusal = l.room(e); refusal == nil {
		event, refusal = l.event(e, missingEvent)
	}
	return room, event, refusal
}

// subscribe listens to an event of a room.
func (l *letshare) subscribe(e *envelope, id string) {
	room, event, refusal := l.target(e, eventAll)
	if refusal == nil {
		refusal = l.mayListen(event)
	}
	if refusal == nil {
		refusal = l.takePlace(room)
	}
	if refusal != nil {
		l.refuse(refusal, room, id)
		return
	}
	l.bad = 0
	l.conn.post(op{kind: opSubscribe, member: &l.conn.member, room: room, event: event, id: id, seq: l.seq})
}

// mayListen: under strict identity a directed event is for its addressee alone.
func (l *letshare) mayListen(event string) *Refusal {
	if !l.conn.strict || event == eventAll || !strings.HasPrefix(event, directedPrefix) {
		return nil
	}
	if event[len(directedPrefix):] != l.conn.member.identity {
		return refuseEventNotAllowed
	}
	return nil
}

// takePlace counts the room against the connection's rooms. A shard that does not let the member in gives the place
// back, so that no subscribe waits for an answer.
func (l *letshare) takePlace(room string) *Refusal {
	l.givePlacesBack()
	l.seq++
	for i := range l.places {
		if l.places[i].room == room {
			l.places[i].seq = l.seq
			return nil
		}
	}
	if limit := l.conn.limits.maxRooms; limit > 0 && len(l.places) >= limit {
		return l.conn.limits.tooManyRooms
	}
	l.places = append(l.places, place{room, l.seq})
	return nil
}

// givePlacesBack drops the rooms that the shards say the member is not in, unless a later subscribe is on its way.
func (l *letshare) givePlacesBack() {
	for _, gone := range l.conn.member.takeGone() {
		for i := range l.places {
			if l.places[i].room == gone.room {
				if l.places[i].seq <= gone.seq {
					l.places = append(l.places[:i], l.places[i+1:]...)
				}
				break
			}
		}
	}
}

// unsubscribe stops listening to an event, or without one leaves the room.
func (l *letshare) unsubscribe(e *envelope, id string) {
	room, event, refusal := l.target(e, "")
	if refusal != nil {
		l.refuse(refusal, room, id)
		return
	}
	l.bad = 0
	l.seq++
	l.conn.post(op{kind: opUnsubscribe, member: &l.conn.member, room: room, event: event, id: id, seq: l.seq})
}

// publish sends data to the subscribers of an event.
func (l *letshare) publish(e *envelope, id string) {
	room, event, refusal := l.target(e, eventAll)
	if refusal == nil {
		refusal = l.checkData(e)
	}
	if refusal != nil {
		l.refuse(refusal, room, id)
		return
	}
	l.bad = 0
	message := draftMessage(room, event, e, l.conn.member.identity)
	o := op{kind: opPublish, member: &l.conn.member, room: room, event: event, id: id, message: message}
	if len(e.data) >= askBytes {
		l.conn.ask(o)
		return
	}
	l.conn.post(o)
}

// checkData says whether data may be published.
func (l *letshare) checkData(e *envelope) *Refusal {
	if len(e.data) == 0 || e.data[0] != '{' || e.dataTwin {
		return refuseBadData
	}
	// The app takes a message whose data.type has this prefix for a relay's: a member could inject one.
	if kind, ok := jsonString(e.dataType); ok && bytes.HasPrefix(kind, []byte(relayPrefix)) {
		return refuseBadData
	}
	if l.conn.strict && e.dataFrom != nil {
		if from, ok := jsonString(e.dataFrom); !ok || string(from) != l.conn.member.identity {
			return refuseFromMismatch
		}
	}
	return nil
}

// room reads the channel and checks that the token admits it. With a refusal it returns the name if it is a room's.
func (l *letshare) room(e *envelope) (string, *Refusal) {
	text, _ := jsonString(e.channel)
	for i := range l.places {
		if l.places[i].room == string(text) {
			return l.places[i].room, nil
		}
	}
	room := string(text)
	if !validRoomName(room) {
		return "", refuseBadChannel
	}
	if only := l.conn.room; only != "" && room != only {
		return room, refuseRoomNotAllowed
	}
	return room, nil
}

// event reads the event, missing when it is absent, null or empty.
func (l *letshare) event(e *envelope, missing string) (string, *Refusal) {
	if e.event == nil || string(e.event) == "null" {
		return missing, nil
	}
	text, ok := jsonString(e.event)
	if !ok {
		return "", refuseBadEvent
	}
	switch limit := l.conn.limits.maxEventBytes; {
	case limit > 0 && len(text) > limit:
		return "", refuseBadEvent
	case len(text) == 0:
		return missing, nil
	case string(text) == eventAll:
		return eventAll, nil
	case string(text) != l.spoken:
		l.spoken = string(text)
	}
	return l.spoken, nil
}

// refuse answers with an error; room is "" when the message named none. The connection stays open, until
// too many errors of code 400 have come in a row.
func (l *letshare) refuse(refusal *Refusal, room, id string) {
	if refusal.Code == 400 {
		l.bad++
	} else {
		l.bad = 0
	}
	last := l.bad >= maxErrorsInARow
	o := op{kind: opRefuse, member: &l.conn.member, room: room, id: id, refusal: refusal}
	if room != "" && !last {
		l.conn.post(o)
		return
	}
	l.conn.server.counters.refuse(refusal.Reason)
	now := time.Now()
	if last {
		l.conn.lastWord = letshareError(&o, refusal, now)
		l.conn.outbox.end(TooManyErrors)
		return
	}
	if id != "" || l.conn.member.mayTell(refusal.Reason, room, now) {
		l.conn.send(letshareError(&o, refusal, now))
	}
}

// leave takes the member out of every room it may be in, or has a part in a transfer of.
func (l *letshare) leave() {
	rooms := l.conn.member.transferRooms()
	for _, p := range l.places {
		if !slices.Contains(rooms, p.room) {
			rooms = append(rooms, p.room)
		}
	}
	for _, room := range rooms {
		l.conn.post(op{kind: opLeave, member: &l.conn.member, room: room})
	}
	l.places = nil
}

// validRoomName is the app's own rule: 2 to 12 characters out of U+4E00–U+9FA5, ASCII letters and digits,
// space, "_" and "-" (protocol: room names). Nothing is trimmed or folded.
func validRoomName(name string) bool {
	n := 0
	for _, r := range name {
		switch {
		case r >= 0x4E00 && r <= 0x9FA5, r >= 'A' && r <= 'Z', r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == ' ', r == '_', r == '-':
			n++
		default:
			return false
		}
	}
	return n >= 2 && n <= 12
}

// validMessageID: absent, a number, or a string, of at most maxIDBytes.
func validMessageID(raw []byte) bool {
	if len(raw) == 0 {
		return true
	}
	if text, ok := jsonString(raw); ok {
		return len(text) <= maxIDBytes
	}
	return (raw[0] == '-' || raw[0]-'0' <= 9) && len(raw) <= maxIDBytes
}

// timestampDigits is the length of a time in milliseconds, from 2001 to 2286.
const timestampDigits = 13

// timestampSlot ends a draft; the shard fills it when the message has its time.
const timestampSlot = `,"timestamp":0000000000000}`

// draftMessage makes a message with the whole of its frame but for its time. data's bytes are copied once, as they are; a from that
// is missing is inserted directly after the opening brace.
func draftMessage(room, event string, e *envelope, identity string) *Message {
	const head, middle, tail = `{"type":"message","channel":`, `,"event":`, `,"data":`
	data := e.data[1:]
	var from []byte
	if e.dataFrom == nil {
		from = make([]byte, 0, len(`"from":"",`)+2*maxUserIDBytes)
		from = appendJSONString(append(from, `"from":`...), identity)
		if bytes.TrimLeft(data, " \t\r\n")[0] != '}' {
			from = append(from, ',')
		}
	}
	var scratch [4 * defaultMaxEventBytes]byte
	quoted := appendJSONString(scratch[:0], event)
	size := len(head) + len(room) + 2 + len(middle) + len(quoted) + len(tail) + 1 + len(from) + len(data) + len(timestampSlot)
	m, frame := newMessage(frameHeaderSize(size) + size)
	frame = appendFrameHeader(frame, opText, size)
	frame = append(append(frame, head...), '"')
	frame = append(append(frame, room...), '"')
	frame = append(append(frame, middle...), quoted...)
	frame = append(append(frame, tail...), '{')
	frame = append(append(frame, from...), data...)
	m.event, m.frames[dialectLetShare] = event, append(frame, timestampSlot...)
	return m
}

// letshareCodec makes the frames for LetShare members.
var letshareCodec = codec{message: letshareMessage, reply: letshareReply}

// letshareMessage puts the time into the publisher's draft.
func letshareMessage(room string, m *Message) []byte {
	frame := m.frames[dialectLetShare]
	slot := frame[len(frame)-1-timestampDigits : len(frame)-1]
	for i, t := len(slot)-1, m.timestamp; i >= 0; i, t = i-1, t/10 {
		slot[i] = byte('0' + t%10)
	}
	return frame
}

// letshareReply answers an operation.
func letshareReply(o *op, refusal *Refusal, members int, now time.Time) []byte {
	switch {
	case refusal != nil:
		if o.id == "" && !o.member.mayTell(refusal.Reason, o.room, now) {
			return nil
		}
		return letshareError(o, refusal, now)
	case o.kind == opSubscribe:
		return letshareDone("subscribed", o, members, now)
	case o.kind == opUnsubscribe:
		return letshareDone("unsubscribed", o, members, now)
	case o.id != "":
		return textFrame(func(b []byte) []byte {
			b = append(b, `{"type":"ack"`...)
			return appendIDAndTime(b, o.id, now)
		})
	}
	return nil
}

// letshareDone is the frame that confirms a subscribe or an unsubscribe.
func letshareDone(status string, o *op, members int, now time.Time) []byte {
	return textFrame(func(b []byte) []byte {
		b = append(append(append(b, `{"type":"`...), status...), `","channel":`...)
		b = appendJSONString(b, o.room)
		if o.event != "" {
			b = appendJSONString(append(b, `,"event":`...), o.event)
		}
		b = append(append(append(b, `,"data":{"status":"`...), status...), `","room":`...)
		b = appendJSONString(b, o.room)
		if o.event != "" {
			b = appendJSONString(append(b, `,"event":`...), o.event)
		}
		b = strconv.AppendInt(append(b, `,"members":`...), int64(members), 10)
		b = appendJSONString(append(b, `,"user_id":`...), o.member.identity)
		return appendIDAndTime(append(b, '}'), o.id, now)
	})
}

// letshareError is the frame of an error.
func letshareError(o *op, refusal *Refusal, now time.Time) []byte {
	return textFrame(func(b []byte) []byte {
		b = append(b, `{"type":"error"`...)
		if o.room != "" {
			b = appendJSONString(append(b, `,"channel":`...), o.room)
		}
		b = strconv.AppendInt(append(b, `,"error":{"code":`...), int64(refusal.Code), 10)
		b = appendJSONString(append(b, `,"reason":`...), refusal.Reason.String())
		b = appendJSONString(append(b, `,"message":`...), refusal.Message)
		return appendIDAndTime(append(b, '}'), o.id, now)
	})
}

// appendIDAndTime ends a message of the server.
func appendIDAndTime(b []byte, id string, now time.Time) []byte {
	if id != "" {
		b = append(append(b, `,"id":`...), id...)
	}
	b = strconv.AppendInt(append(b, `,"timestamp":`...), now.UnixMilli(), 10)
	return append(b, '}')
}

// textFrame builds a frame around a payload of unknown length, with one allocation for ordinary sizes.
func textFrame(payload func(b []byte) []byte) []byte {
	const room = 10 // the longest header
	frame := payload(make([]byte, room, room+320))
	size := len(frame) - room
	begin := room - frameHeaderSize(size)
	appendFrameHeader(frame[begin:begin], opText, size)
	return frame[begin:]
}
