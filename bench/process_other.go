//go:build !linux

package main

import (
	"os/exec"
	"syscall"
	"time"
)

// Away from Linux the bench measures throughput and latency, but neither CPU nor memory, and pins nothing.

func cpuTimes(int) (user, system time.Duration) { return 0, 0 }

func selfCPU() time.Duration { return 0 }

func memoryOf(int) (rss, pss int64) { return 0, 0 }

func allowedCPUs() []int { return nil }

func pinSelf([]int) error { return nil }

func startPinned(cmd *exec.Cmd, _ []int) error { return cmd.Start() }

// alarm sleeps as precisely as the runtime can.
type alarm struct{}

func newAlarm() (*alarm, error) { return &alarm{}, nil }

func (*alarm) until(at int64) { time.Sleep(time.Duration(at - now())) }

func (*alarm) close() {}

// withReadBuffer leaves the receive buffer as it is.
func withReadBuffer(int) func(network, address string, c syscall.RawConn) error { return nil }
