package ably

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"unicode/utf8"
)

const (
	// MaxDepth is how many levels of lists and objects an Extras or a Data may have: each is a call on the stack.
	MaxDepth = 64
	// MaxList is how many messages, presence messages, annotations or serials are read from one list: in memory
	// an empty one has some 300 times the size that it has in a frame. A page of history has at most as many.
	MaxList = 1000
)

// kind is what the next value of a reader is.
type kind uint8

const (
	kindNone kind = iota // the input ends here, or goes on with what its format does not know
	kindNull
	kindBool
	kindNumber
	kindText
	kindBinary
	kindList
	kindObject
	kindOther // an extension type of msgpack
)

// reader takes values from a frame, one after the other. The first thing found wrong is kept in err, and reading
// goes on behind it, so that the caller can still tell which publish it has to refuse; only when it is unknown
// where the next value begins the reader is dead. What it returns is part of the frame or of scratch.
type reader struct {
	format  Format
	dead    bool
	rest    []byte // what has not been read
	scratch []byte // the last string that had escapes
	level   int    // lists and objects being read
	path    [6]step
	err     error
}

// step is one level of the way to a value, for an error's text.
type step struct {
	key   []byte // nil: an entry of a list
	index int
}

// cursor stands in a list or in an object.
type cursor struct {
	left  uint32 // msgpack: entries to come
	index int    // entries begun
	key   []byte // of the field that follows; nil in a list
	done  bool
}

func newReader(f Format, p []byte) reader {
	r := reader{format: f, rest: p}
	if f != JSON {
		return r
	}
	if !utf8.Valid(p) {
		r.die("is not UTF-8")
	} else if !json.Valid(p) {
		r.die("is not JSON")
	}
	return r
}

// end returns the first thing that was wrong; that something follows the value is wrong too.
func (r *reader) end() error {
	if r.format == JSON {
		r.space()
	}
	if !r.dead && len(r.rest) > 0 {
		r.die("is followed by more bytes")
	}
	return r.err
}

// note keeps what is wrong with the value at hand.
func (r *reader) note(what string) {
	if r.err == nil {
		r.err = errors.New(r.where() + " " + what)
	}
}

// wrong notes what is wrong with the next value and passes it over.
func (r *reader) wrong(what string) {
	if r.kind() == kindNone {
		r.lost()
		return
	}
	r.note(what)
	r.skip()
}

// lost ends all because there is no next value.
func (r *reader) lost() {
	if len(r.rest) == 0 {
		r.die("is cut short")
	} else {
		r.die("is not msgpack")
	}
}

// die notes what is wrong where nothing more can be read.
func (r *reader) die(what string) {
	r.note(what)
	r.dead = true
	r.rest = nil
}

// where returns the way to the value at hand, like messages[2].name. Keys are the client's, so they are cut.
func (r *reader) where() string {
	if r.level == 0 {
		return "the message"
	}
	var way []byte
	for i := range min(r.level, len(r.path)) {
		key := r.path[i].key
		if key == nil {
			way = append(way, '[')
			way = strconv.AppendInt(way, int64(r.path[i].index), 10)
			way = append(way, ']')
			continue
		}
		if len(way) > 0 {
			way = append(way, '.')
		}
		way = append(way, key[:min(len(key), 32)]...)
	}
	return string(bytes.ToValidUTF8(way, []byte("\uFFFD")))
}

// kind returns what the next value is.
func (r *reader) kind() kind {
	if r.format == JSON {
		return r.jsonKind()
	}
	return r.msgpackKind()
}

// null passes over the next value if it is null and says whether it was.
func (r *reader) null() bool {
	if r.kind() != kindNull {
		return false
	}
	r.skip()
	return true
}

// skip passes over the next value, however deep it is.
func (r *reader) skip() {
	if r.dead {
		return
	}
	if r.format == JSON {
		r.rest = r.rest[jsonEnd(r.rest):]
		return
	}
	r.skipMsgpack()
}

// object goes into the next value. Use: for c := r.object(); r.next(&c); { … c.key … }
func (r *reader) object() cursor {
	if r.kind() != kindObject {
		r.wrong("is not an object")
		return cursor{done: true}
	}
	return r.open()
}

// list goes into the next value. Use: for c := r.list(); r.more(&c); { … }
func (r *reader) list() cursor {
	if r.kind() != kindList {
		r.wrong("is not an array")
		return cursor{done: true}
	}
	return r.open()
}

// open goes into the list or object that comes next.
func (r *reader) open() cursor {
	r.level++
	if r.format == JSON {
		r.rest = r.rest[1:]
		return cursor{}
	}
	return cursor{left: r.msgpackHeader()}
}

// next goes to the next field of an object.
func (r *reader) next(c *cursor) bool {
	if !r.advance(c, '}') {
		return false
	}
	if r.format == JSON {
		c.key = r.jsonKey()
	} else {
		c.key = r.msgpackKey()
	}
	return !r.at(c, step{key: c.key})
}

