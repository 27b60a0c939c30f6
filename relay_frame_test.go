package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// relayFrameOf builds a frame as the app does: the header's JSON, NUL up to 256 bytes, the payload.
func relayFrameOf(header string, payload int) []byte {
	p := make([]byte, relayHeaderBytes+payload)
	copy(p, header)
	for i := range payload {
		p[relayHeaderBytes+i] = byte(i)
	}
	return p
}

func TestRelayFrame(t *testing.T) {
	for header, payload := range map[string]int{
		`{"transfer_id":"transfer_1_a","chunk_index":3,"chunk_size":65536,"total_chunks":46}`:                         65536,
		`{"total_chunks":46,"chunk_size":1,"chunk_index":3,"transfer_id":"transfer_1_a"}`:                             1,
		` { "transfer_id" : "transfer_1_a" , "chunk_index":3,"chunk_size":9,` + "\n\t\r" + `"total_chunks":46 } `:     9,
		`{"transfer_id":"transfer_1_a","v":-1.5e3,"x":true,"y":"z","chunk_index":3,"chunk_size":0,"total_chunks":46}`: 0,
	} {
		f, problem := parseRelayFrame(relayFrameOf(header, payload))
		if problem != relayNoProblem || string(f.ID) != "transfer_1_a" || f.Index != 3 || f.Total != 46 || f.Size != int64(payload) {
			t.Errorf("%s: %v %+v", header, problem, f)
		}
		if ev, want := f.Event("laptop"), (TransferEvent{Kind: EventFrame, By: "laptop", Index: 3, Size: int64(payload), Total: 46}); ev != want {
			t.Errorf("%s: event %+v", header, ev)
		}
	}
}

func TestRelayFramesRefused(t *testing.T) {
	good := `{"transfer_id":"t","chunk_index":0,"chunk_size":4,"total_chunks":1}`
	if _, problem := parseRelayFrame(relayFrameOf(good, 4)); problem != relayNoProblem {
		t.Fatal("the good one is refused")
	}
	for name, frame := range map[string][]byte{
		"empty":           nil,
		"short":           relayFrameOf(good, 4)[:255],
		"payload short":   relayFrameOf(good, 3),
		"payload long":    relayFrameOf(good, 5),
		"too long":        relayFrameOf(strings.Replace(good, ":4", ":65537", 1), 65537),
		"only NUL":        relayFrameOf("", 4),
		"no NUL after it": relayFrameOf(good+"x", 4),
		"second object":   relayFrameOf(good+"{}", 4),
		"unfinished":      relayFrameOf(good[:40], 4),
		"trailing comma":  relayFrameOf(strings.Replace(good, "}", ",}", 1), 4),
		"empty object":    relayFrameOf("{}", 4),
		"list":            relayFrameOf("["+good+"]", 4),
		"index = total":   relayFrameOf(strings.Replace(good, `index":0`, `index":1`, 1), 4),
		"negative index":  relayFrameOf(strings.Replace(good, `index":0`, `index":-1`, 1), 4),
		"fraction":        relayFrameOf(strings.Replace(good, `index":0`, `index":0.0`, 1), 4),
		"leading zero":    relayFrameOf(strings.Replace(good, ":4", ":04", 1), 4),
		"huge number":     relayFrameOf(strings.Replace(good, ":1}", ":99999999999999999999}", 1), 4),
		"text as number":  relayFrameOf(strings.Replace(good, ":0", `:"0"`, 1), 4),
		"no id":           relayFrameOf(strings.Replace(good, `"transfer_id":"t",`, "", 1), 4),
		"empty id":        relayFrameOf(strings.Replace(good, `"t"`, `""`, 1), 4),
		"long id":         relayFrameOf(strings.Replace(good, `"t"`, `"`+strings.Repeat("t", maxTransferIDBytes+1)+`"`, 1), 4),
		"escaped id":      relayFrameOf(strings.Replace(good, `"t"`, `"\u0074"`, 1), 4),
		"escaped key":     relayFrameOf(strings.Replace(good, `{`, `{"transfer\u005fid":"u",`, 1), 4),
		"id twice":        relayFrameOf(strings.Replace(good, `{`, `{"transfer_id":"u",`, 1), 4),
		"index twice":     relayFrameOf(strings.Replace(good, `{`, `{"chunk_index":0,`, 1), 4),
		"no UTF-8":        relayFrameOf(strings.Replace(good, `"t"`, "\"\xff\"", 1), 4),
		"nested":          relayFrameOf(strings.Replace(good, `{`, `{"x":{},`, 1), 4),
		"unknown no JSON": relayFrameOf(strings.Replace(good, `{`, `{"x":nil,`, 1), 4),
	} {
		if f, problem := parseRelayFrame(frame); problem != relayBadFrame {
			t.Errorf("%s: %v %+v", name, problem, f)
		}
	}
}

func TestRelayFrameAllocatesNothing(t *testing.T) {
	p := relayFrameOf(`{"transfer_id":"transfer_1_a","chunk_index":3,"chunk_size":65536,"total_chunks":46}`, 65536)
	if n := testing.AllocsPerRun(100, func() { parseRelayFrame(p) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRelayFrame(b *testing.B) {
	p := relayFrameOf(`{"transfer_id":"transfer_1700000000000_abc1234","chunk_index":300,"chunk_size":65536,"total_chunks":800}`, 65536)
	for b.Loop() {
		parseRelayFrame(p)
	}
}

// FuzzRelayFrame: what we take for a header, encoding/json takes for the same one.
func FuzzRelayFrame(f *testing.F) {
	f.Add([]byte(`{"transfer_id":"t","chunk_index":0,"chunk_size":4,"total_chunks":1}`), uint16(4))
	f.Add([]byte(`{"x":true,"transfer_id":"ü","chunk_index":1,"chunk_size":0,"total_chunks":2} `), uint16(0))
	f.Fuzz(func(t *testing.T, header []byte, payload uint16) {
		p := relayFrameOf("", int(payload))
		copy(p[:relayHeaderBytes], header)
		got, problem := parseRelayFrame(p)
		if problem != relayNoProblem {
			return
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(bytes.TrimRight(p[:relayHeaderBytes], "\x00"), &want); err != nil {
			t.Fatalf("%q is no JSON: %v", header, err)
		}
		r := fieldReader{fields: want}
		same := r.text("transfer_id", maxTransferIDBytes) == string(got.ID) && r.integer("chunk_index", 0) == got.Index &&
			r.integer("chunk_size", 0) == got.Size && r.integer("total_chunks", 1) == got.Total
		if !same || r.failed || got.Size != int64(payload) || got.Index >= got.Total {
			t.Fatalf("%q read as %+v", header, got)
		}
	})
}
