package main

import (
	"net/netip"
	"sync"
	"time"
)

// registry is the set of all live connections: it bounds their number, and the sweep walks over it.
type registry struct {
	// Immutable.
	maxConns      int // 0: no limit
	maxPerAddress int // 0: no limit

	mu        sync.Mutex
	conns     []*conn              // in no order; conn.slot is the index
	reserved  int                  // places of handshakes under way
	total     uint64               // connections so far
	addresses map[netip.Prefix]int // connections and reservations of each address; nil without a limit per address
	gone      traffic              // of connections that have ended
	idle      sync.Cond            // signalled when the last connection ends
}

// traffic is what went over sockets, in raw bytes without the handshake.
type traffic struct{ in, out uint64 }

func newRegistry(maxConns, maxPerAddress int) *registry {
	r := &registry{maxConns: maxConns, maxPerAddress: maxPerAddress}
	r.idle.L = &r.mu
	if maxPerAddress > 0 {
		r.addresses = make(map[netip.Prefix]int)
	}
	return r
}

// reserve takes a place for a handshake, or refuses it. Exactly one of add and cancel must follow a nil refusal.
func (r *registry) reserve(address netip.Addr) *Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.maxConns > 0 && len(r.conns)+r.reserved >= r.maxConns {
		return refuseTooManyConnections
	}
	if r.addresses != nil && address.IsValid() {
		key := addressKey(address)
		if r.addresses[key] >= r.maxPerAddress {
			return refuseTooManyFromAddress
		}
		r.addresses[key]++
	}
	r.reserved++
	return nil
}

// cancel gives a reserved place back: the handshake failed.
func (r *registry) cancel(address netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reserved--
	r.leaveAddress(address)
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
	r.total++
	c.slot = len(r.conns)
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
	r.leaveAddress(c.address)
	if last == 0 {
		r.idle.Broadcast()
	}
}

// leaveAddress counts an address down. Called with mu held.
func (r *registry) leaveAddress(address netip.Addr) {
	if r.addresses == nil || !address.IsValid() {
		return // clients of a unix socket have no address
	}
	key := addressKey(address)
	if r.addresses[key]--; r.addresses[key] == 0 {
		delete(r.addresses, key)
	}
}

// each visits every connection that lives throughout, without holding the mutex while it visits. Connections
// that come or go meanwhile may be missed or visited twice.
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

// sweep looks at a connection's deadlines: token, message, silence, ping. now is by the server's monotonic clock, wall by
// the wall clock, which alone knows when a token expires. Sweep goroutine.
func (c *conn) sweep(now time.Duration, wall time.Time, flush func(*Outbox)) {
	limits := c.limits
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
		if c.outbox.put(pingFrame) {
			flush(&c.outbox)
		}
	}
}
