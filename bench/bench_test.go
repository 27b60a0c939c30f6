package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
)

// TestMain fails the package when a test leaves a goroutine behind.
func TestMain(m *testing.M) {
	code := m.Run()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > 1 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > 1 && code == 0 {
		stacks := make([]byte, 1<<20)
		fmt.Fprintf(os.Stderr, "%d goroutines left behind:\n%s\n", n-1, stacks[:runtime.Stack(stacks, true)])
		code = 1
	}
	os.Exit(code)
}

// unmask undoes the mask of a client's frame whose header is head bytes long, mask included.
func unmask(frame []byte, head int) []byte {
	key, body := frame[head-4:head], bytes.Clone(frame[head:])
	for i := range body {
		body[i] ^= key[i&3]
	}
	return body
}

func TestClientFramesOfEveryLength(t *testing.T) {
	for _, c := range []struct{ size, head int }{{0, 6}, {125, 6}, {126, 8}, {65535, 8}, {65536, 14}} {
		payload := bytes.Repeat([]byte("ab{"), c.size/3+1)[:c.size]
		frame := webSocket.appendFrame(nil, opText, newKey(), payload)
		if frame[0] != 0x81 || frame[1]&0x80 == 0 {
			t.Errorf("%d bytes: first bytes %x, want a final masked text frame", c.size, frame[:2])
		}
		if len(frame) != c.head+c.size || !bytes.Equal(unmask(frame, c.head), payload) {
			t.Errorf("%d bytes: the payload does not come back", c.size)
		}
	}
}

func TestServerFrames(t *testing.T) {
	for _, size := range []int{0, 125, 126, 65535, 65536} {
		frame := []byte{0x81}
		switch {
		case size < 126:
			frame = append(frame, byte(size))
		case size <= 0xffff:
			frame = binary.BigEndian.AppendUint16(append(frame, 126), uint16(size))
		default:
			frame = binary.BigEndian.AppendUint64(append(frame, 127), uint64(size))
		}
		for n := range frame {
			if _, _, _, ok, err := webSocket.header(frame[:n]); ok || err != nil {
				t.Errorf("%d bytes: %d of %d header bytes: ok %v, %v", size, n, len(frame), ok, err)
			}
		}
		op, head, got, ok, err := webSocket.header(frame)
		if op != opText || head != len(frame) || got != size || !ok || err != nil {
			t.Errorf("%d bytes: header says op %d, head %d, size %d, %v, %v", size, op, head, got, ok, err)
		}
	}
	for name, frame := range map[string][]byte{
		"masked": {0x81, 0x80, 0, 0, 0, 0}, "not final": {0x01, 0}, "continuation": {0x80, 0}, "reserved bit": {0xc1, 0},
	} {
		if _, _, _, _, err := webSocket.header(frame); !errors.Is(err, errFrame) {
			t.Errorf("a %s frame: %v, want it refused", name, err)
		}
	}
	if _, _, _, _, err := webSocket.header([]byte{0x82, 127, 0, 0, 0, 0, 0xff, 0, 0, 0}); !errors.Is(err, errTooLarge) {
		t.Errorf("a huge frame: %v, want it refused", err)
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte{0x81, 5, 'h', 'e', 'l', 'l', 'o'})
	f.Add([]byte{0x88, 126, 0, 200})
	f.Add([]byte{0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, w := range []wire{webSocket, lengthPrefix} {
			_, head, size, ok, err := w.header(b)
			if ok && err == nil && (head > len(b) || size < 0 || size > maxFrame) {
				t.Errorf("header of %x: head %d, size %d", b, head, size)
			}
		}
	})
}

