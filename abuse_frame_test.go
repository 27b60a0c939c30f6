package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Frames that RFC 6455 forbids end their sender with 1002, are counted, and nobody else sees a byte of them.
func TestAbuse13_BrokenFrames(t *testing.T) {
	t.Parallel()
	a := underAttack(t)
	long := strings.Repeat("p", 126)
	rows := []frameRow{
		{name: "unmasked", bytes: unmasked(finBit|opText, publishing("{}"))},
		{name: "a fragmented ping", bytes: frame(opPing, "p")},
		{name: "a ping of 126 bytes", bytes: frame(finBit|opPing, long)},
		{name: "a close frame of 126 bytes", bytes: frame(finBit|opClose, "\x03\xe8"+long)},
		{name: "a lone continuation", bytes: last("{}")},
		{name: "text inside a text", bytes: begin("{") + text("}")},
		{name: "a close frame of 1 byte", bytes: frame(finBit|opClose, "x")},
	}
	for bit := byte(0x10); bit <= 0x40; bit <<= 1 {
		rows = append(rows, frameRow{name: fmt.Sprintf("reserved bit %#x", bit), bytes: frame(finBit|bit|opText, "{}")})
	}
	for _, opcode := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		rows = append(rows, frameRow{name: fmt.Sprintf("opcode %d", opcode), bytes: frame(finBit|opcode, "")})
	}
	for _, code := range []uint16{0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535} {
		rows = append(rows, frameRow{name: fmt.Sprintf("close code %d", code), bytes: closing(code, "")})
	}
	verdicts := make([]chan error, len(rows))
	for i, row := range rows { // all at once: each may take the server half a second
		row.want, row.ends = []answer{closed(1002)}, ProtocolError
		c := a.member("mallory")
		verdicts[i] = make(chan error, 1)
		go func() { verdicts[i] <- row.play(c) }()
	}
	for i, row := range rows {
		if err := <-verdicts[i]; err != nil {
			t.Errorf("%s: %v", row.name, err)
		}
	}
	a.wantMetric(t, "closes", "protocol_error", float64(len(rows)))
	if heard := a.overheard(); len(heard) > 0 {
		t.Errorf("the room heard %q", heard)
	}
	a.calm()
}

// Bytes that are no UTF-8 would make every browser in the room fail its connection. They end their sender alone.
func TestAbuse14_InvalidUTF8(t *testing.T) {
	t.Parallel()
	a := underAttack(t)
	before, after := `{"type":"publish","channel":"room","data":{"from":"mallory","x":"`, `"}}`
	rows := map[string]string{}
	for name, bad := range map[string]string{"no UTF-8 at all": "\xff\xfe", "a cut character": "\xe4\xbd", "a surrogate": "\xed\xa0\x80",
		"too long a form": "\xc0\xaf", "over the end of Unicode": "\xf4\x90\x80\x80"} {
		rows[name] = text(before + bad + after)
		rows[name+", in a key"] = text(`{"type":"publish","channel":"room","data":{"` + bad + `":1}}`)
		rows[name+", in fragments"] = begin(before+bad[:1]) + last(bad[1:]+after)
	}
	for name, bytes := range rows {
		t.Run(name, func(t *testing.T) {
			c := a.member("mallory")
			c.raw(t, []byte(bytes))
			c.wantClosed(t, 1007, "invalid_utf8")
		})
	}
	good := a.member("mallory") // the same in order is no fault: a character may stand across fragments
	good.raw(t, []byte(begin(before+"\xe4")+last("\xbd\xa0"+after)))
	a.lull()
	if heard := a.overheard(); len(heard) != 1 || !strings.Contains(heard[0], "你") {
		t.Errorf("the room heard %q, want the good message alone", heard)
	}
	a.wantMetric(t, "closes", "invalid_utf8", float64(len(rows)))
	a.calm()
}

