package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// clockTick is the unit of /proc/PID/stat: USER_HZ is 100 on every platform that Go runs on.
const clockTick = 10 * time.Millisecond

// cpuTimes returns the user and system time of a process, zeros when it cannot be told.
func cpuTimes(pid int) (user, system time.Duration) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0
	}
	// The name in parentheses may hold anything; the fields after it are fixed: the first is number 3.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0, 0
	}
	u, _ := strconv.ParseInt(fields[11], 10, 64)
	s, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(u) * clockTick, time.Duration(s) * clockTick
}

// selfCPU returns the user and system time of this process.
func selfCPU() time.Duration {
	var ru syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// memoryOf returns the resident and the proportional set size of a process in bytes, zeros when they cannot be told.
func memoryOf(pid int) (rss, pss int64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kib, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "Rss:":
			rss = kib << 10
		case "Pss:":
			pss = kib << 10
		}
	}
	return rss, pss
}

// cpuSet is the kernel's mask of up to 1024 cores.
type cpuSet [16]uint64

func setOf(cpus []int) (set cpuSet) {
	for _, c := range cpus {
		set[c/64] |= 1 << (c % 64)
	}
	return set
}

// allowedCPUs returns the cores that this thread may run on.
func allowedCPUs() (cpus []int) {
	var set cpuSet
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, unsafe.Sizeof(set), uintptr(unsafe.Pointer(&set)))
	if errno != 0 {
		return nil
	}
	for c := range len(set) * 64 {
		if set[c/64]&(1<<(c%64)) != 0 {
			cpus = append(cpus, c)
		}
	}
	return cpus
}

func pinThread(tid int, cpus []int) error {
	set := setOf(cpus)
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, uintptr(tid), unsafe.Sizeof(set), uintptr(unsafe.Pointer(&set)))
	if errno != 0 {
		return errno
	}
	return nil
}

// pinSelf keeps every thread of this process, also the future ones, on cpus.
func pinSelf(cpus []int) error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			return err
		}
		if err := pinThread(tid, cpus); err != nil && err != syscall.ESRCH {
			return err
		}
	}
	runtime.GOMAXPROCS(len(cpus))
	return nil
}

// startPinned starts cmd on cpus: a child inherits the cores of the thread that forks it.
func startPinned(cmd *exec.Cmd, cpus []int) error {
	if cpus == nil {
		return cmd.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := allowedCPUs()
	if err := pinThread(0, cpus); err != nil {
		return cmd.Start()
	}
	defer pinThread(0, before)
	return cmd.Start()
}

// withReadBuffer is a net.Dialer's Control: a receive buffer of n bytes, or the kernel's least, before the first window is told.
func withReadBuffer(n int) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) (err error) {
		if failed := c.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, n)
		}); failed != nil {
			return failed
		}
		return err
	}
}

// alarm sleeps precisely. The runtime's own timers are rounded to a millisecond by epoll, as long as what is measured;
// a timerfd is readable within some 60 µs of its time. One goroutine may use it.
type alarm struct {
	file *os.File
	fd   int
}

func newAlarm() (*alarm, error) {
	const nonBlocking, closeOnExec, monotonic = syscall.O_NONBLOCK, syscall.O_CLOEXEC, 1
	fd, _, errno := syscall.Syscall(syscall.SYS_TIMERFD_CREATE, monotonic, nonBlocking|closeOnExec, 0)
	if errno != 0 {
		return nil, errno
	}
	return &alarm{os.NewFile(fd, "timerfd"), int(fd)}, nil
}

// until sleeps until the client's clock shows at.
func (a *alarm) until(at int64) {
	left := at - now()
	if left <= 0 {
		return
	}
	timer := struct{ interval, value syscall.Timespec }{value: syscall.NsecToTimespec(left)}
	_, _, errno := syscall.Syscall6(syscall.SYS_TIMERFD_SETTIME, uintptr(a.fd), 0, uintptr(unsafe.Pointer(&timer)), 0, 0, 0)
	var expirations [8]byte
	if errno != 0 {
		time.Sleep(time.Duration(left))
	} else if _, err := a.file.Read(expirations[:]); err != nil {
		time.Sleep(time.Duration(at - now()))
	}
}

func (a *alarm) close() { a.file.Close() }
