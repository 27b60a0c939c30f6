package ably

import (
	"math"
	"testing"
)

func TestValues(t *testing.T) {
	for _, c := range []struct {
		v             any
		json, msgpack string
		back          any // what JSON gives back, if not v
	}{
		{nil, "null", "\xc0", nil},
		{true, "true", "\xc3", nil},
		{false, "false", "\xc2", nil},
		{int64(0), "0", "\x00", nil},
		{7, "7", "\x07", int64(7)},
		{int64(-33), "-33", "\xd0\xdf", nil},
		{int64(1700000000000), "1700000000000", "\xcf\x00\x00\x01\x8b\xcf\xe5\x68\x00", nil},
		{uint64(math.MaxUint64), "18446744073709551615", "\xcf\xff\xff\xff\xff\xff\xff\xff\xff", nil},
		{0.5, "0.5", "\xcb\x3f\xe0\x00\x00\x00\x00\x00\x00", nil},
		{"é\"\n", `"é\"\n"`, "\xa4é\"\n", nil},
		{[]byte("hi"), `"aGk="`, "\xc4\x02hi", "aGk="},
		{[]string{"a", "b"}, `["a","b"]`, "\x92\xa1a\xa1b", []any{"a", "b"}},
		{[]string{}, `[]`, "\x90", []any{}},
		{[]any{nil, Object{}}, `[null,{}]`, "\x92\xc0\x80", nil},
		{Object{{"b", int64(1)}, {"a", []any{}}}, `{"b":1,"a":[]}`, "\x82\xa1b\x01\xa1a\x90", nil},
		{RawJSON(`{"a":"b"}`), `{"a":"b"}`, "\x81\xa1a\xa1b", Object{{"a", "b"}}},
		{&ErrorInfo{Code: 1, StatusCode: 2}, `{"code":1,"statusCode":2,"message":""}`, "\x83\xa4code\x01\xaastatusCode\x02\xa7message\xa0",
			Object{{"code", int64(1)}, {"statusCode", int64(2)}, {"message", ""}}},
	} {
		if got := string(AppendValue(nil, JSON, c.v)); got != c.json {
			t.Errorf("%#v in JSON: %s, want %s", c.v, got, c.json)
		}
		if got := string(pack(c.v)); got != c.msgpack {
			t.Errorf("%#v in msgpack: %q, want %q", c.v, got, c.msgpack)
		}
		want := c.back
		if want == nil {
			want = c.v
		}
		got, err := DecodeValue(JSON, []byte(c.json))
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, want)
		got, err = DecodeValue(Msgpack, []byte(c.msgpack))
		if err != nil {
			t.Fatal(err)
		}
		if b, ok := c.v.([]byte); ok {
			want = b
		}
		same(t, got, want)
	}
}

func TestNumbersThatJSONCannotSayAreNull(t *testing.T) {
	for _, f := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		if got := string(AppendValue(nil, JSON, f)); got != "null" {
			t.Errorf("%v is %s", f, got)
		}
	}
}

func TestValuesAreOfBoundedDepth(t *testing.T) {
	if _, err := DecodeValue(JSON, []byte(nested(MaxDepth))); err != nil {
		t.Error(err)
	}
	if _, err := DecodeValue(JSON, []byte(nested(MaxDepth+1))); err == nil {
		t.Error("one level more was read")
	}
}

func TestPresenceList(t *testing.T) {
	list := []PresenceMessage{{Action: PresencePresent, ClientID: "a"}, {}}
	if got, want := string(AppendPresence(nil, JSON, list)), `[{"action":1,"clientId":"a"},{"action":0}]`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := string(AppendPresence(nil, Msgpack, nil)), "\x90"; got != want {
		t.Errorf("none: %q", got)
	}
}

func TestErrorInfoIsAnError(t *testing.T) {
	var err error = &ErrorInfo{Code: 40160, StatusCode: 401, Message: "not allowed"}
	if got := err.Error(); got != "not allowed (40160)" {
		t.Error(got)
	}
}
