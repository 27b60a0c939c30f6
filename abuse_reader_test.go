package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// bigPublish is a publish of about size bytes to nearRoom, whose number is n.
func bigPublish(n, size int) []byte {
	return maskedFrame(finBit|opText, []byte(fmt.Sprintf(`{"type":"publish","channel":"room","id":%d,"data":{"from":"loud","n":%d,"x":"%s"}}`, n, n, strings.Repeat("x", size))))
}

// unlimited lets one client say as much as it likes.
func unlimited(cfg *Config) {
	cfg.WebSocket.MessagesPerSecond, cfg.WebSocket.BytesPerSecond = 0, 0
}

// A reader that stops in a busy room is cut when its queue is full. The room never waits for it.
func TestAbuse26_FrozenReader(t *testing.T) {
	t.Parallel()
	a := underAttack(t, unlimited)
	loud, frozen := a.member("loud"), a.frozen("frozen")
	n := a.sayUntil(loud, nil, 60<<10, func() bool { return a.server.counters.endings[SlowConsumer].Load() == 1 })
	a.wantMetric(t, "websocket", "active_connections", 5)
	a.wantMetric(t, "websocket", "buffered_bytes", 0)
	if heard := len(a.overheard()); heard > n {
		t.Errorf("the room heard %d of %d messages", heard, n)
	}
	frozen.wantCut(t)
	a.calm()
}

// sayUntil publishes messages of size bytes, one when the one before has been taken by the room and read by the listeners, until
// enough. Every listener must get each in order. It returns how many were said.
func (a *abused) sayUntil(loud *client, listeners []*client, size int, enough func() bool) (n int) {
	a.t.Helper()
	for ; !enough(); n++ {
		if n == 2000 {
			a.t.Fatalf("after %d messages of %d bytes it is not enough", n, size)
		}
		loud.raw(a.t, bigPublish(n, size))
		loud.want(a.t, fmt.Sprintf(`{"type":"ack","id":%d}`, n))
		for _, c := range listeners {
			if message := c.message(a.t); len(message) < size || !strings.Contains(message[:keptBytes], fmt.Sprintf(`"n":%d,`, n)) {
				a.t.Fatalf("%s got %d bytes, %.100s, want message %d", c.name, len(message), message, n)
			}
		}
	}
	return n
}

// 25 of the 50 members of a room freeze at once. The others get every message, in order, and the server stays small.
func TestAbuse27_HalfOfARoomFreezes(t *testing.T) {
	t.Parallel()
	p := startServing(t, t.TempDir(), []string{"LETSHARE_WEBSOCKET_BYTES_PER_SECOND=0", "LETSHARE_WEBSOCKET_MESSAGES_PER_SECOND=0", "LETSHARE_LOG_LEVEL=error"})
	a := watch(t, processServer(p))
	base := residentMB(t, p.cmd.Process.Pid)
	loud := a.member("loud")
	var healthy []*client
	for i := range 25 {
		a.frozen(fmt.Sprint("frozen ", i))
		if i < 22 {
			healthy = append(healthy, a.member(fmt.Sprint("healthy ", i)))
		}
	}
	cut, looked := 0.0, time.Time{}
	n := a.sayUntil(loud, healthy, 60<<10, func() bool {
		if time.Since(looked) > 100*time.Millisecond {
			cut, looked = a.metric(t, "closes", "slow_consumer"), time.Now()
		}
		return cut == 25
	})
	if peak := residentMB(t, p.cmd.Process.Pid) - base; peak >= raceFactor(64) {
		t.Errorf("the server took %d MB more than before", peak)
	} else {
		t.Logf("%d messages, %d MB more than before at the most", n, peak)
	}
	a.wantMetric(t, "websocket", "active_connections", 4+1+22)
	a.calm()
	if exit, _ := p.stop(t, syscall.SIGTERM); exit != 0 {
		t.Errorf("exit %d", exit)
	}
}

// raceFactor is a bound of memory in MB for this build: the race detector watches every byte with several of its own.
func raceFactor(mb int) int {
	if underRaceDetector() {
		return 4 * mb
	}
	return mb
}

