//go:build !linux

package main

import "syscall"

// limitUnsent does nothing where the kernel has no TCP_NOTSENT_LOWAT.
func limitUnsent(syscall.RawConn) {}
