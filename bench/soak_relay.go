package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// The app's figures for files that pass through the server.
const (
	relayHeader   = 256
	relayChunk    = 64 << 10
	relayWindow   = 24 // chunks that may be unacknowledged
	relayAckEvery = 8
	relayTimeout  = 90 * time.Second
)

// How a transfer goes.
const (
	fileWhole        = iota
	fileReceiverBack // the receiver's socket is lost on the way, and it comes back with another
	fileSenderGone
	fileReceiverGone
)

// control is a message about a transfer, as both sides need it.
type control struct {
	Type  string `json:"type"`
	Error struct {
		Reason   string `json:"reason"`
		Transfer string `json:"transfer_id"`
	} `json:"error"`
	Data struct {
		Transfer string `json:"transfer_id"`
		Received int64  `json:"received_chunks"`
	} `json:"data"`
}

// file is one transfer of the soak: its content is computed from seed on both sides.
type file struct {
	id, room, from, to string
	size, chunks       int64
	seed               byte
	way                int
	half               int64 // chunks after which it is interrupted
}

// relays sends one file after the other between two connections of their own room.
func (s *soak) relays(ctx context.Context, worker int) {
	for n := 0; pause(ctx, between(500*time.Millisecond, 3*time.Second)); n++ {
		f := &file{id: fmt.Sprintf("transfer_%d_%d", worker, n), room: fmt.Sprintf("relay%d", worker),
			from: fmt.Sprintf("anna-%d", worker), to: fmt.Sprintf("ben-%d", worker), seed: byte(n), size: rand.Int64N(6 << 20)}
		f.chunks = max(1, (f.size+relayChunk-1)/relayChunk)
		if f.chunks > 4 && n%2 == 1 {
			f.way, f.half = 1+n/2%3, 1+rand.Int64N(f.chunks-2)
		}
		if err := s.relay(f); err != nil {
			s.fault(&s.talk.faults.lost, "%s of %d bytes, way %d, half %d of %d: %v", f.id, f.size, f.way, f.half, f.chunks, err)
		}
	}
}

// relay plays one transfer on both sides.
func (s *soak) relay(f *file) error {
	receiver, err := s.relayParty(f.to, f.room)
	if err != nil {
		return err
	}
	sender, err := s.relayParty(f.from, f.room)
	if err != nil {
		receiver.conn.Close()
		return err
	}
	received := make(chan error, 1)
	go func() { received <- s.receive(f, receiver) }()
	err = f.send(sender)
	sender.conn.Close()
	if err := errors.Join(err, <-received); err != nil {
		return err
	}
	switch f.way {
	case fileReceiverBack:
		s.tally.resumed.Add(1)
		fallthrough
	case fileWhole:
		s.tally.files.Add(1)
		s.tally.fileBytes.Add(f.size)
	default:
		s.tally.broken.Add(1)
	}
	return nil
}

// relayParty connects one side. Errors about earlier transfers may stand before the answer to its subscribe.
func (s *soak) relayParty(id, room string) (*socket, error) {
	c, err := s.server.dial(id)
	if err != nil {
		return nil, err
	}
	c.conn.SetDeadline(time.Now().Add(relayTimeout))
	if err = c.send(opText, fmt.Appendf(nil, `{"type":"subscribe","channel":%q,"event":"signal:%s"}`, room, id)); err == nil {
		var payload []byte
		for err == nil && !bytes.HasPrefix(payload, []byte(`{"type":"subscribed"`)) {
			if _, payload, err = c.read(); err == nil && bytes.HasPrefix(payload, []byte(`{"type":"error"`)) && !bytes.Contains(payload, []byte(`"transfer_id"`)) {
				err = fmt.Errorf("subscribe refused: %.200q", payload)
			}
		}
	}
	if err != nil {
		c.conn.Close()
		return nil, err
	}
	return c, nil
}

// say sends a control message; more are fields of data, each with a comma in front.
func (f *file) say(c *socket, kind, more string) error {
	return c.send(opText, fmt.Appendf(nil, `{"type":"file:transfer:%s","channel":%q,"data":{"transfer_id":%q%s}}`, kind, f.room, f.id, more))
}

// await reads until a control message of one of the kinds comes. An error about the transfer is an error.
func (f *file) await(c *socket, kinds ...string) (m control, frame []byte, err error) {
	for {
		op, payload, err := c.read()
		switch {
		case err != nil:
			return m, nil, err
		case op == opClose:
			return m, nil, closeError(payload)
		case op == opBinary:
			return m, payload, nil
		}
		m = control{}
		if err := json.Unmarshal(payload, &m); err != nil {
			return m, nil, err
		}
		if m.Type == "error" && m.Error.Transfer == f.id {
			return m, nil, relayFault(m.Error.Reason)
		}
		for _, kind := range kinds {
			if m.Type == "file:transfer:"+kind && m.Data.Transfer == f.id {
				return m, nil, nil
			}
		}
	}
}

// relayFault is the reason of an error about a transfer.
type relayFault string

func (r relayFault) Error() string { return "the server says " + string(r) }

