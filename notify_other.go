//go:build !linux

package main

// monotonicMicros is for systemd alone, which runs on Linux.
func monotonicMicros() int64 { return 0 }
