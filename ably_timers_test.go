package main

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"
)

// ablyJoin makes an Ably client of a bubble; options are "name=value" of the query. It answers pings and close frames.
func (s *pipeServer) ablyJoin(name string, options ...string) *pipeClient {
	s.t.Helper()
	query := url.Values{"key": {testAblyKey}, "v": {"6"}}
	for _, option := range options {
		key, value, _ := strings.Cut(option, "=")
		if query.Del(key); value != "" {
			query.Set(key, value)
		}
	}
	return s.connectBy(name, "GET /?"+query.Encode()+" HTTP/1.1\r\nHost: letshare.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", true, true)
}

// ablyToken makes a token of the test's key that ends after ttl.
func (s *pipeServer) ablyToken(ttl time.Duration) string {
	s.t.Helper()
	name, _, _ := strings.Cut(testAblyKey, ":")
	key, err := s.rules.Load().ably.auth.keyFor(name)
	if err != nil {
		s.t.Fatal(err)
	}
	now := time.Now()
	token, err := key.sign(`{"*":["*"]}`, "", now.UnixMilli(), now.Add(ttl).UnixMilli())
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

// connectedKey is the connectionKey of the CONNECTED that the client got first.
func (c *pipeClient) connectedKey() (id, key string) {
	c.t.Helper()
	var m struct {
		ConnectionID      string
		ConnectionDetails struct{ ConnectionKey string }
	}
	if got := c.got(); len(got) == 0 || json.Unmarshal([]byte(got[0]), &m) != nil {
		c.t.Fatalf("the first message is no CONNECTED: %q", got)
	}
	return m.ConnectionID, m.ConnectionDetails.ConnectionKey
}

// A browser sees no pings: a quiet connection says HEARTBEAT before the client's timer of 15 s is over, an hour long. A client in
// Node is content with pings. Neither heartbeat has an id, which would be an answer.
func TestAQuietAblyConnectionIsHeardOf(t *testing.T) {
	t.Parallel()
	inBubble(t, withAblyKeys, func(t *testing.T, s *pipeServer) {
		browser, node := s.ablyJoin("browser", "heartbeats=true"), s.ablyJoin("node", "heartbeats=false")
		time.Sleep(time.Hour)
		beats := browser.when(opText)[1:] // behind CONNECTED
		for i := 1; i < len(beats); i++ {
			if gap := beats[i] - beats[i-1]; gap > ablyMaxIdle+time.Second {
				t.Fatalf("nothing came for %v", gap)
			}
		}
		browser.wantLast(`{"action":0}`)
		pings := node.when(opPing)
		if len(beats) < 200 || len(pings) < 200 || len(node.when(opText)) != 1 {
			t.Errorf("in an hour: %d heartbeats, %d pings, %d messages without heartbeats", len(beats), len(pings), len(node.when(opText)))
		}
		s.wantCloses()
	})
}

// Half a minute before the end of its token a client is asked for another. Who brings one stays as the same; who does not is
// told 40142 at the end.
func TestAblyTokensAreRenewed(t *testing.T) {
	t.Parallel()
	inBubble(t, withAblyKeys, func(t *testing.T, s *pipeServer) {
		began := s.since()
		lazy := s.ablyJoin("lazy", "key=", "access_token="+s.ablyToken(time.Minute), "heartbeats=false")
		good := s.ablyJoin("good", "key=", "access_token="+s.ablyToken(time.Minute), "heartbeats=false")
		short := s.ablyJoin("short", "key=", "access_token="+s.ablyToken(5*time.Second), "heartbeats=false")
		time.Sleep(31 * time.Second)
		good.wantLast(`{"action":17}`)
		if asked := good.when(opText)[1] - began; asked < 29*time.Second || asked > 31*time.Second {
			t.Errorf("the client is asked after %v", asked)
		}
		good.send(`{"action":17,"auth":{"accessToken":"` + s.ablyToken(time.Hour) + `"}}`)
		id, _ := good.connectedKey()
		good.wantLast(`{"action":4,`)
		if got := good.got(); !strings.Contains(got[len(got)-1], `"connectionId":"`+id+`"`) {
			t.Errorf("after AUTH the client is another: %q", got)
		}
		time.Sleep(time.Minute)
		lazy.wantEnded(began, 60*time.Second, 61*time.Second, "close 4001 token_expired")
		short.wantEnded(began, 5*time.Second, 6*time.Second, "close 4001 token_expired")
		for _, c := range []*pipeClient{lazy, short} {
			got := c.got()
			if last := got[len(got)-2]; !strings.HasPrefix(last, `{"action":6,`) || !strings.Contains(last, `"code":40142,"statusCode":401`) {
				t.Errorf("the end of the token is told as %s", last)
			}
		}
		if got := short.got(); len(got) != 3 {
			t.Errorf("a token of five seconds is told %q", got)
		}
		s.wantCloses("token_expired 2")
	})
}

// A session waits for its client for two minutes, and no longer; one that was closed does not wait at all.
func TestALostAblySessionWaitsTwoMinutes(t *testing.T) {
	t.Parallel()
	inBubble(t, withAblyKeys, func(t *testing.T, s *pipeServer) {
		lost, late, closed := s.ablyJoin("lost"), s.ablyJoin("late"), s.ablyJoin("closed")
		lostID, lostKey := lost.connectedKey()
		lateID, lateKey := late.connectedKey()
		lost.socket.Close()
		late.socket.Close()
		closed.send(`{"action":7}`)
		closed.wantEnded(s.since(), 0, time.Second, "close 1000 closed")
		time.Sleep(118 * time.Second)
		if n := s.sessions.waitingNow(); n != 2 {
			t.Errorf("%d sessions wait, want 2", n)
		}
		back := s.ablyJoin("lost", "resume="+lostKey)
		if id, _ := back.connectedKey(); id != lostID {
			t.Errorf("after 118 s the client is another")
		}
		time.Sleep(3 * time.Second)
		tooLate := s.ablyJoin("late", "resume="+lateKey)
		if id, _ := tooLate.connectedKey(); id == lateID || !strings.Contains(tooLate.got()[0], `"code":80008`) {
			t.Errorf("after 121 s the client gets %q", tooLate.got())
		}
		if n := s.sessions.waitingNow(); n != 0 || s.ConsistencyCheck() != nil {
			t.Errorf("%d sessions wait; %v", n, s.ConsistencyCheck())
		}
	})
}

// What a channel keeps goes after two minutes, and with it the channel.
func TestAChannelThatNobodyUsesIsForgotten(t *testing.T) {
	t.Parallel()
	inBubble(t, withAblyKeys, func(t *testing.T, s *pipeServer) {
		c := s.ablyJoin("ann", "heartbeats=false")
		c.send(`{"action":10,"channel":"room"}`)
		c.send(`{"action":15,"channel":"room","msgSerial":0,"messages":[{"name":"n","data":"kept"}]}`)
		c.send(`{"action":12,"channel":"room"}`)
		if held := s.account.held.Load(); held == 0 || s.account.channels.Load() != 1 {
			t.Errorf("%d bytes of %d channels are kept", held, s.account.channels.Load())
		}
		time.Sleep(119 * time.Second)
		if s.account.channels.Load() != 1 {
			t.Error("the channel is forgotten too early")
		}
		time.Sleep(3 * time.Second)
		if held := s.account.held.Load(); held != 0 || s.account.channels.Load() != 0 || s.hub.totals().rooms != 0 {
			t.Errorf("%d bytes of %d channels are kept after two minutes", held, s.account.channels.Load())
		}
		if err := s.ConsistencyCheck(); err != nil {
			t.Error(err)
		}
	})
}

// A reload can take a key away: who came with it must come back, and is refused; others stay.
func TestAReloadTakesAnAblyKeyAway(t *testing.T) {
	t.Parallel()
	inBubble(t, withAblyKeys, func(t *testing.T, s *pipeServer) {
		rich, poor := s.ablyJoin("rich", "heartbeats=false"), s.ablyJoin("poor", "key="+testAblyPoorKey, "heartbeats=false")
		next := *s.cfg
		next.Ably.Keys = next.Ably.Keys[:1]
		if err := s.Reload(&next); err != nil {
			t.Fatal(err)
		}
		poor.wantEnded(s.since(), 0, time.Second, "close 4003 access_withdrawn")
		if got := poor.got(); !strings.Contains(got[len(got)-2], `"action":6`) {
			t.Errorf("the withdrawal is told as %q", got)
		}
		if got := s.ablyJoin("poor", "key="+testAblyPoorKey).got(); !strings.Contains(got[0], `"action":9`) || !strings.Contains(got[0], `"code":40101`) {
			t.Errorf("coming back is answered %q", got)
		}
		rich.send(`{"action":0,"id":"still there?"}`)
		rich.wantLast(`{"action":0,"id":"still there?"}`)
	})
}

// Who attaches without end is answered each time, but read slowly.
func TestAnAblyClientThatAttachesWithoutEndIsReadSlowly(t *testing.T) {
	t.Parallel()
	inBubble(t, func(c *Config) { withAblyKeys(c); c.Ably.MaxChannelsPerConnection = 10 }, func(t *testing.T, s *pipeServer) {
		c := s.ablyJoin("restless", "heartbeats=false")
		began, total := s.since(), 10+ablyControlBurst+1000
		go func() {
			for range total {
				if !c.queue(maskedFrame(finBit|opText, []byte(`{"action":10,"channel":"room"}`))) {
					return
				}
			}
		}()
		time.Sleep(time.Minute)
		answers := c.when(opText)[1:] // behind CONNECTED
		if len(answers) != total {
			t.Fatalf("%d of %d are answered", len(answers), total)
		}
		if first := answers[10+ablyControlBurst-1] - began; first > 100*time.Millisecond {
			t.Errorf("those that a reconnect may need took %v", first)
		}
		if all := answers[total-1] - began; all < 1900*time.Millisecond || all > 10*time.Second {
			t.Errorf("a thousand more took %v, want about 2 s", all)
		}
	})
}
