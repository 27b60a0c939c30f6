package ably

// PresenceAction says what became of a member.
type PresenceAction uint8

// The presence actions by their numbers on the wire.
const (
	PresenceAbsent PresenceAction = iota
	PresencePresent
	PresenceEnter
	PresenceLeave
	PresenceUpdate
)

// PresenceMessage is what a member did, or that it is there. Its action is always written.
type PresenceMessage struct {
	ID           string
	Action       PresenceAction
	ClientID     string
	ConnectionID string
	Data         Data
	Encoding     string // as of Message
	Timestamp    int64  // ms since 1970
	Extras       []byte // a JSON object; nil: none
}
