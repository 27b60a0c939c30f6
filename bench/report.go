package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// faults is what must be zero in every scenario.
type faults struct {
	Cut        int64  `json:"cut"`        // connections that the server ended
	Lost       int64  `json:"lost"`       // messages that did not arrive
	Disordered int64  `json:"disordered"` // repeated, swapped or after a gap
	Garbled    int64  `json:"garbled"`    // no frame, or no message of ours
	Refused    int64  `json:"refused"`    // error messages
	Stray      int64  `json:"stray"`      // bytes that reached someone else than the addressee
	First      string `json:"first,omitempty"`
}

func (f faults) any() bool { return f.Cut+f.Lost+f.Disordered+f.Garbled+f.Refused+f.Stray > 0 }

func (f faults) String() string {
	var parts []string
	for _, c := range []struct {
		n    int64
		what string
	}{{f.Cut, "cut"}, {f.Lost, "lost"}, {f.Disordered, "disordered"}, {f.Garbled, "garbled"}, {f.Refused, "refused"}, {f.Stray, "stray bytes"}} {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	if parts == nil {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// result is one run of one scenario against one server. Zero means "not measured" in every optional field.
type result struct {
	Server     string  `json:"server"`
	Scenario   string  `json:"scenario"`
	Unit       string  `json:"unit"` // what Count counts
	Count      int64   `json:"count"`
	Seconds    float64 `json:"seconds"`
	CPU        float64 `json:"cpu_us,omitempty"`      // server, µs per unit
	UserCPU    float64 `json:"user_cpu_us,omitempty"` // the part of it outside the kernel
	P50        float64 `json:"p50_ms,omitempty"`
	P99        float64 `json:"p99_ms,omitempty"`
	ServerLoad float64 `json:"server_load,omitempty"` // cores in use
	ClientLoad float64 `json:"client_load,omitempty"` // share of the client's cores in use
	Closed     bool    `json:"closed_loop"`           // the load goes as fast as the server lets it
	Faults     faults  `json:"faults"`
	Notes      string  `json:"notes,omitempty"`

	Memory *memoryResult `json:"memory,omitempty"` // S1
	Slow   *slowResult   `json:"slow,omitempty"`   // S5
	Relay  *relayResult  `json:"relay,omitempty"`  // relay
}

// memoryResult is S1's finding at one number of connections. Sizes are bytes; per connection is the growth since none.
type memoryResult struct {
	Connections int     `json:"connections"`
	RSS         int64   `json:"rss"`
	RSSPerConn  float64 `json:"rss_per_connection"`
	PSSPerConn  float64 `json:"pss_per_connection"`
	LivePerConn float64 `json:"live_heap_and_stack_per_connection,omitempty"`
}

// slowResult is S5's finding. Sizes are bytes.
type slowResult struct {
	OtherP99 float64 `json:"other_room_p99_ms"`
	SlowCut  bool    `json:"slow_member_cut"`
	Growth   int64   `json:"rss_growth"`
}

// measured fills in what every scenario has: units, time and cost.
func measured(t *target, scenario, unit string, count int64, u usage) result {
	r := result{Server: t.name, Scenario: scenario, Unit: unit, Count: count, Seconds: u.wall.Seconds()}
	r.ClientLoad = u.self.Seconds() / u.wall.Seconds() / float64(runtime.GOMAXPROCS(0))
	if t.pid != 0 && count > 0 {
		r.CPU = float64(u.cpu().Nanoseconds()) / 1e3 / float64(count)
		r.UserCPU = float64(u.user.Nanoseconds()) / 1e3 / float64(count)
		r.ServerLoad = u.cpu().Seconds() / u.wall.Seconds()
	}
	return r
}

// withLatency adds the percentiles of h.
func (r result) withLatency(h *histogram) result {
	r.P50, r.P99 = ms(h.percentile(0.50)), ms(h.percentile(0.99))
	return r
}

// paced says what set the pace of a closed loop when it was not the server; "" when it was.
func (r result) paced() string {
	switch {
	case !r.Closed || r.ServerLoad > 0.9 || r.ClientLoad == 0:
		return ""
	case r.ClientLoad > 0.9 && r.ServerLoad == 0:
		return "the client was busy all the time: the server may be able to do more than this"
	case r.ClientLoad > 0.9:
		return "the client was the bottleneck: the server had time left, and can do more than this"
	case r.ServerLoad > 0 && r.ServerLoad < 0.7 && r.ClientLoad < 0.7:
		return "neither server nor client was busy: something else has the cores, and the figures say little"
	}
	return ""
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// verdict is one target: a figure of this run against its bound.
type verdict struct {
	Target string  `json:"target"`
	What   string  `json:"what"`
	Value  float64 `json:"value"`
	Bound  float64 `json:"bound"`
	Unit   string  `json:"unit"`     // "x" for a ratio
	Known  bool    `json:"measured"` // false: the figure could not be had, which is no success
	Met    bool    `json:"met"`
}

// report is the whole output.
type report struct {
	Machine  string    `json:"machine"`
	Go       string    `json:"go"`
	Date     time.Time `json:"date"`
	Pinned   bool      `json:"pinned"`
	Results  []result  `json:"results"`
	Verdicts []verdict `json:"targets,omitempty"`
}

func newReport(pinned bool) *report {
	return &report{Machine: fmt.Sprintf("%s/%s, %d cores", runtime.GOOS, runtime.GOARCH, runtime.NumCPU()), Go: runtime.Version(), Date: time.Now().UTC(), Pinned: pinned}
}

// add keeps a result and prints it to standard error, so that a long run shows how it goes.
func (r *report) add(res result) {
	r.Results = append(r.Results, res)
	line := fmt.Sprintf("%-14s %-22s %9d %-11s %9.0f/s", res.Server, res.Scenario, res.Count, res.Unit, float64(res.Count)/res.Seconds)
	if res.CPU > 0 {
		line += fmt.Sprintf("  %7.2f µs", res.CPU)
	}
	if res.Faults.any() {
		line += "  FAULTS: " + res.Faults.String()
	}
	progress("%s", line)
}

// write prints the report as JSON or as tables for people.
func (r *report) write(w io.Writer, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	fmt.Fprintf(w, "%s, %s, %s, %s\n\n", r.Machine, r.Go, r.Date.Format("2006-01-02"), pinnedText(r.Pinned))
	r.writeResults(w)
	r.writeMemory(w)
	r.writeSlow(w)
	r.writeRelay(w)
	r.writeNotes(w)
	r.writeVerdicts(w)
	return nil
}

func pinnedText(pinned bool) string {
	if pinned {
		return "server and client on separate cores"
	}
	return "server and client not pinned to cores of their own"
}

func (r *report) writeResults(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "server\tscenario\tunit\tper second\tserver CPU µs/unit\tof it user\tp50 ms\tp99 ms\tserver cores\tclient load\tfaults\t")
	for _, x := range r.Results {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%.0f\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", x.Server, x.Scenario, x.Unit, float64(x.Count)/x.Seconds,
			number(x.CPU, 2), number(x.UserCPU, 2), number(x.P50, 2), number(x.P99, 2), number(x.ServerLoad, 2), percent(x.ClientLoad), x.Faults)
	}
	tw.Flush()
}

func (r *report) writeMemory(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	head := "\nserver\tconnections\tRSS MiB\tRSS B/conn\tPSS B/conn\tlive heap + stack B/conn\t\n"
	for _, x := range r.Results {
		if m := x.Memory; m != nil {
			fmt.Fprintf(tw, "%s%s\t%d\t%s\t%s\t%s\t%s\t\n", head, x.Server, m.Connections, number(float64(m.RSS)/(1<<20), 1), number(m.RSSPerConn, 0), number(m.PSSPerConn, 0), number(m.LivePerConn, 0))
			head = ""
		}
	}
	tw.Flush()
}

func (r *report) writeSlow(w io.Writer) {
	for _, x := range r.Results {
		if s := x.Slow; s != nil {
			cut := "was not cut"
			if s.SlowCut {
				cut = "was cut"
			}
			fmt.Fprintf(w, "\n%s, %s: the slow one %s; p99 of its room's others %.2f ms, of the other room %.2f ms; RSS grew by %.1f MiB\n",
				x.Server, x.Scenario, cut, x.P99, s.OtherP99, float64(s.Growth)/(1<<20))
		}
	}
}

func (r *report) writeRelay(w io.Writer) {
	var plain float64 // CPU of the copying floor for each MiB, 0: not measured
	for _, x := range r.Results {
		if x.Server == nameCopy {
			plain = x.CPU
		}
		switch m := x.Relay; {
		case m == nil:
		case m.IdleP99 == 0:
			fmt.Fprintf(w, "\n%s, %s: p99 of signalling to others %.2f ms, to the receiver %.2f ms\n", x.Server, x.Scenario, x.P99, m.ReceiverP99)
		default:
			ratio := ""
			if plain > 0 {
				ratio = fmt.Sprintf(" (%.2f of a plain copy's)", x.CPU/plain)
			}
			fmt.Fprintf(w, "\n%s, %s: %.2f s of CPU for each GiB%s; p99 of signalling in another room %.2f ms, %.2f ms without files; to the receiver %.2f ms; RSS grew by %.1f MiB\n",
				x.Server, x.Scenario, x.CPU*1024/1e6, ratio, x.P99, m.IdleP99, m.ReceiverP99, float64(m.Growth)/(1<<20))
		}
	}
}

// writeNotes prints each remark once, with the runs that it is about.
func (r *report) writeNotes(w io.Writer) {
	var texts []string
	about := map[string][]string{}
	note := func(x result, text string) {
		if text == "" {
			return
		}
		if about[text] == nil {
			texts = append(texts, text)
		}
		if run := x.Server + " " + x.Scenario; !slices.Contains(about[text], run) {
			about[text] = append(about[text], run)
		}
	}
	for _, x := range r.Results {
		note(x, x.Notes)
		note(x, x.Faults.First)
		if strings.Contains(x.Faults.First, "rate_limited") {
			note(x, "the server limits rates, as it should: raise its websocket.messages_per_second and message_burst for this load")
		}
		note(x, x.paced())
	}
	for _, text := range texts {
		fmt.Fprintf(w, "\n%s:\n  %s\n", strings.Join(about[text], ", "), text)
	}
}

func (r *report) writeVerdicts(w io.Writer) {
	if len(r.Verdicts) == 0 {
		return
	}
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "target\tfigure\tmeasured\tbound\t\t")
	for _, v := range r.Verdicts {
		mark := "met"
		switch {
		case !v.Known:
			mark = "NOT MEASURED"
		case !v.Met:
			mark = "MISSED"
		}
		fmt.Fprintf(tw, "%s\t%s\t%.3g %s\t%.3g %s\t%s\t\n", v.Target, v.What, v.Value, v.Unit, v.Bound, v.Unit, mark)
	}
	tw.Flush()
}

func number(f float64, digits int) string {
	if f == 0 {
		return "–"
	}
	return fmt.Sprintf("%.*f", digits, f)
}

func percent(f float64) string {
	if f == 0 {
		return "–"
	}
	return fmt.Sprintf("%.0f %%", f*100)
}

// progress tells a person who waits; standard output stays for the result.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1fs  "+format+"\n", append([]any{time.Since(epoch).Seconds()}, args...)...)
}
