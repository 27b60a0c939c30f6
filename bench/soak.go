package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The soak: everything that clients do, well and badly, at once and for long, against the server that the race
// detector watches. It is about what is lost or left behind, not about speed.
const (
	maxSoak       = 12 * time.Hour
	lookEvery     = 5 * time.Second
	soakRooms     = 6
	soakMembers   = 8   // of the talk in each room; guests come and go beside them
	talkRate      = 100 // messages a second in all rooms together; every fourth is directed
	shownFaults   = 20  // the first ones are told at once, the others counted
	soakGrowth    = 64  // MiB per hour that the resident set may grow, judged from soakJudged on
	soakGoroutine = 100 // goroutines per hour, the same
	soakJudged    = 20 * time.Minute
)

// Publishers that are no members of the talk: the stamp's publisher says which.
const (
	guestPublisher   = 0xfffe // of churn: each of its messages is counted
	hostilePublisher = 0xffff // a flood, of which an unknown part is let through
	everyone         = 0xff   // in the stamp's slot: not directed
)

// soak is one run. Its parts are goroutines that end when ctx does.
type soak struct {
	server *ownServer // immutable
	race   bool       // immutable: the server has the race detector in it
	talk   *fleet     // immutable; also counts what must not happen, in all parts
	tally  soakTally  // any goroutine
	start  time.Time
}

// soakTally counts what was done and seen. Any goroutine may add.
type soakTally struct {
	broadcast, directed, guests, heard, noise atomic.Int64 // deliveries checked: by the talk, of guests, by guests, of large messages
	guestSent                                 atomic.Int64 // deliveries of guests' messages that are due
	churned, stormed, frozen, refused         atomic.Int64 // connections
	attacks                                   atomic.Int64
	files, fileBytes, broken, resumed         atomic.Int64 // relays
	shown                                     atomic.Int64 // faults told so far
}

// fault counts what must not happen, and tells the first ones at once.
func (s *soak) fault(which *atomic.Int64, format string, args ...any) {
	s.talk.fault(which, format, args...)
	if s.tally.shown.Add(1) <= shownFaults {
		progress("FAULT: "+format, args...)
	}
}

// runSoak is the subcommand soak.
func runSoak(minutes float64, race bool) error {
	length := time.Duration(minutes * float64(time.Minute))
	if length < 10*time.Second || length > maxSoak {
		return usageError(fmt.Sprintf("-minutes: a sixth to %d", int(maxSoak.Minutes())))
	}
	dir, err := os.MkdirTemp("", "letshare-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server, err := startOwn(dir, race, map[string]any{})
	if err != nil {
		return err
	}
	base, err := server.look()
	if err != nil {
		server.stop()
		return err
	}
	s := &soak{server: server, race: race, start: time.Now()}
	looks, err := s.run(length)
	var wrong []string
	if err != nil {
		wrong = append(wrong, err.Error())
	}
	after, err := server.emptied(base.goroutines)
	if err != nil {
		wrong = append(wrong, err.Error())
	}
	if err := server.check(); err != nil {
		wrong = append(wrong, err.Error())
	}
	wrong = append(wrong, server.finish()...)
	return s.verdict(length, looks, base, after, wrong)
}

// run plays everything for length and returns what the server looked like meanwhile.
func (s *soak) run(length time.Duration) (looks []serverFigures, err error) {
	ready := make(chan struct{})
	s.talk, err = connect(s.server.target, shape{rooms: soakRooms, members: soakMembers, own: true}, func(m *member, payload []byte, _ int64) {
		<-ready
		s.hear(m, payload)
	})
	if err != nil {
		return nil, err
	}
	close(ready)
	ctx, cancel := context.WithTimeout(context.Background(), length)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { s.chat(ctx) })
	for n := range 5 {
		wg.Go(func() { s.churn(ctx, n) })
	}
	for n := range 2 {
		wg.Go(func() { s.relays(ctx, n) })
	}
	wg.Go(func() { s.freeze(ctx) })
	wg.Go(func() { s.badTokens(ctx) })
	wg.Go(func() { s.attack(ctx) })
	wg.Go(func() { s.storms(ctx) })
	looks = s.watch(ctx)
	wg.Wait()
	s.settle()
	return looks, nil
}