// send is the sender's side.
func (f *file) send(c *socket) error {
	err := f.say(c, "request", fmt.Sprintf(`,"file_name":"soak.bin","file_size":%d,"file_type":"","chunk_size":%d,"total_chunks":%d,"from_user_id":%q,"to_user_id":%q,"room_name":%q,"flow_control":"receiver_ack_v1"`,
		f.size, relayChunk, f.chunks, f.from, f.to, f.room))
	if err != nil {
		return err
	}
	if _, _, err := f.await(c, "accept"); err != nil {
		return fmt.Errorf("sender, waiting for accept: %w", err)
	}
	if err := f.say(c, "start", ""); err != nil {
		return err
	}
	acked := int64(0)
	for next := int64(0); acked < f.chunks; {
		for ; next < f.chunks && next < acked+relayWindow; next++ {
			if f.way == fileSenderGone && next == f.half {
				return nil
			}
			if err := c.send(opBinary, f.frame(next)); err != nil {
				return fmt.Errorf("sender, chunk %d: %w", next, err)
			}
		}
		m, _, err := f.await(c, "ack")
		if fault := relayFault(""); f.way == fileReceiverGone && errors.As(err, &fault) {
			return fault.want("relay_receiver_gone")
		}
		if err != nil {
			return fmt.Errorf("sender, %d of %d acknowledged: %w", acked, f.chunks, err)
		}
		acked = m.Data.Received
	}
	if err := f.say(c, "end", ""); err != nil {
		return err
	}
	if _, _, err := f.await(c, "complete"); err != nil {
		return fmt.Errorf("sender, waiting for complete: %w", err)
	}
	return nil
}

func (r relayFault) want(reason string) error {
	if string(r) != reason {
		return fmt.Errorf("%w, want %s", r, reason)
	}
	return nil
}

// receive is the receiver's side. It checks every byte.
func (s *soak) receive(f *file, c *socket) (err error) {
	defer func() { c.conn.Close() }()
	if _, _, err := f.await(c, "request"); err != nil {
		return fmt.Errorf("receiver, waiting for the request: %w", err)
	}
	if err := f.say(c, "accept", `,"flow_control":"receiver_ack_v1","ack_every_chunks":8,"ack_window_chunks":24`); err != nil {
		return err
	}
	next, interrupted := int64(0), false
	for {
		if next == f.half && !interrupted && (f.way == fileReceiverBack || f.way == fileReceiverGone) {
			interrupted = true
			c.conn.Close()
			if f.way == fileReceiverGone {
				return nil
			}
			time.Sleep(between(0, 2*time.Second))
			if c, err = s.relayParty(f.to, f.room); err != nil {
				return err
			}
		}
		m, frame, err := f.await(c, "start", "end", "cancel")
		if fault := relayFault(""); f.way == fileSenderGone && errors.As(err, &fault) {
			return fault.want("relay_sender_gone")
		}
		if err != nil {
			return fmt.Errorf("receiver, %d of %d: %w", next, f.chunks, err)
		}
		switch {
		case frame != nil:
			if next, err = f.take(c, frame, next); err != nil {
				return err
			}
		case m.Type == "file:transfer:end" && next == f.chunks:
			return f.say(c, "complete", "")
		case m.Type != "file:transfer:start":
			return fmt.Errorf("receiver: %s after %d of %d chunks", m.Type, next, f.chunks)
		}
	}
}

// take checks one frame and acknowledges as the app does. A frame that is there again after a lost socket is passed over.
func (f *file) take(c *socket, frame []byte, next int64) (int64, error) {
	if len(frame) < relayHeader {
		return next, fmt.Errorf("a frame of %d bytes", len(frame))
	}
	var header struct {
		Transfer string `json:"transfer_id"`
		Index    int64  `json:"chunk_index"`
	}
	if err := json.Unmarshal(bytes.TrimRight(frame[:relayHeader], "\x00"), &header); err != nil {
		return next, err
	}
	if header.Transfer != f.id {
		return next, nil // of an earlier one
	}
	if header.Index > next {
		return next, fmt.Errorf("chunk %d came after %d", header.Index, next-1)
	}
	if !bytes.Equal(frame, f.frame(header.Index)) {
		return next, fmt.Errorf("chunk %d is not what was sent", header.Index)
	}
	if header.Index < next {
		return next, nil
	}
	if next++; next%relayAckEvery == 0 || next == f.chunks {
		return next, f.say(c, "ack", fmt.Sprintf(`,"chunk_index":%d,"received_chunks":%d,"total_chunks":%d`, next-1, next, f.chunks))
	}
	return next, nil
}

// frame computes one chunk with its header.
func (f *file) frame(index int64) []byte {
	size := min(relayChunk, f.size-index*relayChunk)
	frame := make([]byte, relayHeader+size)
	copy(frame, fmt.Sprintf(`{"transfer_id":%q,"chunk_index":%d,"chunk_size":%d,"total_chunks":%d}`, f.id, index, size, f.chunks))
	for i := range frame[relayHeader:] {
		frame[relayHeader+i] = byte(int64(i)*7+index*13) ^ f.seed
	}
	return frame
}
