//go:build unix

// Package giveway lets a goroutine that has much to do give way to all whom the network has brought something.
//
// Go looks at the network when a processor has nothing else to run, else every 10 ms. A goroutine whose socket never runs
// dry, as that of somebody who sends a file over a fast line, would keep everybody else waiting that long.
package giveway

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

// Pipe is how to give way: by waiting for a byte in a pipe that is written at the same moment. The scheduler finds the byte
// by looking at the network, and with it all else that has come. When nothing has, the wait is over at once.
type Pipe struct {
	from, to *os.File
	raw      syscall.RawConn       // of from
	once     func(fd uintptr) bool // p.step, made once

	mu      sync.Mutex
	waiting bool          // somebody waits for the byte
	seen    chan struct{} // closed by that one, when it comes; nil while nobody else waits for it

	// That one's.
	written bool
	byte    [1]byte
}

// New opens the pipe; Close closes it. It fails when there are no descriptors left.
func New() (*Pipe, error) {
	from, to, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("a pipe to give way by: %w", err)
	}
	p := &Pipe{from: from, to: to}
	p.once = p.step
	if p.raw, err = from.SyscallConn(); err != nil {
		p.Close()
		return nil, fmt.Errorf("a pipe to give way by: %w", err)
	}
	return p, nil
}

// GiveWay lets all run whose bytes are there. Any goroutine: those who come while one waits go on with that one, so that one look
// at the network serves all.
func (p *Pipe) GiveWay() {
	p.mu.Lock()
	if p.waiting {
		if p.seen == nil {
			p.seen = make(chan struct{})
		}
		seen := p.seen
		p.mu.Unlock()
		<-seen
		return
	}
	p.waiting = true
	p.mu.Unlock()

	p.raw.Read(p.once)

	p.mu.Lock()
	seen := p.seen
	p.waiting, p.seen = false, nil
	p.mu.Unlock()
	if seen != nil {
		close(seen)
	}
}

// step writes the byte and, once that has been seen, reads it. It runs inside RawConn.Read, which waits when it returns false.
func (p *Pipe) step(fd uintptr) bool {
	if p.written {
		p.written = false
		syscall.Read(int(fd), p.byte[:])
		return true
	}
	n, _ := p.to.Write(p.byte[:])
	p.written = n == 1
	return !p.written // nothing to wait for: the pipe is closed
}

// Close gives the descriptors back. Whoever gives way afterwards goes on at once.
func (p *Pipe) Close() {
	p.from.Close()
	p.to.Close()
}
