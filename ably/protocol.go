package ably

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
