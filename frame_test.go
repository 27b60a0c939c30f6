package main

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// maskedFrame is a client's frame with the mask key 1,2,3,4.
func maskedFrame(first byte, payload []byte) []byte {
	frame := appendFrameHeader(nil, first&0xF, len(payload))
	frame[0] = first
	frame[1] |= maskBit
	frame = append(frame, 1, 2, 3, 4)
	for i, b := range payload {
		frame = append(frame, b^byte(i%4+1))
	}
	return frame
}

// A scanner that is fed byte by byte must come to the same boundaries as one that is fed everything at once.
func TestFrameScannerFindsBoundariesHoweverTheBytesArrive(t *testing.T) {
	for _, size := range []int{0, 1, 125, 126, 65535, 65536} {
		stream := maskedFrame(finBit|opText, make([]byte, size))
		var whole, single frameScanner
		whole.scan(stream)
		for i := range stream {
			if i > 0 && single.atBoundary() {
				t.Fatalf("size %d: boundary after %d of %d bytes", size, i, len(stream))
			}
			single.scan(stream[i : i+1])
		}
		if !whole.idle() || !single.idle() {
			t.Errorf("size %d: idle = %v at once, %v byte by byte; want true", size, whole.idle(), single.idle())
		}
	}
}

func TestFrameScannerKnowsAMessageUnderWay(t *testing.T) {
	var s frameScanner
	step := func(name string, frame []byte, idle, closed bool) {
		t.Helper()
		s.scan(frame)
		if s.idle() != idle || s.closed != closed {
			t.Errorf("after %s: idle %v closed %v, want %v %v", name, s.idle(), s.closed, idle, closed)
		}
	}
	step("a first fragment", maskedFrame(opText, []byte("a")), false, false)
	step("a ping between fragments", maskedFrame(finBit|opPing, []byte("p")), false, false)
	step("an empty fragment", maskedFrame(opContinuation, nil), false, false)
	step("the last fragment", maskedFrame(finBit|opContinuation, []byte("b")), true, false)
	step("a pong", maskedFrame(finBit|opPong, nil), true, false)
	step("a close", maskedFrame(finBit|opClose, []byte{3, 232}), true, true)
}

func TestFrameHeaderSizes(t *testing.T) {
	for _, n := range []int{0, 125, 126, 65535, 65536} {
		header := appendFrameHeader(nil, opText, n)
		if len(header) != frameHeaderSize(n) {
			t.Errorf("%d bytes: header of %d, frameHeaderSize says %d", n, len(header), frameHeaderSize(n))
		}
	}
}

func TestCloseFrame(t *testing.T) {
	if got := closeFrame(0, ""); !bytes.Equal(got, []byte{0x88, 0}) {
		t.Errorf("without a code: %x", got)
	}
	frame := closeFrame(4002, "slow_consumer")
	if code := binary.BigEndian.Uint16(frame[2:]); code != 4002 || string(frame[4:]) != "slow_consumer" || int(frame[1]) != len(frame)-2 {
		t.Errorf("close frame %x", frame)
	}
	if long := closeFrame(1000, string(make([]byte, 300))); len(long) != 2+maxControlPayload {
		t.Errorf("an overlong reason gave %d bytes", len(long))
	}
}
