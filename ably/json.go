package ably

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// What follows walks through JSON that json.Valid has accepted. On other bytes it finds nonsense, within them.

// space passes over white space.
func (r *reader) space() {
	for len(r.rest) > 0 {
		switch r.rest[0] {
		case ' ', '\t', '\n', '\r':
			r.rest = r.rest[1:]
		default:
			return
		}
	}
}

func (r *reader) jsonKind() kind {
	r.space()
	if len(r.rest) == 0 {
		return kindNone
	}
	switch r.rest[0] {
	case 'n':
		return kindNull
	case 't', 'f':
		return kindBool
	case '"':
		return kindText
	case '[':
		return kindList
	case '{':
		return kindObject
	}
	return kindNumber
}

// jsonEntry goes to the next entry of a list or object, or behind its end.
func (r *reader) jsonEntry(end byte, first bool) bool {
	r.space()
	if len(r.rest) == 0 {
		r.die("is cut short")
		return false
	}
	if r.rest[0] == end {
		r.rest = r.rest[1:]
		return false
	}
	if !first {
		r.rest = r.rest[1:] // the comma
		r.space()
	}
	return true
}

// jsonKey reads a key and the colon behind it. A key with escapes gets bytes of its own.
func (r *reader) jsonKey() []byte {
	text, escaped := r.jsonString()
	if escaped {
		text = unescape(nil, text)
	}
	r.space()
	if len(r.rest) > 0 {
		r.rest = r.rest[1:]
	}
	return text
}

// jsonText reads a string.
func (r *reader) jsonText() []byte {
	r.space()
	text, escaped := r.jsonString()
	if escaped {
		r.scratch = unescape(r.scratch[:0], text)
		return r.scratch
	}
	return text
}

// jsonString reads a string and returns what is between its quotes.
func (r *reader) jsonString() (text []byte, escaped bool) {
	n, escaped := jsonStringEnd(r.rest)
	text = r.rest[min(1, n):max(n-1, min(1, n))]
	r.rest = r.rest[n:]
	return text, escaped
}

// jsonToken reads a number or a word; it is never empty.
func (r *reader) jsonToken() []byte {
	r.space()
	n := jsonEnd(r.rest)
	token := r.rest[:n]
	r.rest = r.rest[n:]
	if n == 0 {
		r.die("is cut short")
		return []byte("0")
	}
	return token
}

// jsonStringEnd returns how long the string is that p begins with, quotes included.
func jsonStringEnd(p []byte) (n int, escaped bool) {
	for i := 1; i < len(p); i++ {
		switch p[i] {
		case '\\':
			escaped = true
			i++
		case '"':
			return i + 1, escaped
		}
	}
	return len(p), escaped
}

// jsonEnd returns where the value ends that p begins with, which may have white space before it.
func jsonEnd(p []byte) int {
	depth := 0
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case ' ', '\t', '\n', '\r', ',', ':':
			continue
		case '{', '[':
			depth++
			continue
		case '}', ']':
			depth--
		case '"':
			n, _ := jsonStringEnd(p[i:])
			i += n - 1
		default:
			if n := bytes.IndexAny(p[i:], " \t\n\r,:]}"); n >= 0 {
				i += n - 1
			} else {
				i = len(p) - 1
			}
		}
		if depth <= 0 {
			return i + 1
		}
	}
	return len(p)
}

// jsonDepth returns how many levels of lists and objects a value has.
func jsonDepth(p []byte) (deepest int) {
	depth := 0
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '{', '[':
			depth++
			deepest = max(deepest, depth)
		case '}', ']':
			depth--
		case '"':
			n, _ := jsonStringEnd(p[i:])
			i += n - 1
		}
	}
	return deepest
}

// unescape appends the text that s, the inside of a JSON string, stands for.
func unescape(dst, s []byte) []byte {
	for {
		i := bytes.IndexByte(s, '\\')
		if i < 0 || i+1 >= len(s) {
			return append(dst, s...)
		}
		dst = append(dst, s[:i]...)
		c := s[i+1]
		s = s[i+2:]
		switch c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			var char rune
			char, s = unescapeRune(s)
			dst = utf8.AppendRune(dst, char)
		default:
			dst = append(dst, c)
		}
	}
}

// unescapeRune reads what follows \u, and a second escape if the two are one character. Half a pair is U+FFFD.
func unescapeRune(s []byte) (rune, []byte) {
	char, ok := hex4(s)
	if !ok {
		return utf8.RuneError, s
	}
	s = s[4:]
	if !utf16.IsSurrogate(char) {
		return char, s
	}
	if len(s) >= 6 && s[0] == '\\' && s[1] == 'u' {
		if low, ok := hex4(s[2:]); ok {
			if pair := utf16.DecodeRune(char, low); pair != utf8.RuneError {
				return pair, s[6:]
			}
		}
	}
	return utf8.RuneError, s
}

func hex4(s []byte) (char rune, ok bool) {
	if len(s) < 4 {
		return 0, false
	}
	for _, c := range s[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		char = char<<4 | rune(c)
	}
	return char, true
}

// appendQuoted writes a JSON string. s is UTF-8.
func appendQuoted[T string | []byte](dst []byte, s T) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	done := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[done:i]...)
		done = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
	}
	dst = append(dst, s[done:]...)
	return append(dst, '"')
}
