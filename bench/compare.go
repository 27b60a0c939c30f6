package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// The bounds of the targets. Each is a ratio of figures measured in one run on one machine, unless its unit says otherwise.
const (
	boundT1One, boundT1Batch = 0.33, 1.1
	boundT3                  = 1.1
	boundT4, boundP50        = 1.15, 1.3
	boundP99                 = 2.0
	boundT5Full, boundT5Lone = 0.05, 0.12
	boundT6                  = 9.0
	boundT7RSS, boundT7All   = 8.0, 90.0 // KiB per connection, MiB in all
	boundT7Live              = 6.5       // KiB
	boundT8Login, boundT8    = 9.0, 12.5
	boundT9P99               = 1.5
	boundT9Growth            = slowQueue/float64(1<<20) + 4 // MiB
	boundRelayTime           = 2.0                          // half of the copy's throughput
	boundRelayOthers         = 2.0
	boundRelayReceiver       = 20.0 // ms
	boundRelayGrowth         = 8.0  // MiB
)

// comparison runs the floors, our server and others side by side.
type comparison struct {
	report  *report
	servers []*launcher // the first is ours: the targets are its
	cpus    []int       // of every server process
	rounds  int
	each    time.Duration // of one measurement
	rate    float64
	idle    []int
}

// The names of the floors in results.
const (
	nameOne       = "floor: " + floorOne
	nameBatch     = "floor: " + floorBatch
	nameCopy      = "floor: " + floorCopy
	nameHandshake = "floor: " + floorHandshake
)

// run does everything that the targets need. It returns false when one of them is missed.
func (c *comparison) run() (bool, error) {
	if err := c.fanouts(); err != nil {
		return false, err
	}
	for i, l := range c.servers {
		err := c.others(l, i == 0)
		if err != nil && i == 0 {
			return false, err
		}
		if err != nil {
			progress("%s: %v", l.name, err)
		}
	}
	c.report.Verdicts = c.verdicts()
	return !slices.ContainsFunc(c.report.Verdicts, func(v verdict) bool { return !v.Met }), nil
}

// fanouts measures S2 on everyone, taking turns within each round so that a noisy neighbour hits all alike.
func (c *comparison) fanouts() error {
	var runs []*fanout
	for _, start := range c.starters() {
		p, err := start()
		if err != nil {
			return err
		}
		defer p.stop()
		s, err := newFanout(p.target, shape{rooms: 20, members: 50}, fanoutBytes)
		if err != nil {
			return err
		}
		defer s.fleet.close()
		runs = append(runs, s)
	}
	for range c.rounds {
		for _, window := range []int{4, 1} {
			for _, s := range runs {
				c.report.add(s.closedLoop(window, c.each))
			}
		}
		for _, s := range runs {
			res, err := s.openLoop(c.rate, c.each)
			if err != nil {
				return err
			}
			c.report.add(res)
		}
	}
	return nil
}

// starters lists how to start the floors and each server.
func (c *comparison) starters() (all []func() (*process, error)) {
	for _, kind := range []string{floorOne, floorBatch} {
		all = append(all, func() (*process, error) { return startFloor(kind, c.cpus) })
	}
	for _, l := range c.servers {
		all = append(all, l.start)
	}
	return all
}

