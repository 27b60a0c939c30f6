package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// keysOf lists the keys of a JSON object, those of objects in it behind a dot; objects keyed by reason are not opened.
func keysOf(t *testing.T, text string) []string {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	var keys []string
	var walk func(path string, value any)
	walk = func(path string, value any) {
		inside, isObject := value.(map[string]any)
		if !isObject || slices.Contains([]string{"drops", "refusals", "closes"}, path) {
			keys = append(keys, path)
			return
		}
		for key, value := range inside {
			walk(strings.TrimPrefix(path+"."+key, "."), value)
		}
	}
	walk("", object)
	slices.Sort(keys)
	return keys
}

func bodyOf(t *testing.T, answer *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestHealthSaysWhatTheOriginalSaid(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *pipeServer) {
		time.Sleep(90 * time.Second)
		answer := s.request("GET", "/health")
		body := bodyOf(t, answer)
		want := strings.Fields("goroutines memory.alloc_mb memory.num_gc memory.sys_mb memory.total_alloc_mb status timestamp uptime")
		if got := keysOf(t, body); !slices.Equal(got, want) {
			t.Errorf("keys %q, want %q", got, want)
		}
		if difference := subsetOf(t, `{"status":"healthy","uptime":"1m30s","timestamp":"2026-01-01T00:01:30Z"}`, body); difference != "" || answer.StatusCode != 200 {
			t.Errorf("%s: %s", answer.Status, difference)
		}
		if answer := s.request("HEAD", "/health"); answer.StatusCode != 200 || bodyOf(t, answer) != "" {
			t.Errorf("HEAD: %s", answer.Status)
		}
		if answer := s.request("POST", "/health"); answer.StatusCode != 405 || answer.Header.Get("Allow") != "GET, HEAD, OPTIONS" {
			t.Errorf("POST: %s, Allow %q", answer.Status, answer.Header.Get("Allow"))
		}
		if answer := s.request("GET", "/healthz"); answer.StatusCode != 404 {
			t.Errorf("another path: %s", answer.Status)
		}
	})
}

func TestMetricsHaveTheOriginalsKeysAndCount(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *pipeServer) {
		ann, bob := s.connect("ann"), s.connect("bob")
		ann.subscribe("room")
		bob.subscribe("room")
		for range 10 {
			ann.send(`{"type":"publish","channel":"room","data":{}}`)
		}
		ann.send(`{"type":"publish","channel":"elsewhere","data":{}}`)
		bob.write(maskedFrame(finBit|opBinary, []byte("??")))
		s.connect("cid").write(maskedFrame(finBit|opClose, nil))
		time.Sleep(time.Second)
		body := bodyOf(t, s.request("GET", "/metrics"))
		// Those of the original, which its users' dashboards read.
		want := strings.Fields(`closes drops refusals server.timestamp server.uptime server.uptime_seconds
			system.cpu_count system.go_version system.goroutines system.memory.alloc_mb system.memory.heap_alloc_mb
			system.memory.heap_sys_mb system.memory.num_gc system.memory.sys_mb system.memory.total_alloc_mb
			websocket.active_connections websocket.buffered_bytes websocket.bytes_in websocket.bytes_out websocket.deliveries
			websocket.messages_per_second websocket.total_connections websocket.total_messages websocket.total_rooms`)
		got := keysOf(t, body)
		for _, key := range want {
			if !slices.Contains(got, key) {
				t.Errorf("no %s among %q", key, got)
			}
		}
		if difference := subsetOf(t, `{"websocket":{"active_connections":2,"total_connections":3,"total_messages":10,"total_rooms":1,"deliveries":10,
			"buffered_bytes":0},"closes":{"peer_closed":1},"refusals":{"not_subscribed":1},"drops":{"binary_ignored":1}}`, body); difference != "" {
			t.Errorf("%s in %s", difference, body)
		}
	})
}

