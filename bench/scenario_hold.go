package main

import (
	"fmt"
	"net"
	"os"
	"time"
)

// Idle connections, held, cut all at once, and held once more.
const (
	holdAgain     = 20 * time.Second // the second hold: its peak is what it is for
	holdJudged    = 2 * time.Minute  // a shorter hold says nothing about a slope
	holdDrift     = 0.01             // of the resident set, between the middle of the hold and its end
	holdSecondMax = 1.05             // of the first peak
)

// heldCycle is what one cycle of connecting, holding and cutting gave. Sizes are bytes.
type heldCycle struct {
	peak, middle, end int64
	after             serverFigures
}

// runHold is the subcommand hold.
func runHold(connections int, length time.Duration) error {
	dir, err := os.MkdirTemp("", "letshare-hold-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server, err := startOwn(dir, false, map[string]any{"max_connections": maxConnections})
	if err != nil {
		return err
	}
	base, err := server.look()
	if err != nil {
		server.stop()
		return err
	}
	var cycles []heldCycle
	var wrong []string
	for _, d := range []time.Duration{length, min(length, holdAgain)} {
		c, err := holdOnce(server, connections, d, base)
		if err != nil {
			wrong = append(wrong, err.Error())
			break
		}
		cycles = append(cycles, c)
		fmt.Printf("hold: %d connections for %s: resident set %.1f MiB before, %.1f at most, %.1f in the middle, %.1f at the end; all cut: %.0f rooms, %.0f goroutines (%.0f at the start), %.1f MiB\n",
			connections/idleMembers*idleMembers, d, mib(base.rss), mib(c.peak), mib(c.middle), mib(c.end), c.after.websocket["total_rooms"], c.after.goroutines, base.goroutines, mib(c.after.rss))
		if drift := float64(c.end-c.middle) / float64(c.middle); d >= holdJudged && drift > holdDrift {
			wrong = append(wrong, fmt.Sprintf("the resident set grew by %.1f %% while nothing happened", drift*100))
		}
	}
	if len(cycles) == 2 {
		ratio := float64(cycles[1].peak) / float64(cycles[0].peak)
		fmt.Printf("hold: the second peak is %.1f %% of the first\n", ratio*100)
		if ratio > holdSecondMax {
			wrong = append(wrong, "the second cycle took more memory than the first")
		}
	}
	return verdictOf(append(wrong, server.finish()...))
}

// holdOnce is one cycle.
func holdOnce(server *ownServer, connections int, d time.Duration, base serverFigures) (c heldCycle, err error) {
	peak, stopPeak := watchRSS(server.pid)
	defer func() { stopPeak() }()
	f, err := connect(server.target, shape{rooms: connections / idleMembers, members: idleMembers}, func(m *member, payload []byte, _ int64) {
		m.fleet.fault(&m.fleet.faults.garbled, "%s: got %.200q", m.id, payload)
	})
	if err != nil {
		return c, err
	}
	progress("%d connected, holding for %s", connections, d)
	time.Sleep(d / 2)
	c.middle, _ = memoryOf(server.pid)
	time.Sleep(d - d/2)
	c.end, _ = memoryOf(server.pid)
	found := f.faultsSoFar()
	f.closing.Store(true)
	for _, room := range f.rooms {
		for _, m := range room.members {
			m.conn.(*net.TCPConn).SetLinger(0)
			m.conn.Close()
		}
	}
	f.wg.Wait()
	c.peak = peak.Load()
	if found.any() {
		return c, fmt.Errorf("%s; the first: %s", found, found.First)
	}
	c.after, err = server.emptied(base.goroutines)
	return c, err
}
