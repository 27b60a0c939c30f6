package main

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"testing"
	"time"

	"letshare/ably"
)

// pastRoom is a room's state with a number of publications, that a test pages through.
type pastRoom struct {
	*ablyRoom
	now int64
	all []pastMessage // whatever was published, in order
}

type pastMessage struct {
	name   string
	time   int64
	number uint64
}

// publish publishes n messages as one, some time after those before.
func (r *pastRoom) publish(n int, later int64) {
	r.now += later
	p := &publication{state: r.ablyRoom, message: ably.ProtocolMessage{Action: ably.ActionMessage}}
	for i := range n {
		p.message.Messages = append(p.message.Messages, ablyText(fmt.Sprint(len(r.all)+i), ""))
		p.message.Messages[i].ID = fmt.Sprint(len(r.all)+i, ":0")
	}
	r.apply(p, r.now)
	r.keep(p)
	for i := range n {
		r.all = append(r.all, pastMessage{p.message.Messages[i].Name.V, r.now, p.number})
	}
}

// read asks for a page by its query and returns the names, and the query of the next page.
func (r *pastRoom) read(t *testing.T, query url.Values) (names []string, next url.Values, problem *ably.ErrorInfo) {
	t.Helper()
	h, problem := parseAblyPast(query)
	if problem != nil {
		t.Fatalf("%v: %v", query, problem)
	}
	page, problem := h.page(r.ablyRoom, r.kept.all(), r.lost, func(p *publication) int { return len(p.message.Messages) })
	for _, item := range page.items {
		names = append(names, item.publication.message.Messages[item.index].Name.V)
	}
	if page.more {
		next = pageOf(query, "start", "end", "limit", "direction", "from_serial")
		next.Set("cursor", page.end.String())
	}
	return names, next, problem
}

// However a channel grows and loses its oldest meanwhile, the pages of one list are the messages that there were at its beginning:
// in order, each once. Backwards those that are lost meanwhile are missing at the end; forwards they are an error, not a gap.
func TestPagesOfHistoryAgainstAModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		r := &pastRoom{ablyRoom: newAblyRoom("room", "series"), now: 1000}
		grow := func(n int) {
			for range n {
				r.publish(1+random.IntN(4), int64(random.IntN(3)))
			}
		}
		grow(random.IntN(40))
		query := url.Values{"limit": {strconv.Itoa(1 + random.IntN(7))}}
		forwards := random.IntN(2) == 0
		if forwards {
			query.Set("direction", "forwards")
		}
		start, end, through := int64(0), int64(1<<60), uint64(1<<60)
		if random.IntN(3) == 0 {
			start = 1000 + int64(random.IntN(60))
			query.Set("start", fmt.Sprint(start))
		}
		if random.IntN(3) == 0 {
			end = start + int64(random.IntN(60))
			query.Set("end", fmt.Sprint(end))
		}
		if random.IntN(3) == 0 && len(r.all) > 0 {
			through = r.all[random.IntN(len(r.all))].number
			query.Set("from_serial", fmt.Sprintf("1-%d@series", through))
		}
		var want []string
		for _, m := range r.all {
			if m.time >= start && m.time <= end && m.number <= through {
				want = append(want, m.name)
			}
		}
		if !forwards {
			slices.Reverse(want)
		}
		var got []string
		for query != nil {
			names, next, problem := r.read(t, query)
			if problem != nil && (!forwards || problem.Code != 90003) {
				t.Fatalf("seed %d: %v", seed, problem)
			}
			if problem != nil {
				if !slices.Equal(got, want[:len(got)]) {
					t.Errorf("seed %d: before the error came %q, want the beginning of %q", seed, got, want)
				}
				want = got
				break
			}
			if got = append(got, names...); len(names) > 7 {
				t.Fatalf("seed %d: a page of %d", seed, len(names))
			}
			query = next
			grow(random.IntN(3))
			for range random.IntN(3) {
				if r.kept.len() > 0 {
					r.forgetOldest()
				}
			}
		}
		lost := len(want) - len(got) // of the oldest, while a list went backwards
		if lost < 0 || !slices.Equal(got, want[:len(got)]) || lost > 0 && r.lost == 0 {
			t.Errorf("seed %d: the pages are %q, want %q", seed, got, want)
		}
		if lost > 0 {
			i := slices.IndexFunc(r.all, func(m pastMessage) bool { return m.name == want[len(got)] })
			if r.all[i].number > r.lost {
				t.Errorf("seed %d: message %q is kept and stands on no page", seed, want[len(got)])
			}
		}
	}
}

