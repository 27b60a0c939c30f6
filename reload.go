package main

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"time"
	"unique"
)

// rules is all that a reload changes, as one value: whoever decides something takes the rules once and decides by them alone.
// A server has exactly one in force at a time. Immutable.
type rules struct {
	cfg         *Config
	auth        *Authenticator
	conn        *connLimits
	ably        *ablyRules // nil: the Ably protocol is off
	rooms       *roomLimits
	relay       *relayLimits
	certificate *certificate // nil: no TLS
	site        *site        // nil: no static files
	lowered     bool         // a limit has been lowered since the start: what was let in before may be over it
}

// newRules builds the rules of a valid configuration. Its errors name the key, the value and the fix.
func newRules(cfg *Config) (*rules, error) {
	auth, err := NewAuthenticator(cfg)
	if err != nil {
		return nil, err
	}
	certificate, err := loadCertificate(cfg)
	if err != nil {
		return nil, err
	}
	site, err := openSite(cfg.Server.StaticDir)
	if err != nil {
		return nil, err
	}
	ably, err := newAblyRules(cfg)
	if err != nil {
		return nil, err
	}
	return &rules{
		cfg:         cfg,
		ably:        ably,
		auth:        auth,
		conn:        newConnLimits(&cfg.WebSocket),
		rooms:       newRoomLimits(&cfg.WebSocket),
		relay:       newRelayLimits(&cfg.Relay),
		certificate: certificate,
		site:        site,
	}, nil
}

// errStopping is the outcome of a reload that the server's end has overtaken.
var errStopping = errors.New("the server is stopping")

// change is a configuration on its way to Run, which alone replaces the rules.
type change struct {
	cfg  *Config
	done chan<- error // capacity 1
}

// Reload puts cfg in force, but for the keys that need a restart, which keep their value and are named in the log. It returns
// when everybody goes by the new rules. With an error the old rules stay in force as a whole. It waits for Run to begin.
// Any goroutine.
func (s *Server) Reload(cfg *Config) error {
	done := make(chan error, 1)
	select {
	case s.changes <- change{cfg, done}:
		return <-done
	case <-s.stopped:
		return errStopping
	}
}

// reload carries out Reload. Run's goroutine.
func (s *Server) reload(cfg *Config) error {
	old := s.rules.Load()
	next, changed, restart := merge(old.cfg, cfg)
	if err := next.Validate(); err != nil { // a mixture of old and new, where keys that depend on each other may not fit
		return fmt.Errorf("together with the keys that need a restart: %w", err)
	}
	fresh, err := newRules(next)
	if err != nil {
		return err
	}
	fresh.lowered = old.lowered || lowered(&old.cfg.WebSocket, &next.WebSocket)
	withdrawn := s.enforce(fresh)
	s.log.Info("configuration reloaded", "changed", changed, "connections", s.conns.live(), "access_withdrawn", withdrawn)
	if len(restart) > 0 {
		s.log.Warn("some changed keys need a restart; their old values stay in force", "keys", restart)
	}
	return nil
}

// merge returns cfg with the old values of all keys that need a restart, and the names of the keys that differ: those whose
// new value counts, and those whose old one does. TLS is switched on or off at a restart only; its files may change.
func merge(old, cfg *Config) (next *Config, changed, restart []string) {
	merged := *cfg
	if merged.sources = maps.Clone(cfg.sources); merged.sources == nil {
		merged.sources = make(map[string]string)
	}
	tls := (old.Server.TLSCert == "") == (cfg.Server.TLSCert == "")
	for _, k := range configKeys() {
		same := reflect.DeepEqual(old.field(k).Interface(), cfg.field(k).Interface())
		keep := k.reload == "restart" || !tls && (k.name == "server.tls_cert" || k.name == "server.tls_key")
		switch {
		case keep && !same:
			restart = append(restart, k.name)
		case !same:
			changed = append(changed, k.name)
		}
		if keep {
			merged.field(k).Set(old.field(k))
			delete(merged.sources, k.name)
			if source, set := old.sources[k.name]; set {
				merged.sources[k.name] = source
			}
		}
	}
	return &merged, changed, restart
}

// lowered reports whether one of the limits on how many there may be is lower than before.
func lowered(old, next *WebSocketConfig) bool {
	less := func(old, next int) bool { return next != 0 && (old == 0 || next < old) }
	return less(old.MaxRoomUsers, next.MaxRoomUsers) || less(old.MaxRoomsPerConnection, next.MaxRoomsPerConnection) ||
		less(old.MaxEventsPerRoom, next.MaxEventsPerRoom) || less(old.MaxConnections, next.MaxConnections) ||
		less(old.MaxConnectionsPerAddress, next.MaxConnectionsPerAddress)
}

// enforce puts rules in force for those who come and those who are here, and returns how many of these must leave.
// Run's goroutine.
func (s *Server) enforce(r *rules) (withdrawn int) {
	r.heed(&s.revocations)
	s.rules.Store(r)
	s.conns.setLimits(s.placesFor(r.cfg), r.cfg.WebSocket.MaxConnectionsPerAddress, r.lowered)
	s.hub.reload(s.hubRules(r, false))
	// Whoever is not among these yet looks at the rules again itself, in start.
	for _, c := range s.conns.snapshot() {
		if !c.adopt(r) {
			withdrawn++
		}
	}
	return withdrawn
}

