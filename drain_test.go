package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestADrainSpreadsTheClosesOverItsWindow(t *testing.T) {
	const window, n = 4 * time.Second, 100
	inBubble(t, func(c *Config) { c.Server.DrainSeconds = window.Seconds() }, func(t *testing.T, s *pipeServer) {
		var clients []*pipeClient
		for i := range n {
			clients = append(clients, s.connect(fmt.Sprint("user ", i)))
		}
		began := s.since()
		s.stop()
		var ends []time.Duration
		for _, c := range clients {
			c.wantEnded(began, 0, window+drainTick, "close 1001 going_away")
			ends = append(ends, c.end-began)
		}
		slices.Sort(ends)
		for i, end := range ends {
			if due := window * time.Duration(i) / n; end < due || end > due+2*drainTick {
				t.Fatalf("client %d is sent away after %v, want %v", i, end, due)
			}
		}
		if err := <-s.ended; err != nil || s.since()-began > window+100*time.Millisecond {
			t.Errorf("Run returned %v after %v", err, s.since()-began)
		}
		s.wantCloses(fmt.Sprint("going_away ", n))
		s.ended <- nil
	})
}

// Whoever takes no byte and answers nothing does not hold the end up: 2 s after the window it is over.
func TestADrainEndsInTime(t *testing.T) {
	for _, window := range []time.Duration{0, 1500 * time.Millisecond} {
		inBubble(t, func(c *Config) { c.Server.DrainSeconds = window.Seconds() }, func(t *testing.T, s *pipeServer) {
			for i := range 200 {
				c := s.connectWith(fmt.Sprint("user ", i), 0, false, false)
				if i%2 == 0 {
					c.freeze()
				}
				defer func() {
					if i%2 == 0 {
						c.thaw()
					}
				}()
			}
			began := s.since()
			s.stop()
			// The rest of the 2 s is for a machine that is busy.
			if err := <-s.ended; err != nil || s.since()-began > window+drainGrace+shutdownWait+50*time.Millisecond {
				t.Errorf("Run returned %v after %v", err, s.since()-began)
			}
			s.ended <- nil
		})
	}
}

func TestFewClientsAreAwaySoon(t *testing.T) {
	inBubble(t, func(c *Config) { c.Server.DrainSeconds = 600 }, func(t *testing.T, s *pipeServer) {
		s.connect("ann")
		s.connect("bob")
		began := s.since()
		s.stop()
		synctest.Wait()
		if err := <-s.ended; err != nil || s.since()-began > time.Second {
			t.Errorf("Run returned %v after %v", err, s.since()-began)
		}
		s.ended <- nil
	})
}

// A connection that ends while others are visited changes the order of the rest; none may be forgotten.
func TestADrainForgetsNobody(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(c *Config) { c.Server.DrainSeconds = 0.2 })
	var clients []*client
	for i := range 2*sweepChunk + 50 {
		clients = append(clients, s.dial(t, fmt.Sprint("user ", i)))
	}
	var readers sync.WaitGroup
	for _, c := range clients {
		readers.Go(func() { c.wantClosed(t, 1001, "going_away") })
	}
	s.stop()
	readers.Wait()
	if n := s.server.counters.endings[GoingAway].Load(); n != uint64(len(clients)) {
		t.Errorf("%d of %d were sent away", n, len(clients))
	}
}

// The word that a file ends must reach both before their connections do, also where writing takes a goroutine of its own.
func TestADrainTellsThoseWhoRelayFiles(t *testing.T) {
	inBubble(t, func(c *Config) { c.Server.DrainSeconds = 0 }, func(t *testing.T, s *pipeServer) {
		anna, bob := s.connect("anna"), s.connect("bob")
		anna.subscribe("room")
		bob.subscribe("room")
		f := newFile("f1", 10*appChunk)
		anna.send(f.request("bob"))
		bob.send(f.accept())
		anna.frame(f, 0)
		synctest.Wait()
		began := s.since()
		s.stop()
		for _, c := range []*pipeClient{anna, bob} {
			c.wantEnded(began, drainNotice, time.Second, "close 1001 going_away")
			if told := c.files(); told[len(told)-1] != "relay_stopping" {
				t.Errorf("before the end came %q", told)
			}
		}
		if err := <-s.ended; err != nil || s.relayed.reserved.Load() != 0 {
			t.Errorf("Run returned %v; %d bytes are held for files", err, s.relayed.reserved.Load())
		}
		s.ended <- nil
	})
}

// TestASecondSignalEndsADrainAtOnce: the window is long, and nobody waits for it who asks twice.
func TestASecondSignalEndsADrainAtOnce(t *testing.T) {
	t.Parallel()
	p := startServing(t, t.TempDir(), []string{"LETSHARE_SERVER_DRAIN_SECONDS=600", "LETSHARE_LOG_FILE="})
	s := processServer(p)
	for i := range 20 {
		s.dial(t, fmt.Sprint("user ", i)) // who does not answer the close frame
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitForProcess(t, "the drain", func() bool {
		status, body := s.get(t, "/health")
		return status == 503 && strings.Contains(body, "draining")
	})
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if exit := exitCode(t, p.cmd.Wait()); exit != 1 {
		t.Errorf("exit %d", exit)
	}
}
