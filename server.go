package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"letshare/giveway"
)

// Server is the whole program behind its listener. NewServer listens, Run serves until its context ends.
type Server struct {
	// Immutable.
	log       *slog.Logger
	hub       *Hub
	conns     *registry
	counters  counters
	relayed   relayCounters
	pacer     relayPacer
	budget    *Budget
	account   *ablyAccount
	sessions  *ablySessions
	journal   *ablyJournal // nil: none
	listener  *gate
	traffic   *giveway.Pipe // to which those who send files give way
	inherited bool          // the listener is another process's too, which keeps it
	notify    *notifier
	openFiles int // the process's limit, 0: unknown
	http      *http.Server
	started   time.Time
	writers   sync.Pool     // of *inlineWriter, for goroutines that flush now and then
	changes   chan change   // to Run
	stopped   chan struct{} // closed when the drain begins

	// Replaced by Run's goroutine alone.
	rules atomic.Pointer[rules]

	// Run's goroutine.
	spoiled [2]fileStamp // of certificate files that could not be used

	draining   atomic.Bool
	nextID     atomic.Uint64
	handshakes underWay // upgrades and REST requests under way, so that Run does not end before they have found their end
	rate       rateGauge
	memory     memoryGauge
	console    console
	history    consoleHistory
	checking   sync.Mutex // held by ConsistencyCheck, so that nobody makes it run many times at once
	checks     checkTable
	turnAsks   askTable
	nonces     ablyNonces // of token requests

	revocations ablyRevocations // of tokens
	stats       ablyStats       // of Ably's clients
	asking      askTable        // what each address asks of Ably's REST interface
	bodies      atomic.Int64    // bytes of the bodies of such requests, which are in the budget
}

// NewServer opens the listener. openFiles is the process's limit of open files, 0 when unknown.
// Its errors name the key, the value and the fix.
func NewServer(cfg *Config, log *slog.Logger, openFiles int) (*Server, error) {
	listener, err := listen(cfg)
	if err != nil {
		return nil, err
	}
	s, err := newServer(cfg, log, openFiles, listener)
	if err != nil {
		listener.Close()
	}
	return s, err
}

// newServer builds the server on a listener, which tests bring along.
func newServer(cfg *Config, log *slog.Logger, openFiles int, listener net.Listener) (*Server, error) {
	rules, err := newRules(cfg)
	if err != nil {
		return nil, err
	}
	maxConns, maxSockets := descriptorLimits(cfg.WebSocket.MaxConnections, openFiles)
	console, err := newConsole(log)
	if err != nil {
		return nil, err
	}
	s := &Server{
		log:       log,
		console:   console,
		conns:     newRegistry(maxConns, cfg.WebSocket.MaxConnectionsPerAddress),
		listener:  newGate(listener, maxSockets),
		openFiles: openFiles,
		started:   time.Now(),
		changes:   make(chan change),
		stopped:   make(chan struct{}),
	}
	rules.heed(&s.revocations)
	s.rules.Store(rules)
	s.writers.New = func() any { return newInlineWriter() }
	s.budget = &Budget{limit: int64(cfg.WebSocket.MaxBufferedBytes), each: func(visit func(*Outbox)) {
		s.conns.each(func(c *conn) { visit(&c.outbox) })
	}}
	s.account = &ablyAccount{budget: s.budget, limit: s.budget.limit / ablyKeptShare}
	s.stats.look(time.Now(), &s.account.counts, 0, 0)
	s.sessions = newAblySessions(s.budget)
	s.http = &http.Server{
		Handler:           s,
		TLSConfig:         s.tlsConfig(),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout,
		IdleTimeout:       keepAliveTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnState:         s.listener.watch,
		ErrorLog:          stdlog.New(httpLog{log}, "", 0),
		Protocols:         new(http.Protocols),
	}
	s.http.Protocols.SetHTTP1(true)
	if s.traffic, err = giveway.New(); err != nil {
		return nil, err
	}
	if folder := cfg.Ably.Journal; folder != "" && cfg.Ably.Enabled {
		keep := func() time.Duration { return seconds(s.rules.Load().cfg.Ably.PersistedSeconds) }
		if s.journal, err = openAblyJournal(folder, ablyJournalShare*s.account.limit, keep, log); err != nil {
			s.traffic.Close()
			return nil, err
		}
	}
	return s, nil
}

// httpLog takes what net/http has to say. Most of it is the noise of strangers, bad TLS handshakes above all; its own
// trouble is an error.
type httpLog struct{ log *slog.Logger }

