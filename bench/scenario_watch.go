package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// watchInterval is how often each member of the watch says something.
const watchInterval = 100 * time.Millisecond

// runWatch is the subcommand watch: two rooms of two that talk on a server, whatever is done to it meanwhile. It prints
// "watching" when it is ready. A file named by WATCH_END ends it early.
func runWatch(address, token string, d time.Duration) error {
	t, err := parseTarget("server", address, token, true)
	if err != nil {
		return usageError(err.Error())
	}
	var delivered atomic.Int64
	var last, longest atomic.Int64
	f, err := connect(t, shape{rooms: 2, members: 2}, func(m *member, payload []byte, at int64) {
		st, ok := m.stampOf(payload)
		if !ok {
			return
		}
		m.inOrder(laneAll, st)
		delivered.Add(1)
		longest.Store(max(longest.Load(), at-st.at))
		last.Store(at)
	})
	if err != nil {
		return err
	}
	fmt.Println("watching")
	sent := talkEvenly(f, d)
	for end := time.Now().Add(drainTimeout); time.Now().Before(end) && delivered.Load() < sent && !f.faultsSoFar().any(); {
		time.Sleep(5 * time.Millisecond)
	}
	if missing := sent - delivered.Load(); missing != 0 {
		f.fault(&f.faults.lost, "%d of %d deliveries are missing", missing, sent)
	}
	found := f.faultsSoFar()
	f.close()
	fmt.Printf("watch: %d of %d deliveries, the latest after %.1f s; faults: %s\n", delivered.Load(), sent, time.Duration(longest.Load()).Seconds(), found)
	if found.any() {
		fmt.Println("watch: the first fault:", found.First)
		return errFaults
	}
	return nil
}

// talkEvenly lets each member say something every watchInterval for d, and returns how many deliveries are due.
func talkEvenly(f *fleet, d time.Duration) (due int64) {
	frames := map[*member]*template{}
	for _, room := range f.rooms {
		for _, m := range room.members {
			frames[m] = m.publishFrame("signal:all", 300)
		}
	}
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	ending := os.Getenv("WATCH_END")
	for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
		for m, frame := range frames {
			m.publish(frame, laneAll, everyone, now())
			due += int64(len(m.room.members) - 1)
		}
		if _, err := os.Stat(ending); ending != "" && err == nil {
			break
		}
	}
	return due
}

// runWarn is the subcommand warn: refused tokens from many addresses, until d is over or the server is gone.
func runWarn(address string, d time.Duration) error {
	t, err := parseTarget("server", address, "rubbish", true)
	if err != nil {
		return usageError(err.Error())
	}
	tries := 0
	for end := time.Now().Add(d); time.Now().Before(end); tries++ {
		c, err := t.dial("mallory")
		if err == nil {
			c.conn.Close()
			return errors.New("a bad token was accepted")
		}
		if !strings.Contains(err.Error(), "HTTP/1.1 401") {
			break // the server is gone
		}
		time.Sleep(time.Millisecond)
	}
	fmt.Printf("warn: %d tokens were refused\n", tries)
	return nil
}
