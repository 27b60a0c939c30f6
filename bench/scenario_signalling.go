package main

import (
	"fmt"
	"sync/atomic"
	"time"
)

// S3: pairs set up WebRTC connections in rooms full of others, who must not get a byte of it.
// One exchange is twelve directed messages in four steps, as browsers make them: an offer; the answer to it; then each
// side's candidates, sent together in one tick and thus in one write.
const (
	offerBytes      = 3000 // of data; the answer has as many
	candidateBytes  = 250
	candidatesEach  = 5
	messagesInS3    = 2 + 2*candidatesEach
	signallingRooms = 10
	signallingPairs = 5 // at work in each room
)

// The kinds of an exchange's messages, carried in the stamp's slot.
const (
	kindOffer uint8 = iota
	kindAnswer
	kindCandidate
)

// signalling runs exchanges back to back in every pair.
type signalling struct {
	fleet    *fleet
	pairs    map[*member]*pair // both members of each
	latency  histogram         // of whole exchanges
	stopping atomic.Bool
	done     atomic.Int64
	running  atomic.Int64 // exchanges under way
}

// pair is touched by whoever's turn it is: the protocol itself hands it from one read goroutine to the other,
// except for the counters of each side, which its own reader keeps.
type pair struct {
	caller, callee *peer
	started        atomic.Int64
}

type peer struct {
	*member
	partner    *peer
	pair       *pair
	long       *template // offer or answer
	candidate  *template
	candidates int // reader: received in this exchange
}

func newSignalling(t *target, rooms int) (*signalling, error) {
	s := &signalling{pairs: map[*member]*pair{}}
	ready := make(chan struct{})
	var err error
	s.fleet, err = connect(t, shape{rooms: rooms, members: 50, own: true}, func(m *member, payload []byte, at int64) {
		<-ready
		s.receive(m, payload, at)
	})
	if err != nil {
		return nil, err
	}
	for _, rm := range s.fleet.rooms {
		for i := range signallingPairs {
			s.pair(rm.members[2*i], rm.members[2*i+1])
		}
	}
	close(ready)
	return s, nil
}

func (s *signalling) pair(a, b *member) {
	p := &pair{}
	newPeer := func(m, to *member) *peer {
		event := "signal:" + to.id
		return &peer{member: m, pair: p, long: m.publishFrame(event, offerBytes), candidate: m.publishFrame(event, candidateBytes)}
	}
	p.caller, p.callee = newPeer(a, b), newPeer(b, a)
	p.caller.partner, p.callee.partner = p.callee, p.caller
	s.pairs[a], s.pairs[b] = p, p
}

// receive takes one message and does its receiver's next step.
func (s *signalling) receive(m *member, payload []byte, at int64) {
	p := s.pairs[m]
	if p == nil {
		s.fleet.fault(&s.fleet.faults.stray, "%s: overheard %.100q", m.id, payload)
		s.fleet.faults.stray.Add(int64(len(payload)) - 1)
		return
	}
	me := p.caller
	if p.callee.member == m {
		me = p.callee
	}
	st, ok := m.stampOf(payload)
	if !ok {
		return
	}
	if int(st.publisher) != me.partner.index {
		s.fleet.fault(&s.fleet.faults.stray, "%s: overheard member %d", m.id, st.publisher)
		s.fleet.faults.stray.Add(int64(len(payload)) - 1)
		return
	}
	m.inOrder(laneOne, st)
	switch st.slot {
	case kindOffer:
		me.publish(me.long, laneOne, kindAnswer, at)
	case kindAnswer:
		me.sendCandidates(at)
	case kindCandidate:
		if me.candidates++; me.candidates < candidatesEach {
			return
		}
		me.candidates = 0
		if me == p.callee {
			me.sendCandidates(at)
		} else {
			s.finish(p, at)
		}
	}
}

// sendCandidates writes all candidates of one side at once.
func (p *peer) sendCandidates(at int64) {
	p.wmu.Lock()
	defer p.wmu.Unlock()
	p.scratch = p.scratch[:0]
	for range candidatesEach {
		p.sent[laneOne]++
		p.scratch = append(p.scratch, p.candidate.set(stamp{uint16(p.index), kindCandidate, p.sent[laneOne], at})...)
	}
	if _, err := p.conn.Write(p.scratch); err != nil {
		p.cut(fmt.Errorf("write: %w", err))
	}
}

// begin starts p's next exchange.
func (s *signalling) begin(p *pair) {
	at := now()
	p.started.Store(at)
	p.caller.publish(p.caller.long, laneOne, kindOffer, at)
}

func (s *signalling) finish(p *pair, at int64) {
	s.latency.add(at - p.started.Load())
	s.done.Add(1)
	if s.stopping.Load() {
		s.running.Add(-1)
		return
	}
	s.begin(p)
}

// run exchanges for d.
func (s *signalling) run(d time.Duration) result {
	s.stopping.Store(false)
	for _, rm := range s.fleet.rooms {
		for i := range signallingPairs {
			s.running.Add(1)
			s.begin(s.pairs[rm.members[2*i]])
		}
	}
	time.Sleep(warmUp)
	s.latency.reset()
	stop := startMeter(s.fleet.target.pid)
	before := s.done.Load()
	time.Sleep(d)
	res := measured(s.fleet.target, "S3 signalling", "exchanges", s.done.Load()-before, stop()).withLatency(&s.latency)
	res.Closed = true
	s.stopping.Store(true)
	for end := time.Now().Add(drainTimeout); time.Now().Before(end) && s.running.Load() > 0; {
		time.Sleep(5 * time.Millisecond)
	}
	if stuck := s.running.Swap(0); stuck > 0 {
		s.fleet.fault(&s.fleet.faults.lost, "%d of %d exchanges stuck", stuck, len(s.pairs)/2)
		s.fleet.faults.lost.Add(stuck - 1)
	}
	res.Faults = s.fleet.faultsSoFar()
	res.Notes = fmt.Sprintf("one exchange is %d messages; latencies are of whole exchanges", messagesInS3)
	return res
}
