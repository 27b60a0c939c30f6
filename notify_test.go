package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// manager plays the service manager: it hears what the server tells.
type manager struct {
	t      *testing.T
	path   string
	socket *net.UnixConn
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{t: t, path: filepath.Join(t.TempDir(), "notify")}
	var err error
	if m.socket, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.socket.Close() })
	return m
}

// hear returns the next datagram.
func (m *manager) hear() string {
	m.t.Helper()
	m.socket.SetReadDeadline(time.Now().Add(patience))
	buffer := make([]byte, 1000)
	n, err := m.socket.Read(buffer)
	if err != nil {
		m.t.Fatalf("the manager hears nothing: %v", err)
	}
	return string(buffer[:n])
}

// want skips signs of life and wants this to be the next datagram.
func (m *manager) want(text string) {
	m.t.Helper()
	got := m.hear()
	for got == "WATCHDOG=1" {
		got = m.hear()
	}
	if got != text {
		m.t.Fatalf("the manager hears %q, want %q", got, text)
	}
}

// environmentOf makes a getenv of pairs.
func environmentOf(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

// A whole life, as a service manager hears it.
func TestTheServiceManagerIsTold(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	p := startServing(t, t.TempDir(), []string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=60000", "LETSHARE_LOG_FILE="})
	m.want("READY=1")
	for range 3 {
		if got := m.hear(); got != "WATCHDOG=1" {
			t.Fatalf("the manager hears %q, want a sign of life", got)
		}
	}
	before := monotonicMicros()
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	got := m.hear()
	for got == "WATCHDOG=1" {
		got = m.hear()
	}
	digits, reloading := strings.CutPrefix(got, "RELOADING=1\nMONOTONIC_USEC=")
	at, err := strconv.ParseInt(digits, 10, 64)
	if !reloading || err != nil || at < before || at > monotonicMicros() {
		t.Errorf("the manager hears %q, want a reload now, at %d", got, before)
	}
	m.want("READY=1")
	if exit, _ := p.stop(t, syscall.SIGTERM); exit != 0 {
		t.Errorf("exit %d: %s", exit, p.stderr)
	}
	m.want("STOPPING=1")
}

// A server in which something hangs must not look alive: the manager is to restart it.
func TestNoSignOfLifeWithoutLife(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	n := newNotifier(environmentOf("NOTIFY_SOCKET", m.path, "WATCHDOG_USEC", "20000", "WATCHDOG_PID", strconv.Itoa(os.Getpid())))
	ctx, cancel := context.WithCancel(context.Background())
	looks, done := 0, make(chan struct{})
	go func() {
		defer close(done)
		n.watch(ctx, func() bool {
			looks++
			n.say(fmt.Sprint("look ", looks))
			return looks > 2
		})
	}()
	for _, want := range []string{"look 1", "look 2", "look 3", "WATCHDOG=1"} {
		if got := m.hear(); got != want {
			t.Errorf("the manager hears %q, want %q", got, want)
		}
	}
	cancel()
	<-done
}

func TestNobodyIsToldWhoDoesNotAsk(t *testing.T) {
	t.Parallel()
	if n := newNotifier(environmentOf()); n != nil {
		t.Errorf("a notifier without NOTIFY_SOCKET: %+v", n)
	}
	var nobody *notifier
	nobody.ready()
	nobody.watch(context.Background(), nil)
	for _, env := range [][2]string{{"WATCHDOG_USEC", "no number"}, {"WATCHDOG_USEC", "-1"}, {"WATCHDOG_USEC", "999999999999999999"}, {"WATCHDOG_PID", "1"}} {
		pairs := append([]string{env[0], env[1]}, "NOTIFY_SOCKET", "/nowhere", "WATCHDOG_USEC", "1000000")
		n := newNotifier(environmentOf(pairs...))
		if n == nil || n.watchdog != 0 {
			t.Errorf("%s=%s: %+v, want no watchdog", env[0], env[1], n)
		}
		n.ready() // nobody is there: no reason to fail
	}
}

// inheriting lets a command find sockets as systemd hands them over.
func inheriting(t *testing.T, cmd *exec.Cmd, sockets int, file *os.File) *exec.Cmd {
	t.Helper()
	cmd = underShell(cmd, "export LISTEN_PID=$$ LISTEN_FDS="+strconv.Itoa(sockets))
	cmd.ExtraFiles = []*os.File{file}
	return cmd
}

// systemd keeps the socket open while the server restarts: who comes meanwhile waits, and is served by the next one.
func TestARestartRefusesNobody(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	start := func() *servingProcess {
		return startCommand(t, inheriting(t, letshareCommand(t, t.TempDir(), []string{"LETSHARE_LOG_FILE="}), 1, file))
	}
	first := start()
	s := processServer(first)
	if s.addr != listener.Addr().String() {
		t.Fatalf("the server listens on %s, the socket on %s", s.addr, listener.Addr())
	}
	ann := s.dial(t, "ann")
	if err := first.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for opcode := byte(0); opcode != opClose; { // which ann does not answer: the first server has to wait for her
		var err error
		if opcode, _, err = ann.read(); err != nil {
			t.Fatal(err)
		}
	}
	waiting, err := net.Dial("tcp", s.addr) // bob waits in the kernel's queue until the second server is there
	if err != nil {
		t.Fatal(err)
	}
	request := "GET /ws?token=" + s.token(t, Claims{UserID: "bob"}) + " HTTP/1.1\r\nHost: x\r\n" + strings.Join(usualHandshake[1:], "\r\n") + "\r\n\r\n"
	if _, err := io.WriteString(waiting, request); err != nil {
		t.Fatal(err)
	}
	ann.close()
	if exit := exitCode(t, first.cmd.Wait()); exit != 0 {
		t.Errorf("exit %d: %s", exit, first.stderr)
	}
	second := start()
	bob := shakeHands(t, s, "bob", waiting, nil)
	if bob.answer.StatusCode != 101 {
		t.Fatalf("bob is answered %s", bob.answer.Status)
	}
	bob.subscribe(t, "room", "")
	bob.leave(t)
	if exit, _ := second.stop(t, syscall.SIGTERM); exit != 0 {
		t.Errorf("exit %d: %s", exit, second.stderr)
	}
}

func TestWrongSocketsFromSystemdAreExplained(t *testing.T) {
	t.Parallel()
	plain, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	for sockets, want := range map[int]string{2: `hands over "2" sockets`, 1: "socket handed over by systemd"} {
		said, err := inheriting(t, letshareCommand(t, t.TempDir(), nil), sockets, plain).CombinedOutput()
		if exit := exitCode(t, err); exit != 1 || !strings.Contains(string(said), want) || strings.Count(string(said), "\n") != 1 {
			t.Errorf("%d sockets: exit %d, %q", sockets, exit, said)
		}
	}
	// What is meant for another process is left alone.
	if listener, err := inheritListener(environmentOf("LISTEN_PID", "1", "LISTEN_FDS", "1")); listener != nil || err != nil {
		t.Errorf("%v, %v", listener, err)
	}
}

func TestTheUnixSocketHasItsModeAndOwner(t *testing.T) {
	open := func(mode, owner string) (os.FileInfo, error) {
		cfg := DefaultConfig()
		onSocket(filepath.Join(t.TempDir(), "s"))(&cfg)
		cfg.Server.UnixSocketMode, cfg.Server.UnixSocketOwner = mode, owner
		if err := cfg.Validate(); err != nil {
			return nil, err
		}
		server, err := NewServer(&cfg, slog.New(slog.DiscardHandler), 0)
		if err != nil {
			return nil, err
		}
		defer server.listener.Close()
		return os.Stat(cfg.Server.UnixSocket)
	}
	for _, mode := range []string{"0600", "0660", "666"} {
		want, _ := strconv.ParseUint(mode, 8, 32)
		if info, err := open(mode, ""); err != nil || uint64(info.Mode().Perm()) != want {
			t.Errorf("mode %s: %v, %v", mode, info, err)
		}
	}
	me := fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())
	for _, owner := range []string{me, fmt.Sprint(os.Getuid()), fmt.Sprintf(":%d", os.Getgid())} {
		if _, err := open("0660", owner); err != nil {
			t.Errorf("owner %s: %v", owner, err)
		}
	}
	for _, test := range [][3]string{
		{"0680", "", "server.unix_socket_mode"}, {"1777", "", "up to 0777"}, {"", "", "octal"}, {"0o660", "", "octal"},
		{"0660", "nobody-of-that-name", `there is no user "nobody-of-that-name"`}, {"0660", ":nobody-of-that-name", `there is no group "nobody-of-that-name"`},
	} {
		if _, err := open(test[0], test[1]); err == nil || !strings.Contains(err.Error(), test[2]) {
			t.Errorf("mode %q, owner %q: %v, want %s", test[0], test[1], err, test[2])
		}
	}
}
