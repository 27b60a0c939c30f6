package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// maxFuzzedBytes bounds one input: longer ones are slow and show nothing that these do not.
const maxFuzzedBytes = 64 << 10

// FuzzRawFrames sends any bytes behind an upgrade and ends the stream. The server must answer in whole frames of its
// own protocol and end the connection, must not panic, and two others go on talking.
func FuzzRawFrames(f *testing.F) {
	server := startServer(f, func(cfg *Config) {
		cfg.WebSocket.MessagesPerSecond = 0 // the bystanders talk once for each input
		cfg.WebSocket.BytesPerSecond = 0
	})
	speaker, listener := server.dial(f, "speaker"), server.dial(f, "listener")
	speaker.subscribe(f, "bystanders", "nothing")
	listener.subscribe(f, "bystanders", "")
	token := server.token(f, Claims{UserID: "fuzz"})

	subscribe := wide(finBit|opText, 2, 39, `{"type":"subscribe","channel":"table"}`+" ")
	for _, seed := range []string{
		subscribe + wide(finBit|opText, 2, uint64(len(publishing(saying("")))), publishing(saying(""))),
		subscribe + wide(opText, 8, 2, "{\xe4") + ping("p") + wide(finBit, 2, 3, "\xbd}\n"),
		ping("") + frame(finBit|opBinary, "\xff") + frame(finBit|opPong, "p") + closing(1000, "bye") + ping("late"),
		begin("{") + text("}"),
		unmasked(finBit|opText, "{}"),
		wide(finBit|opText, 8, 1<<62, "{}"),
		closing(1005, "\xff"),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		if len(input) > maxFuzzedBytes {
			return
		}
		c := server.dial(t, "", withToken(token))
		defer c.close()
		go func() { // beside the reading: the server may stop reading while nobody takes its answers
			c.socket.Write(input)
			c.socket.(*net.TCPConn).CloseWrite()
		}()
		if err := readToTheEnd(c); err != nil {
			t.Fatal(err)
		}
		wantBystanders(t, speaker, listener)
		wantNoPanic(t, server)
	})
}

// readToTheEnd reads frames until the server ends the connection. They must be what a browser accepts: text of valid
// UTF-8 and of the protocol, pongs, pings, and one close frame at the very end.
func readToTheEnd(c *client) error {
	closed := false
	for {
		opcode, payload, err := c.read()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return errors.New("the connection does not end")
		case err != nil && !errors.Is(err, io.EOF) && !isReset(err):
			return fmt.Errorf("the stream ends amiss: %w", err)
		case err != nil:
			return nil
		case closed:
			return fmt.Errorf("opcode %d, %q behind the close frame", opcode, payload)
		}
		if err := checkServerFrame(opcode, payload); err != nil {
			return err
		}
		closed = opcode == opClose
	}
}

// isReset reports whether the peer has thrown away what was sent to it: fair behind its close frame.
func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op)
}

// checkServerFrame says what is wrong with a frame from the server.
func checkServerFrame(opcode byte, payload []byte) error {
	switch opcode {
	case opText:
		var message struct{ Type string }
		if !utf8.Valid(payload) || json.Unmarshal(payload, &message) != nil || message.Type == "" {
			return fmt.Errorf("text %q is no message", payload)
		}
	case opClose:
		if len(payload) == 1 || len(payload) > maxControlPayload || len(payload) > 2 && !utf8.Valid(payload[2:]) {
			return fmt.Errorf("close frame %q", payload)
		}
	case opPing, opPong:
		if len(payload) > maxControlPayload {
			return fmt.Errorf("control frame of %d bytes", len(payload))
		}
	default:
		return fmt.Errorf("opcode %d from a server", opcode)
	}
	return nil
}

// wantBystanders lets two members who do nothing wrong exchange a message.
func wantBystanders(t *testing.T, speaker, listener *client) {
	t.Helper()
	data := fmt.Sprintf(`{"from":"speaker","n":%d}`, time.Now().UnixNano())
	speaker.publish(t, "bystanders", "", data)
	listener.wantData(t, data)
}

// wantNoPanic looks for a panic that was caught, and forgets the log.
func wantNoPanic(t *testing.T, server *testServer) {
	t.Helper()
	log := server.log.String()
	if at := strings.Index(log, "panic"); at >= 0 {
		t.Fatalf("the server panicked: %s", log[at:])
	}
	server.log.mu.Lock()
	server.log.text.Reset()
	server.log.mu.Unlock()
}
