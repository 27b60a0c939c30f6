package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// errIdle tells the read loop that the library asked for more where nothing is under way. The read loop
// then waits in await, with a small stack and without a buffer.
var errIdle = errors.New("between messages")

// errEnded is what a read returns when the server itself has ended the connection.
var errEnded = errors.New("connection ended")

// errNudged is what await returns when the sweep has woken a connection at rest, for it to go on with a small stack.
var errNudged = errors.New("nudged")

// firstRead is a buffer for the first bytes after a rest.
type firstRead [firstReadBytes]byte

// firstReads lends them: a connection at rest holds none.
var firstReads = sync.Pool{New: func() any { return new(firstRead) }}

// wire is the net.Conn that the WebSocket library reads from: it hands over the client's bytes, counts them, and bounds
// them per message and per second. It does not write: the library's one frame, the close frame, is
// taken down, because the read goroutine alone says goodbye, through the outbox.
//
// Its methods belong to the read goroutine. The atomics are read by the sweep and by /metrics.
type wire struct {
	net.Conn
	// Immutable.
	raw    syscall.RawConn       // nil: no raw descriptor (TLS, pipes, other platforms)
	onRead func(fd uintptr) bool // w.readFirst, made once
	outbox *Outbox               // told of unfinished bytes; ended when a bound is passed
	clock  func() time.Duration  // monotonic, since the server's start

	// Read goroutine.
	reader    *bufio.Reader // the library's, on this wire; nil until there is a library
	limits    *connLimits
	scanner   frameScanner
	pending   []byte        // read, not yet taken by the library
	buffer    *firstRead    // what pending lies in, if it was borrowed
	readErr   error         // the first failure of the socket; nil while it works
	spent     int64         // raw bytes of the message under way
	holding   int32         // bytes of memory of the message under way, set by the read loop
	told      int32         // what the outbox was told of holding
	inflow    bucket        // raw bytes
	overSince time.Duration // since when the client has sent more than its rate, 0: it has not
	goodbye   []byte        // the close frame that the library wanted to send, if any

	// Atomic; written by the read goroutine.
	received atomic.Int64 // raw bytes so far
	lastRead atomic.Int64 // when bytes came last, by clock
	since    atomic.Int64 // when the message under way began, by clock; 0: none is
	paused   atomic.Bool  // the server itself does not read: its deadlines stand still
	grown    atomic.Bool  // messages have been read since the goroutine began; nudge clears it
	closed   atomic.Bool  // the library wants no more; set by Close

	first [1]byte // for awaiting a byte without a raw descriptor; read goroutine
}

// begin puts the wire on c's socket, with the bytes that a quick client sent right behind its handshake. In the HTTP handler.
func (w *wire) begin(c *conn, early []byte) {
	w.Conn, w.raw, w.outbox, w.limits, w.clock = c.outbox.socket, c.outbox.raw, &c.outbox, c.limits, c.server.clock
	w.onRead = w.readFirst
	if len(early) > 0 {
		w.pending = append([]byte(nil), early...)
	}
	w.lastRead.Store(int64(w.clock()))
	w.arrived(w.pending)
}

// held is how many bytes the library has taken and not looked at yet.
func (w *wire) held() int {
	if w.reader == nil {
		return 0
	}
	return w.reader.Buffered()
}

// resting reports whether nothing is under way and no byte is left to look at.
func (w *wire) resting() bool {
	return len(w.pending) == 0 && w.held() == 0 && w.scanner.idle()
}

// await waits at rest until bytes come. The pong that answers our ping is dealt with here: passing it on to
// the library would cost an idle connection a deep stack every 25 seconds. errNudged: go on in a fresh goroutine.
func (w *wire) await() error {
	if w.since.Load() != 0 {
		w.since.Store(0)
	}
	if err := w.pace(); err != nil {
		return err
	}
	var err error
	w.pending = nil
	if w.raw != nil {
		if err = w.raw.Read(w.onRead); err == nil {
			err = w.readErr
		}
	} else {
		var n int
		n, err = w.Conn.Read(w.first[:])
		w.pending = w.first[:n]
	}
	if len(w.pending) == 0 && w.nudged(err) {
		return errNudged
	}
	if len(w.pending) == 0 && err != nil {
		return w.failed(err)
	}
	w.arrived(w.pending)
	if isLonePong(w.pending) {
		w.pending = nil
		w.giveBack()
		return errNudged // even this little has made the stack grow
	}
	return nil
}

