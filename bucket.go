package main

import "time"

// rate is how much a bucket lets through: burst at once, perSecond in the long run. perSecond 0 means no limit.
type rate struct {
	perSecond float64
	burst     float64
}

// bucket is a token bucket without a timer: it is refilled when it is looked at. Times are durations since a common
// start, so that jumps of the wall clock do nothing. The zero bucket is full. Owned by one goroutine.
type bucket struct {
	used float64       // what is missing from a full bucket; more than burst: overdrawn
	at   time.Duration // when used was right
}

// refill brings the bucket up to now and reports whether it is full.
func (b *bucket) refill(r rate, now time.Duration) (full bool) {
	if b.used > 0 {
		b.used = max(0, b.used-r.perSecond*(now-b.at).Seconds())
	}
	b.at = now
	return b.used == 0
}

// take takes n if all of it is there. A refused take costs nothing.
func (b *bucket) take(r rate, n float64, now time.Duration) bool {
	if r.perSecond == 0 {
		return true
	}
	b.refill(r, now)
	if b.used+n > r.burst {
		return false
	}
	b.used += n
	return true
}

// debt is how long it takes until the bucket is no longer overdrawn, 0 when it is not.
func (b *bucket) debt(r rate) time.Duration {
	if r.perSecond == 0 || b.used <= r.burst {
		return 0
	}
	return time.Duration((b.used - r.burst) / r.perSecond * float64(time.Second))
}
