package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what must come. It is spent only by a test that fails.
const patience = 10 * time.Second

// testServer is a whole server on a free port of the loopback address.
type testServer struct {
	server *Server
	cfg    *Config
	addr   string     // host:port
	log    *logBuffer // everything that was logged, debug included

	mu     sync.Mutex
	rooms  []string // that clients have named, for wantNothing
	fences int
	stop   func() // ends Run and waits for it; may be called again
}

// logBuffer is a log that may be read while it is written.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// startServer serves in local mode with defaults, but for what change sets. It ends with the test.
func startServer(t testing.TB, change ...func(*Config)) *testServer {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Server.Port = "0"
	cfg.Log.File = ""
	for _, set := range change {
		if set != nil {
			set(&cfg)
		}
	}
	if err := cfg.Validate(); err != nil {
		t.Fatalf("the test's configuration is wrong: %v", err)
	}
	s := &testServer{cfg: &cfg, log: &logBuffer{}}
	logger := slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	server, err := NewServer(&cfg, logger, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.server, s.addr = server, server.Addr()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	// The label is inherited by every goroutine that the server starts: abused counts them by it.
	go pprof.Do(ctx, pprof.Labels("server", s.addr), func(ctx context.Context) { ended <- server.Run(ctx) })
	s.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(2 * patience):
			t.Errorf("Run does not return")
		}
	})
	t.Cleanup(s.stop)
	return s
}

// token mints a token of this server.
func (s *testServer) token(t testing.TB, claims Claims) string {
	t.Helper()
	token, err := MintToken(s.cfg, claims, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// get asks an HTTP endpoint on a connection of its own; headers are "Name: value" lines.
func (s *testServer) get(t testing.TB, path string, headers ...string) (status int, body string) {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, "http://"+s.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		request.Header.Add(name, value)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport, Timeout: patience}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// metric is a figure of /metrics, such as metric(t, "refusals", "bad_json").
func (s *testServer) metric(t testing.TB, section, key string) float64 {
	t.Helper()
	_, body := s.get(t, "/metrics")
	var figures map[string]map[string]any
	if err := json.Unmarshal([]byte(body), &figures); err != nil {
		t.Fatalf("/metrics: %v in %s", err, body)
	}
	value, ok := figures[section][key].(float64)
	if !ok {
		t.Fatalf("/metrics has no number %s.%s: %s", section, key, body)
	}
	return value
}

// wantMetric waits until a figure of /metrics has a value: counters may come a moment after what a client sees.
func (s *testServer) wantMetric(t testing.TB, section, key string, want float64) {
	t.Helper()
	var got float64
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if got = s.metric(t, section, key); got == want {
			return
		}
	}
	t.Errorf("metric %s.%s is %v, want %v", section, key, got, want)
}

// handshake is an upgrade request on its way to being sent.
type handshake struct {
	path   string
	query  string   // raw, without the question mark
	header []string // "Name: value", without Host
	early  []byte   // sent in one packet with the request
}

// dialOption changes a handshake.
type dialOption func(*handshake)

// withPath asks for another path than /.
func withPath(path string) dialOption { return func(h *handshake) { h.path = path } }

// withQuery replaces the query string, token and userId included.
func withQuery(raw string) dialOption { return func(h *handshake) { h.query = raw } }

// withToken connects as dial does, but with this token.
func withToken(token string) dialOption {
	return func(h *handshake) {
		query, _ := url.ParseQuery(h.query)
		query.Set("token", token)
		h.query = query.Encode()
	}
}

// withHeader adds "Name: value" lines.
func withHeader(lines ...string) dialOption {
	return func(h *handshake) { h.header = append(h.header, lines...) }
}

// withoutHeader removes a header that every upgrade has.
func withoutHeader(name string) dialOption {
	return func(h *handshake) {
		h.header = slices.DeleteFunc(h.header, func(line string) bool { return strings.HasPrefix(line, name+":") })
	}
}

// withEarly sends bytes right behind the request, in one packet, before the answer can be known.
func withEarly(frames []byte) dialOption { return func(h *handshake) { h.early = frames } }

// client is one WebSocket connection, frame by frame: it can send what no library would, and it
// fails the test when the server sends what RFC 6455 forbids. Used by one goroutine.
type client struct {
	server *testServer // nil: the connection was brought along
	name   string
	socket net.Conn
	reader *bufio.Reader
	answer *http.Response // of the handshake
	query  string         // of the handshake
	kept   []string       // messages that publish has read over
	pings  int            // pings of the server that were seen and answered
}

// open sends a handshake and returns the answer, whatever it is. user "" leaves token and userId out.
func (s *testServer) open(t testing.TB, user string, options ...dialOption) *client {
	t.Helper()
	h := &handshake{path: "/", header: []string{
		"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
	}}
	if user != "" {
		h.query = url.Values{"token": {s.token(t, Claims{UserID: user})}, "userId": {user}}.Encode()
	}
	for _, option := range options {
		option(h)
	}
	socket, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	target := h.path
	if h.query != "" {
		target += "?" + h.query
	}
	request := "GET " + target + " HTTP/1.1\r\nHost: " + s.addr + "\r\n" + strings.Join(h.header, "\r\n") + "\r\n\r\n"
	c := shakeHands(t, s, user, socket, append([]byte(request), h.early...))
	c.query = h.query
	return c
}

// shakeHands sends a request on a connection and reads the answer to it. The connection ends with the test.
func shakeHands(t testing.TB, s *testServer, name string, socket net.Conn, request []byte) *client {
	t.Helper()
	t.Cleanup(func() { socket.Close() })
	c := &client{server: s, name: name, socket: socket, reader: bufio.NewReader(socket)}
	c.raw(t, request)
	socket.SetReadDeadline(time.Now().Add(patience))
	answer, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		t.Fatalf("%s: no answer to the handshake: %v", name, err)
	}
	c.answer = answer
	return c
}

