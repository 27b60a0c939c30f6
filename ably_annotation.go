package main

import (
	"net/http"
	"strconv"

	"letshare/ably"
)

// Annotations are said of a message: each of its client and type, and counted in the message's summary as the type says. They
// are heard by those who have attached with annotation_subscribe; the summaries reach every subscriber.

// annotate publishes annotations of a message, and acknowledges or refuses them.
func (a *ablyConn) annotate(m *ably.ProtocolMessage) {
	name, failure := a.may(m, len(m.Annotations), ablyOpAnnotationPublish, ably.ModeAnnotationPublish)
	var key string
	if failure == nil {
		key, failure = a.rules.completeAnnotations(m.Annotations, &a.identity, name.room, a.session.id+":"+strconv.FormatInt(m.MsgSerial.V, 10))
	}
	if failure == nil {
		a.call = ablyCall{kind: ablyAnnotate, message: &publication{key: key, message: ably.ProtocolMessage{
			Action: ably.ActionAnnotation, ConnectionID: a.session.id, Annotations: m.Annotations,
		}}}
		a.ask(name.room)
		failure = a.call.failure
	}
	if failure != nil {
		a.nack(m, failure)
		return
	}
	a.ack(m, annotationSerials(a.call.done))
	a.call = ablyCall{} // keeps no annotation alive
}

// annotationSerials are the serials of a publication of annotations.
func annotationSerials(p *publication) []string {
	serials := make([]string, len(p.message.Annotations))
	for i := range serials {
		serials[i] = p.message.Annotations[i].Serial
	}
	return serials
}

// completeAnnotations checks annotations, which must be of one message, and fills in who makes them and ids made of base. It
// returns the id of the client's own by which they may be repeated.
func (r *ablyRules) completeAnnotations(list []ably.Annotation, identity *ablyIdentity, room, base string) (key string, problem *ably.ErrorInfo) {
	switch {
	case !r.namespace(room).MutableMessages:
		return "", errAblyImmutable
	case len(list) == 0, len(list) > maxAblyAnnotations:
		return "", errAblyAnnotation
	case len(list[0].ID) > maxAblyIDBytes:
		return "", errAblyBadID
	}
	key = list[0].ID
	size := 0
	for i := range list {
		a := &list[i]
		if a.MessageSerial == "" || a.MessageSerial != list[0].MessageSerial {
			return "", errAblyNoSerial
		}
		if a.ClientID, problem = identity.speaker(a.ClientID); problem != nil {
			return "", problem
		}
		if problem = checkAnnotation(a); problem != nil {
			return "", problem
		}
		a.ID, a.Serial, a.ConnectionID = base+":"+strconv.Itoa(i), "", ""
		size += annotationSize(a)
	}
	if size > r.maxMessage {
		return "", r.tooLarge
	}
	return key, nil
}

// checkAnnotation says what is wrong with an annotation, if anything is.
func checkAnnotation(a *ably.Annotation) *ably.ErrorInfo {
	method, ok := annotationMethod(a.Type)
	switch {
	case !ok, a.Action > ably.AnnotationDelete, len(a.Name.V) > maxAnnotationNameBytes:
		return errAblyAnnotation
	case namedAnnotations(method) && a.Name.V == "":
		return errAblyAnnotation
	case a.Count.OK && (a.Count.V < 1 || a.Count.V > maxAnnotationCount):
		return errAblyAnnotation
	}
	if a.ClientID != "" || method == "" || method == annotationTotal {
		return nil
	}
	if method == annotationMultiple && a.Action == ably.AnnotationCreate {
		return nil
	}
	return errAblyUnidentified
}

// annotationSize is an annotation's size, counted like a message's.
func annotationSize(a *ably.Annotation) int {
	return len(a.Type) + len(a.Name.V) + len(a.ClientID) + len(a.Data.Bytes) + len(a.Extras)
}

// annotateAbly publishes annotations, and then what they come to. The same again is not published again.
func (s *shard) annotateAbly(room *Room, call *ablyCall) *ably.ErrorInfo {
	state, p := room.ably, call.message
	if call.done = state.repeated(p); call.done != nil {
		return nil
	}
	t, i := state.lookup(p.message.Annotations[0].MessageSerial)
	if t == nil {
		return errAblyNoMessage
	}
	if t.lives != nil && t.lives[i] != nil && t.lives[i].summary.full(p.message.Annotations) {
		return errAblyManyAnnotations
	}
	call.done = p
	room.last = max(room.last, s.now.UnixMilli())
	s.place(room, p)
	s.tally.messages += uint64(len(p.message.Annotations))
	if summary := state.summarised(p); summary != nil {
		s.place(room, summary)
	}
	return nil
}