// A page with large messages is shorter than it was asked for, and links to the rest.
func TestAPageOfHistoryIsBounded(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys, func(c *Config) { c.Ably.MessagesPerSecond = 0 })
	ann := s.ably(t, "ann")
	large := make([]byte, 60<<10)
	for i := range 40 {
		ann.publish(t, "room", ably.Message{Name: ably.Some(fmt.Sprint(i)), Data: ably.Data{Kind: ably.DataBinary, Bytes: large}})
	}
	page := s.rest(t, "GET", "/channels/room/messages?limit=1000", "")
	first := page.messages(t)
	if n := len(first); n == 0 || n > maxAblyPageBytes/len(large) || page.next(t) == "" {
		t.Errorf("the first page has %d messages", n)
	}
	if all := s.all(t, "/channels/room/messages", "limit=1000"); len(all) != 40 {
		t.Errorf("all pages have %d messages", len(all))
	}
}

// One busy channel does not crowd out the past of others; what it has dropped is known to be lost, and the account is exact.
func TestOneChannelKeepsABoundedPart(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys, func(c *Config) {
		c.Ably.MessagesPerSecond = 0
		c.WebSocket.BytesPerSecond = 0
		c.WebSocket.MaxBufferedBytes = 4 << 20 // 2 MiB are kept, 512 KiB of one channel
	})
	ann := s.ably(t, "ann")
	ann.attach(t, "busy", func(m *ably.ProtocolMessage) { m.Flags = ably.ModePublish })
	early := ann.attach(t, "busy", func(m *ably.ProtocolMessage) { m.Flags = ably.ModePublish }).ChannelSerial
	ann.publish(t, "quiet", ablyText("still there", ""))
	data := string(make([]byte, 20<<10))
	for i := range 200 {
		ann.publish(t, "busy", ablyText(fmt.Sprint(i), data))
	}
	kept := s.all(t, "/channels/busy/messages", "limit=1000")
	if n := len(kept); n < 20 || n > 26 {
		t.Errorf("the busy channel keeps %d messages of 20 KiB", n)
	}
	if got := s.all(t, "/channels/quiet/messages", "limit=10"); !slices.Equal(got, []string{"still there"}) {
		t.Errorf("the quiet channel keeps %q", got)
	}
	ben := s.ably(t, "ben")
	m := ben.attach(t, "busy", func(m *ably.ProtocolMessage) { m.ChannelSerial = early })
	if m.Flags&ably.FlagResumed != 0 || m.Error == nil || m.Error.Code != 90003 {
		t.Errorf("a serial before the loss is answered %s", m.Append(nil, ably.JSON))
	}
	if held := s.server.account.held.Load(); held > s.server.account.limit {
		t.Errorf("%d bytes are kept, %d are the limit", held, s.server.account.limit)
	}
	wantHubConsistent(t, s)
}

// Rewind by number, by time and by both.
func TestRewindOfARoom(t *testing.T) {
	t.Parallel()
	r := &pastRoom{ablyRoom: newAblyRoom("room", "series")}
	for range 10 {
		r.publish(2, 1000) // at 1 s to 10 s
	}
	now := time.UnixMilli(10_000)
	for text, want := range map[string]int{"0": 0, "1": 0, "2": 1, "5": 2, "100": 10, "1s": 2, "3s": 4, "1m": 10, "0s": 1} {
		how, ok := parseRewind(text, "")
		if !ok {
			t.Fatalf("%q is no rewind", text)
		}
		if how == (rewind{}) {
			continue // no rewind at all
		}
		if got := r.rewound(how, now); len(got) != want {
			t.Errorf("rewind %s brings %d publications, want %d", text, len(got), want)
		}
	}
	if how, _ := parseRewind("3s", "4"); len(r.rewound(how, now)) != 2 {
		t.Error("rewindLimit does not limit")
	}
}

// untilAttach: history up to the serial of an attachment, with it, whatever comes later.
func TestHistoryUntilAttach(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	for i := range 5 {
		s.said(t, "room", fmt.Sprint("before ", i))
	}
	ann := s.ably(t, "ann")
	serial := ann.attach(t, "room").ChannelSerial
	s.said(t, "room", "after")
	query := "limit=2&from_serial=" + url.QueryEscape(serial)
	if got := s.all(t, "/channels/room/messages", query); fmt.Sprint(got) != "[before 4 before 3 before 2 before 1 before 0]" {
		t.Errorf("until the attachment there was %q", got)
	}
	if m := ann.hears(t, "room", "after"); m.ChannelSerial <= serial {
		t.Errorf("the serial %q does not come after %q", m.ChannelSerial, serial)
	}
}
