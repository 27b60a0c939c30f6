package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"maps"
	"math"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Drop is why something that a client sent, or was to get, was left out without an error.
type Drop uint8

// The drops.
const (
	DropBinary       Drop = iota // a binary message that means nothing here
	NotRepresentable             // a message that the member's dialect cannot express
	dropCount                    // number of drops, not one of them
)

var dropSlugs = [dropCount]string{
	DropBinary:       "binary_ignored",
	NotRepresentable: "not_representable",
}

// counters count what is rare: the shards count messages themselves. Any goroutine.
type counters struct {
	refusals [reasonCount]atomic.Uint64
	endings  [endingCount]atomic.Uint64
	drops    [dropCount]atomic.Uint64
}

func (c *counters) refuse(reason Reason) { c.refusals[reason].Add(1) }
func (c *counters) ended(reason Ending)  { c.endings[reason].Add(1) }
func (c *counters) drop(reason Drop)     { c.drops[reason].Add(1) }

// rateGauge turns a counter into a figure per second. The sweep updates it, anybody reads it.
type rateGauge struct {
	last  uint64        // sweep
	at    time.Duration // sweep
	value atomic.Uint64 // bits of a float64
}

// update takes the counter's value at a time; the figure is renewed about once a second.
func (g *rateGauge) update(now time.Duration, count uint64) {
	if elapsed := now - g.at; elapsed >= time.Second {
		g.value.Store(math.Float64bits(float64(count-g.last) / elapsed.Seconds()))
		g.last, g.at = count, now
	}
}

func (g *rateGauge) perSecond() float64 { return math.Float64frombits(g.value.Load()) }

// memoryGauge is the runtime's memory figures, read at most once in memoryReadInterval: reading them stops the world, and
// everybody may ask for /health.
type memoryGauge struct {
	mu    sync.Mutex
	at    time.Time
	stats runtime.MemStats
}

func (g *memoryGauge) read() runtime.MemStats {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := time.Now(); g.at.IsZero() || now.Sub(g.at) >= memoryReadInterval {
		runtime.ReadMemStats(&g.stats)
		g.at = now
	}
	return g.stats
}

// megabytes rounds bytes to hundredths of a MiB, the unit of the original's figures.
func megabytes(n uint64) float64 { return math.Round(float64(n)/(1<<20)*100) / 100 }

// serveHealth says whether the server takes new connections: 200, or 503 during a drain.
func (s *Server) serveHealth(w http.ResponseWriter, _ *http.Request) {
	status, code := "healthy", http.StatusOK
	if s.draining.Load() {
		status, code = "draining", http.StatusServiceUnavailable
	}
	memory := s.memory.read()
	answerJSON(w, code, map[string]any{
		"status":    status,
		"timestamp": time.Now().UTC().Format(time.RFC3339),
		"uptime":    s.clock().Round(time.Second).String(),
		"memory": map[string]any{
			"alloc_mb":       megabytes(memory.Alloc),
			"total_alloc_mb": megabytes(memory.TotalAlloc),
			"sys_mb":         megabytes(memory.Sys),
			"num_gc":         memory.NumGC,
		},
		"goroutines": runtime.NumGoroutine(),
	})
}

// serveMetrics shows the counters, as JSON or as Prometheus text.
func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request) {
	if refusal := s.checkMetricsToken(r); refusal != nil {
		w.Header().Set("WWW-Authenticate", "Bearer")
		answerRefusal(w, refusal)
		return
	}
	figures := s.figures()
	if wantsPrometheus(r) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		w.Write([]byte(figures.prometheus()))
		return
	}
	answerJSON(w, http.StatusOK, figures.json())
}

// checkMetricsToken wants metrics.token as the Bearer token; without one everybody may look.
func (s *Server) checkMetricsToken(r *http.Request) *Refusal {
	token := s.rules.Load().cfg.Metrics.Token
	if token == "" {
		return nil
	}
	return checkBearer(r, token)
}

// checkBearer compares the Bearer token of a request with the one that is wanted, in constant time.
func checkBearer(r *http.Request, token string) *Refusal {
	scheme, shown, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || shown == "" {
		return tokenRefusal(TokenMissing)
	}
	got, want := sha256.Sum256([]byte(strings.TrimSpace(shown))), sha256.Sum256([]byte(token))
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		return tokenRefusal(TokenSignature)
	}
	return nil
}

