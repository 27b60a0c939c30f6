package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// handshakeRow is a request and what RFC 6455 section 4 wants to be answered.
type handshakeRow struct {
	name    string
	line    string   // the request line; TARGET stands for the path with a good token. "" for the usual one
	without string   // a header that every handshake has and this one has not
	with    []string // more header lines
	body    string   // behind the header
	whole   string   // the whole request, in the place of all that
	status  int
	reason  string   // of our refusal; "" for an upgrade, and for what never comes as far as us
	header  []string // lines that the answer must have
}

const usualLine = "GET TARGET HTTP/1.1"

// usualHandshake is the header of every handshake; its key is the example of RFC 6455 section 1.3.
var usualHandshake = []string{
	"Host: letshare.test", "Connection: Upgrade", "Upgrade: websocket",
	"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
}

// request is the row's bytes.
func (row handshakeRow) request(target string) []byte {
	request := row.whole
	if request == "" {
		line := row.line
		if line == "" {
			line = usualLine
		}
		header := slices.DeleteFunc(slices.Clone(usualHandshake), func(h string) bool { return row.without != "" && strings.HasPrefix(h, row.without+":") })
		header = append(header, row.with...)
		request = line + "\r\n" + strings.Join(header, "\r\n") + "\r\n\r\n" + row.body
	}
	return []byte(strings.ReplaceAll(request, "TARGET", target))
}

func TestHandshakes(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	token := server.token(t, Claims{UserID: "shaker"})
	rows := slices.Concat(acceptedHandshakes, methodAndVersionRows, keyRows, upgradeHeaderRows, bodyRows)
	rows = append(rows, handshakeRow{
		name: "token as a subprotocol among others", line: "GET / HTTP/1.1", status: 101,
		with:   []string{"Sec-WebSocket-Protocol: chat, letshare.token, " + token, "Sec-WebSocket-Protocol: superchat"},
		header: []string{"Sec-WebSocket-Protocol: letshare.token"},
	})
	refused := map[string]uint64{}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) { playHandshake(t, server, row, "/?token="+token) })
		if row.reason != "" {
			refused[row.reason]++
		}
	}
	for reason, slug := range reasonSlugs {
		if got := server.server.counters.refusals[reason].Load(); got != refused[slug] {
			t.Errorf("%d refusals %s are counted, want %d", got, slug, refused[slug])
		}
	}
}

// playHandshake sends a row's request and looks at the answer and at what becomes of the connection.
func playHandshake(t *testing.T, server *testServer, row handshakeRow, target string) {
	socket, err := net.Dial("tcp", server.addr)
	if err != nil {
		t.Fatal(err)
	}
	c := shakeHands(t, server, row.name, socket, row.request(target))
	defer c.close()
	if c.answer.StatusCode != row.status {
		t.Fatalf("answered %s, want %d", c.answer.Status, row.status)
	}
	for _, line := range row.header {
		name, value, _ := strings.Cut(line, ": ")
		if got := c.answer.Header.Get(name); got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
	if row.status == http.StatusSwitchingProtocols {
		if row.body != "" {
			err = wantAnswer(c, pong("early"))
		}
		if err == nil {
			err = showLife(c)
		}
		if err != nil {
			t.Error(err)
		}
		return
	}
	wantRefusalAndEnd(t, c, row)
}

// wantRefusalAndEnd reads the body of a refusal, behind which the connection must end: no proxy shall take it for a tunnel.
func wantRefusalAndEnd(t *testing.T, c *client, row handshakeRow) {
	c.socket.SetReadDeadline(time.Now().Add(endWithin))
	rest, err := io.ReadAll(c.reader)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the TCP connection has not ended after %v", endWithin)
	}
	if row.reason == "" || strings.HasPrefix(row.line, "HEAD") {
		return
	}
	var told struct {
		Error struct {
			Code   int
			Reason string
		}
	}
	if err := json.Unmarshal(rest, &told); err != nil || told.Error.Code != row.status || told.Error.Reason != row.reason {
		t.Errorf("the body is %q, want code %d and reason %s", rest, row.status, row.reason)
	}
}

