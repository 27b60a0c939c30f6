package main

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// Half of a full room freezes: it stops reading, with hardly any receive buffer.
const (
	frozenMembers = 25
	frozenBuffer  = 256              // bytes asked of the kernel, which gives its least
	frozenRate    = 10               // messages of noiseBytes a second: within the default bytes_per_second
	frozenAtMost  = 90 * time.Second // until all are cut
	frozenAfter   = 5 * time.Second  // of more messages, when they are
	frozenGrowth  = 64 << 20         // bytes that the resident set may grow by
)

// runFrozen is the subcommand frozen.
func runFrozen() error {
	dir, err := os.MkdirTemp("", "letshare-frozen-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server, err := startOwn(dir, false, map[string]any{})
	if err != nil {
		return err
	}
	base, err := server.look()
	if err != nil {
		server.stop()
		return err
	}
	wrong, err := frozenRoom(server, base)
	if err != nil {
		server.stop()
		return err
	}
	if _, err := server.emptied(base.goroutines); err != nil {
		wrong = append(wrong, err.Error())
	}
	return verdictOf(append(wrong, server.finish()...))
}

// frozenRoom plays the room and returns what was not as it must be.
func frozenRoom(server *ownServer, base serverFigures) (wrong []string, err error) {
	var delivered atomic.Int64
	f, err := connect(server.target, shape{rooms: 1, members: 50 - frozenMembers}, func(m *member, payload []byte, _ int64) {
		if st, ok := m.stampOf(payload); ok {
			m.inOrder(laneAll, st)
			delivered.Add(1)
		}
	})
	if err != nil {
		return nil, err
	}
	defer f.close()
	room := f.rooms[0]
	frozen := *server.target
	frozen.readBuffer = frozenBuffer
	for n := range frozenMembers {
		c, err := frozen.dial(fmt.Sprintf("frozen-%d", n))
		if err != nil {
			return nil, err
		}
		defer c.conn.Close()
		if err := c.join(room.name, "signal:all"); err != nil {
			return nil, err
		}
	}
	peak, stopPeak := watchRSS(server.pid)
	cut, took := publishUntilCut(server, room)
	sent := int64(room.members[0].sent[laneAll])
	for end := time.Now().Add(drainTimeout); time.Now().Before(end) && delivered.Load() < sent*int64(len(room.members)-1); {
		time.Sleep(5 * time.Millisecond)
	}
	stopPeak()
	growth := peak.Load() - base.rss
	fmt.Printf("frozen: %d messages of %d bytes; %d deliveries to %d others, %d due; %.0f of %d cut with slow_consumer after %s; the resident set grew by %.1f MiB at most\n",
		sent, noiseBytes, delivered.Load(), len(room.members)-1, sent*int64(len(room.members)-1), cut, frozenMembers, took.Round(100*time.Millisecond), mib(growth))
	if found := f.faultsSoFar(); found.any() {
		wrong = append(wrong, found.String()+"; the first: "+found.First)
	}
	if delivered.Load() != sent*int64(len(room.members)-1) {
		wrong = append(wrong, "the others lost messages")
	}
	if cut != frozenMembers {
		wrong = append(wrong, fmt.Sprintf("%.0f were cut with slow_consumer, want %d", cut, frozenMembers))
	}
	if growth > frozenGrowth {
		wrong = append(wrong, fmt.Sprintf("the resident set grew by %.1f MiB, at most %d are promised", mib(growth), frozenGrowth>>20))
	}
	return wrong, nil
}

// publishUntilCut publishes until all the frozen are cut and for frozenAfter more. It returns how many were, and
// how long the last one took.
func publishUntilCut(server *ownServer, room *room) (cut float64, took time.Duration) {
	publisher := room.members[0]
	frame := publisher.publishFrame("signal:all", noiseBytes)
	start, asked := time.Now(), time.Now()
	end := start.Add(frozenAtMost)
	tick := time.NewTicker(time.Second / frozenRate)
	defer tick.Stop()
	for time.Now().Before(end) {
		<-tick.C
		publisher.publish(frame, laneAll, everyone, now())
		if time.Since(asked) < 500*time.Millisecond || cut == frozenMembers {
			continue
		}
		asked = time.Now()
		if cut, _ = askCloses(server.target, "slow_consumer"); cut == frozenMembers {
			took = time.Since(start)
			end = time.Now().Add(frozenAfter)
		}
	}
	return cut, took
}

// verdictOf prints what was wrong, and whether anything was.
func verdictOf(wrong []string) error {
	for _, w := range wrong {
		fmt.Printf("WRONG: %s\n", w)
	}
	if wrong != nil {
		fmt.Println("verdict: FAILED")
		return errFaults
	}
	fmt.Println("verdict: ok")
	return nil
}
