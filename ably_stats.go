package main

import (
	"cmp"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"letshare/ably"
)

// statsCount is one of the figures that are counted for /stats.
type statsCount int

// The figures. Each of the messages and of presence is followed by its bytes.
const (
	statRealtime         statsCount = iota // messages published by realtime clients
	statRealtimeBytes                      //
	statRealtimePresence                   // presence messages of theirs
	statRealtimePresenceBytes
	statREST // messages published by REST
	statRESTBytes
	statSent // messages delivered, to each listener
	statSentBytes
	statSentPresence
	statSentPresenceBytes
	statConnections // opened
	statChannels    // opened
	statRequests    // to the REST interface that were answered
	statRequestsRefused
	statRequestsFailed // by fault of the server's
	statTokens         // token requests that were answered
	statTokensRefused
	statCount // number of figures, not one of them
)

// ablyCounts counts since the start. Any goroutine.
type ablyCounts [statCount]atomic.Int64

func (c *ablyCounts) add(figure statsCount, n int) { c[figure].Add(int64(n)) }

// take counts what a message holds, each times over, in the figure of messages or of presence and in the one behind it.
func (c *ablyCounts) take(m *ably.ProtocolMessage, messages, presence statsCount, times int) {
	if n := len(m.Messages) + len(m.Annotations); n > 0 {
		size := 0
		for i := range m.Messages {
			size += ablyMessageSize(&m.Messages[i])
		}
		for i := range m.Annotations {
			size += len(m.Annotations[i].Data.Bytes)
		}
		c.add(messages, n*times)
		c.add(messages+1, size*times)
	}
	if n := len(m.Presence); n > 0 {
		size := 0
		for i := range m.Presence {
			size += len(m.Presence[i].ClientID) + len(m.Presence[i].Data.Bytes)
		}
		c.add(presence, n*times)
		c.add(presence+1, size*times)
	}
}

// request counts a request of the REST interface by its outcome; problem is nil for one that was answered.
func (c *ablyCounts) request(problem *ably.ErrorInfo) {
	switch {
	case problem == nil:
		c.add(statRequests, 1)
	case problem.StatusCode >= http.StatusInternalServerError:
		c.add(statRequestsFailed, 1)
	default:
		c.add(statRequestsRefused, 1)
	}
}

// statsGauge is what was seen of a figure that goes up and down.
type statsGauge struct{ peak, least, sum, looks int64 }

// look takes in what the figure is now.
func (g *statsGauge) look(n int64) { g.join(statsGauge{n, n, n, 1}) }

// join takes in what was seen at other times.
func (g *statsGauge) join(other statsGauge) {
	switch {
	case other.looks == 0:
		return
	case g.looks == 0:
		*g = other
		return
	}
	g.peak, g.least = max(g.peak, other.peak), min(g.least, other.least)
	g.sum, g.looks = g.sum+other.sum, g.looks+other.looks
}

// entries adds the gauge's figures, unless there was never anything.
func (g *statsGauge) entries(name string, list ably.Object) ably.Object {
	if g.peak == 0 {
		return list
	}
	mean := math.Round(float64(g.sum)/float64(g.looks)*100) / 100
	list = append(list, ably.Field{Key: name + ".peak", Value: g.peak})
	if g.least > 0 {
		list = append(list, ably.Field{Key: name + ".min", Value: g.least})
	}
	return append(list, ably.Field{Key: name + ".mean", Value: mean})
}

// statsInterval is the figures of a minute, or of several together.
type statsInterval struct {
	start                 time.Time // UTC, to the minute, or to the unit
	counts                [statCount]int64
	connections, channels statsGauge
}

// join adds the figures of another interval.
func (i *statsInterval) join(other *statsInterval) {
	for figure, n := range other.counts {
		i.counts[figure] += n
	}
	i.connections.join(other.connections)
	i.channels.join(other.channels)
}

