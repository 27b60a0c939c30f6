package main

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"
)

// tcpPair is a loopback connection with small buffers, so that writers meet a full socket. A receive buffer below
// two of loopback's segments would make the kernel wait for its timers.
func tcpPair(t testing.TB) (server, client net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if client, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	client.(*net.TCPConn).SetReadBuffer(128 << 10)
	if server, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	server.(*net.TCPConn).SetWriteBuffer(8 << 10)
	t.Cleanup(func() { server.Close(); client.Close() })
	return server, client
}

// tlsPair is a tcpPair with TLS on it.
func tlsPair(t testing.TB) (server, client net.Conn) {
	t.Helper()
	cert, key := filepath.Join(t.TempDir(), "cert"), filepath.Join(t.TempDir(), "key")
	writeKeyPair(t.(*testing.T), cert, key)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	plainServer, plainClient := tcpPair(t)
	server = tls.Server(plainServer, &tls.Config{Certificates: []tls.Certificate{pair}})
	client = tls.Client(plainClient, &tls.Config{InsecureSkipVerify: true})
	shaken := make(chan error, 1)
	go func() { shaken <- server.(*tls.Conn).Handshake() }()
	if err := errors.Join(client.(*tls.Conn).Handshake(), <-shaken); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(); client.Close() })
	return server, client
}

// unixPair is a pair of stream sockets in the file system.
func unixPair(t testing.TB) (server, client net.Conn) {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if client, err = net.Dial("unix", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	server.(*net.UnixConn).SetWriteBuffer(4 << 10)
	t.Cleanup(func() { server.Close(); client.Close() })
	return server, client
}

func memoryPair(t testing.TB) (server, client net.Conn) {
	server, client = net.Pipe()
	t.Cleanup(func() { server.Close(); client.Close() })
	return server, client
}

// outboxOn is an outbox on a socket, with a budget of its own.
func outboxOn(socket net.Conn, limit int) *Outbox {
	o := &Outbox{socket: socket, raw: rawConn(socket), limit: limit}
	o.budget = &Budget{limit: 1 << 40, each: func(visit func(*Outbox)) { visit(o) }}
	return o
}

// numbered is a text frame of n bytes of payload that says who put it and when.
func numbered(putter, seq, n int) []byte {
	payload := make([]byte, max(n, 8))
	binary.BigEndian.PutUint32(payload, uint32(putter))
	binary.BigEndian.PutUint32(payload[4:], uint32(seq))
	for i := 8; i < len(payload); i += 61 {
		payload[i] = byte(putter + seq + i)
	}
	return append(appendFrameHeader(nil, opText, len(payload)), payload...)
}

// checkNumbered checks a payload made by numbered and returns who put it and when.
func checkNumbered(p []byte) (putter, seq int, err error) {
	if len(p) < 8 {
		return 0, 0, fmt.Errorf("a frame of %d bytes", len(p))
	}
	putter, seq = int(binary.BigEndian.Uint32(p)), int(binary.BigEndian.Uint32(p[4:]))
	for i := 8; i < len(p); i += 61 {
		if p[i] != byte(putter+seq+i) {
			return 0, 0, fmt.Errorf("byte %d of frame %d of putter %d is another's", i, seq, putter)
		}
	}
	return putter, seq, nil
}

// sockets are the kinds of sockets that an outbox writes to.
var sockets = map[string]func(testing.TB) (server, client net.Conn){
	"tcp": tcpPair, "tls": tlsPair, "unix": unixPair, "memory": memoryPair,
}

// Many put at once, small and large frames, pings between them. What arrives is whole frames, each putter's in order.
func TestFramesOfManyPuttersNeverMix(t *testing.T) {
	const putters, each = 6, 60
	for name, pair := range sockets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, client := pair(t)
			o := outboxOn(server, 1<<30)
			var putting sync.WaitGroup
			for putter := range putters {
				putting.Go(func() {
					w := newInlineWriter()
					random := rand.New(rand.NewPCG(1, uint64(putter)))
					for seq := range each {
						size := random.IntN(300)
						if random.IntN(10) == 0 {
							size = random.IntN(100_000)
						}
						flushIt := o.put(numbered(putter, seq, size))
						flushIt = o.put(pingFrame) || flushIt
						if flushIt {
							o.flush(w)
						}
					}
				})
			}
			var next [putters]int
			client.SetReadDeadline(time.Now().Add(patience))
			for texts, pings := 0, 0; texts < putters*each || pings < putters*each; {
				opcode, payload, err := readServerFrame(client)
				if err != nil {
					t.Fatalf("after %d texts and %d pings: %v", texts, pings, err)
				}
				if opcode == opPing {
					pings++
					continue
				}
				texts++
				putter, seq, err := checkNumbered(payload)
				if err != nil || seq != next[putter] {
					t.Fatalf("frame %d of putter %d, want %d: %v", seq, putter, next[putter], err)
				}
				next[putter]++
			}
			putting.Wait()
			waitForClaim(t, o)
			if o.held() != 0 || o.budget.total.Load() != 0 {
				t.Errorf("all is written, and %d bytes are on the account", o.budget.total.Load())
			}
		})
	}
}

