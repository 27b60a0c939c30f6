package ably

// What Message.Action can be.
const (
	MessageCreate uint8 = iota
	MessageUpdate
	MessageDelete
	MessageMeta
	MessageSummary
	MessageAppend
)

// Message is one message of a channel. Its action is always written, as the SDK itself does: without one a
// message counts as created, so that 0 is harmless.
type Message struct {
	ID            string
	Name          Opt[string]
	Data          Data
	Encoding      string // steps between "/", first applied first; without the base64 that Data stands for
	ClientID      string
	ConnectionID  string
	ConnectionKey string // of a publish by REST in the name of a connection
	Timestamp     int64  // ms since 1970
	Extras        []byte // a JSON object as it came; nil: none
	Action        uint8
	Serial        string
	Version       *Version
	Annotations   []byte // the summary of its annotations, a JSON object; nil: none
}

// Version tells of the last change of a message.
type Version struct {
	Serial      string
	Timestamp   int64 // ms since 1970
	ClientID    string
	Description string
	Metadata    []byte // a JSON object; nil: none
}