// readFirst reads into a borrowed buffer, which it gives back when there is nothing to read yet. It runs inside
// RawConn.Read, which waits for the socket when it returns false.
func (w *wire) readFirst(fd uintptr) bool {
	buffer := firstReads.Get().(*firstRead)
	n, err := readDescriptor(fd, buffer[:])
	if n <= 0 {
		firstReads.Put(buffer)
		if err == errWouldBlock {
			return false
		}
		if err == nil {
			err = io.EOF
		}
		w.readErr = err
		return true
	}
	w.buffer, w.pending = buffer, buffer[:n]
	return true
}

// isLonePong reports whether p is exactly one whole, masked pong.
func isLonePong(p []byte) bool {
	n := wholeFrame(p, opPong)
	return n > 0 && n == len(p)
}

// wholeFrame returns the length of the frame that p begins with, if it is whole, final, masked and of the opcode,
// without extensions; else 0. Frames with a length of 8 bytes are none of these.
func wholeFrame(p []byte, opcode byte) int {
	if len(p) < 6 || p[0] != finBit|opcode || p[1]&maskBit == 0 {
		return 0
	}
	size := 6 + int(p[1]&^maskBit)
	switch {
	case size == 6+126 && (opcode == opText || opcode == opBinary) && len(p) >= 8:
		size = 8 + int(binary.BigEndian.Uint16(p[2:]))
	case size > 6+maxControlPayload:
		return 0
	}
	if len(p) < size {
		return 0
	}
	return size
}

// takeWhole takes the next frame's payload, if the frame is here as a whole and simple, and the library holds no part of what
// came before. Nearly all are: the library's own way would cost each message several locks and two copies.
// The payload is unmasked in place and valid until the next call of rested.
func (w *wire) takeWhole(opcode byte) (payload []byte, ok bool) {
	n := wholeFrame(w.pending, opcode)
	if n == 0 || n > w.limits.maxMessage || w.held() > 0 {
		return nil, false
	}
	frame := w.pending[:n]
	w.pending = w.pending[n:]
	header := 2
	if frame[1]&^maskBit == 126 {
		header = 4
	}
	payload = frame[header+4:]
	unmask(payload, [4]byte(frame[header:]))
	return payload, true
}

// rested gives the buffer back when all that it held has been dealt with.
func (w *wire) rested() {
	if len(w.pending) == 0 {
		w.giveBack()
	}
}

// giveBack returns the borrowed buffer.
func (w *wire) giveBack() {
	if w.buffer != nil {
		firstReads.Put(w.buffer)
		w.buffer = nil
	}
}

// Read hands the client's bytes to the library. Inside a message it waits for them; between messages it returns errIdle.
func (w *wire) Read(p []byte) (int, error) {
	if len(w.pending) > 0 {
		n := copy(p, w.pending)
		if w.pending = w.pending[n:]; len(w.pending) == 0 {
			w.giveBack()
		}
		return n, nil
	}
	if w.scanner.idle() {
		return 0, errIdle
	}
	if w.scanner.inMessage && w.scanner.payload > uint64(w.limits.maxMessage) {
		w.outbox.end(MessageTooBig) // it says so itself: no need to wait for the bytes
		return 0, errEnded
	}
	if w.holding != w.told {
		w.told = w.holding
		w.outbox.receiving(int(w.holding))
	}
	// A binary message is a file's, and refunded, or dropped: then it counts once it is whole.
	if !w.scanner.binary {
		if err := w.pace(); err != nil {
			return 0, err
		}
	}
	n, err := w.Conn.Read(p)
	for n == 0 && w.nudged(err) { // bytes came just before the nudge
		n, err = w.Conn.Read(p)
	}
	w.arrived(p[:n])
	if n > 0 {
		return n, nil
	}
	return 0, w.failed(err)
}

// atRest reports whether the connection is quiet, so that moving it pays. Any goroutine.
func (w *wire) atRest(now time.Duration) bool {
	return w.raw != nil && now-time.Duration(w.lastRead.Load()) >= restAfter
}

// nudge wakes the read goroutine from its rest, to go on in a fresh goroutine. Sweep.
func (w *wire) nudge() {
	w.grown.Store(false)
	w.Conn.SetReadDeadline(time.Unix(1, 0))
}

