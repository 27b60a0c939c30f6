package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"letshare/giveway"
)

// The relay: files of the app's limit from one client to another, back to back, paced by nothing but the window of 24 chunks.
const (
	relayFileChunks = 800 // 50 MiB
	relayLineChunks = 32  // 2 MiB: twice over the line, up and down, it takes 12 s
	relayFrames     = relayHeader + relayChunk
	relayBeat       = 200 // directed messages a second beside the files
	relayLineBeat   = 40  // the same behind the line: some 10 % of it
	// relayAbort is how long the app lets its socket's buffer stay full before it gives up.
	relayAbort = 15 * time.Second
)

// relayResult is what a relay did to others. Sizes are bytes, times ms.
type relayResult struct {
	IdleP99     float64 `json:"idle_p99_ms,omitempty"` // of signalling, without a relay
	ReceiverP99 float64 `json:"receiver_p99_ms"`       // of signalling to the receiver itself
	Growth      int64   `json:"rss_growth,omitempty"`
}

// courier is a sender and a receiver in a room of their own, and a third who speaks to the receiver meanwhile.
type courier struct {
	room             string
	sender, receiver *socket
	caller           *member
	traffic          *giveway.Pipe // to which both give way, so that what others wait for is the server and not us
	chunks           int64         // of each file
	tag              string        // of all its files: the server remembers those of an earlier courier
	number           int           // of files so far
	frame            []byte        // a chunk as the sender writes it, masked; only the file header in it changes
	payload          []byte        // behind the header
	toReceiver       histogram
	ended            chan error    // what the receiver ended with
	slowest          time.Duration // that one frame took to be sent
}

// newCourier connects the three.
func newCourier(t *target, chunks int64) (c *courier, err error) {
	c = &courier{room: "bench relay", tag: rand.Text()[:8], chunks: chunks, payload: bytes.Repeat([]byte("payload "), relayChunk/8), ended: make(chan error, 1)}
	if c.traffic, err = giveway.New(); err != nil {
		return nil, err
	}
	sockets := make([]*socket, 3)
	for i, id := range []string{"relay-to", "relay-from", "relay-caller"} {
		if sockets[i], err = t.dial(id); err == nil {
			err = sockets[i].join(c.room, "signal:"+id, "signal:all")
		}
		if err != nil {
			for _, s := range sockets[:i+1] {
				if s != nil {
					s.conn.Close()
				}
			}
			c.traffic.Close()
			return nil, err
		}
	}
	c.receiver, c.sender = sockets[0], sockets[1]
	f := &fleet{target: t}
	c.caller = &member{fleet: f, room: &room{name: c.room}, id: "relay-caller", socket: sockets[2]}
	plain := append(make([]byte, relayHeader), c.payload...)
	c.frame = c.sender.wire.appendFrame(nil, opBinary, c.sender.key, plain)
	go func() { c.ended <- c.receive() }()
	return c, nil
}

// close ends the connections and waits for the receiver.
func (c *courier) close() {
	c.caller.fleet.closing.Store(true)
	for _, s := range []*socket{c.sender, c.receiver, c.caller.socket} {
		s.conn.Close()
	}
	<-c.ended
	c.traffic.Close()
}

// send sends one file and returns when it is complete.
func (c *courier) send() error {
	c.number++
	f := &file{id: fmt.Sprintf("transfer_%s_%d", c.tag, c.number), room: c.room}
	err := f.say(c.sender, "request", fmt.Sprintf(`,"file_name":"bench.bin","file_size":%d,"chunk_size":%d,"total_chunks":%d,"to_user_id":"relay-to","flow_control":"receiver_ack_v1"`,
		c.chunks*relayChunk, relayChunk, c.chunks))
	if err != nil {
		return err
	}
	if _, _, err := f.await(c.sender, "accept"); err != nil {
		return fmt.Errorf("waiting for accept: %w", err)
	}
	if err := f.say(c.sender, "start", ""); err != nil {
		return err
	}
	for next, acked := int64(0), int64(0); acked < c.chunks; {
		for ; next < c.chunks && next < acked+relayWindow; next++ {
			if err := c.sendChunk(f, next); err != nil {
				return fmt.Errorf("chunk %d: %w", next, err)
			}
		}
		m, _, err := f.await(c.sender, "ack")
		if err != nil {
			return fmt.Errorf("%d of %d acknowledged: %w", acked, c.chunks, err)
		}
		acked = m.Data.Received
	}
	if err := f.say(c.sender, "end", ""); err != nil {
		return err
	}
	_, _, err = f.await(c.sender, "complete")
	return err
}

