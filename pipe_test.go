package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A bubble of testing/synctest has a clock of its own, but no real sockets. The server runs in it as a whole, behind a
// listener in memory: hours pass in no time, and synctest.Wait tells when nothing is left to do.

// pipeListener is a net.Listener in memory. Its connections are net.Pipes: unbuffered, so that a client that does
// not read blocks its writer at once.
type pipeListener struct {
	incoming chan net.Conn
	closed   chan struct{}
	close    func()
	wrap     func(net.Conn) net.Conn // goes around the server's end of new connections; set before they are dialed
}

func newPipeListener() *pipeListener {
	l := &pipeListener{incoming: make(chan net.Conn), closed: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	return l
}

// Accept implements net.Listener.
func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case socket := <-l.incoming:
		return socket, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *pipeListener) Close() error { l.close(); return nil }

// Addr implements net.Listener.
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// dial returns the client's end of a new connection.
func (l *pipeListener) dial() (net.Conn, error) {
	here, there := net.Pipe()
	if l.wrap != nil {
		there = l.wrap(there)
	}
	select {
	case l.incoming <- there:
		return here, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// pipeServer is a running server in a bubble.
type pipeServer struct {
	*Server
	cfg      *Config
	t        *testing.T
	listener *pipeListener
	logged   *logBuffer
	began    time.Time
	stop     func() // ends the context of Run; does not wait
	ended    chan error
}

// inBubble runs a story in a bubble with a server, and wants the server to end after it. The bubble's clock begins in
// 2000, when times in milliseconds had a digit less than the protocol's messages have room for.
func inBubble(t *testing.T, change func(*Config), story func(*testing.T, *pipeServer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)))
		s := newPipeServer(t, change, nil)
		s.run()
		defer func() { // also when the story ends with a fatal error: a bubble must not leave goroutines behind
			s.stop()
			if err := <-s.ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		}()
		time.Sleep(time.Millisecond) // a clock that stands at zero, as no real one does, would mean never
		story(t, s)
	})
}

// newPipeServer makes a server that does not run yet. wrap, if given, goes around the log's handler.
func newPipeServer(t *testing.T, change func(*Config), wrap func(slog.Handler) slog.Handler) *pipeServer {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Log.File = ""
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatalf("the test's configuration is wrong: %v", err)
	}
	s := &pipeServer{cfg: &cfg, t: t, listener: newPipeListener(), logged: &logBuffer{}, began: time.Now(), ended: make(chan error, 1)}
	var handler slog.Handler = slog.NewTextHandler(s.logged, &slog.HandlerOptions{Level: slog.LevelDebug})
	if wrap != nil {
		handler = wrap(handler)
	}
	var err error
	if s.Server, err = newServer(&cfg, slog.New(handler), 0, s.listener); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *pipeServer) run() {
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	go func() { s.ended <- s.Run(ctx) }()
}

// since is how long the server has been there.
func (s *pipeServer) since() time.Duration { return time.Since(s.began) }

