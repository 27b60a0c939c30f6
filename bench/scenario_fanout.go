package main

import (
	"fmt"
	"sync/atomic"
	"time"
)

// S2: rooms in which everybody hears everything.
const (
	fanoutBytes = 300 // of data in each message
	maxWindow   = 64
	// openSlot marks messages of the open loop, whose delivery starts nothing.
	openSlot = maxWindow
	// warmUp is the load before the measured time: it fills caches, buffers and the allocator.
	warmUp = 300 * time.Millisecond
	// drainTimeout is how long the last messages may take; what has not arrived then is lost.
	drainTimeout = 10 * time.Second
)

// fanout drives one fleet through closed and open loops, one after the other.
type fanout struct {
	fleet     *fleet
	frames    map[*member]*template
	rooms     map[*room]*fanoutRoom
	latency   histogram
	stopping  atomic.Bool
	published atomic.Int64
	delivered atomic.Int64
}

// fanoutRoom is one room's closed loops: slot i's message is out until remaining[i] is 0.
type fanoutRoom struct {
	turn      atomic.Uint32 // whose turn it is to publish
	remaining [maxWindow]atomic.Int32
}

// newFanout connects rooms full of members, of which the first quiet ones never read, with messages of size bytes of data.
func newFanout(t *target, sh shape, size int) (*fanout, error) {
	s := &fanout{frames: map[*member]*template{}, rooms: map[*room]*fanoutRoom{}}
	ready := make(chan struct{})
	var err error
	s.fleet, err = connect(t, sh, func(m *member, payload []byte, at int64) {
		<-ready
		s.receive(m, payload, at)
	})
	if err != nil {
		return nil, err
	}
	for _, rm := range s.fleet.rooms {
		s.rooms[rm] = &fanoutRoom{}
		for _, m := range rm.members {
			s.frames[m] = m.publishFrame("signal:all", size)
		}
	}
	close(ready)
	return s, nil
}

// receive takes one delivery. The last one of a closed loop's message publishes that loop's next.
func (s *fanout) receive(m *member, payload []byte, at int64) {
	st, ok := m.stampOf(payload)
	if !ok {
		return
	}
	m.inOrder(laneAll, st)
	s.latency.add(at - st.at)
	s.delivered.Add(1)
	if st.slot < maxWindow && s.rooms[m.room].remaining[st.slot].Add(-1) == 0 && !s.stopping.Load() {
		s.publish(m.room, st.slot, now())
	}
}

// publish sends the message of the member whose turn it is. Turns go round, so that no one outruns its rate limit.
func (s *fanout) publish(rm *room, slot uint8, at int64) {
	state := s.rooms[rm]
	m := rm.members[int(state.turn.Add(1))%len(rm.members)]
	if slot < maxWindow {
		state.remaining[slot].Store(int32(len(rm.members) - 1))
	}
	s.published.Add(1)
	m.publish(s.frames[m], laneAll, slot, at)
}

// closedLoop keeps window messages in flight in each room for d and measures deliveries.
func (s *fanout) closedLoop(window int, d time.Duration) result {
	s.stopping.Store(false)
	for _, rm := range s.fleet.rooms {
		for slot := range window {
			s.publish(rm, uint8(slot), now())
		}
	}
	time.Sleep(warmUp)
	res := s.measure(fmt.Sprintf("S2 window %d", window), d, func() { time.Sleep(d) })
	res.Closed = true
	s.stopping.Store(true)
	s.drain(&res)
	return res
}

// openLoop publishes rate messages a second, evenly spaced, room after room, whatever becomes of them.
func (s *fanout) openLoop(rate float64, d time.Duration) (result, error) {
	clock, err := newAlarm()
	if err != nil {
		return result{}, err
	}
	defer clock.close()
	n, start := 0, now()
	send := func(d time.Duration) {
		for end := n + int(rate*d.Seconds()); n < end; n++ {
			due := start + int64(float64(n)*1e9/rate)
			clock.until(due)
			s.publish(s.fleet.rooms[n%len(s.fleet.rooms)], openSlot, due)
		}
	}
	send(warmUp)
	res := s.measure(fmt.Sprintf("S2 %g msg/s", rate), d, func() { send(d) })
	s.drain(&res)
	return res, nil
}

// measure runs load between two looks at the counters.
func (s *fanout) measure(name string, d time.Duration, load func()) result {
	s.latency.reset()
	stop := startMeter(s.fleet.target.pid)
	before := s.delivered.Load()
	load()
	u := stop()
	return measured(s.fleet.target, name, "deliveries", s.delivered.Load()-before, u).withLatency(&s.latency)
}

// drain waits for what is still under way and counts what never comes.
func (s *fanout) drain(res *result) {
	perMessage := int64(len(s.fleet.rooms[0].members) - 1)
	for end := time.Now().Add(drainTimeout); time.Now().Before(end) && s.delivered.Load() < s.published.Load()*perMessage; {
		time.Sleep(5 * time.Millisecond)
	}
	if missing := s.published.Load()*perMessage - s.delivered.Load(); missing != 0 {
		s.fleet.fault(&s.fleet.faults.lost, "%d deliveries missing", missing)
		s.fleet.faults.lost.Add(missing - 1)
		s.delivered.Add(missing) // counted once
	}
	res.Faults = s.fleet.faultsSoFar()
}
