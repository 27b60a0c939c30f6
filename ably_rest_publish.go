package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"letshare/ably"
)

// publish answers POST /channels/C/messages: one message, or several that are published as one.
func (q *ablyRequest) publish(label string) {
	body, format, problem := q.body()
	var messages []ably.Message
	if problem == nil {
		var err error
		if messages, _, err = ably.DecodeMessages(format, body); err != nil {
			problem = errAblyBadData
		}
	}
	var answer ably.Object
	if problem == nil {
		answer, problem = q.say(label, messages)
	}
	if problem != nil {
		q.fail(problem)
		return
	}
	q.answer(http.StatusCreated, ably.AppendValue(nil, q.format, answer))
}

// say publishes messages on a channel, and returns what is to be said of it. It changes the messages.
func (q *ablyRequest) say(label string, messages []ably.Message) (ably.Object, *ably.ErrorInfo) {
	room, problem := q.channelFor(label, ablyOpPublish)
	switch {
	case problem != nil:
		return nil, problem
	case len(messages) == 0:
		return nil, errAblyEmpty
	}
	// The request itself has been counted as one.
	if problem := q.spend(len(messages) - 1); problem != nil {
		return nil, problem
	}
	connectionID, clientID, problem := q.publisher(messages)
	if problem != nil {
		return nil, problem
	}
	if problem := q.rules.ably.complete(messages, clientID, randomText(connectionIDBytes)); problem != nil {
		return nil, problem
	}
	call := &ablyCall{kind: ablyPublish, message: &publication{message: ably.ProtocolMessage{
		Action: ably.ActionMessage, ConnectionID: connectionID, Messages: messages,
	}}}
	if problem := q.server.askAbly(room, call); problem != nil {
		return nil, problem
	}
	if call.failure != nil {
		return nil, call.failure
	}
	published := call.done.message.Messages
	q.server.account.counts.take(&call.done.message, statREST, statREST, 1)
	serials := make([]string, len(published))
	for i := range published {
		serials[i] = published[i].Serial
	}
	id := published[0].ID
	if base, numbered := strings.CutSuffix(id, ":0"); numbered {
		id = base
	}
	return ably.Object{{Key: "channel", Value: room}, {Key: "messageId", Value: id}, {Key: "serials", Value: serials}}, nil
}

// publisher says as whom messages are published: as the connection whose secret key they name, or as nobody's.
func (q *ablyRequest) publisher(messages []ably.Message) (connectionID, clientID string, problem *ably.ErrorInfo) {
	key := messages[0].ConnectionKey
	for i := range messages {
		if messages[i].ConnectionKey != key {
			return "", "", errAblyConnection
		}
	}
	if key == "" {
		return "", q.identity.clientID, nil
	}
	id, identity, ok := q.server.sessions.publisher(key)
	switch {
	case !ok || identity.keyName != q.identity.keyName:
		return "", "", errAblyConnection
	case q.identity.clientID == ablyAnyClient || q.identity.clientID == identity.clientID:
		return id, identity.clientID, nil
	}
	return "", "", errAblyClientID
}

// ablyBatch is messages for several channels.
type ablyBatch struct {
	channels []string
	messages []ably.Message
}

// parseAblyBatches reads the body of a batch: one, or an array of them, which single tells apart.
func parseAblyBatches(format ably.Format, body []byte) (batches []ablyBatch, single bool, problem *ably.ErrorInfo) {
	var list []sentBatch
	if format == ably.JSON {
		list, single, problem = readJSONBatches(body)
	} else {
		list, single, problem = readMsgpackBatches(body)
	}
	places := 0
	for _, sent := range list {
		messages, _, err := ably.DecodeMessages(format, sent.messages)
		if err != nil {
			return nil, single, errAblyBadData
		}
		if places += len(sent.channels) * max(1, len(messages)); len(sent.channels) > maxAblyBatchChannels || places > maxAblyMessages {
			return nil, single, errAblyBatch
		}
		batches = append(batches, ablyBatch{sent.channels, messages})
	}
	if problem == nil && len(batches) == 0 {
		problem = errAblyBatch
	}
	return batches, single, problem
}

