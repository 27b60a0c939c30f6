package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// dialTimeout bounds connecting and upgrading, replyTimeout the wait for one answer of the protocol.
const (
	dialTimeout  = 30 * time.Second
	replyTimeout = 30 * time.Second
)

var epoch = time.Now()

// now is the client's clock: nanoseconds, monotonic.
func now() int64 { return int64(time.Since(epoch)) }

// target is a server to aim at. It is immutable; dials may run at once.
type target struct {
	name    string
	wire    wire
	addr    string // host:port that is dialled; a proxy's, when one stands before the server
	host    string // of the Host header
	path    string // with a leading slash
	token   string
	tls     *tls.Config // nil for plain TCP
	pid     int         // of the server's process, 0 when it is not on this machine
	spread  bool        // dial from many 127.x addresses, so that ports in TIME_WAIT do not run out
	metrics string      // URL of /metrics, "" when the server has none
	// readBuffer is the receive buffer asked of the kernel before connecting, in bytes; 0: the kernel's choice.
	readBuffer int
}

// parseTarget makes a target of a ws:// or wss:// address.
func parseTarget(name, address, token string, insecure bool) (*target, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "ws" && u.Scheme != "wss" {
		return nil, fmt.Errorf("-url %q: want ws://host:port/ws or wss://host/ws", address)
	}
	t := &target{name: name, addr: u.Host, host: u.Host, path: u.EscapedPath(), token: token}
	if t.path == "" {
		t.path = "/"
	}
	scheme, port := "http", "80"
	if u.Scheme == "wss" {
		t.tls = &tls.Config{ServerName: u.Hostname(), InsecureSkipVerify: insecure}
		scheme, port = "https", "443"
	}
	if u.Port() == "" {
		t.addr = net.JoinHostPort(u.Hostname(), port)
	}
	t.metrics = scheme + "://" + u.Host + "/metrics"
	t.spread = runtime.GOOS == "linux" && strings.HasPrefix(u.Hostname(), "127.")
	return t, nil
}

// through returns a copy of t that is dialled at addr.
func (t *target) through(addr string) *target {
	c := *t
	c.addr = addr
	return &c
}

// mint signs a token of HS256 for a day.
func mint(secret string) string {
	at := time.Now().Unix()
	b64 := base64.RawURLEncoding
	text := b64.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." +
		b64.EncodeToString(fmt.Appendf(nil, `{"user_id":"bench","user_type":"desktop","iat":%d,"exp":%d}`, at-1, at+86400))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return text + "." + b64.EncodeToString(mac.Sum(nil))
}

// socket is one connection to a target. Reading belongs to one goroutine at a time; write may be called by any.
type socket struct {
	conn net.Conn // immutable
	wire wire
	key  [4]byte

	buf        []byte // reader: unparsed bytes are buf[start:end]
	start, end int

	wmu     sync.Mutex
	scratch []byte // under wmu
}

var dialled atomic.Uint32 // counts dials, to spread them over source addresses

// dial connects as user and, for WebSocket, upgrades.
func (t *target) dial(user string) (*socket, error) { return t.dialWithin(user, dialTimeout) }

// dialWithin is dial with a bound of its own on connecting, and again on upgrading.
func (t *target) dialWithin(user string, within time.Duration) (*socket, error) {
	d := net.Dialer{Timeout: within}
	if t.spread {
		n := dialled.Add(1) % (16 * 250)
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+n/250), byte(1+n%250))}
	}
	if t.readBuffer > 0 {
		d.Control = withReadBuffer(t.readBuffer)
	}
	conn, err := d.Dial("tcp", t.addr)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(within))
	if t.tls != nil {
		conn = tls.Client(conn, t.tls)
	}
	s := &socket{conn: conn, wire: t.wire, key: newKey(), buf: make([]byte, 1024)}
	if t.wire == webSocket {
		if err := s.upgrade(t, user); err != nil {
			conn.Close()
			return nil, err
		}
	}
	conn.SetDeadline(time.Time{})
	return s, nil
}

// upgrade does the client's half of the opening handshake. Bytes after it stay in buf.
func (s *socket) upgrade(t *target, user string) error {
	nonce := base64.StdEncoding.EncodeToString(append(s.key[:], "letshare-ben"...))
	sep := "?"
	if strings.Contains(t.path, "?") {
		sep = "&"
	}
	request := "GET " + t.path + sep + "token=" + url.QueryEscape(t.token) + "&userId=" + url.QueryEscape(user) + " HTTP/1.1\r\n" +
		"Host: " + t.host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + nonce + "\r\n\r\n"
	if _, err := io.WriteString(s.conn, request); err != nil {
		return err
	}
	for {
		if err := s.fill(); err != nil {
			return fmt.Errorf("no answer to the upgrade: %w", err)
		}
		head, _, whole := bytes.Cut(s.buf[:s.end], []byte("\r\n\r\n"))
		if !whole {
			if s.end > 16<<10 {
				return errors.New("the answer to the upgrade is over 16 KiB")
			}
			continue
		}
		s.start = len(head) + 4
		if !bytes.HasPrefix(head, []byte("HTTP/1.1 101")) {
			return fmt.Errorf("upgrade refused: %.300s", strings.ReplaceAll(string(s.buf[:s.end]), "\r\n", " "))
		}
		if !bytes.Contains(head, []byte(acceptKey(nonce))) {
			return errors.New("wrong Sec-WebSocket-Accept")
		}
		return nil
	}
}

