package main

import (
	"fmt"
	"strings"
	"testing"
)

// TestTextIsUTF8 plays RFC 6455 section 8.1 and the ways in which RFC 3629 says that bytes are no UTF-8.
func TestTextIsUTF8(t *testing.T) {
	var rows []frameRow
	for name, s := range map[string]string{
		"two bytes":                        "é",
		"three bytes":                      "你好",
		"four bytes":                       "😀",
		"first of two bytes":               "\u0080",
		"last of two bytes":                "\u07ff",
		"first of three bytes":             "\u0800",
		"last before the surrogates":       "\ud7ff",
		"first after the surrogates":       "\ue000",
		"byte order mark":                  "\ufeff",
		"noncharacter U+FFFF":              "\uffff",
		"replacement character":            "\ufffd",
		"first of four bytes":              "\U00010000",
		"last code point U+10FFFF":         "\U0010ffff",
		"combining marks":                  "e\u0301\u0323",
		"surrogates escaped by JSON alone": `\ud800`,
	} {
		data := saying(s)
		rows = append(rows, frameRow{name: name, bytes: text(publishing(data)), data: data, want: []answer{ack()}})
	}
	for name, s := range map[string]string{"two": "é", "three": "你", "four": "😀"} {
		message := publishing(saying(s))
		at := strings.Index(message, s)
		for i := 1; i < len(s); i++ {
			rows = append(rows, frameRow{
				name:  fmt.Sprintf("split after byte %d of %s", i, name),
				bytes: begin(message[:at+i]) + ping("") + last(message[at+i:]), data: saying(s), want: []answer{pong(""), ack()},
			})
		}
	}
	invalid := func(name, bytes string) {
		rows = append(rows, frameRow{name: name, bytes: bytes, want: []answer{closed(1007)}, ends: InvalidUTF8})
	}
	for name, s := range map[string]string{
		"byte FF":                     "\xff",
		"byte FE":                     "\xfe",
		"lone continuation byte":      "\x80",
		"two continuation bytes":      "\xbf\x80",
		"first byte of two alone":     "\xc3",
		"two bytes of three":          "\xe4\xbd",
		"three bytes of four":         "\xf0\x9f\x98",
		"overlong of two bytes":       "\xc0\xaf",
		"overlong C1 BF":              "\xc1\xbf",
		"overlong of three bytes":     "\xe0\x80\xaf",
		"overlong E0 9F BF":           "\xe0\x9f\xbf",
		"overlong of four bytes":      "\xf0\x80\x80\xaf",
		"overlong F0 8F BF BF":        "\xf0\x8f\xbf\xbf",
		"overlong NUL":                "\xc0\x80",
		"first surrogate":             "\xed\xa0\x80",
		"last surrogate":              "\xed\xbf\xbf",
		"pair of surrogates":          "\xed\xa0\xbd\xed\xb8\x80",
		"above U+10FFFF":              "\xf4\x90\x80\x80",
		"byte F5":                     "\xf5\x80\x80\x80",
		"five bytes":                  "\xf8\x88\x80\x80\x80",
		"six bytes":                   "\xfc\x84\x80\x80\x80\x80",
		"valid text around a bad one": "你\xe4\xbd好",
	} {
		invalid(name, text(publishing(saying(s))))
	}
	message := publishing(saying("你"))
	at := strings.Index(message, "你")
	invalid("not JSON either", text("\xff"))
	invalid("cut at the end of the message", text("{}\xe4\xbd"))
	invalid("code point that the next fragment does not end", begin(message[:at+1])+last(message[at+3:]))
	invalid("surrogate across fragments", begin(message[:at]+"\xed")+last("\xa0\x80"+message[at+3:]))
	invalid("last fragment alone", begin("{}")+last("\xff"))
	invalid("first fragment alone", begin("\xff")+last("{}"))
	invalid("bad message between good ones", frame(finBit|opBinary, "\xff")+text("\xff")+text("{}"))
	playFrames(t, rows)
}

// TestCloseFrames plays RFC 6455 sections 5.5.1 and 7.4, with the codes that IANA has registered since: 1012 to 1014.
func TestCloseFrames(t *testing.T) {
	echo := func(name, bytes string, code uint16) frameRow {
		return frameRow{name: name, bytes: bytes, want: []answer{closed(code)}, ends: PeerClosed}
	}
	violation := func(name, bytes string) frameRow {
		return frameRow{name: name, bytes: bytes, want: []answer{closed(1002)}, ends: ProtocolError}
	}
	invalid := func(name, reason string) frameRow {
		return frameRow{name: name, bytes: closing(1000, reason), want: []answer{closed(1007)}, ends: InvalidUTF8}
	}
	long := strings.Repeat("r", 123)
	rows := []frameRow{
		{name: "close of 0 bytes", bytes: frame(finBit|opClose, ""), want: []answer{{opClose, "", 0}}, ends: PeerClosed},
		violation("close of 1 byte", frame(finBit|opClose, "\x03")),
		echo("close of 2 bytes", closing(1000, ""), 1000),
		echo("close with a reason", closing(1001, "bye"), 1001),
		echo("close of 125 bytes", closing(1000, long), 1000),
		violation("close of 126 bytes", closing(1000, long+"r")),
		violation("close that claims 2^62 bytes", wide(finBit|opClose, 8, 1<<62, "\x03\xe8")),
		echo("reason of many languages", closing(1000, "再见 😀 \u200fمع السلامة"), 1000),
		invalid("reason of byte FF", "\xff"),
		invalid("reason with a surrogate", "bye \xed\xa0\x80"),
		invalid("reason cut inside a code point", "再见\xe5\x86"),
		invalid("overlong reason", "\xc0\xaf"),
		invalid("reason of 123 bad bytes", strings.Repeat("\x80", 123)),
		violation("bad code and bad reason", closing(1005, "\xff")),
		echo("text after close", closing(1000, "")+text(publishing(saying("late"))), 1000),
		echo("ping after close", closing(1000, "")+ping("late"), 1000),
		echo("close after close", closing(1000, "")+closing(1001, ""), 1000),
		echo("violation after close", closing(1000, "")+frame(finBit|3, ""), 1000),
		echo("bytes after close that are no frames", closing(1000, "")+strings.Repeat("\xff", 100), 1000),
		echo("a megabyte after close", closing(1000, "")+strings.Repeat("\x00", 1<<20), 1000),
	}
	for _, code := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4001, 4999} {
		rows = append(rows, echo(fmt.Sprintf("code %d", code), closing(code, ""), code))
	}
	for _, code := range []uint16{0, 1, 100, 255, 256, 500, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 9999, 32768, 65535} {
		rows = append(rows, violation(fmt.Sprintf("code %d", code), closing(code, "")))
	}
	playFrames(t, rows)
}
