package main

import (
	"bytes"
	"time"
)

// The LetShare protocol's part in file transfers: control messages and binary frames in, operations on the room of the
// transfer out. Nothing here counts as a protocol error: an error about a transfer carries its id, and the app ends that
// transfer alone. Owned by the read goroutine.

// transfer takes one control message, p, whose type, kind, begins with file:transfer:.
func (l *letshare) transfer(kind string, p []byte) {
	l.bad = 0
	l.conn.wire.refund(len(p))
	if !l.paceRelay() {
		return
	}
	if !l.conn.server.rules.Load().relay.enabled {
		if kind == relayPrefix+relayKindNames[relayRequest] {
			l.relayError(transferID(p), relayOff, true)
		}
		return
	}
	m, problem := parseRelayMessage(p)
	switch {
	case problem != relayNoProblem:
		l.relayError(transferID(p), problem, false)
		return
	case m == nil:
		return
	}
	if m.Room == "" {
		known := l.conn.member.transfer([]byte(m.ID))
		if known == nil {
			l.relayError(m.ID, relayUnknownTransfer, false)
			return
		}
		m.Room = known.room
	}
	if only := l.conn.room; !validRoomName(m.Room) || only != "" && m.Room != only {
		l.relayError(m.ID, relayNotInRoom, m.Kind == relayRequest)
		return
	}
	relay := &relayOp{id: m.ID, message: m, pro: l.conn.pro}
	l.conn.post(op{kind: opRelay, member: &l.conn.member, room: m.Room, relay: relay})
}

// binary takes a file's frame: message is what came, frame the same bytes with our WebSocket header in front. It returns when
// the frame is in its transfer's buffer, or discarded: a sender beyond the buffer is not read meanwhile. Both lie in buffer;
// kept says that it is in use now.
func (l *letshare) binary(message, frame []byte, buffer *relayBuffer) (kept bool) {
	header, problem := parseRelayFrame(message)
	if problem != relayNoProblem || !l.conn.server.rules.Load().relay.enabled {
		l.conn.server.counters.drop(DropBinary)
		return false
	}
	known := l.conn.member.transfer(header.ID)
	if known == nil {
		l.conn.server.relayed.strangers.Add(1)
		l.relayError(string(header.ID), relayUnknownTransfer, false)
		return false
	}
	l.conn.wire.refund(len(message))
	if !l.paceRelay() || !l.paceFile(known, len(frame)) {
		return false
	}
	relay := &relayOp{id: string(header.ID), header: header, frame: frame, buffer: buffer}
	if cap(frame)-len(frame) > len(frame)/8 {
		relay.frame, relay.buffer = bytes.Clone(frame), nil // many tiny frames must not keep the buffers of large ones
	}
	o := op{kind: opRelay, member: &l.conn.member, room: known.room, relay: relay}
	for l.conn.ask(o) == relayHold && l.conn.wire.wait(relayHoldStep) {
	}
	l.conn.server.traffic.GiveWay() // others wait for this frame, not for all that the sender's socket holds
	return relay.kept && relay.buffer != nil
}

// paceRelay reads more slowly from a client that sends more relay messages than the rate. False: the connection has ended.
func (l *letshare) paceRelay() bool {
	return l.pace(&l.relayed, l.conn.server.rules.Load().relay.messages, 1)
}

// paceFile spaces a transfer's frames, and those of all transfers together. False: the connection has ended.
func (l *letshare) paceFile(known *knownTransfer, n int) bool {
	limits := l.conn.server.rules.Load().relay
	if !l.pace(&known.pace, limits.perTransfer, float64(n)) {
		return false
	}
	wait := l.conn.server.pacer.reserve(n, limits.total, l.conn.wire.clock())
	return wait == 0 || l.conn.wire.wait(wait)
}

// pace takes n from a bucket and waits until it is no longer overdrawn. False: the connection has ended.
func (l *letshare) pace(b *bucket, r rate, n float64) bool {
	if r.perSecond == 0 {
		return true
	}
	b.refill(r, l.conn.wire.clock())
	b.used += n
	debt := b.debt(r)
	return debt == 0 || l.conn.wire.wait(debt)
}

// relayError tells the client that a transfer cannot go on; unless always, once for each transfer.
func (l *letshare) relayError(id string, why relayProblem, always bool) {
	l.conn.server.relayed.problems[why].Add(1)
	if !always && !l.conn.member.firstAnswer(id) {
		return
	}
	l.conn.send(textFrame(func(b []byte) []byte {
		return append(b, encodeRelayError(why, id, time.Now().UnixMilli())...)
	}))
}
