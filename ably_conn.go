package main

import (
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"letshare/ably"
)

// ablyConn is one connection's side of the Ably protocol: it turns the client's messages into calls on channels, and answers
// them in order. What channels have to say is put into the outbox by the shards. Owned by the read goroutine but for the atomics.
type ablyConn struct {
	// Immutable.
	conn       *conn
	session    *ablySession
	format     ably.Format
	echo       bool          // it wants its own messages back
	heartbeats bool          // it does not see WebSocket pings: it wants HEARTBEAT messages
	generation uint64        // of the session's sockets; set by begin
	remain     time.Duration // for how long its members stay when its socket is lost

	// Read goroutine.
	rules    *ablyRules
	identity ablyIdentity
	channels map[string]*ablyChannel // attached, by the name as the client writes it
	present  map[string]bool         // rooms where the connection has, or had, members; nil until the first
	inflow   bucket                  // messages
	control  bucket                  // what has no rate of its own: ATTACH, DETACH, AUTH
	garbled  int                     // messages in a row that could not be read
	closing  bool                    // the client has said CLOSE: it does not come back
	call     ablyCall                // reused: one is under way at a time

	// Atomic: written by the read goroutine and at the upgrade, read by the sweep and by a reload.
	grounds atomic.Pointer[ablyIdentity] // what its being here rests on
	renewal atomic.Bool                  // the client has been asked for a new token, or need not be
}

// ablyChannel is a channel that the client is attached to, as the read goroutine knows it.
type ablyChannel struct {
	room    string
	asked   uint64 // modes asked for, 0: the default ones. What is granted of them changes with the capability
	granted uint64
}

// take takes one message. p is scratch: nothing may keep it.
func (a *ablyConn) take(p []byte) {
	if rules := a.conn.server.rules.Load().ably; rules != nil {
		a.rules = rules
	}
	m, err := ably.Decode(a.format, p)
	if err != nil {
		a.refuseGarbled(&m)
		return
	}
	a.garbled = 0
	a.pace(m.Action)
	switch m.Action {
	case ably.ActionHeartbeat:
		if m.ID != "" {
			a.send(&ably.ProtocolMessage{Action: ably.ActionHeartbeat, ID: m.ID})
		}
	case ably.ActionAttach:
		a.attach(&m)
	case ably.ActionDetach:
		a.detach(&m)
	case ably.ActionMessage:
		a.publish(&m)
	case ably.ActionPresence:
		a.enter(&m)
	case ably.ActionSync:
		a.resync(&m)
	case ably.ActionAnnotation:
		a.annotate(&m)
	case ably.ActionObject:
		a.nack(&m, errAblyNoObjectModes)
	case ably.ActionAuth:
		a.authorize(m.AccessToken)
	case ably.ActionClose:
		a.closing = true
		a.conn.outbox.end(ClosedByClient)
	case ably.ActionDisconnect:
		a.conn.outbox.end(LeftByClient)
	}
}

// pace slows down a client that attaches without end: each ATTACH of a crowded channel may be answered with all who are present.
// It is not refused, for after a reconnect the SDK attaches to all its channels at once.
func (a *ablyConn) pace(action ably.Action) {
	if action != ably.ActionAttach && action != ably.ActionDetach && action != ably.ActionAuth {
		return
	}
	limit := rate{ablyControlsPerSecond, float64(ablyControlBurst + a.rules.maxChannels)}
	a.control.refill(limit, a.conn.wire.clock())
	a.control.used++
	if debt := a.control.debt(limit); debt > 0 {
		a.conn.wire.wait(debt)
	}
}

// refuseGarbled answers what could not be read as a whole: by what could be read of it, where that says what it was.
func (a *ablyConn) refuseGarbled(m *ably.ProtocolMessage) {
	if a.garbled++; a.garbled >= maxErrorsInARow {
		a.fail(errAblyMalformed)
		return
	}
	switch {
	case m.MsgSerial.OK && (m.Action == ably.ActionMessage || m.Action == ably.ActionPresence || m.Action == ably.ActionAnnotation):
		a.nack(m, errAblyBadData)
	case m.Action == ably.ActionAttach && m.Channel.OK:
		a.failChannel(m.Channel.V, errAblyBadParams)
	default:
		a.conn.server.counters.refuse(BadData)
	}
}

// ask lets a channel's shard carry out a.call, which stands there with its answer afterwards.
func (a *ablyConn) ask(room string) {
	a.conn.ask(op{kind: opAbly, member: &a.conn.member, room: room, ably: &a.call})
}

