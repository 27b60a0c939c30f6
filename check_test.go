package main

import (
	"strings"
	"testing"
	"testing/synctest"
)

// inShard changes what a room's shard owns, while the shard stands still: it waits for somebody to take its answer.
func (s *pipeServer) inShard(room string, change func(*shard)) {
	answer := make(chan *Refusal)
	nobody := &Member{outbox: &Outbox{ending: ConnectionLost}}
	s.hub.post(op{kind: opUnsubscribe, member: nobody, room: room, reply: answer})
	synctest.Wait()
	change(s.hub.shard(room))
	<-answer
}

// Whatever is damaged is found and named, and when it is repaired all is well again.
func TestConsistencyCheckFindsDamage(t *testing.T) {
	inBubble(t, func(c *Config) {
		c.WebSocket.MaxRoomsPerConnection, c.WebSocket.MaxRoomUsers, c.WebSocket.MaxConnectionsPerAddress = 2, 4, 4
	}, func(t *testing.T, s *pipeServer) {
		anna, bob := s.connect("anna"), s.connect("bob")
		anna.subscribe("room")
		bob.subscribe("room")
		f := newFile("t-1", 10*appChunk)
		s.agree(anna, bob, f)
		anna.frame(f, 0)
		anna.frame(f, 1)
		synctest.Wait()
		if err := s.ConsistencyCheck(); err != nil {
			t.Fatal(err)
		}

		var first *conn
		s.conns.each(func(c *conn) {
			if c.member.identity == "anna" {
				first = c
			}
		})
		anns := &first.member
		room := func(change func(*Room)) func() {
			return func() { s.inShard("room", func(sh *shard) { change(sh.rooms["room"]) }) }
		}
		queue := func(change func(*Outbox)) func() {
			return func() { first.outbox.mu.Lock(); change(&first.outbox); first.outbox.mu.Unlock() }
		}
		places := func(change func(*registry)) func() {
			return func() { s.conns.mu.Lock(); change(s.conns); s.conns.mu.Unlock() }
		}
		member := func(change func(*Member)) func() {
			return func() { anns.mu.Lock(); change(anns); anns.mu.Unlock() }
		}
		transfer := func(change func(*relayed)) func() {
			return room(func(r *Room) { change(r.transfers["t-1"]) })
		}
		stranger, known, held := &Member{identity: "nobody", outbox: new(Outbox)}, (*knownTransfer)(nil), int64(0)
		for _, row := range []struct {
			name, finding   string
			damage, restore func()
		}{
			{"a byte that nobody holds", "buffered bytes", func() { s.budget.total.Add(1) }, func() { s.budget.total.Add(-1) }},
			{"a queue counted wrong", "bytes are queued", queue(func(o *Outbox) { o.queued++ }), queue(func(o *Outbox) { o.queued-- })},
			{"a charge for nothing", "are charged", queue(func(o *Outbox) { o.charged++ }), queue(func(o *Outbox) { o.charged-- })},
			{"a connection that closed twice", "since the start", func() { s.counters.ended(PeerClosed) }, func() { s.counters.endings[PeerClosed].Add(^uint64(0)) }},
			{"a connection in the wrong place", "believes to be in", places(func(r *registry) { first.slot += 5 }), places(func(r *registry) { first.slot -= 5 })},
			{"a handshake less than none", "handshakes", places(func(r *registry) { r.reserved -= 1 }), places(func(r *registry) { r.reserved++ })},
			{"a subscriber too many", "under event", room(func(r *Room) { r.subs["x"] = []*Member{anns} }), room(func(r *Room) { delete(r.subs, "x") })},
			{"an event without subscribers", "without subscribers", room(func(r *Room) { r.subs["x"] = nil }), room(func(r *Room) { delete(r.subs, "x") })},
			{"a member without events", "0 subscriptions", room(func(r *Room) { r.members[stranger] = nil }), room(func(r *Room) { delete(r.members, stranger) })},
			{"a ghost", "without a connection", room(func(r *Room) { r.subscribe(stranger, "x", &roomLimits{}) }), room(func(r *Room) { r.leave(stranger) })},
			{"an empty room", "is empty", func() { s.inShard("other", func(sh *shard) { sh.rooms["other"] = newRoom("other") }) }, func() { s.inShard("other", func(sh *shard) { delete(sh.rooms, "other") }) }},
			{"a transfer that is not listed", "listed among those with transfers", func() { s.inShard("room", func(sh *shard) { delete(sh.relaying, "room") }) }, func() { s.inShard("room", func(sh *shard) { sh.relaying["room"] = sh.rooms["room"] }) }},
			{"a transfer not counted", "transfers counted", func() { s.relayed.active.Add(-1) }, func() { s.relayed.active.Add(1) }},
			{"bytes reserved by nobody", "bytes reserved", func() { s.relayed.reserved.Add(1) }, func() { s.relayed.reserved.Add(-1) }},
			{"a reservation lost", "bytes are reserved", transfer(func(r *relayed) { held = r.reserved; r.reserved = 0 }), transfer(func(r *relayed) { r.reserved = held })},
			{"a frame lost", "frames of", transfer(func(r *relayed) { r.transfer.buffered++ }), transfer(func(r *relayed) { r.transfer.buffered-- })},
			{"a lane elsewhere", "where its receiver is", transfer(func(r *relayed) { r.transfer.receiver = stranger }), transfer(func(r *relayed) { r.transfer.receiver = r.at })},
			{"a file forgotten by its sender", "does not know it", member(func(m *Member) { known = m.files.known["t-1"]; delete(m.files.known, "t-1") }), member(func(m *Member) { m.files.known["t-1"] = known })},
			{"a file sent twice", "remembers sending", member(func(m *Member) { m.files.sending++ }), member(func(m *Member) { m.files.sending-- })},
		} {
			row.damage()
			if err := s.ConsistencyCheck(); err == nil || !strings.Contains(err.Error(), row.finding) {
				t.Errorf("%s: the check says %v, want %q", row.name, err, row.finding)
			}
			if answer := s.request("GET", "/debug/check"); answer.StatusCode != 500 || !strings.Contains(bodyOf(t, answer), row.finding) {
				t.Errorf("%s: /debug/check answers %s", row.name, answer.Status)
			}
			row.restore()
			if err := s.ConsistencyCheck(); err != nil {
				t.Fatalf("%s: after the repair: %v", row.name, err)
			}
		}
		if answer := s.request("GET", "/debug/check"); answer.StatusCode != 200 || bodyOf(t, answer) != "consistent\n" {
			t.Errorf("/debug/check answers %s", answer.Status)
		}
		if answer := s.request("POST", "/debug/check"); answer.StatusCode != 405 {
			t.Errorf("a POST is answered %s", answer.Status)
		}
		s.stop()
		if err := <-s.ended; err != nil {
			t.Error(err)
		}
		if err := s.ConsistencyCheck(); err != errCheckStopped {
			t.Errorf("after the server's end the check says %v", err)
		}
		s.ended <- nil // for the bubble's own stop
	})
}

