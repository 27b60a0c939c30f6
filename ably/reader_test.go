package ably

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

func TestDecodeSaysWhatIsWrong(t *testing.T) {
	for in, want := range map[string]string{
		`[]`:                         "the message is not an object",
		`null`:                       "the message is not an object",
		`{}`:                         "the message has no action",
		`{"action":null}`:            "the message has no action",
		`{"action":1,"action":null}`: "the message has no action",
		`{"Action":1}`:               "the message has no action",
		`{"action":"1"}`:             "action is not a number",
		`{"action":1.5}`:             "action is not a whole number",
		`{"action":256}`:             "action is out of range",
		`{"action":-1}`:              "action is out of range",
		`{"action":1,"flags":-1}`:    "flags is out of range",
		`{"action":1,"msgSerial":9223372036854775808}`:                                "msgSerial is not a whole number",
		`{"action":1,"msgSerial":1e300}`:                                              "msgSerial is not a whole number",
		`{"action":1,"channel":5}`:                                                    "channel is not a string",
		`{"action":1,"params":[]}`:                                                    "params is not an object",
		`{"action":1,"params":{"rewind":{}}}`:                                         "params.rewind is not text",
		`{"action":1,"auth":"token"}`:                                                 "auth is not an object",
		`{"action":1,"auth":{"accessToken":{}}}`:                                      "auth.accessToken is not a string",
		`{"action":1,"error":{"code":"x"}}`:                                           "error.code is not a number",
		`{"action":1,"messages":{}}`:                                                  "messages is not an array",
		`{"action":1,"messages":[null]}`:                                              "messages[0] is not an object",
		`{"action":1,"messages":[{},{},{"name":1}]}`:                                  "messages[2].name is not a string",
		`{"action":1,"messages":[{"extras":[]}]}`:                                     "messages[0].extras is not an object",
		`{"action":1,"messages":[{"version":{"metadata":1}}]}`:                        "messages[0].version.metadata is not an object",
		`{"action":1,"messages":[{"version":{"timestamp":true}}],"id":1}`:             "messages[0].version.timestamp is not a number",
		`{"action":1,"presence":[{"clientId":1}]}`:                                    "presence[0].clientId is not a string",
		`{"action":1,"annotations":[{"encoding":[]}]}`:                                "annotations[0].encoding is not a string",
		`{"action":1,"res":[{"serials":[1]}]}`:                                        "res[0].serials[0] is not a string",
		`{"action":1,"params":{"` + strings.Repeat("long", 20) + `":[]}}`:             "params." + strings.Repeat("long", 8) + " is not text",
		`{"action":1,"messages":[` + strings.Repeat("{},", MaxList) + `{}]}`:          "messages holds more than 1000 entries",
		`{"action":1,"presence":[` + strings.Repeat("{},", MaxList) + `{},1]}`:        "presence holds more than 1000 entries",
		`{"action":1,"res":[{"serials":[` + strings.Repeat(`"",`, MaxList) + `""]}]}`: "res[0].serials holds more than 1000 entries",
	} {
		_, err := Decode(JSON, []byte(in))
		if err == nil || err.Error() != want {
			t.Errorf("%.80s: %v, want %s", in, err, want)
		}
		v, err := DecodeValue(JSON, []byte(in))
		if err != nil {
			t.Fatal(err)
		}
		if _, err = Decode(Msgpack, pack(v)); err == nil || err.Error() != want {
			t.Errorf("in msgpack, %.80s: %v, want %s", in, err, want)
		}
	}
}

// nested is a list in a list in a list …
func nested(depth int) string { return strings.Repeat("[", depth) + "1" + strings.Repeat("]", depth) }

func TestFramesThatAreNotOfTheirFormat(t *testing.T) {
	for _, c := range []struct {
		f        Format
		in, want string
	}{
		{JSON, "", "the message is not JSON"},
		{JSON, `{"action":1`, "the message is not JSON"},
		{JSON, `{"action":1}{}`, "the message is not JSON"},
		{JSON, "{\"action\":1,\"id\":\"\xff\"}", "the message is not UTF-8"},
		{JSON, `{"action":1,"messages":[{"data":` + nested(MaxDepth+1) + `}]}`, "messages[0].data has more than 64 levels"},
		{Msgpack, "\x82\xa6action\x01\xa8messages\x91\x81\xa4data" + strings.Repeat("\x91", MaxDepth+1) + "\x01", "messages[0].data[0][0][0] has more than 64 levels"},
		{Msgpack, "", "the message is cut short"},
		{Msgpack, "\xc1", "the message is not msgpack"},
		{Msgpack, "\x81\xa6action\x01\x00", "the message is followed by more bytes"},
		{Msgpack, "\x82\xa6action\x01", "the message is cut short"},
		{Msgpack, "\x82\xa6action\x01\x01\x02", "the message has a key that is not a string"},
		{Msgpack, "\x82\xa6action\x01\xa2id\xa5a", "id is cut short"},
		{Msgpack, "\x82\xa6action\x01\xa2id", "id is cut short"},
		{Msgpack, "\x82\xa6action\x01\xa2id\xc4\x01a", "id is not a string"},
		{Msgpack, "\x82\xa6action\x01\xa8messages\x91\x81\xa4data\xc7\x01\x05a", "messages[0].data holds an extension type"},
		{Msgpack, "\x82\xa6action\x01\xa8messages\x92\x80", "messages[1] is cut short"},
		{Msgpack, "\x82\xa6action\x01\xa7unknown\x92\x80", "unknown is cut short"},
	} {
		if _, err := Decode(c.f, []byte(c.in)); err == nil || err.Error() != c.want {
			t.Errorf("%q: %v, want %s", c.in, err, c.want)
		}
	}
}