// dial connects as user, with a token of user's own.
func (s *testServer) dial(t testing.TB, user string, options ...dialOption) *client {
	t.Helper()
	c := s.open(t, user, options...)
	if c.answer.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(c.answer.Body)
		t.Fatalf("%s cannot connect: %s %s", user, c.answer.Status, body)
	}
	// The example of RFC 6455 section 1.3: an answer to another question would not do.
	if accept := c.answer.Header.Get("Sec-WebSocket-Accept"); accept != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("%s: Sec-WebSocket-Accept is %q", user, accept)
	}
	if extensions := c.answer.Header.Get("Sec-WebSocket-Extensions"); extensions != "" {
		t.Errorf("%s: the server negotiated %q", user, extensions)
	}
	return c
}

// wantRefused connects and wants a refusal of exactly this shape. It returns the answer's header.
func (s *testServer) wantRefused(t testing.TB, status int, reason, user string, options ...dialOption) http.Header {
	t.Helper()
	c := s.open(t, user, options...)
	defer c.socket.Close()
	body, err := io.ReadAll(c.answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if c.answer.StatusCode != status {
		t.Errorf("status %s, want %d %s; body %s", c.answer.Status, status, reason, body)
		return c.answer.Header
	}
	var refusal map[string]map[string]any
	if err := json.Unmarshal(body, &refusal); err != nil {
		t.Errorf("body %q: %v", body, err)
	}
	told := refusal["error"]
	message, _ := told["message"].(string)
	if len(refusal) != 1 || len(told) != 3 || told["code"] != float64(status) || told["reason"] != reason || message == "" {
		t.Errorf(`body %s, want {"error":{"code":%d,"reason":%q,"message":…}} and nothing else`, body, status, reason)
	}
	if kind := c.answer.Header.Get("Content-Type"); kind != "application/json" {
		t.Errorf("a refusal of type %q", kind)
	}
	if status != http.StatusNotFound && !c.answer.Close {
		t.Errorf("the refused connection stays open for whatever a proxy takes it for")
	}
	query, _ := url.ParseQuery(c.query)
	for key, values := range query {
		if len(values[0]) > 4 && strings.Contains(string(body), values[0]) {
			t.Errorf("the body %s holds the query's %s", body, key)
		}
	}
	return c.answer.Header
}

// raw sends bytes as they are.
func (c *client) raw(t testing.TB, p []byte) {
	t.Helper()
	c.socket.SetWriteDeadline(time.Now().Add(patience))
	if _, err := c.socket.Write(p); err != nil {
		t.Fatalf("%s cannot send: %v", c.name, err)
	}
}

// frame sends one whole, masked frame.
func (c *client) frame(t testing.TB, opcode byte, payload []byte) {
	t.Helper()
	c.raw(t, maskedFrame(finBit|opcode, payload))
}

// send sends a text message.
func (c *client) send(t testing.TB, text string) {
	t.Helper()
	var message struct{ Channel string }
	if c.server != nil && json.Unmarshal([]byte(text), &message) == nil && validRoomName(message.Channel) {
		c.server.note(message.Channel)
	}
	c.frame(t, opText, []byte(text))
}

// note remembers a room for wantNothing.
func (s *testServer) note(room string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.rooms, room) {
		s.rooms = append(s.rooms, room)
	}
}

