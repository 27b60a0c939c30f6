package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"letshare/ably"
)

// statsAt is a minute of a certain day.
func statsAt(hour, minute, second int) time.Time {
	return time.Date(2026, 3, 4, hour, minute, second, 0, time.UTC)
}

// Minutes in which anything was are kept for a day, and add up to hours, days and months: counts are added, peaks are the highest.
func TestStatsAddUp(t *testing.T) {
	var s ablyStats
	var counts ablyCounts
	look := func(at time.Time, connections int64) *statsInterval { return s.look(at, &counts, connections, 0) }
	if look(statsAt(10, 58, 10), 0) != nil {
		t.Error("a minute is over before one has begun")
	}
	counts.add(statREST, 3)
	counts.add(statRESTBytes, 300)
	look(statsAt(10, 58, 40), 4)
	over := look(statsAt(10, 59, 0), 2)
	if over == nil || !over.start.Equal(statsAt(10, 58, 0)) || over.counts[statREST] != 3 || over.connections != (statsGauge{4, 0, 4, 2}) {
		t.Fatalf("the minute that is over is %+v", over)
	}
	look(statsAt(11, 0, 0), 0) // ends the minute with two connections
	if over := look(statsAt(11, 1, 0), 0); over != nil {
		t.Errorf("a minute in which nothing was is told of: %+v", over)
	}
	counts.add(statREST, 5)
	counts.add(statRESTBytes, 7)

	want := func(unit int, starts ...time.Time) []statsInterval {
		t.Helper()
		list := s.by(&statsUnits[unit], &counts)
		var got []time.Time
		for _, i := range list {
			got = append(got, i.start)
		}
		if fmt.Sprint(got) != fmt.Sprint(starts) {
			t.Fatalf("by %s there are %v, want %v", statsUnits[unit].name, got, starts)
		}
		return list
	}
	want(0, statsAt(10, 58, 0), statsAt(10, 59, 0), statsAt(11, 1, 0))
	want(1, statsAt(10, 0, 0), statsAt(11, 0, 0))
	day := want(2, statsAt(0, 0, 0))[0]
	if day.counts[statREST] != 8 || day.counts[statRESTBytes] != 307 || day.connections.peak != 4 || day.connections.least != 0 {
		t.Errorf("the day is %+v", day)
	}
	want(3, time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))
	text := string(ably.AppendValue(nil, ably.JSON, day.describe(&statsUnits[2], "app", statsAt(11, 1, 30))))
	for _, part := range []string{`"intervalId":"2026-03-04:00"`, `"unit":"day"`, `"inProgress":"2026-03-04:11:01"`, `"appId":"app"`, `"schema":"https://`,
		`"messages.inbound.rest.messages.count":8`, `"messages.inbound.all.all.data":307`, `"messages.all.messages.count":8`, `"connections.all.peak":4`} {
		if !strings.Contains(text, part) {
			t.Errorf("%s lacks %s", text, part)
		}
	}
	if strings.Contains(text, ":0") && regexp.MustCompile(`":0[,}]`).MatchString(text) {
		t.Errorf("%s holds zeros", text)
	}

	look(statsAt(11, 0, 30), 0) // the clock is put back
	want(0, statsAt(10, 58, 0), statsAt(10, 59, 0), statsAt(11, 1, 0))
	look(statsAt(11, 2, 0).Add(maxStatsAge-4*time.Minute), 1)
	want(0, statsAt(10, 59, 0), statsAt(11, 1, 0), statsAt(10, 58, 0).Add(24*time.Hour))
	look(statsAt(11, 2, 0).Add(10*maxStatsAge), 0)
	if n := len(s.past); n != 0 {
		t.Errorf("%d minutes are kept after ten days", n)
	}
	for i := range 3000 {
		look(statsAt(11, 3, 0).Add(10*maxStatsAge+time.Duration(i)*time.Minute), 1)
	}
	if n := len(s.past); n != 24*60-1 {
		t.Errorf("%d minutes of a day are kept", n)
	}
}

