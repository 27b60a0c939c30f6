package ably

import "testing"

// A message published in one format is read in the other with its data in that format's form, and its encoding
// changed in nothing but the last base64.
func TestBinaryIsBinInMsgpackAndBase64InJSON(t *testing.T) {
	for _, c := range []struct {
		name, json string
		msgpack    Object // data and encoding
		back       string // the JSON that is written, if it is not the one read
	}{
		{"bytes", `"data":"AAH/","encoding":"base64"`, Object{{"data", []byte{0, 1, 255}}}, ""},
		{"no bytes", `"data":"","encoding":"base64"`, Object{{"data", []byte{}}}, ""},
		{"text", `"data":"AAH/"`, Object{{"data", "AAH/"}}, ""},
		{"an object", `"data":"{}","encoding":"json"`, Object{{"data", "{}"}, {"encoding", "json"}}, ""},
		{"encrypted", `"data":"aGk=","encoding":"json/utf-8/cipher+aes-128-cbc/base64"`,
			Object{{"data", []byte("hi")}, {"encoding", "json/utf-8/cipher+aes-128-cbc"}}, ""},
		{"base64 of a delta", `"data":"aGk=","encoding":"utf-8/vcdiff/base64"`, Object{{"data", []byte("hi")}, {"encoding", "utf-8/vcdiff"}}, ""},
		{"base64 twice", `"data":"aGk=","encoding":"base64/base64"`, Object{{"data", []byte("hi")}, {"encoding", "base64"}}, ""},
		{"base64 not last", `"data":"aGk=","encoding":"base64/json"`, Object{{"data", "aGk="}, {"encoding", "base64/json"}}, ""},
		{"another step", `"data":"aGk=","encoding":"xbase64"`, Object{{"data", "aGk="}, {"encoding", "xbase64"}}, ""},
		{"not base64", `"data":"?","encoding":"json/base64"`, Object{{"data", "?"}, {"encoding", "json/base64"}}, ""},
		{"with escapes", `"encoding":"base64","data":"\u0061Gk="`, Object{{"data", []byte("hi")}}, `"data":"aGk=","encoding":"base64"`},
		{"a bare object", `"data":{"b":[1,null,"x"],"a":2.50}`, Object{{"data", Object{{"b", []any{int64(1), nil, "x"}}, {"a", 2.5}}}}, ""},
		{"a bare number", `"data":7,"encoding":"base64"`, Object{{"data", int64(7)}, {"encoding", "base64"}}, ""},
		{"false", `"data":false`, Object{{"data", false}}, ""},
		{"none", `"data":null`, Object{}, `"action":0`},
		{"none, with an encoding", `"encoding":"base64"`, Object{{"encoding", "base64"}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			list, single, err := DecodeMessages(JSON, []byte(`[{`+c.json+`}]`))
			if err != nil || single {
				t.Fatal(single, err)
			}
			got, err := DecodeValue(Msgpack, AppendMessages(nil, Msgpack, list))
			if err != nil {
				t.Fatal(err)
			}
			same(t, got, any([]any{append(c.msgpack, Field{"action", int64(0)})}))

			want := c.back
			if want == "" {
				want = c.json
			}
			if want != `"action":0` {
				want += `,"action":0`
			}
			if got := string(AppendMessages(nil, JSON, list)); got != `[{`+want+`}]` {
				t.Errorf("JSON again: %s, want %s", got, want)
			}
			fromMsgpack, single, err := DecodeMessages(Msgpack, pack(c.msgpack))
			if err != nil || !single {
				t.Fatal(single, err)
			}
			if c.name != "a bare object" { // where 2.50 is 2.5
				same(t, fromMsgpack, list)
			}
		})
	}
}

// Base64 text in msgpack is the same message as in JSON, so it is read as the same.
func TestBase64InMsgpackIsBinaryToo(t *testing.T) {
	list, _, err := DecodeMessages(Msgpack, pack(Object{{"data", "aGk="}, {"encoding", "json/base64"}}))
	if err != nil {
		t.Fatal(err)
	}
	same(t, list[0], Message{Data: Data{DataBinary, []byte("hi")}, Encoding: "json"})
}

func TestExtrasAreTheSameValueInBothFormats(t *testing.T) {
	in := `{"headers":{"ms":1700000000000,"neg":-70000,"min":-9223372036854775808,"max":18446744073709551615,` +
		`"f":0.25,"tiny":1e-7,"huge":1e+300,"zero":-0,"list":[true,false,null,{}],"é\"":"\n"},"ref":{"type":"x"}}`
	list, _, err := DecodeMessages(JSON, []byte(`{"extras":`+in+`}`))
	if err != nil {
		t.Fatal(err)
	}
	list, _, err = DecodeMessages(Msgpack, AppendMessages(nil, Msgpack, list))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(list[0].Extras); got != in {
		t.Errorf("%s, want %s", got, in)
	}
}

// JSON goes to readers of JSON byte by byte, with white space, duplicate keys and all.
func TestExtrasInJSONAreNotTouched(t *testing.T) {
	in := `{ "a" : 1.50, "a": 12345678901234567890123, "b":"\u00e9" }`
	list, _, err := DecodeMessages(JSON, []byte(`{"extras":  `+in+` ,"name":"n"}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(list[0].Extras); got != in {
		t.Errorf("%s, want %s", got, in)
	}
}

// What only msgpack can say becomes what JSON can: bytes are base64, undefined and infinity null.
func TestMsgpackExtrasThatJSONHasNoFormFor(t *testing.T) {
	p := []byte("\x81\xa6extras\x85\xa1b\xc4\x02hi\xa1u\xd4\x00\x00\xa1i\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00\xa1f\xca\x3f\x00\x00\x00\xa1s\xa2\xff\xfe")
	list, _, err := DecodeMessages(Msgpack, p)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"b":"aGk=","u":null,"i":null,"f":0.5,"s":"�"}`
	if got := string(list[0].Extras); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// A caller that writes extras that are no JSON spoils its own message alone, and only what is no JSON in it.
func TestExtrasThatAreNotJSON(t *testing.T) {
	for _, extras := range []string{"{", "}", `{"a"`, `{"a":`, `{"a":}`, `[1,`, `"`, ",", "{}{}", " "} {
		p := AppendMessages(nil, Msgpack, []Message{{ID: "a", Extras: []byte(extras)}})
		list, _, err := DecodeMessages(Msgpack, p)
		if err != nil || list[0].ID != "a" || list[0].Extras != nil {
			t.Errorf("%q became %+v, %v", extras, list, err)
		}
	}
}