// subscribe asks for an event of a room, "" for none, and waits for the confirmation.
func (c *client) subscribe(t testing.TB, room, event string) {
	t.Helper()
	c.send(t, toJSON(t, map[string]string{"type": "subscribe", "channel": room, "event": event}))
	if event == "" {
		event = eventAll
	}
	c.want(t, toJSON(t, map[string]string{"type": "subscribed", "channel": room, "event": event}))
}

// publish says data, a JSON text, and returns when the room has it: whoever is to get it, has it queued. What
// came for the client itself meanwhile is kept for want.
func (c *client) publish(t testing.TB, room, event, data string) {
	t.Helper()
	id := fmt.Sprintf("published-%d", c.server.count())
	c.send(t, fmt.Sprintf(`{"type":"publish","channel":%s,"event":%s,"data":%s,"id":%q}`, toJSON(t, room), toJSON(t, event), data, id))
	kept := c.kept
	c.kept = nil
	for {
		message := c.message(t)
		if subsetOf(t, fmt.Sprintf(`{"id":%q}`, id), message) == "" {
			if !strings.HasPrefix(message, `{"type":"ack"`) {
				t.Fatalf("%s: the publish was answered %s", c.name, message)
			}
			c.kept = kept
			return
		}
		kept = append(kept, message)
	}
}

// count returns a new number.
func (s *testServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fences++
	return s.fences
}

// want reads the next message and compares it with the given fields: each must be there and equal; others may be
// there too. It returns the message as it came.
func (c *client) want(t testing.TB, fields string) string {
	t.Helper()
	message := c.message(t)
	if difference := subsetOf(t, fields, message); difference != "" {
		t.Fatalf("%s got %s\nwant %s: %s", c.name, message, fields, difference)
	}
	return message
}

// wantError reads the next message, which must be an error of this code and reason.
func (c *client) wantError(t testing.TB, code int, reason string) string {
	t.Helper()
	return c.want(t, fmt.Sprintf(`{"type":"error","error":{"code":%d,"reason":%q}}`, code, reason))
}

// wantData reads the next message, whose data must be exactly these bytes.
func (c *client) wantData(t testing.TB, data string) {
	t.Helper()
	message := c.message(t)
	var parts struct {
		Type string
		Data json.RawMessage
	}
	if err := json.Unmarshal([]byte(message), &parts); err != nil {
		t.Fatalf("%s got %s: %v", c.name, message, err)
	}
	if parts.Type != "message" || string(parts.Data) != data {
		t.Fatalf("%s got %s\nwant a message with the data %s", c.name, message, data)
	}
}

// wantNothing proves that no message is on its way to the client. It sends a message through every room that was
// named in the test, and the answer to each must be the next thing that comes: a delivery would stand before it.
func (c *client) wantNothing(t testing.TB) {
	t.Helper()
	if len(c.kept) > 0 {
		t.Fatalf("%s got %s, want nothing", c.name, c.kept[0])
	}
	c.server.mu.Lock()
	rooms := append([]string{"fence"}, c.server.rooms...)
	c.server.mu.Unlock()
	for _, room := range rooms {
		id := fmt.Sprintf("fence-%d", c.server.count())
		c.frame(t, opText, []byte(toJSON(t, map[string]string{"type": "unsubscribe", "channel": room, "event": "fence", "id": id})))
		if message := c.message(t); subsetOf(t, fmt.Sprintf(`{"id":%q}`, id), message) != "" {
			t.Fatalf("%s got %s, want nothing", c.name, message)
		}
	}
}

// message reads the next text message, and answers the server's pings on the way to it.
func (c *client) message(t testing.TB) string {
	t.Helper()
	if len(c.kept) > 0 {
		message := c.kept[0]
		c.kept = c.kept[1:]
		return message
	}
	for {
		opcode, payload, err := c.read()
		switch {
		case err != nil:
			t.Fatalf("%s waits for a message: %v", c.name, err)
		case opcode == opText:
			return string(payload)
		case opcode == opPing:
			c.pings++
			c.frame(t, opPong, payload)
		default:
			t.Fatalf("%s waits for a message and gets opcode %d, %q", c.name, opcode, payload)
		}
	}
}

