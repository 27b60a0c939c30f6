package ably

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// recorded are frames of the SDK 2.28.0, made by testdata/record.mjs.
func recorded(t *testing.T) (frames struct {
	Client, Server []struct {
		JSON    string
		Msgpack []byte
	}
}) {
	t.Helper()
	p, err := os.ReadFile("testdata/sdk.json")
	if err == nil {
		err = json.Unmarshal(p, &frames)
	}
	if err != nil || len(frames.Client) < 19 || len(frames.Server) < 11 {
		t.Fatal(len(frames.Client), len(frames.Server), err)
	}
	return frames
}

// The SDK made the same calls with each of its codecs: both must be the same messages.
func TestTheSDKSaysTheSameInBothFormats(t *testing.T) {
	for _, frame := range recorded(t).Client {
		a, b := decoded(t, JSON, []byte(frame.JSON)), decoded(t, Msgpack, frame.Msgpack)
		for _, m := range []*ProtocolMessage{&a, &b} {
			if m.Action == ActionHeartbeat && m.ID != "" {
				m.ID = "made up by each client"
			}
			for i := range m.Messages {
				if strings.HasSuffix(m.Messages[i].Encoding, "utf-8/cipher+aes-256-cbc") || m.Messages[i].Encoding == "cipher+aes-256-cbc" {
					clear(m.Messages[i].Data.Bytes) // encrypted with a random vector
				}
			}
		}
		same(t, b, a)
		same(t, decoded(t, Msgpack, a.Append(nil, Msgpack)), a)
	}
}

// Our msgpack of a server's messages is, byte for byte, what the SDK's own encoder makes of them.
func TestOurMsgpackIsTheSDKs(t *testing.T) {
	for _, frame := range recorded(t).Server {
		m := decoded(t, JSON, []byte(frame.JSON))
		if got := string(m.Append(nil, JSON)); got != frame.JSON {
			t.Errorf("JSON is\n%s, want\n%s", got, frame.JSON)
		}
		if got := string(m.Append(nil, Msgpack)); got != string(frame.Msgpack) {
			t.Errorf("%s is\n%q, want\n%q", frame.JSON, got, frame.Msgpack)
		}
	}
}