// more goes to the next entry of a list.
func (r *reader) more(c *cursor) bool {
	return r.advance(c, ']') && !r.at(c, step{index: c.index - 1})
}

// at notes where the reader is. It reports whether the reader has died.
func (r *reader) at(c *cursor, s step) bool {
	if r.level <= len(r.path) {
		r.path[r.level-1] = s
	}
	if r.dead {
		r.close(c)
	}
	return r.dead
}

// advance goes behind the last entry of a list or object, and behind the comma if another one follows.
func (r *reader) advance(c *cursor, end byte) bool {
	if c.done {
		return false
	}
	if r.dead {
		return r.close(c)
	}
	if r.format == JSON {
		if !r.jsonEntry(end, c.index == 0) {
			return r.close(c)
		}
	} else {
		if c.left == 0 {
			return r.close(c)
		}
		c.left--
	}
	c.index++
	return true
}

// close leaves the list or object. It returns false.
func (r *reader) close(c *cursor) bool {
	c.done = true
	r.level--
	return false
}

// full reports whether a list has had as many entries as are read; it then passes over the rest.
func (r *reader) full(c *cursor) bool {
	if c.index <= MaxList {
		return false
	}
	r.skip()
	for r.more(c) {
		r.skip()
	}
	r.note("holds more than " + strconv.Itoa(MaxList) + " entries")
	return true
}

// textBytes returns the next value, which is a string.
func (r *reader) textBytes() []byte {
	if r.format == JSON {
		return r.jsonText()
	}
	return r.msgpackText()
}

// text returns the next value if it is a string; null is "".
func (r *reader) text() string { return r.optText().V }

func (r *reader) optText() Opt[string] {
	if r.null() {
		return Opt[string]{}
	}
	if r.kind() != kindText {
		r.wrong("is not a string")
		return Opt[string]{}
	}
	return Some(string(r.textBytes()))
}

// number returns the next value, which is a number.
func (r *reader) number() number {
	if r.format == JSON {
		return parseNumber(r.jsonToken())
	}
	return r.msgpackNumber()
}

func (r *reader) bool() bool {
	if r.format == JSON {
		return r.jsonToken()[0] == 't'
	}
	return r.msgpackBool()
}

// int returns the next value if it is a whole number; null is 0.
func (r *reader) int() int64 { return r.optInt().V }

func (r *reader) optInt() Opt[int64] {
	if r.null() {
		return Opt[int64]{}
	}
	if r.kind() == kindNumber {
		n := r.number()
		if i, ok := n.int64(); ok {
			return Some(i)
		}
		r.note("is not a whole number")
		return Opt[int64]{}
	}
	r.wrong("is not a number")
	return Opt[int64]{}
}

// intUpTo is int for a field that holds only 0 to most.
func (r *reader) intUpTo(most int64) int64 {
	i := r.int()
	if i < 0 || i > most {
		r.note("is out of range")
		return 0
	}
	return i
}

// encoding is text without an allocation for what is usual.
func (r *reader) encoding() string {
	if r.kind() != kindText {
		return r.text()
	}
	b := r.textBytes()
	switch string(b) {
	case "json":
		return "json"
	case "utf-8":
		return "utf-8"
	case "base64":
		return "base64"
	case "json/base64":
		return "json/base64"
	case "json/utf-8/cipher+aes-256-cbc":
		return "json/utf-8/cipher+aes-256-cbc"
	case "json/utf-8/cipher+aes-256-cbc/base64":
		return "json/utf-8/cipher+aes-256-cbc/base64"
	}
	return string(b)
}

// raw returns the next value as JSON, in bytes of its own. What came as JSON is as it came.
func (r *reader) raw() []byte {
	if r.format == JSON {
		r.space()
		n := jsonEnd(r.rest)
		value := r.rest[:n]
		if jsonDepth(value) > MaxDepth {
			r.note(tooDeep)
			value = nil
		}
		r.rest = r.rest[n:]
		return bytes.Clone(value)
	}
	w := writer{format: JSON}
	w.copy(r, MaxDepth)
	return w.buf
}

const tooDeep = "has more than 64 levels"

// rawObject is raw for what must be an object; null is nil.
func (r *reader) rawObject() []byte {
	if r.null() {
		return nil
	}
	if r.kind() != kindObject {
		r.wrong("is not an object")
		return nil
	}
	return r.raw()
}

// params returns the next value as map of texts. A user may have written numbers and bools.
func (r *reader) params() map[string]string {
	if r.null() {
		return nil
	}
	m := map[string]string{}
	for c := r.object(); r.next(&c); {
		key := string(c.key)
		switch r.kind() {
		case kindNull:
			delete(m, key)
			r.skip()
		case kindText:
			m[key] = r.text()
		case kindBool:
			m[key] = strconv.FormatBool(r.bool())
		case kindNumber:
			if r.format == JSON {
				m[key] = string(r.jsonToken())
			} else {
				m[key] = string(r.msgpackNumber().appendJSON(nil))
			}
		default:
			r.wrong("is not text")
		}
	}
	return m
}
