package ably

import (
	"encoding/base64"
	"strings"
)

// DataKind says what the bytes of a Data are.
type DataKind uint8

// DataNone has no bytes. DataText is UTF-8. DataBinary is what msgpack carries as bin and JSON as base64 text.
// DataJSON is a JSON value, neither string nor null: clients of REST send objects bare.
const (
	DataNone DataKind = iota
	DataText
	DataBinary
	DataJSON
)

// Data is the payload of a message. It is never changed on its way but for its form in the reader's format.
type Data struct {
	Kind  DataKind
	Bytes []byte
}

// Steps of an encoding.
const (
	base64Step = "base64"
	stepSep    = "/"
)

// data returns the next value as payload, in bytes of its own. null is none.
func (r *reader) data() Data {
	switch r.kind() {
	case kindNull:
		r.skip()
		return Data{}
	case kindText:
		return Data{DataText, own(r.textBytes())}
	case kindBinary:
		return Data{DataBinary, own(r.msgpackBinary())}
	}
	value := r.raw()
	if string(value) == "null" { // a number without end, in msgpack
		return Data{}
	}
	return Data{DataJSON, value}
}

// own copies bytes. No bytes are not nil either, so that equal payloads are deeply equal.
func own(b []byte) []byte { return append([]byte{}, b...) }

// normalise makes bytes of base64 text, and strips that last step of the encoding: the writer puts it back where
// it is needed. A text that is not base64 stays what it is; so the readers will be told that it is wrong.
// It does so in both formats, so that a message is the same whichever way it came.
func (d *Data) normalise(encoding *string) {
	steps, ok := strings.CutSuffix(*encoding, base64Step)
	if !ok || d.Kind != DataText || steps != "" && !strings.HasSuffix(steps, stepSep) {
		return
	}
	b := make([]byte, base64.StdEncoding.DecodedLen(len(d.Bytes)))
	n, err := base64.StdEncoding.Decode(b, d.Bytes)
	if err != nil {
		return
	}
	*d = Data{DataBinary, b[:n]}
	*encoding = strings.TrimSuffix(steps, stepSep)
}

// data writes a payload and its encoding.
func (w *writer) data(g *group, d Data, encoding string) {
	switch d.Kind {
	case DataText:
		w.key(g, "data")
		w.textBytes(d.Bytes)
	case DataBinary:
		w.key(g, "data")
		w.binary(d.Bytes)
	case DataJSON:
		w.rawField(g, "data", d.Bytes)
	}
	if d.Kind != DataBinary || w.format != JSON {
		w.textField(g, "encoding", encoding)
		return
	}
	w.key(g, "encoding")
	w.text(encoding)
	w.buf = w.buf[:len(w.buf)-1] // inside its quotes
	if encoding != "" {
		w.buf = append(w.buf, stepSep...)
	}
	w.buf = append(w.buf, base64Step...)
	w.buf = append(w.buf, '"')
}

// size estimates the bytes of a payload; base64 needs a third more, escapes of a text about as much.
func (d Data) size() int { return len(d.Bytes) * 3 / 2 }