// A client whose line is dead without a word is pinged, cut after 60 s of silence, and out of its room once.
func TestAbuse28_DeadLine(t *testing.T) {
	attackInBubble(t, nil, func(t *testing.T, s *pipeServer) {
		began := s.since()
		dead, watcher := s.connectWith("dead", 0, false, false), s.connect("watcher")
		dead.subscribe(nearRoom)
		watcher.subscribe(nearRoom)
		dead.wantEnded(began, defaultIdleTimeout, defaultIdleTimeout+2*time.Second, "")
		if pings := len(dead.when(opPing)); pings != 2 {
			t.Errorf("%d pings before the end, want 2", pings)
		}
		s.wantCloses("idle_timeout 1")
		watcher.subscribe(nearRoom)
		watcher.wantLast(`{"type":"subscribed","channel":"room","event":"signal:all","data":{"status":"subscribed","room":"room","event":"signal:all","members":3,`)
		watcher.socket.Close()
	})
}

// Half-sent messages and frozen readers together take what the server may hold, and no more: the largest holders are cut, and
// everybody else is served.
func TestAbuse43_ManyHoldersOfMemory(t *testing.T) {
	t.Parallel()
	const limit = 8 << 20
	p := startServing(t, t.TempDir(), []string{"LETSHARE_WEBSOCKET_BYTES_PER_SECOND=0", "LETSHARE_WEBSOCKET_MESSAGES_PER_SECOND=0",
		fmt.Sprint("LETSHARE_WEBSOCKET_MAX_BUFFERED_BYTES=", limit), "LETSHARE_LOG_LEVEL=error"})
	a := watch(t, processServer(p))
	base := residentMB(t, p.cmd.Process.Pid)
	readers, hoarders := 200, 2000
	if underRaceDetector() { // whoever is to be cut is looked for among all of them, for each that comes
		readers, hoarders = 50, 480
	}
	var louds []*client
	for i := range 5 { // a room each: its publisher, and 40 who do not read
		loud := a.dial("loud")
		loud.subscribe(t, fmt.Sprint("loud ", i), "")
		louds = append(louds, loud)
	}
	for i := range readers {
		c := a.dial(fmt.Sprint("frozen ", i))
		c.subscribe(t, fmt.Sprint("loud ", i%len(louds)), "")
		if err := c.socket.(*net.TCPConn).SetReadBuffer(128); err != nil {
			t.Fatal(err)
		}
	}
	big, said := strings.Repeat("x", 60<<10), 0
	speak := func() {
		for i, loud := range louds {
			loud.raw(t, maskedFrame(finBit|opText, []byte(fmt.Sprintf(`{"type":"publish","channel":"loud %d","id":%d,"data":{"x":%q}}`, i, said, big))))
			loud.want(t, fmt.Sprintf(`{"type":"ack","id":%d}`, said))
		}
		said++
	}
	wantBounded := func() {
		if held := a.metric(t, "websocket", "buffered_bytes"); held > limit+1<<20 {
			t.Errorf("%v bytes are held", held)
		}
	}
	half := announced(defaultMaxMessageBytes, bytes.Repeat([]byte(" "), defaultMaxMessageBytes/2))
	query := url.Values{"token": {a.token(t, Claims{UserID: "hoarder"})}}.Encode()
	var sockets []net.Conn
	var mu sync.Mutex
	for sent := 0; sent < hoarders; {
		var workers sync.WaitGroup
		for range 8 {
			workers.Go(func() {
				for range 10 {
					socket, _, answer, err := quickUpgrade(a.addr, query)
					if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
						t.Error(err, answer)
						return
					}
					socket.Write(half) // those that are cut meanwhile may fail
					mu.Lock()
					sockets = append(sockets, socket)
					mu.Unlock()
				}
			})
		}
		workers.Wait()
		if sent += 80; sent%400 == 0 {
			speak()
			wantBounded()
		}
	}
	for ; said < 40; speak() { // 2.4 MB for each who reads no more
	}
	wantBounded()
	cut := 0.0
	most := float64(hoarders - limit/(defaultMaxMessageBytes/2))
	for deadline := time.Now().Add(patience); cut < 0.9*most && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		cut = a.metric(t, "closes", "memory_pressure") // counted when the server has said goodbye
	}
	if cut < 0.9*most {
		t.Errorf("%v were cut, of %d that hold 256 KiB each and %d that read nothing", cut, hoarders, readers)
	}
	// What may be held and is garbage, and 20 KB for each connection. Undefended, half messages alone would take 500 MB.
	bound := raceFactor(64 + (readers+hoarders)*20/1024)
	if peak := residentMB(t, p.cmd.Process.Pid) - base; peak >= bound {
		t.Errorf("the server took %d MB more than before", peak)
	} else {
		t.Logf("%d MB more than before at the most", peak)
	}
	closeAll(sockets)
	a.calm()
	if exit, _ := p.stop(t, syscall.SIGTERM); exit != 0 {
		t.Errorf("exit %d", exit)
	}
}
