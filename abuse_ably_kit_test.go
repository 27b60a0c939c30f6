package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"letshare/ably"
)

// The tests named TestAbuseANN play what Ably clients do to a server, by the numbers of docs/reliability.md. Each has the
// bystanders of the other cases and beside them Ably clients in the same rooms, one for either format.

// ablyBystander is an Ably client that says a number every pulseInterval, and listens to all in its room who do.
type ablyBystander struct {
	c       *ablyClient
	room    string
	partner string
	stop    chan struct{}
	done    chan error // from both of its goroutines

	// Of listen, to be read when it has ended.
	heard  map[string]int64 // everybody's latest number, LetShare members included
	others map[string]int   // how many messages came with other names, by name
}

// ablyPulse is what an Ably bystander says.
func ablyPulse(from string, n int64, last bool) ably.Message {
	return ablyObject("pulse", fmt.Sprintf(`{"from":%q,"pulse":%d,"last":%t}`, from, n, last))
}

// talk says numbers until stop, and then that this was the last.
func (b *ablyBystander) talk() error {
	ticker := time.NewTicker(pulseInterval)
	defer ticker.Stop()
	for n, last := int64(1), false; !last; n++ {
		select {
		case <-ticker.C:
		case <-b.stop:
			last = true
		}
		m := ably.ProtocolMessage{Action: ably.ActionMessage, Channel: ably.Some(b.room), MsgSerial: ably.Some(n - 1),
			Messages: []ably.Message{ablyPulse(b.c.name, n, last)}}
		b.c.socket.SetWriteDeadline(time.Now().Add(patience))
		if _, err := b.c.socket.Write(maskedFrame(finBit|b.c.opcode(), m.Append(nil, b.c.format))); err != nil {
			return fmt.Errorf("%s cannot talk: %w", b.c.name, err)
		}
	}
	return nil
}

// opcode is that of the client's messages.
func (c *ablyClient) opcode() byte { return []byte{opText, opBinary}[c.format] }

// listen reads until the partner's last number. Nobody's number may be missing or come twice, each of its own must be
// acknowledged in turn, and nothing may come that is an error or cannot be read.
func (b *ablyBystander) listen() error {
	acknowledged := int64(0)
	for {
		opcode, payload, err := b.c.read()
		if err != nil {
			return fmt.Errorf("%s cannot listen: %w", b.c.name, err)
		}
		if opcode == opPing {
			b.c.socket.Write(maskedFrame(finBit|opPong, payload))
			continue
		}
		m, err := ably.Decode(b.c.format, payload)
		if err != nil || opcode != b.c.opcode() || opcode == opText && !utf8.Valid(payload) {
			return fmt.Errorf("%s cannot read opcode %d, %.200q: %v", b.c.name, opcode, payload, err)
		}
		switch m.Action {
		case ably.ActionHeartbeat, ably.ActionPresence, ably.ActionSync:
		case ably.ActionAck:
			if m.MsgSerial.V != acknowledged {
				return fmt.Errorf("%s: the ACK of %d comes after that of %d", b.c.name, m.MsgSerial.V, acknowledged-1)
			}
			acknowledged += int64(m.Count)
		case ably.ActionMessage:
			if last, err := b.hear(m.Messages); last || err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s gets %.300s", b.c.name, m.Append(nil, ably.JSON))
		}
	}
}

// hear takes what was said in the room, and reports whether it was the partner's last.
func (b *ablyBystander) hear(messages []ably.Message) (last bool, err error) {
	for _, item := range messages {
		var said struct {
			From  string
			Pulse int64
			Last  bool
		}
		if item.Name.V != "pulse" || json.Unmarshal(item.Data.Bytes, &said) != nil || said.Pulse == 0 {
			b.others[item.Name.V]++
			continue
		}
		if before, known := b.heard[said.From]; known && said.Pulse != before+1 {
			return false, fmt.Errorf("%s hears number %d of %s after %d", b.c.name, said.Pulse, said.From, before)
		}
		b.heard[said.From] = said.Pulse
		last = last || said.Last && said.From == b.partner
	}
	return last, nil
}