// attach attaches to a channel, or again: the SDK does so after every reconnect.
func (a *ablyConn) attach(m *ably.ProtocolMessage) {
	label := m.Channel.V
	name, ok := parseChannelName(label)
	if !ok {
		a.failChannel(label, errAblyBadName)
		return
	}
	asked, wishes, failure := readAttach(m, name)
	if failure != nil {
		a.failChannel(label, failure)
		return
	}
	if asked&ably.ModeAnnotationSubscribe != 0 && !a.rules.namespace(name.room).MutableMessages {
		a.failChannel(label, errAblyImmutable)
		return
	}
	granted := a.grant(name.room, asked)
	if asked != 0 && asked&^ablyObjectModes == 0 {
		a.failChannel(label, errAblyNoObjectModes)
		return
	}
	if granted == 0 || wishes.occupancy != 0 && !a.identity.capability.allows(name.room, ablyOpChannelMetadata) {
		a.failChannel(label, errAblyNotAllowed)
		return
	}
	if _, again := wishes.params["modes"]; again {
		wishes.params["modes"] = modesText(granted)
	}
	known := a.channels[label]
	if known == nil && a.rules.maxChannels > 0 && len(a.channels) >= a.rules.maxChannels {
		a.failChannel(label, a.rules.tooMany)
		return
	}
	a.call = ablyCall{kind: ablyAttach, attach: wishes, attachment: &attachment{
		member: &a.conn.member, name: label, connectionID: a.session.id, echo: a.echo, granted: granted,
		filter: wishes.filter, watches: wishes.occupancy,
	}}
	a.ask(name.room)
	if a.call.failure != nil {
		a.failChannel(label, a.call.failure)
		return
	}
	a.channels[label] = &ablyChannel{room: name.room, asked: asked, granted: granted}
}

// grant is what the capability of the moment grants of the modes asked for on a channel.
func (a *ablyConn) grant(room string, asked uint64) uint64 {
	if asked == 0 {
		asked = ablyDefaultModes
	}
	granted := asked & modesFor(a.identity.capability.ops(room)) &^ ablyObjectModes
	if strings.HasPrefix(room, metaPrefix) {
		granted &= ably.ModeSubscribe // the server alone speaks there
	}
	return granted
}

// detach detaches from a channel. One that it is not attached to is left all the same.
func (a *ablyConn) detach(m *ably.ProtocolMessage) {
	label := m.Channel.V
	if name, ok := parseChannelName(label); ok && (a.channels[label] != nil || a.present[name.room]) {
		delete(a.channels, label)
		a.call = ablyCall{kind: ablyDetach, name: label, connectionID: a.session.id}
		a.ask(name.room)
		a.noteDetached(name.room)
		return
	}
	a.send(&ably.ProtocolMessage{Action: ably.ActionDetached, Channel: ably.Some(label)})
}

// publish publishes messages, and acknowledges or refuses them: never both, never neither.
func (a *ablyConn) publish(m *ably.ProtocolMessage) {
	if changesMessages(m.Messages) {
		a.change(m)
		return
	}
	name, failure := a.may(m, len(m.Messages), ablyOpPublish, ably.ModePublish)
	if failure == nil {
		failure = a.rules.complete(m.Messages, a.identity.clientID, a.session.id+":"+strconv.FormatInt(m.MsgSerial.V, 10))
	}
	if failure != nil {
		a.nack(m, failure)
		return
	}
	var serials []string
	if len(m.Messages) > 0 {
		a.call = ablyCall{kind: ablyPublish, message: &publication{message: ably.ProtocolMessage{
			Action: ably.ActionMessage, ConnectionID: a.session.id, Messages: m.Messages,
		}}}
		a.ask(name.room)
		for i := range a.call.done.message.Messages {
			serials = append(serials, a.call.done.message.Messages[i].Serial)
		}
		a.call = ablyCall{} // keeps no message alive
	}
	a.ack(m, serials)
}

// ack acknowledges a message that has a number.
func (a *ablyConn) ack(m *ably.ProtocolMessage, serials []string) {
	a.conn.server.account.counts.take(m, statRealtime, statRealtimePresence, 1)
	if m.MsgSerial.OK {
		a.send(&ably.ProtocolMessage{Action: ably.ActionAck, MsgSerial: m.MsgSerial, Count: 1, Results: []ably.PublishResult{{Serials: serials}}})
	}
}

// may says whether the client may now send so many items on a channel that need an operation, and a mode where it is attached.
func (a *ablyConn) may(m *ably.ProtocolMessage, items int, op ablyOp, mode uint64) (channelName, *ably.ErrorInfo) {
	name, ok := parseChannelName(m.Channel.V)
	if !ok {
		return name, errAblyBadName
	}
	if !a.inflow.take(a.rules.messages, float64(max(1, items)), a.conn.wire.clock()) {
		return name, errAblyRate
	}
	if !a.identity.capability.allows(name.room, op) || strings.HasPrefix(name.room, metaPrefix) {
		return name, errAblyNotAllowed
	}
	if channel := a.channels[m.Channel.V]; channel != nil && channel.granted&mode == 0 {
		return name, errAblyMode
	}
	return name, nil
}

