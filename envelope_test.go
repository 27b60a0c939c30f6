package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestEnvelopeIsCutWithoutTouchingTheBytes(t *testing.T) {
	e, ok := parseEnvelope([]byte(" {\"type\" : \"publish\",\"channel\":\"room\\u0031\",\"x\":[1,{}],\"event\":null,\n\"data\": { \"n\":1e400, \"type\":\"t\" } ,\"id\":7}\n"))
	if !ok {
		t.Fatal("refused")
	}
	for _, f := range []struct {
		name string
		got  []byte
		want string
	}{
		{"type", e.kind, `"publish"`},
		{"channel", e.channel, `"room\u0031"`},
		{"event", e.event, `null`},
		{"data", e.data, `{ "n":1e400, "type":"t" }`},
		{"id", e.id, `7`},
		{"data.type", e.dataType, `"t"`},
		{"data.from", e.dataFrom, ``},
	} {
		if string(f.got) != f.want {
			t.Errorf("%s = %s, want %s", f.name, f.got, f.want)
		}
	}
	if channel, _ := jsonString(e.channel); string(channel) != "room1" {
		t.Errorf("channel decodes to %q", channel)
	}
}

func TestEnvelopeVerdicts(t *testing.T) {
	deep := func(n int) string {
		return `{"data":{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}}`
	}
	for _, c := range []struct {
		text string
		ok   bool
	}{
		{``, false}, {`null`, false}, {`[]`, false}, {`{}`, true}, {`{} x`, false}, {`{`, false}, {`"a"`, false},
		{`{"type":"a","TYPE":"b"}`, false},      // a check of the one could be bypassed by the other
		{`{"type":"a","type":"a"}`, false},      //
		{`{"type":"a","\u0074ype":"a"}`, false}, // equal once decoded
		{`{"x":1,"X":2}`, false},                // unknown keys too
		{`{"K":1,"` + "\u212a" + `":2}`, false}, // the Kelvin sign folds to k
		{`{"TYPE":"b"}`, true},                  // a lone one is just unknown
		{`{"a":01}`, false}, {`{"a":1.}`, false}, {`{"a":-}`, false}, {`{"a":1e}`, false}, {`{"a":-0.5E+3}`, true},
		{`{"a":"\x"}`, false}, {`{"a":"\ud800"}`, true}, {`{"a":"` + "\n" + `"}`, false}, {`{"a":tru}`, false},
		{`{"a":[1,]}`, false}, {`{"a":{"b"}}`, false}, {`{"a":{,}}`, false}, {`{"a":1,}`, false}, {`{a:1}`, false},
		{`{"a":[{"b":[]},{}]}`, true}, {"\ufeff{}", false},
		{deep(9998), true}, {deep(9999), false},
		{strings.Repeat("[", 20000), false},
	} {
		if _, ok := parseEnvelope([]byte(c.text)); ok != c.ok {
			t.Errorf("%.60s: accepted = %v, want %v", c.text, ok, c.ok)
		}
	}
}

func TestEnvelopeNoticesTwinsInDataThatMatter(t *testing.T) {
	for _, c := range []struct {
		data string
		twin bool
	}{
		{`{"from":"a","FROM":"b"}`, true},
		{`{"type":"a","type":"b"}`, true},
		{`{"TYPE":"a","Type":"b"}`, true},
		{`{"FROM":"b"}`, false},
		{`{"x":1,"x":2}`, false},
		{`{"deep":{"from":1,"FROM":2}}`, false},
	} {
		e, ok := parseEnvelope([]byte(`{"data":` + c.data + `}`))
		if !ok || e.dataTwin != c.twin {
			t.Errorf("%s: accepted %v, twin = %v, want %v", c.data, ok, e.dataTwin, c.twin)
		}
	}
}

// Eight bytes at a time or one by one: the same verdict, wherever the byte stands and whatever stands around it.
func TestPlainPrefix(t *testing.T) {
	for _, around := range []byte{' ', 'a', 0x7f, 0x80, 0xff, '!', '#', '[', ']'} {
		for special := range 256 {
			for at := range 20 {
				p := bytes.Repeat([]byte{around}, 20)
				p[at] = byte(special)
				want := 20
				if special < 0x20 || special == '"' || special == '\\' {
					want = at
				}
				if got := plainPrefix(p); got != want {
					t.Fatalf("%q: %d, want %d", p, got, want)
				}
			}
		}
	}
}

// Many unknown keys must not cost quadratic time or be taken for twins.
func TestEnvelopeTakesManyUnknownKeys(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"type":"x"`)
	for i := range 20000 {
		b.WriteString(`,"k`)
		b.WriteString(strings.Repeat("z", i%3))
		b.WriteString(string(rune('0'+i%10)) + string(rune(0x4E00+i)))
		b.WriteString(`":0`)
	}
	if _, ok := parseEnvelope([]byte(b.String() + `}`)); !ok {
		t.Error("refused")
	}
	if _, ok := parseEnvelope([]byte(b.String() + `,"TYPE":0}`)); ok {
		t.Error("a twin behind many keys was accepted")
	}
}

// referenceEnvelope gives encoding/json's verdict and values, with our stricter rule on top.
func referenceEnvelope(p []byte) (fields map[string]json.RawMessage, ok bool) {
	if !json.Valid(p) || bytes.TrimLeft(p, " \t\r\n")[0] != '{' {
		return nil, false
	}
	decoder := json.NewDecoder(bytes.NewReader(p))
	decoder.Token()
	fields = make(map[string]json.RawMessage)
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return nil, false
		}
		for other := range fields {
			if strings.EqualFold(other, key.(string)) {
				return nil, false
			}
		}
		var value json.RawMessage
		if decoder.Decode(&value) != nil {
			return nil, false
		}
		fields[key.(string)] = value
	}
	return fields, true
}

func FuzzParseMessage(f *testing.F) {
	for _, seed := range []string{
		`{"type":"publish","channel":"room1","event":"signal:all","data":{"type":"discover","from":"a"},"id":"1"}`,
		`{"type":"subscribe","channel":"房间 1"}`, `{"data":{"from":null,"x":[1,-2.5e3,{"y":"\ud83d\ude00"}]}}`,
		`{"a":[[[]]],"A":0}`, `[]`, `{"id":1e400}`, "{\"a\":\"\\u00e9\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if !utf8.Valid(p) {
			return // the connection has ended before the parser sees it
		}
		e, ok := parseEnvelope(p)
		want, wantOK := referenceEnvelope(p)
		if ok != wantOK {
			t.Fatalf("accepted = %v, encoding/json says %v: %q", ok, wantOK, p)
		}
		if !ok {
			return
		}
		for key, got := range map[string][]byte{"type": e.kind, "channel": e.channel, "event": e.event, "data": e.data, "id": e.id} {
			if !bytes.Equal(got, want[key]) {
				t.Fatalf("%s = %q, encoding/json says %q", key, got, want[key])
			}
			text, isText := jsonString(got)
			var value any
			json.Unmarshal(got, &value)
			wantText, wantIsText := value.(string)
			if isText != wantIsText || string(text) != wantText {
				t.Fatalf("%s decodes to %q", key, text)
			}
			if isText {
				var back string
				if err := json.Unmarshal(appendJSONString(nil, text), &back); err != nil || back != string(text) {
					t.Fatalf("%q encodes to %s", text, appendJSONString(nil, text))
				}
			}
		}
	})
}
