package main

import (
	"fmt"
	"strings"
	"testing"
)

// The tables of this file are written from RFC 6455: section 5 (framing), 7 (closing) and 8 (UTF-8).

// alive is a row's wish that nothing is answered and the connection goes on.
var alive []answer

func TestFrameLengths(t *testing.T) {
	const limit = defaultMaxMessageBytes
	rows := []frameRow{
		{name: "text of 0 bytes", bytes: text(""), want: []answer{problem(BadJSON)}},
		{name: "binary of 0 bytes", bytes: frame(finBit|opBinary, ""), want: alive},
		{name: "binary of 65536 bytes", bytes: frame(finBit|opBinary, strings.Repeat("\xff", 65536)), want: alive},
		{name: "text over the limit", bytes: text(publishing(filling(limit + 1))), want: []answer{closed(1009)}, ends: MessageTooBig},
		{name: "text over the limit in fragments", bytes: inFragments(publishing(filling(limit+1)), 65536), want: []answer{closed(1009)}, ends: MessageTooBig},
		{name: "header that claims a byte over the limit", bytes: wide(finBit|opText, 8, limit+1, ""), want: []answer{closed(1009)}, ends: MessageTooBig},
		{name: "header that claims 2^62 bytes", bytes: wide(finBit|opText, 8, 1<<62, ""), want: []answer{closed(1009)}, ends: MessageTooBig},
		{name: "header that claims 2^63-1 bytes", bytes: wide(finBit|opBinary, 8, 1<<63-1, "{}"), want: []answer{closed(1009)}, ends: MessageTooBig},
		{name: "second fragment that claims 2^62 bytes", bytes: begin("{") + wide(finBit, 8, 1<<62, ""), want: []answer{closed(1009)}, ends: MessageTooBig},
		{name: "length with the top bit", bytes: wide(finBit|opText, 8, 1<<63, ""), want: []answer{closed(1002)}, ends: ProtocolError},
		{name: "length of all ones", bytes: wide(finBit|opText, 8, 1<<64-1, "{}"), want: []answer{closed(1002)}, ends: ProtocolError},
		{name: "second fragment whose length has the top bit", bytes: begin("{") + wide(finBit, 8, 1<<63, "}"), want: []answer{closed(1002)}, ends: ProtocolError},
	}
	for _, n := range []int{125, 126, 127, 128, 65535, 65536, 65537, limit} {
		data := filling(n)
		rows = append(rows, frameRow{name: fmt.Sprintf("text of %d bytes", n), bytes: text(publishing(data)), data: data, want: []answer{ack()}})
	}
	data := filling(limit)
	rows = append(rows, frameRow{name: "longest text in fragments", bytes: inFragments(publishing(data), 65535), data: data, want: []answer{ack()}})
	// "The minimal number of bytes MUST be used" binds the sender; a receiver that reads the length as it
	// stands misunderstands nothing, and no peer can see a difference.
	for _, form := range []struct{ bytes, payload int }{{2, 100}, {8, 100}, {8, 126}, {8, 65535}} {
		data := filling(form.payload)
		rows = append(rows, frameRow{
			name:  fmt.Sprintf("text of %d bytes with a length of %d", form.payload, form.bytes),
			bytes: wide(finBit|opText, form.bytes, uint64(form.payload), publishing(data)), data: data, want: []answer{ack()},
		})
	}
	playFrames(t, rows)
}

// inFragments cuts a text message into frames of n bytes.
func inFragments(message string, n int) string {
	frames := begin(message[:n])
	for message = message[n:]; len(message) > n; message = message[n:] {
		frames += more(message[:n])
	}
	return frames + last(message)
}

