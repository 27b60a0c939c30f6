package main

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// The reference host's line: both directions share its rate, as on the smallest VPS there is.
const (
	lineBitsPerSecond = 3_000_000
	// lineBuffer bounds what the sockets at both ends hold, in bytes: a line has no megabytes of buffer.
	lineBuffer = 16 << 10
	// segmentBytes and headerBytes: every started segment of payload also pays for its TCP and IP headers.
	segmentBytes = 1448
	headerBytes  = 52
)

// line is a proxy that forwards bytes no faster than its rate. Each connection has at most one chunk waiting per
// direction, so the line is shared fairly, and a sender who is too fast feels it.
type line struct {
	to       string // immutable: the server's address
	listener net.Listener
	wg       sync.WaitGroup

	mu    sync.Mutex
	free  time.Time // when the line has sent all it has accepted
	conns map[net.Conn]struct{}
	done  bool

	busy atomic.Int64 // ns of line time sold so far
}

// startLine opens the proxy before the server at to.
func startLine(to string) (*line, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &line{to: to, listener: l, free: time.Now(), conns: map[net.Conn]struct{}{}}
	p.wg.Add(1)
	go p.accept()
	return p, nil
}

func (p *line) addr() string { return p.listener.Addr().String() }

func (p *line) accept() {
	defer p.wg.Done()
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.join(near) })
	}
}

// join forwards both directions of one connection until either ends.
func (p *line) join(near net.Conn) {
	far, err := net.Dial("tcp", p.to)
	if err != nil {
		near.Close()
		return
	}
	if !p.keep(near, far) {
		return
	}
	for _, c := range []net.Conn{near, far} {
		c.(*net.TCPConn).SetReadBuffer(lineBuffer)
		c.(*net.TCPConn).SetWriteBuffer(lineBuffer)
	}
	p.wg.Go(func() { p.copy(far, near) })
	p.copy(near, far)
}

// keep remembers the connections for close; false means that the line is closed already.
func (p *line) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.done {
			c.Close()
		} else {
			p.conns[c] = struct{}{}
		}
	}
	return !p.done
}

// copy forwards one direction. The end of one direction ends the other: WebSocket knows no half-closed connection.
func (p *line) copy(dst, src net.Conn) {
	defer p.forget(dst, src)
	buf := make([]byte, 2*segmentBytes)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			time.Sleep(p.reserve(n))
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// reserve takes the line for n bytes and returns how long it takes until they have arrived.
func (p *line) reserve(n int) time.Duration {
	bytes := n + (n+segmentBytes-1)/segmentBytes*headerBytes
	cost := time.Duration(bytes) * 8 * time.Second / lineBitsPerSecond
	p.busy.Add(int64(cost))
	p.mu.Lock()
	defer p.mu.Unlock()
	at := time.Now()
	if p.free.Before(at) {
		p.free = at
	}
	p.free = p.free.Add(cost)
	return p.free.Sub(at)
}

func (p *line) forget(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		c.Close()
		delete(p.conns, c)
	}
}

// close ends the proxy and all its connections, and waits for their goroutines.
func (p *line) close() {
	p.listener.Close()
	p.mu.Lock()
	p.done = true
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}
