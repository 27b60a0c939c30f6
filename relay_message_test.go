package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"unicode/utf8"
)

// What the app sends, word for word but for the ids.
const (
	appRequest = `{"type":"file:transfer:request","channel":"room","data":{"transfer_id":"transfer_1700000000000_abc1234",` +
		`"file_name":"ü 猫.zip","file_size":3000000,"file_type":"application/zip","chunk_size":65536,"total_chunks":46,` +
		`"from_user_id":"someone else","to_user_id":"bob:abc123","room_name":"room","flow_control":"receiver_ack_v1"}}`
	appAccept = `{"type":"file:transfer:accept","channel":"room","data":{"transfer_id":"t","flow_control":"receiver_ack_v1","ack_every_chunks":8,"ack_window_chunks":24}}`
	appAck    = `{"type":"file:transfer:ack","channel":"room","data":{"transfer_id":"t","chunk_index":7,"received_chunks":8,"total_chunks":46,"bytes_received":524288}}`
	appEnd    = `{"type":"file:transfer:end","data":{"transfer_id":"t"}}`
)

func TestRelayRequest(t *testing.T) {
	m, problem := parseRelayMessage([]byte(appRequest))
	if problem != relayNoProblem {
		t.Fatal(problem)
	}
	if m.Kind != relayRequest || m.ID != "transfer_1700000000000_abc1234" || m.Room != "room" || m.ToUser != "bob:abc123" ||
		m.FileName != "ü 猫.zip" || m.FileSize != 3000000 || m.ChunkSize != 65536 || m.TotalChunks != 46 || !m.FlowControl {
		t.Fatalf("%+v", m)
	}
	m.SetFrom("alice:xyz789")
	sent := decodeMessage(t, m.Encode(17))
	want := decodeMessage(t, []byte(strings.Replace(appRequest, "someone else", "alice:xyz789", 1)))
	want["timestamp"] = 17.0
	if fmt.Sprint(sent) != fmt.Sprint(want) {
		t.Errorf("passed on as\n%v, want\n%v", sent, want)
	}
}

func decodeMessage(t *testing.T, text []byte) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// TestRelayMessages: each kind as an event of its transfer, in both forms.
func TestRelayMessages(t *testing.T) {
	for text, want := range map[string]TransferEvent{
		appAccept: {Kind: EventAccept, Flow: true},
		appAck:    {Kind: EventAck, Index: 7, Received: 8, Total: 46},
		appEnd:    {Kind: EventEnd},
		`{"type":"file:transfer:accept","data":{"transfer_id":"t"}}`:                                     {Kind: EventAccept},
		`{"type":"file:transfer:accept","data":{"transfer_id":"t","flow_control":"another"}}`:            {Kind: EventAccept},
		`{"type":"file:transfer:accept","data":{"transfer_id":"t","FLOW_CONTROL":"receiver_ack_v1"}}`:    {Kind: EventAccept},
		`{"type":"file:transfer:ack","data":{"transfer_id":"t","chunk_index":7}}`:                        {Kind: EventAck, Index: 7, Received: 8},
		`{"type":"file:transfer:reject","data":{"transfer_id":"t","reason":"no"}}`:                       {Kind: EventReject},
		`{"type":"file:transfer:start","transfer_id":"t"}`:                                               {Kind: EventStart},
		`{"type":"file:transfer:ack","transfer_id":"t","chunk_index":0,"received_chunks":1,"data":null}`: {Kind: EventAck, Received: 1},
		`{"type":"file:transfer:complete","channel":"","data":{"transfer_id":"t"}}`:                      {Kind: EventComplete},
		`{"type":"file:transfer:cancel","data":{"transfer_id":"x","transfer_id":"t","TRANSFER_ID":"x"}}`: {Kind: EventCancel},
		`{"type":"file:transfer:resend","data":{"transfer_id":"t","chunk_indexes":[3,9,1],` +
			`"missing_count":400,"total_chunks":800,"reason":"stall"}}`: {Kind: EventResend, Index: 9, Total: 800},
		`{"type":"file:transfer:resend","data":{"transfer_id":"t","chunk_indexes":[0],"total_chunks":1}}`: {Kind: EventResend, Total: 1},
	} {
		m, problem := parseRelayMessage([]byte(text))
		if problem != relayNoProblem || m.ID != "t" {
			t.Errorf("%s: %v", text, problem)
			continue
		}
		want.By = "phone"
		if got := m.Event("phone"); got != want {
			t.Errorf("%s\n got %+v\nwant %+v", text, got, want)
		}
	}
}