func (l httpLog) Write(p []byte) (int, error) {
	level := slog.LevelDebug
	if bytes.Contains(p, []byte("panic")) || bytes.Contains(p, []byte("Accept error")) {
		level = slog.LevelError
	}
	l.log.Log(context.Background(), level, "http server", "message", strings.TrimSpace(string(p)))
	return len(p), nil
}

// descriptorLimits derives from the open-file limit how many WebSocket connections there may be, and how many
// sockets at all: half of the reserve stays for answering those that are refused.
func descriptorLimits(maxConnections, openFiles int) (conns, sockets int) {
	if openFiles <= 0 {
		openFiles = assumedOpenFiles
	}
	most := max(1, openFiles-reservedFiles)
	if maxConnections == 0 || maxConnections > most {
		maxConnections = most
	}
	return maxConnections, most + reservedFiles/2
}

// Addr is the address that the server listens on: host:port, or the path of a socket.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// URL is the WebSocket URL of the server on the address it listens on.
func (s *Server) URL() string {
	scheme := "ws"
	if s.http.TLSConfig != nil {
		scheme = "wss"
	}
	host, port, err := net.SplitHostPort(s.Addr())
	if err != nil {
		return scheme + "+unix://" + s.Addr()
	}
	if ip := net.ParseIP(host); ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, port) + "/"
}

// Run serves until ctx ends, then drains: new upgrades are refused, every client is told, and nil is returned when
// the last is gone. It returns an error only when the listener fails. Call it once.
func (s *Server) Run(ctx context.Context) error {
	s.hub = newHub(2*runtime.GOMAXPROCS(0), s.hubRules(s.rules.Load(), false))
	defer s.traffic.Close()
	defer s.hub.close()
	if s.journal != nil {
		s.recall()
		defer s.endJournal()
	}
	var helpers sync.WaitGroup
	helpersCtx, stopHelpers := context.WithCancel(context.Background())
	defer func() { stopHelpers(); helpers.Wait() }()
	helpers.Go(func() { s.sweep(helpersCtx) })
	helpers.Go(func() { s.notify.watch(helpersCtx, s.hub.roundTrip) })

	failed := make(chan error, 1)
	go func() {
		if s.http.TLSConfig != nil {
			failed <- s.http.ServeTLS(s.listener, "", "")
		} else {
			failed <- s.http.Serve(s.listener)
		}
	}()
	s.notify.ready()
	renewal := time.NewTicker(certificateInterval)
	defer renewal.Stop()
	for {
		select {
		case err := <-failed:
			s.drain()
			return fmt.Errorf("the listener failed: %w", err)
		case change := <-s.changes:
			change.done <- s.reload(change.cfg)
		case <-renewal.C:
			s.renewCertificate()
		case <-ctx.Done():
			s.drain()
			<-failed
			return nil
		}
	}
}

// newRoomLimits takes the bounds of a room from the configuration.
func newRoomLimits(cfg *WebSocketConfig) *roomLimits {
	return &roomLimits{
		users:  cfg.MaxRoomUsers,
		events: cfg.MaxEventsPerRoom,
		full:   &Refusal{409, RoomFull, fmt.Sprintf("The room is full: at most %d may be in it.", cfg.MaxRoomUsers)},
		many:   &Refusal{409, TooManyEvents, fmt.Sprintf("You listen to %d events of the room, the most allowed.", cfg.MaxEventsPerRoom)},
	}
}

// sweep looks at every connection's deadlines until ctx ends. When it comes late by more than an interval, the whole process
// stood still (a paused machine, a stopped process): then nobody was silent.
func (s *Server) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	writer := newInlineWriter()
	flush := func(o *Outbox) { o.flush(writer) }
	var tidy tidying
	last := s.clock()
	for {
		select {
		case <-ctx.Done():
			return
		case wall := <-ticker.C:
			now, limits := s.clock(), s.rules.Load().conn
			if gap := now - last - sweepInterval; gap > sweepInterval {
				s.conns.each(func(c *conn) { c.excuse(now, gap) })
			}
			last = now
			s.conns.each(func(c *conn) { c.sweep(limits, now, wall, flush) })
			s.sessions.sweep(now, s.rules.Load().sessionPatience())
			s.rate.update(now, s.hub.totals().messages)
			tidy.look(s.conns, now)
			s.remember(now)
			s.tellLifecycle()
			s.lookAtStats()
		}
	}
}

