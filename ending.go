package main

// Ending is why a connection ended. Every connection ends once, with one of these; each has its counter.
// Its slug is the close frame's text, the log's word and the metric's label.
type Ending uint8

// The endings. notEnded is the zero value: the connection lives.
const (
	notEnded        Ending = iota
	PeerClosed             // the client sent a close frame
	ConnectionLost         // the socket ended or failed without one
	GoingAway              // the server stops
	ProtocolError          // RFC 6455 broken
	InvalidUTF8            // in a text frame or a close reason
	MessageTooBig          // over websocket.max_message_bytes
	InternalError          // a panic of ours
	FloodedMessages        // refusals or bytes over the rate for too long
	TooManyErrors          // protocol errors of code 400 in a row
	MessageTimeout         // a message took too long from its first byte to its last
	MessageBudget          // a message took too many raw bytes
	PingFlood              // more pings a second than allowed
	MemoryPressure         // the largest holder when buffered bytes ran out
	IdleTimeout            // silence for longer than websocket.idle_timeout_seconds
	ExpiredToken           // the token's exp and the leeway have passed
	SlowConsumer           // its outbox overflowed, or its socket took nothing for writeTimeout
	ClosedByClient         // an Ably client said CLOSE
	LeftByClient           // an Ably client said DISCONNECT; it may come back
	FailedByServer         // an Ably client got an ERROR of its connection
	Superseded             // an Ably client came back while its old socket still looked alive
	AccessWithdrawn        // the right to be here was taken away while connected
	RevokedToken           // an Ably client's token was revoked while connected
	endingCount            // number of endings, not one of them
)

// overLimit reports whether the client went beyond a limit: the operator is told, as of a refusal at the door.
func (e Ending) overLimit() bool {
	switch e {
	case FloodedMessages, TooManyErrors, MessageTimeout, MessageBudget, PingFlood, MemoryPressure, SlowConsumer:
		return true
	}
	return false
}

// endings gives each ending its slug and its close code. Code 0: the connection is cut without a close frame
// (or, for PeerClosed, the peer's own code is sent back). Codes from 4000 are ours (RFC 6455 section 7.4.2).
var endings = [endingCount]struct {
	slug string
	code uint16
}{
	notEnded:        {"alive", 0},
	PeerClosed:      {"peer_closed", 0},
	ConnectionLost:  {"connection_lost", 0},
	GoingAway:       {"going_away", 1001},
	ProtocolError:   {"protocol_error", 1002},
	InvalidUTF8:     {"invalid_utf8", 1007},
	MessageTooBig:   {"message_too_big", 1009},
	InternalError:   {"internal_error", 1011},
	FloodedMessages: {"rate_limited", 1008},
	TooManyErrors:   {"too_many_errors", 1008},
	MessageTimeout:  {"message_timeout", 1008},
	MessageBudget:   {"message_budget", 1008},
	PingFlood:       {"ping_flood", 1008},
	MemoryPressure:  {"memory_pressure", 1013},
	IdleTimeout:     {"idle_timeout", 0},
	ExpiredToken:    {"token_expired", 4001},
	SlowConsumer:    {"slow_consumer", 4002},
	ClosedByClient:  {"closed", 1000},
	LeftByClient:    {"left", 1000},
	FailedByServer:  {"failed", 1000},
	Superseded:      {"superseded", 4004},
	AccessWithdrawn: {"access_withdrawn", 4003},
	RevokedToken:    {"token_revoked", 4001},
}

// String returns the ending's slug.
func (e Ending) String() string { return endings[e].slug }

// frame is the close frame that tells the client, nil when it is cut without a word.
func (e Ending) frame() []byte {
	if endings[e].code == 0 {
		return nil
	}
	return closeFrame(endings[e].code, endings[e].slug)
}
