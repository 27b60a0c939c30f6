package main

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"time"
	"unicode/utf8"
	"unique"

	"github.com/coder/websocket"
)

// connLimits are the bounds of one connection. 0 means no limit where the configuration says so. Immutable, shared.
type connLimits struct {
	maxMessage     int   // bytes of one message
	messageBudget  int64 // raw bytes of one message, with all its frame headers and control frames
	bytes          rate  // raw bytes from the client
	messages       rate
	pings          rate
	maxRooms       int
	maxEventBytes  int
	messageTimeout time.Duration
	pingInterval   time.Duration
	idleTimeout    time.Duration
	tooManyRooms   *Refusal // says the limit
}

func newConnLimits(cfg *WebSocketConfig) *connLimits {
	return &connLimits{
		maxMessage:     cfg.MaxMessageBytes,
		messageBudget:  2*int64(cfg.MaxMessageBytes) + messageBudgetSlack,
		bytes:          rate{float64(cfg.BytesPerSecond), float64(cfg.BytesBurst)},
		messages:       rate{float64(cfg.MessagesPerSecond), float64(cfg.MessageBurst)},
		pings:          rate{float64(cfg.PingsPerSecond), float64(cfg.PingsPerSecond)},
		maxRooms:       cfg.MaxRoomsPerConnection,
		maxEventBytes:  cfg.MaxEventBytes,
		messageTimeout: seconds(cfg.MessageTimeoutSeconds),
		pingInterval:   seconds(cfg.PingIntervalSeconds),
		idleTimeout:    seconds(cfg.IdleTimeoutSeconds),
		tooManyRooms: &Refusal{409, TooManyRooms,
			fmt.Sprintf("You are in %d rooms, the most that one connection may join.", cfg.MaxRoomsPerConnection)},
	}
}

// conn is one client's socket and its life: it reads messages, hands them to its protocol, and says goodbye.
// It knows bytes, not meaning.
type conn struct {
	// Immutable after the upgrade.
	server  *Server
	id      uint64 // for the log
	address netip.Addr
	room    string                // the only room it may use, "": any
	expires int64                 // the token's exp, ms since 1970; 0: never
	page    unique.Handle[origin] // the page's origin; zero: none, or the server's own, which is always allowed
	key     uint32                // keyPrint or staticPrint of what its token was accepted by
	strict  bool                  // from and signal:<x> must be the identity's own
	pro     bool                  // may send larger files through the relay

	wire   wire
	outbox Outbox
	member Member

	// Read goroutine.
	limits   *connLimits
	letshare letshare
	ably     *ablyConn       // nil: the connection speaks the LetShare protocol; immutable
	library  *websocket.Conn // nil until it is needed
	pings    bucket
	asked    chan *Refusal
	lastWord []byte // the answer to the last of too many errors: it leaves with the close frame, for end drops the queue
	inData   bool   // the library is inside a data message

	// Guarded by the registry's mutex.
	slot int32 // index; of this size because it fits beside inData

	// Sweep.
	pinged time.Duration // when the last ping was sent
}

// messageBuffers lends buffers for messages of ordinary size.
var messageBuffers = sync.Pool{New: func() any { return new(firstRead) }}

// upgrade takes the connection over from net/http and answers the handshake. The caller has checked everything that can be
// refused. It runs in the HTTP handler; afterwards run must be called in a goroutine of its own.
func (c *conn) upgrade(w http.ResponseWriter, r *http.Request) error {
	socket, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return err
	}
	c.outbox.socket, c.outbox.raw = socket, rawConn(socket)
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	c.wire.begin(c, early)
	// Written here because net/http would sort and copy the header, on a stack that must grow for it.
	socket.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := socket.Write(acceptance(r)); err != nil {
		c.outbox.end(ConnectionLost)
	}
	socket.SetWriteDeadline(time.Time{})
	return nil
}

