package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// The consistency check compares everything that the server keeps twice: who is in a room and who listens there, what an
// outbox queues and what the account holds for it, which transfers run and what is reserved for them. It changes nothing.
//
// What one owner keeps (a shard its rooms, an outbox its queue, the registry its places) is compared while that owner stands
// still, and must agree at once. What several owners keep together is counted one owner after the other while the others go on:
// there a difference counts only when it is still there after many looks.

// errCheckStopped is the outcome of a check that the server's end has overtaken.
var errCheckStopped = errors.New("the server has stopped")

// shardReport is what one shard says of its rooms. It belongs to who asked.
type shardReport struct {
	findings []string        // what does not agree within the shard
	rooms    int64           // how many
	present  map[*Member]int // in how many of the rooms each member is
	sending  map[*Member]int // how many transfers under way each member sends
	active   int64           // transfers under way
	reserved int64           // bytes reserved for them

	attached    map[*Member]int // to how many channels each of Ably's clients is attached
	entered     map[*Member]int // on how many channels each has, or had, members
	channels    int64           // rooms with Ably state
	attachments int64
	members     int64 // of presence sets
	kept        int64 // bytes kept for Ably's clients
}

func (r *shardReport) note(format string, args ...any) {
	r.findings = append(r.findings, fmt.Sprintf(format, args...))
}

// ConsistencyCheck compares everything that the server keeps twice. nil: all agrees; otherwise an error of one line for each
// finding. It takes a few milliseconds for thousands of connections, and checkPatience when it finds something. Any goroutine,
// while Run serves.
func (s *Server) ConsistencyCheck() error {
	s.checking.Lock()
	defer s.checking.Unlock()
	for began := s.clock(); ; time.Sleep(checkStep) {
		certain, passing, err := s.look()
		switch {
		case err != nil:
			return err
		case len(certain) > 0:
			return errors.New(strings.Join(certain, "\n"))
		case len(passing) == 0:
			return nil
		case s.clock()-began >= checkPatience:
			return errors.New(strings.Join(passing, "\n"))
		}
	}
}

// serveConsistency answers GET /debug/check: 200 "consistent", or 500 with the findings. In local mode alone: findings name
// rooms and users.
func (s *Server) serveConsistency(w http.ResponseWriter, r *http.Request) {
	if s.rules.Load().cfg.Mode != modeLocal {
		answerRefusal(w, refuseNotFound)
		return
	}
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		answerRefusal(w, refuseMethod)
		return
	}
	status, text := http.StatusOK, "consistent"
	if err := s.ConsistencyCheck(); err != nil {
		status, text = http.StatusInternalServerError, err.Error()
	}
	header := w.Header()
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	fmt.Fprintln(w, text)
}

// look compares once. certain is wrong whatever goes on; passing may be the trace of something under way.
func (s *Server) look() (certain, passing []string, err error) {
	known := make(map[*Outbox]bool) // of connections that live, before or after the shards were asked
	note := func(c *conn) { known[&c.outbox] = true }
	s.conns.each(note)
	reports, err := s.hub.check()
	if err != nil {
		return nil, nil, err
	}
	s.conns.each(note)

	var sum shardReport
	sum.present, sum.sending, sum.attached, sum.entered = make(map[*Member]int), make(map[*Member]int), make(map[*Member]int), make(map[*Member]int)
	for _, r := range reports {
		sum.findings = append(sum.findings, r.findings...)
		sum.rooms += r.rooms
		sum.active += r.active
		sum.reserved += r.reserved
		for m, n := range r.present {
			sum.present[m] += n
		}
		for m, n := range r.sending {
			sum.sending[m] += n
		}
		for m, n := range r.attached {
			sum.attached[m] += n
		}
		for m, n := range r.entered {
			sum.entered[m] += n
		}
		sum.channels += r.channels
		sum.attachments += r.attachments
		sum.members += r.members
		sum.kept += r.kept
	}
	var charged int64
	s.conns.each(func(c *conn) {
		held, finding := c.outbox.check()
		charged += held
		if finding != "" {
			sum.note("connection %d of %q: %s", c.id, c.member.identity, finding)
		}
	})
	certain = append(sum.findings, s.conns.check()...)
	return certain, s.compare(&sum, known, charged), nil
}

