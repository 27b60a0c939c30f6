package main

import (
	"bytes"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestTheCopyingFloorPassesEverything(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { copyFloor(l) })
	rounds := 0
	sent, err := copying(&target{addr: l.Addr().String()}, relayFrames, 10, func() bool { rounds++; return rounds <= 3 })
	l.Close()
	wg.Wait()
	if err != nil || sent != 30 {
		t.Errorf("%d frames of 30, %v", sent, err)
	}
}

// miniRelay answers subscribes, and passes all else on: from the sender and the caller to the receiver, from it to the sender.
// spoil may change what passes.
func miniRelay(t *testing.T, spoil func(message []byte) []byte) *target {
	var mu sync.Mutex
	conns := map[string]*websocket.Conn{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 20)
		user := r.URL.Query().Get("userId")
		mu.Lock()
		conns[user] = c
		mu.Unlock()
		for {
			kind, message, err := c.Read(r.Context())
			if err != nil {
				return
			}
			to := "relay-to"
			if user == to {
				to = "relay-from"
			}
			mu.Lock()
			other := conns[to]
			mu.Unlock()
			if bytes.Contains(message, []byte(`"subscribe"`)) {
				other, message = c, []byte(`{"type":"subscribed"}`)
			}
			other.Write(r.Context(), kind, spoil(message))
		}
	}))
	t.Cleanup(server.Close)
	tgt, err := parseTarget("mini", "ws"+strings.TrimPrefix(server.URL, "http")+"/ws", "secret", false)
	if err != nil {
		t.Fatal(err)
	}
	return tgt
}

func TestFilesAndWhatIsSaidBesideThemArrive(t *testing.T) {
	c, err := newCourier(miniRelay(t, func(m []byte) []byte { return m }), 30)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	c.caller.publish(c.caller.publishFrame("signal:relay-to", candidateBytes), laneOne, laneOne, now())
	n := 0
	if sent, err := c.files(func() bool { n++; return n <= 2 }); err != nil || sent != 2 {
		t.Errorf("%d files of 2, %v", sent, err)
	}
	for end := time.Now().Add(5 * time.Second); c.toReceiver.percentile(1) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("what the caller said does not count")
		}
	}
}

func TestASpoiledFileIsSeen(t *testing.T) {
	for name, spoil := range map[string]func([]byte) []byte{
		"a changed byte": func(m []byte) []byte {
			if len(m) == relayFrames {
				m[relayFrames-1] ^= 1
			}
			return m
		},
		"a lost byte": func(m []byte) []byte { return m[:min(len(m), relayFrames-1)] },
	} {
		c, err := newCourier(miniRelay(t, spoil), 3)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.send(); err == nil {
			t.Errorf("%s: nobody noticed", name)
		}
		c.close()
	}
}