// waitForClaim waits until nobody writes: the last writer gives the claim back a moment after its last byte was read.
func waitForClaim(t *testing.T, o *Outbox) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; runtime.Gosched() {
		o.mu.Lock()
		writing := o.writing
		o.mu.Unlock()
		if !writing {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the claim is not given back")
		}
	}
}

// Whenever a connection ends in the middle of it all, its client gets whole frames and then one close frame, or
// the stream ends somewhere without one. Never a close frame inside another frame, and never anything behind it.
func TestACloseFrameNeverStandsInsideAnotherFrame(t *testing.T) {
	for name, pair := range sockets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			told := 0
			for round := range 24 {
				if closeAmidst(t, pair, uint64(round)) {
					told++
				}
			}
			t.Logf("%d of 24 were told why", told)
		})
	}
}

// closeAmidst ends an outbox while others put and reports whether the client got the close frame.
func closeAmidst(t *testing.T, pair func(testing.TB) (server, client net.Conn), seed uint64) (told bool) {
	server, client := pair(t)
	o := outboxOn(server, 1<<20)
	random := rand.New(rand.NewPCG(seed, 7))
	endAfter, size := random.IntN(40), 1+random.IntN(60_000)>>random.IntN(10)
	var others sync.WaitGroup
	for putter := range 3 {
		others.Go(func() {
			w := newInlineWriter()
			for seq := range 40 {
				if putter == 0 && seq == endAfter {
					o.end(GoingAway)
				}
				if o.put(numbered(putter, seq, size)) {
					o.flush(w)
				}
				runtime.Gosched()
			}
		})
	}
	left := make(chan bool, 1)
	others.Go(func() { // the read goroutine
		server.Read(make([]byte, 1)) // fails when end wakes it
		left <- o.finish(GoingAway.frame())
		server.Close()
	})
	client.SetReadDeadline(time.Now().Add(patience))
	var next [3]int
	for {
		opcode, payload, err := readServerFrame(client)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("round %d: the stream does not end", seed)
		} else if err != nil {
			break // TLS finds words of its own for a stream that is cut in a record
		}
		if told {
			t.Fatalf("round %d: a frame behind the close frame", seed)
		}
		if opcode == opClose {
			told = true
			continue
		}
		putter, seq, err := checkNumbered(payload)
		if err != nil || seq < next[putter] {
			t.Fatalf("round %d: frame %d of putter %d, want %d: %v", seed, seq, putter, next[putter], err)
		}
		next[putter] = seq + 1
	}
	others.Wait()
	if o.budget.total.Load() != 0 {
		t.Errorf("round %d: %d bytes stay on the account", seed, o.budget.total.Load())
	}
	if l := <-left; l != told {
		t.Errorf("round %d: finish says %t, the client %t", seed, l, told)
	}
	return told
}

// unflushed is an outbox whose claim the test holds: what is put stays queued.
func unflushed(limit int) *Outbox {
	o := outboxOn(deadSocket{}, limit)
	o.writing = true
	return o
}

func TestTheQueueHasALimitInBytes(t *testing.T) {
	o, w := unflushed(100), newInlineWriter()
	if !o.put(make([]byte, 60)) {
		t.Error("who puts first must flush")
	}
	if o.put(make([]byte, 40)) {
		t.Error("the second flush is not the second's business")
	}
	o.flush(w)
	if o.ended() != notEnded || o.held() != 100 || o.budget.total.Load() != 100 {
		t.Errorf("at the limit: %v, %d bytes held", o.ended(), o.held())
	}
	if o.put([]byte{1}) || o.ended() != SlowConsumer {
		t.Errorf("one byte over the limit: %v", o.ended())
	}
	if o.held() != 0 || o.budget.total.Load() != 0 {
		t.Errorf("the queue of an ended client is on the account with %d bytes", o.budget.total.Load())
	}
	if o.put([]byte{1}) || o.end(GoingAway) || o.ended() != SlowConsumer {
		t.Error("the first reason does not win")
	}
	o.receiving(50)
	if o.budget.total.Load() != 0 {
		t.Error("an ended client is charged")
	}
}

func TestAFrameOverTheLimitPassesAlone(t *testing.T) {
	o := unflushed(100)
	o.put(make([]byte, 1000))
	if o.ended() != notEnded {
		t.Error("a large frame does not pass an empty queue")
	}
	o.put([]byte{1})
	if o.ended() != SlowConsumer {
		t.Error("a queue over its limit takes more")
	}
	o = unflushed(100)
	o.put([]byte{1})
	o.put(make([]byte, 1000))
	if o.ended() != SlowConsumer {
		t.Error("a large frame passes a queue that is not empty")
	}
}

