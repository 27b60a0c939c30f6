//go:build unix

package main

import (
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// 256 open files are few. Newcomers are refused in time, with one line in the log; who is inside goes on; and when
// some have left, others get in.
func TestAbuse32_OutOfFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := startCommand(t, underShell(letshareCommand(t, dir, servingEnv()), "ulimit -n 256"))
	a := watch(t, processServer(p))
	query := url.Values{"token": {a.token(t, Claims{UserID: "many"})}}.Encode()
	var sockets []net.Conn
	defer func() { closeAll(sockets) }()
	try := func() (status int) {
		t.Helper()
		socket, _, answer, err := quickUpgrade(a.addr, query)
		if err != nil {
			t.Fatalf("client %d gets no answer at all: %v", len(sockets), err)
		}
		sockets = append(sockets, socket)
		return answer.StatusCode
	}
	const most = 256 - reservedFiles
	for i := range most - 4 {
		if status := try(); status != http.StatusSwitchingProtocols {
			t.Fatalf("client %d is answered %d", i, status)
		}
	}
	for range 100 {
		if status := try(); status != http.StatusServiceUnavailable {
			t.Fatalf("one too many is answered %d", status)
		}
	}
	for range 30 { // sockets that say nothing take the rest, and newcomers wait outside until they are cut or gone
		socket, err := net.Dial("tcp", a.addr)
		if err != nil {
			t.Fatal(err)
		}
		sockets = append(sockets, socket)
	}
	a.lull()
	closeAll(sockets)
	a.wantMetric(t, "websocket", "active_connections", 4)
	if status := try(); status != http.StatusSwitchingProtocols {
		t.Errorf("after all have left a newcomer is answered %d", status)
	}
	closeAll(sockets)
	a.calm()
	if exit, _ := p.stop(t, syscall.SIGTERM); exit != 0 {
		t.Errorf("exit %d", exit)
	}
	lines := readLogFile(t, filepath.Join(dir, "logs", "errors.log"))
	if len(lines) != 1 || !strings.Contains(lines[0], "too_many_connections") || !strings.Contains(lines[0], `"count":100`) {
		t.Errorf("the error log holds\n%s\nwant one line with the count 100", strings.Join(lines, "\n"))
	}
}
