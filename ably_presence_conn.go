package main

import (
	"strconv"
	"time"

	"letshare/ably"
)

// enter carries out a presence message, and acknowledges or refuses it: never both, never neither, unless the connection has
// another socket by now, on which the client sends it again.
func (a *ablyConn) enter(m *ably.ProtocolMessage) {
	name, failure := a.may(m, len(m.Presence), ablyOpPresence, ably.ModePresence)
	if failure == nil {
		failure = a.rules.completePresence(m.Presence, a.identity.clientID)
	}
	if failure == nil && len(m.Presence) > 0 {
		var stale bool
		if stale, failure = a.notePresent(name.room); stale {
			return
		}
	}
	if failure == nil && len(m.Presence) > 0 {
		a.call = ablyCall{
			kind: ablyPresence, connectionID: a.session.id, generation: a.generation, serial: m.MsgSerial, presence: m.Presence,
		}
		a.ask(name.room)
		stale := a.call.stale
		failure = a.call.failure
		a.call = ablyCall{} // keeps no member alive
		if stale {
			return
		}
	}
	if failure != nil {
		a.nack(m, failure)
		return
	}
	a.ack(m, nil)
}

// completePresence checks the items of a presence message and fills in the clientId that the client has left out.
func (r *ablyRules) completePresence(items []ably.PresenceMessage, clientID string) *ably.ErrorInfo {
	if len(items) > maxAblyMessages {
		return errAblyBadData
	}
	size := 0
	for i := range items {
		m := &items[i]
		if m.ClientID == "" {
			m.ClientID = clientID
		}
		switch {
		case m.ClientID == "", m.ClientID == ablyAnyClient, clientID != ablyAnyClient && m.ClientID != clientID, len(m.ClientID) > maxAblyClientIDBytes:
			return errAblyClientID
		case m.Action < ably.PresencePresent || m.Action > ably.PresenceUpdate:
			return errAblyBadData
		}
		size += presenceSize(m)
	}
	if size > r.maxMessage {
		return r.tooLarge
	}
	return nil
}

// notePresent notes that the connection has, or will have, members in a room. stale: it has another socket by now.
func (a *ablyConn) notePresent(room string) (stale bool, failure *ably.ErrorInfo) {
	switch {
	case a.present[room]:
		return false, nil
	case a.rules.maxChannels > 0 && len(a.present) >= a.rules.maxChannels:
		return false, a.rules.tooMany
	case !a.conn.server.sessions.present(a.session, a.conn, room, true):
		return true, nil
	case a.present == nil:
		a.present = make(map[string]bool)
	}
	a.present[room] = true
	return false, nil
}

// noteAbsent notes that the connection has no part in a room's presence any more.
func (a *ablyConn) noteAbsent(room string) {
	if a.present[room] {
		delete(a.present, room)
		a.conn.server.sessions.present(a.session, a.conn, room, false)
	}
}

// noteDetached notes that the connection is attached to a room no more, if it was so under one name alone: then its members have left.
func (a *ablyConn) noteDetached(room string) {
	for _, channel := range a.channels {
		if channel.room == room {
			return
		}
	}
	a.noteAbsent(room)
}

// resync tells the client again who is present on a channel.
func (a *ablyConn) resync(m *ably.ProtocolMessage) {
	channel := a.channels[m.Channel.V]
	if channel == nil || !a.inflow.take(a.rules.messages, 1, a.conn.wire.clock()) {
		return
	}
	a.call = ablyCall{kind: ablySync, name: m.Channel.V}
	a.ask(channel.room)
}

// comeBack says on the channels where the session has members that it has another socket: they stay, unless the client may not
// be present there any more. Before the connection runs.
func (a *ablyConn) comeBack(rooms []string) {
	for _, room := range rooms {
		a.call = ablyCall{kind: ablyReturn, connectionID: a.session.id, generation: a.generation}
		a.ask(room)
		if a.call.stale {
			a.conn.server.sessions.present(a.session, a.conn, room, false)
			continue
		}
		if a.present == nil {
			a.present = make(map[string]bool)
		}
		a.present[room] = true
	}
	a.forbidPresence()
}

// forbidPresence lets the members leave on channels where the capability does not allow presence.
func (a *ablyConn) forbidPresence() {
	for room := range a.present {
		if !a.identity.capability.allows(room, ablyOpPresence) {
			a.depart(room, 0)
			a.noteAbsent(room)
		}
	}
}

// departAll says on all channels that the connection's socket has ended. What became of a session that has another socket, that
// one says.
func (a *ablyConn) departAll() {
	if len(a.present) == 0 || !a.conn.server.sessions.holds(a.session, a.conn) {
		return
	}
	remain := a.remain
	switch a.conn.outbox.ended() {
	case ClosedByClient, FailedByServer, AccessWithdrawn:
		remain = 0
	}
	for room := range a.present {
		a.depart(room, remain)
	}
}

// depart lets the connection's members leave a room after a time.
func (a *ablyConn) depart(room string, remain time.Duration) {
	a.call = ablyCall{kind: ablyDepart, connectionID: a.session.id, generation: a.generation, remain: remain}
	a.ask(room)
}

// remainPresent reads how long a client wants its members to stay when its connection is lost, in ms.
func remainPresent(text string, rules *ablyRules) time.Duration {
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms < 0 {
		return presenceGrace
	}
	most := max(presenceMaxGrace, rules.connectionState)
	return time.Duration(min(ms, most.Milliseconds())) * time.Millisecond
}
