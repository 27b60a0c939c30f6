package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// relayKind is the type of a relay control message.
type relayKind uint8

// The kinds that have a meaning here. Clients send the first nine; the server makes cancel, ack, end and complete, too.
const (
	relayRequest relayKind = iota
	relayAccept
	relayReject
	relayStart
	relayEnd
	relayAck
	relayResend
	relayComplete
	relayCancel
	relayKinds // how many
)

// relayUsualFields is how many fields a message has that comes often, an acknowledgement.
const relayUsualFields = 4

// relayPrefix begins the type of every relay control message.
const relayPrefix = "file:transfer:"

var relayKindNames = [relayKinds]string{
	relayRequest: "request", relayAccept: "accept", relayReject: "reject", relayStart: "start", relayEnd: "end",
	relayAck: "ack", relayResend: "resend", relayComplete: "complete", relayCancel: "cancel",
}

// relayKindOf finds the kind of a message's type. False: a type that the relay has no use for (progress,
// resume-query, …), which is passed over.
func relayKindOf(typ string) (relayKind, bool) {
	name, ok := strings.CutPrefix(typ, relayPrefix)
	if !ok {
		return 0, false
	}
	for k, n := range relayKindNames {
		if n == name {
			return relayKind(k), true
		}
	}
	return 0, false
}

// relayFlowControl is the only flow control there is: the receiver acknowledges, the sender keeps to a window.
const relayFlowControl = "receiver_ack_v1"

// relayMessage is one control message. Which fields are set depends on Kind. Sizes in bytes, indexes from 0.
type relayMessage struct {
	Kind relayKind
	ID   string // transfer_id
	Room string // channel, or a request's room_name; may be empty in all but a request

	// request
	ToUser      string
	FileName    string
	FileSize    int64
	ChunkSize   int64 // 1..maxRelayChunkBytes
	TotalChunks int64 // also ack (0 if absent) and resend
	// request and accept
	FlowControl bool
	// ack
	ChunkIndex int64
	Received   int64 // received_chunks: a count, at least 1
	// resend
	HighestMissing int64 // of chunk_indexes

	fields map[string]json.RawMessage // data as it came, for passing on; keys in their exact case, of equal keys the last
}

// parseRelayMessage reads one text frame whose type is file:transfer:…. The fields stand in "data", or (flat form)
// beside the type. A type without a meaning here gives neither a message nor a problem; the one problem is relayBadMessage.
//
// Keys are compared exactly and of equal keys the last one counts, as in the browser's JSON.parse: if the two ends read
// one message differently, a party of one transfer could speak in another.
func parseRelayMessage(text []byte) (*relayMessage, relayProblem) {
	if len(text) > maxRelayControlBytes || !utf8.Valid(text) {
		return nil, relayBadMessage
	}
	envelope, ok := objectFields(bytes.Clone(text)) // text is scratch, and the message keeps its fields
	if !ok {
		return nil, relayBadMessage
	}
	r := fieldReader{fields: envelope}
	kind, known := relayKindOf(r.text("type", maxRelayTextBytes))
	channel := r.optionalText("channel", maxRelayTextBytes)
	if r.failed {
		return nil, relayBadMessage
	}
	if !known {
		return nil, relayNoProblem
	}
	fields, ok := relayFields(envelope)
	if !ok {
		return nil, relayBadMessage
	}
	r.fields = fields
	m := &relayMessage{Kind: kind, Room: channel, fields: fields, ID: r.text("transfer_id", maxTransferIDBytes)}
	m.read(&r)
	if r.failed || !validTransferID(m.ID) {
		return nil, relayBadMessage
	}
	return m, relayNoProblem
}

// transferID is the id that a malformed control message seems to be about, "" when it names none.
func transferID(text []byte) string {
	envelope, ok := objectFields(text)
	if !ok {
		return ""
	}
	fields, _ := relayFields(envelope)
	r := fieldReader{fields: fields}
	if id := r.optionalText("transfer_id", maxTransferIDBytes); validTransferID(id) {
		return id
	}
	return ""
}

