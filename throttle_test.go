package main

import (
	"fmt"
	"testing"
	"time"
)

func TestAThrottleTellsReasonsAndRoomsApart(t *testing.T) {
	var th throttle
	now := time.Unix(1_800_000_000, 0)
	allow := func(reason Reason, room string, after time.Duration, want bool) {
		t.Helper()
		now = now.Add(after)
		if got := th.allow(reason, room, now); got != want {
			t.Errorf("%v in %q: %t, want %t", reason, room, got, want)
		}
	}
	allow(NotSubscribed, "aa", 0, true)
	allow(NotSubscribed, "aa", 0, false)
	allow(NotSubscribed, "bb", 0, true)
	allow(BadData, "aa", 0, true)
	allow(NotSubscribed, "aa", errorRepeat-1, false) // and being held back does not prolong it
	allow(NotSubscribed, "aa", 1, true)
	allow(NotSubscribed, "aa", errorRepeat/2, false)
}

func TestAThrottleIsBoundedAndForgetsTheOldest(t *testing.T) {
	var th throttle
	now := time.Unix(1_800_000_000, 0)
	for i := range 1000 {
		now = now.Add(time.Millisecond)
		if !th.allow(BadChannel, fmt.Sprint("room ", i), now) {
			t.Fatalf("room %d was never told", i)
		}
	}
	if len(th.said) != maxThrottled {
		t.Errorf("%d entries, want %d", len(th.said), maxThrottled)
	}
	for i := 1000 - maxThrottled; i < 1000; i++ {
		if th.allow(BadChannel, fmt.Sprint("room ", i), now) {
			t.Errorf("room %d, one of the latest, was forgotten", i)
		}
	}
	if !th.allow(BadChannel, fmt.Sprint("room ", 1000-maxThrottled-1), now) {
		t.Error("the oldest was not forgotten")
	}
}