// sentBatch is a batch whose messages, one or a list, have not been read yet.
type sentBatch struct {
	channels []string
	messages []byte // in the format of the whole
}

// readJSONBatches takes a body in JSON apart. The messages stay the bytes that they are.
func readJSONBatches(body []byte) (list []sentBatch, single bool, problem *ably.ErrorInfo) {
	var entries []struct{ Channels, Messages json.RawMessage }
	if single = !bytes.HasPrefix(bytes.TrimSpace(body), []byte("[")); single {
		body = slices.Concat([]byte("["), body, []byte("]"))
	}
	if err := json.Unmarshal(body, &entries); err != nil {
		return nil, single, errAblyBadData
	}
	for _, entry := range entries {
		var channels []string
		var one string
		if json.Unmarshal(entry.Channels, &one) == nil {
			channels = []string{one}
		} else if json.Unmarshal(entry.Channels, &channels) != nil || len(channels) == 0 {
			return nil, single, errAblyBatch
		}
		list = append(list, sentBatch{channels, entry.Messages})
	}
	return list, single, nil
}

// readMsgpackBatches takes a body in msgpack apart. The messages are written anew: the format has but one way to say a thing.
func readMsgpackBatches(body []byte) (list []sentBatch, single bool, problem *ably.ErrorInfo) {
	value, err := ably.DecodeValue(ably.Msgpack, body)
	if err != nil {
		return nil, false, errAblyBadData
	}
	entries, several := value.([]any)
	if !several {
		entries = []any{value}
	}
	for _, entry := range entries {
		object, _ := entry.(ably.Object)
		var sent sentBatch
		for _, field := range object {
			switch field.Key {
			case "channels":
				sent.channels = textList(field.Value)
			case "messages":
				sent.messages = ably.AppendValue(nil, ably.Msgpack, field.Value)
			}
		}
		if len(sent.channels) == 0 {
			return nil, !several, errAblyBatch
		}
		list = append(list, sent)
	}
	return list, !several, nil
}

// textList is a string, or a list of strings, as a list; nil: it is neither.
func textList(value any) []string {
	if text, ok := value.(string); ok {
		return []string{text}
	}
	values, _ := value.([]any)
	list := make([]string, 0, len(values))
	for _, value := range values {
		text, ok := value.(string)
		if !ok {
			return nil
		}
		list = append(list, text)
	}
	return list
}

// publishBatch answers POST /messages. What one channel refuses does not keep the others from having it.
func (q *ablyRequest) publishBatch(string) {
	body, format, problem := q.body()
	var batches []ablyBatch
	var single bool
	if problem == nil {
		batches, single, problem = parseAblyBatches(format, body)
	}
	if problem != nil {
		q.fail(problem)
		return
	}
	answers := make([]any, 0, len(batches))
	for _, batch := range batches {
		answers = append(answers, batchAnswer(batch.channels, func(label string) (ably.Object, *ably.ErrorInfo) {
			return q.say(label, slices.Clone(batch.messages)) // each channel gives them serials of its own
		}))
	}
	var answer any = answers
	if single {
		answer = answers[0]
	}
	q.answer(http.StatusCreated, ably.AppendValue(nil, q.format, answer))
}

// batchAnswer asks for each channel and puts the answers together.
func batchAnswer(channels []string, ask func(label string) (ably.Object, *ably.ErrorInfo)) ably.Object {
	results, failures := make([]any, 0, len(channels)), 0
	for _, label := range channels {
		result, problem := ask(label)
		if problem != nil {
			failures++
			result = ably.Object{{Key: "channel", Value: label}, {Key: "error", Value: problem}}
		}
		results = append(results, result)
	}
	return ably.Object{
		{Key: "successCount", Value: len(channels) - failures}, {Key: "failureCount", Value: failures}, {Key: "results", Value: results},
	}
}