// acceptance is the answer to a handshake that is in order (RFC 6455 section 4.2.2).
func acceptance(r *http.Request) []byte {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // the RFC's own
	answer := make([]byte, 0, 256)
	answer = append(answer, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	answer = base64.StdEncoding.AppendEncode(answer, sum[:])
	if hasToken(r, "Sec-WebSocket-Protocol", tokenSubprotocol) {
		answer = append(answer, "\r\nSec-WebSocket-Protocol: "+tokenSubprotocol...)
	}
	return append(answer, "\r\n\r\n"...)
}

// run is the connection's life after the upgrade, in its own goroutine: net/http's, with its buffers, has ended.
// A connection that has come to rest goes on in a fresh goroutine: the stack of this one has grown, and would not shrink.
func (c *conn) run() {
	c.guard((*conn).readMessages)
	if c.outbox.ended() == notEnded {
		go c.run()
		return
	}
	c.guard((*conn).leave)
	c.guard((*conn).sayGoodbye)
	c.wire.Conn.Close() // also when saying goodbye went wrong
	c.server.forget(c)
}

// leave takes the client out of its rooms.
func (c *conn) leave() {
	if c.ably != nil {
		c.ably.leave()
		return
	}
	c.letshare.leave()
}

// guard runs a part of the connection's life; a panic in it ends this connection and no other.
func (c *conn) guard(part func(*conn)) {
	defer func() {
		if p := recover(); p != nil {
			c.outbox.end(InternalError)
			c.server.log.Error("panic in a connection", "panic", fmt.Sprint(p), "address", c.address.String(), "stack", string(debug.Stack()))
		}
	}()
	part(c)
}

// readMessages reads until the connection ends, or has come to rest on a grown stack. At rest it waits in wire.await, with
// little stack and no buffer.
func (c *conn) readMessages() {
	for {
		if c.wire.resting() {
			if err := c.wire.await(); err == errNudged {
				return
			} else if err != nil {
				c.outbox.end(c.verdict(err))
				return
			}
			if !c.wire.grown.Load() {
				c.wire.grown.Store(true)
			}
		}
		c.refresh()
		if !c.readWhole() && !c.readMessage() || c.outbox.ended() != notEnded {
			return
		}
	}
}

// caddysGoodbye is how Caddy (2.6, seen) ends a connection to its upstream when it reloads: a close frame with 1001, but without
// the mask that RFC 6455 section 5.1 wants of a client. Taken for the violation that it is, our 1002 would now and then overtake
// Caddy's own 1001 on the way to the client, who has done nothing wrong.
const caddysGoodbye = "\x88\x02\x03\xe9"

// readWhole deals with the next frame if it is simple and here as a whole. False: it is not, and the library must read it.
func (c *conn) readWhole() bool {
	defer c.wire.rested()
	if message, ok := c.wire.takeWhole(opText); ok {
		c.takeText(message)
	} else if _, ok := c.wire.takeWhole(opPong); ok {
		// The bytes were the sign of life.
	} else if message, ok := c.takeWholeBinary(); ok {
		c.ably.take(message)
	} else if payload, ok := c.wire.takeWhole(opClose); ok {
		c.outbox.end(c.peerCloses(payload))
	} else if string(c.wire.pending) == caddysGoodbye && c.wire.held() == 0 {
		c.wire.pending = nil
		c.wire.goodbye = closeFrame(1001, "")
		c.outbox.end(PeerClosed)
	} else {
		return false
	}
	c.wire.messageDone()
	return true
}

// takeWholeBinary is takeWhole for the binary messages that an Ably client may send; a file's frame is too large for it.
func (c *conn) takeWholeBinary() ([]byte, bool) {
	if c.ably == nil {
		return nil, false
	}
	return c.wire.takeWhole(opBinary)
}

// peerCloses takes the payload of the client's close frame and says how the connection ends by it.
func (c *conn) peerCloses(payload []byte) Ending {
	if len(payload) == 0 {
		c.wire.goodbye = closeFrame(0, "")
		return PeerClosed
	}
	if len(payload) == 1 || !validCloseCode(binary.BigEndian.Uint16(payload)) {
		return ProtocolError
	}
	if !utf8.Valid(payload[2:]) {
		return InvalidUTF8
	}
	c.wire.goodbye = closeFrame(binary.BigEndian.Uint16(payload), string(payload[2:]))
	return PeerClosed
}

// readMessage lets the library read one message, and hands it to the protocol. False: the connection has ended.
func (c *conn) readMessage() bool {
	if c.library == nil && !c.openLibrary() {
		return false
	}
	kind, r, err := c.library.Reader(context.Background())
	if errors.Is(err, errIdle) {
		c.wire.messageDone()
		return true
	}
	if err == nil {
		c.inData = true
		switch {
		case kind == websocket.MessageText:
			err = c.readText(r)
		case c.ably != nil:
			err = c.readScratch(r, c.ably.take)
		default:
			err = c.readBinary(r)
		}
		c.inData = false
		c.wire.messageDone()
	}
	if err != nil {
		c.outbox.end(c.verdict(err))
	}
	return err == nil
}

// collect reads a message to its end. The buffer grows with the bytes that came, never with a length that was announced.
func (c *conn) collect(r io.Reader, message []byte) ([]byte, error) {
	for {
		c.wire.holding = int32(min(cap(message), math.MaxInt32))
		n, err := r.Read(message[len(message):cap(message)])
		message = message[:len(message)+n]
		if err == io.EOF && c.wire.readErr != nil {
			// The library takes the end of the stream inside a message for the message's own.
			return nil, io.ErrUnexpectedEOF
		}
		if err == io.EOF {
			return message, nil
		}
		if err != nil {
			return nil, err
		}
		if len(message) == cap(message) {
			larger := make([]byte, len(message), min(2*cap(message), max(c.limits.maxMessage, cap(message))+1))
			copy(larger, message)
			message = larger
		}
	}
}

// readText reads a text message and hands it to the protocol.
func (c *conn) readText(r io.Reader) error { return c.readScratch(r, c.takeText) }

// readScratch reads a message and hands it to take, which may not keep it.
func (c *conn) readScratch(r io.Reader, take func([]byte)) error {
	buffer := messageBuffers.Get().(*firstRead)
	defer messageBuffers.Put(buffer)
	message, err := c.collect(r, buffer[:0])
	if err == nil {
		take(message)
	}
	return err
}

// takeText hands a text message over.
func (c *conn) takeText(message []byte) {
	// The library does not check this, and a browser that is sent such bytes must cut its connection
	// (RFC 6455 section 8.1): one member could throw out all others.
	if !utf8.Valid(message) {
		c.outbox.end(InvalidUTF8)
		return
	}
	if c.ably != nil {
		c.ably.take(message)
		return
	}
	c.letshare.text(message)
}

// readBinary reads a binary message into a buffer of its own, with room in front for a frame header, so that it can be
// passed on without a copy, and hands it to the protocol. Nothing but a file's frame is binary.
func (c *conn) readBinary(r io.Reader) error {
	buffer, kept := relayBuffers.Get().(*relayBuffer), false
	defer func() {
		if !kept {
			relayBuffers.Put(buffer)
		}
	}()
	message, err := c.collect(r, buffer[maxFrameHeader:maxFrameHeader])
	if err != nil {
		return err
	}
	if len(message) > relayHeaderBytes+maxRelayChunkBytes {
		c.server.counters.drop(DropBinary)
		return nil
	}
	begin := maxFrameHeader - frameHeaderSize(len(message))
	appendFrameHeader(buffer[begin:begin], opBinary, len(message))
	kept = c.letshare.binary(message, buffer[begin:maxFrameHeader+len(message)], buffer)
	return nil
}

// verdict says why reading failed.
func (c *conn) verdict(err error) Ending {
	var closed websocket.CloseError
	switch goodbye := c.wire.goodbye; {
	case errors.As(err, &closed):
		if !utf8.ValidString(closed.Reason) {
			return InvalidUTF8
		}
		return PeerClosed
	case len(goodbye) >= 4 && websocket.StatusCode(int(goodbye[2])<<8|int(goodbye[3])) == websocket.StatusMessageTooBig:
		return MessageTooBig
	case len(goodbye) > 0:
		return ProtocolError
	case c.wire.readErr != nil:
		return ConnectionLost
	}
	return ProtocolError // the library cuts some violations without a word, an unmasked frame for one
}

// onPing answers a client's ping with our own pong, and cuts a client that sends too many. It returns false
// so that the library does not answer too.
func (c *conn) onPing(_ context.Context, payload []byte) bool {
	if !c.pings.take(c.limits.pings, 1, c.wire.clock()) {
		c.outbox.end(PingFlood)
		return false
	}
	if !c.inData {
		c.wire.messageDone()
	}
	pong := appendFrameHeader(make([]byte, 0, 2+len(payload)), opPong, len(payload))
	c.send(append(pong, payload...))
	return false
}

// send queues a frame and writes it if nobody else is writing. Read goroutine.
func (c *conn) send(frame []byte) {
	if c.outbox.put(frame) {
		c.server.flush(&c.outbox)
	}
}

// post hands an operation to the hub. While it waits for a full mailbox, no deadline runs against the client. Read goroutine.
func (c *conn) post(o op) {
	if c.server.hub.tryPost(o) {
		return
	}
	began := c.wire.clock()
	c.wire.pause()
	c.server.hub.post(o)
	c.wire.resume(began)
}

// ask posts an operation and waits until the shard has carried it out. Read goroutine.
func (c *conn) ask(o op) *Refusal {
	if c.asked == nil {
		c.asked = make(chan *Refusal, 1)
	}
	o.reply = c.asked
	c.post(o)
	return <-c.asked
}

// sayGoodbye tells the client why, and waits a little for its own close frame.
func (c *conn) sayGoodbye() {
	reason := c.outbox.ended()
	frame := reason.frame()
	if reason == PeerClosed {
		frame = c.wire.goodbye // the peer's own code and text, as RFC 6455 section 5.5.1 wants
	}
	if c.ably != nil {
		frame = append(c.ably.farewell(reason), frame...)
	}
	if reason == TooManyErrors || reason == FailedByServer {
		frame = append(c.lastWord, frame...)
	}
	said := c.outbox.finish(frame)
	switch {
	case said && reason != PeerClosed:
		c.linger(reason)
	case !said && reason != PeerClosed && reason != ConnectionLost:
		discard(c.wire.Conn)
	}
	if c.library != nil {
		c.library.CloseNow()
	}
	c.wire.giveBack()
	c.server.counters.ended(reason)
	if reason.overLimit() {
		c.server.log.Warn("connection cut", "reason", reason.String(), "address", c.address.String())
	}
	if log := c.server.log; log.Enabled(context.Background(), slog.LevelDebug) {
		log.Debug("connection closed", "connection", c.id, "reason", reason.String(), "address", c.address.String())
	}
}

// discard makes the close of a client that was cut drop what the kernel has queued for it: megabytes that nobody reads
// would stay for minutes.
func discard(socket net.Conn) {
	if wrapped, ok := socket.(interface{ NetConn() net.Conn }); ok {
		socket = wrapped.NetConn() // TLS
	}
	if tcp, ok := socket.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
}

// linger reads and throws away what the client still sends, until its close frame, its end of the stream, or the time is up.
func (c *conn) linger(reason Ending) {
	wait := closeLinger
	if reason == ProtocolError || reason == InvalidUTF8 || reason == MessageTooBig {
		wait = protocolErrorLinger
	}
	until := time.Now().Add(wait)
	buffer := messageBuffers.Get().(*firstRead)
	defer messageBuffers.Put(buffer)
	for !c.wire.scanner.closed && time.Now().Before(until) {
		// Each time anew: a late nudge may have set it to the past.
		c.wire.Conn.SetReadDeadline(until)
		n, err := c.wire.Conn.Read(buffer[:])
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		c.wire.scanner.scan(buffer[:n])
	}
}
