package ably

import (
	"bytes"
	"encoding/json"
	"testing"
)

func FuzzDecodeJSON(f *testing.F) {
	f.Add(busy().Append(nil, JSON))
	f.Fuzz(func(t *testing.T, p []byte) { checkBytes(t, JSON, p) })
}

func FuzzDecodeMsgpack(f *testing.F) {
	f.Add(busy().Append(nil, Msgpack))
	f.Fuzz(func(t *testing.T, p []byte) { checkBytes(t, Msgpack, p) })
}

// checkBytes reads any bytes in every way. What can be read can be written, in both formats, and is then read as the same.
func checkBytes(t *testing.T, f Format, p []byte) {
	if m, err := Decode(f, p); err == nil {
		same(t, decoded(t, f, m.Append(nil, f)), m)
		if text := m.Append(nil, JSON); !json.Valid(text) {
			t.Fatalf("not JSON: %s", text)
		}
		across := decoded(t, 1-f, m.Append(nil, 1-f))
		same(t, decoded(t, 1-f, across.Append(nil, 1-f)), across)
		same(t, plain(across), plain(m))
	}
	if list, _, err := DecodeMessages(f, p); err == nil {
		again, _, err := DecodeMessages(f, AppendMessages(nil, f, list))
		if err != nil {
			t.Fatal(err)
		}
		same(t, again, list)
	}
	if list, err := DecodeAnnotations(f, p); err == nil {
		again, err := DecodeAnnotations(f, AppendAnnotations(nil, f, list))
		if err != nil {
			t.Fatal(err)
		}
		same(t, again, list)
	}
	if v, err := DecodeValue(f, p); err == nil {
		once := AppendValue(nil, f, v)
		v, err := DecodeValue(f, once)
		if err != nil {
			t.Fatal(err)
		}
		if twice := AppendValue(nil, f, v); !bytes.Equal(twice, once) {
			t.Fatalf("%q became %q", once, twice)
		}
	}
}

// plain leaves out what is JSON, which another format writes in its own way: 1.0 as 1.
func plain(m ProtocolMessage) ProtocolMessage {
	data := func(d *Data) {
		if d.Kind == DataJSON {
			*d = Data{}
		}
	}
	for i := range m.Messages {
		m := &m.Messages[i]
		m.Extras, m.Annotations = nil, nil
		if m.Version != nil {
			m.Version.Metadata = nil
		}
		data(&m.Data)
	}
	for i := range m.Presence {
		m.Presence[i].Extras = nil
		data(&m.Presence[i].Data)
	}
	for i := range m.Annotations {
		m.Annotations[i].Extras = nil
		data(&m.Annotations[i].Data)
	}
	return m
}