// placesFor is how many connections the configuration and the limit of open files allow.
func (s *Server) placesFor(cfg *Config) int {
	places, _ := descriptorLimits(cfg.WebSocket.MaxConnections, s.openFiles)
	return places
}

// hubRules is what the shards need of the rules.
func (s *Server) hubRules(r *rules, stopping bool) *hubRules {
	return &hubRules{
		rooms:    r.rooms,
		relay:    r.relay,
		codecs:   [dialectCount]codec{letshareCodec},
		ably:     r.ably,
		account:  s.account,
		journal:  s.journal,
		refused:  s.counters.refuse,
		relayed:  &s.relayed,
		flushAt:  max(1, min(batchBytes, r.cfg.WebSocket.MaxQueueBytes/2)),
		announce: seconds(r.cfg.WebSocket.AnnounceLeaveSeconds),
		lowered:  r.lowered,
		stopping: stopping,
	}
}

// reload gives every shard new rules, and returns when all go by them and have flushed what that led to. Any goroutine but
// a shard's, before close.
func (h *Hub) reload(r *hubRules) {
	h.rules.Store(r)
	h.roundTrip()
}

// roundTrip returns when every shard has worked off what was in its mailbox and goes by the rules in force: that all
// of them are alive is seen by it. False: the hub has ended meanwhile. Any goroutine but a shard's.
func (h *Hub) roundTrip() bool {
	done := make(chan *Refusal, len(h.shards))
	for _, s := range h.shards {
		select {
		case s.mailbox <- op{kind: opReload, reply: done}:
		case <-h.stopTick:
			return false
		}
	}
	for range h.shards {
		select {
		case <-done:
		case <-h.stopTick:
			return false
		}
	}
	return true
}

// takeRules goes on by the rules in force now, and tells done. Where the relay is off, or the server stops, all transfers
// end; where leaves are not announced, or the server stops, nobody is missed. Shard.
func (s *shard) takeRules(done chan<- *Refusal) {
	s.hubRules = s.latest.Load()
	switch {
	case s.stopping:
		s.abortTransfers(relayStopping)
	case !s.hubRules.relay.enabled:
		s.abortTransfers(relayOff)
	}
	if s.stopping || s.announce == 0 {
		s.missNobody()
	}
	s.flush() // before the answer: who waits for it may end the connections next
	done <- nil
}

// abortTransfers ends every transfer of the shard and tells both sides why. Shard.
func (s *shard) abortTransfers(why relayProblem) {
	s.now = time.Now()
	for _, room := range s.relaying {
		for _, r := range room.transfers {
			s.step(room, r, TransferEvent{Kind: EventAbort, Why: why}, nil)
		}
	}
}

// refresh makes the connection go by the limits in force, from the next message on. It costs two loads. Read goroutine.
func (c *conn) refresh() {
	rules := c.server.rules.Load()
	limits := rules.conn
	if c.ably != nil && rules.ably != nil {
		limits = rules.ably.conn
	}
	if limits == c.limits {
		return
	}
	c.limits, c.wire.limits = limits, limits
	if c.library != nil {
		c.library.SetReadLimit(int64(limits.maxMessage))
	}
}

// adopt applies to a connection what the read goroutine does not look at itself: how much may be queued for it, and whether
// it may still be here. False: it may not, and ends. Any goroutine.
func (c *conn) adopt(r *rules) bool {
	c.outbox.setLimit(r.cfg.WebSocket.MaxQueueBytes)
	if c.ably != nil && r.ably != nil && r.ably.auth.admits(*c.ably.grounds.Load()) || c.ably == nil && r.auth.admits(c.key, c.page) {
		return true
	}
	return !c.outbox.end(AccessWithdrawn)
}

// admits says whether a connection may still be here: the static token it came with is still listed, or the key that signed
// its token is jwt.secret or one of jwt.previous_secrets, and the origin of its page is allowed. Any goroutine.
func (a *Authenticator) admits(key uint32, page unique.Handle[origin]) bool {
	if !slices.Contains(a.prints, key) {
		return false
	}
	if page == (unique.Handle[origin]{}) {
		return true
	}
	from := page.Value()
	return slices.ContainsFunc(a.origins, func(p originPattern) bool { return p.match(from) })
}

// page is the origin that the access of an admitted request rests on: none when it is the server's own.
func (a *Authenticator) page(r *http.Request) unique.Handle[origin] {
	if len(r.Header["Origin"]) == 0 {
		return unique.Handle[origin]{}
	}
	o, err := parseOrigin(r.Header.Get("Origin"))
	if own, known := a.ownOrigin(r); err != nil || known && own == o {
		return unique.Handle[origin]{}
	}
	return unique.Make(o)
}

// keyPrint stands for a signing key without being able to sign. A connection remembers it: one in four billion keys has the same.
func keyPrint(secret string) uint32 {
	sum := sha256.Sum256([]byte("letshare key " + secret))
	return binary.BigEndian.Uint32(sum[:])
}

// staticPrint stands for a static token, by its hash.
func staticPrint(hash [sha256.Size]byte) uint32 { return binary.BigEndian.Uint32(hash[:]) }
