package main

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"strconv"
)

// wire is how frames look on a connection. The client speaks WebSocket to servers and a bare length prefix to
// the floors; it parses headers alone, so that it costs far less than the server it measures.
type wire uint8

const (
	webSocket    wire = iota // RFC 6455
	lengthPrefix             // four bytes of length, most significant first, then the body
)

// Opcodes of RFC 6455. A length-prefixed frame counts as text.
const (
	opText   byte = 1
	opBinary byte = 2
	opClose  byte = 8
	opPing   byte = 9
	opPong   byte = 10
)

// maxFrame is the longest frame, in bytes, that the client believes: twice the server's default message limit.
const maxFrame = 1 << 20

var (
	errFrame    = errors.New("a frame that no server may send: masked, fragmented or with reserved bits")
	errTooLarge = errors.New("a frame of more than 1 MiB")
)

// header parses the header at the front of b. ok is false while b is too short to tell.
func (w wire) header(b []byte) (op byte, head, size int, ok bool, err error) {
	if w == lengthPrefix {
		if len(b) < 4 {
			return 0, 0, 0, false, nil
		}
		return opText, 4, int(binary.BigEndian.Uint32(b)), true, checkSize(uint64(binary.BigEndian.Uint32(b)))
	}
	if len(b) < 2 {
		return 0, 0, 0, false, nil
	}
	op = b[0] & 0x0f
	if b[0]&0xf0 != 0x80 || b[1]&0x80 != 0 || op == 0 {
		return 0, 0, 0, false, errFrame
	}
	switch n := b[1]; {
	case n < 126:
		return op, 2, int(n), true, nil
	case n == 126:
		if len(b) < 4 {
			return 0, 0, 0, false, nil
		}
		return op, 4, int(binary.BigEndian.Uint16(b[2:])), true, nil
	default:
		if len(b) < 10 {
			return 0, 0, 0, false, nil
		}
		long := binary.BigEndian.Uint64(b[2:])
		return op, 10, int(min(long, maxFrame)), true, checkSize(long)
	}
}

func checkSize(n uint64) error {
	if n > maxFrame {
		return errTooLarge
	}
	return nil
}

// appendFrame appends one whole frame as a client sends it. A WebSocket frame is masked with key.
func (w wire) appendFrame(dst []byte, op byte, key [4]byte, payload []byte) []byte {
	if w == lengthPrefix {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(payload)))
		return append(dst, payload...)
	}
	dst = append(dst, 0x80|op)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, 0x80|byte(n))
	case n <= 0xffff:
		dst = binary.BigEndian.AppendUint16(append(dst, 0x80|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 0x80|127), uint64(n))
	}
	dst = append(dst, key[:]...)
	for i, c := range payload {
		dst = append(dst, c^key[i&3])
	}
	return dst
}

// newKey returns a masking key. One per connection serves: nothing between the two ends could be poisoned here.
func newKey() (key [4]byte) {
	rand.Read(key[:])
	return key
}

// stamp travels in every message and tells the receiver what it got and when it was due.
type stamp struct {
	publisher uint16 // index of the publisher in its room
	slot      uint8  // which of several loops the message belongs to
	seq       uint32 // counts from 1 per publisher and lane
	at        int64  // ns on the client's clock (see now): the scheduled time in an open loop
}

// stampMark stands before a stamp's digits. It holds no character that JSON escapes.
const (
	stampMark   = "~LSB~"
	stampDigits = 4 + 2 + 8 + 16
)

// template is a frame encoded once, in which only the stamp is rewritten for each message.
// It is owned by whoever holds the socket's write lock.
type template struct {
	frame []byte
	at    int     // offset of the stamp's first digit in frame
	key   [4]byte // the masking key at that offset, rotated
}

// newTemplate encodes payload, which must hold stampMark and room for the digits after it.
func newTemplate(w wire, key [4]byte, payload []byte) *template {
	t := &template{frame: w.appendFrame(nil, opText, key, payload)}
	mark := bytes.Index(payload, []byte(stampMark)) + len(stampMark)
	t.at = len(t.frame) - len(payload) + mark
	if w == webSocket {
		for i := range t.key {
			t.key[i] = key[(mark+i)&3]
		}
	}
	return t
}

// set writes s into the frame, masked, and returns the frame. It is valid until the next set.
func (t *template) set(s stamp) []byte {
	var digits [stampDigits]byte
	putHex(digits[0:4], uint64(s.publisher))
	putHex(digits[4:6], uint64(s.slot))
	putHex(digits[6:14], uint64(s.seq))
	putHex(digits[14:30], uint64(s.at))
	for i, c := range digits {
		t.frame[t.at+i] = c ^ t.key[i&3]
	}
	return t.frame
}

// findStamp looks for the stamp in a delivered message. hint is where the last one on this connection was found:
// a server's messages of one kind are alike, so the search is usually one comparison.
func findStamp(payload []byte, hint *int) (s stamp, ok bool) {
	at := *hint
	if at+len(stampMark)+stampDigits > len(payload) || string(payload[at:at+len(stampMark)]) != stampMark {
		at = bytes.Index(payload, []byte(stampMark))
		if at < 0 || at+len(stampMark)+stampDigits > len(payload) {
			return s, false
		}
		*hint = at
	}
	digits := payload[at+len(stampMark):]
	publisher, ok1 := hex(digits[0:4])
	slot, ok2 := hex(digits[4:6])
	seq, ok3 := hex(digits[6:14])
	due, ok4 := hex(digits[14:30])
	s = stamp{uint16(publisher), uint8(slot), uint32(seq), int64(due)}
	return s, ok1 && ok2 && ok3 && ok4
}

func putHex(dst []byte, n uint64) {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = "0123456789abcdef"[n&15]
		n >>= 4
	}
}

func hex(b []byte) (n uint64, ok bool) {
	for _, c := range b {
		switch {
		case '0' <= c && c <= '9':
			n = n<<4 | uint64(c-'0')
		case 'a' <= c && c <= 'f':
			n = n<<4 | uint64(c-'a'+10)
		default:
			return 0, false
		}
	}
	return n, true
}

// dataObject returns a JSON object of size bytes (or a little more, where it cannot be as short) from the user id, with room for a stamp.
func dataObject(id string, size int) []byte {
	b := append([]byte(nil), `{"from":`...)
	b = strconv.AppendQuote(b, id)
	b = append(b, `,"mark":"`+stampMark...)
	b = append(b, bytes.Repeat([]byte{'0'}, stampDigits)...)
	b = append(b, `","pad":"`...)
	if n := size - len(b) - 2; n > 0 {
		b = append(b, bytes.Repeat([]byte{'x'}, n)...)
	}
	return append(b, `"}`...)
}