// sendChunk writes the frame of one chunk.
func (c *courier) sendChunk(f *file, index int64) error {
	var header [relayHeader]byte
	copy(header[:], fmt.Sprintf(`{"transfer_id":%q,"chunk_index":%d,"chunk_size":%d,"total_chunks":%d}`, f.id, index, relayChunk, c.chunks))
	inside := c.frame[len(c.frame)-relayFrames:]
	for i, b := range header {
		inside[i] = b ^ c.sender.key[i&3]
	}
	began := time.Now()
	_, err := c.sender.conn.Write(c.frame)
	c.slowest = max(c.slowest, time.Since(began))
	c.traffic.GiveWay()
	return err
}

// receive is the receiver's side, for all files. It returns why it ended.
func (c *courier) receive() error {
	var f *file
	next, hint := int64(0), 0
	for {
		at := now()
		for {
			op, payload, ok, err := c.receiver.next()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			switch op {
			case opPing:
				err = c.receiver.send(opPong, payload)
			case opClose:
				err = closeError(payload)
			case opBinary:
				err = c.take(f, payload, next)
				next++
				c.traffic.GiveWay()
			case opText:
				if st, isBeat := findStamp(payload, &hint); isBeat {
					c.toReceiver.add(at - st.at)
					continue
				}
				var begun *file
				if begun, err = c.hear(f, payload); begun != nil {
					f, next = begun, 0
				}
			}
			if err != nil {
				c.sender.conn.Close() // waits for us
				return err
			}
		}
		if err := c.receiver.fill(); err != nil {
			return err
		}
	}
}

// hear takes a control message; a request begins a file.
func (c *courier) hear(f *file, payload []byte) (begun *file, err error) {
	var m control
	if err := json.Unmarshal(payload, &m); err != nil {
		return nil, err
	}
	switch m.Type {
	case "file:transfer:request":
		f = &file{id: m.Data.Transfer, room: c.room}
		return f, f.say(c.receiver, "accept", `,"flow_control":"receiver_ack_v1","ack_every_chunks":8,"ack_window_chunks":24`)
	case "file:transfer:end":
		return nil, f.say(c.receiver, "complete", "")
	case "file:transfer:start":
		return nil, nil
	}
	return nil, fmt.Errorf("the receiver got %.200q", payload)
}

// take checks chunk next and acknowledges as the app does.
func (c *courier) take(f *file, frame []byte, next int64) error {
	want := fmt.Appendf(nil, `"chunk_index":%d,`, next)
	if f == nil || len(frame) != relayFrames || !bytes.Contains(frame[:relayHeader], want) || !bytes.Equal(frame[relayHeader:], c.payload) {
		return fmt.Errorf("chunk %d is not what was sent", next)
	}
	if next++; next%relayAckEvery != 0 && next != c.chunks {
		return nil
	}
	return f.say(c.receiver, "ack", fmt.Sprintf(`,"chunk_index":%d,"received_chunks":%d,"total_chunks":%d`, next-1, next, c.chunks))
}

// files sends files while more says so, and returns how many.
func (c *courier) files(more func() bool) (n int, err error) {
	for more() {
		if err := c.send(); err != nil {
			select {
			case cause := <-c.ended:
				c.ended <- cause
				err = errors.Join(err, cause)
			default:
			}
			return n, err
		}
		n++
	}
	return n, nil
}

// beats is signalling in a room beside the relay's: directed messages on schedule.
type beats struct {
	fleet   *fleet
	latency histogram
}

func newBeats(t *target) (*beats, error) {
	s := &beats{}
	var err error
	s.fleet, err = connect(t, shape{rooms: 1, members: 10, own: true}, func(m *member, payload []byte, at int64) {
		if st, ok := m.stampOf(payload); ok {
			m.inOrder(laneOne, st)
			s.latency.add(at - st.at)
		}
	})
	return s, err
}

// run sends perSecond messages a second while more says so, and as many to the courier's receiver.
func (s *beats) run(perSecond int, c *courier, more func() bool) error {
	clock, err := newAlarm()
	if err != nil {
		return err
	}
	defer clock.close()
	s.latency.reset()
	c.toReceiver.reset()
	members := s.fleet.rooms[0].members
	frames := make([]*template, len(members))
	for i, m := range members {
		frames[i] = m.publishFrame("signal:"+members[i^1].id, candidateBytes)
	}
	call := c.caller.publishFrame("signal:relay-to", candidateBytes)
	for n, due := 0, now(); more(); n++ {
		due += int64(time.Second) / int64(perSecond)
		clock.until(due)
		members[n%len(members)].publish(frames[n%len(members)], laneOne, laneOne, due)
		c.caller.publish(call, laneOne, laneOne, due)
	}
	time.Sleep(warmUp) // what is under way
	return nil
}

