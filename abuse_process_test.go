package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A panic of ours, in the read goroutine of one connection, ends that one with 1011. Its stack is in the log, and no secret.
func TestAbuse37_PanicInOneConnection(t *testing.T) {
	var armed atomic.Bool
	attackInBubble(t, nil, func(t *testing.T, s *pipeServer) {
		s.listener.wrap = func(socket net.Conn) net.Conn { return explosive{socket, &armed} }
		victims := []*pipeClient{s.connect("mallory"), s.connect("mallory")}
		for i, victim := range victims {
			victim.subscribe(nearRoom)
			began := s.since()
			armed.Store(true)
			victim.write([]byte{maskedFrame(finBit|opText, []byte(`{}`))[0]})
			victim.wantEnded(began, 0, closeLinger+time.Second, "close 1011 internal_error")
			s.wantCloses(fmt.Sprintf("internal_error %d", i+1))
		}
		for _, want := range []string{"panic in a connection", "injected by a test", "goroutine "} {
			if !strings.Contains(s.logged.String(), want) {
				t.Errorf("the log lacks %q", want)
			}
		}
		if strings.Contains(s.logged.String(), "token=") {
			t.Error("the log holds a token")
		}
	})
}

// The wall clock jumps by an hour, forth and back: tokens go by it, and nothing else does.
func TestAbuse38_ClockJumps(t *testing.T) {
	attackInBubble(t, nil, func(t *testing.T, s *pipeServer) {
		short, long := s.connectWith("short", 30*time.Minute, true, true), s.connect("long")
		short.subscribe(nearRoom)
		long.subscribe(nearRoom)
		jump := func(by time.Duration) {
			synctest.Wait() // nothing else sweeps now
			now := s.clock()
			s.conns.each(func(c *conn) { c.sweep(s.rules.Load().conn, now, time.Now().Add(by), func(o *Outbox) { s.flush(o) }) })
			synctest.Wait()
		}
		jump(-time.Hour)
		s.wantCloses()
		began := s.since()
		jump(time.Hour)
		short.wantEnded(began, 0, time.Second, "close 4001 token_expired")
		jump(0)
		s.wantCloses("token_expired 1")
		long.alive()
		long.socket.Close()
	})
}

