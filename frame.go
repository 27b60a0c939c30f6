package main

import "encoding/binary"

// WebSocket opcodes (RFC 6455 section 5.2).
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

const (
	finBit  = 0x80
	maskBit = 0x80
	// maxFrameHeader is the longest header: 2 bytes, 8 of length, 4 of mask.
	maxFrameHeader = 14
	// maxControlPayload is the most a control frame may carry (RFC 6455 section 5.5).
	maxControlPayload = 125
)

// pingFrame is our keep-alive. It is shared by all connections and never written to.
var pingFrame = []byte{finBit | opPing, 0}

// frameHeaderSize is the length in bytes of an unmasked header for n bytes of payload.
func frameHeaderSize(n int) int {
	switch {
	case n <= 125:
		return 2
	case n <= 0xFFFF:
		return 4
	default:
		return 10
	}
}

// appendFrameHeader appends the header of a whole, unmasked frame of n bytes of payload.
func appendFrameHeader(dst []byte, opcode byte, n int) []byte {
	dst = append(dst, finBit|opcode)
	switch {
	case n <= 125:
		return append(dst, byte(n))
	case n <= 0xFFFF:
		return binary.BigEndian.AppendUint16(append(dst, 126), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(dst, 127), uint64(n))
	}
}

// closeFrame builds a close frame. A code of 0 means a close frame without a body.
// A reason longer than a control frame can carry is cut.
func closeFrame(code uint16, reason string) []byte {
	if code == 0 {
		return []byte{finBit | opClose, 0}
	}
	reason = reason[:min(len(reason), maxControlPayload-2)]
	frame := appendFrameHeader(make([]byte, 0, 4+len(reason)), opClose, 2+len(reason))
	frame = binary.BigEndian.AppendUint16(frame, code)
	return append(frame, reason...)
}

// unmask undoes a client's masking, in place (RFC 6455 section 5.3).
func unmask(p []byte, key [4]byte) {
	word := binary.LittleEndian.Uint32(key[:])
	wide := uint64(word)<<32 | uint64(word)
	i := 0
	for ; i+8 <= len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], binary.LittleEndian.Uint64(p[i:])^wide)
	}
	for ; i < len(p); i++ {
		p[i] ^= key[i%4]
	}
}

// validCloseCode reports whether a peer may send the code (RFC 6455 section 7.4 and the IANA registry).
func validCloseCode(code uint16) bool {
	switch {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014, code >= 3000 && code <= 4999:
		return true
	}
	return false
}

// frameScanner follows the frame boundaries in a client's bytes without touching them. The library
// checks and decodes the frames; it does not tell where they begin and end, and that is what bounds a
// message in time and bytes, shows that a connection is idle, and finds the peer's close frame
// while everything else is thrown away. Owned by the connection's read goroutine.
type frameScanner struct {
	header    [maxFrameHeader]byte
	have      uint8  // bytes of header held
	inMessage bool   // a data message has begun and its last frame has not ended
	binary    bool   // the data message that began last is binary
	closed    bool   // a whole close frame has passed
	payload   uint64 // bytes of payload still to come
}

// atBoundary reports whether the next byte is the first of a frame.
func (s *frameScanner) atBoundary() bool { return s.have == 0 && s.payload == 0 }

// idle reports whether nothing is under way: neither a frame nor a fragmented message.
func (s *frameScanner) idle() bool { return s.atBoundary() && !s.inMessage }

// scan takes the next bytes of the stream, in order, each once.
func (s *frameScanner) scan(p []byte) {
	for len(p) > 0 {
		if s.payload > 0 {
			n := min(uint64(len(p)), s.payload)
			s.payload -= n
			p = p[n:]
			if s.payload == 0 {
				s.endFrame()
			}
			continue
		}
		n := copy(s.header[s.have:s.headerSize()], p)
		s.have += uint8(n)
		p = p[n:]
		if int(s.have) == s.headerSize() {
			s.beginPayload()
		}
	}
}

// headerSize is how long the header under way will be, as far as the bytes held tell.
func (s *frameScanner) headerSize() int {
	if s.have < 2 {
		return 2
	}
	size := 2
	switch s.header[1] &^ maskBit {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if s.header[1]&maskBit != 0 {
		size += 4
	}
	return size
}

// beginPayload reads the length out of a whole header.
func (s *frameScanner) beginPayload() {
	switch n := s.header[1] &^ maskBit; n {
	case 126:
		s.payload = uint64(binary.BigEndian.Uint16(s.header[2:]))
	case 127:
		s.payload = binary.BigEndian.Uint64(s.header[2:])
	default:
		s.payload = uint64(n)
	}
	switch opcode := s.header[0] & 0xF; opcode {
	case opText, opBinary:
		s.inMessage, s.binary = true, opcode == opBinary
	case opContinuation:
		s.inMessage = true
	}
	if s.payload == 0 {
		s.endFrame()
	}
}

// endFrame notes that a frame is whole.
func (s *frameScanner) endFrame() {
	s.have = 0
	switch s.header[0] & 0xF {
	case opText, opBinary, opContinuation:
		s.inMessage = s.header[0]&finBit == 0
	case opClose:
		s.closed = true
	}
}
