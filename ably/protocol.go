package ably

import (
	"math"
	"slices"
)

// Format is the codec of a frame or of the body of a request.
type Format uint8

// JSON travels in text frames and as application/json, Msgpack in binary frames and as application/x-msgpack.
const (
	JSON Format = iota
	Msgpack
)

// Action says what a protocol message is about. Numbers that have no name here are for the caller to ignore.
type Action uint8

// The actions of the protocol. A client knows them by these numbers.
const (
	ActionHeartbeat Action = iota
	ActionAck
	ActionNack
	ActionConnect
	ActionConnected
	ActionDisconnect
	ActionDisconnected
	ActionClose
	ActionClosed
	ActionError
	ActionAttach
	ActionAttached
	ActionDetach
	ActionDetached
	ActionPresence
	ActionMessage
	ActionSync
	ActionAuth
	ActionActivate
	ActionObject
	ActionObjectSync
	ActionAnnotation
)

// What ProtocolMessage.Flags can hold: the state of an attachment in the low bits, its modes from bit 16.
const (
	FlagHasPresence  uint64 = 1 << 0
	FlagHasBacklog   uint64 = 1 << 1
	FlagResumed      uint64 = 1 << 2
	FlagTransient    uint64 = 1 << 4
	FlagAttachResume uint64 = 1 << 5
	FlagHasObjects   uint64 = 1 << 7

	ModePresence            uint64 = 1 << 16
	ModePublish             uint64 = 1 << 17
	ModeSubscribe           uint64 = 1 << 18
	ModePresenceSubscribe   uint64 = 1 << 19
	ModeAnnotationPublish   uint64 = 1 << 21
	ModeAnnotationSubscribe uint64 = 1 << 22
	ModeObjectSubscribe     uint64 = 1 << 24
	ModeObjectPublish       uint64 = 1 << 25

	ModeAll = ModePresence | ModePublish | ModeSubscribe | ModePresenceSubscribe |
		ModeAnnotationPublish | ModeAnnotationSubscribe | ModeObjectSubscribe | ModeObjectPublish
)

// Opt is a field whose zero value says something else than its absence: channel "" is a channel, no channel is none.
type Opt[T any] struct {
	V  T
	OK bool
}

// Some returns a field that is there, whatever its value.
func Some[T any](v T) Opt[T] { return Opt[T]{V: v, OK: true} }

// ProtocolMessage is what travels in one frame. A zero field is absent on the wire, but for Action, which is
// always written, and the fields that are Opt. Of the lists and Params nil is absent and an empty one is written
// as such: a client that gets a SYNC without presence throws.
type ProtocolMessage struct {
	Action            Action
	Flags             uint64
	Count             int        // protocol messages that an ACK or NACK answers
	MsgSerial         Opt[int64] // 0 is the first publish of a connection
	ID                string
	Channel           Opt[string]
	ChannelSerial     string
	ConnectionID      string
	ConnectionKey     string
	Timestamp         int64 // ms since 1970
	Params            map[string]string
	Error             *ErrorInfo
	ConnectionDetails *ConnectionDetails
	AccessToken       string          // of auth
	Results           []PublishResult // res of an ACK, one for each protocol message it answers
	Messages          []Message
	Presence          []PresenceMessage
	Annotations       []Annotation
}

// ConnectionDetails is what CONNECTED tells a client of its connection. Times are ms, sizes bytes, rates per second.
type ConnectionDetails struct {
	ClientID           string
	ConnectionKey      string
	ConnectionStateTTL int64
	MaxIdleInterval    int64
	MaxMessageSize     int64
	MaxFrameSize       int64
	MaxInboundRate     int64
	ServerID           string
}

// PublishResult holds the serials of the messages of one protocol message, in their order. It is written with
// serials even if it has none. A message that got no serial has "", which is null on the wire.
type PublishResult struct {
	Serials []string
}

