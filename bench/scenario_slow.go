package main

import (
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// S5: one member of the first of two rooms does not read. Nobody else may notice.
const (
	slowRate  = 200     // messages a second in each room
	slowBytes = 8000    // of data in each
	slowQueue = 1 << 20 // bytes that the server may queue: the default of max_queue_bytes
)

// slowMember runs S5 for d.
func slowMember(t *target, d time.Duration) (result, error) {
	s := &slowRun{}
	var err error
	ready := make(chan struct{})
	s.fleet, err = connect(t, shape{rooms: 2, members: 50, quiet: 1}, func(m *member, payload []byte, at int64) {
		<-ready
		s.receive(m, payload, at)
	})
	if err != nil {
		return result{}, err
	}
	defer s.fleet.close()
	quiet := s.fleet.rooms[0].members[0]
	close(ready)

	cuts, counted := askCloses(t, "slow_consumer")
	rss, _ := memoryOf(t.pid)
	peak, stopPeak := watchRSS(t.pid)
	stop := startMeter(t.pid)
	published, err := s.publish(d)
	if err != nil {
		return result{}, err
	}
	u := stop()
	expected := published[0]*48 + published[1]*49
	for end := time.Now().Add(drainTimeout); time.Now().Before(end) && s.delivered.Load() < expected; {
		time.Sleep(5 * time.Millisecond)
	}
	stopPeak()
	res := measured(t, "S5 slow member", "deliveries", s.delivered.Load(), u).withLatency(&s.latency[0])
	if missing := expected - s.delivered.Load(); missing != 0 {
		s.fleet.fault(&s.fleet.faults.lost, "%d deliveries missing", missing)
		s.fleet.faults.lost.Add(missing - 1)
	}
	res.Faults = s.fleet.faultsSoFar()
	res.Slow = &slowResult{OtherP99: ms(s.latency[1].percentile(0.99)), SlowCut: wasCut(quiet), Growth: max(0, peak.Load()-rss)}
	if after, _ := askCloses(t, "slow_consumer"); counted && after-cuts != 1 {
		res.Notes = fmt.Sprintf("/metrics counts %g closes as slow_consumer, want 1", after-cuts)
		res.Slow.SlowCut = false
	}
	return res, nil
}

// slowRun is the load of S5. Its fields are safe for the read goroutines.
type slowRun struct {
	fleet     *fleet
	delivered atomic.Int64
	latency   [2]histogram // by room
}

func (s *slowRun) receive(m *member, payload []byte, at int64) {
	st, ok := m.stampOf(payload)
	if !ok {
		return
	}
	m.inOrder(laneAll, st)
	s.delivered.Add(1)
	which := 0
	if m.room == s.fleet.rooms[1] {
		which = 1
	}
	s.latency[which].add(at - st.at)
}

// publish sends on schedule for d, the rooms in turn, all members but the slow one in turn, and returns how many each room got.
func (s *slowRun) publish(d time.Duration) (published [2]int64, err error) {
	clock, err := newAlarm()
	if err != nil {
		return published, err
	}
	defer clock.close()
	frames := map[*member]*template{}
	for _, rm := range s.fleet.rooms {
		for _, m := range rm.members {
			frames[m] = m.publishFrame("signal:all", slowBytes)
		}
	}
	start := now()
	for n := range int(2 * slowRate * d.Seconds()) {
		due := start + int64(n)*int64(time.Second)/(2*slowRate)
		clock.until(due)
		rm := s.fleet.rooms[n%2]
		m := rm.members[1+(n/2)%(len(rm.members)-1)]
		m.publish(frames[m], laneAll, openSlot, due)
		published[n%2]++
	}
	return published, nil
}

// watchRSS samples the resident set of pid ten times a second and keeps the highest until stop is called.
func watchRSS(pid int) (peak *atomic.Int64, stop func()) {
	peak = new(atomic.Int64)
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			rss, _ := memoryOf(pid)
			peak.Store(max(peak.Load(), rss))
			select {
			case <-end:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return peak, func() {
		close(end)
		<-ended
	}
}

// wasCut reads what the kernel still holds for a member that never read, and says whether the connection ended behind it.
func wasCut(m *member) bool {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		m.conn.SetReadDeadline(time.Now().Add(10 * time.Second)) // of silence: a stalled TCP tries again ever more rarely
		op, _, err := m.read()
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			return false
		}
		if err != nil || op == opClose {
			return true
		}
	}
	return false
}
