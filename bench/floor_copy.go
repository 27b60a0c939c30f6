package main

import (
	"io"
	"net"

	"letshare/giveway"
)

// floorCopy is the floor of a relay: a proxy that reads what one connection sends and writes it to another, through a
// buffer of its own, as anything must that looks at the bytes. A connection's first byte says which end it is.
const (
	floorCopy    = "copy"
	copyReceiver = 'r'
	copySender   = 's'
)

// copyFloor joins each sender to the receiver that came before it.
func copyFloor(l net.Listener) error {
	receivers := make(chan net.Conn, 16)
	return serveEach(l, func(conn net.Conn) {
		var role [1]byte
		if _, err := io.ReadFull(conn, role[:]); err != nil {
			conn.Close()
			return
		}
		if role[0] == copyReceiver {
			receivers <- conn
			return
		}
		pass(<-receivers, conn)
	})
}

// pass copies until the sender ends.
func pass(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// copying sends frames of size bytes through the floor t: count of them at a time, until the time is up.
func copying(t *target, size, count int, more func() bool) (sent int64, err error) {
	receiver, err := copyEnd(t, copyReceiver)
	if err != nil {
		return 0, err
	}
	defer receiver.Close()
	sender, err := copyEnd(t, copySender)
	if err != nil {
		return 0, err
	}
	defer sender.Close()
	traffic, err := giveway.New() // as the relay's clients do
	if err != nil {
		return 0, err
	}
	defer traffic.Close()
	frame := make([]byte, size)
	buf := make([]byte, 64<<10)
	for more() {
		failed := make(chan error, 1)
		go func() {
			for range count {
				if _, err := sender.Write(frame); err != nil {
					failed <- err
					return
				}
				traffic.GiveWay()
			}
			failed <- nil
		}()
		for got := 0; got < size*count; {
			n, err := receiver.Read(buf)
			if err != nil {
				sender.Close()
				<-failed
				return sent, err
			}
			got += n
			traffic.GiveWay()
		}
		if err := <-failed; err != nil {
			return sent, err
		}
		sent += int64(count)
	}
	return sent, nil
}

// copyEnd connects one end.
func copyEnd(t *target, role byte) (net.Conn, error) {
	conn, err := net.Dial("tcp", t.addr)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte{role}); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}
