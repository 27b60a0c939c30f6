package main

import (
	"math"
	"strconv"
	"sync"
	"time"
)

// consoleHistory is the last hour of what /metrics shows, for the console's charts: one sample in each historyInterval since the start,
// numbered from 0. It is bounded: maxHistorySeries series of a fixed size.
type consoleHistory struct {
	mu     sync.Mutex
	taken  int64                     // samples so far: the number of the next one, or of a later one
	at     time.Duration             // of the newest sample
	series map[string]*consoleSeries // nil before the first sample
	counts map[string]uint64         // what each counter stood at then
}

// consoleSeries is a ring: the sample n is at n % historySamples. NaN: the server was not awake to take it. Guarded by consoleHistory.mu.
type consoleSeries [historySamples]float32

// historyBase is a series that every sample has.
const historyBase = "connections"

// remember takes a sample when one is due, and the console is there to show it. Sweep goroutine.
func (s *Server) remember(now time.Duration) {
	if s.history.due(now) && s.rules.Load().cfg.Console.Enabled {
		s.history.take(now, s.figures())
	}
}

// due says whether there is no sample yet for the interval that now lies in.
func (h *consoleHistory) due(now time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return int64(now/historyInterval) >= h.taken
}

// take adds the sample of the interval that now, by the server's clock, lies in. Intervals since the newest sample stay empty.
func (h *consoleHistory) take(now time.Duration, f *figures) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.series == nil {
		h.series, h.counts = make(map[string]*consoleSeries), make(map[string]uint64)
	}
	number, elapsed := int64(now/historyInterval), (now - h.at).Seconds()
	for skipped := max(h.taken, number-historySamples); skipped <= number; skipped++ {
		for _, s := range h.series {
			s[skipped%historySamples] = float32(math.NaN())
		}
	}
	h.taken, h.at = number+1, now
	gauge := func(name string, value float64) {
		if s := h.named(name); s != nil {
			s[number%historySamples] = float32(value)
		}
	}
	grown := func(name string, count uint64) float64 {
		before := h.counts[name]
		h.counts[name] = count
		return float64(count - min(before, count))
	}
	gauge(historyBase, float64(f.live))
	gauge("rooms", float64(f.hub.rooms))
	gauge("messages_per_second", grown("messages", f.hub.messages)/elapsed)
	gauge("deliveries_per_second", grown("deliveries", f.hub.deliveries)/elapsed)
	gauge("relay_transfers", float64(f.relay.active.Load()))
	gauge("ably_channels", float64(f.ably.channels.Load()))
	gauge("memory_mb", megabytes(f.memory.Sys-f.memory.HeapReleased))
	for kind, counts := range map[string]map[string]uint64{"drops": f.drops, "refusals": f.refusals} {
		for reason, count := range counts {
			if name := kind + "." + reason; count > 0 {
				gauge(name, grown(name, count))
			}
		}
	}
}

// named finds a series, or makes it; nil when there are too many. What is counted for the first time was 0 whenever there was a
// sample. Called with mu held, when the newest sample of historyBase has been taken.
func (h *consoleHistory) named(name string) *consoleSeries {
	if s := h.series[name]; s != nil || len(h.series) >= maxHistorySeries {
		return s
	}
	s, base := new(consoleSeries), h.series[historyBase]
	for i := range s {
		if base == nil {
			s[i] = float32(math.NaN())
		} else {
			s[i] = base[i] * 0 // NaN stays NaN
		}
	}
	h.series[name] = s
	return s
}

// consolePart is a part of the history, on its way to the page.
type consolePart struct {
	Interval float64                  `json:"interval_seconds"`
	Newest   int64                    `json:"newest"` // number of the last sample; -1: none
	Series   map[string]consoleValues `json:"series"` // the oldest first
}

// consoleValues are samples in order.
type consoleValues []float32

// MarshalJSON writes null for what was not sampled.
func (v consoleValues) MarshalJSON() ([]byte, error) {
	text := []byte{'['}
	for i, value := range v {
		if i > 0 {
			text = append(text, ',')
		}
		if value != value {
			text = append(text, "null"...)
		} else {
			text = strconv.AppendFloat(text, math.Round(float64(value)*100)/100, 'f', -1, 64)
		}
	}
	return append(text, ']'), nil
}

// after returns the samples behind the one with a number, an hour of them at most. Any goroutine.
func (h *consoleHistory) after(number int64) consolePart {
	h.mu.Lock()
	defer h.mu.Unlock()
	part := consolePart{Interval: historyInterval.Seconds(), Newest: h.taken - 1, Series: make(map[string]consoleValues)}
	for name, s := range h.series {
		values := consoleValues{}
		for n := max(min(number, h.taken)+1, h.taken-historySamples, 0); n < h.taken; n++ {
			values = append(values, s[n%historySamples])
		}
		part.Series[name] = values
	}
	return part
}
