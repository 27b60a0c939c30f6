package ably

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
)

// Whatever a message holds, each format gives it back, and so does a way through both.
func TestEncodingAndDecodingIsTheIdentity(t *testing.T) {
	for seed := range uint64(100) {
		r := random{rand.New(rand.NewPCG(seed, 1))}
		m := r.protocolMessage()
		text := m.Append(nil, JSON)
		if !json.Valid(text) {
			t.Fatalf("seed %d: not JSON: %s", seed, text)
		}
		fromText := decoded(t, JSON, text)
		same(t, fromText, m)
		same(t, decoded(t, Msgpack, m.Append(nil, Msgpack)), m)
		same(t, decoded(t, Msgpack, fromText.Append(nil, Msgpack)), m)
	}
}

func TestAppendGoesBehindWhatIsThere(t *testing.T) {
	m := ProtocolMessage{Action: ActionMessage, Messages: []Message{{ID: "a"}}}
	for name, f := range formats {
		if got, want := string(m.Append([]byte("{["), f)), "{["+string(m.Append(nil, f)); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// What is absent, null, empty and zero means different things; the SDK takes an ERROR with channel null for one of a channel.
func TestAbsentNullAndZero(t *testing.T) {
	for in, want := range map[string]string{
		`{"action":0}`:                                           `{"action":0}`,
		`{"action":1,"msgSerial":0}`:                             `{"action":1,"msgSerial":0}`,
		`{"action":1,"msgSerial":null}`:                          `{"action":1}`,
		`{"action":9,"channel":null}`:                            `{"action":9}`,
		`{"action":9,"channel":""}`:                              `{"action":9,"channel":""}`,
		`{"action":9,"channel":"a","channel":null}`:              `{"action":9}`,
		`{"action":9,"channel":null,"channel":"b"}`:              `{"action":9,"channel":"b"}`,
		`{"action":9,"id":"","flags":0,"timestamp":0}`:           `{"action":9}`,
		`{"action":9,"error":null,"params":null,"auth":null}`:    `{"action":9}`,
		`{"action":9,"messages":null,"res":null}`:                `{"action":9}`,
		`{"action":9,"connectionDetails":null}`:                  `{"action":9}`,
		`{"action":9,"error":{}}`:                                `{"action":9,"error":{"code":0,"statusCode":0,"message":""}}`,
		`{"action":16,"presence":[]}`:                            `{"action":16,"presence":[]}`,
		`{"action":1,"res":[{"serials":[]},{}]}`:                 `{"action":1,"res":[{"serials":[]},{"serials":[]}]}`,
		`{"action":1,"res":[{"serials":null,"serials":[null]}]}`: `{"action":1,"res":[{"serials":[null]}]}`,
		`{"action":15,"messages":[{}]}`:                          `{"action":15,"messages":[{"action":0}]}`,
		`{"action":15,"messages":[{"name":""}]}`:                 `{"action":15,"messages":[{"name":"","action":0}]}`,
		`{"action":15,"messages":[{"name":null,"data":null,"encoding":null,"extras":null,"version":null}]}`: `{"action":15,"messages":[{"action":0}]}`,
		`{"action":15,"messages":[{"data":""}]}`:                                                            `{"action":15,"messages":[{"data":"","action":0}]}`,
		`{"action":14,"presence":[{}]}`:                                                                     `{"action":14,"presence":[{"action":0}]}`,
		`{"action":21,"annotations":[{}]}`:                                                                  `{"action":21,"annotations":[{"action":0}]}`,
	} {
		m := decoded(t, JSON, []byte(in))
		if got := string(m.Append(nil, JSON)); got != want {
			t.Errorf("%s became\n%s, want\n%s", in, got, want)
		}
		v, err := DecodeValue(JSON, []byte(in))
		if err != nil {
			t.Fatal(err)
		}
		m = decoded(t, Msgpack, pack(v))
		if got := string(m.Append(nil, JSON)); got != want {
			t.Errorf("in msgpack, %s became\n%s, want\n%s", in, got, want)
		}
	}
}

func TestNumbersKeysAndTexts(t *testing.T) {
	for in, want := range map[string]string{
		`{"action":15.0,"msgSerial":3.0,"flags":1e3}`:                           `{"action":15,"flags":1000,"msgSerial":3}`,
		`{"action":15,"msgSerial":-9223372036854775808}`:                        `{"action":15,"msgSerial":-9223372036854775808}`,
		`{"action":15,"msgSerial":9223372036854775807}`:                         `{"action":15,"msgSerial":9223372036854775807}`,
		`{"action":15,"msgserial":7,"MsgSerial":8,"Action":1}`:                  `{"action":15}`,
		`{"action":15,"\u0069d":"x"}`:                                           `{"action":15,"id":"x"}`,
		`{"action":200,"new":{"deep":[[[{"a":"]}\""}]]]},"id":"x"}`:             `{"action":200,"id":"x"}`,
		` { "action" : 15 , "id" : "x" , "messages" : [ { } , { } ] } `:         `{"action":15,"id":"x","messages":[{"action":0},{"action":0}]}`,
		`{"action":10,"params":{"b":2,"a":"1","c":true,"d":null,"e":0.5}}`:      `{"action":10,"params":{"a":"1","b":"2","c":"true","e":"0.5"}}`,
		`{"action":10,"params":{"a":"1","a":null}}`:                             `{"action":10,"params":{}}`,
		`{"action":17,"auth":{"accessToken":"t","other":[1]}}`:                  `{"action":17,"auth":{"accessToken":"t"}}`,
		`{"action":17,"id":"\u0000\u001f\n\t\r\b\f\/\\\"é\u00e9😀\ud83d\ude00"}`: `{"action":17,"id":"\u0000\u001f\n\t\r\u0008\u000c/\\\"éé😀😀"}`,
		`{"action":17,"id":"\ud800 \udc00 \ud800\u0041 \ud800\\u"}`:             `{"action":17,"id":"� � �A �\\u"}`,
	} {
		m := decoded(t, JSON, []byte(in))
		if got := string(m.Append(nil, JSON)); got != want {
			t.Errorf("%s became\n%s, want\n%s", in, got, want)
		}
		m = decoded(t, Msgpack, m.Append(nil, Msgpack))
		if got := string(m.Append(nil, JSON)); got != want {
			t.Errorf("through msgpack, %s became\n%s, want\n%s", in, got, want)
		}
	}
}

// Decode keeps nothing of the frame, which the connection uses again.
func TestDecodeCopiesWhatItKeeps(t *testing.T) {
	r := random{rand.New(rand.NewPCG(7, 7))}
	m := r.protocolMessage()
	m.Messages = []Message{r.message(), {Data: Data{DataBinary, []byte("bin")}, Extras: []byte(`{"a":1}`)}}
	for name, f := range formats {
		p := m.Append(nil, f)
		got := decoded(t, f, p)
		clear(p)
		t.Log(name)
		same(t, got, m)
	}
}

// Of what is sent most: the standard library's pools, which JSON values inside a message need, lose things on purpose under the race
// detector.
func TestAppendNeedsNoMemoryOfItsOwn(t *testing.T) {
	m := publish()
	for name, f := range formats {
		buf := m.Append(nil, f)
		if n := testing.AllocsPerRun(100, func() { buf = m.Append(buf[:0], f) }); n != 0 {
			t.Errorf("%s: %v allocations with room enough", name, n)
		}
		if n := testing.AllocsPerRun(100, func() { m.Append(nil, f) }); n > 2 {
			t.Errorf("%s: %v allocations without room, want the buffer alone, or that it grows once", name, n)
		}
	}
}

// busy is a message with something in every field.
func busy() *ProtocolMessage {
	return &ProtocolMessage{
		Action: ActionMessage, Flags: FlagHasBacklog | ModePublish, Count: 1, MsgSerial: Some[int64](5), ID: "conn:5",
		Channel: Some("signal:all"), ChannelSerial: "1:2", ConnectionID: "conn", Timestamp: 1700000000000,
		Params: map[string]string{"rewind": "2", "modes": "publish"}, Error: &ErrorInfo{40160, 401, "no", ""},
		ConnectionDetails: &ConnectionDetails{ConnectionKey: "key", MaxIdleInterval: 15000},
		Results:           []PublishResult{{[]string{"s", "t"}}},
		Messages: []Message{
			{Name: Some("offer"), Data: Data{DataText, []byte(`{"sdp":"v=0\r\n"}`)}, Encoding: "json", Extras: []byte(`{"headers":{"a":[1,2.5,"x"]}}`)},
			{Name: Some("bytes"), Data: Data{DataBinary, make([]byte, 300)}, Encoding: "utf-8/cipher+aes-256-cbc", Version: &Version{Serial: "s"}},
			{Data: Data{DataJSON, []byte(`{"a":{}}`)}},
		},
		Presence:    []PresenceMessage{{Action: PresenceEnter, ClientID: "me", Data: Data{DataText, []byte("hi")}}},
		Annotations: []Annotation{{Type: "reaction:unique.v1", Name: Some("👍"), Count: Some[int64](1)}},
	}
}

// publish is what a client sends most.
func publish() *ProtocolMessage {
	return &ProtocolMessage{Action: ActionMessage, Channel: Some("signal:all"), MsgSerial: Some[int64](5), Messages: []Message{
		{Name: Some("offer"), Data: Data{DataText, []byte(`{"type":"offer","sdp":"` + strings.Repeat("v", 300) + `"}`)}, Encoding: "json"},
	}}
}

func BenchmarkAppend(b *testing.B) {
	for name, f := range formats {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			m := publish()
			buf := m.Append(nil, f)
			for b.Loop() {
				buf = m.Append(buf[:0], f)
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, f := range formats {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			p := publish().Append(nil, f)
			for b.Loop() {
				if _, err := Decode(f, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
