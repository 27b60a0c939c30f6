package ably

import "math"

// What Annotation.Action can be.
const (
	AnnotationCreate uint8 = iota
	AnnotationDelete
)

// Annotation is something said of a message. Its action is always written: without one the SDK knows none.
type Annotation struct {
	ID            string
	Action        uint8
	Serial        string
	MessageSerial string
	Type          string
	Name          Opt[string]
	Count         Opt[int64]
	ClientID      string
	ConnectionID  string
	Data          Data
	Encoding      string // as of Message
	Timestamp     int64  // ms since 1970
	Extras        []byte // a JSON object; nil: none
}

func (r *reader) annotations() []Annotation {
	if r.null() {
		return nil
	}
	list := []Annotation{}
	for c := r.list(); r.more(&c) && !r.full(&c); {
		list = append(list, Annotation{})
		list[len(list)-1].read(r)
	}
	return list
}

func (a *Annotation) read(r *reader) {
	for c := r.object(); r.next(&c); {
		switch string(c.key) {
		case "id":
			a.ID = r.text()
		case "action":
			a.Action = uint8(r.intUpTo(math.MaxUint8))
		case "serial":
			a.Serial = r.text()
		case "messageSerial":
			a.MessageSerial = r.text()
		case "type":
			a.Type = r.text()
		case "name":
			a.Name = r.optText()
		case "count":
			a.Count = r.optInt()
		case "clientId":
			a.ClientID = r.text()
		case "connectionId":
			a.ConnectionID = r.text()
		case "data":
			a.Data = r.data()
		case "encoding":
			a.Encoding = r.encoding()
		case "timestamp":
			a.Timestamp = r.int()
		case "extras":
			a.Extras = r.rawObject()
		default:
			r.skip()
		}
	}
	a.Data.normalise(&a.Encoding)
}

func (w *writer) annotations(list []Annotation) {
	g := w.list()
	for i := range list {
		w.item(&g)
		list[i].write(w)
	}
	w.end(g)
}

func (a *Annotation) write(w *writer) {
	g := w.object()
	w.textField(&g, "id", a.ID)
	w.zeroIntField(&g, "action", int64(a.Action))
	w.textField(&g, "serial", a.Serial)
	w.textField(&g, "messageSerial", a.MessageSerial)
	w.textField(&g, "type", a.Type)
	w.optTextField(&g, "name", a.Name)
	if a.Count.OK {
		w.zeroIntField(&g, "count", a.Count.V)
	}
	w.textField(&g, "clientId", a.ClientID)
	w.textField(&g, "connectionId", a.ConnectionID)
	w.data(&g, a.Data, a.Encoding)
	w.intField(&g, "timestamp", a.Timestamp)
	w.rawField(&g, "extras", a.Extras)
	w.end(g)
}

// size estimates the bytes of the annotation, rather too many than too few.
func (a *Annotation) size() int {
	return 192 + len(a.ID) + len(a.Serial) + len(a.MessageSerial) + len(a.Type) + len(a.Name.V) + len(a.ClientID) +
		len(a.ConnectionID) + a.Data.size() + len(a.Encoding) + len(a.Extras)
}
