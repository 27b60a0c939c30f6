package main

// Refusal is what a client is told when it may not do something: a numeric code (HTTP's meaning),
// a stable reason (a slug that clients may branch on and that names its counter) and a short human text.
// Details for the operator go to the log alone. Values are immutable.
type Refusal struct {
	Code    int
	Reason  Reason
	Message string
}

// Reason is the stable slug of a refusal. Its String is on the wire, in logs and in metrics.
type Reason uint8

// The reasons. Before the upgrade they are answers of HTTP, afterwards error messages of the protocol.
const (
	TokenMissing Reason = iota
	TokenMalformed
	TokenSignature
	TokenExpired
	TokenNotYetValid
	TokenClaims
	OriginNotAllowed
	NotAnUpgrade
	BadUserID
	TooManyConnections
	TooManyConnectionsFromAddress
	Draining
	BadJSON
	BadType
	BadChannel
	BadEvent
	BadData
	BadID
	RoomNotAllowed
	NotSubscribed
	FromMismatch
	EventNotAllowed
	RoomFull
	TooManyRooms
	TooManyEvents
	RateLimited
	NotFound
	MethodNotAllowed
	TurnDisabled
	reasonCount // number of reasons, not one of them
)

var reasonSlugs = [reasonCount]string{
	TokenMissing:                  "token_missing",
	TokenMalformed:                "token_malformed",
	TokenSignature:                "token_signature",
	TokenExpired:                  "token_expired",
	TokenNotYetValid:              "token_not_yet_valid",
	TokenClaims:                   "token_claims",
	OriginNotAllowed:              "origin_not_allowed",
	NotAnUpgrade:                  "not_an_upgrade",
	BadUserID:                     "bad_user_id",
	TooManyConnections:            "too_many_connections",
	TooManyConnectionsFromAddress: "too_many_connections_from_address",
	Draining:                      "draining",
	BadJSON:                       "bad_json",
	BadType:                       "bad_type",
	BadChannel:                    "bad_channel",
	BadEvent:                      "bad_event",
	BadData:                       "bad_data",
	BadID:                         "bad_id",
	RoomNotAllowed:                "room_not_allowed",
	NotSubscribed:                 "not_subscribed",
	FromMismatch:                  "from_mismatch",
	EventNotAllowed:               "event_not_allowed",
	RoomFull:                      "room_full",
	TooManyRooms:                  "too_many_rooms",
	TooManyEvents:                 "too_many_events",
	RateLimited:                   "rate_limited",
	NotFound:                      "not_found",
	MethodNotAllowed:              "method_not_allowed",
	TurnDisabled:                  "turn_disabled",
}

// String returns the reason's slug.
func (r Reason) String() string { return reasonSlugs[r] }

// What the LetShare protocol refuses. The messages are shown to people by the app.
var (
	refuseBadJSON         = &Refusal{400, BadJSON, "The message is not a JSON object, or names a key twice."}
	refuseBadType         = &Refusal{400, BadType, `"type" must be subscribe, unsubscribe or publish.`}
	refuseBadChannel      = &Refusal{400, BadChannel, `"channel" must be 2 to 12 Chinese characters, letters, digits, spaces, "_" or "-".`}
	refuseBadEvent        = &Refusal{400, BadEvent, `"event" must be a string, and not too long.`}
	refuseBadData         = &Refusal{400, BadData, `"data" must be a JSON object, with one "type" and one "from" at most, and no file transfer.`}
	refuseBadID           = &Refusal{400, BadID, `"id" must be a number or a string of at most 64 bytes.`}
	refuseRoomNotAllowed  = &Refusal{403, RoomNotAllowed, "Your token is for another room."}
	refuseNotSubscribed   = &Refusal{403, NotSubscribed, "Subscribe to the room before publishing to it."}
	refuseFromMismatch    = &Refusal{403, FromMismatch, `"from" must be your own user id.`}
	refuseEventNotAllowed = &Refusal{403, EventNotAllowed, "You may only listen to your own signals."}
	refuseRateLimited     = &Refusal{429, RateLimited, "Too many messages. Slow down."}
)

// What HTTP refuses, besides tokens and origins, which auth.go and origin.go refuse.
var (
	refuseDraining           = &Refusal{503, Draining, "the server is stopping or restarting"}
	refuseNoUpgrade          = &Refusal{426, NotAnUpgrade, "this is a WebSocket endpoint: send an Upgrade over HTTP/1.1; behind a proxy, let it forward the Upgrade and Connection headers"}
	refuseVersion            = &Refusal{426, NotAnUpgrade, "only version 13 of the WebSocket protocol is spoken here"}
	refuseBadUpgrade         = &Refusal{400, NotAnUpgrade, "the upgrade request is malformed"}
	refuseMethod             = &Refusal{405, MethodNotAllowed, "this method is not allowed here"}
	refuseNotFound           = &Refusal{404, NotFound, "there is nothing at this path"}
	refuseTooManyConnections = &Refusal{503, TooManyConnections, "the server is full, try again later"}
	refuseTooManyFromAddress = &Refusal{503, TooManyConnectionsFromAddress, "too many connections from your address"}
)
