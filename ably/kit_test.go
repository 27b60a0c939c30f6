package ably

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
)

var formats = map[string]Format{"JSON": JSON, "msgpack": Msgpack}

// pack writes a value as msgpack.
func pack(v any) []byte { return AppendValue(nil, Msgpack, v) }

func decoded(t *testing.T, f Format, p []byte) ProtocolMessage {
	t.Helper()
	m, err := Decode(f, p)
	if err != nil {
		t.Fatalf("Decode(%q): %v", p, err)
	}
	return m
}

func same(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
}

// random makes messages that hold anything that a decoded one can hold.
type random struct{ *rand.Rand }

func (r random) text() string {
	letters := []rune("abc \"\\/\n\t\x00\x1f\u007fäß€😀\u2028<&")
	text := make([]rune, r.IntN(8))
	if r.IntN(1000) == 0 {
		text = make([]rune, []int{40, 300, 70000}[r.IntN(3)]) // longer than each of msgpack's short heads counts
	}
	for i := range text {
		text[i] = letters[r.IntN(len(letters))]
	}
	return string(text)
}

func (r random) int() int64 { return int64(r.Uint64()) >> r.IntN(64) }

func (r random) opt() Opt[string] {
	if r.IntN(3) == 0 {
		return Opt[string]{}
	}
	return Some(r.text())
}

// size is how many entries a list or object has; seldom as many as take more than one byte in msgpack.
func (r random) size() int {
	if r.IntN(20) == 0 {
		return 18
	}
	return r.IntN(4)
}

// value makes a value of JSON up to depth levels deep.
func (r random) value(depth int) any {
	n := 7
	if depth == 0 {
		n = 5
	}
	switch r.IntN(n) {
	case 0:
		return nil
	case 1:
		return r.IntN(2) == 0
	case 2:
		return r.int()
	case 3:
		return math.Float64frombits(r.Uint64()&^(1<<62) | 1<<61) // of every size, but finite
	case 4:
		return r.text()
	case 5:
		list := make([]any, r.size())
		for i := range list {
			list[i] = r.value(depth - 1)
		}
		return list
	}
	return r.object(depth)
}

func (r random) object(depth int) Object {
	object := Object{}
	for range r.size() {
		object = append(object, Field{r.text(), r.value(depth - 1)})
	}
	return object
}

func (r random) extras() []byte {
	if r.IntN(3) > 0 {
		return nil
	}
	return AppendValue(nil, JSON, r.object(3))
}

func (r random) data() (Data, string) {
	encodings := []string{"", "json", "utf-8", "json/utf-8/cipher+aes-256-cbc", "vcdiff", "base64/json", "bäse64"}
	encoding := encodings[r.IntN(len(encodings))]
	switch DataKind(r.IntN(4)) {
	case DataText:
		return Data{DataText, []byte(r.text())}, encoding
	case DataBinary:
		b := make([]byte, r.IntN(300))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return Data{DataBinary, b}, encoding
	case DataJSON:
		return Data{DataJSON, AppendValue(nil, JSON, []any{r.object(2), int64(7), false}[r.IntN(3)])}, encoding
	}
	return Data{}, encoding
}

func (r random) message() Message {
	m := Message{
		ID: r.text(), Name: r.opt(), ClientID: r.text(), ConnectionID: r.text(), ConnectionKey: r.text(),
		Timestamp: r.int(), Extras: r.extras(), Action: uint8(r.IntN(6)), Serial: r.text(), Annotations: r.extras(),
	}
	m.Data, m.Encoding = r.data()
	if r.IntN(2) == 0 {
		m.Version = &Version{r.text(), r.int(), r.text(), r.text(), r.extras()}
	}
	return m
}

func (r random) presence() PresenceMessage {
	m := PresenceMessage{
		ID: r.text(), Action: PresenceAction(r.IntN(5)), ClientID: r.text(), ConnectionID: r.text(),
		Timestamp: r.int(), Extras: r.extras(),
	}
	m.Data, m.Encoding = r.data()
	return m
}

func (r random) annotation() Annotation {
	a := Annotation{
		ID: r.text(), Action: uint8(r.IntN(2)), Serial: r.text(), MessageSerial: r.text(), Type: r.text(),
		Name: r.opt(), ClientID: r.text(), ConnectionID: r.text(), Timestamp: r.int(), Extras: r.extras(),
	}
	if r.IntN(2) == 0 {
		a.Count = Some(r.int())
	}
	a.Data, a.Encoding = r.data()
	return a
}

// some makes a list: sometimes none, sometimes empty, sometimes with more entries than msgpack's short heads count.
func some[T any](r random, make func() T) []T {
	if r.IntN(2) == 0 {
		return nil
	}
	list := []T{}
	for range []int{0, 1, 2, 20}[r.IntN(4)] {
		list = append(list, make())
	}
	return list
}

func (r random) protocolMessage() ProtocolMessage {
	m := ProtocolMessage{
		Action: Action(r.IntN(22)), Flags: r.Uint64() >> (1 + r.IntN(63)), Count: r.IntN(3), ID: r.text(),
		Channel: r.opt(), ChannelSerial: r.text(), ConnectionID: r.text(), ConnectionKey: r.text(),
		Timestamp: r.int(), AccessToken: r.text(),
		Messages: some(r, r.message), Presence: some(r, r.presence), Annotations: some(r, r.annotation),
		Results: some(r, func() PublishResult {
			var serials []string
			for range r.IntN(3) {
				serials = append(serials, r.text())
			}
			return PublishResult{serials}
		}),
	}
	if r.IntN(2) == 0 {
		m.MsgSerial = Some(r.int())
	}
	if r.IntN(2) == 0 {
		m.Params = map[string]string{}
		for range r.size() {
			m.Params[r.text()] = r.text()
		}
	}
	if r.IntN(2) == 0 {
		m.Error = &ErrorInfo{r.IntN(100000), r.IntN(600), r.text(), r.text()}
	}
	if r.IntN(2) == 0 {
		m.ConnectionDetails = &ConnectionDetails{r.text(), r.text(), r.int(), r.int(), r.int(), r.int(), r.int(), r.text()}
	}
	return m
}
