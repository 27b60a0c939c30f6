package ably

import (
	"bytes"
	"errors"
	"unicode/utf8"

	"github.com/tinylib/msgp/msgp"
)

// undefined is what the SDK writes for a value that JavaScript does not define: an extension type of its own.
var undefined = []byte{0xd4, 0, 0}

func (r *reader) msgpackKind() kind {
	switch msgp.NextType(r.rest) {
	case msgp.NilType:
		return kindNull
	case msgp.BoolType:
		return kindBool
	case msgp.IntType, msgp.UintType, msgp.Float32Type, msgp.Float64Type:
		return kindNumber
	case msgp.StrType:
		return kindText
	case msgp.BinType:
		return kindBinary
	case msgp.ArrayType:
		return kindList
	case msgp.MapType:
		return kindObject
	case msgp.InvalidType:
		return kindNone
	}
	if bytes.HasPrefix(r.rest, undefined) {
		return kindNull
	}
	return kindOther
}

// took goes on behind a value that was read, or ends all if it was not.
func (r *reader) took(rest []byte, err error) {
	switch {
	case err == nil:
		r.rest = rest
	case errors.Is(err, msgp.ErrShortBytes):
		r.die("is cut short")
	default:
		r.die("is not msgpack")
	}
}

// skipMsgpack passes over a value. It counts the values to come instead of calling itself, so any depth will do;
// a count that is not followed by as many values ends with the input.
func (r *reader) skipMsgpack() {
	for left := uint64(1); left > 0 && !r.dead; left-- {
		switch r.msgpackKind() {
		case kindList:
			left += uint64(r.msgpackHeader())
		case kindObject:
			left += 2 * uint64(r.msgpackHeader())
		default:
			r.took(msgp.Skip(r.rest))
		}
	}
}

// msgpackHeader reads how many entries the list or object has that comes next.
func (r *reader) msgpackHeader() (n uint32) {
	var rest []byte
	var err error
	if r.msgpackKind() == kindList {
		n, rest, err = msgp.ReadArrayHeaderBytes(r.rest)
	} else {
		n, rest, err = msgp.ReadMapHeaderBytes(r.rest)
	}
	r.took(rest, err)
	return n
}

// msgpackKey reads a key. What is not UTF-8 in it is replaced, as in every text.
func (r *reader) msgpackKey() []byte {
	if r.msgpackKind() == kindText {
		return r.msgpackText()
	}
	r.level-- // it is the object that is wrong
	if r.msgpackKind() == kindNone {
		r.lost()
	} else {
		r.die("has a key that is not a string")
	}
	r.level++
	return []byte{}
}

// msgpackText reads a string. No reader of JSON would stand bytes that are not UTF-8, so they are replaced.
func (r *reader) msgpackText() []byte {
	text, rest, err := msgp.ReadStringZC(r.rest)
	r.took(rest, err)
	if !utf8.Valid(text) {
		text = bytes.ToValidUTF8(text, []byte("\uFFFD"))
	}
	if text == nil {
		text = []byte{}
	}
	return text
}

func (r *reader) msgpackBinary() []byte {
	b, rest, err := msgp.ReadBytesZC(r.rest)
	r.took(rest, err)
	return b
}

func (r *reader) msgpackBool() bool {
	b, rest, err := msgp.ReadBoolBytes(r.rest)
	r.took(rest, err)
	return b
}

func (r *reader) msgpackNumber() number {
	switch msgp.NextType(r.rest) {
	case msgp.UintType:
		u, rest, err := msgp.ReadUint64Bytes(r.rest)
		r.took(rest, err)
		return number{whole: true, size: u}
	case msgp.IntType:
		i, rest, err := msgp.ReadInt64Bytes(r.rest)
		r.took(rest, err)
		return wholeNumber(i)
	}
	f, rest, err := msgp.ReadFloat64Bytes(r.rest)
	r.took(rest, err)
	return number{f: f}
}
