package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// rawConnection connects without a word. The connection ends with the test.
func rawConnection(t *testing.T, addr string) *client {
	t.Helper()
	socket, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return &client{name: "raw", socket: socket, reader: bufio.NewReader(socket)}
}

// Pages of wrong origins, and of those that look like a right one, are refused; the log says what would admit them.
func TestAbuse07_Origins(t *testing.T) {
	t.Parallel()
	a := underAttack(t, func(cfg *Config) {
		cfg.CORS.AllowedOrigins = []string{"https://letshare.fun", "https://*.share.test", "http://localhost:5173"}
	})
	for _, row := range []struct {
		origin  string
		allowed bool
	}{
		{"https://letshare.fun", true},
		{"https://LetShare.fun:443", true},
		{"http://letshare.fun", false},
		{"https://letshare.fun:8443", false},
		{"https://letshare.fun.evil.test", false},
		{"https://evil-letshare.fun", false},
		{"https://letshare.fun@evil.test", false},
		{"https://evil.test/https://letshare.fun", false},
		{"https://letshare.fun\\.evil.test", false},
		{"https://www.letshare.fun", false},
		{"https://letshare.fu", false},
		{"https://a.share.test", true},
		{"https://share.test", false},
		{"https://notshare.test", false},
		{"https://a.share.test.evil.test", false},
		{"http://localhost:5173", true},
		{"http://localhost:5174", false},
		{"http://localhost", false},
		{"http://127.0.0.1:5173", false},
		{"null", false},
		{"file://", false},
		{"chrome-extension://letshare.fun", false},
		{"https://letshare.fun, https://evil.test", false},
		{"http://" + a.addr, true}, // the server's own pages
		{"https://" + a.addr, false},
	} {
		t.Run(row.origin, func(t *testing.T) {
			header := withHeader("Origin: " + row.origin)
			if row.allowed {
				a.testServer.dial(t, "mallory", header).close()
			} else {
				a.wantRefused(t, http.StatusForbidden, "origin_not_allowed", "mallory", header)
			}
		})
	}
	if log := a.log.String(); !strings.Contains(log, "origin=https://www.letshare.fun") || !strings.Contains(log, `allowed_origins\": [\"https://www.letshare.fun\"]`) {
		t.Errorf("the log does not say what was refused and what would admit it:\n%s", log)
	}
	a.calm()
}

