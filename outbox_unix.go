//go:build unix

package main

import (
	"net"
	"syscall"
)

// rawConn returns the raw descriptor of a plain TCP or unix socket, nil for anything else (TLS, a pipe).
func rawConn(socket net.Conn) syscall.RawConn {
	var raw syscall.RawConn
	var err error
	switch s := socket.(type) {
	case *net.TCPConn:
		raw, err = s.SyscallConn()
	case *net.UnixConn:
		raw, err = s.SyscallConn()
	}
	if err != nil {
		return nil
	}
	return raw
}

// inlineWriter writes to non-blocking sockets without waiting. It belongs to one goroutine at a time and
// is made once, so that a write allocates nothing.
type inlineWriter struct {
	buf  []byte                // room to join frames in
	call func(fd uintptr) bool // w.once, made once
	rest []byte                // what is to be written
	n    int                   // what has been written
	err  error
}

func newInlineWriter() *inlineWriter {
	w := &inlineWriter{buf: make([]byte, 0, maxInlineWrite)}
	w.call = w.once
	return w
}

// write writes what the socket takes at once. No error when it takes nothing.
func (w *inlineWriter) write(raw syscall.RawConn, chunk []byte) (int, error) {
	w.rest, w.n, w.err = chunk, 0, nil
	if err := raw.Write(w.call); err != nil {
		w.err = err
	}
	w.rest = nil
	return w.n, w.err
}

// once makes one system call. True in every case: RawConn must not wait for the socket.
func (w *inlineWriter) once(fd uintptr) bool {
	for {
		n, err := syscall.Write(int(fd), w.rest)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
		case err != nil:
			w.err = err
		default:
			w.n = n
		}
		return true
	}
}
