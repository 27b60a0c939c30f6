package main

import (
	"context"
	"net"
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
	s.handshakes.Wait()
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
