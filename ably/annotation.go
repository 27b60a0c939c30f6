package ably

// What Annotation.Action can be.
const (
	AnnotationCreate uint8 = iota
	AnnotationDelete
)

// Annotation is something said of a message. Its action is always written: without one the SDK knows none.
type Annotation struct {
	ID            string
	Action        uint8
	Serial        string
	MessageSerial string
	Type          string
	Name          Opt[string]
	Count         Opt[int64]
	ClientID      string
	ConnectionID  string
	Data          Data
	Encoding      string // as of Message
	Timestamp     int64  // ms since 1970
	Extras        []byte // a JSON object; nil: none
}
