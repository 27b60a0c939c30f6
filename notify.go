package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// What a service manager and the server say to each other, by systemd's protocols sd_notify(3) and sd_listen_fds(3).
// Without their variables in the environment nothing of this happens.

// firstInherited is the descriptor of the first socket that systemd hands over (SD_LISTEN_FDS_START).
const firstInherited = 3

// notifier tells the service manager how the server is. Immutable; any goroutine may call its methods; nil tells nobody.
type notifier struct {
	socket   *net.UnixAddr
	watchdog time.Duration // how long the manager waits for a sign of life, 0: it does not
}

// newNotifier reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID; nil when nobody wants to be told.
func newNotifier(getenv func(string) string) *notifier {
	path := getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	n := &notifier{socket: &net.UnixAddr{Name: path, Net: "unixgram"}} // an @ in front is an abstract name, for Go too
	micros, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	pid := getenv("WATCHDOG_PID")
	if err == nil && micros > 0 && micros <= maxConfigSeconds*1e6 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.watchdog = time.Duration(micros) * time.Microsecond
	}
	return n
}

// say sends one datagram. A manager that does not listen is no reason to do anything else than go on.
func (n *notifier) say(text string) {
	if n == nil {
		return
	}
	socket, err := net.DialUnix("unixgram", nil, n.socket)
	if err != nil {
		return
	}
	defer socket.Close()
	socket.SetWriteDeadline(time.Now().Add(notifyTimeout))
	socket.Write([]byte(text))
}

func (n *notifier) ready()    { n.say("READY=1") }
func (n *notifier) stopping() { n.say("STOPPING=1") }

// reloading begins a reload; ready ends it, whatever came of it.
func (n *notifier) reloading() {
	n.say(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", monotonicMicros()))
}

// watch shows signs of life, twice in the time that the manager waits, until ctx ends. alive returns when the parts of the
// server that everything goes through have answered: while one of them does not, there is no sign.
func (n *notifier) watch(ctx context.Context, alive func() bool) {
	if n == nil || n.watchdog == 0 {
		return
	}
	ticker := time.NewTicker(n.watchdog / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if alive() {
				n.say("WATCHDOG=1")
			}
		}
	}
}

// inheritListener takes the socket that systemd listens on for the server, nil when there is none. It stays open in systemd while
// the server restarts, so that nobody is refused meanwhile.
func inheritListener(getenv func(string) string) (net.Listener, error) {
	if getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil // none, or meant for another process
	}
	if n := getenv("LISTEN_FDS"); n != "1" {
		return nil, fmt.Errorf("systemd hands over %q sockets; the socket unit must have exactly one ListenStream", n)
	}
	file := os.NewFile(firstInherited, "systemd socket")
	defer file.Close() // FileListener has a descriptor of its own
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("the socket handed over by systemd: %w; the socket unit must have one ListenStream and Accept=no", err)
	}
	switch listener.(type) {
	case *net.TCPListener, *net.UnixListener:
		return listener, nil
	}
	listener.Close()
	return nil, errors.New("the socket handed over by systemd is neither TCP nor Unix; the socket unit must have one ListenStream")
}
