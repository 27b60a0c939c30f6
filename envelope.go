package main

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unicode"
	"unicode/utf8"
)

// envelope is one message of a LetShare client, cut into its fields without copying: every slice is
// a part of the message, as raw JSON. nil: the key is absent.
type envelope struct {
	kind    []byte // "type"
	channel []byte
	event   []byte
	data    []byte
	id      []byte

	dataType []byte // data's top-level "type"
	dataFrom []byte // data's top-level "from"
	dataTwin bool   // two top-level keys of data that fold to "type" or to "from" are alike but for case
}

// maxNesting is encoding/json's bound, so that both give the same verdict.
const maxNesting = 10000

// parseEnvelope cuts a message into its fields in one pass. It accepts what encoding/json accepts as an object, except
// for two keys of the envelope that are equal or differ only in case: encoding/json would take the last
// one, in any case, and a check of the first could be bypassed. p must be valid UTF-8.
func parseEnvelope(p []byte) (e envelope, ok bool) {
	s := jsonScanner{text: p}
	s.space()
	if !s.object(&e) {
		return envelope{}, false
	}
	s.space()
	return e, s.at == len(p)
}

// field notes one member of the envelope; data is scanned one level deeper.
func (e *envelope) field(s *jsonScanner, key []byte) bool {
	s.space()
	begin := s.at
	if string(key) == "data" && s.at < len(s.text) && s.text[s.at] == '{' {
		if !s.object(e) {
			return false
		}
	} else if !s.value() {
		return false
	}
	value := s.text[begin:s.at]
	switch string(key) {
	case "type":
		e.kind = value
	case "channel":
		e.channel = value
	case "event":
		e.event = value
	case "data":
		e.data = value
	case "id":
		e.id = value
	}
	return true
}

// dataField notes what the server must know of data: who it says it is from, and its type.
func (e *envelope) dataField(s *jsonScanner, key []byte) bool {
	s.space()
	begin := s.at
	if !s.value() {
		return false
	}
	value := s.text[begin:s.at]
	switch string(key) {
	case "type":
		e.dataType = value
	case "from":
		e.dataFrom = value
	}
	return true
}

// jsonScanner walks over JSON text (RFC 8259) once.
type jsonScanner struct {
	text  []byte
	at    int // index of the next byte
	depth int // objects and arrays open
}