// complete checks the messages of one publish and fills in what the client has left out: its clientId, and ids made of base.
func (r *ablyRules) complete(messages []ably.Message, clientID, base string) *ably.ErrorInfo {
	if len(messages) > maxAblyMessages {
		return errAblyBadData
	}
	size := 0
	for i := range messages {
		m := &messages[i]
		switch {
		case m.Action != ably.MessageCreate:
			return errAblyUnsupported
		case m.ClientID == "" && clientID != ablyAnyClient:
			m.ClientID = clientID
		case m.ClientID == ablyAnyClient, m.ClientID != "" && clientID != ablyAnyClient && m.ClientID != clientID:
			return errAblyClientID
		}
		m.ConnectionID, m.ConnectionKey, m.Serial, m.Version, m.Annotations = "", "", "", nil, nil
		size += ablyMessageSize(m)
	}
	if size > r.maxMessage {
		return r.tooLarge
	}
	return completeIDs(messages, base)
}

// completeIDs gives messages the ids that they lack. Ids of a client's own, by which it may repeat a publish, share a base.
func completeIDs(messages []ably.Message, base string) *ably.ErrorInfo {
	if len(messages) == 0 {
		return nil
	}
	own := messages[0].ID
	if own != "" && len(messages) > 1 {
		var numbered bool
		if base, numbered = strings.CutSuffix(own, ":0"); !numbered {
			return errAblyBadID
		}
	}
	for i := range messages {
		m := &messages[i]
		id := base + ":" + strconv.Itoa(i)
		switch {
		case len(m.ID) > maxAblyIDBytes:
			return errAblyBadID
		case own == "" && m.ID == "":
			m.ID = id
		case own == "" || len(messages) > 1 && m.ID != id:
			return errAblyBadID
		}
	}
	return nil
}

// authorize takes a new token on the living connection. It may change what the client may do, not who it is.
func (a *ablyConn) authorize(token string) {
	asked := a.identity.clientID
	if asked == ablyAnyClient {
		asked = ""
	}
	identity, failure := a.rules.auth.token(token, asked, time.Now())
	if failure == nil && identity.clientID != a.identity.clientID {
		failure = errAblyOtherClient
	}
	if failure != nil {
		// These two codes would make the SDK ask its own server for another such token, again and again, and authorize()
		// would never settle.
		if failure.Code == 40143 || failure.Code == 40144 {
			failure = ablyUnauthorized(40101, failure.Message)
		}
		a.fail(failure)
		return
	}
	a.become(identity)
	a.conn.server.sessions.adopt(a.session, identity)
	for label, channel := range a.channels {
		a.regrant(label, channel)
	}
	a.forbidPresence()
	a.send(a.connected(nil))
}

// become gives the connection an identity. Read goroutine, or before it runs.
func (a *ablyConn) become(identity ablyIdentity) {
	a.identity = identity
	a.grounds.Store(&identity)
	a.renewal.Store(identity.expires == 0 || time.UnixMilli(identity.expires).Before(time.Now().Add(ablyRenewal)))
}

// regrant adjusts an attachment to a capability that has changed. One that grants nothing there ends it.
func (a *ablyConn) regrant(label string, channel *ablyChannel) {
	granted := a.grant(channel.room, channel.asked)
	switch {
	case granted == channel.granted:
	case granted == 0:
		a.failChannel(label, errAblyNotAllowed)
	default:
		channel.granted = granted
		a.call = ablyCall{kind: ablyGrant, name: label, granted: granted}
		a.ask(channel.room)
	}
}

// connected is the CONNECTED message of the connection as it is now. lost says why an earlier one could not be resumed.
func (a *ablyConn) connected(lost *ably.ErrorInfo) *ably.ProtocolMessage {
	return &ably.ProtocolMessage{
		Action: ably.ActionConnected, ConnectionID: a.session.id, Error: lost,
		ConnectionDetails: &ably.ConnectionDetails{
			ClientID:           a.identity.clientID,
			ConnectionKey:      a.conn.server.sessions.key(a.session),
			ConnectionStateTTL: a.rules.connectionState.Milliseconds(),
			MaxIdleInterval:    ablyMaxIdle.Milliseconds(),
			MaxMessageSize:     int64(a.rules.maxMessage),
			MaxFrameSize:       int64(a.rules.conn.maxMessage),
			MaxInboundRate:     int64(a.rules.messages.perSecond),
			ServerID:           "letshare",
		},
	}
}