// watch looks at the server every few seconds until ctx ends.
func (s *soak) watch(ctx context.Context) (looks []serverFigures) {
	told := time.Now()
	for pause(ctx, lookEvery) {
		f, err := s.server.look()
		if err == nil {
			looks = append(looks, f)
			err = s.server.check()
		}
		if err != nil {
			s.fault(&s.talk.faults.garbled, "%v", err)
		}
		if time.Since(told) >= time.Minute {
			told = time.Now()
			progress("%d deliveries checked, %d files, RSS %.1f MiB, faults: %s", s.deliveries(), s.tally.files.Load(), mib(f.rss), s.talk.faultsSoFar())
		}
	}
	return looks
}

// deliveries is how many messages arrived and were checked, by whoever.
func (s *soak) deliveries() int64 {
	t := &s.tally
	return t.broadcast.Load() + t.directed.Load() + t.guests.Load() + t.heard.Load() + t.noise.Load()
}

// settle waits for what is under way, ends the talk and compares what each member sent with what each other received.
func (s *soak) settle() {
	var all, one int64
	for _, room := range s.talk.rooms {
		for _, m := range room.members {
			all += int64(m.sent[laneAll]) * (soakMembers - 1)
			one += int64(m.sent[laneOne])
		}
	}
	t := &s.tally
	for end := time.Now().Add(drainTimeout); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if t.broadcast.Load() >= all && t.directed.Load() >= one && t.guests.Load() >= t.guestSent.Load() {
			break
		}
	}
	s.talk.close()
	for _, c := range []struct {
		what      string
		got, want int64
	}{{"broadcast", t.broadcast.Load(), all}, {"directed", t.directed.Load(), one}, {"guests'", t.guests.Load(), t.guestSent.Load()}} {
		if c.got != c.want {
			s.fault(&s.talk.faults.lost, "%s messages: %d of %d deliveries", c.what, c.got, c.want)
			s.talk.faults.lost.Add(max(0, c.want-c.got-1))
		}
	}
	for _, room := range s.talk.rooms {
		for _, m := range room.members {
			s.settleMember(m)
		}
	}
}

// settleMember compares the last numbers that m received with the last that the others sent.
func (s *soak) settleMember(m *member) {
	for i, from := range m.room.members {
		if from == m {
			continue
		}
		if got := m.last[laneAll][i]; got != from.sent[laneAll] {
			s.fault(&s.talk.faults.lost, "%s: the last of %d messages from %s is %d", m.id, from.sent[laneAll], from.id, got)
		}
		if got := m.last[laneOne][i]; (i+1)%soakMembers == m.index && got != from.sent[laneOne] {
			s.fault(&s.talk.faults.lost, "%s: the last of %d directed messages from %s is %d", m.id, from.sent[laneOne], from.id, got)
		}
	}
}

// trends is how the server's figures grow per hour.
type trends struct{ rss, runtime, goroutines float64 }

func trendsOf(looks []serverFigures) trends {
	return trends{
		slope(looks, func(f serverFigures) float64 { return mib(f.rss) }),
		slope(looks, func(f serverFigures) float64 { return f.runtime }),
		slope(looks, func(f serverFigures) float64 { return f.goroutines }),
	}
}

// verdict prints the figures, and returns errFaults when anything was not as it must be.
func (s *soak) verdict(length time.Duration, looks []serverFigures, base, after serverFigures, wrong []string) error {
	if s.talk == nil {
		return errors.New(strings.Join(wrong, "; "))
	}
	if found := s.talk.faultsSoFar(); found.any() {
		wrong = append(wrong, found.String()+"; the first: "+found.First)
	}
	grows := trendsOf(looks)
	memory := grows.rss
	if s.race {
		memory = grows.runtime // the race detector remembers ever more by itself
	}
	if length >= soakJudged && memory > soakGrowth {
		wrong = append(wrong, fmt.Sprintf("the server's memory grows by %.1f MiB per hour, at most %d are normal", memory, soakGrowth))
	}
	if length >= soakJudged && grows.goroutines > soakGoroutine {
		wrong = append(wrong, fmt.Sprintf("goroutines grow by %.1f per hour, at most %d are normal", grows.goroutines, soakGoroutine))
	}
	fmt.Printf("soak of %s, %s\n", length.Round(time.Second), s.start.UTC().Format("2006-01-02 15:04 MST"))
	s.printDone(s.talk.faultsSoFar())
	s.printServer(looks, base, after, grows)
	return verdictOf(wrong)
}