// What was said to a receiver may wait behind its socket, or for good behind one that is closed: nothing is wrong with that.
func TestConsistencyCheckKnowsWhatIsStillToBeSaid(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *pipeServer) {
		anna, bob := s.connect("anna"), s.connect("bob")
		anna.subscribe("room")
		bob.subscribe("room")
		f := newFile("t-1", 10*appChunk)
		s.agree(anna, bob, f)
		anna.frame(f, 0)
		synctest.Wait()
		for _, damage := range []int{0, 1} {
			s.inShard("room", func(sh *shard) {
				r := sh.rooms["room"].transfers["t-1"]
				r.at.outbox.change(r.lane, func(l *lane) {
					l.say(textFrame(func(b []byte) []byte { return append(b, "{}"...) }))
					l.bytes += damage
				})
			})
			if err := s.ConsistencyCheck(); (err != nil) != (damage != 0) {
				t.Errorf("with %d bytes too many in the lane the check says %v", damage, err)
			}
		}
	})
}

// Strangers are not to learn who is where.
func TestConsistencyCheckIsForLocalModeAlone(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(cfg *Config) {
		cfg.Mode, cfg.JWT.Secret, cfg.Ably.Enabled = modeProduction, "0123456789abcdef0123456789abcdef", false
	})
	if status, body := s.get(t, "/debug/check"); status != 404 || strings.Contains(body, "consistent") {
		t.Errorf("answered %d %s", status, body)
	}
}