// GET /stats tells what has been done, in pages, to who may know it.
func TestStatsByREST(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	counts, stats := &s.server.account.counts, &s.server.stats
	start := time.Now().UTC().Truncate(time.Hour).Add(-4 * time.Hour)
	stats.mu.Lock()
	for i := range 5 {
		minute := statsInterval{start: start.Add(time.Duration(i) * 30 * time.Minute)}
		minute.counts[statRealtime], minute.counts[statRealtimeBytes] = int64(i+1), 10
		stats.past = append(stats.past, minute)
	}
	stats.mu.Unlock()
	page := func(path string) (ids []string, next string) {
		t.Helper()
		a := s.rest(t, "GET", path, "")
		var list []struct {
			IntervalID, Unit, Schema, AppID string
			Entries                         map[string]float64
		}
		if err := json.Unmarshal([]byte(a.value(t)), &list); err != nil || a.status != 200 {
			t.Fatalf("%s: %d %s", path, a.status, a.body)
		}
		for _, i := range list {
			if i.AppID != "app" || i.Schema == "" || i.Unit == "" {
				t.Errorf("%s: %+v", path, i)
			}
			ids = append(ids, fmt.Sprint(i.IntervalID, "=", i.Entries["messages.inbound.realtime.messages.count"]))
		}
		if found := regexp.MustCompile(`<\./stats(\?[^>]*)>; rel="next"`).FindStringSubmatch(a.header.Get("Link")); found != nil {
			next = "/stats" + found[1]
		}
		return ids, next
	}
	id := func(i int) string {
		return fmt.Sprint(start.Add(time.Duration(i)*30*time.Minute).Format(statsMinuteLayout), "=", i+1)
	}
	end := "&end=" + start.Add(2*time.Hour).Format(statsMinuteLayout)
	for direction, order := range map[string][]int{"forwards": {0, 1, 2, 3, 4}, "backwards": {4, 3, 2, 1, 0}, "": {4, 3, 2, 1, 0}} {
		path := "/stats?limit=2" + end
		if direction != "" {
			path += "&direction=" + direction
		}
		var got, want []string
		for pages := 0; path != "" && pages < 9; pages++ {
			var ids []string
			ids, path = page(path)
			got = append(got, ids...)
		}
		for _, i := range order {
			want = append(want, id(i))
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q: %v, want %v", direction, got, want)
		}
	}
	hour := func(i, n int) string {
		return fmt.Sprint(start.Add(time.Duration(i)*time.Hour).Format("2006-01-02:15"), "=", n)
	}
	if got, _ := page("/stats?unit=hour&direction=forwards&start=" + fmt.Sprint(start.Add(90*time.Minute).UnixMilli()) + end); fmt.Sprint(got) != fmt.Sprint([]string{hour(1, 7), hour(2, 5)}) {
		t.Errorf("by the hour: %v", got)
	}
	for _, query := range []string{"unit=year", "start=yesterday", "end=-1", "direction=up", "limit=0", "start=2000000&end=1"} {
		if a := s.rest(t, "GET", "/stats?"+query, ""); a.status != 400 {
			t.Errorf("%s is answered %d", query, a.status)
		}
	}

	// What clients do is counted.
	before := [statCount]int64{}
	for i := range before {
		before[i] = counts[i].Load()
	}
	ann, ben := s.ably(t, "ann", "echo=false"), s.ably(t, "ben")
	ben.attach(t, "room")
	ann.publish(t, "room", ablyText("a", "12345"), ablyText("b", "1"))
	ben.hears(t, "room", "a 12345", "b 1")
	s.rest(t, "POST", "/channels/room/messages", `{"name":"x","data":"yz"}`)
	ben.hears(t, "room", "x yz")
	s.rest(t, "GET", "/nowhere", "", "X-Ably-Version: 3")
	s.rest(t, "POST", "/keys/app.all/requestToken", `{}`)
	for figure, want := range map[statsCount]int64{statRealtime: 2, statRealtimeBytes: 8, statREST: 1, statRESTBytes: 3, statSent: 3, statSentBytes: 11,
		statConnections: 2, statChannels: 1, statRequests: 1, statRequestsRefused: 1, statTokensRefused: 1} {
		if got := counts[figure].Load() - before[figure]; got != want {
			t.Errorf("figure %d is %d, want %d", figure, got, want)
		}
	}
}

// Each minute's figures are told on [meta]stats:minute when it is over.
func TestStatsAreTold(t *testing.T) {
	t.Parallel()
	inBubble(t, withAblyMeta, func(t *testing.T, s *pipeServer) {
		ear := s.ablyJoin("ear", "key="+testAblyMetaKey)
		ear.send(`{"action":10,"channel":"[meta]stats:minute"}`)
		time.Sleep(150 * time.Second)
		got := ear.said("[meta]stats:minute")
		if len(got) != 2 {
			t.Fatalf("in two minutes and a half is said %q", got)
		}
		for _, text := range got {
			if !strings.HasPrefix(text, `update {"intervalId":"`) || !strings.Contains(text, `"unit":"minute"`) || !strings.Contains(text, `"connections.all.peak":1`) ||
				strings.Contains(text, "inProgress") {
				t.Errorf("the figures are %s", text)
			}
		}
	})
}
