package main

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// An hour of the whole server in a bubble: what was counted is in the charts, where and when it was counted.
func TestTheLastHourIsRemembered(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, s *pipeServer) {
		time.Sleep(55 * time.Second)
		c := s.connect("ann")
		c.write(maskedFrame(finBit|opText, []byte(`{"type":"nonsense"}`)))
		for range 30 {
			c.write(maskedFrame(finBit|opText, []byte(`{"type":"subscribe","channel":"room"}`)))
			c.write(maskedFrame(finBit|opText, []byte(`{"type":"publish","channel":"room","data":{}}`)))
		}
		time.Sleep(9 * time.Minute)
		part := s.history.after(-1)
		if part.Newest != 59 && part.Newest != 60 || part.Interval != 10 {
			t.Fatalf("after ten minutes the newest sample is %d, every %v s", part.Newest, part.Interval)
		}
		for name, want := range map[string]string{
			"connections":         "6×0 54×1",
			"rooms":               "6×0 54×1",
			"messages_per_second": "6×0 1×3 53×0",
			"refusals.bad_type":   "6×0 1×1 53×0", // begins to be counted later, and was 0 before
			"relay_transfers":     "60×0",
			"ably_channels":       "60×0",
		} {
			if got := runs(part.Series[name][:60]); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
		if memory := part.Series["memory_mb"]; memory[0] < 1 {
			t.Errorf("memory: %v", memory)
		}

		// An hour later the minutes without anybody are forgotten, and a page that knows a part asks for the rest.
		time.Sleep(time.Hour)
		all := s.history.after(-1)
		if got := runs(all.Series["connections"]); got != "360×1" {
			t.Errorf("connections after more than an hour: %s", got)
		}
		if rest := s.history.after(all.Newest - 3); len(rest.Series["rooms"]) != 3 || rest.Newest != all.Newest {
			t.Errorf("of the last three samples: %v", rest.Series["rooms"])
		}
		if none := s.history.after(all.Newest); len(none.Series["rooms"]) != 0 {
			t.Errorf("nothing is new, but told: %v", none.Series["rooms"])
		}
		if none := s.history.after(math.MaxInt64); len(none.Series["rooms"]) != 0 {
			t.Errorf("nothing is later, but told: %v", none.Series["rooms"])
		}
	})
}

// runs shortens a list: 2×0 1×7.
func runs(values []float32) string {
	var parts []string
	for i := 0; i < len(values); {
		n := 1
		for i+n < len(values) && (values[i+n] == values[i] || values[i+n] != values[i+n] && values[i] != values[i]) {
			n++
		}
		parts = append(parts, fmt.Sprintf("%d×%v", n, values[i]))
		i += n
	}
	return strings.Join(parts, " ")
}

// While the process stood still nothing was sampled: that is a gap, not a zero, whatever is counted afterwards.
func TestAGapInTheHistoryIsAGap(t *testing.T) {
	var h consoleHistory
	sampled := func(at time.Duration, live int, refused uint64) {
		t.Helper()
		if !h.due(at) {
			t.Fatalf("at %v no sample is due", at)
		}
		h.take(at, &figures{live: live, relay: new(relayCounters), ably: new(ablyAccount), refusals: map[string]uint64{"room_full": refused, "bad_json": 0}})
		if h.due(at) {
			t.Fatalf("at %v a second sample is due", at)
		}
	}
	sampled(500*time.Millisecond, 1, 0)
	sampled(10*time.Second, 2, 0)
	sampled(51*time.Second, 3, 4)
	part := h.after(-1)
	if got := runs(part.Series["connections"]); got != "1×1 1×2 3×NaN 1×3" {
		t.Errorf("connections: %s", got)
	}
	if got := runs(part.Series["refusals.room_full"]); got != "2×0 3×NaN 1×4" {
		t.Errorf("refusals: %s", got)
	}
	if _, there := part.Series["refusals.bad_json"]; there {
		t.Error("what was never counted has a series")
	}
	if text, err := json.Marshal(part.Series["connections"]); err != nil || string(text) != "[1,2,null,null,null,3]" {
		t.Errorf("as JSON: %s, %v", text, err)
	}

	// A pause of more than an hour leaves nothing of before.
	sampled(3*time.Hour, 7, 4)
	if got := runs(h.after(-1).Series["connections"]); got != "359×NaN 1×7" {
		t.Errorf("after three hours: %s", got)
	}
}

// The history is bounded: 2 KB a series, and so many series.
func TestTheHistoryIsBounded(t *testing.T) {
	if size := unsafe.Sizeof(consoleSeries{}); size > 2<<10 {
		t.Errorf("a series has %d bytes", size)
	}
	if length := historySamples * historyInterval; length != time.Hour {
		t.Errorf("the history is %v long", length)
	}
	var h consoleHistory
	reasons := make(map[string]uint64)
	for i := range 4 * maxHistorySeries {
		reasons[fmt.Sprint("reason ", i)] = 1
	}
	for i := range 2 * historySamples {
		h.take(time.Duration(i)*historyInterval+1, &figures{relay: new(relayCounters), ably: new(ablyAccount), refusals: reasons})
	}
	if n := len(h.series); n != maxHistorySeries {
		t.Errorf("%d series, want %d", n, maxHistorySeries)
	}
	// All that there is to count today fits.
	if n := int(reasonCount) + int(relayProblemCount) + int(dropCount) + 16; n > maxHistorySeries {
		t.Errorf("there are %d things to count", n)
	}
}

// Where the console is switched off nobody looks at the history, and none is kept.
func TestNoHistoryWithoutTheConsole(t *testing.T) {
	inBubble(t, func(c *Config) { c.Console.Enabled = false }, func(t *testing.T, s *pipeServer) {
		time.Sleep(time.Minute)
		if part := s.history.after(-1); part.Newest != -1 || len(part.Series) != 0 {
			t.Errorf("a history: %+v", part)
		}
	})
}
