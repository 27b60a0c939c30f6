package main

import (
	"bytes"
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
// "watching" when it is ready.
func runWatch(o *longOptions, d time.Duration) error {
	t, err := o.target()
	if err != nil {
		return err
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
	sent := talkEvenly(f, d, o)
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

// talkEvenly lets each member say something every watchInterval, or only once if the watch is quiet, for d or until there
// is a file, and returns how many deliveries are due.
func talkEvenly(f *fleet, d time.Duration, o *longOptions) (due int64) {
	frames := map[*member]*template{}
	for _, room := range f.rooms {
		for _, m := range room.members {
			frames[m] = m.publishFrame("signal:all", 300)
		}
	}
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end) && !there(o.until); <-tick.C {
		for m, frame := range frames {
			if o.quiet && m.sent[laneAll] > 0 {
				continue
			}
			m.publish(frame, laneAll, everyone, now())
			due += int64(len(m.room.members) - 1)
		}
	}
	return due
}

// there says whether a file exists; "" never does.
func there(file string) bool {
	_, err := os.Stat(file)
	return file != "" && err == nil
}

// runWarn is the subcommand warn: refused tokens from many addresses, until d is over or the server is gone.
func runWarn(o *longOptions, d time.Duration) error {
	t, err := o.target()
	if err != nil {
		return err
	}
	t.token = "rubbish"
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

// runCrowd is the subcommand crowd: many connect, stay for d or until there is a file, and leave. It counts who got in.
func runCrowd(o *longOptions, d time.Duration) error {
	t, err := o.target()
	if err != nil {
		return err
	}
	t.spread = false // one address, so that the server's log may tell of it once
	var in []*socket
	refused, other := 0, 0
	for n := range o.connections {
		c, err := t.dialWithin(fmt.Sprintf("crowd-%d", n), 2*time.Second)
		switch {
		case err == nil:
			in = append(in, c)
			defer c.conn.Close()
		case strings.Contains(err.Error(), "HTTP/1.1 503"):
			refused++
		default:
			other++
		}
	}
	fmt.Printf("crowd: %d accepted, %d refused, %d otherwise\n", len(in), refused, other)
	for end := time.Now().Add(d); time.Now().Before(end) && !there(o.until); {
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

// pressBytes is how long the unfinished messages say they are: near the default limit.
const pressBytes = 400_000

// runPress is the subcommand press: connections that send half of a large message and wait, beside a room of frozen
// readers and somebody who publishes there. The server may cut whom it wants to.
func runPress(o *longOptions, d time.Duration) error {
	t, err := o.target()
	if err != nil {
		return err
	}
	slow := *t
	slow.readBuffer = frozenBuffer
	var all []*socket
	defer func() {
		for _, c := range all {
			c.conn.Close()
		}
	}()
	half := webSocket.appendFrame(nil, opText, newKey(), bytes.Repeat([]byte{'{'}, pressBytes))[:pressBytes/2]
	for n := range o.connections {
		c, err := slow.dial(fmt.Sprintf("press-%d", n))
		if err != nil {
			return err
		}
		all = append(all, c)
		if n < frozenMembers {
			err = c.join("press", "signal:all")
		} else {
			c.conn.SetWriteDeadline(time.Now().Add(time.Second))
			c.conn.Write(half) // whoever is cut meanwhile has done its part
		}
		if err != nil {
			return err
		}
	}
	c, err := t.dial("publisher")
	if err != nil {
		return err
	}
	defer c.conn.Close()
	if err := c.join("press", "signal:none"); err != nil {
		return err
	}
	sent, start := 0, time.Now()
	publish := fmt.Appendf(nil, `{"type":"publish","channel":"press","event":"signal:all","data":%s}`, dataObject("publisher", noiseBytes))
	for time.Since(start) < d && c.send(opText, publish) == nil {
		sent++
		time.Sleep(time.Second / frozenRate)
	}
	fmt.Printf("press: %d unfinished messages, %d frozen readers, %d messages of %d bytes\n", o.connections-frozenMembers, frozenMembers, sent, noiseBytes)
	return nil
}
