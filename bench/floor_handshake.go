package main

import (
	"bytes"
	"net"
)

// floorHandshake is the floor of connecting: it answers the upgrade, says "subscribed" to every message, and answers the close
// frame. It checks nothing, knows nobody and has no HTTP: what it costs is the kernel's work for a connection,
// and a goroutine.
const floorHandshake = "handshake"

// handshakeFloor serves until the listener fails.
func handshakeFloor(l net.Listener) error { return serveEach(l, greet) }

// greet is one connection's life. What our own client sends comes whole: a part of a frame ends the connection.
func greet(conn net.Conn) {
	defer conn.Close()
	var buf [1 << 10]byte
	n, err := conn.Read(buf[:])
	if err != nil {
		return
	}
	_, rest, _ := bytes.Cut(buf[:n], []byte("\r\nSec-WebSocket-Key: "))
	nonce, _, ok := bytes.Cut(rest, []byte("\r\n"))
	if !ok {
		return
	}
	answer := append(make([]byte, 0, 256), "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	conn.Write(append(append(answer, acceptKey(string(nonce))...), "\r\n\r\n"...))
	for {
		n, err := conn.Read(buf[:])
		if err != nil {
			return
		}
		for frame := buf[:n]; len(frame) > 0; {
			if len(frame) < 6 || frame[1]&0x7f > 125 || len(frame) < 6+int(frame[1]&0x7f) {
				return
			}
			if frame[0]&0x0f == opClose {
				conn.Write([]byte{0x80 | opClose, 2, 1000 >> 8, 1000 & 0xff})
				return
			}
			conn.Write(append([]byte{0x80 | opText, 10}, "subscribed"...))
			frame = frame[6+int(frame[1]&0x7f):]
		}
	}
}