// Decode reads one protocol message from a frame. It keeps nothing of p. Beside an error it returns what could be
// read nevertheless: Action, Channel and MsgSerial are then good for telling the client which publish is refused,
// and hold zero where they were not found.
func Decode(f Format, p []byte) (ProtocolMessage, error) {
	r := newReader(f, p)
	var m ProtocolMessage
	m.read(&r)
	return m, r.end()
}

// Append writes the message at the end of dst.
func (m *ProtocolMessage) Append(dst []byte, f Format) []byte {
	w := writer{format: f, buf: slices.Grow(dst, m.size())}
	m.write(&w)
	return w.buf
}

func (m *ProtocolMessage) read(r *reader) {
	acted := false
	for c := r.object(); r.next(&c); {
		switch string(c.key) {
		case "action":
			acted = r.kind() != kindNull
			m.Action = Action(r.intUpTo(math.MaxUint8))
		case "flags":
			m.Flags = uint64(r.intUpTo(math.MaxInt64))
		case "count":
			m.Count = int(r.intUpTo(math.MaxInt32))
		case "msgSerial":
			m.MsgSerial = r.optInt()
		case "id":
			m.ID = r.text()
		case "channel":
			m.Channel = r.optText()
		case "channelSerial":
			m.ChannelSerial = r.text()
		case "connectionId":
			m.ConnectionID = r.text()
		case "connectionKey":
			m.ConnectionKey = r.text()
		case "timestamp":
			m.Timestamp = r.int()
		case "params":
			m.Params = r.params()
		case "error":
			m.Error = r.errorInfo()
		case "connectionDetails":
			m.ConnectionDetails = r.connectionDetails()
		case "auth":
			m.AccessToken = r.accessToken()
		case "res":
			m.Results = r.results()
		case "messages":
			m.Messages = r.messages()
		case "presence":
			m.Presence = r.presence()
		case "annotations":
			m.Annotations = r.annotations()
		default:
			r.skip()
		}
	}
	if !acted {
		r.note("has no action")
	}
}

func (r *reader) accessToken() (token string) {
	if r.null() {
		return ""
	}
	for c := r.object(); r.next(&c); {
		if string(c.key) == "accessToken" {
			token = r.text()
		} else {
			r.skip()
		}
	}
	return token
}

func (r *reader) connectionDetails() *ConnectionDetails {
	if r.null() {
		return nil
	}
	d := &ConnectionDetails{}
	for c := r.object(); r.next(&c); {
		switch string(c.key) {
		case "clientId":
			d.ClientID = r.text()
		case "connectionKey":
			d.ConnectionKey = r.text()
		case "connectionStateTtl":
			d.ConnectionStateTTL = r.int()
		case "maxIdleInterval":
			d.MaxIdleInterval = r.int()
		case "maxMessageSize":
			d.MaxMessageSize = r.int()
		case "maxFrameSize":
			d.MaxFrameSize = r.int()
		case "maxInboundRate":
			d.MaxInboundRate = r.int()
		case "serverId":
			d.ServerID = r.text()
		default:
			r.skip()
		}
	}
	return d
}

func (r *reader) results() []PublishResult {
	if r.null() {
		return nil
	}
	list := []PublishResult{}
	for c := r.list(); r.more(&c) && !r.full(&c); {
		list = append(list, PublishResult{Serials: r.serials()})
	}
	return list
}

func (r *reader) serials() (list []string) {
	for c := r.object(); r.next(&c); {
		if string(c.key) != "serials" {
			r.skip()
			continue
		}
		list = nil
		if r.null() {
			continue
		}
		for c := r.list(); r.more(&c) && !r.full(&c); {
			list = append(list, r.text())
		}
	}
	return list
}

