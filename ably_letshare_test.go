package main

import (
	"testing"

	"letshare/ably"
)

// Ann speaks the LetShare protocol, Ben and Cleo Ably's: they are in one room.
func TestBothProtocolsMeetInOneRoom(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	ann := s.dial(t, "ann")
	ann.subscribe(t, "room", "signal:all")
	ann.subscribe(t, "room", "signal:ann")
	ben, cleo := s.ably(t, "ben", "echo=false"), s.ably(t, "cleo", "format=msgpack")
	ben.attach(t, "room")
	cleo.attach(t, "room")
	dora := s.dial(t, "dora")
	dora.send(t, `{"type":"subscribe","channel":"room","event":"signal:all"}`)
	dora.want(t, `{"type":"subscribed","data":{"members":4}}`)

	// From LetShare: the data is the publisher's bytes, with the from that the LetShare members see.
	ann.publish(t, "room", "signal:all", `{"type":"discover","big":12345678901234567890}`)
	const heard = `signal:all {"from":"ann","type":"discover","big":12345678901234567890}`
	if m := ben.hears(t, "room", heard); m.Messages[0].Encoding != "json" || m.Messages[0].Serial == "" {
		t.Errorf("ben hears %s", m.Append(nil, ably.JSON))
	}
	cleo.hears(t, "room", heard)
	dora.want(t, `{"type":"message","event":"signal:all","data":{"from":"ann"}}`)

	// From Ably: a broadcast reaches all, a directed message its addressee, and every Ably client.
	ben.publish(t, "room", ablyObject("signal:all", `{"type":"discover","from":"ben"}`))
	ann.want(t, `{"type":"message","channel":"room","event":"signal:all","data":{"type":"discover","from":"ben"}}`)
	dora.want(t, `{"type":"message","event":"signal:all","data":{"from":"ben"}}`)
	cleo.hears(t, "room", `signal:all {"type":"discover","from":"ben"}`)
	ben.publish(t, "room", ablyObject("signal:ann", `{"type":"offer"}`))
	ann.want(t, `{"type":"message","event":"signal:ann","data":{"type":"offer","from":"`+ben.id+`"}}`)
	cleo.hears(t, "room", `signal:ann {"type":"offer"}`)
	dora.wantNothing(t)

	// A batch: each message goes its own way.
	ben.publish(t, "room", ablyObject("signal:ann", `{"n":1}`), ablyObject("signal:all", `{"n":2}`))
	ann.want(t, `{"event":"signal:ann","data":{"n":1}}`)
	ann.want(t, `{"event":"signal:all","data":{"n":2}}`)
	dora.want(t, `{"event":"signal:all","data":{"n":2}}`)
	cleo.hears(t, "room", `signal:ann {"n":1}`, `signal:all {"n":2}`)
	wantHubConsistent(t, s)
}

// What the LetShare protocol cannot express is skipped and counted; the Ably members hear it.
func TestLetShareMembersAreSparedWhatTheirProtocolCannotSay(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	ann, ben, cleo := s.dial(t, "ann"), s.ably(t, "ben", "echo=false"), s.ably(t, "cleo")
	ann.subscribe(t, "room", "signal:all")
	cleo.attach(t, "room")
	encrypted := ably.Message{Name: ably.Some("signal:all"), Encoding: "utf-8/cipher+aes-128-cbc", Data: ably.Data{Kind: ably.DataBinary, Bytes: []byte{1}}}
	unspeakable := []ably.Message{
		ablyText("signal:all", "a string"), ablyText("signal:all", `{"looks":"like an object"}`), encrypted,
		ablyObject("signal:all", `["a","list"]`), ablyObject("signal:all", `{"broken":`), ablyObject("signal:all", `{"a":1}}`),
		ablyObject("signal:all", `{"type":"file:transfer:start"}`), ablyObject("signal:all", `{"from":"x","From":"y"}`),
	}
	for _, m := range unspeakable {
		ben.publish(t, "room", m)
		cleo.next(t)
	}
	ben.publish(t, "room", ably.Message{Data: ably.Data{Kind: ably.DataText, Bytes: []byte("nameless")}})
	ann.wantNothing(t)
	s.wantMetric(t, "drops", "not_representable", float64(len(unspeakable)+1))
	ben.publish(t, "room", ablyObject("signal:all", `{"at":"last"}`))
	ann.want(t, `{"data":{"at":"last"}}`)
}

// Where LetShare members may rely on "from", an Ably client cannot take another's name.
func TestStrictIdentityHoldsAgainstAblyClients(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys, func(c *Config) { c.WebSocket.StrictIdentity = true })
	ann, ben := s.dial(t, "ann"), s.ably(t, "ben", "clientId=ben", "echo=false")
	ann.subscribe(t, "room", "signal:all")
	ben.publish(t, "room", ablyObject("signal:all", `{"from":"ann","n":1}`))
	ben.publish(t, "room", ablyObject("signal:all", `{"from":"ben","n":2}`))
	ben.publish(t, "room", ablyObject("signal:all", `{"n":3}`))
	ann.want(t, `{"data":{"from":"ben","n":2}}`)
	ann.want(t, `{"data":{"from":"ben","n":3}}`)
	ann.wantNothing(t)
}

// The limit of a room counts both, and binds LetShare members alone; Ably's channel names bind nobody else.
func TestTheLimitOfARoomCountsBothKinds(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys, func(c *Config) { c.WebSocket.MaxRoomUsers = 2 })
	s.ably(t, "ben").attach(t, "room")
	ann := s.dial(t, "ann")
	ann.subscribe(t, "room", "signal:all")
	dora := s.dial(t, "dora")
	dora.send(t, `{"type":"subscribe","channel":"room"}`)
	dora.wantError(t, 409, "room_full")
	s.ably(t, "cleo").attach(t, "room")
	s.ably(t, "erin").attach(t, "a name that no LetShare room may have: ü/?")
	wantHubConsistent(t, s)
}

// An Ably client hears of a LetShare user whose socket died, as the LetShare members would.
func TestAnAblyClientHearsTheAnnouncedLeave(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys, func(c *Config) { c.WebSocket.AnnounceLeaveSeconds = 0.01 })
	ben := s.ably(t, "ben")
	ben.attach(t, "room")
	ann := s.dial(t, "ann")
	ann.subscribe(t, "room", "signal:all")
	ann.close()
	ben.hears(t, "room", `signal:all {"from":"ann","type":"leave"}`)
	wantHubConsistent(t, s)
}