func TestStampTravels(t *testing.T) {
	want := stamp{publisher: 49, slot: 3, seq: 1_000_000, at: 1 << 50}
	data := dataObject(`a "quoted" name`, fanoutBytes)
	if len(data) != fanoutBytes {
		t.Errorf("%d bytes of data, want %d", len(data), fanoutBytes)
	}
	for w, head := range map[wire]int{webSocket: 8, lengthPrefix: 4} {
		key := newKey()
		tmpl := newTemplate(w, key, data)
		tmpl.set(stamp{1, 2, 3, 4})
		frame := tmpl.set(want)
		body := frame[head:]
		if w == webSocket {
			body = unmask(frame, head)
		}
		hint := 0
		for range 2 { // searched, then found at the hint
			if got, ok := findStamp(body, &hint); got != want || !ok {
				t.Errorf("wire %d: got %+v, %v", w, got, ok)
			}
		}
		if _, ok := findStamp(body[:hint+10], &hint); ok {
			t.Error("half a stamp was believed")
		}
	}
}

func TestPercentiles(t *testing.T) {
	var h histogram
	if h.percentile(0.5) != 0 {
		t.Error("a percentile of nothing")
	}
	for n := int64(1); n <= 10_000; n++ {
		h.add(n * 1000)
	}
	for p, want := range map[float64]int64{0.5: 5_000_000, 0.99: 9_900_000, 1: 10_000_000} {
		if got := int64(h.percentile(p)); got < want || got > want+want/60 {
			t.Errorf("p%g is %d ns, want %d or 1/64 more", p*100, got, want)
		}
	}
	for _, n := range []uint64{0, 63, 64, 127, 128, 129, 1 << 20, 1<<20 + 12345, 1 << 44} {
		i := bucketOf(n)
		if top := bucketTop(i); uint64(top) < n || i > 0 && uint64(bucketTop(i-1)) >= n {
			t.Errorf("%d lies in bucket %d, which ends at %d", n, i, top)
		}
	}
}

// floorTarget runs a floor inside the test.
func floorTarget(t *testing.T, batch bool) *target {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &floorServer{batch: batch, rooms: map[string]*floorRoom{}}
	var wg sync.WaitGroup
	wg.Go(func() { f.serveAll(l) })
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
		f.close()
	})
	return &target{name: "floor", wire: lengthPrefix, addr: l.Addr().String()}
}

func TestTheHandshakeFloorLetsClientsComeAndGo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { handshakeFloor(l) })
	defer wg.Wait()
	defer l.Close()
	floor := &target{name: "floor", wire: webSocket, addr: l.Addr().String(), host: "floor", path: "/"}
	for n := range 5 {
		if err := cycle(floor, fmt.Sprintf("user-%d", n), "room"); err != nil {
			t.Errorf("cycle %d: %v", n, err)
		}
	}
}

func TestFloorsDeliverEverything(t *testing.T) {
	for _, batch := range []bool{false, true} {
		s, err := newFanout(floorTarget(t, batch), shape{rooms: 2, members: 5}, fanoutBytes)
		if err != nil {
			t.Fatal(err)
		}
		s.closedLoop(3, 50*time.Millisecond)
		closed := s.delivered.Load()
		open, err := s.openLoop(500, 100*time.Millisecond)
		s.fleet.close()
		if err != nil || closed <= 2*3*4 || s.delivered.Load() == closed || open.Faults.any() || s.delivered.Load() != 4*s.published.Load() {
			t.Errorf("batch %v: %d published, %d delivered, faults %v, %v", batch, s.published.Load(), s.delivered.Load(), open.Faults, err)
		}
	}
}

