package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"time"
)

// talkBytes are the sizes of the talk's messages: a greeting, an offer, a long text.
var talkBytes = []int{300, 3000, 20000}

// guestMessages is how many messages each guest leaves behind.
const guestMessages = 3

// chat publishes at talkRate, the rooms and members at random, until ctx ends.
func (s *soak) chat(ctx context.Context) {
	all, one := map[*member][]*template{}, map[*member]*template{}
	for _, room := range s.talk.rooms {
		for i, m := range room.members {
			for _, size := range talkBytes {
				all[m] = append(all[m], m.publishFrame("signal:all", size))
			}
			one[m] = m.publishFrame("signal:"+room.members[(i+1)%soakMembers].id, talkBytes[1])
		}
	}
	tick := time.NewTicker(time.Second / talkRate)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		room := s.talk.rooms[rand.IntN(soakRooms)]
		m := room.members[rand.IntN(soakMembers)]
		if n%4 == 3 {
			m.publish(one[m], laneOne, uint8((m.index+1)%soakMembers), now())
			continue
		}
		size := min(rand.IntN(20), 2) // one in twenty is short, one of middle size, the others long
		m.publish(all[m][2-size], laneAll, everyone, now())
	}
}

// hear checks what a member of the talk received. In its read goroutine.
func (s *soak) hear(m *member, payload []byte) {
	st, ok := m.stampOf(payload)
	switch {
	case !ok || st.publisher == hostilePublisher:
	case st.publisher == guestPublisher:
		s.tally.guests.Add(1)
	case st.slot == everyone:
		m.inOrder(laneAll, st)
		s.tally.broadcast.Add(1)
	case int(st.slot) != m.index:
		s.fault(&s.talk.faults.stray, "%s: got a message directed to member %d", m.id, st.slot)
	default:
		m.inOrder(laneOne, st)
		s.tally.directed.Add(1)
	}
}

// churn is one guest after the other: each comes into a room of the talk, listens, leaves messages, and goes.
func (s *soak) churn(ctx context.Context, worker int) {
	for n := 0; pause(ctx, between(0, 300*time.Millisecond)); n++ {
		if err := s.guest(fmt.Sprintf("guest-%d-%d", worker, n), s.talk.rooms[rand.IntN(soakRooms)].name); err != nil {
			s.fault(&s.talk.faults.cut, "guest %d of %d: %v", n, worker, err)
		}
		s.tally.churned.Add(1)
	}
}

// guest stays for a moment. Whatever it hears must come without a gap from each publisher.
func (s *soak) guest(id, room string) error {
	g, err := s.server.dial(id)
	if err != nil {
		return err
	}
	defer g.conn.Close()
	if err := g.join(room, "signal:all"); err != nil {
		return err
	}
	heard := &guestEars{soak: s, last: map[uint16]uint32{}}
	if err := heard.listen(g, between(0, 3*time.Second), -1); err != nil {
		return err
	}
	t := newTemplate(webSocket, g.key, fmt.Appendf(nil, `{"type":"publish","channel":%q,"event":"signal:all","id":"g","data":%s}`, room, dataObject(id, 500)))
	for n := range guestMessages {
		if _, err := g.conn.Write(t.set(stamp{guestPublisher, everyone, uint32(n + 1), now()})); err != nil {
			return err
		}
	}
	if err := heard.listen(g, replyTimeout, guestMessages); err != nil {
		return fmt.Errorf("waiting for acks: %w", err)
	}
	s.tally.guestSent.Add(guestMessages * soakMembers)
	return s.goes(g, room)
}

// goes ends a guest's connection in one of the ways that connections end.
func (s *soak) goes(g *socket, room string) error {
	g.conn.SetDeadline(time.Now().Add(replyTimeout))
	switch rand.IntN(4) {
	case 0: // a page that closes its socket
		return g.leave()
	case 1: // one that leaves the room first
		if err := g.send(opText, fmt.Appendf(nil, `{"type":"unsubscribe","channel":%q}`, room)); err != nil {
			return err
		}
		for {
			op, payload, err := g.read()
			if err != nil {
				return fmt.Errorf("no answer to unsubscribe: %w", err)
			}
			if op == opText && bytes.Contains(payload, []byte(`"unsubscribed"`)) {
				return g.leave()
			}
		}
	case 2: // a process that dies
		return g.conn.Close()
	}
	g.conn.(*net.TCPConn).SetLinger(0) // a reset
	return g.conn.Close()
}

// guestEars is what one guest heard: the last number of each publisher.
type guestEars struct {
	soak *soak
	last map[uint16]uint32
	hint int
}

// listen reads for d, or until so many acks have come (-1: no end but d).
func (h *guestEars) listen(g *socket, d time.Duration, acks int) error {
	g.conn.SetReadDeadline(time.Now().Add(d))
	defer g.conn.SetReadDeadline(time.Time{})
	for acks != 0 {
		op, payload, err := g.read()
		if errors.Is(err, os.ErrDeadlineExceeded) && acks < 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if op == opClose {
			return closeError(payload)
		}
		if bytes.HasPrefix(payload, []byte(`{"type":"ack"`)) {
			acks--
			continue
		}
		if err := h.take(payload); err != nil {
			return err
		}
	}
	return nil
}