func TestControlFrames(t *testing.T) {
	long, longer := strings.Repeat("p", 125), strings.Repeat("p", 126)
	rows := []frameRow{
		{name: "ping of 0 bytes", bytes: ping(""), want: []answer{pong("")}},
		{name: "ping of 1 byte", bytes: ping("x"), want: []answer{pong("x")}},
		{name: "ping of bytes that are no text", bytes: ping("\x00\xff\xc0"), want: []answer{pong("\x00\xff\xc0")}},
		{name: "ping of 125 bytes", bytes: ping(long), want: []answer{pong(long)}},
		{name: "ping of 126 bytes", bytes: ping(longer), want: []answer{closed(1002)}, ends: ProtocolError},
		{name: "ping of 65536 bytes", bytes: ping(strings.Repeat("p", 65536)), want: []answer{closed(1002)}, ends: ProtocolError},
		{name: "ping that claims 2^62 bytes", bytes: wide(finBit|opPing, 8, 1<<62, ""), want: []answer{closed(1002)}, ends: ProtocolError},
		{name: "ping with a length of 2 bytes", bytes: wide(finBit|opPing, 2, 3, "abc"), want: []answer{pong("abc")}},
		{name: "ping with a length of 8 bytes", bytes: wide(finBit|opPing, 8, 3, "abc"), want: []answer{pong("abc")}},
		{name: "three pings", bytes: ping("a") + ping("b") + ping("c"), want: []answer{pong("a"), pong("b"), pong("c")}},
		{name: "pong of 0 bytes", bytes: frame(finBit|opPong, ""), want: alive},
		{name: "pong of 125 bytes", bytes: frame(finBit|opPong, long), want: alive},
		{name: "two pongs", bytes: frame(finBit|opPong, "a") + frame(finBit|opPong, "b"), want: alive},
		{name: "pong of 126 bytes", bytes: frame(finBit|opPong, longer), want: []answer{closed(1002)}, ends: ProtocolError},
		{name: "pong and ping at once", bytes: frame(finBit|opPong, "a") + ping("b"), want: []answer{pong("b")}},
		{name: "ping without FIN", bytes: frame(opPing, "a"), want: []answer{closed(1002)}, ends: ProtocolError},
		{name: "pong without FIN", bytes: frame(opPong, "a"), want: []answer{closed(1002)}, ends: ProtocolError},
		{name: "close without FIN", bytes: frame(opClose, "\x03\xe8"), want: []answer{closed(1002)}, ends: ProtocolError},
		{name: "empty ping without FIN", bytes: frame(opPing, ""), want: []answer{closed(1002)}, ends: ProtocolError},
		{name: "ping in fragments", bytes: frame(opPing, "a") + last("b"), want: []answer{closed(1002)}, ends: ProtocolError},
		{name: "violation after a pong", bytes: frame(finBit|opPong, "a") + frame(finBit|3, ""), want: []answer{closed(1002)}, ends: ProtocolError},
		{name: "nothing after a violation is answered", bytes: frame(finBit|3, "") + ping("a") + text("{}"), want: []answer{closed(1002)}, ends: ProtocolError},
		{name: "violation and the client's close frame", bytes: frame(finBit|3, "") + closing(1000, ""), want: []answer{closed(1002)}, ends: ProtocolError},
	}
	playFrames(t, rows)
}

func TestReservedBitsAndOpcodes(t *testing.T) {
	var rows []frameRow
	violation := func(name, bytes string) {
		rows = append(rows, frameRow{name: name, bytes: bytes, want: []answer{closed(1002)}, ends: ProtocolError})
	}
	for bit, name := range map[byte]string{0x40: "RSV1", 0x20: "RSV2", 0x10: "RSV3", 0x70: "all RSV"} {
		violation(name+" on text", frame(finBit|bit|opText, "{}"))
		violation(name+" on ping", frame(finBit|bit|opPing, ""))
		violation(name+" on a continuation", begin("{")+frame(finBit|bit, "}"))
	}
	violation("RSV1 on binary", frame(finBit|0x40|opBinary, "{}"))
	violation("RSV1 on pong", frame(finBit|0x40|opPong, ""))
	violation("RSV1 on close", frame(finBit|0x40|opClose, "\x03\xe8"))
	violation("RSV1 on a first fragment", frame(0x40|opText, "{"))
	for _, opcode := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		violation(fmt.Sprintf("opcode %d", opcode), frame(finBit|opcode, ""))
	}
	violation("opcode 3 with a payload", frame(finBit|3, publishing(saying("3"))))
	violation("opcode 11 with a payload", frame(finBit|11, "payload"))
	violation("opcode 3 without FIN", frame(3, "a"))
	violation("opcode 11 without FIN", frame(11, "a"))
	violation("opcode 4 between fragments", begin("{")+frame(finBit|4, "")+last("}"))
	violation("opcode 15 between fragments", begin("{")+frame(finBit|15, "")+last("}"))
	playFrames(t, rows)
}