// miniServer is a LetShare server just big enough: one room per channel, everything to everybody else.
// spoil may change what a member is sent.
func miniServer(t *testing.T, spoil func(message []byte) [][]byte) *target {
	var mu sync.Mutex
	rooms := map[string][]*websocket.Conn{}
	field := func(message []byte, name string) string {
		_, rest, _ := bytes.Cut(message, []byte(`"`+name+`":"`))
		value, _, _ := bytes.Cut(rest, []byte(`"`))
		return string(value)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("token") != "secret" {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			_, message, err := c.Read(r.Context())
			if err != nil {
				return
			}
			mu.Lock()
			channel := field(message, "channel")
			if bytes.Contains(message, []byte(`"subscribe"`)) {
				rooms[channel] = append(rooms[channel], c)
				c.Write(r.Context(), websocket.MessageText, []byte(`{"type":"subscribed"}`))
			} else {
				for _, other := range rooms[channel] {
					for _, out := range spoil(message) {
						if other != c {
							other.Write(r.Context(), websocket.MessageText, out)
						}
					}
				}
			}
			mu.Unlock()
		}
	}))
	t.Cleanup(server.Close)
	tgt, err := parseTarget("mini", "ws"+strings.TrimPrefix(server.URL, "http")+"/ws", "secret", false)
	if err != nil {
		t.Fatal(err)
	}
	return tgt
}

func once(message []byte) [][]byte { return [][]byte{message} }

func TestWebSocketClientAgainstAnotherImplementation(t *testing.T) {
	tgt := miniServer(t, once)
	s, err := newFanout(tgt, shape{rooms: 2, members: 3}, 4000)
	if err != nil {
		t.Fatal(err)
	}
	res := s.closedLoop(2, 50*time.Millisecond)
	s.fleet.close()
	if s.delivered.Load() <= 2*2*2 || res.Faults.any() {
		t.Errorf("%d deliveries, faults %v: %s", s.delivered.Load(), res.Faults, res.Faults.First)
	}
	if res := churn(tgt, 50*time.Millisecond); res.Count == 0 || res.Faults.any() {
		t.Errorf("%d cycles, faults %v: %s", res.Count, res.Faults, res.Faults.First)
	}
	refused := *tgt
	refused.token = "wrong"
	if _, err := refused.dial("someone"); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("a wrong token: %v, want the server's 401", err)
	}
}

func TestFaultsAreSeen(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func([]byte) [][]byte
		seen  func(faults) bool
	}{
		"repeated": {func(m []byte) [][]byte { return [][]byte{m, m} }, func(f faults) bool { return f.Disordered > 0 }},
		"garbled":  {func(m []byte) [][]byte { return [][]byte{m[:20], m} }, func(f faults) bool { return f.Garbled > 0 }},
		"refused": {func(m []byte) [][]byte { return [][]byte{[]byte(`{"type":"error"}`), m} },
			func(f faults) bool { return f.Refused > 0 }},
	} {
		s, err := newFanout(miniServer(t, c.spoil), shape{rooms: 1, members: 2}, fanoutBytes)
		if err != nil {
			t.Fatal(err)
		}
		s.publish(s.fleet.rooms[0], openSlot, now())
		for end := time.Now().Add(5 * time.Second); !c.seen(s.fleet.faultsSoFar()) && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if found := s.fleet.faultsSoFar(); !c.seen(found) {
			t.Errorf("%s: found %v", name, found)
		}
		s.fleet.close()
	}
}

func TestSignallingOverhearersAreSeen(t *testing.T) {
	s, err := newSignalling(miniServer(t, once), 1) // a server that gives directed messages to everybody
	if err != nil {
		t.Fatal(err)
	}
	s.begin(s.pairs[s.fleet.rooms[0].members[0]])
	for end := time.Now().Add(5 * time.Second); s.fleet.faultsSoFar().Stray == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	s.fleet.close()
	if s.fleet.faultsSoFar().Stray == 0 {
		t.Error("nobody noticed")
	}
}

func TestLineSellsItsTimeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &line{free: time.Now()}
		segment := time.Duration(segmentBytes+headerBytes) * 8 * time.Second / lineBitsPerSecond
		for n := range 3 {
			if got := p.reserve(segmentBytes); got != time.Duration(n+1)*segment {
				t.Errorf("segment %d arrives after %s, want %s", n, got, time.Duration(n+1)*segment)
			}
		}
		time.Sleep(time.Second)
		if got := p.reserve(segmentBytes); got != segment {
			t.Errorf("after a rest: %s, want %s: unused time is gone", got, segment)
		}
	})
}

