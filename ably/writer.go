package ably

import (
	"encoding/base64"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tinylib/msgp/msgp"
)

// writer appends values to buf in its format.
type writer struct {
	format Format
	buf    []byte
}

// group is an object or a list being written. In msgpack its head says how many entries there are: a byte is kept
// free for it, which is enough for 15.
type group struct {
	list bool
	at   int // of the head
	n    int
}

func (w *writer) object() group { return w.begin(false, '{') }
func (w *writer) list() group   { return w.begin(true, '[') }

func (w *writer) begin(list bool, head byte) group {
	w.buf = append(w.buf, head)
	return group{list: list, at: len(w.buf) - 1}
}

// key begins a field.
func (w *writer) key(g *group, key string) {
	w.item(g)
	w.text(key)
	if w.format == JSON {
		w.buf = append(w.buf, ':')
	}
}

// item begins an entry of a list.
func (w *writer) item(g *group) {
	if w.format == JSON && g.n > 0 {
		w.buf = append(w.buf, ',')
	}
	g.n++
}

func (w *writer) end(g group) {
	switch {
	case w.format == JSON && g.list:
		w.buf = append(w.buf, ']')
	case w.format == JSON:
		w.buf = append(w.buf, '}')
	default:
		var head [5]byte
		h := head[:0]
		if g.list {
			h = msgp.AppendArrayHeader(h, uint32(g.n))
		} else {
			h = msgp.AppendMapHeader(h, uint32(g.n))
		}
		w.buf[g.at] = h[0]
		w.buf = slices.Insert(w.buf, g.at+1, h[1:]...)
	}
}

func (w *writer) null() {
	if w.format == JSON {
		w.buf = append(w.buf, "null"...)
	} else {
		w.buf = msgp.AppendNil(w.buf)
	}
}

func (w *writer) bool(b bool) {
	switch {
	case w.format != JSON:
		w.buf = msgp.AppendBool(w.buf, b)
	case b:
		w.buf = append(w.buf, "true"...)
	default:
		w.buf = append(w.buf, "false"...)
	}
}

// number writes whole numbers in the fewest bytes of the signs that the SDK itself uses.
func (w *writer) number(n number) {
	switch {
	case w.format == JSON:
		w.buf = n.appendJSON(w.buf)
	case !n.whole:
		w.buf = msgp.AppendFloat64(w.buf, n.f)
	case n.negative:
		w.buf = msgp.AppendInt64(w.buf, -int64(n.size))
	default:
		w.buf = msgp.AppendUint64(w.buf, n.size)
	}
}

func (w *writer) int(i int64) { w.number(wholeNumber(i)) }

// text writes a string. What is not UTF-8 in it is replaced: a browser would close the connection.
func (w *writer) text(s string) {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	if w.format == JSON {
		w.buf = appendQuoted(w.buf, s)
	} else {
		w.buf = msgp.AppendString(w.buf, s)
	}
}

// textBytes writes a string that is UTF-8.
func (w *writer) textBytes(b []byte) {
	if !utf8.Valid(b) {
		w.text(string(b))
	} else if w.format == JSON {
		w.buf = appendQuoted(w.buf, b)
	} else {
		w.buf = msgp.AppendStringFromBytes(w.buf, b)
	}
}

// binary writes bytes, in JSON as base64 text.
func (w *writer) binary(b []byte) {
	if w.format != JSON {
		w.buf = msgp.AppendBytes(w.buf, b)
		return
	}
	w.buf = append(w.buf, '"')
	w.buf = base64.StdEncoding.AppendEncode(w.buf, b)
	w.buf = append(w.buf, '"')
}

// raw writes a JSON value: in JSON as it is, in msgpack as the same value. What is no JSON becomes null there.
func (w *writer) raw(value []byte) {
	if w.format == JSON {
		w.buf = append(w.buf, value...)
		return
	}
	start := len(w.buf)
	r := newReader(JSON, value)
	w.copy(&r, MaxDepth)
	if r.end() != nil {
		w.buf = w.buf[:start]
		w.null()
	}
}

// copy writes the next value of r, which has up to depth levels of lists and objects. Bytes become base64 text in
// JSON. What cannot be copied is null, and r has noted it.
func (w *writer) copy(r *reader, depth int) {
	k := r.kind()
	if depth == 0 && (k == kindList || k == kindObject) {
		r.wrong(tooDeep)
		w.null()
		return
	}
	switch k {
	case kindBool:
		w.bool(r.bool())
	case kindNumber:
		w.number(r.number())
	case kindText:
		w.textBytes(r.textBytes())
	case kindBinary:
		w.binary(r.msgpackBinary())
	case kindList:
		g := w.list()
		for c := r.open(); r.more(&c); {
			w.item(&g)
			w.copy(r, depth-1)
		}
		w.end(g)
	case kindObject:
		g := w.object()
		for c := r.open(); r.next(&c); {
			w.item(&g)
			w.textBytes(c.key)
			if w.format == JSON {
				w.buf = append(w.buf, ':')
			}
			w.copy(r, depth-1)
		}
		w.end(g)
	case kindOther:
		r.wrong("holds an extension type")
		w.null()
	case kindNull:
		r.skip()
		w.null()
	default:
		r.lost()
		w.null()
	}
}

// textField writes a field unless it is empty; so do the next ones.
func (w *writer) textField(g *group, key, s string) {
	if s != "" {
		w.key(g, key)
		w.text(s)
	}
}

func (w *writer) optTextField(g *group, key string, s Opt[string]) {
	if s.OK {
		w.key(g, key)
		w.text(s.V)
	}
}

func (w *writer) intField(g *group, key string, i int64) {
	if i != 0 {
		w.key(g, key)
		w.int(i)
	}
}

func (w *writer) rawField(g *group, key string, value []byte) {
	if len(value) > 0 {
		w.key(g, key)
		w.raw(value)
	}
}

// zeroIntField writes a field also when it is 0.
func (w *writer) zeroIntField(g *group, key string, i int64) {
	w.key(g, key)
	w.int(i)
}