// others measures S3 to S5, S1 and the line, each on a server started for it.
func (c *comparison) others(l *launcher, ours bool) error {
	if ours {
		if err := c.connecting(); err != nil {
			return err
		}
	}
	err := c.with(l, func(t *target) error {
		s, err := newSignalling(t, signallingRooms)
		if err != nil {
			return err
		}
		defer s.fleet.close()
		for range c.rounds {
			c.report.add(s.run(c.each))
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = c.with(l, func(t *target) error {
		for range c.rounds {
			c.report.add(churn(t, c.each))
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = c.with(l, func(t *target) error {
		results, err := idle(t, c.idle)
		for _, res := range results {
			c.report.add(res)
		}
		return err
	})
	if err != nil {
		return err
	}
	err = c.with(l, func(t *target) error {
		res, err := slowMember(t, 8*time.Second)
		c.report.add(res)
		return err
	})
	if err != nil || !ours {
		return err
	}
	err = c.with(l, func(t *target) error {
		res, err := behindLine(t, 15*time.Second)
		c.report.add(res)
		return err
	})
	if err != nil {
		return err
	}
	return c.relays(l)
}

// connecting measures what coming and going costs a server that does nothing else. No target is made of it: it tells how
// much of T8 is the machine's.
func (c *comparison) connecting() error {
	floor, err := startFloor(floorHandshake, c.cpus)
	if err != nil {
		return err
	}
	defer floor.stop()
	for range c.rounds {
		c.report.add(churn(floor.target, c.each))
	}
	results, err := idle(floor.target, c.idle[len(c.idle)-1:])
	for _, res := range results {
		c.report.add(res)
	}
	return err
}

// relays measures files beside the copying floor, each round on a server of its own, and then behind the line.
func (c *comparison) relays(l *launcher) error {
	floor, err := startFloor(floorCopy, c.cpus)
	if err != nil {
		return err
	}
	defer floor.stop()
	for range c.rounds {
		res, err := copyBeside(floor.target, c.each)
		if err != nil {
			return err
		}
		c.report.add(res)
		err = c.with(l, func(t *target) error {
			res, err := relaying(t, c.each)
			c.report.add(res)
			return err
		})
		if err != nil {
			return err
		}
	}
	return c.with(l, func(t *target) error {
		res, err := relayBehindLine(t)
		c.report.add(res)
		return err
	})
}

// with starts a server, uses it and stops it.
func (c *comparison) with(l *launcher, use func(t *target) error) error {
	p, err := l.start()
	if err != nil {
		return err
	}
	defer p.stop()
	return use(p.target)
}

// of returns the results of one server whose scenario begins with prefix.
func (c *comparison) of(server, prefix string) (found []result) {
	for _, r := range c.report.Results {
		if r.Server == server && strings.HasPrefix(r.Scenario, prefix) {
			found = append(found, r)
		}
	}
	return found
}

// ratio is the median over the rounds of a(server)/b(floor).
func (c *comparison) ratio(server, scenario string, a func(result) float64, floor, floorScenario string, b func(result) float64) float64 {
	above, below := c.of(server, scenario), c.of(floor, floorScenario)
	var ratios []float64
	for i := range min(len(above), len(below)) {
		ratios = append(ratios, a(above[i])/b(below[i]))
	}
	return median(ratios)
}

// share is like ratio, of sums: user time comes in ticks of 10 ms, too coarse for a single round.
func (c *comparison) share(server, floor, scenario string) float64 {
	user, whole := 0.0, 0.0
	for _, r := range c.of(server, scenario) {
		user += r.UserCPU
	}
	for _, r := range c.of(floor, scenario) {
		whole += r.CPU
	}
	return user / whole
}

// median is NaN without values.
func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

func cpu(r result) float64 { return r.CPU }

// pace is the time for each unit.
func pace(r result) float64 { return r.Seconds / float64(r.Count) }
func p50(r result) float64  { return r.P50 }
func p99(r result) float64  { return r.P99 }

// verdicts judges our server by the targets.
func (c *comparison) verdicts() (v []verdict) {
	us := c.servers[0].name
	open := fmt.Sprintf("S2 %g msg/s", c.rate)
	judge := func(target, what string, value, bound float64, unit string) {
		known := !math.IsNaN(value) && !math.IsInf(value, 0)
		if !known {
			value = 0 // JSON has no other
		}
		v = append(v, verdict{target, what, value, bound, unit, known, known && value <= bound})
	}
	cpuOf := func(scenario, floor, floorScenario string) float64 {
		return c.ratio(us, scenario, cpu, floor, floorScenario, cpu)
	}
	const w4, w1 = "S2 window 4", "S2 window 1"
	judge("T1", "CPU, window 4, to the one-write floor", cpuOf(w4, nameOne, w4), boundT1One, "x")
	judge("T1", "CPU, window 4, to the batching floor", cpuOf(w4, nameBatch, w4), boundT1Batch, "x")
	judge("T3", "CPU, window 1, to the one-write floor", cpuOf(w1, nameOne, w1), boundT3, "x")
	judge("T4", "CPU, open loop, to the one-write floor", cpuOf(open, nameOne, open), boundT4, "x")
	judge("T4", "p50, open loop, to the one-write floor", c.ratio(us, open, p50, nameOne, open, p50), boundP50, "x")
	judge("T4", "p99, open loop, to the one-write floor", c.ratio(us, open, p99, nameOne, open, p99), boundP99, "x")
	judge("T5", "user CPU, window 4, to the one-write floor's CPU", c.share(us, nameOne, w4), boundT5Full, "x")
	judge("T5", "user CPU, window 1, to the one-write floor's CPU", c.share(us, nameOne, w1), boundT5Lone, "x")
	judge("T6", "CPU per exchange to the one-write floor's per delivery", cpuOf("S3", nameOne, w4), boundT6, "x")
	if m := c.largestIdle(us); m != nil {
		judge("T7", fmt.Sprintf("RSS per idle connection at %d", m.Connections), m.RSSPerConn/1024, boundT7RSS, "KiB")
		judge("T7", "RSS in all", float64(m.RSS)/(1<<20), boundT7All, "MiB")
		live := m.LivePerConn / 1024
		if live == 0 {
			live = math.NaN()
		}
		judge("T7", "live heap and stack per idle connection", live, boundT7Live, "KiB")
	}
	judge("T8", "CPU per connecting to the one-write floor's per delivery", c.loginCost(us)/c.cost(nameOne, w4), boundT8Login, "x")
	judge("T8", "CPU per churn cycle to the one-write floor's per delivery", cpuOf("S4", nameOne, w4), boundT8, "x")
	for _, r := range c.of(us, "S5") {
		judge("T9", "p99 beside a slow member, to the other room's", r.P99/r.Slow.OtherP99, boundT9P99, "x")
		judge("T9", "RSS growth", float64(r.Slow.Growth)/(1<<20), boundT9Growth, "MiB")
		v = append(v, verdict{"T9", "slow member cut", count(r.Slow.SlowCut), 1, "", true, r.Slow.SlowCut})
	}
	for _, r := range c.of(us, "line") {
		judge("line", "p99 of signalling behind 3 Mbit/s", r.P99, lineP99Bound, "ms")
	}
	const files = "relay of 50 MiB files"
	judge("relay", "time for each MiB to a plain copy's", c.ratio(us, files, pace, nameCopy, files, pace), boundRelayTime, "x")
	judge("relay", "p99 of signalling in another room, to its p99 without files", c.overRelays(us, func(r result) float64 { return r.P99 / r.Relay.IdleP99 }), boundRelayOthers, "x")
	judge("relay", "p99 of signalling to the receiver", c.overRelays(us, func(r result) float64 { return r.Relay.ReceiverP99 }), boundRelayReceiver, "ms")
	judge("relay", "RSS growth", c.overRelays(us, func(r result) float64 { return float64(r.Relay.Growth) / (1 << 20) }), boundRelayGrowth, "MiB")
	for _, r := range c.of(us, "relay behind") {
		judge("relay", "p99 of signalling to others behind 3 Mbit/s", r.P99, lineP99Bound, "ms")
	}
	return append(v, c.faultless(us))
}

// overRelays is the median of a figure over the rounds of the relay.
func (c *comparison) overRelays(server string, figure func(result) float64) float64 {
	var all []float64
	for _, r := range c.of(server, "relay of") {
		all = append(all, figure(r))
	}
	return median(all)
}

func count(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// faultless holds when no scenario of the server saw anything cut, lost, disordered, garbled, refused or overheard.
func (c *comparison) faultless(server string) verdict {
	bad := 0
	for _, r := range c.of(server, "") {
		if r.Faults.any() {
			bad++
		}
	}
	return verdict{"all", "scenarios with faults", float64(bad), 0, "", true, bad == 0}
}

func (c *comparison) cost(server, scenario string) float64 {
	var all []float64
	for _, r := range c.of(server, scenario) {
		all = append(all, r.CPU)
	}
	return median(all)
}

// loginCost is the CPU per connection over all steps of S1, in µs.
func (c *comparison) loginCost(server string) float64 {
	var spent, connections float64
	for _, r := range c.of(server, "S1") {
		spent += r.CPU * float64(r.Count)
		connections += float64(r.Count)
	}
	return spent / connections
}

func (c *comparison) largestIdle(server string) (m *memoryResult) {
	for _, r := range c.of(server, "S1") {
		m = r.Memory
	}
	return m
}