// objectFields cuts a JSON object into its fields, each as it stands in p, which must be valid UTF-8. An acknowledgement passes with
// every half megabyte of a file, and encoding/json would take longer for it than a frame takes.
func objectFields(p []byte) (fields map[string]json.RawMessage, ok bool) {
	s := jsonScanner{text: p}
	s.space()
	if !s.take('{') {
		return nil, false
	}
	s.depth++
	fields = make(map[string]json.RawMessage, relayUsualFields)
	s.space()
	for more := !s.take('}'); more; more = !s.take('}') {
		if len(fields) > 0 && !s.take(',') {
			return nil, false
		}
		s.space()
		begin := s.at
		if !s.key() {
			return nil, false
		}
		key := unquote(s.text[begin : bytes.LastIndexByte(s.text[:s.at], '"')+1])
		s.space()
		begin = s.at
		if !s.value() {
			return nil, false
		}
		fields[string(key)] = s.text[begin:s.at]
		s.space()
	}
	s.space()
	return fields, s.at == len(p)
}

// relayFields is the object "data", or without one the envelope's own fields.
func relayFields(envelope map[string]json.RawMessage) (map[string]json.RawMessage, bool) {
	if data, ok := envelope["data"]; ok && string(data) != "null" {
		return objectFields(data)
	}
	fields := maps.Clone(envelope)
	for _, k := range []string{"type", "channel", "event", "id", "data", "timestamp"} {
		delete(fields, k)
	}
	return fields, true
}

// read takes the fields that the message's kind has.
func (m *relayMessage) read(r *fieldReader) {
	switch m.Kind {
	case relayRequest:
		m.readRequest(r)
	case relayAccept:
		m.FlowControl = r.optionalText("flow_control", maxRelayTextBytes) == relayFlowControl
	case relayAck:
		m.ChunkIndex = r.integer("chunk_index", 0)
		m.Received = m.ChunkIndex + 1
		if r.has("received_chunks") {
			m.Received = r.integer("received_chunks", 1)
		}
		if r.has("total_chunks") {
			m.TotalChunks = r.integer("total_chunks", 1)
		}
	case relayResend:
		m.TotalChunks = r.integer("total_chunks", 1)
		m.HighestMissing = r.highestIndex(m.TotalChunks)
	}
}

// readRequest also holds the request to what the app's receiver checks: the number of chunks must match the sizes.
func (m *relayMessage) readRequest(r *fieldReader) {
	m.FileName = r.text("file_name", maxRelayFileNameBytes)
	r.optionalText("file_type", maxRelayTextBytes)
	m.ToUser = r.text("to_user_id", maxUserIDBytes)
	m.FileSize = r.integer("file_size", 0)
	m.ChunkSize = r.integer("chunk_size", 1)
	m.TotalChunks = r.integer("total_chunks", 1)
	m.FlowControl = r.optionalText("flow_control", maxRelayTextBytes) == relayFlowControl
	room := r.optionalText("room_name", maxRelayTextBytes)
	if m.Room == "" {
		m.Room = room
	}
	if r.failed || m.Room == "" || room != "" && room != m.Room || m.ChunkSize > maxRelayChunkBytes {
		r.failed = true
		return
	}
	r.failed = m.TotalChunks != max(1, (m.FileSize+m.ChunkSize-1)/m.ChunkSize)
}

// fieldReader reads the fields of one object and remembers whether any was not what it must be.
type fieldReader struct {
	fields map[string]json.RawMessage
	failed bool
}

func (r *fieldReader) has(key string) bool {
	raw, ok := r.fields[key]
	return ok && string(raw) != "null"
}

// text is a required, non-empty string of at most limit bytes.
func (r *fieldReader) text(key string, limit int) string {
	s := r.optionalText(key, limit)
	if s == "" {
		r.failed = true
	}
	return s
}

// optionalText is a string of at most limit bytes; "" if it is absent or null.
func (r *fieldReader) optionalText(key string, limit int) string {
	if !r.has(key) {
		return ""
	}
	text, ok := jsonString(r.fields[key])
	if !ok || len(text) > limit {
		r.failed = true
		return ""
	}
	return string(text)
}

// maxSafeInteger is the largest whole number that a browser can name.
const maxSafeInteger = 1<<53 - 1

// integer is a required whole number, written without fraction or exponent, from least to maxSafeInteger.
func (r *fieldReader) integer(key string, least int64) int64 {
	n, err := strconv.ParseInt(string(r.fields[key]), 10, 64)
	if err != nil || n < least || n > maxSafeInteger {
		r.failed = true
		return 0
	}
	return n
}