// read reads one frame. The server's frames are never masked, compressed or in fragments.
func (c *client) read() (opcode byte, payload []byte, err error) {
	c.socket.SetReadDeadline(time.Now().Add(patience))
	var header [2]byte
	if _, err = io.ReadFull(c.reader, header[:]); err != nil {
		return 0, nil, err
	}
	if header[0]&0xF0 != finBit || header[1]&maskBit != 0 {
		return 0, nil, fmt.Errorf("a frame that begins %x", header)
	}
	size := uint64(header[1])
	if size > 125 {
		extended := make([]byte, 2+6*(size-126))
		if _, err = io.ReadFull(c.reader, extended); err != nil {
			return 0, nil, err
		}
		size = binary.BigEndian.Uint64(append(make([]byte, 8-len(extended)), extended...))
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(c.reader, payload)
	return header[0] & 0xF, payload, err
}

// wantClose reads the next frame, which must be the close frame with this code and text, answers it, and
// wants the server to close the socket.
func (c *client) wantClose(t testing.TB, code int, reason string) {
	t.Helper()
	if skipped := c.untilClose(t, code, reason); len(skipped) > 0 {
		t.Errorf("%s got %s before the close frame", c.name, skipped[0])
	}
}

// untilClose is wantClose after any number of messages, which it returns.
func (c *client) untilClose(t testing.TB, code int, reason string) (messages []string) {
	t.Helper()
	messages = c.kept
	for {
		opcode, payload, err := c.read()
		switch {
		case err != nil:
			t.Fatalf("%s waits for the close frame: %v", c.name, err)
		case opcode == opText:
			messages = append(messages, string(payload))
		case opcode == opClose:
			if want := string(closeFrame(uint16(code), reason)[2:]); string(payload) != want {
				t.Fatalf("%s is closed with %q, want %q", c.name, payload, want)
			}
			// The server may have waited long enough, and be gone.
			c.socket.Write(maskedFrame(finBit|opClose, payload))
			c.wantEnd(t)
			return messages
		}
	}
}

// wantCut wants the socket to end without a close frame, after whatever was under way.
func (c *client) wantCut(t testing.TB) {
	t.Helper()
	for {
		opcode, payload, err := c.read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%s is not cut", c.name)
		} else if err != nil {
			c.socket.Close()
			return
		}
		if opcode == opClose {
			t.Fatalf("%s is closed with %q, want no close frame", c.name, payload)
		}
	}
}

// wantEnd wants the server to close the socket and to send nothing more.
func (c *client) wantEnd(t testing.TB) {
	t.Helper()
	c.socket.SetReadDeadline(time.Now().Add(patience))
	if n, err := c.reader.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Fatalf("%s gets bytes after the close frame", c.name)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%s: the server does not close the socket", c.name)
	}
	c.socket.Close()
}

// leave closes the connection as a browser does, and waits until the server has taken it out of its rooms.
func (c *client) leave(t testing.TB) {
	t.Helper()
	payload := []byte{1000 >> 8, 1000 & 0xFF}
	c.frame(t, opClose, payload)
	for {
		opcode, echo, err := c.read()
		if err != nil {
			t.Fatalf("%s waits for the answer to its close frame: %v", c.name, err)
		}
		if opcode == opClose {
			if !bytes.Equal(echo, payload) {
				t.Errorf("%s: its close frame was answered with %q", c.name, echo)
			}
			c.wantEnd(t)
			return
		}
	}
}

// close drops the connection without a word.
func (c *client) close() { c.socket.Close() }

// subsetOf says where the JSON text want is not a part of got: objects may have more keys, anything else must be equal.
// "" when it is. Numbers are compared as they are written.
func subsetOf(t testing.TB, want, got string) string {
	t.Helper()
	decode := func(text string) any {
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.UseNumber()
		var value any
		if err := decoder.Decode(&value); err != nil {
			t.Fatalf("%q is not JSON: %v", text, err)
		}
		return value
	}
	return missing("", decode(want), decode(got))
}

// missing is subsetOf below a path.
func missing(path string, want, got any) string {
	wantObject, isObject := want.(map[string]any)
	if !isObject {
		if !reflect.DeepEqual(want, got) {
			return fmt.Sprintf("%s is %v, want %v", path, got, want)
		}
		return ""
	}
	gotObject, isObject := got.(map[string]any)
	if !isObject {
		return fmt.Sprintf("%s is %v, want an object", path, got)
	}
	for key, value := range wantObject {
		inside, there := gotObject[key]
		if !there {
			return path + "." + key + " is not there"
		}
		if difference := missing(path+"."+key, value, inside); difference != "" {
			return difference
		}
	}
	return ""
}

// toJSON is a value as JSON text.
func toJSON(t testing.TB, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// numberIn is the number behind a dotted path in a message.
func numberIn(t testing.TB, message, path string) int64 {
	t.Helper()
	raw := json.RawMessage(message)
	for _, key := range strings.Split(path, ".") {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(raw, &object); err != nil {
			t.Fatalf("%s in %s: %v", path, message, err)
		}
		raw = object[key]
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		t.Fatalf("%s in %s: %v", path, message, err)
	}
	return n
}
