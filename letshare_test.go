package main

import "testing"

// Two people in a room: what one says, the other hears, and nobody else.
func TestWhatOneSaysTheOthersHear(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	anna, bob, eve := s.dial(t, "anna"), s.dial(t, "bob"), s.dial(t, "eve")
	anna.subscribe(t, "room", "signal:all")
	bob.subscribe(t, "room", "signal:all")
	eve.subscribe(t, "other room", "signal:all")

	anna.publish(t, "room", "signal:all", `{"type":"discover","from":"anna"}`)

	bob.want(t, `{"type":"message","channel":"room","event":"signal:all","data":{"type":"discover","from":"anna"}}`)
	anna.wantNothing(t)
	bob.wantNothing(t)
	eve.wantNothing(t)
	bob.leave(t)
	s.wantMetric(t, "closes", "peer_closed", 1)
	s.wantMetric(t, "websocket", "total_messages", 1)
}