// entries are the figures by Ably's names. Those that are 0 are left out, and so are sums of one.
func (i *statsInterval) entries() ably.Object {
	list := ably.Object{}
	put := func(name string, n int64) {
		if n != 0 {
			list = append(list, ably.Field{Key: name, Value: n})
		}
	}
	pair := func(name string, figures ...statsCount) {
		var count, size int64
		for _, figure := range figures {
			count, size = count+i.counts[figure], size+i.counts[figure+1]
		}
		put(name+".count", count)
		put(name+".data", size)
	}
	pair("messages.all.all", statRealtime, statREST, statRealtimePresence, statSent, statSentPresence)
	pair("messages.all.messages", statRealtime, statREST, statSent)
	pair("messages.all.presence", statRealtimePresence, statSentPresence)
	pair("messages.inbound.realtime.all", statRealtime, statRealtimePresence)
	pair("messages.inbound.realtime.messages", statRealtime)
	pair("messages.inbound.realtime.presence", statRealtimePresence)
	pair("messages.inbound.rest.all", statREST)
	pair("messages.inbound.rest.messages", statREST)
	pair("messages.inbound.all.all", statRealtime, statREST, statRealtimePresence)
	pair("messages.inbound.all.messages", statRealtime, statREST)
	pair("messages.inbound.all.presence", statRealtimePresence)
	pair("messages.outbound.realtime.all", statSent, statSentPresence)
	pair("messages.outbound.realtime.messages", statSent)
	pair("messages.outbound.realtime.presence", statSentPresence)
	pair("messages.outbound.all.all", statSent, statSentPresence)
	pair("messages.outbound.all.messages", statSent)
	pair("messages.outbound.all.presence", statSentPresence)
	list = i.connections.entries("connections.all", list)
	put("connections.all.opened", i.counts[statConnections])
	list = i.channels.entries("channels", list)
	put("channels.opened", i.counts[statChannels])
	put("apiRequests.all.succeeded", i.counts[statRequests]+i.counts[statTokens])
	put("apiRequests.all.refused", i.counts[statRequestsRefused]+i.counts[statTokensRefused])
	put("apiRequests.all.failed", i.counts[statRequestsFailed])
	put("apiRequests.other.succeeded", i.counts[statRequests])
	put("apiRequests.other.refused", i.counts[statRequestsRefused])
	put("apiRequests.other.failed", i.counts[statRequestsFailed])
	put("apiRequests.tokenRequests.succeeded", i.counts[statTokens])
	put("apiRequests.tokenRequests.refused", i.counts[statTokensRefused])
	return list
}

// ablyStats keeps the figures of each minute of the last day in which anything was. About 300 KB. Any goroutine.
type ablyStats struct {
	mu      sync.Mutex
	past    []statsInterval  // minutes that are over, oldest first
	current statsInterval    // the minute under way, but for its counts
	before  [statCount]int64 // what the counters were when it began
}

// look takes in the figures as they are now. When a minute is over it returns that one, if anything was in it.
func (s *ablyStats) look(now time.Time, counts *ablyCounts, connections, channels int64) (over *statsInterval) {
	s.mu.Lock()
	defer s.mu.Unlock()
	minute := now.UTC().Truncate(time.Minute)
	if minute.After(s.current.start) { // a clock that is put back adds to the minute that was
		if !s.current.start.IsZero() {
			ended := s.underWay(counts)
			if len(ended.entries()) > 0 {
				s.past = append(s.past, ended)
				over = &ended
			}
		}
		for figure := range s.before {
			s.before[figure] = counts[figure].Load()
		}
		s.current = statsInterval{start: minute}
		oldest := minute.Add(-maxStatsAge)
		s.past = slices.DeleteFunc(s.past, func(i statsInterval) bool { return !i.start.After(oldest) })
	}
	s.current.connections.look(connections)
	s.current.channels.look(channels)
	return over
}

// underWay is the current minute with its counts. Under mu.
func (s *ablyStats) underWay(counts *ablyCounts) statsInterval {
	minute := s.current
	for figure := range minute.counts {
		minute.counts[figure] = counts[figure].Load() - s.before[figure]
	}
	return minute
}

// by returns the figures by unit, oldest first; those of the unit under way are the last.
func (s *ablyStats) by(unit *statsUnit, counts *ablyCounts) (list []statsInterval) {
	s.mu.Lock()
	defer s.mu.Unlock()
	minutes := append(slices.Clip(s.past), s.underWay(counts))
	for i := range minutes {
		start := unit.begin(minutes[i].start)
		if n := len(list); n > 0 && list[n-1].start.Equal(start) {
			list[n-1].join(&minutes[i])
			continue
		}
		list = append(list, minutes[i])
		list[len(list)-1].start = start
	}
	return slices.DeleteFunc(list, func(i statsInterval) bool { return i.start.IsZero() || len(i.entries()) == 0 })
}

// statsUnit is how long the intervals are that somebody asks for.
type statsUnit struct {
	name   string
	layout string // of the interval's id
	begin  func(time.Time) time.Time
	within string // layout of the latest part that an interval under way has
}

const (
	statsMinuteLayout = "2006-01-02:15:04"
	statsSchema       = "https://schemas.ably.com/json/app-stats-0.0.5.json"
)

var statsUnits = [...]statsUnit{
	{"minute", statsMinuteLayout, func(t time.Time) time.Time { return t }, "2006-01-02:15:04:05"},
	{"hour", "2006-01-02:15", func(t time.Time) time.Time { return t.Truncate(time.Hour) }, statsMinuteLayout},
	{"day", "2006-01-02:15", func(t time.Time) time.Time { return t.Truncate(24 * time.Hour) }, statsMinuteLayout},
	{"month", "2006-01-02:15", func(t time.Time) time.Time {
		return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
	}, statsMinuteLayout},
}