// prometheusSeries parses the text format line by line, as a scraper would, and returns the series' values.
func prometheusSeries(t *testing.T, text string) map[string]float64 {
	t.Helper()
	comment := regexp.MustCompile(`^# (HELP|TYPE) (letshare_[a-z0-9_]+) (.+)$`)
	sample := regexp.MustCompile(`^((letshare_[a-z0-9_]+)(?:\{reason="[a-z0-9_]+"\})?) (\S+)$`)
	series, kinds := make(map[string]float64), make(map[string]string)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if m := comment.FindStringSubmatch(line); m != nil {
			if m[1] == "TYPE" && kinds[m[2]] != "" {
				t.Errorf("two types of %s", m[2])
			}
			if m[1] == "TYPE" {
				kinds[m[2]] = m[3]
			}
			continue
		}
		m := sample.FindStringSubmatch(line)
		if m == nil {
			t.Errorf("not a line of the format: %q", line)
			continue
		}
		value, err := strconv.ParseFloat(m[3], 64)
		if _, twice := series[m[1]]; twice || err != nil {
			t.Errorf("%s: twice %t, %v", m[1], twice, err)
		}
		switch kind := kinds[m[2]]; {
		case kind != "counter" && kind != "gauge":
			t.Errorf("%s stands before its type, or has the type %q", m[1], kind)
		case (kind == "counter") != strings.HasSuffix(m[2], "_total"):
			t.Errorf("%s is a %s", m[2], kind)
		}
		series[m[1]] = value
	}
	return series
}

func TestPrometheusGetsTheSameFigures(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *pipeServer) {
		ann := s.connect("ann")
		ann.send(`{"type":"publish","channel":"room","data":{}}`)
		for _, c := range []struct{ path, accept string }{
			{"/metrics?format=prometheus", ""},
			{"/metrics", "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"},
		} {
			answer := s.request("GET", c.path, "Accept: "+c.accept)
			series := prometheusSeries(t, bodyOf(t, answer))
			for name, want := range map[string]float64{"letshare_connections": 1, "letshare_connections_total": 1, "letshare_rooms": 0,
				`letshare_refusals_total{reason="not_subscribed"}`: 1, `letshare_closes_total{reason="idle_timeout"}`: 0} {
				if got, ok := series[name]; !ok || got != want {
					t.Errorf("%s is %v (%t), want %v", name, got, ok, want)
				}
			}
			if kind := answer.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/plain; version=0.0.4") {
				t.Errorf("type %q", kind)
			}
		}
		if kind := s.request("GET", "/metrics?format=json", "Accept: text/plain").Header.Get("Content-Type"); kind != "application/json" {
			t.Errorf("?format=json is answered with %q", kind)
		}
	})
}

func TestMetricsWantTheirToken(t *testing.T) {
	const token = "a token for the operator's eyes alone"
	inBubble(t, func(c *Config) { c.Metrics.Token = token }, func(t *testing.T, s *pipeServer) {
		for header, want := range map[string]int{
			"X-Nothing: here":                      401,
			"Authorization: Bearer":                401,
			"Authorization: Bearer " + token + "x": 401,
			"Authorization: Basic " + token:        401,
			"Authorization: Bearer " + token:       200,
			"Authorization: bearer " + token:       200,
		} {
			answer := s.request("GET", "/metrics", header)
			if answer.StatusCode != want {
				t.Errorf("%s: %s, want %d", header, answer.Status, want)
			}
			if body := bodyOf(t, answer); want == 401 && (strings.Contains(body, "uptime") || answer.Header.Get("WWW-Authenticate") != "Bearer") {
				t.Errorf("%s: %v %s", header, answer.Header, body)
			}
		}
		if answer := s.request("GET", "/metrics?token="+strings.ReplaceAll(token, " ", "%20")); answer.StatusCode != 401 {
			t.Error("a token in the URL opens /metrics")
		}
		if answer := s.request("GET", "/health"); answer.StatusCode != 200 {
			t.Errorf("/health wants the token of /metrics: %s", answer.Status)
		}
		if strings.Contains(s.logged.String(), token) {
			t.Error("the token is in the log")
		}
	})
}