// acceptKey is the answer to a Sec-WebSocket-Key (RFC 6455 section 4.2.2).
func acceptKey(nonce string) string {
	sum := sha1.Sum([]byte(nonce + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// fill reads once. It makes room first: a buffer that was filled is doubled, up to 64 KiB or the frame under way.
func (s *socket) fill() error {
	if s.start == s.end {
		s.start, s.end = 0, 0
	} else if s.start > 0 && s.end == len(s.buf) {
		s.end = copy(s.buf, s.buf[s.start:s.end])
		s.start = 0
	}
	if s.end == len(s.buf) {
		s.buf = append(s.buf, make([]byte, len(s.buf))...)
	}
	n, err := s.conn.Read(s.buf[s.end:])
	s.end += n
	if n > 0 {
		return nil
	}
	return err
}

// next returns the next frame that is whole in the buffer; ok is false when another fill is needed.
// The payload is valid until then.
func (s *socket) next() (op byte, payload []byte, ok bool, err error) {
	op, head, size, ok, err := s.wire.header(s.buf[s.start:s.end])
	if err != nil || !ok || s.end-s.start < head+size {
		return 0, nil, false, err
	}
	payload = s.buf[s.start+head : s.start+head+size]
	s.start += head + size
	return op, payload, true, nil
}

// read returns the next frame, answering pings by itself. Only for the time before a reader runs.
func (s *socket) read() (op byte, payload []byte, err error) {
	for {
		op, payload, ok, err := s.next()
		switch {
		case err != nil:
			return 0, nil, err
		case !ok:
			if err := s.fill(); err != nil {
				return 0, nil, err
			}
		case op == opPing:
			s.send(opPong, payload)
		case op != opPong:
			return op, payload, nil
		}
	}
}

// send encodes and writes one frame.
func (s *socket) send(op byte, payload []byte) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	s.scratch = s.wire.appendFrame(s.scratch[:0], op, s.key, payload)
	_, err := s.conn.Write(s.scratch)
	return err
}

// join subscribes to the events of room and waits for as many answers.
func (s *socket) join(room string, events ...string) error {
	s.conn.SetDeadline(time.Now().Add(replyTimeout))
	defer s.conn.SetDeadline(time.Time{})
	if s.wire == lengthPrefix {
		events = events[:1]
		if err := s.send(opText, []byte(room)); err != nil {
			return err
		}
	}
	var all []byte
	for _, event := range events {
		if s.wire == webSocket {
			all = s.wire.appendFrame(all, opText, s.key, fmt.Appendf(nil, `{"type":"subscribe","channel":%q,"event":%q}`, room, event))
		}
	}
	if _, err := s.conn.Write(all); err != nil {
		return err
	}
	for range events {
		op, payload, err := s.read()
		if err != nil {
			return fmt.Errorf("no answer to subscribe: %w", err)
		}
		if op == opClose || !bytes.Contains(payload, []byte("subscribed")) {
			return fmt.Errorf("subscribe refused: %.200q", payload)
		}
	}
	return nil
}

// leave does the closing handshake: close frame, the server's close frame, end of stream.
func (s *socket) leave() error {
	defer s.conn.Close()
	s.conn.SetDeadline(time.Now().Add(replyTimeout))
	if err := s.send(opClose, binary.BigEndian.AppendUint16(nil, 1000)); err != nil {
		return err
	}
	for {
		op, payload, err := s.read()
		if err != nil {
			return fmt.Errorf("no answer to close: %w", err)
		}
		if op == opClose {
			if len(payload) >= 2 && binary.BigEndian.Uint16(payload) != 1000 {
				return fmt.Errorf("closed with %d", binary.BigEndian.Uint16(payload))
			}
			break
		}
	}
	if _, _, err := s.read(); err != io.EOF {
		return fmt.Errorf("after the close handshake: %v, want the end of the stream", err)
	}
	return nil
}

// httpClient asks /metrics and /health; certificates made for a bench are nobody's.
func httpClient(t *target) *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: t.tls, DisableKeepAlives: true}}
}
