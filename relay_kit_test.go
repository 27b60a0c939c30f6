package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The words of stories about files.

// appChunk is the app's chunk_size in bytes.
const appChunk = 64 << 10

// flowControl is the field with which both sides agree on acknowledgements.
const flowControl = `"flow_control":"receiver_ack_v1"`

// file is a file that a story sends. The room is always "room".
type file struct {
	id    string
	size  int64 // bytes
	chunk int64 // bytes of each chunk but the last
	more  string
}

// newFile is a file in the app's chunks, with flow control.
func newFile(id string, size int64) file { return file{id, size, appChunk, flowControl} }

// chunks is how many frames the file has.
func (f file) chunks() int64 { return max(1, (f.size+f.chunk-1)/f.chunk) }

// request is the sender's first message.
func (f file) request(to string) string { return f.requestIn("room", to) }

// requestIn is the request for another room.
func (f file) requestIn(room, to string) string {
	fields := fmt.Sprintf(`"transfer_id":%q,"file_name":"%s.bin","file_size":%d,"chunk_size":%d,"total_chunks":%d,"to_user_id":%q`,
		f.id, f.id, f.size, f.chunk, f.chunks(), to)
	if f.more != "" {
		fields += "," + f.more
	}
	return `{"type":"file:transfer:request","channel":"` + room + `","data":{` + fields + `}}`
}

// says is a control message about the file. fields are more of its data, "" or as in JSON without braces.
func (f file) says(kind, fields string) string {
	if fields != "" {
		fields = "," + fields
	}
	return fmt.Sprintf(`{"type":"file:transfer:%s","channel":"room","data":{"transfer_id":%q%s}}`, kind, f.id, fields)
}

// accept is the receiver's consent, on the file's own terms.
func (f file) accept() string { return f.says("accept", f.more) }

// ack says that the receiver has written the first n chunks.
func (f file) ack(n int64) string {
	return f.says("ack", fmt.Sprintf(`"chunk_index":%d,"received_chunks":%d,"total_chunks":%d,"bytes_received":%d`, n-1, n, f.chunks(), min(n*f.chunk, f.size)))
}

// resend asks for chunks again.
func (f file) resend(missing int64, indexes ...int64) string {
	list, _ := json.Marshal(indexes)
	return f.says("resend", fmt.Sprintf(`"chunk_indexes":%s,"missing_count":%d,"total_chunks":%d,"reason":"stalled"`, list, missing, f.chunks()))
}

// frame is the binary message of a chunk: its bytes differ from those of all other chunks.
func (f file) frame(index int64) []byte {
	size := f.chunk
	if index == f.chunks()-1 {
		size = f.size - index*f.chunk
	}
	header := fmt.Sprintf(`{"transfer_id":%q,"chunk_index":%d,"chunk_size":%d,"total_chunks":%d}`, f.id, index, size, f.chunks())
	p := relayFrameOf(header, int(size))
	copy(p[relayHeaderBytes:], fmt.Sprintf("%s:%d ", f.id, index))
	return p
}

// sendFrames sends chunks from and up to but without to.
func (c *client) sendFrames(t testing.TB, f file, from, to int64) {
	t.Helper()
	for i := from; i < to; i++ {
		c.frame(t, opBinary, f.frame(i))
	}
}

// wantFrame reads the next message, which must be exactly this chunk.
func (c *client) wantFrame(t testing.TB, f file, index int64) {
	t.Helper()
	for {
		opcode, payload, err := c.read()
		switch {
		case err != nil:
			t.Fatalf("%s waits for chunk %d: %v", c.name, index, err)
		case opcode == opPing:
			c.frame(t, opPong, payload)
		case opcode != opBinary:
			t.Fatalf("%s waits for chunk %d and gets %q", c.name, index, payload)
		case !bytes.Equal(payload, f.frame(index)):
			t.Fatalf("%s gets %.100q, want chunk %d byte for byte", c.name, payload, index)
		default:
			return
		}
	}
}

// wantFrames is wantFrame for chunks from and up to but without to.
func (c *client) wantFrames(t testing.TB, f file, from, to int64) {
	t.Helper()
	for i := from; i < to; i++ {
		c.wantFrame(t, f, i)
	}
}

// wantRelayError reads the next message, which must be this error about the file.
func (c *client) wantRelayError(t testing.TB, code int, reason string, f file) string {
	t.Helper()
	return c.want(t, fmt.Sprintf(`{"type":"error","error":{"code":%d,"reason":%q,"transfer_id":%q}}`, code, reason, f.id))
}

// relayPair is a server with anna and bob in its room.
func relayPair(t testing.TB, change ...func(*Config)) (s *testServer, anna, bob *client) {
	t.Helper()
	s = startServer(t, change...)
	anna, bob = s.dial(t, "anna"), s.dial(t, "bob")
	for _, c := range []*client{anna, bob} {
		c.subscribe(t, "room", "signal:"+c.name)
		c.subscribe(t, "room", "signal:all")
	}
	return s, anna, bob
}

// agree takes a file up to where frames can flow.
func agree(t testing.TB, anna, bob *client, f file) {
	t.Helper()
	anna.send(t, f.request(bob.name))
	bob.want(t, f.request(bob.name))
	bob.send(t, f.accept())
	anna.want(t, f.accept())
}