// underShell makes a command run behind shell commands, which change what the process may do.
func underShell(cmd *exec.Cmd, before string) *exec.Cmd {
	cmd.Args = append([]string{"sh", "-c", before + ` && exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	return cmd
}

// servingEnv is the environment of startServing, for commands that are made otherwise.
func servingEnv(more ...string) []string {
	return append([]string{"LETSHARE_SERVER_HOST=127.0.0.1", "LETSHARE_SERVER_PORT=0"}, more...)
}

// A process with 64 MiB, in which frozen readers let the fan-out pile up: the largest holders go, the process stays.
func TestAbuse33_LittleMemory(t *testing.T) {
	t.Parallel()
	cmd := letshareCommand(t, t.TempDir(), servingEnv("GOMEMLIMIT=64MiB", "LETSHARE_WEBSOCKET_MAX_BUFFERED_BYTES=8388608", "LETSHARE_WEBSOCKET_BYTES_PER_SECOND=0",
		"LETSHARE_WEBSOCKET_MESSAGES_PER_SECOND=0", "LETSHARE_LOG_LEVEL=error"))
	if group := memoryGroup(t, raceFactor(64)); group != "" {
		cmd = underShell(cmd, "echo $$ > "+group+"/cgroup.procs")
	}
	p := startCommand(t, cmd)
	a := watch(t, processServer(p))
	var louds []*client
	for room := range 4 { // different frames: those of one room are shared
		louds = append(louds, a.dial("loud"))
		louds[room].subscribe(t, fmt.Sprint("loud ", room), "")
		for i := range 10 {
			c := a.dial(fmt.Sprint("frozen ", i))
			c.subscribe(t, fmt.Sprint("loud ", room), "")
			c.socket.(*net.TCPConn).SetReadBuffer(128)
		}
	}
	shed, big := 0.0, strings.Repeat("x", 60<<10)
	for n := 0; n < 400 && shed < 10; n++ {
		for room, loud := range louds {
			loud.raw(t, maskedFrame(finBit|opText, []byte(fmt.Sprintf(`{"type":"publish","channel":"loud %d","id":%d,"data":{"x":"%s"}}`, room, n, big))))
			loud.want(t, fmt.Sprintf(`{"type":"ack","id":%d}`, n))
		}
		if n%10 == 0 {
			shed = a.metric(t, "closes", "memory_pressure")
			if held := a.metric(t, "websocket", "buffered_bytes"); held > 9<<20 {
				t.Errorf("%v bytes are held", held)
			}
		}
	}
	if shed < 10 {
		t.Errorf("%v were cut for memory", shed)
	}
	if mb := residentMB(t, p.cmd.Process.Pid); mb >= raceFactor(64) {
		t.Errorf("the server took %d MB", mb)
	} else {
		t.Logf("%d MB at the most", mb)
	}
	a.calm()
	if exit, _ := p.stop(t, syscall.SIGTERM); exit != 0 {
		t.Errorf("exit %d", exit)
	}
}

// memoryGroup makes a control group whose processes the kernel kills beyond so many MB, where the system lets us; "" where not.
func memoryGroup(t *testing.T, mb int) string {
	t.Helper()
	group := fmt.Sprintf("/sys/fs/cgroup/memory/letshare-test-%d", os.Getpid())
	if os.Mkdir(group, 0o755) != nil {
		return ""
	}
	t.Cleanup(func() { os.Remove(group) })
	if err := os.WriteFile(group+"/memory.limit_in_bytes", []byte(fmt.Sprint(mb<<20)), 0); err != nil {
		return ""
	}
	return group
}

// The disk of the error log is full, then read-only: each is one warning, the service goes on, and what was logged meanwhile
// is written when the disk is back. What was damaged before the start is dropped, what was good is kept.
func TestAbuse34_DiskFullOrReadOnly(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	path := filepath.Join(disk, "errors.log")
	if os.Geteuid() == 0 && runtime.GOOS == "linux" {
		mustRun(t, "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk)
		t.Cleanup(func() { exec.Command("umount", disk).Run() })
	}
	write(t, path, `{"time":"2026-01-01T00:00:00Z","level":"WARN","msg":"good and old"}`+"\n"+`{"time":"2026-01-01T00:00:00Z","level":"WARN","msg":"torn`)
	printed := new(logBuffer) // not a file: the second kind of full disk would hold for it
	cmd := letshareCommand(t, t.TempDir(), servingEnv("LETSHARE_LOG_FILE="+path))
	cmd.Stderr = printed
	p := startCommand(t, cmd)
	a := watch(t, processServer(p))
	says := func(what string) int { return strings.Count(printed.String(), what) }
	logged := func() string { return strings.Join(readLogFile(t, path), "\n") }

	for i, trouble := range diskTroubles(t, disk, p.cmd.Process.Pid) {
		trouble.begin()
		a.wantRefused(t, http.StatusUnauthorized, trouble.reason, "", withQuery(trouble.query))
		waitForProcess(t, "the warning about the disk", func() bool { return says("check log.file") == i+1 })
		if strings.Contains(logged(), trouble.reason) {
			t.Errorf("%s is on the disk that takes nothing", trouble.reason)
		}
		a.lull()
		trouble.end()
		waitForProcess(t, "the log to return to the disk", func() bool { return strings.Contains(logged(), trouble.reason) })
		waitForProcess(t, "the word that the disk is back", func() bool { return says("is written again") == i+1 })
	}
	if text := logged(); !strings.Contains(text, "good and old") || strings.Contains(text, "torn") {
		t.Errorf("of the log before the start there is\n%s", text)
	}
	a.calm()
	if exit, _ := p.stop(t, syscall.SIGTERM); exit != 0 {
		t.Errorf("exit %d", exit)
	}
}

// diskTrouble is a fault of a disk that begins and ends, and a refusal to be logged meanwhile.
type diskTrouble struct {
	begin, end    func()
	query, reason string
}

// diskTroubles are the ways in which a disk can be full and read-only here. Root on Linux has a disk of its own mounted for it. For
// others files of the server's process may have no byte more, and the folder is not theirs to write to.
func diskTroubles(t *testing.T, disk string, pid int) []diskTrouble {
	filler := filepath.Join(disk, "filler")
	full := diskTrouble{
		func() { os.WriteFile(filler, make([]byte, 1<<20), 0o600) }, func() { os.Remove(filler) }, "", "token_missing"}
	readOnly := diskTrouble{
		func() { mustRun(t, "mount", "-o", "remount,ro", disk) }, func() { mustRun(t, "mount", "-o", "remount,rw", disk) }, "token=x", "token_malformed"}
	if os.Geteuid() == 0 && runtime.GOOS == "linux" {
		return []diskTrouble{full, readOnly}
	}
	readOnly.begin, readOnly.end = func() { os.Chmod(disk, 0o500) }, func() { os.Chmod(disk, 0o700) }
	if runtime.GOOS != "linux" { // has no means to limit another process
		return []diskTrouble{readOnly}
	}
	limit := func(bytes string) { mustRun(t, "prlimit", "--pid", fmt.Sprint(pid), "--fsize="+bytes) }
	full.begin, full.end = func() { limit("1:") }, func() { limit("unlimited:") }
	return []diskTrouble{full, readOnly}
}

// mustRun runs a command that must succeed.
func mustRun(t *testing.T, command string, args ...string) {
	t.Helper()
	if text, err := exec.Command(command, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v %s", command, args, err, text)
	}
}

// What is wrong with a configuration is said at start, with the file, the key and the fix, and nothing is served, least of all
// over plain HTTP. `letshare check` says the same.
func TestAbuse40_WrongConfigurations(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	socket := filepath.Join(t.TempDir(), "s")
	busy, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for name, row := range map[string]struct {
		config string
		want   []string // in the line on standard error
		late   bool     // found out only by listening: check cannot know
	}{
		"unknown key":         {`{"server":{"prot":"8080"}}`, []string{"config.json:1", "server.prot"}, false},
		"wrong type":          {"{\n\"server\":{\"port\":true}}", []string{"config.json:2", "server.port"}, false},
		"negative limit":      {`{"websocket":{"max_room_users":-1}}`, []string{"config.json:1", "websocket.max_room_users", "-1"}, false},
		"no message at all":   {`{"websocket":{"max_message_bytes":0}}`, []string{"config.json:1", "websocket.max_message_bytes"}, false},
		"key twice":           {`{"mode":"local","mode":"local"}`, []string{"config.json:1", "mode"}, false},
		"no secret":           {`{"mode":"production"}`, []string{"jwt.secret", "LETSHARE_JWT_SECRET"}, false},
		"a published secret":  {`{"mode":"production","jwt":{"secret":"letshare-jwt-secret-key-2024-production"}}`, []string{"config.json:1", "jwt.secret", "letshare token secret"}, false},
		"a short secret":      {`{"mode":"production","jwt":{"secret":"0123456789"}}`, []string{"config.json:1", "jwt.secret", "32"}, false},
		"an origin too many":  {`{"cors":{"allowed_origins":["*evil.test"]}}`, []string{"config.json:1", "cors.allowed_origins", "*evil.test"}, false},
		"half of TLS":         {`{"server":{"tls_cert":"cert.pem"}}`, []string{"config.json:1", "server.tls_key"}, false},
		"no TLS files":        {`{"server":{"tls_cert":"no-cert.pem","tls_key":"no-key.pem"}}`, []string{"config.json", "server.tls_cert", "no-cert.pem"}, false},
		"cut":                 {`{"server":{`, []string{"config.json:1"}, false},
		"port in use":         {`{"server":{"host":"127.0.0.1","port":"` + port + `"}}`, []string{"config.json", "server.port", port, "another"}, true},
		"socket path in use":  {`{"server":{"unix_socket":"` + socket + `"}}`, []string{"config.json", "server.unix_socket", socket, "another"}, true},
		"an address not here": {`{"server":{"host":"192.0.2.1"}}`, []string{"config.json", "server.host", "192.0.2.1"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "config.json"), row.config)
			said := func(args ...string) string {
				t.Helper()
				cmd := letshareCommand(t, dir, nil, args...)
				var stdout, stderr bytes.Buffer
				cmd.Stdout, cmd.Stderr = &stdout, &stderr
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				serving := time.AfterFunc(patience, func() { cmd.Process.Kill() }) // a server that accepts such a configuration would go on
				defer serving.Stop()
				if exit := exitCode(t, cmd.Wait()); exit != 1 {
					t.Errorf("letshare %q: exit %d, want 1", args, exit)
				}
				if stdout.Len() > 0 || strings.Count(stderr.String(), "\n") != 1 {
					t.Errorf("letshare %q prints %q and %q, want one line on standard error", args, &stdout, &stderr)
				}
				return stderr.String()
			}
			line := said("-config", "config.json")
			for _, want := range row.want {
				if !strings.Contains(line, want) {
					t.Errorf("the line lacks %q: %s", want, line)
				}
			}
			if !row.late {
				if other := said("check", "-config", "config.json"); other != line {
					t.Errorf("check says %s, the start %s", other, line)
				}
			}
		})
	}
}
