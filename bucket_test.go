package main

import (
	"testing"
	"time"
)

func TestABucketHoldsItsBurstAndRefillsAtItsRate(t *testing.T) {
	limit := rate{perSecond: 2, burst: 4}
	var b bucket
	now := 100 * time.Hour // a bucket that was never used is full, whenever it is first looked at
	take := func(after time.Duration, n float64, want bool) {
		t.Helper()
		now += after
		if got := b.take(limit, n, now); got != want {
			t.Errorf("at %v: taking %v is %t, want %t", now, n, got, want)
		}
	}
	take(0, 3, true)
	take(0, 2, false) // a refused take costs nothing
	take(0, 1, true)
	take(0, 1, false)
	take(499*time.Millisecond, 1, false)
	take(time.Millisecond, 1, true)
	take(time.Hour, 5, false) // never more than the burst
	take(0, 4, true)
	if b.refill(limit, now+1999*time.Millisecond) {
		t.Error("full before its time")
	}
	if !b.refill(limit, now+2001*time.Millisecond) {
		t.Error("not full after its time")
	}
}

func TestADebtIsPaidAtTheRate(t *testing.T) {
	limit := rate{perSecond: 1000, burst: 500}
	b := bucket{used: 2500}
	if debt := b.debt(limit); debt != 2*time.Second {
		t.Errorf("a debt of %v, want 2 s", debt)
	}
	b.refill(limit, 1500*time.Millisecond)
	if debt := b.debt(limit); debt != 500*time.Millisecond {
		t.Errorf("after 1.5 s a debt of %v, want 0.5 s", debt)
	}
	b.refill(limit, 2*time.Second)
	if debt := b.debt(limit); debt != 0 {
		t.Errorf("after 2 s a debt of %v", debt)
	}
}

func TestARateOfNothingIsNoLimit(t *testing.T) {
	var b bucket
	for range 1000 {
		if !b.take(rate{}, 1e9, 0) || b.debt(rate{}) != 0 {
			t.Fatal("refused without a limit")
		}
	}
}
