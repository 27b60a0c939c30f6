package main

import (
	"bufio"
	"net"
	"net/http"

	"github.com/coder/websocket"
)

// The WebSocket library reads the frames that readWhole leaves to it: large ones, binary ones, fragments, pings and whatever is
// against the rules. Most connections never send one, and its memory would be a quarter of theirs: it joins at the first such
// frame. The client's handshake has long been answered then; what the library wants to see of one is libraryHandshake.

// libraryHandshake is a handshake in order. Shared and never changed. The key is RFC 6455's example: its answer goes nowhere.
var libraryHandshake = &http.Request{
	Method: http.MethodGet, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	Header: http.Header{
		"Connection":            {"Upgrade"},
		"Upgrade":               {"websocket"},
		"Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key":     {"dGhlIHNhbXBsZSBub25jZQ=="},
	},
}

// libraryAnswer takes down the library's answer to libraryHandshake, and hands it the wire as its connection.
type libraryAnswer struct {
	wire   *wire
	header http.Header
}

func (a *libraryAnswer) Header() http.Header         { return a.header }
func (a *libraryAnswer) WriteHeader(int)             {}
func (a *libraryAnswer) Write(p []byte) (int, error) { return len(p), nil }

// Hijack hands over the wire.
func (a *libraryAnswer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w := a.wire
	w.reader = bufio.NewReaderSize(w, libraryBufferBytes)
	return w, bufio.NewReadWriter(w.reader, bufio.NewWriterSize(w, libraryBufferBytes)), nil
}

// openLibrary lets the library read from the wire from now on. False: it does not, and the connection has ended. Read goroutine.
func (c *conn) openLibrary() bool {
	library, err := websocket.Accept(&libraryAnswer{&c.wire, make(http.Header)}, libraryHandshake, &websocket.AcceptOptions{
		// Payloads are small or incompressible, and a window per connection would cost more than everything else.
		CompressionMode: websocket.CompressionDisabled,
		OnPingReceived:  c.onPing,
	})
	if err != nil {
		c.server.log.Error("the WebSocket library does not read", "error", err.Error())
		c.outbox.end(InternalError)
		return false
	}
	library.SetReadLimit(int64(c.limits.maxMessage))
	c.library = library
	return true
}
