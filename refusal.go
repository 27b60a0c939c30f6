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
	RelayDisabled
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
	RelayDisabled:                 "relay_disabled",
}

// String returns the reason's slug.
func (r Reason) String() string { return reasonSlugs[r] }