func TestLineCarriesBothDirectionsAndCloses(t *testing.T) {
	proxy, err := startLine(floorTarget(t, false).addr)
	if err != nil {
		t.Fatal(err)
	}
	tgt := &target{wire: lengthPrefix, addr: proxy.addr()}
	s, err := newFanout(tgt, shape{rooms: 1, members: 3}, fanoutBytes)
	if err != nil {
		t.Fatal(err)
	}
	s.publish(s.fleet.rooms[0], openSlot, now())
	var res result
	s.drain(&res)
	if res.Faults.any() || s.delivered.Load() != 2 {
		t.Errorf("%d delivered, faults %v", s.delivered.Load(), res.Faults)
	}
	s.fleet.close()
	proxy.close()
}

func TestLineRatesFillTheShareAsked(t *testing.T) {
	announcements, directed := lineRates()
	if announcements < 1 || directed < 10 || announcements > 20 || directed > 200 {
		t.Errorf("%.1f announcements and %.1f directed messages a second cannot be half of 3 Mbit/s", announcements, directed)
	}
}

func TestArguments(t *testing.T) {
	for args, want := range map[string]string{
		"-nonsense":                   "not defined",
		"stray":                       "unknown argument",
		"-rate 0":                     "-rate",
		"-connections 50000":          "-connections",
		"-scenario s9":                "-scenario",
		"-url ws://127.0.0.1:1/ws":    "needs -token",
		"-url http://x -token t":      "want ws://",
		"compare -duration 1h":        "-duration",
		"compare -scenario s1":        "not defined",
		"-members 5000 -rooms 1":      "-members",
		"-window 100":                 "-window",
		"compare -rounds 0":           "-rounds",
		"-duration 1ns -scenario all": "-duration",
	} {
		t.Setenv("LETSHARE_JWT_SECRET", "")
		err := run(strings.Fields(args))
		if !errors.As(err, new(usageError)) || !strings.Contains(err.Error(), want) {
			t.Errorf("bench %s: %v, want a usage error about %q", args, err, want)
		}
	}
	if _, err := parse([]string{"-h"}, true); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: %v", err)
	}
}

func TestVerdicts(t *testing.T) {
	c := &comparison{report: newReport(false), servers: []*launcher{{name: "us"}}, rate: 400}
	c.report.Results = []result{
		{Server: nameOne, Scenario: "S2 window 4", CPU: 9}, {Server: nameBatch, Scenario: "S2 window 4", CPU: 3}, {Server: "us", Scenario: "S2 window 4", CPU: 2.7},
		{Server: nameOne, Scenario: "S2 window 4", CPU: 9}, {Server: nameBatch, Scenario: "S2 window 4", CPU: 2}, {Server: "us", Scenario: "S2 window 4", CPU: 2.7},
	}
	verdicts := c.verdicts()
	if v := verdicts[0]; !v.Met || v.Value < 0.299 || v.Value > 0.301 {
		t.Errorf("to the one-write floor: %+v, want 0.3, met", v)
	}
	if v := verdicts[1]; v.Met || v.Value < 1.124 || v.Value > 1.126 {
		t.Errorf("to the batching floor: %+v, want 1.125, missed", v)
	}
	if v := verdicts[2]; v.Met || v.Known {
		t.Errorf("without measurements: %+v, want neither known nor met", v)
	}
	c.report.Verdicts = verdicts
	var out strings.Builder
	if err := c.report.write(&out, true); err != nil {
		t.Errorf("as JSON: %v", err)
	}
	if err := c.report.write(&out, false); err != nil || !strings.Contains(out.String(), "NOT MEASURED") {
		t.Errorf("the table hides what is missing: %v", err)
	}
}
