package main

import (
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// registry is the set of all live connections: it bounds their number, and the sweep walks over it.
type registry struct {
	mu            sync.Mutex
	maxConns      int                  // 0: no limit
	maxPerAddress int                  // 0: no limit
	lowered       bool                 // there may be more than that, from when the limits were higher
	conns         []*conn              // in no order; conn.slot is the index
	reserved      int                  // places of handshakes under way
	total         uint64               // connections so far
	pending       map[netip.Prefix]int // reservations of each address
	addresses     map[netip.Prefix]int // connections and reservations of each address; nil without a limit per address
	gone          traffic              // of connections that have ended
	idle          sync.Cond            // signalled when the last connection ends
}

// traffic is what went over sockets, in raw bytes without the handshake.
type traffic struct{ in, out uint64 }

func newRegistry(maxConns, maxPerAddress int) *registry {
	r := &registry{maxConns: maxConns, maxPerAddress: maxPerAddress, pending: make(map[netip.Prefix]int)}
	r.idle.L = &r.mu
	if maxPerAddress > 0 {
		r.addresses = make(map[netip.Prefix]int)
	}
	return r
}

// setLimits changes the limits. Who is here stays.
func (r *registry) setLimits(maxConns, maxPerAddress int, lowered bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.maxConns, r.maxPerAddress, r.lowered = maxConns, maxPerAddress, lowered
	switch {
	case maxPerAddress == 0:
		r.addresses = nil
	case r.addresses == nil:
		r.addresses = maps.Clone(r.pending)
		for _, c := range r.conns {
			if c.address.IsValid() {
				r.addresses[addressKey(c.address)]++
			}
		}
	}
}

// snapshot returns all connections there are now.
func (r *registry) snapshot() []*conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*conn(nil), r.conns...)
}

// reserve takes a place for a handshake, or refuses it. Exactly one of add and cancel must follow a nil refusal.
func (r *registry) reserve(address netip.Addr) *Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.maxConns > 0 && len(r.conns)+r.reserved >= r.maxConns {
		return refuseTooManyConnections
	}
	if address.IsValid() {
		key := addressKey(address)
		if r.addresses != nil {
			if r.addresses[key] >= r.maxPerAddress {
				return refuseTooManyFromAddress
			}
			r.addresses[key]++
		}
		r.pending[key]++
	}
	r.reserved++
	return nil
}

// cancel gives a reserved place back: the handshake failed.
func (r *registry) cancel(address netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reserved--
	countDown(r.pending, address)
	countDown(r.addresses, address)
}

// arrivals is how many connections there have been.
func (r *registry) arrivals() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total
}

// live is how many connections there are.
func (r *registry) live() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conns)
}

// add turns a reserved place into a connection.
func (r *registry) add(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reserved--
	countDown(r.pending, c.address)
	r.total++
	c.slot = int32(len(r.conns))
	r.conns = append(r.conns, c)
}

// remove forgets a connection that has ended.
func (r *registry) remove(c *conn) {
	in, out := uint64(c.wire.received.Load()), c.outbox.sentBytes()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone.in += in
	r.gone.out += out
	last := len(r.conns) - 1
	r.conns[c.slot] = r.conns[last]
	r.conns[c.slot].slot = c.slot
	r.conns[last] = nil
	r.conns = r.conns[:last]
	countDown(r.addresses, c.address)
	if last == 0 {
		r.idle.Broadcast()
	}
}

// countDown takes one from an address's count. A nil map counts nothing.
func countDown(counts map[netip.Prefix]int, address netip.Addr) {
	if counts == nil || !address.IsValid() {
		return // clients of a unix socket have no address
	}
	key := addressKey(address)
	if counts[key]--; counts[key] == 0 {
		delete(counts, key)
	}
}

// each visits the connections without holding the mutex while it visits. While connections come and go some may be
// missed or visited twice; snapshot misses none.
func (r *registry) each(visit func(*conn)) {
	var chunk [sweepChunk]*conn
	for from := 0; ; {
		r.mu.Lock()
		n := 0
		if from < len(r.conns) {
			n = copy(chunk[:], r.conns[from:])
		}
		r.mu.Unlock()
		if n == 0 {
			return
		}
		for _, c := range chunk[:n] {
			visit(c)
		}
		from += n
	}
}

// wait blocks until there is no connection. The caller has seen to it that none is added any more.
func (r *registry) wait() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.conns) > 0 {
		r.idle.Wait()
	}
}

// counts returns how many connections there are, were in all, and what all of them have sent and received.
func (r *registry) counts() (live int, total uint64, sum traffic) {
	r.each(func(c *conn) {
		sum.in += uint64(c.wire.received.Load())
		sum.out += c.outbox.sentBytes()
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	sum.in += r.gone.in
	sum.out += r.gone.out
	return len(r.conns), r.total, sum
}

// excuse lets a connection's silence and its unfinished message stand still for gap up to now, in which the server itself
// stood still: it could not have heard anything. Sweep goroutine.
func (c *conn) excuse(now, gap time.Duration) {
	for _, at := range []*atomic.Int64{&c.wire.lastRead, &c.wire.since} {
		if before := at.Load(); before != 0 && time.Duration(before) <= now-gap {
			at.CompareAndSwap(before, before+int64(gap)) // the reader may have heard something this moment
		}
	}
}

// sweep looks at a connection's deadlines: token, message, silence, ping. now is by the server's monotonic clock, wall by
// the wall clock, which alone knows when a token expires. Sweep goroutine.
func (c *conn) sweep(limits *connLimits, now time.Duration, wall time.Time, flush func(*Outbox)) {
	if c.ably != nil {
		limits = c.ably.limits(limits)
		c.ably.sweep(wall, flush)
	}
	if c.expires != 0 && wall.UnixMilli()-c.expires >= tokenLeeway.Milliseconds() {
		c.outbox.end(ExpiredToken)
	}
	if !c.wire.paused.Load() {
		if since := c.wire.since.Load(); since != 0 && now-time.Duration(since) >= limits.messageTimeout {
			c.outbox.end(MessageTimeout)
		}
		if now-time.Duration(c.wire.lastRead.Load()) >= limits.idleTimeout {
			c.outbox.end(IdleTimeout)
		}
	}
	if now-c.pinged >= limits.pingInterval {
		c.pinged = now
		flushIt := c.outbox.put(pingFrame)
		if c.ably != nil && c.ably.heartbeats {
			flushIt = c.outbox.put(ablyHeartbeats[c.ably.format]) || flushIt
		}
		if flushIt {
			flush(&c.outbox)
		}
	}
}