// wantsPrometheus: ?format=prometheus, or an Accept header as Prometheus sends it.
func wantsPrometheus(r *http.Request) bool {
	if format := r.URL.Query().Get("format"); format != "" {
		return format == "prometheus"
	}
	accept := r.Header.Get("Accept")
	return strings.Contains(accept, "text/plain") || strings.Contains(accept, "openmetrics")
}

// ceilings are the limits that the figures come near: alerts compare them without knowing the configuration.
type ceilings struct {
	connections   int
	sockets, open int // of TCP or Unix, HTTP ones included; open are there now
	buffered      int64
	relay         int64
}

// ceilings returns the limits in force. Any goroutine.
func (s *Server) ceilings() ceilings {
	cfg := s.rules.Load().cfg
	return ceilings{
		connections: s.placesFor(cfg),
		sockets:     cap(s.listener.open),
		open:        len(s.listener.open),
		buffered:    s.budget.limit,
		relay:       cfg.Relay.MaxMemory,
	}
}

// figures is one look at everything that is counted.
type figures struct {
	uptime    time.Duration
	live      int
	total     uint64
	traffic   traffic
	hub       totals
	perSecond float64
	buffered  int64
	relay     *relayCounters
	ceilings  ceilings
	ably      *ablyAccount
	journal   uint64 // records that the journal has left out
	waiting   int    // Ably sessions
	memory    runtime.MemStats
	drops     map[string]uint64
	refusals  map[string]uint64
	closes    map[string]uint64
}

func (s *Server) figures() *figures {
	f := &figures{
		uptime:    s.clock(),
		hub:       s.hub.totals(),
		perSecond: s.rate.perSecond(),
		buffered:  s.budget.total.Load(),
		relay:     &s.relayed,
		ceilings:  s.ceilings(),
		ably:      s.account,
		waiting:   s.sessions.waitingNow(),
		memory:    s.memory.read(),
		drops:     make(map[string]uint64),
		refusals:  make(map[string]uint64),
		closes:    make(map[string]uint64),
	}
	if s.journal != nil {
		f.journal = s.journal.dropped.Load()
	}
	f.live, f.total, f.traffic = s.conns.counts()
	for i := range s.counters.drops {
		f.drops[dropSlugs[i]] = s.counters.drops[i].Load()
	}
	f.drops[dropSlugs[NotRepresentable]] += f.hub.unspoken
	for i := range s.counters.refusals {
		f.refusals[Reason(i).String()] = s.counters.refusals[i].Load()
	}
	for i := relayNoProblem + 1; i < relayProblemCount; i++ {
		f.refusals[i.String()] = s.relayed.problems[i].Load()
	}
	f.drops["relay_unknown_frame"] = s.relayed.strangers.Load()
	for i := notEnded + 1; i < endingCount; i++ {
		f.closes[i.String()] = s.counters.endings[i].Load()
	}
	return f
}

// json has the original server's sections and keys, and more.
func (f *figures) json() map[string]any {
	return map[string]any{
		"server": map[string]any{
			"uptime":         f.uptime.Round(time.Second).String(),
			"uptime_seconds": int64(f.uptime.Seconds()),
			"timestamp":      time.Now().UTC().Format(time.RFC3339),
		},
		"websocket": map[string]any{
			"total_connections":   f.total,
			"active_connections":  f.live,
			"total_messages":      f.hub.messages,
			"total_rooms":         f.hub.rooms,
			"messages_per_second": math.Round(f.perSecond*100) / 100,
			"deliveries":          f.hub.deliveries,
			"bytes_in":            f.traffic.in,
			"bytes_out":           f.traffic.out,
			"buffered_bytes":      f.buffered,
		},
		"system": map[string]any{
			"memory": map[string]any{
				"alloc_mb":       megabytes(f.memory.Alloc),
				"total_alloc_mb": megabytes(f.memory.TotalAlloc),
				"sys_mb":         megabytes(f.memory.Sys),
				"heap_alloc_mb":  megabytes(f.memory.HeapAlloc),
				"heap_sys_mb":    megabytes(f.memory.HeapSys),
				"stack_mb":       megabytes(f.memory.StackInuse),
				"num_gc":         f.memory.NumGC,
			},
			"goroutines": runtime.NumGoroutine(),
			"cpu_count":  runtime.NumCPU(),
			"go_version": runtime.Version(),
		},
		"relay": map[string]any{
			"active_transfers":    f.relay.active.Load(),
			"total_transfers":     f.relay.started.Load(),
			"completed_transfers": f.relay.completed.Load(),
			"bytes":               f.relay.bytes.Load(),
			"reserved_bytes":      f.relay.reserved.Load(),
		},
		"ably": map[string]any{
			"channels":         f.ably.channels.Load(),
			"attachments":      f.ably.attachments.Load(),
			"waiting_sessions": f.waiting,
			"kept_bytes":       f.ably.held.Load(),
			"journal_dropped":  f.journal,
		},
		"drops":    f.drops,
		"refusals": f.refusals,
		"closes":   f.closes,
	}
}

