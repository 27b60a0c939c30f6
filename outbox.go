package main

import (
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Outbox is all that the hub knows of a client: a bounded queue of frames and the only writer of its socket.
// Beside the queue, which carries signalling, stand the lanes of file transfers (lane.go): their frames are written one
// at a time, in turn, when the queue is empty.
//
// Many may put (shards, the read goroutine, the sweep); one writes, and only with the claim. The claim is taken by
// flush, which writes what the socket takes without blocking, and handed to a writer goroutine for the rest. On sockets
// without a raw descriptor (TLS, in-memory pipes, other platforms) the writer goroutine does all the writing.
// The claim matters because a RawConn.Write waits behind a blocked net.Conn.Write on the same descriptor.
type Outbox struct {
	// Immutable.
	socket net.Conn
	raw    syscall.RawConn // nil: no inline writes
	budget *Budget

	mu      sync.Mutex
	limit   int           // queued bytes beyond which the client is too slow
	queue   []queuedFrame // oldest first; queue[:head] are gone
	head    int           // index of the frame under way
	offset  int           // bytes of queue[head] that the socket has taken
	queued  int           // bytes that the socket has not taken yet
	inbound int           // bytes of a message that is not whole yet, told by the read goroutine
	charged int           // what the budget's account holds for this client
	dirty   bool          // somebody who put has not flushed yet
	writing bool          // the claim: its holder alone touches the socket's write side
	broken  bool          // a frame is cut in two or the socket failed: nothing can be said any more
	ending  Ending        // the first reason wins
	freed   chan struct{} // made by finish, which waits for the claim; capacity 1
	sent    uint64        // bytes the socket has taken
	lanes   *lanes        // of the transfers that this client receives; nil until the first
}

// queuedFrame is a frame in its turn. Its bytes are shared and never changed, until its message, if it has one, is given back.
type queuedFrame struct {
	bytes   []byte
	message *Message // for this outbox alone, and to be given back once it is written; nil: nothing is
}

// put queues a frame that is given back to nobody. Any goroutine.
func (o *Outbox) put(frame []byte) (flushIt bool) { return o.enqueue(queuedFrame{bytes: frame}) }

// enqueue queues a frame. It never blocks and never writes. True: the caller must flush before it rests.
// A frame longer than the limit is taken when nothing else is queued. Any goroutine.
func (o *Outbox) enqueue(f queuedFrame) (flushIt bool) {
	o.mu.Lock()
	if o.ending != notEnded {
		o.mu.Unlock()
		return false
	}
	if o.queued > 0 && o.queued+len(f.bytes) > o.limit {
		o.mu.Unlock()
		o.end(SlowConsumer)
		return false
	}
	o.queue = append(o.queue, f)
	o.queued += len(f.bytes)
	flushIt = !o.dirty
	o.dirty = true
	o.mu.Unlock()
	return flushIt
}

// flush writes what is queued, as far as the socket takes it at once; what it does not take goes to a writer
// goroutine. When somebody else holds the claim, it will write these frames too. Any goroutine; it never blocks.
func (o *Outbox) flush(w *inlineWriter) {
	o.mu.Lock()
	o.dirty = false
	idle := o.queued == 0 && !o.lanes.wait()
	if o.writing || idle {
		o.settle()
		o.mu.Unlock()
		o.relieve()
		return
	}
	o.writing = true
	if o.raw == nil || o.queued == 0 {
		o.settle()
		o.mu.Unlock()
		o.relieve()
		go o.writeRest()
		return
	}
	chunk := o.gather(w.buf[:0])
	o.mu.Unlock()

	n, err := w.write(o.raw, chunk)

	o.mu.Lock()
	o.took(n, err)
	rest := err == nil && o.ending == notEnded && (o.queued > 0 || o.lanes.wait())
	o.settle()
	if !rest {
		o.release()
	}
	o.mu.Unlock()
	if err != nil {
		o.end(writeEnding(err))
	}
	if rest {
		o.relieve()
		go o.writeRest()
	}
}

// writeRest is the writer goroutine: it holds the claim and writes, blocking, until nothing is queued.
// The claim is given back as its very last act: finish waits for that.
func (o *Outbox) writeRest() {
	for {
		o.mu.Lock()
		var frames net.Buffers
		var from *lane
		var item laneItem
		if o.ending == notEnded {
			if o.queued > 0 {
				frames = o.take()
			} else if from, item = o.lanes.take(); from != nil {
				frames = net.Buffers{item.frame}
			}
		}
		if frames == nil {
			// A deadline left behind would fail the next inline write.
			o.socket.SetWriteDeadline(time.Time{})
			o.release()
			o.mu.Unlock()
			return
		}
		// Under the mutex, so that end's deadline in the past comes after this one.
		o.socket.SetWriteDeadline(time.Now().Add(writeTimeout))
		o.mu.Unlock()

		n, err := frames.WriteTo(o.socket)

		o.mu.Lock()
		if from == nil {
			o.took(int(n), err)
		} else {
			o.tookBulk(from, item, int(n), err)
		}
		o.settle()
		o.mu.Unlock()
		if err != nil {
			o.end(writeEnding(err))
		}
	}
}

// tookBulk is took for a frame of a lane. Called with mu held and the claim taken.
func (o *Outbox) tookBulk(from *lane, item laneItem, n int, err error) {
	o.sent += uint64(n)
	if slices.Contains(o.lanes.all, from) { // else it is no longer ours
		from.underWay = nil
		if err == nil && item.kind == laneFrame {
			from.written++
		}
	}
	o.broken = o.broken || err != nil && n > 0
	o.noteFailure(err)
}

// noteFailure: a TLS connection is of no use after a failed write, a plain one after anything but our own
// deadline. Called with mu held.
func (o *Outbox) noteFailure(err error) {
	if err != nil && (o.raw == nil || !errors.Is(err, os.ErrDeadlineExceeded)) {
		o.broken = true
	}
}

// writeEnding is what a failed write means: a peer that took nothing for writeTimeout is too slow.
func writeEnding(err error) Ending {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return SlowConsumer
	}
	return ConnectionLost
}

