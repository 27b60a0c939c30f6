package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// endWithin is how soon a connection must have ended after what ends it. The server takes less than a second;
// the rest is for a busy machine.
const endWithin = 3 * time.Second

// slowly is up to how many bytes a row is also sent byte by byte: a header that comes in pieces is parsed on another path.
const slowly = 400

// frameRow is what a client sends after the upgrade, and what RFC 6455 wants the server to do about it.
type frameRow struct {
	name  string
	bytes string
	want  []answer // all that the server sends, in order, but its own pings
	data  string   // of a publish in bytes, which must reach the room byte for byte; "": nothing may reach it
	ends  Ending   // what the connection ends with; notEnded: it lives on
	cut   bool     // the client ends its side of the stream behind bytes
}

// answer is one frame from the server.
type answer struct {
	opcode byte
	begin  string // of the payload
	size   int    // of the payload; -1: any
}

func (a answer) String() string { return fmt.Sprintf("opcode %d, %.60q", a.opcode, a.begin) }

// ack answers the publish of say, sized and their like.
func ack() answer { return answer{opText, `{"type":"ack","id":1,`, -1} }

// problem is an error message of the protocol: the frames were in order, their meaning was not.
func problem(reason Reason) answer {
	return answer{opText, fmt.Sprintf(`{"type":"error","error":{"code":400,"reason":%q,`, reason), -1}
}

func pong(payload string) answer { return answer{opPong, payload, len(payload)} }

// closed is a close frame; the text behind the code is the server's choice.
func closed(code uint16) answer {
	return answer{opClose, string(binary.BigEndian.AppendUint16(nil, code)), -1}
}

// frame is a masked frame of minimal length. first is the FIN bit, the RSV bits and the opcode.
func frame(first byte, payload string) string { return string(maskedFrame(first, []byte(payload))) }

func text(payload string) string  { return frame(finBit|opText, payload) }
func begin(payload string) string { return frame(opText, payload) }
func more(payload string) string  { return frame(opContinuation, payload) }
func last(payload string) string  { return frame(finBit|opContinuation, payload) }
func ping(payload string) string  { return frame(finBit|opPing, payload) }

// closing is a close frame of the client's.
func closing(code uint16, reason string) string {
	return frame(finBit|opClose, string(binary.BigEndian.AppendUint16(nil, code))+reason)
}

// wide is a frame whose length takes 2 bytes or 8, whether it needs them or not, and whose mask is zero: the payload
// stands as it is. length is what the header says; the payload may be shorter.
func wide(first byte, bytes int, length uint64, payload string) string {
	digits := binary.BigEndian.AppendUint64(nil, length)
	if bytes == 2 {
		return string([]byte{first, maskBit | 126, digits[6], digits[7], 0, 0, 0, 0}) + payload
	}
	return string([]byte{first, maskBit | 127}) + string(digits) + "\x00\x00\x00\x00" + payload
}

// unmasked is a frame as only a server may send it.
func unmasked(first byte, payload string) string {
	return string([]byte{first, byte(len(payload))}) + payload
}

// publishing is a publish of data to the table's room.
func publishing(data string) string {
	return `{"type":"publish","channel":"table","id":1,"data":` + data + `}`
}

// saying is data that holds s.
func saying(s string) string { return `{"from":"row","s":"` + s + `"}` }

// filling is data that makes publishing a message of n bytes.
func filling(n int) string { return saying(strings.Repeat("x", n-len(publishing(saying(""))))) }

// playFrames plays a table against a server of its own: all rows at once, for a violation may take the server most of
// a second. Two members who do nothing wrong talk before and after, and hear what the rows publish and nothing else.
func playFrames(t *testing.T, rows []frameRow) {
	t.Parallel()
	server := startServer(t, func(cfg *Config) { cfg.WebSocket.MaxRoomUsers = 0 })
	speaker, listener := server.dial(t, "speaker"), server.dial(t, "listener")
	speaker.subscribe(t, "table", "nothing")
	listener.subscribe(t, "table", "")
	speaker.publish(t, "table", "", `{"from":"speaker","s":"before"}`)
	listener.wantData(t, `{"from":"speaker","s":"before"}`)

	rows = byteByByte(rows)
	verdicts := make([]chan error, len(rows))
	ends, heard := map[Ending]uint64{}, map[string]int{}
	for i, row := range rows {
		c := server.dial(t, "row")
		c.subscribe(t, "table", "nothing")
		verdicts[i] = make(chan error, 1)
		go func() { verdicts[i] <- row.play(c) }()
		ending := row.ends
		if ending == notEnded {
			ending = PeerClosed // once it has shown that it lives
		}
		ends[ending]++
		if row.data != "" {
			heard[row.data]++
		}
	}
	for i, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if err := <-verdicts[i]; err != nil {
				t.Error(err)
			}
		})
	}

	speaker.publish(t, "table", "", `{"from":"speaker","s":"after"}`)
	wantHeard(t, listener, heard, `{"from":"speaker","s":"after"}`)
	wantEndings(t, server.server, ends)
}