// acceptedHandshakes are unusual and right.
var acceptedHandshakes = []handshakeRow{
	{name: "usual", status: 101, header: []string{
		"Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
		"Sec-WebSocket-Protocol: ", "Sec-WebSocket-Extensions: ",
	}},
	{name: "other case", without: "Upgrade", with: []string{"uPGRADE: WebSocket"}, status: 101},
	{name: "Connection with keep-alive", without: "Connection", with: []string{"Connection: keep-alive, Upgrade"}, status: 101},
	{name: "Connection in two lines", without: "Connection", with: []string{"Connection: keep-alive", "Connection: upgrade"}, status: 101},
	{name: "spaces around values", without: "Upgrade", with: []string{"Upgrade: \t websocket \t"}, status: 101},
	{name: "whole URL in the request line", line: "GET http://letshare.testTARGET HTTP/1.1", status: 101},
	{name: "path /ws", line: "GET /wsTARGET HTTP/1.1", status: 101},
	{name: "key with other characters", without: "Sec-WebSocket-Key", with: []string{"Sec-WebSocket-Key: /+++////++++////++++/w=="}, status: 101},
	{name: "no bytes of body", with: []string{"Content-Length: 0"}, status: 101},
	{name: "frame right behind the handshake", body: ping("early"), status: 101},
	{name: "unknown subprotocols", with: []string{"Sec-WebSocket-Protocol: chat, superchat"}, status: 101, header: []string{"Sec-WebSocket-Protocol: "}},
	{name: "compression offered", with: []string{"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"}, status: 101, header: []string{"Sec-WebSocket-Extensions: "}},
	{name: "several extensions offered", with: []string{"Sec-WebSocket-Extensions: permessage-deflate, x-webkit-deflate-frame", "Sec-WebSocket-Extensions: foo"}, status: 101, header: []string{"Sec-WebSocket-Extensions: "}},
}