func TestPagesOfAllowedOriginsMayReadHealthAndMetrics(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *pipeServer) {
		for _, c := range []struct {
			method, origin string
			status         int
			allowed        bool
		}{
			{"GET", "https://letshare.fun", 200, true},
			{"OPTIONS", "https://letshare.fun", 204, true},
			{"GET", "https://letshare.fun.evil.test", 200, false},
			{"OPTIONS", "https://evil.test", 204, false},
			{"OPTIONS", "null", 204, false},
			{"GET", "", 200, false},
		} {
			for _, path := range []string{"/health", "/metrics"} {
				headers := []string{"Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization"}
				if c.origin != "" {
					headers = append(headers, "Origin: "+c.origin)
				}
				answer := s.request(c.method, path, headers...)
				allowed := answer.Header.Get("Access-Control-Allow-Origin")
				if answer.StatusCode != c.status || (allowed == c.origin && allowed != "") != c.allowed || allowed != "" && !c.allowed {
					t.Errorf("%s %s from %q: %s, allows %q", c.method, path, c.origin, answer.Status, allowed)
				}
				if !slices.Contains(answer.Header.Values("Vary"), "Origin") || answer.Header.Get("Cache-Control") != "no-store" {
					t.Errorf("a cache may give this to other pages: %v", answer.Header)
				}
				if c.allowed && !strings.Contains(answer.Header.Get("Access-Control-Allow-Headers"), "Authorization") {
					t.Errorf("a page cannot send the token of /metrics: %v", answer.Header)
				}
			}
		}
	})
}

// explosive is a socket of which one read panics when it is told to: what a bug of ours in the read goroutine would do.
type explosive struct {
	net.Conn
	armed *atomic.Bool
}

func (e explosive) Read(p []byte) (int, error) {
	n, err := e.Conn.Read(p)
	if n > 0 && e.armed.CompareAndSwap(true, false) {
		panic("injected by a test")
	}
	return n, err
}

func TestAPanicEndsOneConnectionAndIsLogged(t *testing.T) {
	var armed atomic.Bool
	inBubble(t, nil, func(t *testing.T, s *pipeServer) {
		s.listener.wrap = func(socket net.Conn) net.Conn { return explosive{socket, &armed} }
		victim, bystander := s.connect("ann"), s.connect("bob")
		victim.subscribe("room")
		bystander.subscribe("room")
		began := s.since()
		armed.Store(true)
		victim.send(`{"type":"publish","channel":"room","data":{}}`)
		victim.wantEnded(began, 0, closeLinger+time.Second, "close 1011 internal_error")
		s.wantCloses("internal_error 1")
		bystander.send(`{"type":"subscribe","channel":"room","event":"more"}`)
		if last := bystander.got()[len(bystander.got())-1]; !strings.Contains(last, `"members":1`) {
			t.Errorf("the victim is in the room still: %s", last)
		}
		for _, want := range []string{"panic in a connection", "injected by a test", "server_test.go", "goroutine "} {
			if !strings.Contains(s.logged.String(), want) {
				t.Errorf("the log lacks %q", want)
			}
		}
	})
}

func TestDescriptorLimits(t *testing.T) {
	for _, c := range []struct{ maxConnections, openFiles, conns, sockets int }{
		{10000, 20000, 10000, 20000 - reservedFiles/2},
		{10000, 1024, 1024 - reservedFiles, 1024 - reservedFiles/2},
		{0, 1024, 1024 - reservedFiles, 1024 - reservedFiles/2},
		{10000, 0, 10000, assumedOpenFiles - reservedFiles/2},
		{10000, 10, 1, 1 + reservedFiles/2},
	} {
		if conns, sockets := descriptorLimits(c.maxConnections, c.openFiles); conns != c.conns || sockets != c.sockets {
			t.Errorf("%d connections, %d files: %d and %d, want %d and %d", c.maxConnections, c.openFiles, conns, sockets, c.conns, c.sockets)
		}
	}
}

func TestTheGateLetsOneInForEachThatLeaves(t *testing.T) {
	inner := newPipeListener()
	g := newGate(inner, 2)
	accepted := make(chan net.Conn)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			socket, err := g.Accept()
			if err != nil {
				return
			}
			accepted <- socket
		}
	}()
	var open []net.Conn
	defer func() {
		for _, socket := range open {
			socket.Close()
		}
	}()
	enter := func() {
		t.Helper()
		socket, err := inner.dial()
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, socket, <-accepted)
	}
	enter()
	enter()
	waiting := make(chan net.Conn, 1)
	go func() {
		socket, _ := inner.dial()
		waiting <- socket
	}()
	select {
	case socket := <-accepted:
		t.Error("a third was let in")
		socket.Close()
	case <-waiting:
		t.Error("a third was taken from the listener")
	case <-time.After(20 * time.Millisecond):
	}
	g.leave()
	open = append(open, <-waiting, <-accepted)
	g.watch(nil, http.StateActive) // no end of a socket
	g.watch(nil, http.StateHijacked)
	if len(g.open) != 2 {
		t.Errorf("%d sockets are counted, want 2", len(g.open))
	}
	g.Close()
	<-done
}