// byteByByte adds to the short rows a second one, which comes in pieces.
func byteByByte(rows []frameRow) []frameRow {
	for _, row := range slices.Clone(rows) {
		if len(row.bytes) > 1 && len(row.bytes) <= slowly {
			row.name += ", byte by byte"
			rows = append(rows, row)
		}
	}
	return rows
}

// play sends a row and compares what comes back. It runs beside the test, and so reports what is wrong.
func (row frameRow) play(c *client) error {
	defer c.close()
	piece := len(row.bytes)
	if strings.HasSuffix(row.name, "byte by byte") {
		piece = 1
	}
	for rest := row.bytes; rest != ""; rest = rest[min(piece, len(rest)):] {
		if _, err := c.socket.Write([]byte(rest[:min(piece, len(rest))])); err != nil {
			if row.ends == notEnded {
				return fmt.Errorf("cannot send: %w", err)
			}
			break // the server has ended it on the way, as it may
		}
	}
	sent := time.Now()
	if row.cut {
		c.socket.(*net.TCPConn).CloseWrite()
	}
	for _, want := range row.want {
		if err := wantAnswer(c, want); err != nil {
			return err
		}
	}
	if row.ends == notEnded {
		return showLife(c)
	}
	if err := wantEOF(c); err != nil {
		return err
	}
	if took := time.Since(sent); took > endWithin {
		return fmt.Errorf("the connection ended after %v, want at most %v", took, endWithin)
	}
	return nil
}

// wantAnswer reads the next frame but for the server's pings.
func wantAnswer(c *client, want answer) error {
	opcode, payload, err := c.read()
	for err == nil && opcode == opPing {
		opcode, payload, err = c.read()
	}
	if err != nil {
		return fmt.Errorf("waiting for %v: %w", want, err)
	}
	if opcode != want.opcode || !strings.HasPrefix(string(payload), want.begin) || want.size >= 0 && len(payload) != want.size {
		return fmt.Errorf("got opcode %d, %.100q, want %v", opcode, payload, want)
	}
	return nil
}

// showLife proves that a connection lives, and closes it as a client should.
func showLife(c *client) error {
	for _, step := range []struct {
		send string
		want answer
	}{{ping("alive"), pong("alive")}, {closing(1000, ""), closed(1000)}} {
		if _, err := c.socket.Write([]byte(step.send)); err != nil {
			return fmt.Errorf("the connection does not live: %w", err)
		}
		if err := wantAnswer(c, step.want); err != nil {
			return fmt.Errorf("the connection does not live: %w", err)
		}
	}
	return wantEOF(c)
}

// wantEOF wants the server to end the TCP connection, without another byte. A reset is an end too: it is
// what a client gets that sends on behind its close frame.
func wantEOF(c *client) error {
	c.socket.SetReadDeadline(time.Now().Add(endWithin))
	switch rest, err := io.ReadAll(c.reader); {
	case len(rest) > 0:
		return fmt.Errorf("got %.100q, want the end of the stream", rest)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the TCP connection has not ended after %v", endWithin)
	}
	return nil
}

// wantHeard reads messages up to the one with the data last, and wants all others to be what the rows published.
func wantHeard(t *testing.T, listener *client, want map[string]int, last string) {
	t.Helper()
	got := map[string]int{}
	for {
		data := dataOf(t, listener.message(t))
		if data == last {
			break
		}
		got[data]++
	}
	for data := range got {
		if got[data] != want[data] {
			t.Errorf("%d × %.200q reached the room, want %d", got[data], data, want[data])
		}
	}
	for data := range want {
		if got[data] == 0 {
			t.Errorf("%.200q did not reach the room", data)
		}
	}
}

// dataOf cuts data out of a message without touching its bytes.
func dataOf(t *testing.T, message string) string {
	t.Helper()
	_, rest, found := strings.Cut(message, `,"data":`)
	end := strings.LastIndex(rest, `,"timestamp":`)
	if !found || end < 0 {
		t.Fatalf("a message without data or timestamp: %.200q", message)
	}
	return rest[:end]
}

// wantEndings waits until as many connections are counted as ended as there were, and compares the counters.
func wantEndings(t *testing.T, s *Server, want map[Ending]uint64) {
	t.Helper()
	var total uint64
	for n := range maps.Values(want) {
		total += n
	}
	got := map[Ending]uint64{}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		var sum uint64
		for ending := range endingCount {
			if n := s.counters.endings[ending].Load(); n > 0 {
				got[ending] = n
				sum += n
			}
		}
		if sum >= total {
			break
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("closes are %v, want %v", got, want)
	}
}
