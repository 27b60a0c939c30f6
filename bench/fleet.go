package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// connectAtOnce is how many connections are being set up at the same time.
const connectAtOnce = 64

// The lanes of messages that are counted on their own: each receiver checks per publisher and lane
// that the numbers come without gap, repeat or swap.
const (
	laneAll = iota // events for the whole room
	laneOne        // directed events
	lanes
)

// fleet is a number of rooms full of connected members, and what they saw.
type fleet struct {
	// immutable after connect
	target  *target
	rooms   []*room
	receive func(m *member, payload []byte, at int64) // called in the member's read goroutine

	wg      sync.WaitGroup // the read goroutines
	closing atomic.Bool

	faults  faultCounters
	firstMu sync.Mutex
	first   string // the first fault, in words
}

type room struct {
	name    string
	members []*member
}

// member is one connection in one room.
type member struct {
	fleet *fleet // immutable
	room  *room
	index int // in its room
	id    string
	*socket

	sent [lanes]uint32 // under wmu: the last number published
	gone atomic.Bool   // counted as cut

	last [lanes][]uint32 // reader: the last number received, by publisher
	hint int             // reader: where the last stamp was found
}

// faultCounters counts what must not happen. Any goroutine may add.
type faultCounters struct {
	cut, lost, disordered, garbled, refused, stray atomic.Int64
}

// shape says how big a fleet is.
type shape struct {
	rooms, members int
	own            bool // each also subscribes to its own event, as the app does
	quiet          int  // this many members of the first room never read
}

// connect sets a fleet up. receive is called for every text frame, in the read goroutine of its member.
func connect(t *target, sh shape, receive func(m *member, payload []byte, at int64)) (*fleet, error) {
	f := &fleet{target: t, receive: receive}
	tag := rand.Uint32N(1 << 16)
	for r := range sh.rooms {
		rm := &room{name: fmt.Sprintf("b%04x-%d", tag, r)}
		for i := range sh.members {
			m := &member{fleet: f, room: rm, index: i, id: fmt.Sprintf("%s-%d", rm.name, i)}
			for lane := range m.last {
				m.last[lane] = make([]uint32, sh.members)
			}
			rm.members = append(rm.members, m)
		}
		f.rooms = append(f.rooms, rm)
	}
	if err := f.dialAll(sh.own); err != nil {
		f.close()
		return nil, fmt.Errorf("%s: %w", t.name, err)
	}
	for r, rm := range f.rooms {
		for i, m := range rm.members {
			if r == 0 && i < sh.quiet {
				continue
			}
			f.wg.Add(1)
			go m.readAll()
		}
	}
	return f, nil
}

// dialAll connects and subscribes every member, connectAtOnce at a time, and returns the first error.
func (f *fleet) dialAll(own bool) error {
	var (
		wg     sync.WaitGroup
		work   = make(chan *member)
		failed = make(chan error, connectAtOnce)
	)
	for range connectAtOnce {
		wg.Go(func() {
			for m := range work {
				if err := m.connect(own); err != nil {
					failed <- fmt.Errorf("connecting %s: %w", m.id, err)
					return
				}
			}
		})
	}
	total, done := len(f.rooms)*len(f.rooms[0].members), 0
	report := time.Now()
	var err error
feeding:
	for _, rm := range f.rooms {
		for _, m := range rm.members {
			select {
			case work <- m:
				done++
			case err = <-failed:
				break feeding
			}
			if time.Since(report) > 2*time.Second {
				report = time.Now()
				progress("%s: %d of %d connected", f.target.name, done, total)
			}
		}
	}
	close(work)
	wg.Wait()
	select {
	case err = <-failed:
	default:
	}
	return err
}

// connect dials and subscribes one member.
func (m *member) connect(own bool) (err error) {
	if m.socket, err = m.fleet.target.dial(m.id); err != nil {
		return err
	}
	events := []string{"signal:all"}
	if own {
		events = []string{"signal:" + m.id, "signal:all"}
	}
	return m.join(m.room.name, events...)
}

// publishFrame encodes a publish of size bytes of data to event. A floor gets a body as long as what a
// LetShare server would deliver.
func (m *member) publishFrame(event string, size int) *template {
	data := dataObject(m.id, size)
	if m.wire == lengthPrefix {
		delivered := fmt.Sprintf(`{"type":"message","channel":"%s","event":"%s","data":%s,"timestamp":1700000000000}`, m.room.name, event, data)
		return newTemplate(m.wire, m.key, []byte(delivered))
	}
	return newTemplate(m.wire, m.key, fmt.Appendf(nil, `{"type":"publish","channel":"%s","event":"%s","data":%s}`, m.room.name, event, data))
}

