package main

import (
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"letshare/ably"
)

// ablyRules are what Ably's clients go by. Immutable, a part of the rules that a reload replaces.
type ablyRules struct {
	auth            *ablyAuth
	conn            *connLimits // of an Ably client's connection
	maxMessage      int         // bytes of one publish
	messages        rate        // of one connection
	maxChannels     int         // of one connection, 0: no limit
	maxAttachments  int         // to one channel, 0: no limit
	maxMembers      int         // of one channel's presence set, 0: no limit
	connectionState time.Duration
	history         time.Duration
	persisted       time.Duration
	strict          bool // LetShare members may rely on "from"
	namespaces      map[string]AblyNamespace
	full            *ably.ErrorInfo // says maxAttachments
	crowded         *ably.ErrorInfo // says maxMembers
	tooMany         *ably.ErrorInfo // says maxChannels
	tooLarge        *ably.ErrorInfo // says maxMessage
}

// newAblyRules takes them from a valid configuration; nil when the Ably protocol is off.
func newAblyRules(cfg *Config) (*ablyRules, error) {
	auth, err := newAblyAuth(cfg)
	if auth == nil || err != nil {
		return nil, err
	}
	a := &cfg.Ably
	r := &ablyRules{
		auth:            auth,
		maxMessage:      a.MaxMessageBytes,
		messages:        rate{float64(a.MessagesPerSecond), ablyBurstSeconds * float64(a.MessagesPerSecond)},
		maxChannels:     a.MaxChannelsPerConnection,
		maxAttachments:  a.MaxAttachmentsPerChannel,
		maxMembers:      a.MaxPresenceMembers,
		connectionState: seconds(a.ConnectionStateSeconds),
		history:         seconds(a.HistorySeconds),
		persisted:       seconds(a.PersistedSeconds),
		strict:          cfg.WebSocket.StrictIdentity,
		namespaces:      make(map[string]AblyNamespace),
		full: &ably.ErrorInfo{Code: 90000, StatusCode: 400,
			Message: fmt.Sprintf("the channel is full: at most %d connections may be attached", a.MaxAttachmentsPerChannel)},
		crowded: &ably.ErrorInfo{Code: 91003, StatusCode: 400,
			Message: fmt.Sprintf("the presence set is full: it has %d members at most", a.MaxPresenceMembers)},
		tooMany: &ably.ErrorInfo{Code: 90010, StatusCode: 400,
			Message: fmt.Sprintf("too many channels: a connection may be attached to %d at most", a.MaxChannelsPerConnection)},
		tooLarge: &ably.ErrorInfo{Code: 40009, StatusCode: 400,
			Message: fmt.Sprintf("the message is too large: %d bytes are the most", a.MaxMessageBytes)},
	}
	for _, n := range a.Namespaces {
		r.namespaces[n.ID] = n
	}
	r.conn = newConnLimits(&cfg.WebSocket)
	r.conn.maxMessage = ablyFrameGrowth*a.MaxMessageBytes + ablyFrameSlack
	r.conn.messageBudget = 2*int64(r.conn.maxMessage) + messageBudgetSlack
	// The client's own idle timer is told of ablyMaxIdle.
	r.conn.pingInterval = min(r.conn.pingInterval, ablyMaxIdle)
	return r, nil
}

// sessionPatience is how long a session waits for its client.
func (r *rules) sessionPatience() time.Duration {
	if r.ably == nil {
		return 0
	}
	return r.ably.connectionState
}

// limits are those of an Ably connection, where others have these.
func (a *ablyConn) limits(others *connLimits) *connLimits {
	if rules := a.conn.server.rules.Load().ably; rules != nil {
		return rules.conn
	}
	return others
}

// namespace is what is special about a channel: what the namespace has in front of the first colon, or as its whole name.
func (r *ablyRules) namespace(channel string) AblyNamespace {
	if len(r.namespaces) == 0 {
		return AblyNamespace{}
	}
	id, _, _ := strings.Cut(channel, ":")
	return r.namespaces[id]
}