// wantCloses wants these connections and no others to have ended, as "reason count".
func (s *pipeServer) wantCloses(want ...string) {
	s.t.Helper()
	synctest.Wait()
	var got []string
	for i := range s.counters.endings {
		if n := s.counters.endings[i].Load(); n > 0 {
			got = append(got, fmt.Sprintf("%s %d", Ending(i), n))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		s.t.Errorf("connections ended with %q, want %q", got, want)
	}
}

// request asks an HTTP endpoint on a connection of its own.
func (s *pipeServer) request(method, path string, headers ...string) *http.Response {
	s.t.Helper()
	r, err := http.NewRequest(method, "http://letshare.test"+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return s.listener.dial() }}
	answer, err := transport.RoundTrip(r)
	if err != nil {
		s.t.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil {
		s.t.Fatal(err)
	}
	answer.Body = io.NopCloser(strings.NewReader(string(body)))
	return answer
}

// pipeFrame is a frame that the server sent.
type pipeFrame struct {
	opcode  byte
	payload string
	at      time.Duration // by the server's clock
}

// pipeClient is a WebSocket client whose reader runs beside the test and keeps what came.
type pipeClient struct {
	t      *testing.T
	server *pipeServer
	socket net.Conn
	pongs  bool          // answers pings
	closes bool          // answers a close frame
	closed chan struct{} // closed when the stream has ended
	out    chan []byte   // to the one writer: two at a pipe would wait for a mutex, which stops a bubble's clock

	gate   chan struct{} // full while the client is not to read; capacity 1
	mu     sync.Mutex
	frames []pipeFrame
	end    time.Duration // when the stream ended; 0: it has not
	err    error         // what the reader ended with
}

// pipeUpgrade is a handshake with a token that is valid for ttl.
func (s *pipeServer) pipeUpgrade(user string, ttl time.Duration) string {
	s.t.Helper()
	token, err := MintToken(s.cfg, Claims{UserID: user, TTL: ttl}, time.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	query := url.Values{"token": {token}, "userId": {user}}.Encode()
	return "GET /ws?" + query + " HTTP/1.1\r\nHost: letshare.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
}

// connect makes a well-behaved client: it answers pings and close frames.
func (s *pipeServer) connect(user string) *pipeClient {
	s.t.Helper()
	return s.connectWith(user, 0, true, true)
}

// connectWith makes a client with a token valid for ttl (0: as long as tokens are by default).
func (s *pipeServer) connectWith(user string, ttl time.Duration, pongs, closes bool) *pipeClient {
	s.t.Helper()
	return s.connectBy(user, s.pipeUpgrade(user, ttl), pongs, closes)
}

// connectBy makes a client by a handshake.
func (s *pipeServer) connectBy(user, upgrade string, pongs, closes bool) *pipeClient {
	s.t.Helper()
	socket, err := s.listener.dial()
	if err != nil {
		s.t.Fatal(err)
	}
	c := &pipeClient{t: s.t, server: s, socket: socket, pongs: pongs, closes: closes, closed: make(chan struct{}), out: make(chan []byte, 64), gate: make(chan struct{}, 1)}
	s.t.Cleanup(func() { socket.Close(); <-c.closed })
	reader := bufio.NewReader(socket)
	if _, err := io.WriteString(socket, upgrade); err != nil {
		s.t.Fatal(err)
	}
	answer, err := http.ReadResponse(reader, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		close(c.closed)
		s.t.Fatalf("%s cannot connect: %v, %v", user, answer, err)
	}
	go c.readFrames(reader)
	go c.writeAll()
	synctest.Wait() // the answer comes before the server has the connection in its books: the next must not stand there first
	return c
}

// writeAll is the writer.
func (c *pipeClient) writeAll() {
	for {
		select {
		case p := <-c.out:
			if _, err := c.socket.Write(p); err != nil {
				return
			}
		case <-c.closed:
			return
		}
	}
}

// freeze makes the client stop reading, but for one frame, until thaw.
func (c *pipeClient) freeze() { c.gate <- struct{}{} }

func (c *pipeClient) thaw() { <-c.gate }

// queue hands bytes to the writer. False: the connection has ended.
func (c *pipeClient) queue(p []byte) bool {
	select {
	case c.out <- p:
		return true
	case <-c.closed:
		return false
	}
}

// readFrames is the reader.
func (c *pipeClient) readFrames(r *bufio.Reader) {
	defer close(c.closed)
	for {
		opcode, payload, err := readServerFrame(r)
		c.freeze()
		c.thaw()
		c.mu.Lock()
		if err != nil {
			c.end, c.err = c.server.since(), err
			c.mu.Unlock()
			return
		}
		c.frames = append(c.frames, pipeFrame{opcode, string(payload), c.server.since()})
		c.mu.Unlock()
		switch {
		case opcode == opPing && c.pongs:
			c.queue(maskedFrame(finBit|opPong, payload))
		case opcode == opClose && c.closes:
			c.queue(maskedFrame(finBit|opClose, payload))
		}
	}
}

// readServerFrame reads one frame of the server, which never masks or splits any.
func readServerFrame(r io.Reader) (opcode byte, payload []byte, err error) {
	var header [10]byte
	if _, err := io.ReadFull(r, header[:2]); err != nil {
		return 0, nil, err
	}
	size := uint64(header[1])
	switch {
	case header[0]&0xF0 != finBit || header[1]&maskBit != 0:
		return 0, nil, fmt.Errorf("a frame that begins %x", header[:2])
	case size == 126:
		_, err = io.ReadFull(r, header[2:4])
		size = uint64(binary.BigEndian.Uint16(header[2:]))
	case size == 127:
		_, err = io.ReadFull(r, header[2:10])
		size = binary.BigEndian.Uint64(header[2:])
	}
	if err != nil {
		return 0, nil, errors.Join(io.ErrUnexpectedEOF, err)
	}
	if size > 1<<24 {
		return 0, nil, fmt.Errorf("a frame of %d bytes", size)
	}
	payload = make([]byte, size)
	if _, err = io.ReadFull(r, payload); err != nil {
		return 0, nil, errors.Join(io.ErrUnexpectedEOF, err)
	}
	return header[0] & 0xF, payload, nil
}

// write sends bytes and waits until the server has done what it does with them, as far as it reads them now.
func (c *pipeClient) write(p []byte) {
	c.queue(p)
	synctest.Wait()
}

// send sends a text message, like write.
func (c *pipeClient) send(text string) {
	c.write(maskedFrame(finBit|opText, []byte(text)))
}

// subscribe joins a room and wants it to work.
func (c *pipeClient) subscribe(room string) {
	c.t.Helper()
	c.send(fmt.Sprintf(`{"type":"subscribe","channel":%q}`, room))
	c.wantLast(`{"type":"subscribed","channel":` + fmt.Sprintf("%q", room))
}

// got returns what came so far but for pings and pongs, as "message" or "close code text".
func (c *pipeClient) got() (texts []string) {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.frames {
		switch {
		case f.opcode == opText:
			texts = append(texts, f.payload)
		case f.opcode == opClose && len(f.payload) >= 2:
			texts = append(texts, fmt.Sprintf("close %d %s", binary.BigEndian.Uint16([]byte(f.payload)), f.payload[2:]))
		case f.opcode == opClose:
			texts = append(texts, "close")
		}
	}
	return texts
}

// wantLast wants the latest message to begin like this.
func (c *pipeClient) wantLast(begin string) {
	c.t.Helper()
	if got := c.got(); len(got) == 0 || !strings.HasPrefix(got[len(got)-1], begin) {
		c.t.Fatalf("the last message is not %s…: %q", begin, got)
	}
}

// when returns the times at which frames of this opcode came.
func (c *pipeClient) when(opcode byte) (times []time.Duration) {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.frames {
		if f.opcode == opcode {
			times = append(times, f.at)
		}
	}
	return times
}

// alive wants the connection to be there still, and to answer.
func (c *pipeClient) alive() {
	c.t.Helper()
	c.send(`{"type":"unsubscribe","channel":"nowhere"}`)
	c.wantLast(`{"type":"unsubscribed"`)
}

// wantEnded waits for the end of the stream, which must come within the span of time after since, and wants the last frame
// to be this close frame, "" for none. It returns when the stream ended.
func (c *pipeClient) wantEnded(since, earliest, latest time.Duration, last string) time.Duration {
	c.t.Helper()
	select {
	case <-c.closed:
	case <-time.After(time.Hour):
		c.t.Fatalf("the connection does not end; it got %q", c.got())
	}
	c.mu.Lock()
	took, err := c.end-since, c.err
	c.mu.Unlock()
	if took < earliest || took > latest {
		c.t.Errorf("the connection ended after %v, want %v to %v", took, earliest, latest)
	}
	if err != io.EOF {
		c.t.Errorf("the stream ended with %v", err)
	}
	got := c.got()
	switch {
	case last == "" && len(c.when(opClose)) > 0:
		c.t.Errorf("closed with %q, want a cut without a close frame", got)
	case last != "" && (len(got) == 0 || got[len(got)-1] != last):
		c.t.Errorf("got %q at the end, want %q", got, last)
	}
	return took
}