func TestTheFirstOfManyReasonsWins(t *testing.T) {
	for range 50 {
		o := unflushed(100)
		var wins [endingCount]int
		var mu sync.Mutex
		var all sync.WaitGroup
		for reason := PeerClosed; reason < endingCount; reason++ {
			all.Go(func() {
				if o.end(reason) {
					mu.Lock()
					wins[reason]++
					mu.Unlock()
				}
			})
		}
		all.Wait()
		winners := 0
		for _, n := range wins {
			winners += n
		}
		if winners != 1 || wins[o.ended()] != 1 {
			t.Fatalf("%d winners, the reason is %v", winners, o.ended())
		}
	}
}

// A client that took a part of a frame would take a close frame for the frame's rest.
func TestNothingIsSaidAfterHalfAFrame(t *testing.T) {
	for name, pair := range sockets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, client := pair(t)
			o := outboxOn(server, 64<<20)
			frame := numbered(1, 1, 8<<20) // more than any socket's buffers
			if !o.put(frame) {
				t.Fatal("not queued")
			}
			o.flush(newInlineWriter())
			client.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.ReadFull(client, make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			o.end(GoingAway)
			done := make(chan bool, 1)
			go func() {
				done <- o.finish(GoingAway.frame())
				server.Close()
			}()
			rest, _ := io.Copy(io.Discard, client) // the stream may end with a reset
			if <-done {
				t.Error("finish says that the close frame left")
			}
			if rest >= int64(len(frame))-1000 {
				t.Errorf("%d bytes after the first 1000 of %d", rest, len(frame))
			}
		})
	}
}

// deadlineSpy notes the write deadline that is in force.
type deadlineSpy struct {
	net.Conn
	mu    sync.Mutex
	write time.Time
	sets  int
}

func (d *deadlineSpy) SetWriteDeadline(at time.Time) error {
	d.mu.Lock()
	d.write, d.sets = at, d.sets+1
	d.mu.Unlock()
	return d.Conn.SetWriteDeadline(at)
}

func (d *deadlineSpy) state() (deadline time.Time, sets int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.write, d.sets
}

// A client that reads nothing is not waited for.
func TestFlushNeverBlocks(t *testing.T) {
	for name, pair := range sockets {
		t.Run(name, func(t *testing.T) {
			server, _ := pair(t)
			o := outboxOn(server, 16<<20)
			w, frame := newInlineWriter(), numbered(0, 0, 100_000)
			done := make(chan struct{})
			go func() {
				defer close(done)
				for o.ended() == notEnded {
					if o.put(frame) {
						o.flush(w)
					}
				}
			}()
			select {
			case <-done:
			case <-time.After(patience):
				t.Fatal("a flush waits for a client that does not read")
			}
			if o.ended() != SlowConsumer {
				t.Errorf("ended with %v", o.ended())
			}
			o.finish(nil)
			if o.budget.total.Load() != 0 {
				t.Errorf("%d bytes stay on the account", o.budget.total.Load())
			}
		})
	}
}

// holders makes outboxes that hold so many bytes each, on one account.
func holders(limit int64, held ...int) (*Budget, []*Outbox) {
	var all []*Outbox
	budget := &Budget{limit: limit, each: func(visit func(*Outbox)) {
		for _, o := range all {
			visit(o)
		}
	}}
	for _, n := range held {
		o := unflushed(1 << 30)
		o.budget = budget
		all = append(all, o)
		o.receiving(n)
	}
	return budget, all
}

func TestTheLargestHolderIsCutAndNoOther(t *testing.T) {
	budget, all := holders(100, 30, 40, 29)
	if over := budget.over(); over || budget.total.Load() != 99 {
		t.Fatalf("%d of 100 bytes: over %t", budget.total.Load(), over)
	}
	all[0].put(make([]byte, 2)) // holds 32 with what it is sending itself
	all[0].flush(newInlineWriter())
	for i, want := range []Ending{notEnded, MemoryPressure, notEnded} {
		if got := all[i].ended(); got != want {
			t.Errorf("holder %d: %v, want %v", i, got, want)
		}
	}
	if total := budget.total.Load(); total != 61 {
		t.Errorf("%d bytes on the account, want 61", total)
	}
	for _, o := range all {
		o.end(GoingAway)
	}
	if total := budget.total.Load(); total != 0 {
		t.Errorf("%d bytes on the account of nobody", total)
	}
}

// Many see at the same moment that the account is overdrawn; only as many are cut as it takes.
func TestNoSecondOneIsCutForTheSameBytes(t *testing.T) {
	for range 30 {
		budget, all := holders(100_000)
		for range 100 {
			o := unflushed(1 << 30)
			o.budget = budget
			all = append(all, o)
		}
		budget.each = func(visit func(*Outbox)) {
			for _, o := range all {
				visit(o)
			}
		}
		for _, o := range all {
			o.receiving(1000)
		}
		var growing sync.WaitGroup
		for _, o := range all[:16] {
			growing.Go(func() { o.receiving(2000) })
		}
		growing.Wait()
		if total := budget.total.Load(); total > budget.limit || total <= budget.limit-2000 {
			t.Fatalf("%d bytes are left of %d: each cut frees at most 2000", total, budget.limit)
		}
	}
}