func TestFragments(t *testing.T) {
	data := saying("in pieces")
	message := publishing(data)
	half := len(message) / 2
	fragments := func(name, bytes string, want ...answer) frameRow {
		return frameRow{name: name, bytes: bytes, data: data, want: append(want, ack())}
	}
	// What the server has not sent when it meets a violation it may drop: the rows ask for no answers before one.
	violation := func(name, bytes string) frameRow {
		return frameRow{name: name, bytes: bytes, want: []answer{closed(1002)}, ends: ProtocolError}
	}
	rows := []frameRow{
		fragments("two fragments", begin(message[:half])+last(message[half:])),
		fragments("three fragments", begin(message[:9])+more(message[9:half])+last(message[half:])),
		fragments("fragments of a byte", inFragments(message, 1)),
		fragments("empty first fragment", begin("")+last(message)),
		fragments("empty fragment in the middle", begin(message[:half])+more("")+more("")+last(message[half:])),
		fragments("empty last fragment", begin(message)+last("")),
		{name: "nothing but empty fragments", bytes: begin("") + more("") + last(""), want: []answer{problem(BadJSON)}},
		{name: "binary in fragments", bytes: frame(opBinary, "\xff") + last("\xff"), want: alive},
		fragments("ping between fragments", begin(message[:half])+ping("p")+last(message[half:]), pong("p")),
		fragments("pings between fragments", begin(message[:9])+ping("p")+more(message[9:half])+ping("q")+last(message[half:]), pong("p"), pong("q")),
		fragments("pong between fragments", begin(message[:half])+frame(finBit|opPong, "p")+last(message[half:])),
		{name: "close between fragments", bytes: begin(message[:half]) + closing(1000, "") + last(message[half:]), want: []answer{closed(1000)}, ends: PeerClosed},
		violation("ping of 126 bytes between fragments", begin("{")+ping(strings.Repeat("p", 126))),
		violation("ping without FIN between fragments", begin("{")+frame(opPing, "p")+last("}")),
		violation("lone continuation", last("{}")),
		violation("lone empty continuation", last("")),
		violation("lone continuation without FIN", more("{")),
		violation("continuation after a whole message", frame(finBit|opBinary, "")+last("{}")),
		violation("continuation after the last fragment", frame(opBinary, "")+last("")+last("")),
		violation("continuation after a pong", frame(finBit|opPong, "p")+last("{}")),
		violation("text instead of a continuation", begin(message[:half])+text(message[half:])),
		violation("first fragment instead of a continuation", begin(message[:half])+begin(message[half:])),
		violation("binary instead of a continuation", begin(message[:half])+frame(finBit|opBinary, "")),
		violation("text between fragments of binary", frame(opBinary, "\xff")+text("{}")),
	}
	playFrames(t, rows)
}

func TestMasksAndStreamsThatEnd(t *testing.T) {
	data := saying("masked")
	message := publishing(data)
	violation := func(name, bytes string) frameRow {
		return frameRow{name: name, bytes: bytes, want: []answer{closed(1002)}, ends: ProtocolError}
	}
	lost := func(name, bytes string) frameRow {
		return frameRow{name: name, bytes: bytes, cut: true, ends: ConnectionLost}
	}
	rows := []frameRow{
		{name: "mask of zeros", bytes: wide(finBit|opText, 2, uint64(len(message)), message), data: data, want: []answer{ack()}},
		violation("text without a mask", unmasked(finBit|opText, message)),
		violation("empty text without a mask", unmasked(finBit|opText, "")),
		violation("binary without a mask", unmasked(finBit|opBinary, "\xff")),
		violation("ping without a mask", unmasked(finBit|opPing, "p")),
		violation("close without a mask", unmasked(finBit|opClose, "\x03\xe8")),
		{name: "close without a mask, as Caddy says it", bytes: caddysGoodbye, want: []answer{closed(1001)}, ends: PeerClosed},
		violation("the same with more behind it", caddysGoodbye+text("{}")),
		violation("the same between fragments", begin(message[:9])+caddysGoodbye),
		violation("second fragment without a mask", begin(message[:9])+unmasked(finBit, message[9:])),
		lost("end of the stream at once", ""),
		lost("end inside a header", text(message)[:1]),
		lost("end inside a length", wide(finBit|opText, 8, 100, "")[:7]),
		lost("end inside a mask", text(message)[:5]),
		lost("end inside a payload", text(message)[:20]),
		lost("end between fragments", begin(message)),
		lost("end inside a payload, behind what looks whole", wide(finBit|opText, 2, 9000, publishing(filling(firstReadBytes)))),
		lost("end inside a ping", ping("payload")[:8]),
		lost("end inside a close frame", closing(1000, "reason")[:9]),
	}
	playFrames(t, rows)
}
