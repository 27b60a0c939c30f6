package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"letshare/ably"
)

// The set alone: random messages of several connections, repeated and late ones among them, ends and graces, against plain maps.
func TestPresenceSetMeetsItsModel(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	set, state := newPresenceSet(), newAblyRoom("room", "series")
	now := time.UnixMilli(1_000_000)
	type session struct {
		generation uint64
		serial     int64
		there      bool // it has a socket that the set knows of
		leave      time.Time
		members    map[string]string
	}
	sessions := make(map[string]*session)
	for _, id := range []string{"one", "two", "three"} {
		sessions[id] = &session{generation: 1, members: make(map[string]string)}
	}
	for step := range 20_000 {
		id := []string{"one", "two", "three"}[rng.IntN(3)]
		s, name := sessions[id], []string{"a", "b", "c"}[rng.IntN(3)]
		switch n := rng.IntN(20); {
		case n == 0: // a message of an older socket
			if owner := set.owners[id]; owner != nil && set.join(id, owner.generation-1, &Member{}) != nil {
				t.Fatalf("step %d: an older socket is heard", step)
			}
		case n < 10:
			message := member(ably.PresenceAction(1+rng.IntN(4)), name, fmt.Sprint("data ", step))
			serial, repeated := s.serial, n == 1 && s.there && s.serial > 0
			if repeated {
				serial--
			} else {
				s.serial++
			}
			owner := set.join(id, s.generation, &Member{})
			s.there, s.leave = true, time.Time{}
			if at := ably.Some(serial); !owner.done(at) {
				set.carryOut(owner, at, []ably.PresenceMessage{message}, now.UnixMilli())
				owner.note(at)
				if message.Action == ably.PresenceLeave {
					delete(s.members, name)
				} else {
					s.members[name] = string(message.Data.Bytes)
				}
			} else if !repeated {
				t.Fatalf("step %d: a new message counts as repeated", step)
			}
		case n < 13:
			if owner := set.owners[id]; owner != nil && s.leave.IsZero() {
				s.leave = now.Add(presenceGrace)
				set.part(owner, s.leave)
				s.generation++
			}
		case n < 15:
			if owner := set.owners[id]; owner != nil {
				set.join(id, s.generation, &Member{})
				s.leave = time.Time{}
			}
		case n < 16:
			if owner := set.owners[id]; owner != nil {
				want := len(s.members)
				if leaves := set.depart(owner, now.UnixMilli()); len(leaves) != want {
					t.Fatalf("step %d: %d leave, want %d", step, len(leaves), want)
				}
				clear(s.members)
				s.there, s.leave = false, time.Time{}
			}
		default:
			now = now.Add(time.Duration(rng.IntN(10)) * time.Second)
			for owner := set.overdue(now); owner != nil; owner = set.overdue(now) {
				set.depart(owner, now.UnixMilli())
			}
			for _, s := range sessions {
				if !s.leave.IsZero() && !now.Before(s.leave) {
					clear(s.members)
					s.there, s.leave = false, time.Time{}
				}
			}
		}
		want := make(map[memberKey]string)
		for id, s := range sessions {
			for name, data := range s.members {
				want[memberKey{id, name}] = data
			}
		}
		got := make(map[memberKey]string)
		for key, m := range set.members {
			got[key] = string(m.item.Data.Bytes)
		}
		if !maps.Equal(got, want) {
			t.Fatalf("step %d: there are %v, want %v", step, got, want)
		}
		set.charged = set.size // the shard's part
		report := &shardReport{entered: make(map[*Member]int)}
		if set.check(report, state); len(report.findings) > 0 {
			t.Fatalf("step %d: %q", step, report.findings)
		}
	}
	for _, owner := range slices.Collect(maps.Values(set.owners)) {
		set.depart(owner, now.UnixMilli())
	}
	if !set.idle() || set.size != 0 {
		t.Errorf("an empty set takes %d bytes", set.size)
	}
}