// prometheus is the text exposition format. No label names a room or a user: such labels grow without bound.
func (f *figures) prometheus() string {
	var b strings.Builder
	metric := func(name, kind, help string, value any) {
		fmt.Fprintf(&b, "# HELP letshare_%s %s\n# TYPE letshare_%s %s\nletshare_%s %v\n", name, help, name, kind, name, value)
	}
	byReason := func(name, help string, values map[string]uint64) {
		fmt.Fprintf(&b, "# HELP letshare_%s %s\n# TYPE letshare_%s counter\n", name, help, name)
		for _, slug := range slices.Sorted(maps.Keys(values)) {
			fmt.Fprintf(&b, "letshare_%s{reason=%q} %d\n", name, slug, values[slug])
		}
	}
	metric("uptime_seconds", "gauge", "Seconds since the server started.", int64(f.uptime.Seconds()))
	metric("connections", "gauge", "WebSocket connections now.", f.live)
	metric("connections_limit", "gauge", "Most WebSocket connections at once, by websocket.max_connections or the open files.", f.ceilings.connections)
	metric("sockets", "gauge", "Open sockets, those of HTTP requests included.", f.ceilings.open)
	metric("sockets_limit", "gauge", "Most sockets at once, by the limit of open files.", f.ceilings.sockets)
	metric("connections_total", "counter", "WebSocket connections since the start.", f.total)
	metric("rooms", "gauge", "Rooms with members now.", f.hub.rooms)
	metric("messages_total", "counter", "Publishes accepted.", f.hub.messages)
	metric("deliveries_total", "counter", "Messages put into members' outboxes.", f.hub.deliveries)
	metric("received_bytes_total", "counter", "Raw bytes received over WebSockets.", f.traffic.in)
	metric("sent_bytes_total", "counter", "Raw bytes sent over WebSockets.", f.traffic.out)
	metric("buffered_bytes", "gauge", "Bytes held for slow readers and of unfinished messages.", f.buffered)
	metric("buffered_limit_bytes", "gauge", "websocket.max_buffered_bytes, above which the largest holder is cut.", f.ceilings.buffered)
	metric("relay_transfers", "gauge", "File transfers under way.", f.relay.active.Load())
	metric("relay_transfers_total", "counter", "File transfers begun.", f.relay.started.Load())
	metric("relay_completed_total", "counter", "File transfers completed.", f.relay.completed.Load())
	metric("relay_bytes_total", "counter", "Bytes of files taken from senders.", f.relay.bytes.Load())
	metric("relay_reserved_bytes", "gauge", "Bytes that the transfers under way may hold at most.", f.relay.reserved.Load())
	metric("ably_channels", "gauge", "Rooms that Ably clients use or have used of late.", f.ably.channels.Load())
	metric("ably_attachments", "gauge", "Attachments of Ably clients to channels now.", f.ably.attachments.Load())
	metric("ably_waiting_sessions", "gauge", "Ably connections that were lost and may be resumed.", f.waiting)
	metric("ably_kept_bytes", "gauge", "Bytes of messages kept for Ably clients.", f.ably.held.Load())
	metric("ably_journal_dropped_total", "counter", "Messages of persisted namespaces that were not written to the journal.", f.journal)
	metric("relay_limit_bytes", "gauge", "relay.max_memory, above which new files are refused.", f.ceilings.relay)
	metric("heap_alloc_bytes", "gauge", "Bytes of live and not yet collected heap objects.", f.memory.HeapAlloc)
	metric("stack_bytes", "gauge", "Bytes of goroutine stacks.", f.memory.StackInuse)
	metric("goroutines", "gauge", "Goroutines now.", runtime.NumGoroutine())
	byReason("drops_total", "Messages left out, by reason.", f.drops)
	byReason("refusals_total", "Requests and messages refused, by reason.", f.refusals)
	byReason("closes_total", "Connections ended, by reason.", f.closes)
	return b.String()
}
