package main

import (
	"net/http"
	"strconv"

	"letshare/ably"
)

// changesMessages reports whether a publish changes a message, or tries to.
func changesMessages(messages []ably.Message) bool {
	return len(messages) > 0 && messages[0].Action != ably.MessageCreate
}

// change changes a message, and acknowledges that with the serial of its new version.
func (a *ablyConn) change(m *ably.ProtocolMessage) {
	name, ok := parseChannelName(m.Channel.V)
	var rights changeRights
	var key string
	failure := errAblyBadName
	if ok {
		failure = errAblyRate
		if a.inflow.take(a.rules.messages, float64(len(m.Messages)), a.conn.wire.clock()) {
			rights, key, failure = a.rules.completeChange(m.Messages, &a.identity, name.room, a.session.id+":"+strconv.FormatInt(m.MsgSerial.V, 10))
		}
	}
	if failure == nil {
		a.call = ablyCall{kind: ablyChange, rights: rights, message: &publication{key: key, message: ably.ProtocolMessage{
			Action: ably.ActionMessage, ConnectionID: a.session.id, Messages: m.Messages,
		}}}
		a.ask(name.room)
		failure = a.call.failure
	}
	if failure != nil {
		a.nack(m, failure)
		return
	}
	a.ack(m, []string{a.call.done.message.Messages[0].Version.Serial})
	a.call = ablyCall{} // keeps no message alive
}

// completeChange checks a change of a message on a channel, and fills in who makes it. It returns whose messages it may change,
// and the id of the client's own by which it may be repeated. base is what its id is made of.
func (r *ablyRules) completeChange(messages []ably.Message, identity *ablyIdentity, room, base string) (rights changeRights, key string, problem *ably.ErrorInfo) {
	m := &messages[0]
	switch {
	case !r.namespace(room).MutableMessages:
		return rights, "", errAblyImmutable
	case len(messages) > 1:
		return rights, "", errAblyOneChange
	case m.Serial == "":
		return rights, "", errAblyNoSerial
	case len(m.ID) > maxAblyIDBytes:
		return rights, "", errAblyBadID
	}
	if rights, problem = r.changeRights(identity, room, m.Action); problem != nil {
		return rights, "", problem
	}
	version := &ably.Version{}
	if m.Version != nil {
		version.ClientID, version.Description, version.Metadata = m.Version.ClientID, m.Version.Description, m.Version.Metadata
	}
	if version.ClientID, problem = identity.speaker(version.ClientID); problem != nil {
		return rights, "", problem
	}
	key, m.ID, m.Version = m.ID, base+":0", version
	m.ConnectionKey, m.Annotations = "", nil
	if ablyMessageSize(m)+versionSize(version) > r.maxMessage {
		return rights, "", r.tooLarge
	}
	return rights, key, nil
}

// changeRights says whose messages the capability allows to change in this way.
func (r *ablyRules) changeRights(identity *ablyIdentity, room string, action uint8) (rights changeRights, problem *ably.ErrorInfo) {
	own, any := ablyOpMessageUpdateOwn, ablyOpMessageUpdateAny
	switch action {
	case ably.MessageUpdate, ably.MessageAppend:
	case ably.MessageDelete:
		own, any = ablyOpMessageDeleteOwn, ablyOpMessageDeleteAny
	default:
		return rights, errAblyUnsupported
	}
	switch identified := identity.clientID != "" && identity.clientID != ablyAnyClient; {
	case identity.capability.allows(room, any):
		return changeRights{any: true}, nil
	case identified && identity.capability.allows(room, own):
		return changeRights{clientID: identity.clientID}, nil
	}
	return rights, errAblyNotAllowed
}

// speaker is the clientId of what is said by somebody who claims to be one, "" if that is left out.
func (i *ablyIdentity) speaker(claimed string) (clientID string, problem *ably.ErrorInfo) {
	switch {
	case claimed == "" && i.clientID != ablyAnyClient:
		return i.clientID, nil
	case claimed == ablyAnyClient, claimed != "" && i.clientID != ablyAnyClient && claimed != i.clientID:
		return "", errAblyClientID
	}
	return claimed, nil
}

// changeAbly publishes a change of a message. The same again is not published again.
func (s *shard) changeAbly(room *Room, call *ablyCall) *ably.ErrorInfo {
	state, p := room.ably, call.message
	if call.done = state.repeated(p); call.done != nil {
		return nil
	}
	if s.ably == nil {
		return errAblyImmutable
	}
	if problem := state.change(p, call.rights, s.ably.maxMessage, s.ably.tooLarge); problem != nil {
		return problem
	}
	call.done = p
	room.last = max(room.last, s.now.UnixMilli())
	s.place(room, p)
	s.tally.messages++
	// LetShare's protocol has no word for it.
	s.tally.unspoken += uint64(len(room.subs[p.message.Messages[0].Name.V]))
	return nil
}

