//go:build unix

package main

import "syscall"

// errWouldBlock is what readDescriptor returns when there is nothing to read yet.
const errWouldBlock = syscall.EAGAIN

// readDescriptor reads from a non-blocking descriptor. 0 bytes without an error is the end of the stream.
func readDescriptor(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}
