//go:build unix

package giveway

import (
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// One processor, and somebody who never rests: who has got a byte meanwhile has his turn as soon as the other gives way.
func TestGivesWay(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	pipe, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	near, far := connection(t)
	var (
		heard  atomic.Int64
		waiter sync.WaitGroup
	)
	const bytes = 200
	waiter.Go(func() {
		var b [1]byte
		for range bytes {
			if _, err := near.Read(b[:]); err != nil {
				t.Errorf("reading: %v", err)
				return
			}
			heard.Add(1)
		}
	})
	for n := range int64(bytes) {
		if _, err := far.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		// The first time the reader may not wait yet; and loopback may need a moment on a busy machine.
		turns := 0
		for heard.Load() == n && turns < 1000 {
			pipe.GiveWay()
			turns++
		}
		if turns == 1000 {
			t.Fatalf("byte %d was not heard after %d turns", n, turns)
		}
	}
	waiter.Wait()
}

// Many may give way at once, also while the pipe is closed; nobody hangs, and one look at the network serves all who wait.
func TestManyGiveWay(t *testing.T) {
	pipe, err := New()
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				pipe.GiveWay()
			}
		})
	}
	pipe.GiveWay()
	pipe.Close()
	all.Wait()
	pipe.GiveWay()
}

func TestOneLookServesAllWhoWait(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	pipe, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	const senders, turns = 50, 200
	var all sync.WaitGroup
	var looks atomic.Int64
	step := pipe.once
	pipe.once = func(fd uintptr) bool {
		done := step(fd)
		if done {
			looks.Add(1)
		}
		return done
	}
	for range senders {
		all.Go(func() {
			for range turns {
				pipe.GiveWay()
			}
		})
	}
	all.Wait()
	if n := looks.Load(); n > senders*turns/2 {
		t.Errorf("%d looks for %d turns of %d goroutines", n, turns, senders)
	}
}

func TestGivingWayAllocatesNothing(t *testing.T) {
	pipe, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	if n := testing.AllocsPerRun(100, pipe.GiveWay); n != 0 {
		t.Errorf("%v objects, want none", n)
	}
}

func BenchmarkGiveWay(b *testing.B) {
	pipe, err := New()
	if err != nil {
		b.Fatal(err)
	}
	defer pipe.Close()
	for b.Loop() {
		pipe.GiveWay()
	}
}

// connection returns the two ends of a TCP connection over loopback.
func connection(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	return near, far
}
