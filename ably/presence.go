package ably

import "math"

// PresenceAction says what became of a member.
type PresenceAction uint8

// The presence actions by their numbers on the wire.
const (
	PresenceAbsent PresenceAction = iota
	PresencePresent
	PresenceEnter
	PresenceLeave
	PresenceUpdate
)

// PresenceMessage is what a member did, or that it is there. Its action is always written.
type PresenceMessage struct {
	ID           string
	Action       PresenceAction
	ClientID     string
	ConnectionID string
	Data         Data
	Encoding     string // as of Message
	Timestamp    int64  // ms since 1970
	Extras       []byte // a JSON object; nil: none
}

func (r *reader) presence() []PresenceMessage {
	if r.null() {
		return nil
	}
	list := []PresenceMessage{}
	for c := r.list(); r.more(&c) && !r.full(&c); {
		list = append(list, PresenceMessage{})
		list[len(list)-1].read(r)
	}
	return list
}

func (m *PresenceMessage) read(r *reader) {
	for c := r.object(); r.next(&c); {
		switch string(c.key) {
		case "id":
			m.ID = r.text()
		case "action":
			m.Action = PresenceAction(r.intUpTo(math.MaxUint8))
		case "clientId":
			m.ClientID = r.text()
		case "connectionId":
			m.ConnectionID = r.text()
		case "data":
			m.Data = r.data()
		case "encoding":
			m.Encoding = r.encoding()
		case "timestamp":
			m.Timestamp = r.int()
		case "extras":
			m.Extras = r.rawObject()
		default:
			r.skip()
		}
	}
	m.Data.normalise(&m.Encoding)
}

func (w *writer) presence(list []PresenceMessage) {
	g := w.list()
	for i := range list {
		w.item(&g)
		list[i].write(w)
	}
	w.end(g)
}

func (m *PresenceMessage) write(w *writer) {
	g := w.object()
	w.textField(&g, "id", m.ID)
	w.zeroIntField(&g, "action", int64(m.Action))
	w.textField(&g, "clientId", m.ClientID)
	w.textField(&g, "connectionId", m.ConnectionID)
	w.data(&g, m.Data, m.Encoding)
	w.intField(&g, "timestamp", m.Timestamp)
	w.rawField(&g, "extras", m.Extras)
	w.end(g)
}

// size estimates the bytes of the message, rather too many than too few.
func (m *PresenceMessage) size() int {
	return 128 + len(m.ID) + len(m.ClientID) + len(m.ConnectionID) + m.Data.size() + len(m.Encoding) + len(m.Extras)
}