// compare compares the sums of several owners.
func (s *Server) compare(sum *shardReport, known map[*Outbox]bool, charged int64) (passing []string) {
	differ := func(what string, got, want int64) {
		if got != want {
			passing = append(passing, fmt.Sprintf("%s: %d, want %d", what, got, want))
		}
	}
	differ("buffered bytes in the account, and in all outboxes and kept for Ably", s.budget.total.Load(), charged+s.account.held.Load()+s.sessions.held()+s.bodies.Load())
	differ("bytes kept for Ably's clients in the account and by rooms", s.account.held.Load(), sum.kept)
	differ("channels counted and there", s.account.channels.Load(), sum.channels)
	differ("attachments counted and there", s.account.attachments.Load(), sum.attachments)
	differ("members counted and present", s.account.members.Load(), sum.members)
	differ("rooms counted and there", s.hub.totals().rooms, sum.rooms)
	differ("transfers counted and under way", s.relayed.active.Load(), sum.active)
	differ("bytes reserved in all and by transfers", s.relayed.reserved.Load(), sum.reserved)
	var closed uint64
	for i := range s.counters.endings {
		closed += s.counters.endings[i].Load()
	}
	live, total := s.conns.figures()
	differ("connections since the start, and closed and live ones", int64(total), int64(closed)+int64(live))
	if open := len(s.listener.open); open < live {
		passing = append(passing, fmt.Sprintf("%d connections on %d open sockets", live, open))
	}
	for m, rooms := range sum.present {
		if !known[m.outbox] {
			passing = append(passing, fmt.Sprintf("%q is in %d rooms without a connection", m.identity, rooms))
		}
		if limit := s.rules.Load().conn.maxRooms; limit > 0 && rooms > limit && !s.rules.Load().lowered {
			passing = append(passing, fmt.Sprintf("%q is in %d rooms, over its limit", m.identity, rooms))
		}
	}
	for m, channels := range sum.attached {
		if !known[m.outbox] {
			passing = append(passing, fmt.Sprintf("%q is attached to %d channels without a connection", m.identity, channels))
		}
	}
	for m, channels := range sum.entered {
		if !known[m.outbox] {
			passing = append(passing, fmt.Sprintf("%q is present on %d channels without a connection", m.identity, channels))
		}
	}
	s.conns.each(func(c *conn) {
		differ(fmt.Sprintf("transfers that %q remembers sending, and there", c.member.identity), int64(c.member.sendingNow()), int64(sum.sending[&c.member]))
	})
	return passing
}

// check asks every shard to look at its rooms. Any goroutine but a shard's.
func (h *Hub) check() (reports []*shardReport, err error) {
	answer := make(chan *shardReport, len(h.shards))
	for _, s := range h.shards {
		select {
		case s.mailbox <- op{kind: opCheck, report: answer}:
		case <-h.stopTick:
			return nil, errCheckStopped
		}
	}
	for range h.shards {
		select {
		case r := <-answer:
			reports = append(reports, r)
		case <-h.stopTick:
			return nil, errCheckStopped
		}
	}
	return reports, nil
}

// check looks at all that the shard owns.
func (s *shard) check() *shardReport {
	r := &shardReport{rooms: int64(len(s.rooms)), present: make(map[*Member]int), sending: make(map[*Member]int), attached: make(map[*Member]int), entered: make(map[*Member]int)}
	for name, room := range s.rooms {
		if room.name != name || room.ably == nil && !validRoomName(name) {
			r.note("room %q is kept under the name %q", room.name, name)
		}
		if room.empty() {
			r.note("room %q is empty", name)
		}
		if (len(room.transfers) > 0) != (s.relaying[name] == room) {
			r.note("room %q has %d transfers, listed among those with transfers: %t", name, len(room.transfers), s.relaying[name] != nil)
		}
		room.check(r, s.hubRules)
		for id, t := range room.transfers {
			t.check(r, id, room)
		}
	}
	for name := range s.relaying {
		if s.rooms[name] == nil {
			r.note("room %q is listed among those with transfers, and is not there", name)
		}
	}
	s.checkMissing(r)
	s.checkAbly(r)
	return r
}

// check compares members with subscribers, and both with the limits.
func (room *Room) check(r *shardReport, rules *hubRules) {
	limits := rules.rooms
	subscriptions := 0
	for m, events := range room.members {
		r.present[m]++
		subscriptions += len(events)
		if len(events) == 0 || limits.events > 0 && len(events) > limits.events && !rules.lowered {
			r.note("room %q: %q has %d subscriptions", room.name, m.identity, len(events))
		}
	}
	if limits.users > 0 && len(room.members) > limits.users && !rules.lowered {
		r.note("room %q has %d members, over its limit", room.name, len(room.members))
	}
	for event, subs := range room.subs {
		subscriptions -= len(subs)
		if len(subs) == 0 {
			r.note("room %q keeps event %q without subscribers", room.name, event)
		}
		seen := make(map[*Member]bool, len(subs))
		for _, m := range subs {
			if seen[m] || !slices.Contains(room.members[m], event) {
				r.note("room %q: %q is listed under event %q, which is not its own or twice there", room.name, m.identity, event)
			}
			seen[m] = true
		}
	}
	if subscriptions != 0 {
		r.note("room %q: members and subscribers differ by %d subscriptions", room.name, subscriptions)
	}
}

