package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// holdConnections is a process of its own: it connects n clients to a server, lets each into a room, says "ready", and waits
// to be killed. Its arguments are the address, the query of the URL and n.
func holdConnections(args []string) {
	var n int
	fmt.Sscan(args[2], &n)
	sockets := make([]net.Conn, n) // referenced until the end, or they would be closed
	for i := range sockets {
		socket, reader, _, err := quickUpgrade(args[0], args[1]+fmt.Sprint("&userId=held", i))
		if err == nil {
			_, err = socket.Write(frames(1, fmt.Sprintf(`{"type":"subscribe","channel":"%s"}`, heldRoom(i))))
		}
		if err == nil {
			_, _, err = readServerFrame(reader)
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		sockets[i] = socket
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	fmt.Println(len(sockets))
	os.Exit(0)
}

// heldRoom spreads the held clients over the bystanders' room and others.
func heldRoom(i int) string {
	if i < 40 {
		return nearRoom
	}
	return fmt.Sprint("held ", i%25)
}

// A process with 1000 clients is killed. All have left their rooms, once, and nothing is left of them.
func TestAbuse30_KillThousandClients(t *testing.T) {
	t.Parallel()
	a := underAttack(t)
	const n = 1000
	query := url.Values{"token": {a.token(t, Claims{UserID: "held"})}}.Encode()
	holder := exec.Command(testBinary(t), a.addr, query, fmt.Sprint(n))
	holder.Env = []string{roleEnv + "=clients"}
	stdin, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := holder.StdoutPipe()
	if err == nil {
		err = holder.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(stdout).ReadString('\n')
	if line != "ready\n" {
		t.Errorf("the clients say %q", line)
	}
	a.wantMetric(t, "websocket", "active_connections", n+4)
	a.wantMetric(t, "websocket", "total_rooms", 25+2)
	a.wantConsistent()
	holder.Process.Kill()
	holder.Wait()
	a.wantMetric(t, "websocket", "active_connections", 4)
	a.wantMetric(t, "websocket", "total_rooms", 2)
	a.wantMetric(t, "closes", "connection_lost", n)
	c := a.dial("watcher")
	c.send(t, `{"type":"subscribe","channel":"room"}`)
	c.want(t, `{"type":"subscribed","data":{"members":3}}`)
	a.calm()
}

// 5,000 connect at once, and all are served. The server is a process of its own, for its goroutines and open files.
func TestAbuse31_ConnectStorm(t *testing.T) {
	t.Parallel()
	const storm = 5000
	p := startServing(t, t.TempDir(), []string{"LETSHARE_LOG_LEVEL=error"})
	a := watch(t, processServer(p))
	sockets := a.crowd(storm, func(i int) []byte { return frames(1, fmt.Sprintf(`{"type":"subscribe","channel":"storm %d"}`, i%200)) })
	a.wantMetric(t, "websocket", "active_connections", storm+4)
	a.wantMetric(t, "websocket", "total_rooms", 200+2)
	a.wantConsistent()
	closeAll(sockets)
	a.wantMetric(t, "websocket", "active_connections", 4)
	a.calm()
	if exit, _ := p.stop(t, syscall.SIGTERM); exit != 0 {
		t.Errorf("exit %d", exit)
	}
}

// Over the limit of an address, with every address of a /64 being one, clients are told when to come again; others get in.
func TestAbuse31_OneAddressTooOften(t *testing.T) {
	t.Parallel()
	const most = 5
	var sockets []net.Conn
	a := underAttack(t, func(cfg *Config) {
		cfg.WebSocket.MaxConnectionsPerAddress = most
		cfg.Server.TrustedProxies = []string{"127.0.0.1"}
	})
	query := url.Values{"token": {a.token(t, Claims{UserID: "mallory"})}}.Encode()
	connect := func(address string) (status int) {
		t.Helper()
		socket, _, answer, err := quickUpgrade(a.addr, query, "X-Forwarded-For: "+address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { socket.Close() })
		sockets = append(sockets, socket)
		if answer.StatusCode == http.StatusServiceUnavailable && answer.Header.Get("Retry-After") == "" {
			t.Error("503 without Retry-After")
		}
		return answer.StatusCode
	}
	admitted := 0
	for address, i := netip.MustParseAddr("2001:db8::1"), 0; i < 200; address, i = address.Next(), i+1 {
		if connect(address.String()) == http.StatusSwitchingProtocols {
			admitted++
		}
	}
	if admitted != most {
		t.Errorf("%d connections from one /64, want %d", admitted, most)
	}
	if status := connect("2001:db8:0:1::1"); status != http.StatusSwitchingProtocols {
		t.Errorf("another /64 is answered %d", status)
	}
	a.wantMetric(t, "refusals", "too_many_connections_from_address", 200-most)
	a.server.conns.mu.Lock()
	if n := len(a.server.conns.addresses); n != 3 { // the bystanders' own and two /64
		t.Errorf("the table has %d addresses, want 3", n)
	}
	a.server.conns.mu.Unlock()
	closeAll(sockets)
	a.calm()
}

// SIGTERM with a crowd connected: all are told, also those who never answer, and the program ends by itself. A second
// signal ends it at once.
func TestAbuse36_StopWithACrowd(t *testing.T) {
	t.Parallel()
	const crowd = 2000
	for _, signals := range []int{1, 2} {
		p := startServing(t, t.TempDir(), []string{"LETSHARE_LOG_LEVEL=error", "LETSHARE_SERVER_DRAIN_SECONDS=1"})
		a := &abused{testServer: processServer(p), t: t}
		sockets := a.crowd(crowd, func(int) []byte { return frames(1, `{"type":"subscribe","channel":"crowded"}`) })
		mute := a.dial("mute") // reads nothing and answers nothing
		began := time.Now()
		p.cmd.Process.Signal(syscall.SIGTERM)
		waitForProcess(t, "/health to say that the server drains", func() bool {
			status, _ := a.get(t, "/health")
			return status == http.StatusServiceUnavailable
		})
		a.wantRefused(t, http.StatusServiceUnavailable, "draining", "late")
		if signals == 2 {
			if exit, _ := p.stop(t, syscall.SIGTERM); exit != 1 {
				t.Errorf("exit %d after the second signal, want 1", exit)
			}
		} else {
			told := 0
			for _, socket := range sockets {
				if lastFrameIs(socket, closeFrame(1001, "going_away")) {
					told++
				}
			}
			if told != len(sockets) {
				t.Errorf("%d of %d were told", told, len(sockets))
			}
			if exit := exitCode(t, p.cmd.Wait()); exit != 0 {
				t.Errorf("exit %d; standard error:\n%s", exit, p.stderr)
			}
			t.Logf("ended after %v", time.Since(began).Round(time.Millisecond))
		}
		mute.close()
		closeAll(sockets)
	}
}

// lastFrameIs reads to the end of the stream, answering nothing, and compares the last close frame.
func lastFrameIs(socket net.Conn, want []byte) bool {
	socket.SetDeadline(time.Now().Add(patience))
	for {
		opcode, payload, err := readServerFrame(socket)
		if err != nil {
			return false
		}
		if opcode == opClose {
			socket.Write(maskedFrame(finBit|opClose, payload))
			return string(payload) == string(want[2:])
		}
	}
}