// recallSummary keeps the summary that annotations of an earlier process were followed by.
func (s *shard) recallSummary(annotations *publication) {
	if len(annotations.message.Annotations) == 0 {
		return
	}
	p := annotations.state.summarised(annotations)
	if p == nil {
		return
	}
	p.number, p.message.Timestamp = annotations.number+1, annotations.message.Timestamp
	p.message.ChannelSerial = followingSerial(annotations.message.ChannelSerial)
	p.size = p.cost()
	p.state.count = max(p.state.count, p.number)
	s.keepAbly(p)
}

// annotateMessage answers POST /channels/C/messages/SERIAL/annotations: one annotation, or several.
func (q *ablyRequest) annotateMessage(label string) {
	body, format, problem := q.body()
	var list []ably.Annotation
	if problem == nil {
		var err error
		if list, err = ably.DecodeAnnotations(format, body); err != nil {
			problem = errAblyBadData
		}
	}
	call := &ablyCall{kind: ablyAnnotate}
	if problem == nil {
		problem = q.askForAnnotations(label, list, call)
	}
	if problem != nil {
		q.fail(problem)
		return
	}
	q.answer(http.StatusCreated, ably.AppendValue(nil, q.format, ably.Object{
		{Key: "channel", Value: call.done.state.name}, {Key: "serials", Value: annotationSerials(call.done)},
	}))
}

// askForAnnotations lets the channel's shard publish annotations.
func (q *ablyRequest) askForAnnotations(label string, list []ably.Annotation, call *ablyCall) *ably.ErrorInfo {
	room, problem := q.mutable(label, ablyOpAnnotationPublish)
	if problem != nil {
		return problem
	}
	// The request itself has been counted as one.
	if problem := q.spend(len(list) - 1); problem != nil {
		return problem
	}
	for i := range list {
		if list[i].MessageSerial == "" {
			list[i].MessageSerial = q.serial
		}
		if list[i].MessageSerial != q.serial {
			return errAblyNoSerial
		}
	}
	key, problem := q.rules.ably.completeAnnotations(list, &q.identity, room, randomText(connectionIDBytes))
	if problem != nil {
		return problem
	}
	call.message = &publication{key: key, message: ably.ProtocolMessage{Action: ably.ActionAnnotation, Annotations: list}}
	if problem := q.server.askAbly(room, call); problem != nil {
		return problem
	}
	return call.failure
}

// annotations answers GET /channels/C/messages/SERIAL/annotations: all of them, deletes among them, in the order of publishing.
func (q *ablyRequest) annotations(label string) {
	room, problem := q.mutable(label, ablyOpHistory, ablyOpAnnotationSubscribe)
	var past ablyPast
	if problem == nil {
		past, problem = q.pastOfMessage()
	}
	var page ablyPage
	if problem == nil {
		var unknown *ably.ErrorInfo
		problem = q.lookAt(room, func(p *publication, i int) {
			var all []*publication
			if p.lives != nil && p.lives[i] != nil {
				all = p.lives[i].annotations
			}
			page, unknown = past.page(p.state, all, 0, func(p *publication) int { return len(p.message.Annotations) })
		})
		if problem == nil {
			problem = unknown
		}
	}
	if problem != nil {
		q.fail(problem)
		return
	}
	list := make([]ably.Annotation, len(page.items))
	for i, item := range page.items {
		list[i] = item.publication.message.Annotations[item.index]
		list[i].ConnectionID = item.publication.message.ConnectionID
	}
	q.setPageLinks("annotations", past, page)
	q.answer(http.StatusOK, ably.AppendAnnotations(nil, q.format, list))
}

// What annotations are refused with, by Ably's numbers.
var (
	errAblyAnnotation = &ably.ErrorInfo{Code: 40000, StatusCode: 400,
		Message: "an annotation has a type such as reaction:distinct.v1, which ends in total.v1, flag.v1, distinct.v1, unique.v1 or multiple.v1, a name for the last three, and a count from 1 to a million, if any"}
	errAblyUnidentified    = &ably.ErrorInfo{Code: 40000, StatusCode: 400, Message: "annotations of this type need a clientId"}
	errAblyManyAnnotations = &ably.ErrorInfo{Code: 40000, StatusCode: 400, Message: "the message has too many annotations: no further ones are counted"}
)