// send queues a message for the client.
func (a *ablyConn) send(m *ably.ProtocolMessage) { a.conn.send(ablyFrame(a.format, m)) }

// nack refuses a message that has a number.
func (a *ablyConn) nack(m *ably.ProtocolMessage, failure *ably.ErrorInfo) {
	a.conn.server.counters.refuse(reasonOfAbly(failure))
	a.send(&ably.ProtocolMessage{Action: ably.ActionNack, MsgSerial: ably.Some(m.MsgSerial.V), Count: 1, Error: failure})
}

// failChannel refuses or ends an attachment; the connection goes on. For the client the channel has failed, whatever it was before.
func (a *ablyConn) failChannel(label string, failure *ably.ErrorInfo) {
	if channel := a.channels[label]; channel != nil {
		delete(a.channels, label)
		a.call = ablyCall{kind: ablyDetach, name: label, quiet: true, connectionID: a.session.id}
		a.ask(channel.room)
		a.noteDetached(channel.room)
	}
	a.conn.server.counters.refuse(reasonOfAbly(failure))
	a.send(&ably.ProtocolMessage{Action: ably.ActionError, Channel: ably.Some(label), Error: failure})
}

// fail ends the connection for good.
func (a *ablyConn) fail(failure *ably.ErrorInfo) {
	a.conn.server.counters.refuse(reasonOfAbly(failure))
	a.conn.lastWord = ablyFrame(a.format, &ably.ProtocolMessage{Action: ably.ActionError, Error: failure})
	a.conn.outbox.end(FailedByServer)
}

// leave takes the client out of its channels, and lets its session wait for another socket unless it has closed it.
func (a *ablyConn) leave() {
	a.departAll()
	for label, channel := range a.channels {
		a.call = ablyCall{kind: ablyDetach, name: label, quiet: true}
		a.ask(channel.room)
	}
	a.channels = nil
	a.conn.server.sessions.leave(a.session, a.conn, a.conn.server.clock(), a.closing)
}

// sweep looks at the end of the client's token. Sweep goroutine.
func (a *ablyConn) sweep(wall time.Time, flush func(*Outbox)) {
	id := a.grounds.Load()
	if id.expires == 0 {
		return
	}
	left := time.UnixMilli(id.expires).Sub(wall)
	revoked, soon := a.conn.server.revocations.judge(id.revocable, wall.UnixMilli())
	if left <= 0 {
		a.conn.outbox.end(ExpiredToken)
	} else if revoked {
		a.conn.outbox.end(RevokedToken)
	} else if (soon || left <= ablyRenewal) && a.renewal.CompareAndSwap(false, true) {
		if a.conn.outbox.put(ablyFrame(a.format, &ably.ProtocolMessage{Action: ably.ActionAuth})) {
			flush(&a.conn.outbox)
		}
	}
}

// farewell is what the client is told before the close frame: nil where the close frame, or nothing, says it all.
func (a *ablyConn) farewell(reason Ending) []byte {
	m := ably.ProtocolMessage{Action: ably.ActionDisconnected, Error: errAblyCut}
	switch reason {
	case PeerClosed, ConnectionLost, LeftByClient, Superseded, FailedByServer, IdleTimeout:
		return nil
	case ClosedByClient:
		m = ably.ProtocolMessage{Action: ably.ActionClosed}
	case GoingAway:
		m.Error = errAblyStopping
	case ExpiredToken:
		m.Error = errAblyExpired
	case RevokedToken:
		m.Error = errAblyRevoked
	}
	return ablyFrame(a.format, &m)
}

// heartbeats are the frames that say for either format that the server is there. Shared, never written to.
var ablyHeartbeats = [2][]byte{
	ablyFrame(ably.JSON, &ably.ProtocolMessage{Action: ably.ActionHeartbeat}),
	ablyFrame(ably.Msgpack, &ably.ProtocolMessage{Action: ably.ActionHeartbeat}),
}

// reasonOfAbly is the counter for a refusal by one of Ably's numbers.
func reasonOfAbly(failure *ably.ErrorInfo) Reason {
	switch failure.Code {
	case 40010:
		return BadChannel
	case 40009, 40013, 40031, 40000:
		return BadData
	case 40012, 40102:
		return FromMismatch
	case 40101, 40143, 40144, 40162, 40164, 40400:
		return TokenSignature
	case 40141, 40142:
		return TokenExpired
	case 40160, 40165:
		return RoomNotAllowed
	case 40300:
		return OriginNotAllowed
	case 42910, 42911:
		return RateLimited
	case 80003:
		return Draining
	case 90000, 91003:
		return RoomFull
	case 90010:
		return TooManyRooms
	}
	return BadType
}