// clock is the monotonic time since the server's start. Jumps of the wall clock do nothing to it. It is never 0, which
// means "none" wherever such a time is kept.
func (s *Server) clock() time.Duration { return time.Since(s.started) + 1 }

// flush writes what is queued for a client, for goroutines that have no writer of their own.
func (s *Server) flush(o *Outbox) {
	w := s.writers.Get().(*inlineWriter)
	o.flush(w)
	s.writers.Put(w)
}

// ServeHTTP routes a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/":
		s.serveRoot(w, r)
	case "/ws", "/ws/":
		s.serveWebSocket(w, r)
	case "/health":
		s.serveRead(w, r, s.serveHealth)
	case "/metrics":
		s.serveRead(w, r, s.serveMetrics)
	case "/api/check":
		s.serveCheck(w, r)
	case "/api/turn-credentials":
		s.serveRead(w, r, s.serveTurn)
	case "/debug/check":
		s.serveConsistency(w, r)
	default:
		switch site := s.rules.Load().site; {
		case ablyAddress(r.URL.Path) || r.Header.Get("X-Ably-Version") != "":
			s.serveAblyREST(w, r)
		case isConsolePath(r.URL.Path):
			s.serveConsole(w, r)
		case site != nil && !reserved(r.URL.Path):
			site.serve(w, r)
		default:
			answerRefusal(w, refuseNotFound)
		}
	}
}

// serveRoot answers at /. Whoever asks for an upgrade, or has had a proxy take that out of the request, gets the WebSocket; others get the
// app, the console or a line of text.
func (s *Server) serveRoot(w http.ResponseWriter, r *http.Request) {
	switch rules := s.rules.Load(); {
	case r.Header.Get("Upgrade") != "" || r.Header.Get("Sec-WebSocket-Key") != "":
		s.serveWebSocket(w, r)
	case rules.site != nil:
		rules.site.serve(w, r)
	case rules.cfg.Console.Enabled:
		s.serveConsole(w, r)
	default:
		serveGreeting(w, r)
	}
}

// authenticator is the one in force.
func (s *Server) authenticator() *Authenticator { return s.rules.Load().auth }

// serveRead lets pages of allowed origins read an endpoint (CORS) and answers preflights.
func (s *Server) serveRead(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Add("Vary", "Origin")
	if origin := r.Header.Get("Origin"); origin != "" && s.authenticator().OriginAllowed(r) {
		header.Set("Access-Control-Allow-Origin", origin)
		header.Set("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
		header.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
		header.Set("Access-Control-Max-Age", "600")
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		serve(w, r)
	case http.MethodOptions:
		w.WriteHeader(http.StatusNoContent)
	default:
		header.Set("Allow", "GET, HEAD, OPTIONS")
		answerRefusal(w, refuseMethod)
	}
}

// serveWebSocket admits or refuses an upgrade: drain, form, origin, token, user id, limits, in this order.
func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	defer s.handshakes.end(s.handshakes.begin())
	rules := s.rules.Load()
	address := rules.auth.ClientAddress(r)
	forAbly := rules.ably != nil && wantsAbly(r)
	if s.draining.Load() && !forAbly {
		s.refuseUpgrade(w, refuseDraining)
		return
	}
	if refusal := checkUpgrade(r); refusal != nil {
		s.noteUpgrade(r, address, refusal)
		s.refuseUpgrade(w, refusal)
		return
	}
	if forAbly {
		s.serveAbly(w, r, rules, address)
		return
	}
	if ok, received, fix := rules.auth.CheckOrigin(r); !ok {
		s.log.Warn("connection refused", "reason", OriginNotAllowed.String(), "address", address.String(), "origin", received, "fix", fix)
		s.refuseUpgrade(w, originRefusal())
		return
	}
	identity, refusal, detail := rules.auth.Identify(r, time.Now())
	if refusal == nil {
		refusal, detail = s.conns.reserve(address), errLimit
	}
	if refusal != nil {
		s.log.Warn("connection refused", "reason", refusal.Reason.String(), "address", address.String(), "detail", detail.Error())
		s.refuseUpgrade(w, refusal)
		return
	}
	c := s.newConn(rules, address, identity)
	c.page = rules.auth.page(r)
	if err := c.upgrade(w, r); err != nil {
		s.conns.cancel(address)
		s.log.Debug("handshake failed", "address", address.String(), "error", err.Error())
		return
	}
	s.start(c, rules)
}

