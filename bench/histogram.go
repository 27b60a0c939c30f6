package main

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// subBuckets is how finely each power of two is divided: a percentile is right to 1/64, 1.6 %.
const subBuckets = 64

// histogram counts durations. Any goroutine may add; it takes no memory per sample.
type histogram struct {
	counts [40 * subBuckets]atomic.Uint64 // up to 2^45 ns, more than an hour
}

// add counts one duration of ns nanoseconds. A negative one (clock steps do not happen, early timers may) counts as 0.
func (h *histogram) add(ns int64) {
	h.counts[bucketOf(uint64(max(ns, 0)))].Add(1)
}

// bucketOf returns the bucket of n: exact below 64, then 64 buckets per power of two.
func bucketOf(n uint64) int {
	if n < subBuckets {
		return int(n)
	}
	shift := bits.Len64(n) - 7 // n>>shift is in 64..127
	return min((shift+1)*subBuckets+int(n>>shift)-subBuckets, 40*subBuckets-1)
}

// bucketTop returns the largest value of bucket i.
func bucketTop(i int) int64 {
	if i < subBuckets {
		return int64(i)
	}
	shift := i/subBuckets - 1
	return int64(i%subBuckets+subBuckets+1)<<shift - 1
}

// percentile returns the duration that a share p (0 to 1) of the samples does not exceed; 0 without samples.
func (h *histogram) percentile(p float64) time.Duration {
	var total uint64
	for i := range h.counts {
		total += h.counts[i].Load()
	}
	if total == 0 {
		return 0
	}
	want, seen := uint64(p*float64(total)+0.5), uint64(0)
	for i := range h.counts {
		seen += h.counts[i].Load()
		if seen >= max(want, 1) {
			return time.Duration(bucketTop(i))
		}
	}
	return 0
}

// reset forgets all samples.
func (h *histogram) reset() {
	for i := range h.counts {
		h.counts[i].Store(0)
	}
}
