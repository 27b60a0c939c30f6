package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"time"
)

// badTokens tries to get in with every kind of token that must be refused.
func (s *soak) badTokens(ctx context.Context) {
	b64 := base64.RawURLEncoding.EncodeToString
	sign := func(header, claims, secret string) string {
		text := b64([]byte(header)) + "." + b64([]byte(claims))
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(text))
		return text + "." + b64(mac.Sum(nil))
	}
	const hs256 = `{"alg":"HS256","typ":"JWT"}`
	claims := fmt.Sprintf(`{"user_id":"mallory","exp":%d}`, time.Now().Add(time.Hour).Unix())
	tokens := []string{
		"", "rubbish", strings.Repeat(".", 3000), strings.Repeat("x", 5000),
		sign(hs256, claims, "another server's secret, which is long"),
		sign(hs256, claims, ""),
		b64([]byte(`{"alg":"none"}`)) + "." + b64([]byte(claims)) + ".",
		sign(`{"alg":"HS512","typ":"JWT"}`, claims, "whatever"),
		s.server.token + "A",
	}
	for n := 0; pause(ctx, 400*time.Millisecond); n++ {
		t := *s.server.target
		t.token = tokens[n%len(tokens)]
		c, err := t.dial("mallory")
		if err == nil {
			c.conn.Close()
			s.fault(&s.talk.faults.garbled, "token %d was accepted", n%len(tokens))
		} else if !strings.Contains(err.Error(), "HTTP/1.1 401") {
			s.fault(&s.talk.faults.garbled, "token %d: %v", n%len(tokens), err)
		}
		s.tally.refused.Add(1)
	}
}

// attack is something that a client must not do, and how the server must end it.
type attack struct {
	name string
	code uint16 // of the close frame; 0: cut without one, or with any
	do   func(c *socket, room string) error
}

// raw returns an attack's deed that writes bytes as they are.
func raw(text ...byte) func(*socket, string) error {
	return func(c *socket, _ string) error {
		_, err := c.conn.Write(text)
		return err
	}
}

// frames returns an attack's deed that sends one frame several times.
func frames(n int, op byte, payload string) func(*socket, string) error {
	return func(c *socket, _ string) error {
		for range n {
			if err := c.send(op, []byte(payload)); err != nil {
				return nil // it has been cut already
			}
		}
		return nil
	}
}

var attacks = []attack{
	{"a frame without a mask", 0, raw(0x81, 2, '{', '}')},
	{"a reserved bit", 1002, raw(0xc1, 0x80, 1, 2, 3, 4)},
	{"an unknown opcode", 1002, raw(0x83, 0x80, 1, 2, 3, 4)},
	{"a continuation of nothing", 1002, raw(0x80, 0x80, 1, 2, 3, 4)},
	{"a fragmented ping", 1002, raw(0x09, 0x80, 1, 2, 3, 4)},
	{"a long ping", 1002, raw(0x89, 0xfe, 0, 126, 1, 2, 3, 4)},
	{"text that is not UTF-8", 1007, frames(1, opText, "{\"a\":\"\xff\xfe\"}")},
	{"a message of 2^63-1 bytes", 0, raw(0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, '{')},
	{"a message over the limit", 1009, frames(1, opText, `{"type":"`+strings.Repeat("x", 600_000)+`"}`)},
	{"errors in a row", 1008, frames(20, opText, `{"type":`)},
	{"a flood of pings", 1008, frames(200, opPing, "flood")},
	{"a flood of messages", 1008, flood},
	{"bytes at random", 0, func(c *socket, _ string) error {
		text := make([]byte, 1+rand.IntN(5000))
		for i := range text {
			text[i] = byte(rand.Uint32())
		}
		_, err := c.conn.Write(text)
		return err
	}},
}

// flood publishes as fast as it can, in somebody else's room.
func flood(c *socket, room string) error {
	t := newTemplate(webSocket, c.key, fmt.Appendf(nil, `{"type":"publish","channel":%q,"event":"signal:all","data":%s}`, room, dataObject("flood", 200)))
	for range 3000 {
		if _, err := c.conn.Write(t.set(stamp{hostilePublisher, everyone, 0, 0})); err != nil {
			return nil
		}
	}
	return nil
}

// attack plays one attack after the other from within the rooms of the talk, and sees each end as it must.
func (s *soak) attack(ctx context.Context) {
	for n := 0; pause(ctx, 700*time.Millisecond); n++ {
		a := attacks[n%len(attacks)]
		room := s.talk.rooms[rand.IntN(soakRooms)].name
		if err := s.attackOnce(a, room); err != nil {
			s.fault(&s.talk.faults.garbled, "%s: %v", a.name, err)
		}
		if err := s.halfRequest(); err != nil {
			s.fault(&s.talk.faults.garbled, "half a request: %v", err)
		}
		s.tally.attacks.Add(1)
	}
}

func (s *soak) attackOnce(a attack, room string) error {
	c, err := s.server.dial("mallory")
	if err != nil {
		return err
	}
	defer c.conn.Close()
	if err := c.join(room, "signal:all"); err != nil {
		return err
	}
	c.conn.SetWriteDeadline(time.Now().Add(replyTimeout))
	ended := make(chan error, 1)
	go func() { ended <- s.seeEnd(c, a) }()
	if err := a.do(c, room); err != nil && !errors.Is(err, net.ErrClosed) {
		c.conn.Close()
		<-ended
		return err
	}
	if a.name == "bytes at random" { // they may also be the beginning of something: nobody waits for its rest
		time.Sleep(100 * time.Millisecond)
		c.conn.Close()
		<-ended
		return nil
	}
	return <-ended
}

// seeEnd reads until the connection ends, and compares the close code.
func (s *soak) seeEnd(c *socket, a attack) error {
	c.conn.SetReadDeadline(time.Now().Add(replyTimeout))
	for {
		op, payload, err := c.read()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return errors.New("not ended")
		case err != nil && a.code != 0 && !errors.Is(err, net.ErrClosed):
			return fmt.Errorf("ended without a close frame, want %d: %w", a.code, err)
		case err != nil:
			return nil
		case op != opClose:
			continue
		case a.code != 0 && (len(payload) < 2 || binary.BigEndian.Uint16(payload) != a.code):
			return fmt.Errorf("%w, want %d", closeError(payload), a.code)
		}
		c.conn.Close() // the other half of the handshake is not due to who broke the protocol
		return nil
	}
}

// halfRequest leaves a request unfinished.
func (s *soak) halfRequest() error {
	conn, err := net.Dial("tcp", s.server.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	request := "GET /ws?token=" + s.server.token + " HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
	_, err = io.Copy(conn, bytes.NewReader([]byte(request[:rand.IntN(len(request))])))
	return err
}
