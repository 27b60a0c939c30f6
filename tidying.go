package main

import (
	"runtime"
	"runtime/debug"
	"time"
)

// tidying gives the memory of connections that have come to rest back to the system: the stacks on which they read
// their last messages, and what the handshakes left behind. Measured with 10,000 connections at rest it takes them
// from 8.8 KiB each to 7.0, when each still had a WebSocket library of its own. Owned by the sweep goroutine.
//
// A goroutine's stack never shrinks below 4 KB, but a fresh goroutine that only waits begins with 2 KB, provided that the last
// garbage collection saw small stacks: from them the runtime derives the size to begin with. Hence the order:
// collect, let the connections move to fresh goroutines, and a sweep later hand back what that freed.
type tidying struct {
	arrivals uint64        // connections there have been when looked last
	quiet    time.Duration // since when none has arrived
	last     time.Duration // of the last tidying
	handBack bool          // connections have moved in the last sweep
}

// look tidies when it pays and when there is peace for it.
func (t *tidying) look(conns *registry, now time.Duration) {
	if t.handBack {
		t.handBack = false
		debug.FreeOSMemory()
		return
	}
	if arrivals := conns.arrivals(); arrivals != t.arrivals {
		t.arrivals, t.quiet = arrivals, now
	}
	since := now - t.last
	if since < restInterval || now-t.quiet < restAfter && since < restLatest {
		return
	}
	n := 0
	conns.each(func(c *conn) {
		if c.wire.grown.Load() && c.wire.atRest(now) {
			n++
		}
	})
	if n < restLeast || n < conns.live()/8 {
		return
	}
	runtime.GC()
	// All of them: those that moved in busier times may have begun with larger stacks, and one such stack keeps the
	// memory around it.
	conns.each(func(c *conn) {
		if c.wire.atRest(now) && c.outbox.ended() == notEnded {
			c.wire.nudge()
		}
	})
	t.last, t.handBack = now, true
}