// A publish with a wrong message is to be answered with a NACK of its msgSerial, which the SDK writes last.
func TestDecodeReadsOnBehindWhatIsWrong(t *testing.T) {
	in := `{"action":15,"channel":"c","messages":[{"name":[1,{"a":"]"}]},7,{"data":` + nested(1000) + `}],"msgSerial":3}`
	for name, f := range formats {
		p := []byte(in)
		if f == Msgpack {
			p = pack(Object{{"action", 15}, {"channel", "c"}, {"messages", []any{Object{{"name", []any{Object{}}}}, 7}}, {"msgSerial", 3}})
		}
		m, err := Decode(f, p)
		if err == nil || err.Error() != "messages[0].name is not a string" {
			t.Errorf("%s: %v", name, err)
		}
		same(t, m.Channel, Some("c"))
		same(t, m.MsgSerial, Some[int64](3))
		same(t, m.Action, ActionMessage)
	}
}

// An unknown field may be of any depth, since nobody reads it.
func TestUnknownFieldsArePassedOver(t *testing.T) {
	m := decoded(t, JSON, []byte(`{"action":1,"new":`+nested(5000)+`,"id":"x"}`))
	same(t, m, ProtocolMessage{Action: ActionAck, ID: "x"})
	p := "\x84\xa6action\x01\xa1a" + strings.Repeat("\x91", 100000) + "\xc7\x01\x05a" + // an extension type, deep down
		"\xa1b\x82\x01\x02\xc0\xd4\x00\x00" + "\xa2id\xa1x"
	same(t, decoded(t, Msgpack, []byte(p)), m)
}

// The SDK writes undefined as an extension type of its own.
func TestUndefinedIsNull(t *testing.T) {
	p := "\x83\xa6action\x09\xa7channel\xd4\x00\x00\xa5error\xd4\x00\x00"
	same(t, decoded(t, Msgpack, []byte(p)), ProtocolMessage{Action: ActionError})
}

// A head that announces four billion entries costs nothing before they come.
func TestAnnouncedSizesAllocateNothing(t *testing.T) {
	for _, head := range []string{"\xdd", "\xdf", "\xc6", "\xdb"} {
		for _, before := range []string{
			"", "\x81\xa8messages", "\x81\xa6params", "\x81\xa3res", "\x81\xa3res\x91\x81\xa7serials", "\x81\xa7unknown", "\x81\xa2id",
			"\x81\xa8messages\x91\x81\xa4data", "\x81\xa8messages\x91\x81\xa6extras", "\x81\xa8presence", "\x81\xabannotations",
		} {
			p := []byte(before + head + "\xff\xff\xff\xff")
			var start, end runtime.MemStats
			runtime.ReadMemStats(&start)
			for _, p := range [][]byte{p, append(p, "\xa1a"...)} {
				if _, err := Decode(Msgpack, p); err == nil {
					t.Errorf("%q was read", p)
				}
				if _, _, err := DecodeMessages(Msgpack, p); err == nil {
					t.Errorf("%q was read as messages", p)
				}
				if _, err := DecodeValue(Msgpack, p); err == nil {
					t.Errorf("%q was read as value", p)
				}
			}
			runtime.ReadMemStats(&end)
			if n := end.TotalAlloc - start.TotalAlloc; n > 100_000 {
				t.Errorf("%q took %d bytes", p, n)
			}
		}
	}
}

func TestDecodeMessages(t *testing.T) {
	for in, want := range map[string]string{
		`{"name":"a"}`:          "[a] true <nil>",
		`[{"name":"a"}]`:        "[a] false <nil>",
		`[]`:                    "[] false <nil>",
		` [ {"name":"a"} , {}]`: "[a ] false <nil>",
		`[{"name":"a"},3]`:      "[] false [1] is not an object",
		`[{},{"name":3}]`:       "[] false [1].name is not a string",
		`{"name":3}`:            "[] true name is not a string",
		`"a"`:                   "[] true the message is not an object",
		`null`:                  "[] true the message is not an object",
		`[`:                     "[] true the message is not JSON",
	} {
		list, single, err := DecodeMessages(JSON, []byte(in))
		names := []string{}
		for _, m := range list {
			names = append(names, m.Name.V)
		}
		if got := fmt.Sprint(names, single, err); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