// onSocket makes the server listen on a Unix socket.
func onSocket(path string) func(*Config) {
	return func(c *Config) { c.Server.Port, c.Server.Host, c.Server.UnixSocket = "8080", "", path }
}

func TestAUnixSocketIsServedAndAStaleOneReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0) // bound and closed without unlinking: what a kill leaves
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrUnix{Name: path})
		syscall.Close(fd)
	}
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	onSocket(path)(&cfg)
	server, err := NewServer(&cfg, slog.New(slog.DiscardHandler), 0)
	if err != nil {
		t.Fatalf("a stale socket is in the way: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Error("the socket is left behind")
		}
	}()
	if server.Addr() != path {
		t.Errorf("Addr is %q", server.Addr())
	}
	if _, err := NewServer(&cfg, slog.New(slog.DiscardHandler), 0); err == nil || !strings.Contains(err.Error(), "another server listens there") {
		t.Errorf("a second server on the path: %v", err)
	}
	token, err := MintToken(&cfg, Claims{UserID: "ann"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	socket, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c := shakeHands(t, nil, "ann", socket, []byte("GET /ws?token="+token+" HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"))
	c.subscribe(t, "room", "")
	c.leave(t)
}

func TestAPathThatIsNoSocketIsNotTouched(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	write(t, path, "precious")
	cfg := DefaultConfig()
	onSocket(path)(&cfg)
	if _, err := NewServer(&cfg, slog.New(slog.DiscardHandler), 0); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("%v", err)
	}
	if text, err := os.ReadFile(path); string(text) != "precious" {
		t.Errorf("the file is %q, %v", text, err)
	}
}

func TestAnAddressInUseIsExplained(t *testing.T) {
	first := startServer(t)
	cfg := *first.cfg
	_, cfg.Server.Port, _ = net.SplitHostPort(first.addr)
	_, err := NewServer(&cfg, slog.New(slog.DiscardHandler), 0)
	if err == nil || !strings.Contains(err.Error(), cfg.Server.Port) || !strings.Contains(err.Error(), "another program listens there") {
		t.Errorf("%v", err)
	}
}

func TestClientsConnectOverTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeKeyPair(t, cert, key)
	s := startServer(t, func(c *Config) { c.Server.TLSCert, c.Server.TLSKey = cert, key })
	if !strings.HasPrefix(s.server.URL(), "wss://127.0.0.1:") {
		t.Errorf("URL is %s", s.server.URL())
	}
	connect := func(user string) *client {
		t.Helper()
		socket, err := tls.Dial("tcp", s.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		return shakeHands(t, s, user, socket, []byte("GET /?token="+s.token(t, Claims{UserID: user})+" HTTP/1.1\r\nHost: "+s.addr+
			"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"))
	}
	ann, bob := connect("ann"), connect("bob")
	ann.subscribe(t, "room", "")
	bob.subscribe(t, "room", "")
	data := fmt.Sprintf(`{"from":"ann","text":%q}`, strings.Repeat("x", 300_000))
	ann.publish(t, "room", eventAll, data)
	bob.wantData(t, data)
	plain, err := net.Dial("tcp", s.addr) // a client that speaks no TLS gets no WebSocket
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	io.WriteString(plain, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
	plain.SetReadDeadline(time.Now().Add(patience))
	if text, _ := io.ReadAll(plain); bytes.Contains(text, []byte("healthy")) {
		t.Errorf("answered over plain HTTP: %q", text)
	}
	ann.leave(t)
	go s.stop()
	bob.wantClose(t, 1001, "going_away")
	s.stop()
}

func TestARefusedHandshakeIsCheap(t *testing.T) {
	s := stillServer(t, nil)
	for name, change := range map[string]func(*http.Request){
		"no token":     func(r *http.Request) {},
		"a bad token":  func(r *http.Request) { r.URL.RawQuery = "token=" + strings.Repeat("x.", 2000) },
		"a bad origin": func(r *http.Request) { r.Header.Set("Origin", "https://evil.test") },
		"no upgrade":   func(r *http.Request) { r.Header.Del("Upgrade") },
	} {
		r := httptest.NewRequest("GET", "/ws", nil)
		for header, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
			r.Header.Set(header, value)
		}
		change(r)
		if n := testing.AllocsPerRun(100, func() { s.ServeHTTP(httptest.NewRecorder(), r) }); n > 100 {
			t.Errorf("%s: %v objects", name, n)
		} else {
			t.Logf("%s: %v objects", name, n)
		}
	}
}