// A message of the limit passes, a longer one is closed with 1009, and what a header announces is not waited for.
func TestAbuse15_MessagesTooLong(t *testing.T) {
	t.Parallel()
	a := underAttack(t)
	limit := a.cfg.WebSocket.MaxMessageBytes
	c := a.member("mallory")
	before, after := `{"type":"publish","channel":"room","id":1,"data":{"x":"`, `"}}`
	fill := func(n int) string { return before + strings.Repeat("x", n-len(before)-len(after)) + after }
	c.raw(t, []byte(text(fill(limit))))
	c.want(t, `{"type":"ack"}`)
	for name, bytes := range map[string]string{
		"a byte over the limit":               text(fill(limit + 1)),
		"a byte over the limit, in fragments": inFragments(fill(limit+1), 60000),
		"a header that claims 2^63-1 bytes":   wide(finBit|opText, 8, 1<<63-1, "{}"),
		"binary that claims 2^62 bytes":       wide(finBit|opBinary, 8, 1<<62, "{}"),
		"a later fragment that claims 2^62":   begin("{") + wide(finBit, 8, 1<<62, ""),
	} {
		t.Run(name, func(t *testing.T) {
			c := a.member("mallory")
			c.raw(t, []byte(bytes))
			c.wantClosed(t, 1009, "message_too_big")
		})
	}
	a.wantMetric(t, "closes", "message_too_big", 5)
	if heard := a.overheard(); len(heard) != 1 {
		t.Errorf("the room heard %d messages, want the one of exactly the limit", len(heard))
	}
	a.calm()
}

// A message that comes a byte a second is cut at its deadline, and pongs in between buy no time.
func TestAbuse16_OneByteASecond(t *testing.T) {
	attackInBubble(t, nil, func(t *testing.T, s *pipeServer) {
		c := s.connect("mallory")
		c.subscribe(nearRoom)
		began := s.since()
		c.write(maskedFrame(opText, []byte(`{`)))
		dribbled := make(chan struct{})
		go func() {
			defer close(dribbled)
			piece := append(maskedFrame(opContinuation, []byte(`x`)), maskedFrame(finBit|opPong, nil)...)
			for c.queue(piece) {
				time.Sleep(time.Second)
			}
		}()
		c.wantEnded(began, defaultMessageTimeout, defaultMessageTimeout+time.Second, "close 1008 message_timeout")
		s.wantCloses("message_timeout 1")
		<-dribbled
	})
}

// A million fragments of one byte, ten million of none: both are cut at a budget of raw bytes, long before the end.
func TestAbuse17_EndlessFragments(t *testing.T) {
	t.Parallel()
	a := underAttack(t)
	for name, fragment := range map[string]struct {
		bytes []byte
		n     int
	}{
		"of one byte": {maskedFrame(opContinuation, []byte(" ")), 1_000_000},
		"of none":     {maskedFrame(opContinuation, nil), 10_000_000},
	} {
		t.Run(name, func(t *testing.T) {
			c := a.member("mallory")
			c.raw(t, maskedFrame(opText, []byte(`{`)))
			stop := c.flood(bytes.Repeat(fragment.bytes, 1000), fragment.n*len(fragment.bytes))
			c.wantClosed(t, 1008, "message_budget")
			stop()
		})
	}
	a.wantMetric(t, "closes", "message_budget", 2)
	a.calm()
}

// 50,000 pings at once, from a client that reads the pongs and from one that does not.
func TestAbuse18_PingFlood(t *testing.T) {
	t.Parallel()
	a := underAttack(t)
	pings := bytes.Repeat(maskedFrame(finBit|opPing, []byte(strings.Repeat("p", 125))), 1000)
	for _, reads := range []bool{true, false} {
		c := a.member("mallory")
		if reads {
			stop := c.flood(pings, 50*len(pings))
			c.wantClosed(t, 1008, "ping_flood")
			stop()
		} else {
			c.pour(pings, 50*len(pings), new(atomic.Bool))
		}
	}
	a.wantMetric(t, "closes", "ping_flood", 2)
	pongs := bytes.Repeat(maskedFrame(finBit|opPong, nil), 1000) // unsolicited: allowed, and bounded as all bytes are
	c := a.member("mallory")
	c.pour(pongs, 20*len(pongs), new(atomic.Bool))
	c.send(t, `{"type":"unsubscribe","channel":"room","event":"none"}`)
	c.want(t, `{"type":"unsubscribed"}`)
	a.calm()
}

// announced is a frame whose header claims n bytes and that holds fewer.
func announced(n int, payload []byte) []byte {
	header := binary.BigEndian.AppendUint64([]byte{finBit | opText, maskBit | 127}, uint64(n))
	return append(append(header, 0, 0, 0, 0), payload...)
}