// changeMessage answers PATCH /channels/C/messages/SERIAL.
func (q *ablyRequest) changeMessage(label string) {
	body, format, problem := q.body()
	var messages []ably.Message
	if problem == nil {
		var err error
		if messages, _, err = ably.DecodeMessages(format, body); err != nil || len(messages) != 1 {
			problem = errAblyBadData
		}
	}
	call := &ablyCall{kind: ablyChange}
	if problem == nil {
		problem = q.askForChange(label, messages, call)
	}
	if problem != nil {
		q.fail(problem)
		return
	}
	q.answer(http.StatusOK, ably.AppendValue(nil, q.format, ably.Object{
		{Key: "versionSerial", Value: call.done.message.Messages[0].Version.Serial},
	}))
}

// askForChange lets the channel's shard change a message.
func (q *ablyRequest) askForChange(label string, messages []ably.Message, call *ablyCall) (problem *ably.ErrorInfo) {
	name, ok := parseChannelName(label)
	if !ok {
		return errAblyBadName
	}
	m := &messages[0]
	if m.Serial != "" && m.Serial != q.serial {
		return errAblyNoSerial
	}
	if m.Serial = q.serial; m.Action == ably.MessageCreate {
		m.Action = ably.MessageUpdate // what the method says
	}
	var key string
	call.rights, key, problem = q.rules.ably.completeChange(messages, &q.identity, name.room, randomText(connectionIDBytes))
	if problem != nil {
		return problem
	}
	call.message = &publication{key: key, message: ably.ProtocolMessage{Action: ably.ActionMessage, Messages: messages}}
	if problem := q.server.askAbly(name.room, call); problem != nil {
		return problem
	}
	return call.failure
}

// mutable returns the room of a channel whose messages can be changed, if the capability grants one of the operations there.
func (q *ablyRequest) mutable(label string, ops ...ablyOp) (room string, problem *ably.ErrorInfo) {
	name, ok := parseChannelName(label)
	switch {
	case !ok:
		return "", errAblyBadName
	case !q.rules.ably.namespace(name.room).MutableMessages:
		return "", errAblyImmutable
	}
	for _, op := range ops {
		if q.identity.capability.allows(name.room, op) {
			return name.room, nil
		}
	}
	return "", errAblyNotAllowed
}

// message answers GET /channels/C/messages/SERIAL: the message as it is by now.
func (q *ablyRequest) message(label string) {
	room, problem := q.mutable(label, ablyOpHistory)
	var message ably.Message
	if problem == nil {
		problem = q.lookAt(room, func(p *publication, i int) {
			message = *p.latest(i)
			message.ConnectionID = p.message.ConnectionID
		})
	}
	if problem != nil {
		q.fail(problem)
		return
	}
	q.answer(http.StatusOK, message.Append(nil, q.format))
}

// lookAt lets the shard show the message that the path names.
func (q *ablyRequest) lookAt(room string, see func(p *publication, i int)) (problem *ably.ErrorInfo) {
	stopped := q.look(room, func(room *Room) {
		problem = errAblyNoMessage
		if room == nil || room.ably == nil {
			return
		}
		if p, i := room.ably.lookup(q.serial); p != nil {
			problem = nil
			see(p, i)
		}
	})
	if stopped != nil {
		return stopped
	}
	return problem
}

// versions answers GET /channels/C/messages/SERIAL/versions: all of them, the first one first.
func (q *ablyRequest) versions(label string) {
	room, problem := q.mutable(label, ablyOpHistory)
	var past ablyPast
	if problem == nil {
		past, problem = q.pastOfMessage()
	}
	var page ablyPage
	var list []ably.Message
	if problem == nil {
		var unknown *ably.ErrorInfo
		problem = q.lookAt(room, func(p *publication, place int) {
			all := []*publication{p}
			if p.lives != nil && p.lives[place] != nil {
				all = append(all, p.lives[place].versions...)
			}
			page, unknown = past.page(p.state, all, 0, func(*publication) int { return 1 })
			for _, item := range page.items {
				version := item.publication.message.Messages[0]
				if item.publication == p {
					version = p.message.Messages[place]
				}
				version.ConnectionID = p.message.ConnectionID
				list = append(list, version)
			}
		})
		if problem == nil {
			problem = unknown
		}
	}
	if problem != nil {
		q.fail(problem)
		return
	}
	q.setPageLinks("versions", past, page)
	q.answer(http.StatusOK, ably.AppendMessages(nil, q.format, list))
}

// pastOfMessage reads the query of a request for a part of what became of a message: in the order of happening, unless it says
// otherwise.
func (q *ablyRequest) pastOfMessage() (past ablyPast, problem *ably.ErrorInfo) {
	past, problem = parseAblyPast(q.query)
	past.forwards = q.query.Get("direction") != "backwards"
	return past, problem
}