// newConn makes the connection of a client that has been admitted by the rules.
func (s *Server) newConn(rules *rules, address netip.Addr, identity Identity) *conn {
	c := &conn{
		server:  s,
		limits:  rules.conn,
		id:      s.nextID.Add(1),
		address: address,
		room:    identity.Room,
		strict:  rules.cfg.WebSocket.StrictIdentity || identity.Bound,
		pro:     identity.Pro,
		key:     identity.key,
		pinged:  s.clock(),
	}
	if !identity.ExpiresAt.IsZero() {
		c.expires = identity.ExpiresAt.UnixMilli()
	}
	c.outbox.limit, c.outbox.budget = rules.cfg.WebSocket.MaxQueueBytes, s.budget
	c.member.identity, c.member.outbox = identity.UserID, &c.outbox
	c.letshare.conn = c
	return c
}

// errLimit is the log's detail of a refusal by limits: the reason says it all.
var errLimit = errors.New("limit reached")

// start lets an upgraded connection run, in a goroutine that outlives the HTTP handler: net/http's buffers are freed.
// admitted are the rules by which the client was let in.
func (s *Server) start(c *conn, admitted *rules) {
	s.conns.add(c)
	// A reload meanwhile may not have seen the connection.
	for latest := s.rules.Load(); latest != admitted; latest = s.rules.Load() {
		c.adopt(latest)
		admitted = latest
	}
	if s.log.Enabled(context.Background(), slog.LevelDebug) {
		s.log.Debug("connection opened", "connection", c.id, "address", c.address.String(), "user", c.member.identity)
	}
	go c.run()
}

// forget is the last word on a connection that has ended. Its last goroutine calls it.
func (s *Server) forget(c *conn) {
	s.listener.leave()
	s.conns.remove(c)
}

// checkUpgrade says what is wrong with the form of an upgrade (RFC 6455 section 4.2.1), nil if nothing is.
func checkUpgrade(r *http.Request) *Refusal {
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(r.Header.Get("Sec-WebSocket-Key")))
	switch {
	case r.Method != http.MethodGet:
		return refuseMethod
	case !r.ProtoAtLeast(1, 1) || !hasToken(r, "Connection", "upgrade") || !hasToken(r, "Upgrade", "websocket"):
		return refuseNoUpgrade
	case len(r.Header.Values("Upgrade")) > 1 || strings.Contains(r.Header.Get("Upgrade"), ","):
		return refuseBadUpgrade
	case r.Header.Get("Sec-WebSocket-Version") != "13" || len(r.Header.Values("Sec-WebSocket-Version")) > 1:
		return refuseVersion
	case len(r.Header.Values("Sec-WebSocket-Key")) != 1 || err != nil || len(key) != 16:
		return refuseBadUpgrade
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return refuseBadUpgrade // a body behind an upgrade is a smuggler's trick
	}
	return nil
}

// hasToken reports whether a comma-separated header has the token, in any case.
func hasToken(r *http.Request, name, token string) bool {
	for _, value := range r.Header.Values(name) {
		for part := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// refuseUpgrade counts and answers a refused upgrade, and closes the connection: no proxy shall take it for a tunnel.
func (s *Server) refuseUpgrade(w http.ResponseWriter, refusal *Refusal) {
	s.counters.refuse(refusal.Reason)
	header := w.Header()
	header.Set("Connection", "close")
	header.Set("Cache-Control", "no-store")
	switch refusal {
	case refuseNoUpgrade:
		header.Set("Upgrade", "websocket")
	case refuseVersion:
		header.Set("Sec-WebSocket-Version", "13")
	case refuseMethod:
		header.Set("Allow", http.MethodGet)
	}
	if refusal.Code == http.StatusServiceUnavailable {
		header.Set("Retry-After", retryAfter)
	}
	answerRefusal(w, refusal)
}

// answerRefusal is the one shape of an HTTP error.
func answerRefusal(w http.ResponseWriter, refusal *Refusal) {
	answerJSON(w, refusal.Code, map[string]any{"error": map[string]any{
		"code": refusal.Code, "reason": refusal.Reason.String(), "message": refusal.Message,
	}})
}

// answerJSON writes a JSON body.
func answerJSON(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		status, text = http.StatusInternalServerError, []byte("{}")
	}
	w.Header().Set("Content-Type", cmp.Or(w.Header().Get("Content-Type"), "application/json"))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(append(text, '\n'))
}
