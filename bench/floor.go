package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
)

// The floors are what any server on this machine has to pay: plain TCP, no protocol, no checks, no limits.
// A connection's first frame names its room and is answered "subscribed"; every later one goes to all others there.
//   - one: each delivery is one write, made by the goroutine that read the message.
//   - batch: a goroutine per room takes all that is queued and gives it to each member in one writev.
const (
	floorOne   = "one"
	floorBatch = "batch"
)

// floorQueue is how many messages may wait in a room of the batching floor.
const floorQueue = 1024

// floorServer holds the rooms. They live as long as the process.
type floorServer struct {
	batch bool
	mu    sync.Mutex
	rooms map[string]*floorRoom
}

type floorRoom struct {
	mu      sync.RWMutex
	members []*net.TCPConn
	queue   chan floorMessage // batch only
}

type floorMessage struct {
	from  *net.TCPConn
	frame []byte // with its length prefix; shared by all recipients
}

// runFloor serves until the listener fails.
func runFloor(kind, addr string) error {
	l, err := (&net.ListenConfig{KeepAlive: -1}).Listen(context.Background(), "tcp", addr) // as our server does
	if err != nil {
		return err
	}
	switch kind {
	case floorOne, floorBatch:
		f := &floorServer{batch: kind == floorBatch, rooms: map[string]*floorRoom{}}
		defer f.close()
		return f.serveAll(l)
	case floorCopy:
		return copyFloor(l)
	case floorHandshake:
		return handshakeFloor(l)
	}
	l.Close()
	return fmt.Errorf("floor %q: want %s, %s, %s or %s", kind, floorOne, floorBatch, floorCopy, floorHandshake)
}

// serveEach accepts until the listener fails, serves each connection in a goroutine, and waits for them to end.
func serveEach(l net.Listener, serve func(net.Conn)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		wg.Go(func() { serve(conn) })
	}
}

// serveAll serves until the listener fails.
func (f *floorServer) serveAll(l net.Listener) error {
	return serveEach(l, func(conn net.Conn) { f.serve(conn.(*net.TCPConn)) })
}

// close ends the goroutines of the rooms. Nobody may be connected any more.
func (f *floorServer) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, rm := range f.rooms {
		if rm.queue != nil {
			close(rm.queue)
		}
	}
	f.rooms = nil
}

// serve is one connection's life.
func (f *floorServer) serve(conn *net.TCPConn) {
	defer conn.Close()
	br := bufio.NewReaderSize(conn, 4096)
	frame, err := readFrame(br)
	if err != nil {
		return
	}
	rm := f.room(string(frame[4:]))
	rm.join(conn)
	defer rm.leave(conn)
	conn.Write(lengthPrefix.appendFrame(nil, opText, [4]byte{}, []byte("subscribed")))
	for {
		frame, err := readFrame(br)
		if err != nil {
			return
		}
		if f.batch {
			rm.queue <- floorMessage{conn, frame}
		} else {
			rm.deliver(conn, frame)
		}
	}
}

// readFrame returns the next frame with its prefix, in memory of its own.
func readFrame(br *bufio.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(br, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxFrame {
		return nil, errors.New("frame too large")
	}
	frame := make([]byte, 4+size)
	copy(frame, head[:])
	_, err := io.ReadFull(br, frame[4:])
	return frame, err
}

func (f *floorServer) room(name string) *floorRoom {
	f.mu.Lock()
	defer f.mu.Unlock()
	rm := f.rooms[name]
	if rm == nil {
		rm = &floorRoom{}
		f.rooms[name] = rm
		if f.batch {
			rm.queue = make(chan floorMessage, floorQueue)
			go rm.deliverBatches()
		}
	}
	return rm
}

func (rm *floorRoom) join(conn *net.TCPConn) {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	rm.members = append(rm.members, conn)
}

func (rm *floorRoom) leave(conn *net.TCPConn) {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	for i, m := range rm.members {
		if m == conn {
			rm.members = append(rm.members[:i], rm.members[i+1:]...)
			return
		}
	}
}

// deliver writes frame to everyone but its sender. A failed write ends that member's own reader.
func (rm *floorRoom) deliver(from *net.TCPConn, frame []byte) {
	rm.mu.RLock()
	defer rm.mu.RUnlock()
	for _, m := range rm.members {
		if m != from {
			m.Write(frame)
		}
	}
}

// deliverBatches is the goroutine of a batching room. It yields once before it writes, so that every reader
// that has a message has put it: that is where the batches come from.
func (rm *floorRoom) deliverBatches() {
	var batch []floorMessage
	var scratch net.Buffers
	for first := range rm.queue {
		batch = rm.drain(append(batch[:0], first))
		runtime.Gosched()
		batch = rm.drain(batch)
		rm.mu.RLock()
		for _, m := range rm.members {
			scratch = scratch[:0]
			for _, msg := range batch {
				if msg.from != m {
					scratch = append(scratch, msg.frame)
				}
			}
			if out := scratch; len(out) > 0 {
				out.WriteTo(m)
			}
		}
		rm.mu.RUnlock()
	}
}

func (rm *floorRoom) drain(batch []floorMessage) []floorMessage {
	for {
		select {
		case msg := <-rm.queue:
			batch = append(batch, msg)
		default:
			return batch
		}
	}
}
