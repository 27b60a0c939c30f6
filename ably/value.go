package ably

import "math"

// Object is a map that keeps the order of its fields.
type Object []Field

// Field is one key of an Object with its value.
type Field struct {
	Key   string
	Value any
}

// RawJSON is a value that is JSON already.
type RawJSON []byte

// DecodeValue reads a value of any shape, up to MaxDepth levels deep: nil, bool, int64, uint64 (only above
// int64), float64, string, []byte (only from msgpack), []any and Object. Of two fields with the same key both are
// there.
func DecodeValue(f Format, p []byte) (any, error) {
	r := newReader(f, p)
	v := r.value(MaxDepth)
	if err := r.end(); err != nil {
		return nil, err
	}
	return v, nil
}

func (r *reader) value(depth int) any {
	k := r.kind()
	if depth == 0 && (k == kindList || k == kindObject) {
		r.wrong(tooDeep)
		return nil
	}
	switch k {
	case kindBool:
		return r.bool()
	case kindNumber:
		return r.number().value()
	case kindText:
		return string(r.textBytes())
	case kindBinary:
		return own(r.msgpackBinary())
	case kindList:
		list := []any{}
		for c := r.open(); r.more(&c); {
			list = append(list, r.value(depth-1))
		}
		return list
	case kindObject:
		object := Object{}
		for c := r.open(); r.next(&c); {
			key := string(c.key)
			object = append(object, Field{key, r.value(depth - 1)})
		}
		return object
	case kindNull:
		r.skip()
	case kindOther:
		r.wrong("holds an extension type")
	default:
		r.lost()
	}
	return nil
}

func (n number) value() any {
	switch {
	case !n.whole:
		return n.f
	case n.negative:
		return -int64(n.size)
	case n.size <= math.MaxInt64:
		return int64(n.size)
	}
	return n.size
}

// AppendValue writes a value at the end of dst: what DecodeValue returns, int, []string, RawJSON or an ErrorInfo.
// In JSON a []byte is base64 text. A value of any other type is the caller's mistake; it is written as null.
func AppendValue(dst []byte, f Format, v any) []byte {
	w := writer{format: f, buf: dst}
	w.value(v)
	return w.buf
}

func (w *writer) value(v any) {
	switch v := v.(type) {
	case bool:
		w.bool(v)
	case int:
		w.int(int64(v))
	case int64:
		w.int(v)
	case uint64:
		w.number(number{whole: true, size: v})
	case float64:
		w.number(number{f: v})
	case string:
		w.text(v)
	case []byte:
		w.binary(v)
	case RawJSON:
		w.raw(v)
	case *ErrorInfo:
		v.write(w)
	case []string:
		g := w.list()
		for _, s := range v {
			w.item(&g)
			w.text(s)
		}
		w.end(g)
	case []any:
		g := w.list()
		for _, entry := range v {
			w.item(&g)
			w.value(entry)
		}
		w.end(g)
	case Object:
		g := w.object()
		for _, field := range v {
			w.key(&g, field.Key)
			w.value(field.Value)
		}
		w.end(g)
	default:
		w.null()
	}
}
