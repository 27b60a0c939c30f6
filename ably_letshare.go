package main

import (
	"bytes"
	"strconv"

	"letshare/ably"
)

// One house: what an Ably client publishes in a room is heard by its LetShare members, and the other way round. An Ably
// message's name is a LetShare event, and data is an object in both.

// fromLetShare makes an Ably publication of what a LetShare member has said. Its data is the part of the frame that the
// LetShare members get.
func fromLetShare(room *Room, m *Message) *publication {
	const before = `,"data":` // within a string its quotes would be escaped: the first is the frame's own
	frame := m.frames[dialectLetShare]
	data := frame[bytes.Index(frame, []byte(before))+len(before) : len(frame)-len(timestampSlot)]
	state := room.ably
	return &publication{message: ably.ProtocolMessage{Action: ably.ActionMessage, Messages: []ably.Message{{
		ID:       state.series + ":" + strconv.FormatUint(state.count+1, 10) + ":0",
		Name:     ably.Some(m.event),
		Data:     ably.Data{Kind: ably.DataText, Bytes: data},
		Encoding: "json",
	}}}}
}

// crossToLetShare lets the LetShare members who listen to a message's name have it, if their protocol can express it.
func (s *shard) crossToLetShare(room *Room, p *publication, i int) {
	item := &p.message.Messages[i]
	listeners := room.subs[item.Name.V]
	if len(listeners) == 0 {
		if len(room.members) > 0 && !isObject(item) {
			s.tally.unspoken++ // for whoever might have wanted to listen
		}
		return
	}
	frame := toLetShare(room.name, item, p.message.ConnectionID, s.ably != nil && s.ably.strict)
	if frame == nil {
		s.tally.unspoken += uint64(len(listeners))
		return
	}
	for _, m := range listeners {
		s.tally.deliveries++
		s.put(m, frame)
	}
}

// isObject reports whether the data of a message claims to be a JSON object or list, in one of the two ways that clients send it.
func isObject(m *ably.Message) bool {
	return m.Data.Kind == ably.DataText && m.Encoding == "json" || m.Data.Kind == ably.DataJSON && m.Encoding == ""
}

// toLetShare makes the frame of an Ably message, nil if the LetShare protocol cannot express it: data must be an object, by the
// rules that hold for a LetShare member's own. Whoever left out "from" is its clientId, or its connection. strict: a "from" that
// is not the clientId is not passed on either.
func toLetShare(room string, m *ably.Message, connectionID string, strict bool) []byte {
	if !isObject(m) || !validRoomName(room) {
		return nil
	}
	text := append(append([]byte(`{"data":`), m.Data.Bytes...), '}')
	e, ok := parseEnvelope(text)
	if !ok || len(e.data) == 0 || e.data[0] != '{' || e.dataTwin {
		return nil
	}
	if kind, ok := jsonString(e.dataType); ok && bytes.HasPrefix(kind, []byte(relayPrefix)) {
		return nil
	}
	if strict && e.dataFrom != nil {
		if from, ok := jsonString(e.dataFrom); !ok || string(from) != m.ClientID || m.ClientID == "" {
			return nil
		}
	}
	from := m.ClientID
	if from == "" {
		from = connectionID
	}
	message := draftMessage(room, m.Name.V, &e, from)
	message.timestamp = m.Timestamp
	return letshareMessage(room, message)
}
