package main

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

// deadSocket is a socket for outboxes that are never flushed: deadlines do nothing.
type deadSocket struct{ net.Conn }

func (deadSocket) SetReadDeadline(time.Time) error  { return nil }
func (deadSocket) SetWriteDeadline(time.Time) error { return nil }

// socketlessConn is a connection whose frames stay in its outbox: the test holds the claim.
func socketlessConn(limits *connLimits, address string) *conn {
	c := &conn{limits: limits}
	if address != "" {
		c.address = netip.MustParseAddr(address)
	}
	c.outbox.socket, c.outbox.limit, c.outbox.budget = deadSocket{}, defaultMaxQueueBytes, &Budget{limit: 1 << 40}
	c.outbox.writing = true
	return c
}

func TestPlacesAreCountedFromTheHandshakeOn(t *testing.T) {
	r := newRegistry(2, 0)
	one, two := socketlessConn(nil, "192.0.2.1"), socketlessConn(nil, "192.0.2.1")
	want := func(what string, got, want *Refusal) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	want("the first", r.reserve(one.address), nil)
	want("the second", r.reserve(two.address), nil)
	want("a third handshake while two are under way", r.reserve(one.address), refuseTooManyConnections)
	r.add(one)
	want("a third", r.reserve(one.address), refuseTooManyConnections)
	r.cancel(two.address)
	want("after a failed handshake", r.reserve(two.address), nil)
	r.add(two)
	r.remove(one)
	want("after one has gone", r.reserve(one.address), nil)
	if live, total, _ := r.counts(); live != 1 || total != 2 {
		t.Errorf("%d live of %d, want 1 of 2", live, total)
	}
}

func TestOneAddressHasItsOwnLimit(t *testing.T) {
	r := newRegistry(0, 2)
	for _, c := range []struct {
		address string
		want    *Refusal
	}{
		{"192.0.2.1", nil},
		{"192.0.2.1", nil},
		{"192.0.2.1", refuseTooManyFromAddress},
		{"192.0.2.2", nil},
		{"2001:db8:0:1::1", nil},
		{"2001:db8:0:1:ffff::2", nil}, // the same /64
		{"2001:db8:0:1:a:b:c:d", refuseTooManyFromAddress},
		{"2001:db8:0:2::1", nil},
	} {
		if got := r.reserve(netip.MustParseAddr(c.address)); got != c.want {
			t.Errorf("%s: %v, want %v", c.address, got, c.want)
		}
	}
	for range 10 {
		if got := r.reserve(netip.Addr{}); got != nil {
			t.Fatalf("clients of a unix socket have no address to be limited by: %v", got)
		}
	}
	for address, n := range map[string]int{"192.0.2.1": 2, "192.0.2.2": 1, "2001:db8:0:1::9": 2, "2001:db8:0:2::9": 1} {
		for range n {
			r.cancel(netip.MustParseAddr(address))
		}
	}
	if len(r.addresses) != 0 {
		t.Errorf("%d addresses are remembered without a connection", len(r.addresses))
	}
}

func TestEveryConnectionIsVisitedWhileOthersComeAndGo(t *testing.T) {
	r := newRegistry(0, 0)
	var conns []*conn
	for range 3*sweepChunk + 7 {
		c := socketlessConn(nil, "")
		r.reserve(c.address)
		r.add(c)
		conns = append(conns, c)
	}
	seen := make(map[*conn]int)
	r.each(func(c *conn) { seen[c]++ })
	for _, c := range conns {
		if seen[c] != 1 {
			t.Fatalf("a connection was visited %d times", seen[c])
		}
	}
	for i := len(conns) - 1; i >= 0; i -= 2 { // every second one, so that slots move
		r.remove(conns[i])
	}
	clear(seen)
	r.each(func(c *conn) { seen[c]++ })
	if want := len(conns) / 2; len(seen) != want || r.live() != want {
		t.Errorf("%d visited, %d live, want %d", len(seen), r.live(), want)
	}
}

func TestWaitEndsWithTheLastConnection(t *testing.T) {
	r := newRegistry(0, 0)
	r.wait() // nobody there
	one, two := socketlessConn(nil, ""), socketlessConn(nil, "")
	for _, c := range []*conn{one, two} {
		r.reserve(c.address)
		r.add(c)
	}
	gone := make(chan struct{})
	go func() { r.wait(); close(gone) }()
	r.remove(one)
	select {
	case <-gone:
		t.Error("wait ended with a connection left")
	default:
	}
	r.remove(two)
	select {
	case <-gone:
	case <-time.After(patience):
		t.Error("wait does not end")
	}
}

// What connections have sent and received is still counted when they are gone.
func TestTrafficOutlivesItsConnection(t *testing.T) {
	r := newRegistry(0, 0)
	for i := range 3 {
		c := socketlessConn(nil, "")
		r.reserve(c.address)
		r.add(c)
		c.wire.received.Store(10)
		c.outbox.sent = 100
		if i > 0 {
			r.remove(c)
		}
	}
	if _, _, sum := r.counts(); sum != (traffic{30, 300}) {
		t.Errorf("traffic is %+v", sum)
	}
}

// sweepTarget is a registry of n connections at rest, none of them due for anything.
func sweepTarget(n int) (sweep func()) {
	cfg := DefaultConfig()
	limits := newConnLimits(&cfg.WebSocket)
	r := newRegistry(0, 0)
	for range n {
		c := socketlessConn(limits, "")
		c.pinged = time.Minute
		c.wire.lastRead.Store(int64(time.Minute))
		r.reserve(c.address)
		r.add(c)
	}
	now, wall := time.Minute+time.Second, time.Now()
	flush := func(*Outbox) { panic("nothing is due") }
	return func() { r.each(func(c *conn) { c.sweep(limits, now, wall, flush) }) }
}

func TestASweepOverIdleConnectionsAllocatesNothing(t *testing.T) {
	if n := testing.AllocsPerRun(10, sweepTarget(1000)); n > 0 {
		t.Errorf("a sweep allocates %v objects", n)
	}
}

func BenchmarkSweep10k(b *testing.B) {
	sweep := sweepTarget(10000)
	b.ReportAllocs()
	for b.Loop() {
		sweep()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/10000, "ns/conn")
}