// lasting returns a function that is true for d from now on.
func lasting(d time.Duration) func() bool {
	end := time.Now().Add(d)
	return func() bool { return time.Now().Before(end) }
}

// relaying measures files alone for d, then signalling alone and beside files, for d each.
func relaying(t *target, d time.Duration) (result, error) {
	s, err := newBeats(t)
	if err != nil {
		return result{}, err
	}
	defer s.fleet.close()
	c, err := newCourier(t, relayFileChunks)
	if err != nil {
		return result{}, err
	}
	defer c.close()
	if err := s.run(relayBeat, c, lasting(d)); err != nil {
		return result{}, err
	}
	extra := &relayResult{IdleP99: ms(s.latency.percentile(0.99))}
	rss, _ := memoryOf(t.pid)
	peak, stopPeak := watchRSS(t.pid)
	stop := startMeter(t.pid)
	n, err := c.files(lasting(d))
	u := stop()
	if err == nil {
		err = s.besideFiles(relayBeat, c, lasting(d))
	}
	stopPeak()
	if err != nil {
		return result{}, err
	}
	res := measured(t, "relay of 50 MiB files", "MiB", int64(n)*relayFileChunks*relayChunk>>20, u).withLatency(&s.latency)
	extra.Growth, extra.ReceiverP99 = max(0, peak.Load()-rss), ms(c.toReceiver.percentile(0.99))
	res.Closed, res.Relay, res.Faults = true, extra, s.fleet.faultsSoFar()
	return res, nil
}

// besideFiles runs the beats while files are sent, until more says no and the last file is through.
func (s *beats) besideFiles(perSecond int, c *courier, more func() bool) error {
	sent := make(chan error, 1)
	go func() {
		_, err := c.files(more)
		sent <- err
	}()
	beating := true
	var sendErr error
	err := s.run(perSecond, c, func() bool {
		select {
		case sendErr = <-sent:
			beating = false
		default:
		}
		return beating
	})
	if beating {
		c.sender.conn.Close()
		sendErr = <-sent
	}
	return errors.Join(err, sendErr)
}

// relayBehindLine sends one file of 2 MiB through the line of 3 Mbit/s, which others use for their signalling.
func relayBehindLine(t *target) (result, error) {
	proxy, err := startLine(t.addr)
	if err != nil {
		return result{}, err
	}
	defer proxy.close()
	near := t.through(proxy.addr())
	s, err := newBeats(near)
	if err != nil {
		return result{}, err
	}
	defer s.fleet.close()
	c, err := newCourier(near, relayLineChunks)
	if err != nil {
		return result{}, err
	}
	defer c.close()
	stop := startMeter(t.pid)
	first := true
	err = s.besideFiles(relayLineBeat, c, func() bool { was := first; first = false; return was })
	u := stop()
	if err != nil {
		return result{}, err
	}
	res := measured(t, "relay behind 3 Mbit/s", "KiB", relayLineChunks*relayChunk>>10, u).withLatency(&s.latency)
	res.Relay = &relayResult{ReceiverP99: ms(c.toReceiver.percentile(0.99))}
	res.Faults = s.fleet.faultsSoFar()
	if c.slowest > relayAbort {
		s.fleet.fault(&s.fleet.faults.cut, "a frame took %.1f s to be sent: the app would have given up", c.slowest.Seconds())
		res.Faults = s.fleet.faultsSoFar()
	}
	res.Notes = fmt.Sprintf("a file of 2 MiB, up and down the same line; the slowest frame took %.1f s to be sent; the app gives up after %.0f s", c.slowest.Seconds(), relayAbort.Seconds())
	return res, nil
}

// copyBeside measures the copying floor for d in the relay's frames.
func copyBeside(t *target, d time.Duration) (result, error) {
	stop := startMeter(t.pid)
	frames, err := copying(t, relayFrames, relayFileChunks, lasting(d))
	if err != nil {
		return result{}, err
	}
	res := measured(t, "relay of 50 MiB files", "MiB", frames*relayChunk>>20, stop())
	res.Closed = true
	return res, nil
}