// ablyUnderAttack starts a server with bystanders of both protocols.
func ablyUnderAttack(t *testing.T, change ...func(*Config)) *abused {
	t.Helper()
	a := underAttack(t, append([]func(*Config){withAblyKeys}, change...)...)
	for _, room := range []string{nearRoom, farRoom} {
		for i, format := range []string{"json", "msgpack"} {
			b := &ablyBystander{room: room, stop: make(chan struct{}), done: make(chan error, 2), heard: make(map[string]int64), others: make(map[string]int)}
			names := []string{room + " json", room + " msgpack"}
			b.partner = names[1-i]
			b.c = a.testServer.ably(t, names[i], "format="+format, "clientId="+names[i], "echo=false")
			b.c.attach(t, room)
			a.onAbly = append(a.onAbly, b)
		}
	}
	for _, b := range a.onAbly {
		go func() { b.done <- b.talk() }()
		go func() { b.done <- b.listen() }()
	}
	a.lull()
	return a
}

// calmAbly wants the Ably bystanders to have missed nothing, and what is kept for Ably's clients to be forgotten soon: so a test
// need not wait for minutes.
func (a *abused) calmAbly() {
	a.t.Helper()
	if len(a.onAbly) == 0 {
		return
	}
	a.silenceAbly()
	for _, b := range a.onAbly {
		b.c.close()
	}
	a.mustReload(a.t, func(cfg *Config) {
		cfg.Ably.HistorySeconds, cfg.Ably.ConnectionStateSeconds = 0, minAblyConnectionState
	})
}

// silenceAbly lets the Ably bystanders stop talking, and wants them to have missed nothing. What they heard may be read afterwards.
func (a *abused) silenceAbly() {
	a.t.Helper()
	if a.silent {
		return
	}
	a.silent = true
	for _, b := range a.onAbly {
		close(b.stop)
	}
	for _, b := range a.onAbly {
		for range cap(b.done) {
			select {
			case err := <-b.done:
				if err != nil {
					a.t.Error(err)
				}
			case <-time.After(2 * patience):
				a.t.Fatalf("%s does not hear the last of %s", b.c.name, b.partner)
			}
		}
		if b.room == nearRoom && (b.heard["near ann"] < 3 || b.heard["near bob"] < 3) {
			a.t.Errorf("%s heard %v of the room's LetShare members", b.c.name, b.heard)
		}
	}
}

// ably connects an attacker, whose socket ends with calm at the latest.
func (a *abused) ably(name string, options ...string) *ablyClient {
	a.t.Helper()
	c := a.testServer.ably(a.t, name, options...)
	a.attackers = append(a.attackers, c.client)
	return c
}

// wantAlive wants an answer from the server within the connection.
func (c *ablyClient) wantAlive(t testing.TB) {
	t.Helper()
	id := fmt.Sprint("alive ", c.server.count())
	c.say(t, ably.ProtocolMessage{Action: ably.ActionHeartbeat, ID: id})
	for m := c.next(t); m.Action != ably.ActionHeartbeat || m.ID != id; m = c.next(t) {
		if m.Action == ably.ActionError && !m.Channel.OK || m.Action == ably.ActionDisconnected {
			t.Fatalf("%s gets %s", c.name, m.Append(nil, ably.JSON))
		}
	}
}

// ablyQuick is quickUpgrade for an Ably client with the test's key.
func ablyQuick(addr string, options ...string) (opened ably.ProtocolMessage, drop func(), err error) {
	query := url.Values{"key": {testAblyKey}, "v": {"6"}, "heartbeats": {"false"}}
	for _, option := range options {
		key, value, _ := strings.Cut(option, "=")
		query.Set(key, value)
	}
	socket, reader, answer, err := quickUpgrade(addr, query.Encode())
	if err != nil {
		return opened, nil, err
	}
	drop = func() { socket.Close() }
	var payload []byte
	if answer.StatusCode != http.StatusSwitchingProtocols {
		err = fmt.Errorf("%s", answer.Status)
	} else if _, payload, err = readServerFrame(reader); err == nil {
		opened, err = ably.Decode(ably.JSON, payload)
	}
	return opened, drop, err
}

// wantMembers waits until all presence sets together have so many members.
func (a *abused) wantMembers(want int64) {
	a.t.Helper()
	got := a.server.account.members.Load()
	for deadline := time.Now().Add(patience); got != want && time.Now().Before(deadline); got = a.server.account.members.Load() {
		time.Sleep(5 * time.Millisecond)
	}
	if got != want {
		a.t.Errorf("%d members are present, want %d", got, want)
	}
}