// object walks over an object, the envelope or its data, which must begin here. It hands every key, decoded, to field or
// dataField, which walks over the value. (Called by name, they leave scanner and envelope on the stack.)
// Two keys of the envelope that are alike but for case are refused; in data that is only noted, for the keys that matter.
func (s *jsonScanner) object(e *envelope) bool {
	if !s.take('{') {
		return false
	}
	if s.depth++; s.depth > maxNesting {
		return false
	}
	var seen keySet
	s.space()
	if s.take('}') {
		s.depth--
		return true
	}
	for {
		s.space()
		begin := s.at
		if !s.str() {
			return false
		}
		key := unquote(s.text[begin:s.at])
		inData := s.depth > 1
		if !inData || foldsTo(key, "type") || foldsTo(key, "from") {
			if !seen.add(key) {
				if !inData {
					return false
				}
				e.dataTwin = true
			}
		}
		s.space()
		if !s.take(':') || inData && !e.dataField(s, key) || !inData && !e.field(s, key) {
			return false
		}
		s.space()
		if s.take('}') {
			s.depth--
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

// value walks over any value, without recursion: one bit per open object or array says which it is.
func (s *jsonScanner) value() bool {
	if s.at < len(s.text) && s.text[s.at] != '{' && s.text[s.at] != '[' {
		return s.scalar(s.text[s.at])
	}
	var few [4]uint64
	open := few[:]
	base := s.depth
	push := func(isObject bool) bool {
		n := s.depth - base
		if s.depth++; s.depth > maxNesting {
			return false
		}
		if n/64 == len(open) {
			open = append(open, 0)
		}
		if isObject {
			open[n/64] |= 1 << (n % 64)
		} else {
			open[n/64] &^= 1 << (n % 64)
		}
		return true
	}
	for {
		s.space()
		if s.at == len(s.text) {
			return false
		}
		switch c := s.text[s.at]; c {
		case '{', '[':
			s.at++
			if !push(c == '{') {
				return false
			}
			s.space()
			if s.take(c + 2) { // '}' is '{'+2, ']' is '['+2
				s.depth--
				break
			}
			if c == '{' && !s.key() {
				return false
			}
			continue
		default:
			if !s.scalar(c) {
				return false
			}
		}
		// A value has ended: close what ends with it, until one is open that goes on.
		for {
			n := s.depth - base
			if n == 0 {
				return true
			}
			n--
			isObject := open[n/64]&(1<<(n%64)) != 0
			s.space()
			if s.take(',') {
				if isObject {
					s.space()
					if !s.key() {
						return false
					}
				}
				break
			}
			if isObject && !s.take('}') || !isObject && !s.take(']') {
				return false
			}
			s.depth--
		}
	}
}

// key walks over a key and its colon.
func (s *jsonScanner) key() bool {
	if !s.str() {
		return false
	}
	s.space()
	return s.take(':')
}

// scalar walks over a string, number or literal that begins with c.
func (s *jsonScanner) scalar(c byte) bool {
	switch c {
	case '"':
		return s.str()
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		return s.number()
	}
}

func (s *jsonScanner) literal(word string) bool {
	if !bytes.HasPrefix(s.text[s.at:], []byte(word)) {
		return false
	}
	s.at += len(word)
	return true
}

// number walks over RFC 8259's number: no leading zeros, no bare dot, any size.
func (s *jsonScanner) number() bool {
	s.take('-')
	if !s.take('0') && !s.digits() {
		return false
	}
	if s.take('.') && !s.digits() {
		return false
	}
	if s.take('e') || s.take('E') {
		if !s.take('+') {
			s.take('-')
		}
		return s.digits()
	}
	return true
}

func (s *jsonScanner) digits() bool {
	begin := s.at
	for s.at < len(s.text) && s.text[s.at]-'0' <= 9 {
		s.at++
	}
	return s.at > begin
}

// str walks over a string with its quotes.
func (s *jsonScanner) str() bool {
	if !s.take('"') {
		return false
	}
	for {
		s.at += plainPrefix(s.text[s.at:])
		if s.at == len(s.text) {
			return false
		}
		s.at++
		switch s.text[s.at-1] {
		case '"':
			return true
		case '\\':
			if !s.escape() {
				return false
			}
		default:
			return false
		}
	}
}

// plainPrefix returns how many bytes at the beginning of p stand for themselves inside a JSON string: no quote, no
// backslash, no control character. It looks at eight bytes at a time, because most of what is signalled is long strings:
// subtracting from each byte borrows into its high bit where the byte is less. With bit 1 turned over, the quote (0x22) comes
// right behind the control characters (below 0x20), so that one comparison finds both. A borrow can only reach bytes behind
// the first such one; bytes beyond ASCII, whose high bit is set, stand for themselves.
func plainPrefix(p []byte) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	n := 0
	for ; n+8 <= len(p); n += 8 {
		x := binary.LittleEndian.Uint64(p[n:])
		found := ((x ^ ones*0x02 - ones*0x21) | (x ^ ones*'\\' - ones)) &^ x & highs
		if found != 0 {
			return n + bits.TrailingZeros64(found)/8
		}
	}
	for n < len(p) && p[n] >= 0x20 && p[n] != '"' && p[n] != '\\' {
		n++
	}
	return n
}

// escape walks over what follows a backslash. A lone surrogate is let through, as encoding/json does.
func (s *jsonScanner) escape() bool {
	if s.at == len(s.text) {
		return false
	}
	c := s.text[s.at]
	s.at++
	switch c {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		if len(s.text)-s.at < 4 {
			return false
		}
		_, ok := hex4(s.text[s.at:])
		s.at += 4
		return ok
	}
	return false
}

// take steps over c if it is next.
func (s *jsonScanner) take(c byte) bool {
	if s.at < len(s.text) && s.text[s.at] == c {
		s.at++
		return true
	}
	return false
}

// space steps over white space.
func (s *jsonScanner) space() {
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// keySet tells whether a key, but for case, was there before. The first few cost no allocation.
type keySet struct {
	few  [8][]byte
	n    int
	many map[string]bool // folded; made when few is full
}

// add reports whether key is new.
func (k *keySet) add(key []byte) bool {
	if k.many == nil {
		for _, other := range k.few[:k.n] {
			if mayFold(other, key) && bytes.EqualFold(other, key) {
				return false
			}
		}
		if k.n < len(k.few) {
			k.few[k.n] = key
			k.n++
			return true
		}
		k.many = make(map[string]bool)
		for _, other := range k.few {
			k.many[string(fold(other))] = true
		}
	}
	folded := string(fold(key))
	if k.many[folded] {
		return false
	}
	k.many[folded] = true
	return true
}

// mayFold is a quick look: keys that begin with different ASCII letters are different.
func mayFold(a, b []byte) bool {
	return len(a) == 0 || len(b) == 0 || a[0]|0x20 == b[0]|0x20 || a[0] >= utf8.RuneSelf || b[0] >= utf8.RuneSelf
}

// foldsTo reports whether key is name but for case. name is lower-case ASCII.
func foldsTo(key []byte, name string) bool {
	// The longest rune that folds to an ASCII letter has 3 bytes (the Kelvin sign).
	return len(key) >= len(name) && len(key) <= 3*len(name) && mayFold(key, []byte(name)) && bytes.EqualFold(key, []byte(name))
}

// fold replaces every rune by the least one that differs from it only in case.
func fold(key []byte) []byte {
	return bytes.Map(func(r rune) rune {
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		return least
	}, key)
}

// jsonString decodes a raw JSON value that should be a string. Without escapes the result is a part of raw.
func jsonString(raw []byte) (text []byte, ok bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return nil, false
	}
	return unquote(raw), true
}

// unquote decodes a valid JSON string with its quotes. Lone surrogates become U+FFFD, as in encoding/json.
func unquote(raw []byte) []byte {
	raw = raw[1 : len(raw)-1]
	escape := bytes.IndexByte(raw, '\\')
	if escape < 0 {
		return raw
	}
	text := append(make([]byte, 0, len(raw)), raw[:escape]...)
	for i := escape; i < len(raw); i++ {
		if raw[i] != '\\' {
			text = append(text, raw[i])
			continue
		}
		i++
		switch raw[i] {
		case 'b':
			text = append(text, '\b')
		case 'f':
			text = append(text, '\f')
		case 'n':
			text = append(text, '\n')
		case 'r':
			text = append(text, '\r')
		case 't':
			text = append(text, '\t')
		case 'u':
			r, size := unquoteRune(raw[i+1:])
			text = utf8.AppendRune(text, r)
			i += size
		default:
			text = append(text, raw[i])
		}
	}
	return text
}

// unquoteRune decodes the four hex digits after \u, and the low surrogate that may follow. It returns how many bytes it took.
func unquoteRune(p []byte) (rune, int) {
	high, _ := hex4(p)
	if high < 0xD800 || high > 0xDFFF {
		return high, 4
	}
	if high < 0xDC00 && len(p) >= 10 && p[4] == '\\' && p[5] == 'u' {
		if low, ok := hex4(p[6:]); ok && low >= 0xDC00 && low <= 0xDFFF {
			return (high-0xD800)<<10 + (low - 0xDC00) + 0x10000, 10
		}
	}
	return utf8.RuneError, 4
}

func hex4(p []byte) (rune, bool) {
	var r rune
	for _, c := range p[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

const hexDigits = "0123456789abcdef"

// appendJSONString appends text as a JSON string. text must be valid UTF-8.
func appendJSONString[T string | []byte](dst []byte, text T) []byte {
	dst = append(dst, '"')
	begin := 0
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, text[begin:i]...)
		begin = i + 1
		if c == '"' || c == '\\' {
			dst = append(dst, '\\', c)
		} else {
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xF])
		}
	}
	dst = append(dst, text[begin:]...)
	return append(dst, '"')
}