// Whatever a client does with its handshake, no secret of its URL gets into an answer or into the log, debug included.
func TestAbuse08_NoSecretGetsOut(t *testing.T) {
	t.Parallel()
	a := underAttack(t, func(cfg *Config) { cfg.WebSocket.MaxConnections = 6 })
	good := a.token(t, Claims{UserID: "mallory"})
	expired := signedToken(hs256Header, `{"user_id":"mallory","exp":1}`, a.cfg.JWT.Secret, sha256.New)
	const canary = "canary-of-the-query"
	query := func(token string) dialOption {
		return withQuery(url.Values{"token": {token}, "userId": {"mallory"}, "trace": {canary}}.Encode())
	}
	secrets := []string{canary, good, expired, a.cfg.JWT.Secret, "mallory&", "token="}
	a.wantRefused(t, 401, "token_expired", "", query(expired))
	a.wantRefused(t, 401, "token_malformed", "", query("sesame"))
	a.wantRefused(t, 403, "origin_not_allowed", "", query(good), withHeader("Origin: https://evil.test"))
	a.wantRefused(t, 426, "not_an_upgrade", "", query(good), withoutHeader("Upgrade"))
	a.wantRefused(t, 400, "not_an_upgrade", "", query(good), withHeader("Content-Length: 1"))
	a.wantRefused(t, 404, "not_found", "", withPath("/"+good), query(good))
	a.wantRefused(t, 400, "bad_user_id", "", withQuery("token="+good+"&trace="+canary+"&userId="+strings.Repeat("n", 129)))
	c := a.dial("", query(good))
	c.send(t, `{"type":"nonsense"}`)
	c.wantError(t, 400, "bad_type")
	a.dial("", query(good))
	a.wantRefused(t, 503, "too_many_connections", "", query(good))
	c.raw(t, []byte(unmasked(finBit|opText, "{}")))
	c.wantClosed(t, 1002, "protocol_error")
	rawRequest(t, a.addr, "GET /ws?token="+good+"&trace="+canary+" HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n")
	rawRequest(t, a.addr, "BREW /ws?token="+good+"&trace="+canary+" HTTP/1.1\r\nHost: x\r\n\r\n")
	for _, path := range []string{"/health", "/metrics", "/debug/check", "/metrics?format=prometheus", "/nothing"} {
		_, body := a.get(t, path+map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")]+"token="+good+"&trace="+canary)
		for _, secret := range secrets[:4] {
			if strings.Contains(body, secret) {
				t.Errorf("%s shows %q", path, secret)
			}
		}
	}
	for _, secret := range secrets {
		if strings.Contains(a.log.String(), secret) {
			t.Errorf("the log holds %q:\n%s", secret, a.log)
		}
	}
	if !strings.Contains(a.log.String(), "reason=token_expired") {
		t.Error("nothing was logged at all")
	}
	a.calm()
}

// Requests that are not, or not quite, a WebSocket's upgrade get an answer that no proxy takes for a tunnel.
func TestAbuse09_WrongUpgrades(t *testing.T) {
	t.Parallel()
	a := underAttack(t)
	target := "/ws?token=" + a.token(t, Claims{UserID: "mallory"})
	for _, row := range []handshakeRow{
		{name: "plain GET", whole: "GET TARGET HTTP/1.1\r\nHost: x\r\n\r\n", status: 426},
		{name: "GET on / that lost its Upgrade", whole: "GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", status: 426},
		{name: "POST", line: "POST TARGET HTTP/1.1", status: 405},
		{name: "HTTP/1.0", line: "GET TARGET HTTP/1.0", status: 426},
		{name: "version 12", without: "Sec-WebSocket-Version", with: []string{"Sec-WebSocket-Version: 12"}, status: 426},
		{name: "two versions", with: []string{"Sec-WebSocket-Version: 12"}, status: 426},
		{name: "no key", without: "Sec-WebSocket-Key", status: 400},
		{name: "two keys", with: []string{"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, status: 400},
		{name: "a short key", without: "Sec-WebSocket-Key", with: []string{"Sec-WebSocket-Key: c2hvcnQ="}, status: 400},
		{name: "h2c", without: "Upgrade", with: []string{"Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"}, status: 426},
		{name: "websocket or h2c", without: "Upgrade", with: []string{"Upgrade: websocket, h2c"}, status: 400},
		{name: "a body", with: []string{"Content-Length: 3"}, body: "GET", status: 400},
		{name: "a chunked body", with: []string{"Transfer-Encoding: chunked"}, body: "0\r\n\r\n", status: 400},
		{name: "two lengths", with: []string{"Content-Length: 3", "Content-Length: 4"}, body: "GET", status: 400},
	} {
		t.Run(row.name, func(t *testing.T) {
			status, closed := rawRequest(t, a.addr, string(row.request(target)))
			if status != row.status || !closed {
				t.Errorf("answered %d, and closed: %t; want %d and closed", status, closed, row.status)
			}
		})
	}
	a.wantMetric(t, "websocket", "total_connections", 4)
	a.calm()
}

// 500 clients dribble their request. Each is cut after ten seconds, and others get in all the while.
func TestAbuse10_SlowHeaders(t *testing.T) {
	attackInBubble(t, nil, func(t *testing.T, s *pipeServer) {
		ends := silentCrowd(t, s, 500, func(socket net.Conn) {
			for i := range 100 {
				if _, err := socket.Write([]byte("GET /ws HTTP/1.1\r\nX: " + strings.Repeat("y", 100))[i : i+1]); err != nil {
					return
				}
				time.Sleep(5 * time.Second)
			}
		})
		newcomer := s.connect("newcomer")
		newcomer.alive()
		ends()
		newcomer.socket.Close()
	})
}

// silentCrowd opens sockets and plays each client's part in the background. What it returns waits for the server to cut all
// of them, at the time that a request may take.
func silentCrowd(t *testing.T, s *pipeServer, n int, part func(net.Conn)) (ends func()) {
	t.Helper()
	synctest.Wait()
	before, began := len(s.Server.listener.open), s.since()
	took := make(chan time.Duration, n)
	for range n {
		socket, err := s.listener.dial()
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			io.Copy(io.Discard, socket)
			took <- s.since() - began
			socket.Close()
		}()
		go part(socket)
	}
	synctest.Wait()
	if open := len(s.Server.listener.open); open != before+n {
		t.Errorf("%d sockets are open, want %d", open, before+n)
	}
	return func() {
		for range n {
			if took := <-took; took < readHeaderTimeout || took > readHeaderTimeout+time.Second {
				t.Fatalf("cut after %v, want %v", took, readHeaderTimeout)
			}
		}
		time.Sleep(6 * time.Second) // the parts end
		synctest.Wait()
	}
}

// 1000 clients connect and say nothing; 200 begin a TLS handshake and stop. All are cut, and their sockets are free again.
func TestAbuse11_SilentSockets(t *testing.T) {
	attackInBubble(t, nil, func(t *testing.T, s *pipeServer) {
		ends := silentCrowd(t, s, 1000, func(net.Conn) {})
		newcomer := s.connect("newcomer")
		newcomer.alive()
		ends()
		newcomer.alive()
		if open := len(s.Server.listener.open); open != 4+1+1 {
			t.Errorf("%d sockets are counted as open, want those of the bystanders, the newcomer, and the one that Accept waits with", open)
		}
		newcomer.socket.Close()
	})
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeKeyPair(t, cert, key)
	inBubble(t, func(c *Config) { c.Server.TLSCert, c.Server.TLSKey = cert, key }, func(t *testing.T, s *pipeServer) {
		var hello bytes.Buffer
		tls.Client(recorder{&hello}, &tls.Config{InsecureSkipVerify: true}).Handshake()
		ends := silentCrowd(t, s, 200, func(socket net.Conn) { socket.Write(hello.Bytes()[:hello.Len()/2]) })
		socket, err := s.listener.dial()
		if err != nil {
			t.Fatal(err)
		}
		newcomer := tls.Client(socket, &tls.Config{InsecureSkipVerify: true})
		fmt.Fprint(newcomer, "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if text, err := io.ReadAll(newcomer); err != nil || !strings.Contains(string(text), `"healthy"`) {
			t.Errorf("a newcomer gets %q, %v", text, err)
		}
		newcomer.Close()
		ends()
		if open := len(s.Server.listener.open); open != 1 {
			t.Errorf("%d sockets are counted as open, want the one that Accept waits with", open)
		}
	})
}

// recorder is a socket that takes what is written and never answers.
type recorder struct{ to *bytes.Buffer }

func (r recorder) Write(p []byte) (int, error)      { return r.to.Write(p) }
func (r recorder) Read([]byte) (int, error)         { return 0, io.EOF }
func (r recorder) Close() error                     { return nil }
func (r recorder) LocalAddr() net.Addr              { return nil }
func (r recorder) RemoteAddr() net.Addr             { return nil }
func (r recorder) SetDeadline(time.Time) error      { return nil }
func (r recorder) SetReadDeadline(time.Time) error  { return nil }
func (r recorder) SetWriteDeadline(time.Time) error { return nil }

// A client that never subscribes may stay: the app keeps such sockets. It is pinged, and it counts.
func TestAbuse12_NeverSubscribes(t *testing.T) {
	attackInBubble(t, func(c *Config) { c.WebSocket.MaxConnections = 5 }, func(t *testing.T, s *pipeServer) {
		idler := s.connect("idler")
		time.Sleep(3 * time.Minute)
		if pings := len(idler.when(opPing)); pings != 7 {
			t.Errorf("%d pings in 3 minutes, want 7", pings)
		}
		answer := s.request("GET", "/ws?token="+s.freshToken(), "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
		if answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" {
			t.Errorf("one more is answered %s, Retry-After %q", answer.Status, answer.Header.Get("Retry-After"))
		}
		idler.alive()
		s.wantCloses()
		idler.socket.Close()
	})
}

// freshToken is a good token.
func (s *pipeServer) freshToken() string {
	s.t.Helper()
	token, err := MintToken(s.cfg, Claims{UserID: "mallory"}, time.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}