// residentMB is the most resident memory that a process had. Only Linux tells; elsewhere it is 0, and a story plays
// without that one judgement.
func residentMB(t *testing.T, pid int) int {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Log("the memory of a process is not measured on this system")
		return 0
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	kb, _ := strconv.Atoi(string(m[1]))
	return kb / 1024
}

// underRaceDetector tells how this binary was built.
func underRaceDetector() bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// 400 clients that each send most of a message and stop: 156 MiB, of which the server may hold 8.
func TestUnfinishedMessagesDoNotFillTheMemory(t *testing.T) {
	p := startServing(t, t.TempDir(), []string{"LETSHARE_WEBSOCKET_MAX_BUFFERED_BYTES=8388608", "LETSHARE_LOG_LEVEL=error"})
	cfg := DefaultConfig()
	s := &testServer{cfg: &cfg, addr: strings.TrimSuffix(strings.TrimPrefix(p.url, "http://"), "/")}
	ann, bob := s.dial(t, "ann"), s.dial(t, "bob")
	ann.subscribe(t, "room", "")
	bob.subscribe(t, "room", "")
	most := append(maskedFrame(finBit|opText, make([]byte, 450<<10))[:8+6], make([]byte, 400<<10)...)
	var hoarders []*client
	for i := range 400 {
		c := s.dial(t, fmt.Sprint("hoarder", i))
		hoarders = append(hoarders, c)
		c.socket.SetWriteDeadline(time.Now().Add(patience))
		c.socket.Write(most) // those that are cut meanwhile may fail
		if i%40 == 0 {
			ann.publish(t, "room", eventAll, fmt.Sprintf(`{"from":"ann","n":%d}`, i))
			bob.wantData(t, fmt.Sprintf(`{"from":"ann","n":%d}`, i))
		}
	}
	limit := 100
	if underRaceDetector() {
		limit = 300 // which watches every byte with several of its own
	}
	if mb := residentMB(t, p.cmd.Process.Pid); mb >= limit {
		t.Errorf("the server took %d MB", mb)
	} else {
		t.Logf("%d MB at the most", mb)
	}
	if held := s.metric(t, "websocket", "buffered_bytes"); held > 8<<20 || held < 4<<20 {
		t.Errorf("%v bytes are held, want almost 8 MiB", held)
	}
	for _, c := range hoarders {
		c.close()
	}
	cut := 0.0
	for deadline := time.Now().Add(patience); cut < 370 && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		cut = s.metric(t, "closes", "memory_pressure") // counted when the server has said goodbye
	}
	if cut < 370 {
		t.Errorf("%v were cut, of 400 that hold 400 KiB each", cut)
	}
	ann.close()
	bob.close()
	if exit, _ := p.stop(t, syscall.SIGTERM); exit != 0 {
		t.Errorf("exit %d", exit)
	}
}

// Every reason has a slug of its own, or its counter would be another's.
func TestSlugsAreUnique(t *testing.T) {
	seen := make(map[string]string)
	note := func(kind, slug string) {
		if slug == "" || seen[kind+slug] != "" {
			t.Errorf("%s %q is there twice, or empty", kind, slug)
		}
		seen[kind+slug] = slug
	}
	for r := range reasonCount {
		note("refusal ", r.String())
	}
	for e := range endingCount {
		note("ending ", e.String())
	}
	for d := range dropCount {
		note("drop ", dropSlugs[d])
	}
	if t.Failed() {
		t.Log(slices.Sorted(maps.Keys(seen)))
	}
}