// take checks one message.
func (h *guestEars) take(payload []byte) error {
	st, ok := findStamp(payload, &h.hint)
	if !ok {
		return fmt.Errorf("got %.200q", payload)
	}
	if st.publisher >= guestPublisher {
		return nil
	}
	if st.slot != everyone {
		return errors.New("a guest got a directed message")
	}
	if last, known := h.last[st.publisher]; known && st.seq != last+1 {
		return fmt.Errorf("message %d of member %d came after %d", st.seq, st.publisher, last)
	}
	h.last[st.publisher] = st.seq
	h.soak.tally.heard.Add(1)
	return nil
}

// storms: every now and then a hundred connect at the same moment, and are gone at the same moment.
func (s *soak) storms(ctx context.Context) {
	const size, every = 100, 15 * time.Second
	for round := 0; pause(ctx, every); round++ {
		done := make(chan *socket)
		for n := range size {
			go func() {
				c, err := s.server.dial(fmt.Sprintf("storm-%d", n))
				if err == nil {
					err = c.join(fmt.Sprintf("storm%d", n%4), "signal:all", fmt.Sprintf("signal:storm-%d", n))
				}
				if err != nil {
					s.fault(&s.talk.faults.refused, "storm %d: %v", round, err)
				}
				done <- c
			}()
		}
		var all []*socket
		for range size {
			if c := <-done; c != nil {
				all = append(all, c)
			}
		}
		pause(ctx, time.Second)
		for n, c := range all {
			if n%2 == 0 {
				c.send(opClose, binary.BigEndian.AppendUint16(nil, 1001))
			}
			c.conn.Close()
		}
		s.tally.stormed.Add(int64(len(all)))
	}
}

// The room of large messages, for frozen readers.
const (
	noiseBytes   = 60_000
	noiseRate    = 8 // a second, half of what the default bytes_per_second allows one publisher
	freezeFor    = 20 * time.Second
	freezeAtOnce = 2
)

// freeze keeps readers that do not read in a busy room. The others there must not notice; the frozen ones must be cut.
func (s *soak) freeze(ctx context.Context) {
	noise, err := connect(s.server.target, shape{rooms: 1, members: 4}, func(m *member, payload []byte, _ int64) {
		if st, ok := m.stampOf(payload); ok {
			m.inOrder(laneAll, st)
			s.tally.noise.Add(1)
		}
	})
	if err != nil {
		s.fault(&s.talk.faults.cut, "%v", err)
		return
	}
	defer func() {
		noise.close()
		if found := noise.faultsSoFar(); found.any() {
			s.fault(&s.talk.faults.cut, "beside frozen readers: %s; the first: %s", found, found.First)
		}
	}()
	room := noise.rooms[0]
	ended := make(chan struct{}, freezeAtOnce)
	for n := range freezeAtOnce {
		go func() {
			defer func() { ended <- struct{}{} }()
			for round := 0; ctx.Err() == nil; round++ {
				if err := s.frozen(ctx, fmt.Sprintf("frozen-%d-%d", n, round), room.name); err != nil {
					s.fault(&s.talk.faults.cut, "frozen reader: %v", err)
					return
				}
			}
		}()
	}
	frame := room.members[0].publishFrame("signal:all", noiseBytes)
	for pause(ctx, time.Second/noiseRate) {
		room.members[0].publish(frame, laneAll, everyone, now())
	}
	for range freezeAtOnce {
		<-ended
	}
	sent := int64(room.members[0].sent[laneAll]) * 3
	for end := time.Now().Add(drainTimeout); time.Now().Before(end) && s.tally.noise.Load() < sent; {
		time.Sleep(20 * time.Millisecond)
	}
	if got := s.tally.noise.Load(); got != sent {
		s.fault(&s.talk.faults.lost, "beside frozen readers: %d of %d deliveries", got, sent)
	}
}

// frozen joins, stops reading until it must have been cut, and sees that it was.
func (s *soak) frozen(ctx context.Context, id, room string) error {
	c, err := s.server.dial(id)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	c.conn.(*net.TCPConn).SetReadBuffer(frozenBuffer)
	if err := c.join(room, "signal:all"); err != nil {
		return err
	}
	if !pause(ctx, freezeFor) {
		return nil
	}
	if err := c.readUntilCut(10 * time.Second); err != nil {
		return fmt.Errorf("not cut after %s: %w", freezeFor, err)
	}
	s.tally.frozen.Add(1)
	return nil
}

// readUntilCut reads what is left on a connection that the server has ended. An error: it has not. silence is how
// long nothing may come: a stalled TCP tries again ever more rarely.
func (s *socket) readUntilCut(silence time.Duration) error {
	for {
		s.conn.SetReadDeadline(time.Now().Add(silence))
		op, _, err := s.read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err != nil || op == opClose {
			return nil // io.EOF or a reset, perhaps within a frame
		}
	}
}