func (m *ProtocolMessage) write(w *writer) {
	g := w.object()
	w.zeroIntField(&g, "action", int64(m.Action))
	w.intField(&g, "flags", int64(m.Flags))
	w.intField(&g, "count", int64(m.Count))
	if m.MsgSerial.OK {
		w.zeroIntField(&g, "msgSerial", m.MsgSerial.V)
	}
	w.textField(&g, "id", m.ID)
	w.optTextField(&g, "channel", m.Channel)
	w.textField(&g, "channelSerial", m.ChannelSerial)
	w.textField(&g, "connectionId", m.ConnectionID)
	w.textField(&g, "connectionKey", m.ConnectionKey)
	w.intField(&g, "timestamp", m.Timestamp)
	if m.Params != nil {
		w.key(&g, "params")
		w.params(m.Params)
	}
	if m.Error != nil {
		w.key(&g, "error")
		m.Error.write(w)
	}
	if m.ConnectionDetails != nil {
		w.key(&g, "connectionDetails")
		m.ConnectionDetails.write(w)
	}
	if m.AccessToken != "" {
		w.key(&g, "auth")
		auth := w.object()
		w.textField(&auth, "accessToken", m.AccessToken)
		w.end(auth)
	}
	if m.Results != nil {
		w.key(&g, "res")
		w.results(m.Results)
	}
	m.writeLists(w, &g)
	w.end(g)
}

func (m *ProtocolMessage) writeLists(w *writer, g *group) {
	if m.Messages != nil {
		w.key(g, "messages")
		w.messages(m.Messages)
	}
	if m.Presence != nil {
		w.key(g, "presence")
		w.presence(m.Presence)
	}
	if m.Annotations != nil {
		w.key(g, "annotations")
		w.annotations(m.Annotations)
	}
}

// params writes a map in the order of its keys, so that equal messages are equal bytes.
func (w *writer) params(m map[string]string) {
	keys := make([]string, 0, 16) // enough for all that the protocol knows, on the stack
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	g := w.object()
	for _, key := range keys {
		w.key(&g, key)
		w.text(m[key])
	}
	w.end(g)
}

func (d *ConnectionDetails) write(w *writer) {
	g := w.object()
	w.textField(&g, "clientId", d.ClientID)
	w.textField(&g, "connectionKey", d.ConnectionKey)
	w.intField(&g, "connectionStateTtl", d.ConnectionStateTTL)
	w.intField(&g, "maxIdleInterval", d.MaxIdleInterval)
	w.intField(&g, "maxMessageSize", d.MaxMessageSize)
	w.intField(&g, "maxFrameSize", d.MaxFrameSize)
	w.intField(&g, "maxInboundRate", d.MaxInboundRate)
	w.textField(&g, "serverId", d.ServerID)
	w.end(g)
}

func (w *writer) results(list []PublishResult) {
	res := w.list()
	for _, result := range list {
		w.item(&res)
		g := w.object()
		w.key(&g, "serials")
		serials := w.list()
		for _, serial := range result.Serials {
			w.item(&serials)
			if serial == "" {
				w.null()
			} else {
				w.text(serial)
			}
		}
		w.end(serials)
		w.end(g)
	}
	w.end(res)
}

// size estimates how many bytes the message takes in either format, rather too many than too few.
func (m *ProtocolMessage) size() int {
	n := 256 + len(m.ID) + len(m.Channel.V) + len(m.ChannelSerial) + len(m.ConnectionID) + len(m.ConnectionKey) + len(m.AccessToken)
	for key, value := range m.Params {
		n += len(key) + len(value) + 8
	}
	if m.Error != nil {
		n += 64 + len(m.Error.Message) + len(m.Error.Href)
	}
	if d := m.ConnectionDetails; d != nil {
		n += 256 + len(d.ClientID) + len(d.ConnectionKey) + len(d.ServerID)
	}
	for i := range m.Results {
		n += 16
		for _, serial := range m.Results[i].Serials {
			n += len(serial) + 8
		}
	}
	for i := range m.Messages {
		n += m.Messages[i].size()
	}
	for i := range m.Presence {
		n += m.Presence[i].size()
	}
	for i := range m.Annotations {
		n += m.Annotations[i].size()
	}
	return n
}
