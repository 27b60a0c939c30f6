package main

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// The reference host's line: 1,000 members behind 3 Mbit/s. Half of the line is filled: half of that with announcements
// to whole rooms, half with directed signalling (offers, answers, candidates in the proportion of S3), at random times.
const (
	lineRooms   = 20
	lineMembers = 50
	lineLoad    = 0.5
	// envelopeBytes is about what a delivery has beside its data, frame header included.
	envelopeBytes = 130
	lineP99Bound  = 500 // ms, of signalling
)

// lineDirected are the data sizes of one exchange's messages.
var lineDirected = [messagesInS3]int{offerBytes, offerBytes, candidateBytes, candidateBytes, candidateBytes, candidateBytes,
	candidateBytes, candidateBytes, candidateBytes, candidateBytes, candidateBytes, candidateBytes}

// lineRun is the load behind the line. Its fields are safe for the read goroutines.
type lineRun struct {
	fleet              *fleet
	announce, directed histogram
	delivered          atomic.Int64
}

// behindLine runs the scenario for d against t.
func behindLine(t *target, d time.Duration) (result, error) {
	proxy, err := startLine(t.addr)
	if err != nil {
		return result{}, err
	}
	defer proxy.close()
	s := &lineRun{}
	ready := make(chan struct{})
	start := time.Now()
	s.fleet, err = connect(t.through(proxy.addr()), shape{rooms: lineRooms, members: lineMembers, own: true}, func(m *member, payload []byte, at int64) {
		<-ready
		s.receive(m, payload, at)
	})
	if err != nil {
		return result{}, err
	}
	defer s.fleet.close()
	close(ready)
	connecting := time.Since(start)

	sold := proxy.busy.Load()
	stop := startMeter(t.pid)
	expected, signals, err := s.publish(d)
	if err != nil {
		return result{}, err
	}
	u := stop()
	used := time.Duration(proxy.busy.Load() - sold)
	for end := time.Now().Add(drainTimeout); time.Now().Before(end) && s.delivered.Load() < expected; {
		time.Sleep(5 * time.Millisecond)
	}
	res := measured(t, "line 3 Mbit/s", "deliveries", s.delivered.Load(), u).withLatency(&s.directed)
	if missing := expected - s.delivered.Load(); missing != 0 {
		s.fleet.fault(&s.fleet.faults.lost, "%d deliveries missing", missing)
		s.fleet.faults.lost.Add(missing - 1)
	}
	res.Faults = s.fleet.faultsSoFar()
	res.Notes = fmt.Sprintf("%d members connected in %.1f s through the line; then it was %.0f %% busy with %d directed messages (%.1f exchanges/s; their latencies above) and %d deliveries of announcements (p50 %.0f ms, p99 %.0f ms)",
		lineRooms*lineMembers, connecting.Seconds(), 100*used.Seconds()/u.wall.Seconds(), signals, float64(signals)/messagesInS3/d.Seconds(),
		expected-signals, ms(s.announce.percentile(0.5)), ms(s.announce.percentile(0.99)))
	return res, nil
}

func (s *lineRun) receive(m *member, payload []byte, at int64) {
	st, ok := m.stampOf(payload)
	if !ok {
		return
	}
	s.delivered.Add(1)
	m.inOrder(int(st.slot)%lanes, st)
	if st.slot == laneAll {
		s.announce.add(at - st.at)
		return
	}
	s.directed.add(at - st.at)
	if int(st.publisher) != m.index^1 {
		s.fleet.fault(&s.fleet.faults.stray, "%s: overheard member %d", m.id, st.publisher)
	}
}

// lineRates returns announcements and directed messages per second that together fill lineLoad of the line.
func lineRates() (announcements, directed float64) {
	perSecond := lineLoad * lineBitsPerSecond / 8
	onLine := func(data int) float64 {
		n := data + envelopeBytes
		return float64(n + (n+segmentBytes-1)/segmentBytes*headerBytes)
	}
	var exchange float64
	for _, size := range lineDirected {
		exchange += 2 * onLine(size) // once up, once down
	}
	return perSecond / 2 / (lineMembers * onLine(fanoutBytes)), perSecond / 2 / exchange * messagesInS3
}

// publish sends at random times (Poisson, always the same ones) for d. It returns the deliveries to expect and how many of them are directed.
func (s *lineRun) publish(d time.Duration) (expected, signals int64, err error) {
	clock, err := newAlarm()
	if err != nil {
		return 0, 0, err
	}
	defer clock.close()
	frames := map[string]*template{}
	frame := func(m *member, event string, size int) *template {
		key := fmt.Sprint(m.id, event, size)
		if frames[key] == nil {
			frames[key] = m.publishFrame(event, size)
		}
		return frames[key]
	}
	random := rand.New(rand.NewPCG(3, 7))
	announcements, directed := lineRates()
	reported, start := now(), now()
	for due := start; ; {
		due += int64(random.ExpFloat64() * 1e9 / (announcements + directed))
		if due-start > int64(d) {
			return expected, signals, nil
		}
		clock.until(due)
		if now()-reported > int64(5*time.Second) {
			reported = now()
			progress("%s: behind the line for %.0f of %.0f s", s.fleet.target.name, time.Duration(now()-start).Seconds(), d.Seconds())
		}
		rm := s.fleet.rooms[random.IntN(lineRooms)]
		m := rm.members[random.IntN(lineMembers)]
		if random.Float64()*(announcements+directed) < announcements {
			m.publish(frame(m, "signal:all", fanoutBytes), laneAll, laneAll, due)
			expected += lineMembers - 1
			continue
		}
		size := lineDirected[signals%messagesInS3]
		m.publish(frame(m, "signal:"+rm.members[m.index^1].id, size), laneOne, laneOne, due)
		expected++
		signals++
	}
}
