package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// roomOf makes a room whose members listen as told: "ann:signal:all" subscribes ann.
func roomOf(t *testing.T, limits *roomLimits, subscriptions ...string) (*Room, map[string]*Member) {
	t.Helper()
	room, members := newRoom("room"), make(map[string]*Member)
	for _, s := range subscriptions {
		name, event, _ := strings.Cut(s, ":")
		if members[name] == nil {
			members[name] = &Member{identity: name}
		}
		if refusal := room.subscribe(members[name], event, limits); refusal != nil {
			t.Fatalf("%s: %v", s, refusal.Reason)
		}
	}
	return room, members
}

// heardBy is who gets a message of publisher's about event, in order.
func heardBy(room *Room, publisher *Member, event string) string {
	var names []string
	room.apply(publisher, &Message{event: event}, time.Now(), func(m *Member) { names = append(names, m.identity) })
	return strings.Join(names, " ")
}

// wantConsistent checks that the two maps of a room say the same.
func wantConsistent(t *testing.T, room *Room) {
	t.Helper()
	n := 0
	for event, subs := range room.subs {
		if len(subs) == 0 {
			t.Errorf("event %q is kept without subscribers", event)
		}
		for i, m := range subs {
			n++
			if !slices.Contains(room.members[m], event) || slices.Contains(subs[:i], m) {
				t.Errorf("%s stands under %q, its own events are %q", m.identity, event, room.members[m])
			}
		}
	}
	for m, events := range room.members {
		n -= len(events)
		if len(events) == 0 {
			t.Errorf("%s is a member without an event", m.identity)
		}
	}
	if n != 0 {
		t.Errorf("members and subscribers differ by %d subscriptions", n)
	}
}

func TestAMessageGoesToExactlyItsEventAndNotBack(t *testing.T) {
	room, m := roomOf(t, &roomLimits{}, "ann:signal:all", "bob:signal:bob", "bob:signal:all", "cid:signal:all", "dot:other")
	for _, c := range []struct{ publisher, event, want string }{
		{"ann", "signal:all", "bob cid"},
		{"bob", "signal:all", "ann cid"},
		{"dot", "signal:all", "ann bob cid"},
		{"ann", "signal:bob", "bob"},
		{"bob", "signal:bob", ""},
		{"ann", "signal:cid", ""}, // who holds signal:all gets no message meant for another
		{"ann", "other", "dot"},
	} {
		if got := heardBy(room, m[c.publisher], c.event); got != c.want {
			t.Errorf("%s says %s: heard by %q, want %q", c.publisher, c.event, got, c.want)
		}
	}
	wantConsistent(t, room)
}

func TestSubscribingTwiceCountsOnce(t *testing.T) {
	room, m := roomOf(t, &roomLimits{users: 1, events: 1}, "ann:a", "ann:a")
	room.unsubscribe(m["ann"], "a")
	if !room.empty() {
		t.Error("one unsubscribe is not enough after two subscribes")
	}
	wantConsistent(t, room)
}

func TestLeavingIsCompleteAndHarmlessForOthers(t *testing.T) {
	room, m := roomOf(t, &roomLimits{}, "ann:a", "ann:b", "bob:a", "cid:a", "cid:c")
	room.unsubscribe(m["ann"], "nothing")
	room.unsubscribe(m["ann"], "a")
	if !room.has(m["ann"]) || heardBy(room, m["bob"], "a") != "cid" || heardBy(room, m["bob"], "b") != "ann" {
		t.Error("leaving one event took more or less than that")
	}
	wantConsistent(t, room)
	room.leave(m["ann"])
	room.leave(m["ann"]) // again, and nobody minds
	if room.has(m["ann"]) || heardBy(room, m["bob"], "b") != "" || heardBy(room, m["bob"], "a") != "cid" {
		t.Error("leaving the room took more or less than that")
	}
	wantConsistent(t, room)
	if refusal := room.admit(m["ann"]); refusal != refuseNotSubscribed {
		t.Errorf("a former member may publish: %v", refusal)
	}
	room.leave(m["bob"])
	room.unsubscribe(m["cid"], "c")
	room.unsubscribe(m["cid"], "a")
	if !room.empty() || len(room.subs) != 0 {
		t.Error("the room is not empty after all have left")
	}
}

func TestRoomLimits(t *testing.T) {
	limits := &roomLimits{users: 3, events: 2, full: &Refusal{Reason: RoomFull}, many: &Refusal{Reason: TooManyEvents}}
	room, m := roomOf(t, limits, "ann:a", "ann:b", "bob:a", "cid:a")
	if got := room.subscribe(m["ann"], "c", limits); got != limits.many {
		t.Errorf("a third event: %v", got)
	}
	dot := &Member{identity: "dot"}
	if got := room.subscribe(dot, "a", limits); got != limits.full || room.has(dot) {
		t.Errorf("a fourth member: %v", got)
	}
	if got := room.subscribe(m["bob"], "b", limits); got != nil {
		t.Errorf("a full room has room for its members' events: %v", got)
	}
	room.leave(m["bob"])
	if got := room.subscribe(dot, "a", limits); got != nil {
		t.Errorf("a place that became free: %v", got)
	}
	wantConsistent(t, room)
}

func TestZeroIsNoLimit(t *testing.T) {
	var names []string
	for i := range 200 {
		names = append(names, fmt.Sprintf("m%d:a", i), fmt.Sprintf("m0:e%d", i))
	}
	room, _ := roomOf(t, &roomLimits{}, names...)
	if len(room.members) != 200 {
		t.Errorf("%d members, want 200", len(room.members))
	}
}

func TestTimestampsOfARoomNeverGoBack(t *testing.T) {
	room, m := roomOf(t, &roomLimits{}, "ann:a")
	now := time.UnixMilli(1_800_000_000_000)
	last := int64(0)
	for _, step := range []time.Duration{0, time.Millisecond, -time.Hour, 0, time.Minute, 2 * time.Hour} {
		now = now.Add(step)
		message := &Message{event: "a"}
		room.apply(m["ann"], message, now, func(*Member) {})
		if message.timestamp < last {
			t.Errorf("after %v: %d stands behind %d", step, message.timestamp, last)
		}
		last = message.timestamp
	}
	if last != now.UnixMilli() {
		t.Errorf("the clock is ahead again, the timestamp is %d behind", now.UnixMilli()-last)
	}
}