// parseStatsTime reads a time as milliseconds since 1970 or as the id of an interval.
func parseStatsTime(text string) (time.Time, bool) {
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil && ms >= 0 && ms < 1<<53 {
		return time.UnixMilli(ms).UTC(), true
	}
	for _, layout := range [...]string{statsMinuteLayout, "2006-01-02:15", "2006-01-02", "2006-01"} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}

// statsQuery is what a request for statistics asks for.
type statsQuery struct {
	unit       *statsUnit
	start, end time.Time // both included
	forwards   bool
	limit      int
}

// readStatsQuery reads it. The unit stands in unit, or in by as older clients write it; a cursor is the start of the next page.
func (q *ablyRequest) readStatsQuery(now time.Time) (statsQuery, bool) {
	get := q.query.Get
	s := statsQuery{unit: &statsUnits[0], end: now, forwards: get("direction") == "forwards"}
	if name := cmp.Or(get("unit"), get("by")); name != "" {
		i := slices.IndexFunc(statsUnits[:], func(u statsUnit) bool { return u.name == name })
		if i < 0 {
			return s, false
		}
		s.unit = &statsUnits[i]
	}
	start, end := get("start"), get("end")
	if cursor := get("cursor"); cursor != "" && s.forwards {
		start = cursor
	} else if cursor != "" {
		end = cursor
	}
	known := true
	if start != "" {
		if s.start, known = parseStatsTime(start); !known {
			return s, false
		}
		s.start = s.unit.begin(s.start.Truncate(time.Minute))
	}
	if end != "" {
		if s.end, known = parseStatsTime(end); !known {
			return s, false
		}
	}
	var problem *ably.ErrorInfo
	s.limit, problem = ablyLimit(q.query)
	direction := get("direction")
	return s, problem == nil && !s.start.After(s.end) && (direction == "" || direction == "backwards" || s.forwards)
}

// stats answers GET /stats: what Ably's clients have done. All keys are told the same figures, those of the server.
func (q *ablyRequest) stats(string) {
	now := time.Now()
	wanted, ok := q.readStatsQuery(now)
	switch {
	case !ok:
		q.fail(errAblyStats)
		return
	case !q.identity.capability.grants(ablyOpStats):
		q.fail(errAblyNotAllowed)
		return
	}
	list := q.server.stats.by(wanted.unit, &q.server.account.counts)
	list = slices.DeleteFunc(list, func(i statsInterval) bool { return i.start.Before(wanted.start) || i.start.After(wanted.end) })
	if !wanted.forwards {
		slices.Reverse(list)
	}
	cursor := ""
	if len(list) > wanted.limit {
		cursor = strconv.FormatInt(list[wanted.limit].start.UnixMilli(), 10)
		list = list[:wanted.limit]
	}
	app, _, _ := strings.Cut(q.identity.keyName, ".")
	page := make([]any, len(list))
	for i := range list {
		page[i] = list[i].describe(wanted.unit, app, now)
	}
	q.setLinks("stats", pageOf(q.query, "start", "end", "limit", "direction", "unit", "by", "cursor"), cursor)
	q.answer(http.StatusOK, ably.AppendValue(nil, q.format, page))
}

// describe is the interval as clients are told of it. app "" leaves out whose figures they are.
func (i *statsInterval) describe(unit *statsUnit, app string, now time.Time) ably.Object {
	o := ably.Object{{Key: "intervalId", Value: i.start.Format(unit.layout)}, {Key: "unit", Value: unit.name}}
	if now = now.UTC(); unit.begin(now.Truncate(time.Minute)).Equal(i.start) {
		o = append(o, ably.Field{Key: "inProgress", Value: now.Format(unit.within)})
	}
	o = append(o, ably.Field{Key: "schema", Value: statsSchema})
	if app != "" {
		o = append(o, ably.Field{Key: "appId", Value: app})
	}
	return append(o, ably.Field{Key: "entries", Value: i.entries()})
}

// lookAtStats takes in the figures, and tells those of a minute that is over to whoever listens. Sweep goroutine.
func (s *Server) lookAtStats() {
	if s.rules.Load().ably == nil {
		return
	}
	now := time.Now()
	over := s.stats.look(now, &s.account.counts, s.sessions.connected(), s.account.channels.Load())
	if over != nil && s.account.audience.stats.Load() {
		s.sayMeta(metaStats, []ably.Message{metaMessage("update", over.describe(&statsUnits[0], "", now))})
	}
}

// connected is how many sessions have a socket.
func (s *ablySessions) connected() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(len(s.byID) - s.waiting.Len())
}

// errAblyStats is the answer to a question for statistics that cannot be read.
var errAblyStats = ablyBadRequest(40000, "start and end are milliseconds since 1970 or interval ids, start is not behind end, unit is minute, hour, day or month, limit is from 1 to 1000, direction is forwards or backwards")
