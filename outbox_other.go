//go:build !unix

package main

import (
	"net"
	"syscall"
)

// rawConn returns nil: without non-blocking descriptors the writer goroutine does all the writing.
func rawConn(net.Conn) syscall.RawConn { return nil }

// inlineWriter is never asked to write here: there is no raw descriptor.
type inlineWriter struct{ buf []byte }

func newInlineWriter() *inlineWriter { return &inlineWriter{} }

func (w *inlineWriter) write(syscall.RawConn, []byte) (int, error) { return 0, syscall.EINVAL }