// gather returns the next bytes to write: a lone frame as it is, several copied into buf, as many as it holds.
// Called with mu held and the claim taken.
func (o *Outbox) gather(buf []byte) []byte {
	first := o.queue[o.head].bytes[o.offset:]
	if len(o.queue)-o.head == 1 || len(first) >= cap(buf) {
		return first[:min(len(first), maxInlineWrite)]
	}
	buf = append(buf, first...)
	for _, f := range o.queue[o.head+1:] {
		if len(buf)+len(f.bytes) > cap(buf) {
			break
		}
		buf = append(buf, f.bytes...)
	}
	return buf
}

// take returns the next frames for one blocking write. Called with mu held and the claim taken.
func (o *Outbox) take() net.Buffers {
	frames := make(net.Buffers, 0, len(o.queue)-o.head)
	frames = append(frames, o.queue[o.head].bytes[o.offset:])
	size := len(frames[0])
	for _, f := range o.queue[o.head+1:] {
		if size += len(f.bytes); size > maxBlockingWrite {
			break
		}
		frames = append(frames, f.bytes)
	}
	return frames
}

// took notes that the socket has taken n more bytes. Called with mu held and the claim taken.
func (o *Outbox) took(n int, err error) {
	o.sent += uint64(n)
	o.queued -= n
	n += o.offset
	for o.head < len(o.queue) && n >= len(o.queue[o.head].bytes) {
		f := o.queue[o.head]
		n -= len(f.bytes)
		o.queue[o.head] = queuedFrame{}
		o.head++
		if f.message != nil {
			f.message.giveBack()
		}
	}
	o.offset = n
	if o.head == len(o.queue) {
		o.forget()
	}
	o.noteFailure(err)
}

// forget empties the queue and keeps a little of its memory. Called with mu held.
func (o *Outbox) forget() {
	clear(o.queue[o.head:])
	o.queue, o.head, o.queued = o.queue[:0], 0, 0
	if cap(o.queue) > keptQueueFrames {
		o.queue = nil
	}
}

// settle brings the budget's account up to date. Called with mu held.
func (o *Outbox) settle() {
	if o.ending != notEnded {
		return
	}
	if delta := o.queued + o.inbound + o.lanes.kept() - o.charged; delta != 0 {
		o.charged += delta
		o.budget.total.Add(int64(delta))
	}
}

// relieve is the other half of settle, for when mu is free again.
func (o *Outbox) relieve() {
	if o.budget.over() {
		o.budget.relieve()
	}
}

// release gives the claim back. Called with mu held by the claim's holder.
func (o *Outbox) release() {
	o.writing = false
	if o.ending != notEnded {
		o.broken = o.broken || o.offset > 0
		o.forget()
	}
	if o.freed != nil {
		o.freed <- struct{}{}
		o.freed = nil
	}
}

// receiving tells how many bytes of an unfinished message the client has us hold, 0 when it is whole.
// Read goroutine.
func (o *Outbox) receiving(n int) {
	o.mu.Lock()
	o.inbound = n
	o.settle()
	o.mu.Unlock()
	o.relieve()
}

// setLimit changes how many bytes may be queued. What is queued already stays. Any goroutine.
func (o *Outbox) setLimit(n int) {
	o.mu.Lock()
	o.limit = n
	o.mu.Unlock()
}

// room is how many bytes more may be queued. Any goroutine.
func (o *Outbox) room() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.limit - o.queued
}

// end ends the connection: the first reason wins. The queue is dropped, its bytes leave the account, and the read
// goroutine is woken, which says goodbye. It reports whether this call was the one. Any goroutine; it never blocks.
func (o *Outbox) end(reason Ending) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ending != notEnded {
		return false
	}
	o.ending = reason
	o.budget.total.Add(-int64(o.charged))
	o.charged = 0
	past := time.Unix(1, 0)
	o.socket.SetReadDeadline(past)
	if o.writing {
		// The holder of the claim knows how far it came: it drops the queue when it gives the claim back.
		o.socket.SetWriteDeadline(past)
	} else {
		o.broken = o.broken || o.offset > 0
		o.forget()
	}
	return true
}

// ended returns the reason, notEnded while the connection lives. Any goroutine.
func (o *Outbox) ended() Ending {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ending
}

// held is what the budget's account holds for this client, in bytes. Any goroutine.
func (o *Outbox) held() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return int64(o.charged)
}

// sentBytes is how many bytes the socket has taken. Any goroutine.
func (o *Outbox) sentBytes() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sent
}

// finish waits for the claim, keeps it for good and writes the close frame, unless frame is nil or another frame is cut
// in two. It reports whether the close frame left. Read goroutine, once, after end.
func (o *Outbox) finish(frame []byte) bool {
	o.mu.Lock()
	if o.writing {
		freed := make(chan struct{}, 1)
		o.freed = freed
		o.mu.Unlock()
		<-freed
		o.mu.Lock()
	}
	o.writing = true
	broken := o.broken
	o.mu.Unlock()
	if broken || frame == nil {
		return false
	}
	o.socket.SetWriteDeadline(time.Now().Add(closeWriteTimeout))
	n, err := o.socket.Write(frame)
	o.mu.Lock()
	o.sent += uint64(n)
	o.mu.Unlock()
	return err == nil
}