// What the Ably protocol refuses, by Ably's numbers.
var (
	errAblyUnknownSerial = &ably.ErrorInfo{Code: 80012, StatusCode: 404, Message: "the channel serial is not known here: messages may be missing"}
	errAblyExpiredSerial = &ably.ErrorInfo{Code: 90003, StatusCode: 404, Message: "messages since then are no longer kept: some are missing"}
	errAblyLongBacklog   = &ably.ErrorInfo{Code: 90004, StatusCode: 404, Message: "too many messages since then: some are missing"}
	errAblyBadName       = &ably.ErrorInfo{Code: 40010, StatusCode: 400, Message: "this is not a channel's name"}
	errAblyBadFilter     = &ably.ErrorInfo{Code: 40010, StatusCode: 400, Message: "the channel's filter cannot be used: it is an expression over name, clientId, headers and extras, in base64"}
	errAblyBadParams     = &ably.ErrorInfo{Code: 40000, StatusCode: 400, Message: "a channel parameter cannot be read"}
	errAblyBadData       = &ably.ErrorInfo{Code: 40013, StatusCode: 400, Message: "the message cannot be read"}
	errAblyBadID         = &ably.ErrorInfo{Code: 40031, StatusCode: 400, Message: "the ids of one publish must share a base and end in :0, :1, …"}
	errAblyNotAllowed    = &ably.ErrorInfo{Code: 40160, StatusCode: 401, Message: "the capability does not allow this on the channel"}
	errAblyMode          = &ably.ErrorInfo{Code: 40165, StatusCode: 401, Message: "the channel was attached without this mode"}
	errAblyClientID      = &ably.ErrorInfo{Code: 40012, StatusCode: 400, Message: "the clientId is not the connection's"}
	errAblyRate          = &ably.ErrorInfo{Code: 42911, StatusCode: 429, Message: "too many messages a second from this connection"}
	errAblyNoMemory      = &ably.ErrorInfo{Code: 91003, StatusCode: 503, Message: "the server has no memory left for more members"}
	errAblyUnsupported   = &ably.ErrorInfo{Code: 40020, StatusCode: 400, Message: "this server does not do that"}
	errAblyMalformed     = &ably.ErrorInfo{Code: 40000, StatusCode: 400, Message: "too many messages that cannot be read"}
	errAblyBadKey        = &ably.ErrorInfo{Code: 80018, StatusCode: 400, Message: "the connection cannot be resumed: its key is not known here"}
	errAblyGone          = &ably.ErrorInfo{Code: 80008, StatusCode: 400, Message: "the connection cannot be resumed: it has been away for too long"}
	errAblyOtherClient   = &ably.ErrorInfo{Code: 40102, StatusCode: 401, Message: "the credentials are not those of the connection"}
	errAblyVersion       = &ably.ErrorInfo{Code: 40025, StatusCode: 400, Message: "this version of the protocol is not spoken any more"}
	errAblyStopping      = &ably.ErrorInfo{Code: 80003, StatusCode: 503, Message: "the server is stopping or restarting"}
	errAblyBusy          = &ably.ErrorInfo{Code: 80003, StatusCode: 503, Message: "the server takes no more connections now"}
	errAblyRevoked       = &ably.ErrorInfo{Code: 40141, StatusCode: 401, Message: "the token has been revoked"}
	errAblyExpired       = &ably.ErrorInfo{Code: 40142, StatusCode: 401, Message: "the token has expired"}
	errAblyCut           = &ably.ErrorInfo{Code: 80003, StatusCode: 503, Message: "the connection was cut"}
)

// ablyFrame makes the WebSocket frame of a protocol message.
func ablyFrame(format ably.Format, m *ably.ProtocolMessage) []byte {
	const header = 10 // the longest
	opcode := byte(opText)
	if format == ably.Msgpack {
		opcode = opBinary
	}
	size := header + ablyEntryBytes
	for i := range m.Messages {
		size += ablyEntryBytes + ablyMessageSize(&m.Messages[i])
	}
	for i := range m.Presence {
		size += presenceCost(&m.Presence[i])
	}
	frame := m.Append(make([]byte, header, size), format)
	size = len(frame) - header
	begin := header - frameHeaderSize(size)
	appendFrameHeader(frame[begin:begin], opcode, size)
	return frame[begin:]
}

// randomText returns n random characters out of letters and digits, 5 bits each.
func randomText(n int) string {
	const alphabet = "abcdefghijkmnpqrstuvwxyz23456789"
	b := make([]byte, n)
	rand.Read(b) // never fails
	for i := range b {
		b[i] = alphabet[b[i]%32]
	}
	return string(b)
}