// TestRelayFlatForm: whatever form came in, the nested one goes out, with all fields that came.
func TestRelayFlatForm(t *testing.T) {
	m, problem := parseRelayMessage([]byte(`{"type":"file:transfer:accept","channel":"room","transfer_id":"t","flow_control":"receiver_ack_v1","new":[1]}`))
	if problem != relayNoProblem {
		t.Fatal(problem)
	}
	want := `{"type":"file:transfer:accept","channel":"room","data":{"flow_control":"receiver_ack_v1","new":[1],"transfer_id":"t"},"timestamp":5}`
	if got := string(m.Encode(5)); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// TestRelayAuthorityOfOneReading: the browser compares keys exactly and takes the last of equal ones. So do we, and what
// is passed on has each key once: nobody can name one transfer to the server and another to the peer.
func TestRelayAuthorityOfOneReading(t *testing.T) {
	m, problem := parseRelayMessage([]byte(`{"type":"file:transfer:cancel","data":{"transfer_id":"other","Transfer_Id":"other","transfer_id":"mine"}}`))
	if problem != relayNoProblem || m.ID != "mine" {
		t.Fatalf("%v %+v", problem, m)
	}
	if got := string(m.Encode(1)); strings.Count(got, `"transfer_id"`) != 1 || !strings.Contains(got, `"transfer_id":"mine"`) {
		t.Error(got)
	}
}

func TestRelayMessagesRefused(t *testing.T) {
	request := func(old, new string) string {
		s := strings.Replace(appRequest, old, new, 1)
		if s == appRequest {
			t.Fatalf("%s is not in the request", old)
		}
		return s
	}
	for name, text := range map[string]string{
		"no JSON":               `{"type":`,
		"no object":             `["file:transfer:end"]`,
		"no type":               `{"data":{"transfer_id":"t"}}`,
		"type no string":        `{"type":7}`,
		"data no object":        `{"type":"file:transfer:end","data":"t"}`,
		"data a list":           `{"type":"file:transfer:end","data":[]}`,
		"channel no string":     `{"type":"file:transfer:end","channel":7,"data":{"transfer_id":"t"}}`,
		"no id":                 `{"type":"file:transfer:end","data":{}}`,
		"empty id":              `{"type":"file:transfer:end","data":{"transfer_id":""}}`,
		"number as id":          `{"type":"file:transfer:end","data":{"transfer_id":7}}`,
		"long id":               `{"type":"file:transfer:end","data":{"transfer_id":"` + strings.Repeat("x", maxTransferIDBytes+1) + `"}}`,
		"id with a quote":       `{"type":"file:transfer:end","data":{"transfer_id":"a\"b"}}`,
		"id with half a rune":   `{"type":"file:transfer:end","data":{"transfer_id":"\ud800"}}`,
		"too long":              `{"type":"file:transfer:end","data":{"transfer_id":"t"}}` + strings.Repeat(" ", maxRelayControlBytes),
		"no UTF-8":              "{\"type\":\"file:transfer:end\",\"data\":{\"transfer_id\":\"t\",\"x\":\"\xff\"}}",
		"no file name":          request(`"file_name"`, `"file"`),
		"long file name":        request("ü", strings.Repeat("ü", maxRelayFileNameBytes/2)),
		"negative size":         request("3000000", "-1"),
		"fraction":              request("3000000", "3000000.0"),
		"exponent":              request("3000000", "3e6"),
		"size as text":          request("3000000", `"3000000"`),
		"size beyond":           request("3000000", "9007199254740993"),
		"too few chunks":        request("46", "45"),
		"too many chunks":       request("46", "47"),
		"chunk of 0":            request("65536", "0"),
		"chunk too large":       request(`"chunk_size":65536,"total_chunks":46`, `"chunk_size":65537,"total_chunks":46`),
		"no receiver":           request("to_user_id", "to"),
		"two rooms":             request(`"room_name":"room"`, `"room_name":"moor"`),
		"no room":               strings.ReplaceAll(appRequest, `"room"`, `""`),
		"ack of nothing":        strings.Replace(appAck, `"received_chunks":8`, `"received_chunks":0`, 1),
		"ack without index":     strings.Replace(appAck, `chunk_index`, `index`, 1),
		"ack of a negative":     strings.Replace(appAck, `:7,`, `:-7,`, 1),
		"resend of nothing":     `{"type":"file:transfer:resend","data":{"transfer_id":"t","chunk_indexes":[],"total_chunks":9}}`,
		"resend of no list":     `{"type":"file:transfer:resend","data":{"transfer_id":"t","chunk_indexes":3,"total_chunks":9}}`,
		"resend beyond":         `{"type":"file:transfer:resend","data":{"transfer_id":"t","chunk_indexes":[9],"total_chunks":9}}`,
		"resend of 257":         `{"type":"file:transfer:resend","data":{"transfer_id":"t","chunk_indexes":[0` + strings.Repeat(",0", maxRelayResendIndexes) + `],"total_chunks":900}}`,
		"fewer missing":         `{"type":"file:transfer:resend","data":{"transfer_id":"t","chunk_indexes":[1,2],"missing_count":1,"total_chunks":9}}`,
		"more missing than all": `{"type":"file:transfer:resend","data":{"transfer_id":"t","chunk_indexes":[1,2],"missing_count":10,"total_chunks":9}}`,
	} {
		if m, problem := parseRelayMessage([]byte(text)); problem != relayBadMessage {
			t.Errorf("%s: %v %+v", name, problem, m)
		}
	}
	for _, typ := range []string{"file:transfer:progress", "file:transfer:resume-query", "file:transfer:", "publish"} {
		if m, problem := parseRelayMessage([]byte(`{"type":"` + typ + `","data":{"transfer_id":"t"}}`)); m != nil || problem != relayNoProblem {
			t.Errorf("%s: %v %+v", typ, problem, m)
		}
	}
}

// The limits of sizes and of what the app's free tier allows are the relay's business, not the parser's.
func TestRelayRequestOfEverySize(t *testing.T) {
	for size, chunks := range map[int64]int64{0: 1, 1: 1, 65536: 1, 65537: 2, 52428800: 800, 3 << 30: 49152, maxSafeInteger: 1 << 37} {
		text := strings.NewReplacer("3000000", fmt.Sprint(size), ":46", fmt.Sprint(":", chunks)).Replace(appRequest)
		if m, problem := parseRelayMessage([]byte(text)); problem != relayNoProblem || m.FileSize != size {
			t.Errorf("%d bytes in %d chunks: %v", size, chunks, problem)
		}
	}
}

func TestRelayOwnMessages(t *testing.T) {
	for got, want := range map[string]string{
		string(newRelayMessage(relayComplete, "room", "t").Encode(1)):          `{"type":"file:transfer:complete","channel":"room","data":{"transfer_id":"t"},"timestamp":1}`,
		string(newRelayMessage(relayEnd, "", "t").Encode(1)):                   `{"type":"file:transfer:end","data":{"transfer_id":"t"},"timestamp":1}`,
		string(newRelayAck("room", "t", 46, 46).Encode(1)):                     `{"type":"file:transfer:ack","channel":"room","data":{"chunk_index":45,"received_chunks":46,"total_chunks":46,"transfer_id":"t"},"timestamp":1}`,
		string(newRelayCancel("room", "t", "Accepted <elsewhere>.").Encode(1)): `{"type":"file:transfer:cancel","channel":"room","data":{"reason":"Accepted <elsewhere>.","transfer_id":"t"},"timestamp":1}`,
		string(encodeRelayError(relayReceiverGone, "t", 1)):                    `{"type":"error","error":{"code":410,"reason":"relay_receiver_gone","message":"The receiver is gone.","transfer_id":"t"},"timestamp":1}`,
	} {
		if got != want {
			t.Errorf("\n got %s\nwant %s", got, want)
		}
	}
}

// TestRelayProblems: each has a code, a slug of its own and a text short enough for a toast; the app knows two by heart.
func TestRelayProblems(t *testing.T) {
	slugs := map[string]bool{}
	for p := relayNoProblem + 1; p < relayProblemCount; p++ {
		d := relayProblems[p]
		if d.code < 400 || d.code > 599 || !strings.HasPrefix(d.slug, "relay_") || slugs[d.slug] || d.text == "" || len(d.text) > 100 {
			t.Errorf("problem %d: %+v", p, d)
		}
		slugs[d.slug] = true
	}
	if !strings.Contains(relayProblems[relayOverFreeLimit].text, "升级到 PRO") || !strings.Contains(relayProblems[relayOverLimit].text, "文件大小超过限制") {
		t.Error("the app would not know the over-limit texts")
	}
}

// An object is cut into the fields that encoding/json finds.
func FuzzObjectFields(f *testing.F) {
	for _, s := range []string{appRequest, appAccept, appAck, `{}`, ` { "a" : [1, {"b":2}] , "a":"\ud800" } `, `{"a":1,}`, `{,}`, `{"":null}x`, `{"a" "b":1}`, "null"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !utf8.Valid(text) {
			return
		}
		var want map[string]json.RawMessage
		err := json.Unmarshal(text, &want)
		got, ok := objectFields(text)
		if ok != (err == nil && want != nil) {
			t.Fatalf("%q: %v, encoding/json says %v", text, ok, err)
		}
		if ok && !maps.EqualFunc(got, want, func(a, b json.RawMessage) bool { return string(a) == string(b) }) {
			t.Fatalf("%q: %q, encoding/json says %q", text, got, want)
		}
	})
}

func BenchmarkRelayAck(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		m, _ := parseRelayMessage([]byte(appAck))
		m.Encode(1700000000000)
	}
}

func FuzzRelayMessage(f *testing.F) {
	for _, s := range []string{appRequest, appAccept, appAck, appEnd} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, problem := parseRelayMessage(text)
		if m == nil {
			return
		}
		if problem != relayNoProblem {
			t.Fatal("a message and a problem")
		}
		if !validTransferID(m.ID) || !utf8.ValidString(m.ID) || m.ChunkIndex < 0 || m.HighestMissing < 0 || m.TotalChunks < 0 || m.Received < 0 {
			t.Fatalf("%+v", m)
		}
		// What is passed on says the same, and nothing is lost by passing it on twice.
		if m.Kind == relayRequest {
			m.SetFrom("alice")
		}
		sent := m.Encode(1)
		again, problem := parseRelayMessage(sent)
		if problem == relayBadMessage && len(sent) > maxRelayControlBytes {
			return
		}
		if problem != relayNoProblem || again.ID != m.ID || again.Event(nil) != m.Event(nil) || string(again.Encode(1)) != string(sent) {
			t.Fatalf("%s\nwas passed on as\n%s: %v", text, sent, problem)
		}
	})
}