// printDone prints what the clients did and saw.
func (s *soak) printDone(found faults) {
	t := &s.tally
	fmt.Printf("deliveries checked   %d: %d broadcast, %d directed, %d of guests, %d to guests, %d of 60 KB beside frozen readers\n", s.deliveries(),
		t.broadcast.Load(), t.directed.Load(), t.guests.Load(), t.heard.Load(), t.noise.Load())
	fmt.Printf("losses               %d; out of order %d, stray %d, unexpected %d\n", found.Lost, found.Disordered, found.Stray, found.Cut+found.Garbled+found.Refused)
	fmt.Printf("files relayed        %d whole (%.1f MiB), %d of them over a lost socket of the receiver; %d given up on purpose\n",
		t.files.Load(), mib(t.fileBytes.Load()), t.resumed.Load(), t.broken.Load())
	fmt.Printf("connections          %d come and gone, %d in storms, %d frozen and cut, %d refused for their token, %d hostile\n",
		t.churned.Load(), t.stormed.Load(), t.frozen.Load(), t.refused.Load(), t.attacks.Load())
}

// printServer prints what the server says of itself, and the system of it.
func (s *soak) printServer(looks []serverFigures, base, after serverFigures, grows trends) {
	for _, kind := range []string{"drops", "refusals", "closes"} {
		fmt.Printf("%-20s %s\n", kind+" by reason", byReason(after.reasons[kind]))
	}
	fmt.Printf("consistency checks   %d clean\n", s.server.checked)
	with := ""
	if s.race {
		with = ", with the race detector's own memory"
	}
	fmt.Printf("resident set         %.1f MiB at the start, %.1f to %.1f under load, slope %+.2f MiB per hour%s\n",
		mib(base.rss), least(looks), most(looks), grows.rss, with)
	fmt.Printf("memory of Go         %.1f MiB at the start, %.1f at the end, slope %+.2f MiB per hour\n", base.runtime, after.runtime, grows.runtime)
	fmt.Printf("goroutines           %.0f at the start, slope %+.1f per hour, %.0f after everybody had left\n",
		base.goroutines, grows.goroutines, after.goroutines)
}

// byReason lists the counters that are not zero.
func byReason(counters map[string]float64) string {
	var parts []string
	for reason, n := range counters {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s %.0f", reason, n))
		}
	}
	if parts == nil {
		return "none"
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// slope is how much a figure grows per hour, by least squares, without the first fifth of the looks.
func slope(looks []serverFigures, figure func(serverFigures) float64) float64 {
	looks = looks[len(looks)/5:]
	var n, sx, sy, sxx, sxy float64
	for _, f := range looks {
		x, y := f.at.Sub(looks[0].at).Hours(), figure(f)
		n, sx, sy, sxx, sxy = n+1, sx+x, sy+y, sxx+x*x, sxy+x*y
	}
	if d := n*sxx - sx*sx; d > 0 {
		return (n*sxy - sx*sy) / d
	}
	return 0
}

func least(looks []serverFigures) float64 {
	var low int64
	for i, f := range looks {
		if i == 0 || f.rss < low {
			low = f.rss
		}
	}
	return mib(low)
}

func most(looks []serverFigures) float64 {
	var high int64
	for _, f := range looks {
		high = max(high, f.rss)
	}
	return mib(high)
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// pause waits; false: ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// between returns a random duration.
func between(low, high time.Duration) time.Duration {
	return low + rand.N(high-low)
}
