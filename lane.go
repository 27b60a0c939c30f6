package main

import (
	"slices"
	"sync"
)

// relayBuffer holds a file's frame of any size, with room in front for a header.
type relayBuffer [maxFrameHeader + relayHeaderBytes + maxRelayChunkBytes + 1]byte

// relayBuffers lends them: a fresh one for each frame would cost a fifth of the relay's time.
var relayBuffers = sync.Pool{New: func() any { return new(relayBuffer) }}

// lane is one transfer's part of its receiver's outbox: what is still to be written, in order, and the frames that may have
// to be written again. Its bytes are outside the outbox's limit, which is for signalling, and inside the budget.
//
// A lane is attached to one outbox at a time, or to none while the receiver is away; its fields are guarded by
// that outbox's mutex, and belong to the transfer's shard while it is attached to none.
type lane struct {
	queue   []laneItem  // to be written, oldest first
	kept    []keptFrame // frames not acknowledged, oldest first, written or not
	bytes   int         // of kept, and of control in the queue
	control int         // bytes of control in the queue
	written int         // kept frames written whole since the shard asked last

	// A buffer is given back when its frame is dropped, unless somebody may be writing it still.
	underWay []byte // the frame that the outbox is writing, nil: none
	moved    bool   // the lane was detached: the outbox before may be writing a frame; no buffer is given back any more
}

// keptFrame is a frame and, if it lies in one of relayBuffers, that buffer.
type keptFrame struct {
	frame  []byte
	buffer *relayBuffer
}

// laneItem is a frame in its turn. Control is forgotten when it is written, a kept frame when it is dropped.
type laneItem struct {
	frame []byte
	kind  laneItemKind
}

type laneItemKind uint8

const (
	laneControl laneItemKind = iota
	laneFrame                // a kept frame
	laneAgain                // a kept frame that was written before: it does not count as written once more
)

// lanes are the lanes of one outbox. Guarded by its mutex. nil has none.
type lanes struct {
	all   []*lane
	turn  int // index of the lane that was served last
	bytes int // that the lanes keep
}

// attachLane makes the outbox write what the lane holds. Shard.
func (o *Outbox) attachLane(l *lane) {
	limitUnsent(o.raw)
	o.mu.Lock()
	if o.lanes == nil {
		o.lanes = new(lanes)
	}
	o.lanes.all = append(o.lanes.all, l)
	o.lanes.bytes += l.bytes
	o.settle()
	o.mu.Unlock()
}

// detachLane takes the lane away, with the frames it keeps; what was only queued is forgotten. Shard.
func (o *Outbox) detachLane(l *lane) {
	o.mu.Lock()
	i := slices.Index(o.lanes.all, l)
	o.lanes.all = slices.Delete(o.lanes.all, i, i+1)
	o.lanes.bytes -= l.bytes
	l.bytes -= l.control
	l.queue, l.written, l.control = nil, 0, 0
	l.underWay, l.moved = nil, true
	o.settle()
	o.mu.Unlock()
}

// change changes a lane that is attached to the outbox and reports whether the caller must flush. Shard.
func (o *Outbox) change(l *lane, change func(*lane)) (flushIt bool) {
	o.mu.Lock()
	before := l.bytes
	change(l)
	o.lanes.bytes += l.bytes - before
	flushIt = !o.dirty && o.ending == notEnded
	o.dirty = o.dirty || flushIt
	o.mu.Unlock()
	return flushIt
}

// say queues a control message behind all that is queued.
func (l *lane) say(frame []byte) {
	l.queue = append(l.queue, laneItem{frame, laneControl})
	l.control += len(frame)
	l.bytes += len(frame)
}

// unsaid takes what was said and is not written yet out of the queue.
func (l *lane) unsaid() (frames [][]byte) {
	for _, item := range l.queue {
		if item.kind == laneControl {
			frames = append(frames, item.frame)
		}
	}
	l.queue = slices.DeleteFunc(l.queue, func(item laneItem) bool { return item.kind == laneControl })
	l.bytes -= l.control
	l.control = 0
	return frames
}

// keep queues a frame and keeps it until it is dropped. buffer is what it lies in, if that is to be given back then.
func (l *lane) keep(frame []byte, buffer *relayBuffer) {
	l.kept = append(l.kept, keptFrame{frame, buffer})
	l.bytes += len(frame)
	l.queue = append(l.queue, laneItem{frame, laneFrame})
}

// again queues the n-th kept frame once more, unless it is still to be written.
func (l *lane) again(n int) {
	frame := l.kept[n].frame
	for _, item := range l.queue {
		if sameFrame(item.frame, frame) {
			return
		}
	}
	l.queue = append(l.queue, laneItem{frame, laneAgain})
}

// drop forgets the n oldest kept frames, also those that were not written.
func (l *lane) drop(n int) {
	for _, k := range l.kept[:n] {
		l.bytes -= len(k.frame)
		l.queue = slices.DeleteFunc(l.queue, func(item laneItem) bool { return sameFrame(item.frame, k.frame) })
		if k.buffer != nil && !l.moved && !sameFrame(l.underWay, k.frame) {
			relayBuffers.Put(k.buffer)
		}
	}
	l.kept = slices.Delete(l.kept, 0, n)
}

// replay queues all kept frames anew, and nothing else.
func (l *lane) replay() {
	l.bytes -= l.control
	l.queue, l.control = l.queue[:0], 0
	for _, k := range l.kept {
		l.queue = append(l.queue, laneItem{k.frame, laneFrame})
	}
}

// sameFrame reports whether two frames are the same bytes in memory.
func sameFrame(a, b []byte) bool { return len(a) > 0 && len(b) > 0 && &a[0] == &b[0] }

// take takes the next frame of the lanes, in turn; no lane when nothing waits. Called with the mutex held and the claim taken.
func (ls *lanes) take() (*lane, laneItem) {
	if ls == nil {
		return nil, laneItem{}
	}
	for range ls.all {
		ls.turn = (ls.turn + 1) % len(ls.all)
		if l := ls.all[ls.turn]; len(l.queue) > 0 {
			item := l.queue[0]
			l.queue = slices.Delete(l.queue, 0, 1)
			l.underWay = item.frame
			if item.kind == laneControl {
				l.control -= len(item.frame)
				l.bytes -= len(item.frame)
				ls.bytes -= len(item.frame)
			}
			return l, item
		}
	}
	return nil, laneItem{}
}

// wait reports whether a lane has something to write.
func (ls *lanes) wait() bool {
	return ls != nil && slices.ContainsFunc(ls.all, func(l *lane) bool { return len(l.queue) > 0 })
}

// kept is how many bytes the lanes keep.
func (ls *lanes) kept() int {
	if ls == nil {
		return 0
	}
	return ls.bytes
}