// highestIndex checks the list chunk_indexes (1 to maxRelayResendIndexes of them, below total) and missing_count, which
// may exceed what one message can name. It returns the highest index.
func (r *fieldReader) highestIndex(total int64) int64 {
	var indexes []json.RawMessage
	if json.Unmarshal(r.fields["chunk_indexes"], &indexes) != nil || len(indexes) == 0 || len(indexes) > maxRelayResendIndexes {
		r.failed = true
		return 0
	}
	highest := int64(0)
	for _, raw := range indexes {
		one := fieldReader{fields: map[string]json.RawMessage{"": raw}}
		highest = max(highest, one.integer("", 0))
		r.failed = r.failed || one.failed
	}
	missing := int64(len(indexes))
	if r.has("missing_count") {
		missing = r.integer("missing_count", missing)
	}
	r.failed = r.failed || highest >= total || missing > total
	return highest
}

// validTransferID: what stands in JSON as it is, so that the frame header can be compared without unescaping.
func validTransferID(id string) bool {
	for _, c := range id {
		if c < ' ' || c == 0x7f || c == '"' || c == '\\' || c == utf8.RuneError {
			return false
		}
	}
	return len(id) >= 1 && len(id) <= maxTransferIDBytes
}

// Event is the message as an event of its transfer, said by the socket by.
func (m *relayMessage) Event(by endpoint) TransferEvent {
	kinds := [relayKinds]TransferEventKind{
		relayRequest: EventRequest, relayAccept: EventAccept, relayReject: EventReject, relayStart: EventStart, relayEnd: EventEnd,
		relayAck: EventAck, relayResend: EventResend, relayComplete: EventComplete, relayCancel: EventCancel,
	}
	ev := TransferEvent{Kind: kinds[m.Kind], By: by, Flow: m.FlowControl, Index: m.ChunkIndex, Total: m.TotalChunks, Received: m.Received}
	if m.Kind == relayResend {
		ev.Index = m.HighestMissing
	}
	return ev
}

// SetFrom writes the connection's identity into a request, whatever the client said it was.
func (m *relayMessage) SetFrom(identity string) {
	m.fields["from_user_id"] = mustJSON(identity)
}

// Encode is the message as the server passes it on: all fields of its data, known or not, under the server's timestamp (ms).
func (m *relayMessage) Encode(timestamp int64) []byte {
	b := append(append(append(make([]byte, 0, 512), `{"type":"`+relayPrefix...), relayKindNames[m.Kind]...), '"')
	if m.Room != "" {
		b = appendJSONString(append(b, `,"channel":`...), m.Room)
	}
	b = append(b, `,"data":{`...)
	for i, key := range slices.Sorted(maps.Keys(m.fields)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(appendJSONString(b, key), ':'), m.fields[key]...)
	}
	b = strconv.AppendInt(append(b, `},"timestamp":`...), timestamp, 10)
	return append(b, '}')
}

// The messages that the server makes itself.

func newRelayMessage(kind relayKind, room, id string) *relayMessage {
	return &relayMessage{Kind: kind, ID: id, Room: room, fields: map[string]json.RawMessage{"transfer_id": mustJSON(id)}}
}

// newRelayAck acknowledges the first n chunks (n ≥ 1) of total.
func newRelayAck(room, id string, n, total int64) *relayMessage {
	m := newRelayMessage(relayAck, room, id)
	m.fields["chunk_index"] = mustJSON(n - 1)
	m.fields["received_chunks"] = mustJSON(n)
	m.fields["total_chunks"] = mustJSON(total)
	return m
}

// newRelayCancel says in a short text why.
func newRelayCancel(room, id, reason string) *relayMessage {
	m := newRelayMessage(relayCancel, room, id)
	m.fields["reason"] = mustJSON(reason)
	return m
}

// encodeRelayError is the error frame by which the app learns of a transfer's trouble: with the transfer's id in it the
// app ends the transfer at once and shows the text; without, or as file:transfer:error, it would show its own or nothing.
func encodeRelayError(why relayProblem, id string, timestamp int64) []byte {
	type body struct {
		Code       int    `json:"code"`
		Reason     string `json:"reason"`
		Message    string `json:"message"`
		TransferID string `json:"transfer_id"`
	}
	p := relayProblems[why]
	return mustJSON(struct {
		Type      string `json:"type"`
		Error     body   `json:"error"`
		Timestamp int64  `json:"timestamp"`
	}{"error", body{p.code, p.slug, p.text, id}, timestamp})
}

// mustJSON encodes strings, numbers and parsed JSON, which cannot fail.
func mustJSON(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("relay: encoding a message: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
}
