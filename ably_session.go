package main

import (
	"container/list"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"letshare/ably"
)

// ablySession is a connection in the sense of the Ably protocol: it outlives its socket for ably.connection_state_seconds, so
// that whoever was cut off can come back as the same. What it has published is remembered by the channels, under its id.
type ablySession struct {
	id string // the connectionId, which everybody may know; immutable

	// Guarded by ablySessions.mu.
	identity   ablyIdentity    // whose it is
	conn       *conn           // its socket; nil while it waits for another
	generation uint64          // counts its sockets
	since      time.Duration   // when it began to wait, by the server's clock
	waiting    *list.Element   // its place among those that wait
	weight     int64           // bytes in the account while it waits
	present    map[string]bool // channels where it has, or had, members; nil until the first
}

// ablySessions are all sessions there are. Their mutex is touched when clients come and go, and by nothing else.
// Any goroutine may call its methods.
type ablySessions struct {
	secret [32]byte // signs connection keys; immutable
	budget *Budget  // waiting sessions are part of it; immutable

	mu      sync.Mutex
	byID    map[string]*ablySession
	waiting list.List // of *ablySession, the longest first
	weight  int64     // bytes that they take
}

func newAblySessions(budget *Budget) *ablySessions {
	s := &ablySessions{budget: budget, byID: make(map[string]*ablySession)}
	rand.Read(s.secret[:]) // never fails
	return s
}

// open begins a session on a socket.
func (s *ablySessions) open(c *conn, identity ablyIdentity) *ablySession {
	session := &ablySession{id: randomText(connectionIDBytes), identity: identity, conn: c, generation: 1}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byID[session.id] = session
	return session
}

// resume gives the session of a connection key another socket. The newest wins: one that still looks alive ends. An error
// says why there is none any more; refused: it is somebody else's.
func (s *ablySessions) resume(key string, c *conn, identity ablyIdentity) (session *ablySession, gone *ably.ErrorInfo, refused bool) {
	id, ok := s.check(key)
	if !ok {
		return nil, errAblyBadKey, false
	}
	s.mu.Lock()
	session = s.byID[id]
	if session == nil {
		s.mu.Unlock()
		return nil, errAblyGone, false
	}
	if session.identity.keyName != identity.keyName || session.identity.clientID != identity.clientID {
		s.mu.Unlock()
		return nil, errAblyOtherClient, true
	}
	old := session.conn
	session.conn, session.identity = c, identity
	session.generation++
	s.wake(session)
	s.mu.Unlock()
	if old != nil {
		old.outbox.end(Superseded)
	}
	return session, nil, false
}

// leave is the end of a session's socket: it waits for another, unless it has one already or its client has closed it.
func (s *ablySessions) leave(session *ablySession, c *conn, now time.Duration, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if session.conn != c {
		return
	}
	session.conn = nil
	if closed {
		delete(s.byID, session.id)
		return
	}
	session.since = now
	session.waiting = s.waiting.PushBack(session)
	session.weight = ablySessionBytes
	for room := range session.present {
		session.weight += int64(len(room)) + ablyEntryBytes/2
	}
	s.weigh(session.weight)
	if s.waiting.Len() > maxWaitingSessions {
		s.drop(s.waiting.Front().Value.(*ablySession))
	}
}

// wake takes a session out of those that wait. Called with mu held.
func (s *ablySessions) wake(session *ablySession) {
	if session.waiting != nil {
		s.waiting.Remove(session.waiting)
		session.waiting = nil
		s.weigh(-session.weight)
	}
}

// drop forgets a session that waits. Called with mu held.
func (s *ablySessions) drop(session *ablySession) {
	s.wake(session)
	delete(s.byID, session.id)
}

// sweep forgets the sessions that have waited for longer than patience. Sweep goroutine.
func (s *ablySessions) sweep(now, patience time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for front := s.waiting.Front(); front != nil; front = s.waiting.Front() {
		session := front.Value.(*ablySession)
		if now-session.since < patience {
			return
		}
		s.drop(session)
	}
}

// adopt notes the identity that an AUTH has given the session.
func (s *ablySessions) adopt(session *ablySession, identity ablyIdentity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	session.identity = identity
}

// held is how many bytes of the account the waiting sessions take.
func (s *ablySessions) held() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.weight
}

// weigh changes how many bytes the waiting sessions take. Called with mu held.
func (s *ablySessions) weigh(n int64) {
	s.weight += n
	s.budget.total.Add(n)
}

// joined returns what a session's new socket must know: its generation, and the channels where the session has, or had, members.
// Nothing: the session has a newer socket already.
func (s *ablySessions) joined(session *ablySession, c *conn) (generation uint64, present []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if session.conn != c {
		return 0, nil
	}
	return session.generation, slices.Collect(maps.Keys(session.present))
}

// present notes that a session has members on a channel, or has none any more, and reports whether c is still its socket: if
// it is not, nothing is noted.
func (s *ablySessions) present(session *ablySession, c *conn, channel string, here bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case session.conn != c:
		return false
	case !here:
		delete(session.present, channel)
	case session.present == nil:
		session.present = map[string]bool{channel: true}
	default:
		session.present[channel] = true
	}
	return true
}

// holds reports whether c is still the session's socket.
func (s *ablySessions) holds(session *ablySession, c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return session.conn == c
}

// waitingNow is how many sessions wait for a socket.
func (s *ablySessions) waitingNow() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting.Len()
}

// key is the connectionKey of a session's socket: secret, and another for each socket. Every key that a session ever had is good
// for resuming it: the CONNECTED that brought the latest may have been lost.
func (s *ablySessions) key(session *ablySession) string {
	s.mu.Lock()
	text := session.id + "-" + strconv.FormatUint(session.generation, 36)
	s.mu.Unlock()
	return text + "-" + s.sign(text)
}

// check returns the id of a key that is ours.
func (s *ablySessions) check(key string) (id string, ok bool) {
	at := strings.LastIndexByte(key, '-')
	if at < 0 || !hmac.Equal([]byte(s.sign(key[:at])), []byte(key[at+1:])) {
		return "", false
	}
	id, _, ok = strings.Cut(key, "-")
	return id, ok
}

// sign is the part of a key that nobody else can make.
func (s *ablySessions) sign(text string) string {
	mac := hmac.New(sha256.New, s.secret[:])
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// publisher returns the id of the session that a connection key is of, and whose it is: who knows the key may publish as it.
func (s *ablySessions) publisher(key string) (id string, identity ablyIdentity, ok bool) {
	if id, ok = s.check(key); !ok {
		return "", ablyIdentity{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	session := s.byID[id]
	if session == nil {
		return "", ablyIdentity{}, false
	}
	return id, session.identity, true
}
