package ably

import "math"

// What Message.Action can be.
const (
	MessageCreate uint8 = iota
	MessageUpdate
	MessageDelete
	MessageMeta
	MessageSummary
	MessageAppend
)

// Message is one message of a channel. Its action is always written, as the SDK itself does: without one a
// message counts as created, so that 0 is harmless.
type Message struct {
	ID            string
	Name          Opt[string]
	Data          Data
	Encoding      string // steps between "/", first applied first; without the base64 that Data stands for
	ClientID      string
	ConnectionID  string
	ConnectionKey string // of a publish by REST in the name of a connection
	Timestamp     int64  // ms since 1970
	Extras        []byte // a JSON object as it came; nil: none
	Action        uint8
	Serial        string
	Version       *Version
	Annotations   []byte // the summary of its annotations, a JSON object; nil: none
}

// Version tells of the last change of a message.
type Version struct {
	Serial      string
	Timestamp   int64 // ms since 1970
	ClientID    string
	Description string
	Metadata    []byte // a JSON object; nil: none
}

func (r *reader) messages() []Message {
	if r.null() {
		return nil
	}
	list := []Message{}
	for c := r.list(); r.more(&c) && !r.full(&c); {
		list = append(list, Message{})
		list[len(list)-1].read(r)
	}
	return list
}

func (m *Message) read(r *reader) {
	for c := r.object(); r.next(&c); {
		switch string(c.key) {
		case "id":
			m.ID = r.text()
		case "name":
			m.Name = r.optText()
		case "data":
			m.Data = r.data()
		case "encoding":
			m.Encoding = r.encoding()
		case "clientId":
			m.ClientID = r.text()
		case "connectionId":
			m.ConnectionID = r.text()
		case "connectionKey":
			m.ConnectionKey = r.text()
		case "timestamp":
			m.Timestamp = r.int()
		case "extras":
			m.Extras = r.rawObject()
		case "action":
			m.Action = uint8(r.intUpTo(math.MaxUint8))
		case "serial":
			m.Serial = r.text()
		case "version":
			m.Version = r.version()
		case "annotations":
			m.Annotations = r.rawObject()
		default:
			r.skip()
		}
	}
	m.Data.normalise(&m.Encoding)
}

func (r *reader) version() *Version {
	if r.null() {
		return nil
	}
	v := &Version{}
	for c := r.object(); r.next(&c); {
		switch string(c.key) {
		case "serial":
			v.Serial = r.text()
		case "timestamp":
			v.Timestamp = r.int()
		case "clientId":
			v.ClientID = r.text()
		case "description":
			v.Description = r.text()
		case "metadata":
			v.Metadata = r.rawObject()
		default:
			r.skip()
		}
	}
	return v
}

func (w *writer) messages(list []Message) {
	g := w.list()
	for i := range list {
		w.item(&g)
		list[i].write(w)
	}
	w.end(g)
}

func (m *Message) write(w *writer) {
	g := w.object()
	w.textField(&g, "id", m.ID)
	w.optTextField(&g, "name", m.Name)
	w.data(&g, m.Data, m.Encoding)
	w.textField(&g, "clientId", m.ClientID)
	w.textField(&g, "connectionId", m.ConnectionID)
	w.textField(&g, "connectionKey", m.ConnectionKey)
	w.intField(&g, "timestamp", m.Timestamp)
	w.rawField(&g, "extras", m.Extras)
	w.zeroIntField(&g, "action", int64(m.Action))
	w.textField(&g, "serial", m.Serial)
	if m.Version != nil {
		w.key(&g, "version")
		m.Version.write(w)
	}
	w.rawField(&g, "annotations", m.Annotations)
	w.end(g)
}

func (v *Version) write(w *writer) {
	g := w.object()
	w.textField(&g, "serial", v.Serial)
	w.intField(&g, "timestamp", v.Timestamp)
	w.textField(&g, "clientId", v.ClientID)
	w.textField(&g, "description", v.Description)
	w.rawField(&g, "metadata", v.Metadata)
	w.end(g)
}

// size estimates the bytes of the message, rather too many than too few.
func (m *Message) size() int {
	n := 192 + len(m.ID) + len(m.Name.V) + m.Data.size() + len(m.Encoding) + len(m.ClientID) + len(m.ConnectionID) +
		len(m.ConnectionKey) + len(m.Extras) + len(m.Serial) + len(m.Annotations)
	if v := m.Version; v != nil {
		n += 96 + len(v.Serial) + len(v.ClientID) + len(v.Description) + len(v.Metadata)
	}
	return n
}
