package main

import (
	"context"
	"net"
	"sync"
	"time"
)

// drain sends every client away and waits for it. First /health says so and upgrades are refused, file transfers end, and
// then the connections, spread over server.drain_seconds: so many clients do not come back in one moment. Few clients do
// not take all that time. The listener stays open meanwhile, so that /health shows the drain; one that was inherited is given
// up at once, and its next clients wait for the next server. Run's goroutine.
func (s *Server) drain() {
	began, window := s.clock(), seconds(s.rules.Load().cfg.Server.DrainSeconds)
	s.draining.Store(true)
	close(s.stopped)
	s.notify.stopping()
	s.log.Info("draining", "connections", s.conns.live(), "seconds", window.Seconds())
	if s.inherited {
		s.listener.Close()
	}
	s.handshakes.wait()
	s.endTransfers()
	conns := s.conns.snapshot()
	gone := make(chan struct{})
	go func() { s.conns.wait(); close(gone) }()
	s.sendAway(conns, window, gone)
	select {
	case <-gone:
	case <-time.After(began + window + drainGrace - s.clock()):
		for _, c := range conns {
			cut(c.wire.Conn)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), shutdownWait)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
	<-gone
}

// underWay counts what a drain must wait for. A sync.WaitGroup may not grow from zero while somebody waits for it, and panics when it
// does so at the wrong moment: newcomers do just that. Any goroutine may call its methods.
type underWay struct {
	mu   sync.Mutex
	n    int
	none chan struct{} // made by wait, closed when n is 0; nil before
}

// begin counts one, and reports whether it did: whatever begins behind wait finds the server draining, and ends by itself.
func (u *underWay) begin() (counted bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.none != nil {
		return false
	}
	u.n++
	return true
}

// end is the end of one that begin counted, or did not.
func (u *underWay) end(counted bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !counted {
		return
	}
	if u.n--; u.n == 0 && u.none != nil {
		close(u.none)
	}
}

// wait returns when everything has ended that had begun. It may be called once.
func (u *underWay) wait() {
	u.mu.Lock()
	u.none = make(chan struct{})
	if u.n == 0 {
		close(u.none)
	}
	u.mu.Unlock()
	<-u.none
}

// endTransfers tells those who relay files that the server stops, and gives that a moment to reach them.
func (s *Server) endTransfers() {
	underWay := s.relayed.active.Load() > 0
	s.hub.reload(s.hubRules(s.rules.Load(), true))
	if underWay {
		time.Sleep(drainNotice)
	}
}

// sendAway ends the connections one after the other, evenly over the window, but never further apart than drainStep.
func (s *Server) sendAway(conns []*conn, window time.Duration, gone <-chan struct{}) {
	if len(conns) == 0 {
		return
	}
	began, step := s.clock(), min(drainStep, window/time.Duration(len(conns)))
	ticker := time.NewTicker(drainTick)
	defer ticker.Stop()
	for sent := 0; ; {
		due := len(conns)
		if step > 0 {
			due = min(due, 1+int((s.clock()-began)/step))
		}
		for ; sent < due; sent++ {
			conns[sent].outbox.end(GoingAway)
		}
		if sent == len(conns) {
			return
		}
		select {
		case <-gone:
			return
		case <-ticker.C:
		}
	}
}

// cut closes a socket whatever is under way on it.
func cut(socket net.Conn) {
	if wrapped, ok := socket.(interface{ NetConn() net.Conn }); ok {
		socket = wrapped.NetConn() // TLS would first say goodbye
	}
	socket.Close()
}