// nudged reports whether a read failed because of a nudge alone, and lets reads wait again.
func (w *wire) nudged(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	w.Conn.SetReadDeadline(time.Time{})
	// In this order: an end that comes after this look sets its own deadline after ours.
	return w.outbox.ended() == notEnded && !w.closed.Load()
}

// failed notes the first failure of the socket.
func (w *wire) failed(err error) error {
	if w.readErr == nil {
		w.readErr = err
	}
	return err
}

// arrived accounts for bytes that came from the client.
func (w *wire) arrived(p []byte) {
	if len(p) == 0 {
		return
	}
	now := w.clock()
	w.received.Store(w.received.Load() + int64(len(p)))
	w.lastRead.Store(int64(now))
	if w.since.Load() == 0 {
		w.since.Store(int64(now))
		w.spent = 0
	}
	w.scanner.scan(p)
	if w.spent += int64(len(p)); w.spent > w.limits.messageBudget {
		w.outbox.end(MessageBudget)
	}
	w.debit(len(p), now)
}

// debit takes n bytes from what the client may send. Once a second's worth is there again, it is forgiven.
func (w *wire) debit(n int, now time.Duration) {
	limit := w.limits.bytes
	if limit.perSecond == 0 {
		return
	}
	w.inflow.refill(limit, now)
	if limit.burst-w.inflow.used >= min(limit.perSecond, limit.burst) {
		w.overSince = 0
	}
	w.inflow.used += float64(n)
}

// pace does not read from a client that sends more than its bytes per second, until it is back at its rate. One
// that is still over its rate after maxPacing is cut. While it waits, no deadline runs against the client.
func (w *wire) pace() error {
	if w.limits.bytes.perSecond == 0 {
		return nil
	}
	debt := w.inflow.debt(w.limits.bytes)
	if debt == 0 {
		return nil
	}
	now := w.clock()
	if w.overSince == 0 {
		w.overSince = now
	}
	if left := maxPacing - (now - w.overSince); debt > left {
		if w.wait(left) {
			w.outbox.end(FloodedMessages)
		}
		return errEnded
	}
	if !w.wait(debt) {
		return errEnded
	}
	w.inflow.refill(w.limits.bytes, w.clock())
	return nil
}

// wait lets the read goroutine rest for d, while no deadline runs against the client. False: the connection has ended meanwhile.
func (w *wire) wait(d time.Duration) bool {
	began := w.clock()
	w.pause()
	defer w.resume(began)
	for end := began + d; ; {
		if w.outbox.ended() != notEnded {
			return false
		}
		left := end - w.clock()
		if left <= 0 {
			return true
		}
		time.Sleep(min(left, pacingStep))
	}
}

// refund gives a message of n bytes back, with its header: a file's do not count against the client's rate.
func (w *wire) refund(n int) {
	w.inflow.used = max(0, w.inflow.used-float64(n+frameHeaderSize(n)+4))
}

// pause stops the client's deadlines while the server itself does not read.
func (w *wire) pause() { w.paused.Store(true) }

// resume lets the deadlines run on from where they stood when the pause began, at began.
func (w *wire) resume(began time.Duration) {
	pause := int64(w.clock() - began)
	w.lastRead.Store(w.lastRead.Load() + pause)
	if since := w.since.Load(); since != 0 {
		w.since.Store(since + pause)
	}
	w.paused.Store(false)
}

// messageDone notes that the library has given out a whole message, or answered a control frame between two.
// The bytes that are already here belong to the next.
func (w *wire) messageDone() {
	if w.told != 0 {
		w.outbox.receiving(0)
	}
	w.holding, w.told = 0, 0
	w.spent = int64(len(w.pending) + w.held())
	if w.spent == 0 && w.scanner.idle() {
		return // await resets the clock; until then the server itself is at work
	}
	w.since.Store(int64(w.clock()))
}

// Write takes down the close frame that the library wants to send. It sends nothing else: pongs are
// our own frames. Called in pieces as small as the library's buffer.
func (w *wire) Write(p []byte) (int, error) {
	w.goodbye = append(w.goodbye, p...)
	return len(p), nil
}

// Close wakes the read goroutine, which alone closes the socket. The library calls it when a control frame
// takes longer than 5 s, and at the end. Any goroutine.
func (w *wire) Close() error {
	w.closed.Store(true)
	return w.Conn.SetReadDeadline(time.Unix(1, 0))
}