var methodAndVersionRows = []handshakeRow{
	{name: "POST", line: "POST TARGET HTTP/1.1", status: 405, reason: "method_not_allowed", header: []string{"Allow: GET"}},
	{name: "HEAD", line: "HEAD TARGET HTTP/1.1", status: 405, reason: "method_not_allowed"},
	{name: "OPTIONS", line: "OPTIONS TARGET HTTP/1.1", status: 405, reason: "method_not_allowed"},
	{name: "method in small letters", line: "get TARGET HTTP/1.1", status: 405, reason: "method_not_allowed"},
	{name: "HTTP/1.0", line: "GET TARGET HTTP/1.0", status: 426, reason: "not_an_upgrade", header: []string{"Upgrade: websocket"}},
	{name: "HTTP/1.2", line: "GET TARGET HTTP/1.2", status: 101},
	{name: "HTTP/2.0", line: "GET TARGET HTTP/2.0", status: 505},
	{name: "HTTP/0.9", line: "GET TARGET", status: 400},
	// Go hands the preface to handlers as a request of its own; the frames behind it end the connection.
	{name: "preface of HTTP/2", whole: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", status: 404},
	{name: "no Host", without: "Host", status: 400},
	{name: "two Hosts", with: []string{"Host: other.test"}, status: 400},
	{name: "TLS on a plain port", whole: "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n", status: 400},
	{name: "header over 16 KiB", with: []string{"X-Long: " + strings.Repeat("x", 32<<10)}, status: 431},
	{name: "request line over 16 KiB", line: "GET TARGET&x=" + strings.Repeat("x", 32<<10) + " HTTP/1.1", status: 431},
	{name: "version missing", without: "Sec-WebSocket-Version", status: 426, reason: "not_an_upgrade", header: []string{"Sec-WebSocket-Version: 13"}},
	{name: "version 12", without: "Sec-WebSocket-Version", with: []string{"Sec-WebSocket-Version: 12"}, status: 426, reason: "not_an_upgrade", header: []string{"Sec-WebSocket-Version: 13"}},
	{name: "version 14", without: "Sec-WebSocket-Version", with: []string{"Sec-WebSocket-Version: 14"}, status: 426, reason: "not_an_upgrade", header: []string{"Sec-WebSocket-Version: 13"}},
	{name: "version 013", without: "Sec-WebSocket-Version", with: []string{"Sec-WebSocket-Version: 013"}, status: 426, reason: "not_an_upgrade"},
	{name: "version 13 twice", with: []string{"Sec-WebSocket-Version: 13"}, status: 426, reason: "not_an_upgrade"},
	{name: "list of versions", without: "Sec-WebSocket-Version", with: []string{"Sec-WebSocket-Version: 13, 8"}, status: 426, reason: "not_an_upgrade"},
}

var keyRows = []handshakeRow{
	{name: "key missing", without: "Sec-WebSocket-Key", status: 400, reason: "not_an_upgrade"},
	{name: "key empty", without: "Sec-WebSocket-Key", with: []string{"Sec-WebSocket-Key: "}, status: 400, reason: "not_an_upgrade"},
	{name: "key of 15 bytes", without: "Sec-WebSocket-Key", with: []string{"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA"}, status: 400, reason: "not_an_upgrade"},
	{name: "key of 17 bytes", without: "Sec-WebSocket-Key", with: []string{"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA="}, status: 400, reason: "not_an_upgrade"},
	{name: "key without padding", without: "Sec-WebSocket-Key", with: []string{"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"}, status: 400, reason: "not_an_upgrade"},
	{name: "key that is not base64", without: "Sec-WebSocket-Key", with: []string{"Sec-WebSocket-Key: this-is-not-base64!!!!!!=="}, status: 400, reason: "not_an_upgrade"},
	{name: "key in the alphabet of URLs", without: "Sec-WebSocket-Key", with: []string{"Sec-WebSocket-Key: _-__--__--__--__--__-w=="}, status: 400, reason: "not_an_upgrade"},
	{name: "key twice", with: []string{"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, status: 400, reason: "not_an_upgrade"},
	{name: "two keys in one line", without: "Sec-WebSocket-Key", with: []string{"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ=="}, status: 400, reason: "not_an_upgrade"},
}

var upgradeHeaderRows = []handshakeRow{
	{name: "Upgrade missing", without: "Upgrade", status: 426, reason: "not_an_upgrade", header: []string{"Upgrade: websocket"}},
	{name: "Upgrade empty", without: "Upgrade", with: []string{"Upgrade: "}, status: 426, reason: "not_an_upgrade"},
	{name: "Upgrade to something else", without: "Upgrade", with: []string{"Upgrade: websocket2"}, status: 426, reason: "not_an_upgrade"},
	{name: "Upgrade to h2c", without: "Upgrade", with: []string{"Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"}, status: 426, reason: "not_an_upgrade", header: []string{"Upgrade: websocket"}},
	{name: "Upgrade to a list", without: "Upgrade", with: []string{"Upgrade: h2c, websocket"}, status: 400, reason: "not_an_upgrade"},
	{name: "Upgrade twice", with: []string{"Upgrade: h2c"}, status: 400, reason: "not_an_upgrade"},
	{name: "Connection missing", without: "Connection", status: 426, reason: "not_an_upgrade"},
	{name: "Connection close", without: "Connection", with: []string{"Connection: close"}, status: 426, reason: "not_an_upgrade"},
	{name: "Connection keep-alive", without: "Connection", with: []string{"Connection: keep-alive"}, status: 426, reason: "not_an_upgrade"},
	{name: "Connection of another word", without: "Connection", with: []string{"Connection: not-upgrade"}, status: 426, reason: "not_an_upgrade"},
	{name: "no header at all", whole: "GET /ws HTTP/1.1\r\nHost: letshare.test\r\n\r\n", status: 426, reason: "not_an_upgrade"},
}

// A body behind an upgrade is where two servers in a row may disagree about what is a frame.
var bodyRows = []handshakeRow{
	{name: "body of 5 bytes", with: []string{"Content-Length: 5"}, body: "hello", status: 400, reason: "not_an_upgrade"},
	{name: "chunked body", with: []string{"Transfer-Encoding: chunked"}, body: "5\r\nhello\r\n0\r\n\r\n", status: 400, reason: "not_an_upgrade"},
	{name: "empty chunked body", with: []string{"Transfer-Encoding: chunked"}, body: "0\r\n\r\n", status: 400, reason: "not_an_upgrade"},
	{name: "frame as a body", with: []string{"Content-Length: 11"}, body: ping("early"), status: 400, reason: "not_an_upgrade"},
	{name: "two lengths", with: []string{"Content-Length: 5", "Content-Length: 6"}, body: "hello!", status: 400},
	{name: "length that is no number", with: []string{"Content-Length: five"}, body: "hello", status: 400},
	{name: "unknown transfer encoding", with: []string{"Transfer-Encoding: gzip, chunked"}, body: "0\r\n\r\n", status: 501},
}

// TestNoByteBehindARefusalIsAnswered: what follows a refused upgrade is no second request.
func TestNoByteBehindARefusalIsAnswered(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	socket, err := net.Dial("tcp", server.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	request := "GET /ws HTTP/1.1\r\nHost: letshare.test\r\nContent-Length: 5\r\n\r\nhelloGET /health HTTP/1.1\r\nHost: letshare.test\r\n\r\n"
	if _, err := io.WriteString(socket, request); err != nil {
		t.Fatal(err)
	}
	socket.SetReadDeadline(time.Now().Add(endWithin))
	all, err := io.ReadAll(bufio.NewReader(socket))
	if errors.Is(err, os.ErrDeadlineExceeded) || bytes.Count(all, []byte("HTTP/1.1 ")) != 1 {
		t.Errorf("answered %q (%v), want one refusal and the end", all, err)
	}
}
