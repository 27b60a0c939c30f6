package main

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// relayFrame is a parsed binary frame: 256 bytes of header, then the payload.
type relayFrame struct {
	ID    []byte // transfer_id, inside the frame's own bytes
	Index int64
	Size  int64 // payload bytes, checked against the frame's length
	Total int64
}

// Event is the frame as an event of its transfer, said by the socket by.
func (f relayFrame) Event(by endpoint) TransferEvent {
	return TransferEvent{Kind: EventFrame, By: by, Index: f.Index, Size: f.Size, Total: f.Total}
}

// parseRelayFrame reads the header of a binary frame: a JSON object {transfer_id, chunk_index, chunk_size,
// total_chunks}, then NUL up to 256 bytes. It allocates nothing and keeps p only as ID. The problem is relayBadFrame.
//
// It reads a strict part of JSON (no escapes, no nesting, none of the four keys twice), so that it never understands
// a header otherwise than the receiver's JSON.parse does.
func parseRelayFrame(p []byte) (relayFrame, relayProblem) {
	if len(p) < relayHeaderBytes || len(p) > relayHeaderBytes+maxRelayChunkBytes {
		return relayFrame{}, relayBadFrame
	}
	s := headerScanner{rest: p[:relayHeaderBytes]}
	f := relayFrame{Index: -1, Size: -1, Total: -1}
	s.space()
	s.want('{')
	for more := true; more && !s.failed; {
		s.member(&f)
		more = s.separator()
	}
	s.space()
	payload := int64(len(p) - relayHeaderBytes)
	if s.failed || !allNUL(s.rest) || len(f.ID) < 1 || len(f.ID) > maxTransferIDBytes ||
		f.Index < 0 || f.Index >= f.Total || f.Size != payload {
		return relayFrame{}, relayBadFrame
	}
	return f, relayNoProblem
}

// headerScanner reads a frame header from the front. After a failure the rest means nothing.
type headerScanner struct {
	rest   []byte
	failed bool
}

// member reads one "key": value into f.
func (s *headerScanner) member(f *relayFrame) {
	key := s.string()
	s.space()
	s.want(':')
	s.space()
	switch string(key) {
	case "transfer_id":
		s.failed = s.failed || f.ID != nil
		f.ID = s.string()
	case "chunk_index":
		s.number(&f.Index)
	case "chunk_size":
		s.number(&f.Size)
	case "total_chunks":
		s.number(&f.Total)
	default:
		s.skip()
	}
}

// skip passes over the value of an unknown key: a string, a number, true, false or null.
func (s *headerScanner) skip() {
	if len(s.rest) > 0 && s.rest[0] == '"' {
		s.string()
		return
	}
	word := bytes.TrimLeft(s.rest, "0123456789+-.abcdefghijklmnopqrstuvwxyzE")
	value := s.rest[:len(s.rest)-len(word)]
	s.failed = s.failed || !json.Valid(value)
	s.rest = word
}

// separator reads what stands after a member: true after a comma, false after the closing brace.
func (s *headerScanner) separator() bool {
	s.space()
	if len(s.rest) > 0 && s.rest[0] == ',' {
		s.rest = s.rest[1:]
		return true
	}
	s.want('}')
	return false
}

func (s *headerScanner) space() {
	for len(s.rest) > 0 && (s.rest[0] == ' ' || s.rest[0] == '\t' || s.rest[0] == '\n' || s.rest[0] == '\r') {
		s.rest = s.rest[1:]
	}
}

func (s *headerScanner) want(c byte) {
	if len(s.rest) == 0 || s.rest[0] != c {
		s.failed = true
		return
	}
	s.rest = s.rest[1:]
}

// string reads a string without escapes and control characters, of valid UTF-8. It is never nil.
func (s *headerScanner) string() []byte {
	s.space()
	s.want('"')
	for i, c := range s.rest {
		if c == '"' {
			text := s.rest[:i:i]
			s.rest = s.rest[i+1:]
			s.failed = s.failed || !utf8.Valid(text)
			return text
		}
		if c < ' ' || c == '\\' {
			break
		}
	}
	s.failed = true
	return []byte{}
}

// number reads a whole number ≥ 0 into n, which must not have one yet (-1).
func (s *headerScanner) number(n *int64) {
	end := 0
	value := int64(0)
	for end < len(s.rest) && s.rest[end] >= '0' && s.rest[end] <= '9' && value <= maxSafeInteger/10 {
		value = value*10 + int64(s.rest[end]-'0')
		end++
	}
	if *n >= 0 || end == 0 || end > 1 && s.rest[0] == '0' || value > maxSafeInteger {
		s.failed = true
	}
	*n = value
	s.rest = s.rest[end:]
}

func allNUL(p []byte) bool {
	for _, c := range p {
		if c != 0 {
			return false
		}
	}
	return true
}
