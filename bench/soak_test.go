package main

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

func TestSlopeLeavesTheBeginningOut(t *testing.T) {
	var looks []serverFigures
	start := time.Now()
	for n := range 100 {
		f := serverFigures{at: start.Add(time.Duration(n) * time.Minute), goroutines: 7 + 2*float64(n)}
		if n < 20 {
			f.goroutines = 1e6 // connecting
		}
		looks = append(looks, f)
	}
	figure := func(f serverFigures) float64 { return f.goroutines }
	if got := slope(looks, figure); math.Abs(got-120) > 0.001 {
		t.Errorf("two more a minute are %.3f per hour", got)
	}
	for n := range 2 {
		if got := slope(looks[:n], figure); got != 0 {
			t.Errorf("%d looks have a slope of %g", n, got)
		}
	}
}

func TestGuestsHearGapsAndWhatIsNotForThem(t *testing.T) {
	say := func(publisher uint16, slot uint8, seq uint32) []byte {
		tpl := newTemplate(lengthPrefix, [4]byte{}, dataObject("anna", 100))
		return tpl.set(stamp{publisher, slot, seq, 0})
	}
	for name, c := range map[string]struct {
		messages [][]byte
		fault    string
	}{
		"in order, two publishers":  {[][]byte{say(1, everyone, 7), say(2, everyone, 1), say(1, everyone, 8), say(2, everyone, 2)}, ""},
		"a gap":                     {[][]byte{say(1, everyone, 7), say(1, everyone, 9)}, "came after 7"},
		"the same again":            {[][]byte{say(1, everyone, 7), say(1, everyone, 7)}, "came after 7"},
		"directed to somebody":      {[][]byte{say(1, 3, 7)}, "directed"},
		"another guest, as it goes": {[][]byte{say(guestPublisher, everyone, 3), say(guestPublisher, everyone, 1)}, ""},
		"no message of ours":        {[][]byte{[]byte(`{"type":"error"}`)}, "error"},
	} {
		ears := &guestEars{soak: &soak{}, last: map[uint16]uint32{}}
		var err error
		for _, m := range c.messages {
			err = errors.Join(err, ears.take(m))
		}
		if (err == nil) != (c.fault == "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%s: %v, want %q", name, err, c.fault)
		}
	}
}

func TestEveryByteOfAFileIsChecked(t *testing.T) {
	f := &file{id: "t-1", size: 3*relayChunk - 5, chunks: 3, seed: 9}
	if n := len(f.frame(0)); n != relayHeader+relayChunk {
		t.Errorf("the first frame has %d bytes", n)
	}
	if n := len(f.frame(2)); n != relayHeader+relayChunk-5 {
		t.Errorf("the last frame has %d bytes", n)
	}
	damaged := f.frame(1)
	damaged[len(damaged)-1] ^= 1
	other := &file{id: "t-0", size: 1, chunks: 1}
	for _, c := range []struct {
		name  string
		frame []byte
		next  int64
		after int64
		fault string
	}{
		{"the next one", f.frame(1), 1, 2, ""},
		{"one that is there already", f.frame(0), 1, 1, ""},
		{"one of an earlier file", other.frame(0), 1, 1, ""},
		{"one too early", f.frame(2), 1, 1, "came after 0"},
		{"a wrong byte", damaged, 1, 1, "not what was sent"},
		{"no header", []byte("{}"), 1, 1, "2 bytes"},
	} {
		after, err := f.take(nil, c.frame, c.next)
		if after != c.after || (err == nil) != (c.fault == "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%s: next is %d, %v; want %d, %q", c.name, after, err, c.after, c.fault)
		}
	}
}

func TestLongArguments(t *testing.T) {
	for args, want := range map[string]string{
		"soak -minutes 0":            "-minutes",
		"soak -minutes 0.1":          "-minutes",
		"soak -minutes 721":          "-minutes",
		"soak -minutes NaN":          "-minutes",
		"soak hard":                  `unknown argument "hard"`,
		"soak -connections 5":        "-connections",
		"hold -connections 49":       "-connections",
		"hold -connections 18001":    "-connections",
		"watch -url http://x":        "-url",
		"crowd -url ws://x -minutes": "-minutes",
	} {
		err := run(strings.Fields(args))
		if !errors.As(err, new(usageError)) || !strings.Contains(err.Error(), want) {
			t.Errorf("bench %s: %v, want a usage error with %q", args, err, want)
		}
	}
}

func TestReasonsAreListedInOrder(t *testing.T) {
	if got := byReason(map[string]float64{"slow_consumer": 2, "going_away": 1, "peer_closed": 0}); got != "going_away 1, slow_consumer 2" {
		t.Errorf("got %q", got)
	}
	if got := byReason(nil); got != "none" {
		t.Errorf("got %q", got)
	}
}