// check compares a transfer with what the relay holds for it and with what its members remember.
func (t *relayed) check(r *shardReport, id string, room *Room) {
	wrong := func(format string, args ...any) {
		r.note("transfer in room %q: %s", room.name, fmt.Sprintf(format, args...))
	}
	if t.transfer.ID != id || t.transfer.Room != room.name {
		wrong("it is another room's, or has another id than it is kept under")
	}
	if to, _ := t.transfer.Receiver().(*Member); to != t.at {
		wrong("its lane is not where its receiver is")
	}
	over := t.transfer.State().Over()
	if over != (t.reserved == 0) {
		wrong("over: %t, and %d bytes are reserved", over, t.reserved)
	}
	if !over {
		r.active++
		r.reserved += t.reserved
		if sender, ok := t.transfer.Sender.(*Member); ok {
			r.sending[sender]++
		}
	}
	frames, held, told := t.held()
	if frames != t.transfer.Buffered() || frames > maxRelayUnacked || held != told {
		wrong("%d frames of %d bytes are held; the transfer counts %d, the lane %d bytes", frames, held, t.transfer.Buffered(), told)
	}
	if int64(held) > t.reserved && !over {
		wrong("%d bytes are held, %d reserved", held, t.reserved)
	}
	if t.at != nil && !t.at.outbox.hasLane(t.lane) {
		wrong("the receiver's outbox does not know the lane")
	}
	for _, m := range t.involved {
		if m.transfer([]byte(id)) == nil {
			wrong("%q has a part in it and does not know it", m.identity)
		}
	}
}

// held counts what the lane keeps: frames and their bytes, and their bytes as the lane counts them, which are what it
// counts in all without the control that is still to be written. Shard.
func (t *relayed) held() (frames, bytes, counted int) {
	look := func(l *lane) {
		frames, counted = len(l.kept), l.bytes
		for _, k := range l.kept {
			bytes += len(k.frame)
		}
		for _, item := range l.queue {
			if item.kind == laneControl {
				counted -= len(item.frame)
			}
		}
	}
	if t.at == nil {
		look(t.lane)
		return
	}
	t.at.outbox.mu.Lock()
	defer t.at.outbox.mu.Unlock()
	look(t.lane)
	return
}

// hasLane reports whether the lane is attached exactly once. Any goroutine.
func (o *Outbox) hasLane(l *lane) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	if o.lanes != nil {
		for _, other := range o.lanes.all {
			if other == l {
				n++
			}
		}
	}
	return n == 1
}

// check compares the outbox's sums with what it holds, and returns what the account holds for it and what is wrong. Any goroutine.
func (o *Outbox) check() (charged int64, finding string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	queued := -o.offset
	for _, f := range o.queue[o.head:] {
		queued += len(f.bytes)
	}
	kept := 0
	if o.lanes != nil {
		for _, l := range o.lanes.all {
			kept += l.bytes
		}
	}
	// After a put, and while an inline write is under way, the account is behind; once all is flushed it is not.
	settled := !o.dirty && !o.writing && o.ending == notEnded
	switch want := o.queued + o.inbound + o.lanes.kept(); {
	case o.ending == notEnded && queued != o.queued:
		finding = fmt.Sprintf("%d bytes are queued, %d counted", queued, o.queued)
	case kept != o.lanes.kept():
		finding = fmt.Sprintf("the lanes keep %d bytes, %d are counted", kept, o.lanes.kept())
	case o.ending != notEnded && o.charged != 0:
		finding = fmt.Sprintf("it has ended, and %d bytes are charged", o.charged)
	case settled && o.charged != want:
		finding = fmt.Sprintf("it holds %d bytes, and %d are charged", want, o.charged)
	}
	return int64(o.charged), finding
}

// sendingNow is how many transfers under way the member sends, as far as it remembers. Any goroutine.
func (m *Member) sendingNow() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.files == nil {
		return 0
	}
	return m.files.sending
}

// figures is how many connections there are and have been. Any goroutine.
func (r *registry) figures() (live int, total uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conns), r.total
}

// check compares the registry's counts. Any goroutine.
func (r *registry) check() (findings []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	note := func(format string, args ...any) { findings = append(findings, fmt.Sprintf(format, args...)) }
	seen, addressed := make(map[netip.Prefix]int), 0
	for i, c := range r.conns {
		if int(c.slot) != i {
			note("connection %d is in place %d and believes to be in %d", c.id, i, c.slot)
		}
		if c.address.IsValid() {
			seen[addressKey(c.address)]++
			addressed++
		}
	}
	if taken := len(r.conns) + r.reserved; r.reserved < 0 || r.maxConns > 0 && taken > r.maxConns && !r.lowered {
		note("%d places are taken, %d of them by handshakes", taken, r.reserved)
	}
	if r.addresses == nil {
		return findings
	}
	counted := 0
	for key, n := range r.addresses {
		counted += n
		if n <= 0 || n < seen[key] || n > r.maxPerAddress && !r.lowered {
			note("an address has %d connections, %d are counted", seen[key], n)
		}
	}
	if counted < addressed || counted > addressed+r.reserved {
		note("%d connections from addresses and %d handshakes, %d are counted", addressed, r.reserved, counted)
	}
	return findings
}