// publish numbers t's message in its lane and writes it. at is its due time.
func (m *member) publish(t *template, lane int, slot uint8, at int64) {
	m.wmu.Lock()
	defer m.wmu.Unlock()
	m.sent[lane]++
	_, err := m.conn.Write(t.set(stamp{uint16(m.index), slot, m.sent[lane], at}))
	if err != nil {
		m.cut(fmt.Errorf("write: %w", err))
	}
}

// inOrder checks a received stamp against the last one of its publisher and lane. Only the reader may call it.
func (m *member) inOrder(lane int, s stamp) {
	if int(s.publisher) >= len(m.last[lane]) {
		m.fleet.fault(&m.fleet.faults.garbled, "%s: a message of a member that does not exist", m.id)
		return
	}
	last := &m.last[lane][s.publisher]
	if s.seq != *last+1 {
		m.fleet.fault(&m.fleet.faults.disordered, "%s: message %d of member %d came after %d", m.id, s.seq, s.publisher, *last)
	}
	*last = max(*last, s.seq)
}

// stampOf returns the stamp of a delivered message. Anything else that arrives counts as refused or garbled.
func (m *member) stampOf(payload []byte) (stamp, bool) {
	s, ok := findStamp(payload, &m.hint)
	if !ok {
		which := &m.fleet.faults.garbled
		if bytes.Contains(payload, []byte(`"error"`)) {
			which = &m.fleet.faults.refused
		}
		m.fleet.fault(which, "%s: got %.200q", m.id, payload)
	}
	return s, ok
}

// readAll is a member's read goroutine: it ends with the connection.
func (m *member) readAll() {
	defer m.fleet.wg.Done()
	for {
		at := now() // one look at the clock per read: what one read brings arrived together
		for {
			op, payload, ok, err := m.next()
			if err != nil {
				m.fleet.fault(&m.fleet.faults.garbled, "%s: %v", m.id, err)
				m.conn.Close()
				return
			}
			if !ok {
				break
			}
			switch op {
			case opText:
				m.fleet.receive(m, payload, at)
			case opPing:
				m.send(opPong, payload)
			case opClose:
				m.cut(closeError(payload))
				m.send(opClose, payload)
				m.conn.Close()
				return
			}
		}
		if err := m.fill(); err != nil {
			m.cut(err)
			return
		}
	}
}

// cut counts a connection that ended and should not have, once. Any goroutine may call it.
func (m *member) cut(err error) {
	if !m.fleet.closing.Load() && !m.gone.Swap(true) {
		m.fleet.fault(&m.fleet.faults.cut, "%s: %v", m.id, err)
	}
}

// closeError puts a close frame in words.
func closeError(payload []byte) error {
	if len(payload) < 2 {
		return errors.New("closed without a code")
	}
	return fmt.Errorf("closed with %d %.100q", binary.BigEndian.Uint16(payload), payload[2:])
}

// fault counts one and keeps the first in words.
func (f *fleet) fault(which *atomic.Int64, format string, args ...any) {
	which.Add(1)
	f.firstMu.Lock()
	defer f.firstMu.Unlock()
	if f.first == "" {
		f.first = fmt.Sprintf(format, args...)
	}
}

// close ends all connections and waits for their goroutines.
func (f *fleet) close() {
	f.closing.Store(true)
	for _, rm := range f.rooms {
		for _, m := range rm.members {
			if m.socket == nil {
				continue
			}
			m.conn.SetWriteDeadline(time.Now().Add(time.Second))
			if m.wire == webSocket {
				m.send(opClose, binary.BigEndian.AppendUint16(nil, 1000))
			}
			m.conn.Close()
		}
	}
	f.wg.Wait()
}

// faultsSoFar is what the fleet saw that must not happen.
func (f *fleet) faultsSoFar() faults {
	f.firstMu.Lock()
	defer f.firstMu.Unlock()
	c := &f.faults
	return faults{c.cut.Load(), c.lost.Load(), c.disordered.Load(), c.garbled.Load(), c.refused.Load(), c.stray.Load(), f.first}
}