// finish acknowledges the rest and ends a transfer whose frames have all arrived.
func finish(t testing.TB, anna, bob *client, f file) {
	t.Helper()
	bob.send(t, f.ack(f.chunks()))
	anna.want(t, f.ack(f.chunks()))
	anna.send(t, f.says("end", ""))
	bob.want(t, f.says("end", ""))
	bob.send(t, f.says("complete", ""))
	anna.want(t, f.says("complete", ""))
}

// transport sends a whole file, in windows of 24 that are acknowledged.
func transport(t testing.TB, anna, bob *client, f file) {
	t.Helper()
	for sent := int64(0); sent < f.chunks(); {
		next := min(sent+24, f.chunks())
		anna.sendFrames(t, f, sent, next)
		bob.wantFrames(t, f, sent, next)
		if next < f.chunks() {
			bob.send(t, f.ack(next))
			anna.want(t, f.ack(next))
		}
		sent = next
	}
	finish(t, anna, bob, f)
}

// wantNothingHeld wants the server to hold no byte of any file.
func (s *testServer) wantNothingHeld(t testing.TB) {
	t.Helper()
	s.wantMetric(t, "relay", "active_transfers", 0)
	s.wantMetric(t, "relay", "reserved_bytes", 0)
	s.wantMetric(t, "websocket", "buffered_bytes", 0)
}

// The same words in a bubble, where messages are sent and looked at afterwards.

// frame sends one chunk.
func (c *pipeClient) frame(f file, index int64) {
	c.write(maskedFrame(finBit|opBinary, f.frame(index)))
}

// files lists the chunks and messages of files that came so far, as "#index", the message's kind or the error's reason.
func (c *pipeClient) files() (list []string) {
	c.got()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.frames {
		var message struct {
			Type  string
			Error struct{ Reason string }
		}
		header, problem := parseRelayFrame([]byte(f.payload))
		switch {
		case f.opcode == opBinary && problem == relayNoProblem:
			list = append(list, fmt.Sprintf("#%d", header.Index))
		case f.opcode == opBinary:
			list = append(list, "garbage")
		case f.opcode == opText && json.Unmarshal([]byte(f.payload), &message) == nil:
			switch kind, isFile := strings.CutPrefix(message.Type, relayPrefix); {
			case isFile:
				list = append(list, kind)
			case message.Type == "error":
				list = append(list, message.Error.Reason)
			case message.Type == "message":
				list = append(list, "message")
			}
		}
	}
	return list
}

// wantFiles wants exactly these chunks and messages to have come.
func (c *pipeClient) wantFiles(want string) {
	c.t.Helper()
	if got := strings.Join(c.files(), " "); got != want {
		c.t.Errorf("got %s\nwant %s", got, want)
	}
}

// chunkList is what wantFiles wants of chunks from and up to but without to.
func chunkList(from, to int64) string {
	var list []string
	for i := from; i < to; i++ {
		list = append(list, fmt.Sprintf("#%d", i))
	}
	return strings.Join(list, " ")
}

// agree takes a file up to where frames can flow.
func (s *pipeServer) agree(anna, bob *pipeClient, f file) {
	s.t.Helper()
	anna.send(f.request("bob"))
	bob.send(f.accept())
	if got := anna.files(); len(got) == 0 || got[len(got)-1] != "accept" {
		s.t.Fatalf("%s is not accepted: %q", f.id, got)
	}
}

// wantNothingLeft lets the last memory of all transfers pass, and wants nothing of them to be left: neither in the figures nor
// in the rooms nor at the connections.
func (s *pipeServer) wantNothingLeft() {
	s.t.Helper()
	time.Sleep(relayCompletedRetention + relayGrace + 2*time.Second)
	synctest.Wait()
	r := &s.relayed
	if active, reserved, buffered := r.active.Load(), r.reserved.Load(), s.budget.total.Load(); active != 0 || reserved != 0 || buffered != 0 {
		s.t.Errorf("%d transfers are active, %d bytes reserved, %d bytes buffered, want none", active, reserved, buffered)
	}
	for _, sh := range s.hub.shards {
		if len(sh.relaying) > 0 {
			s.t.Errorf("a shard knows %d rooms with transfers still", len(sh.relaying))
		}
		for _, room := range sh.rooms {
			if len(room.transfers) > 0 {
				s.t.Errorf("the room %s remembers %d transfers", room.name, len(room.transfers))
			}
		}
	}
	s.conns.each(func(c *conn) {
		c.member.mu.Lock()
		defer c.member.mu.Unlock()
		if f := c.member.files; f != nil && (len(f.known) > 0 || f.sending != 0) {
			s.t.Errorf("%s remembers %d transfers and sends %d", c.member.identity, len(f.known), f.sending)
		}
		c.outbox.mu.Lock()
		defer c.outbox.mu.Unlock()
		if c.outbox.lanes != nil && (len(c.outbox.lanes.all) > 0 || c.outbox.lanes.bytes != 0) {
			s.t.Errorf("%s has %d lanes of %d bytes", c.member.identity, len(c.outbox.lanes.all), c.outbox.lanes.bytes)
		}
	})
}
