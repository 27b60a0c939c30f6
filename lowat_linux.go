package main

import "syscall"

// tcpNotSentLowat is TCP_NOTSENT_LOWAT (tcp(7)), which package syscall does not name.
const tcpNotSentLowat = 25

// limitUnsent keeps the kernel from hiding a long queue of file frames, behind which signalling would wait. It is a
// wish: on sockets that do not know it nothing changes.
func limitUnsent(raw syscall.RawConn) {
	if raw == nil {
		return
	}
	raw.Control(func(fd uintptr) {
		syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowat, maxUnsentBytes)
	})
}
