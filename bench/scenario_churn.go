package main

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// S4: connections come and go. One cycle is connect, upgrade, subscribe, its answer, and a whole closing handshake.
const churnAtOnce = 64

// churn runs cycles for d.
func churn(t *target, d time.Duration) result {
	var (
		f       fleet // for its fault counters alone
		wg      sync.WaitGroup
		latency histogram
		cycles  atomic.Int64
		end     = time.Now().Add(d)
	)
	stop := startMeter(t.pid)
	for worker := range churnAtOnce {
		wg.Go(func() {
			for n := 0; time.Now().Before(end); n++ {
				start := now()
				if err := cycle(t, fmt.Sprintf("churn-%d-%d", worker, n), fmt.Sprintf("churn-%d", worker%8)); err != nil {
					f.fault(&f.faults.cut, "%v", err)
					continue
				}
				latency.add(now() - start)
				cycles.Add(1)
			}
		})
	}
	wg.Wait()
	res := measured(t, "S4 churn", "cycles", cycles.Load(), stop()).withLatency(&latency)
	res.Closed = true
	res.Faults = f.faultsSoFar()
	return res
}

func cycle(t *target, user, room string) error {
	s, err := t.dial(user)
	if err != nil {
		return err
	}
	if err := s.join(room, "signal:all"); err != nil {
		s.conn.Close()
		return err
	}
	return s.leave()
}
