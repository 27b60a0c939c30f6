package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"letshare/ably"
)

// withJournal persists the namespace "kept" in a folder.
func withJournal(folder string) func(*Config) {
	return func(c *Config) {
		withAblyKeys(c)
		c.Ably.Namespaces = []AblyNamespace{{ID: "kept", Persisted: true}}
		c.Ably.Journal = folder
		c.Ably.MessagesPerSecond = 0
	}
}

// wantWritten waits until the journal has n messages on its way no more.
func wantWritten(t testing.TB, s *testServer) {
	t.Helper()
	for deadline := time.Now().Add(patience); s.server.journal.queued.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the journal does not write")
		}
	}
}

// copyFolder copies a journal as it stands at the moment: what a process that is killed now leaves behind.
func copyFolder(t testing.TB, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// After a restart that went well, nobody can tell: history, ids, serials and pages go on; and channels that are not persisted do not.
func TestTheJournalAcrossACleanRestart(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	s := startServer(t, withJournal(folder))
	ann := s.ably(t, "ann")
	ann.attach(t, "kept:room")
	s.rest(t, "POST", "/channels/kept:room/messages", `[{"id":"own:0","name":"one"},{"id":"own:1","name":"two","data":"AP8=","encoding":"base64"}]`)
	seen := ann.wantAction(t, ably.ActionMessage, "kept:room").ChannelSerial
	ann.say(t, ably.ProtocolMessage{Action: ably.ActionPresence, Channel: ably.Some("kept:room"), MsgSerial: ably.Some(int64(0)),
		Presence: []ably.PresenceMessage{{Action: ably.PresenceEnter, ClientID: "ann"}}})
	for {
		if m := ann.next(t); m.Action == ably.ActionPresence {
			seen = m.ChannelSerial
			break
		}
	}
	s.said(t, "kept:room", "missed")
	s.said(t, "other", "gone")
	page := s.rest(t, "GET", "/channels/kept:room/messages?limit=1", "").next(t)
	ann.close() // without a word: her presence is remembered
	s.stop()

	s = startServer(t, withJournal(folder))
	ann = s.ably(t, "ann")
	m := ann.attach(t, "kept:room", func(m *ably.ProtocolMessage) { m.ChannelSerial = seen })
	if m.Flags&ably.FlagResumed == 0 || m.Error != nil {
		t.Errorf("after the restart the serial is answered %s", m.Append(nil, ably.JSON))
	}
	ann.hears(t, "kept:room", "missed")
	again := s.rest(t, "POST", "/channels/kept:room/messages", `[{"id":"own:0","name":"one"},{"id":"own:1","name":"two"}]`)
	if a := s.all(t, "/channels/kept:room/messages", "direction=forwards"); !slices.Equal(a, []string{"one", "two \x00\xff", "missed"}) || again.status != 201 {
		t.Errorf("history is %q", a)
	}
	if rest := s.all(t, "/channels/kept:room/messages", page); !slices.Equal(rest, []string{"two \x00\xff", "one"}) {
		t.Errorf("the pages go on with %q", rest)
	}
	if a := s.all(t, "/channels/other/messages", "limit=9"); len(a) > 0 {
		t.Errorf("a channel that is not persisted has %q", a)
	}
	s.said(t, "kept:room", "new")
	if m := ann.hears(t, "kept:room", "new"); m.ChannelSerial <= seen {
		t.Errorf("the new serial %q does not come after %q", m.ChannelSerial, seen)
	}
	wantHubConsistent(t, s)
	ann.close()
	s.stop()

	// Another restart later the serials of the first process are still good.
	s = startServer(t, withJournal(folder))
	ben := s.ably(t, "ben")
	if m := ben.attach(t, "kept:room", func(m *ably.ProtocolMessage) { m.ChannelSerial = seen }); m.Flags&ably.FlagResumed == 0 {
		t.Errorf("after another restart the serial is answered %s", m.Append(nil, ably.JSON))
	}
	ben.hears(t, "kept:room", "missed")
	ben.hears(t, "kept:room", "new")
}

// After a kill, what was written is there, whole; but nobody can know whether something is missing behind it: serials are unknown.
func TestTheJournalAfterAKill(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	s := startServer(t, withJournal(folder))
	ann := s.ably(t, "ann")
	ann.attach(t, "kept:room")
	var serial string
	for i := range 20 {
		s.said(t, "kept:room", fmt.Sprint(i))
		serial = ann.hears(t, "kept:room", fmt.Sprint(i)).ChannelSerial
	}
	wantWritten(t, s)
	killed := startServer(t, withJournal(copyFolder(t, folder)))
	if got := killed.all(t, "/channels/kept:room/messages", "limit=7&direction=forwards"); len(got) < 19 || got[18] != "18" {
		t.Errorf("after the kill there is %q", got)
	}
	m := killed.ably(t, "ann").attach(t, "kept:room", func(m *ably.ProtocolMessage) { m.ChannelSerial = serial })
	if m.Flags&ably.FlagResumed != 0 || m.Error == nil || m.Error.Code != 80012 {
		t.Errorf("after the kill the serial is answered %s", m.Append(nil, ably.JSON))
	}
	wantHubConsistent(t, killed)
}

// offline makes a journal that no goroutine writes: a test does what run does.
func offline(t *testing.T, folder string, limit int64) (*ablyJournal, *logBuffer) {
	t.Helper()
	log := &logBuffer{}
	j, err := openAblyJournal(folder, limit, func() time.Duration { return time.Hour }, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.retire(); j.lock.Close() })
	return j, log
}

// flush writes all that waits.
func (j *ablyJournal) flush() {
	for len(j.queue) > 0 {
		j.take(<-j.queue)
	}
}

// scribe publishes on a channel and has the journal record it.
type scribe struct {
	*ablyRoom
	journal *ablyJournal
}

func newScribe(j *ablyJournal, channel string) *scribe {
	return &scribe{newAblyRoom(channel, "s"+strings.ReplaceAll(channel, ":", "")), j}
}

func (s *scribe) says(name string) {
	p := &publication{state: s.ablyRoom, message: ably.ProtocolMessage{Action: ably.ActionMessage, Channel: ably.Some(s.name), Messages: []ably.Message{ablyText(name, "")}}}
	p.message.Messages[0].ID = s.name + name
	before := s.said
	s.apply(p, time.Now().UnixMilli())
	s.said = p.message.ChannelSerial
	s.journal.record(p, before)
}

// recalled reads a journal's folder as a server does at its start, and returns the messages of each channel.
func recalled(t *testing.T, folder string, limit int64) (map[string][]string, *journalPast) {
	t.Helper()
	j := &ablyJournal{folder: folder, log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if err := j.list(); err != nil {
		t.Fatal(err)
	}
	past := &journalPast{limit: limit, keeps: func(string) bool { return true }}
	j.read(past)
	said := make(map[string][]string)
	size := int64(0)
	for i, p := range past.list {
		if i >= past.head && past.of(i) != nil {
			said[p.message.Channel.V] = append(said[p.message.Channel.V], p.message.Messages[0].Name.V)
			size += int64(p.size)
		}
	}
	if size != past.size {
		t.Errorf("%d bytes are counted, %d are there", past.size, size)
	}
	return said, past
}

// Wherever the last segment is cut off, what is whole in it is read, and nothing else.
func TestAJournalCutOffAnywhere(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	j, _ := offline(t, folder, 1<<20)
	room := newScribe(j, "room")
	var ends []int64 // of the file after each message
	for i := range 5 {
		room.says(fmt.Sprint(i))
		j.flush()
		ends = append(ends, j.size)
	}
	text, err := os.ReadFile(j.path())
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(text) + 1 {
		for _, tail := range []string{"", "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"} { // what a file system leaves of blocks it had no time for
			past := readBytes(append(bytes.Clone(text[:n]), tail...))
			whole, _ := slices.BinarySearch(ends, int64(n)+1)
			if len(past.list) != whole || past.clean {
				t.Fatalf("cut off at %d of %d: %d messages are read, want %d; a clean end: %t", n, len(text), len(past.list), whole, past.clean)
			}
		}
	}
	// A byte that has turned takes what follows along, for nothing behind it can be trusted.
	text[ends[2]+journalHeader+20] ^= 1
	if past := readBytes(text); len(past.list) != 3 {
		t.Errorf("with a turned byte in the fourth message %d are read", len(past.list))
	}
}

// readBytes reads a segment.
func readBytes(text []byte) *journalPast {
	past := &journalPast{limit: 1 << 20, keeps: func(string) bool { return true }, rooms: make(map[string]*journalPastRoom)}
	readJournalSegment(text, past.visit)
	past.settle()
	return past
}

// A record that was left out is a loss that shows: nothing before it is told, for it would look whole.
func TestAJournalThatCannotKeepUp(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	j, log := offline(t, folder, 1<<20)
	room, other := newScribe(j, "room"), newScribe(j, "other")
	room.says("early")
	other.says("untouched")
	j.flush()
	for range ablyJournalQueue {
		newScribe(j, "flood").says("x")
	}
	room.says("left out") // never waits: the test would hang
	if j.dropped.Load() != 1 {
		t.Errorf("%d records are left out, want 1", j.dropped.Load())
	}
	j.flush()
	room.says("late")
	j.flush()
	j.tell()
	j.tell()
	if n := strings.Count(log.String(), "were not written"); n != 1 {
		t.Errorf("the loss is told %d times: %s", n, log)
	}
	said, past := recalled(t, folder, 1<<20)
	if fmt.Sprint(said["room"], said["other"]) != "[late] [untouched]" {
		t.Errorf("what is read is %q %q", said["room"], said["other"])
	}
	if lost := past.rooms["room"].lost; lost != 2 {
		t.Errorf("up to number %d is lost, want 2", lost)
	}
	if j.queued.Load() != 0 {
		t.Errorf("%d bytes are still counted in the queue", j.queued.Load())
	}
}

// When the disk fails, the journal says so once, and begins anew when it can.
func TestAJournalOnAFailingDisk(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	j, log := offline(t, folder, 1<<20)
	room := newScribe(j, "room")
	room.says("before")
	j.flush()
	j.file.Close() // every write fails from now on
	for range 3 {
		room.says("lost")
		j.flush()
	}
	if n := strings.Count(log.String(), "cannot be written;"); n != 1 || j.dropped.Load() != 3 {
		t.Errorf("the failure is told %d times, %d records are left out: %s", n, j.dropped.Load(), log)
	}
	j.tidy(time.Now())
	room.says("after")
	j.flush()
	if said, past := recalled(t, folder, 1<<20); fmt.Sprint(said["room"]) != "[after]" || past.rooms["room"].lost != 4 {
		t.Errorf("what is read is %q, lost is %d", said["room"], past.rooms["room"].lost)
	}
	if !strings.Contains(log.String(), "written again") {
		t.Errorf("the log does not tell of the end of it: %s", log)
	}
}

// Segments that are too old go, and the oldest when there are too many; what is left of a channel is known to be the end of it.
func TestAJournalIsBounded(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	j, _ := offline(t, folder, 2000)
	room := newScribe(j, "room")
	for i := range 40 {
		room.says(fmt.Sprint(i))
		j.flush()
		if i%4 == 3 {
			j.rotate()
			j.tidy(time.Now())
		}
	}
	total := int64(0)
	for _, segment := range j.segments {
		total += segment.size
	}
	said, past := recalled(t, folder, 1<<20)
	if n := len(said["room"]); total > 2000 || n == 0 || n == 40 || said["room"][n-1] != "39" || past.rooms["room"].lost != uint64(40-n) {
		t.Errorf("%d bytes are left, with %q; lost is %d", total, said["room"], past.rooms["room"].lost)
	}
	// Less memory than disk: the newest are kept, of all channels.
	if said, past := recalled(t, folder, 1500); len(said["room"]) == 0 || past.size > 1500 || said["room"][len(said["room"])-1] != "39" {
		t.Errorf("with little memory %q is read", said["room"])
	}
	j.tidy(time.Now().Add(2 * time.Hour)) // goes on with another segment
	j.tidy(time.Now().Add(4 * time.Hour))
	if said, _ := recalled(t, folder, 1<<20); len(said["room"]) > 0 {
		t.Errorf("what is too old is still there: %q", said["room"])
	}
}

// A channel that was forgotten and comes anew begins to count anew: what the journal has of its earlier life does not join on.
func TestAJournalOfAChannelThatCameAnew(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	j, _ := offline(t, folder, 1<<20)
	old := newScribe(j, "room")
	old.says("old")
	anew := newScribe(j, "room")
	anew.series = "anew"
	anew.says("new")
	j.flush()
	said, past := recalled(t, folder, 1<<20)
	if fmt.Sprint(said["room"]) != "[new]" || past.rooms["room"].lost != 0 || past.rooms["room"].count != 1 {
		t.Errorf("what is read is %q, %+v", said["room"], past.rooms["room"])
	}
}

// Marks hold only when the process that wrote them was the last, and had nothing left out.
func TestMarksOfAJournal(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end  func(*ablyJournal, *scribe)
		good bool
	}{
		"clean":           {func(j *ablyJournal, r *scribe) { j.close([]journalMark{r.mark()}) }, true},
		"killed later":    {func(j *ablyJournal, r *scribe) { j.close([]journalMark{r.mark()}); reopen(j) }, false},
		"no end":          {func(j *ablyJournal, r *scribe) {}, false},
		"something after": {func(j *ablyJournal, r *scribe) { m := r.mark(); r.says("more"); j.flush(); j.close([]journalMark{m}) }, false},
	} {
		folder := t.TempDir()
		j, _ := offline(t, folder, 1<<20)
		room := newScribe(j, "room")
		room.says("one")
		room.count += 5 // presence
		j.flush()
		c.end(j, room)
		_, past := recalled(t, folder, 1<<20)
		if got := past.rooms["room"]; (got.former["sroom"] == 6) != c.good || c.good && got.count != 6 {
			t.Errorf("%s: the room is %+v", name, got)
		}
	}
}

func (s *scribe) mark() journalMark {
	return journalMark{Room: s.name, Last: s.said, Count: s.count, Series: map[string]uint64{s.series: s.count}}
}

// reopen is another process that begins to write, and is killed.
func reopen(j *ablyJournal) {
	if err := j.open(); err == nil {
		j.write(appendJournalRecord(nil, func(dst []byte) []byte { return append(dst, journalBegin) }))
	}
}

// A directory that cannot be used is an error at the start that names it and the fix; two processes never share one.
func TestAJournalThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	file := filepath.Join(folder, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	withJournal(filepath.Join(file, "below"))(&cfg)
	cfg.Server.Port = "0"
	_, err := NewServer(&cfg, slog.New(slog.NewTextHandler(io.Discard, nil)), 0)
	if err == nil || !strings.Contains(err.Error(), "ably.journal") || !strings.Contains(err.Error(), "give a directory") {
		t.Errorf("the error is %v", err)
	}
	j, _ := offline(t, folder, 1<<20)
	if _, err := openAblyJournal(folder, 1<<20, j.keep, j.log); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second one: %v", err)
	}
	if _, err := os.Stat(filepath.Join(folder, "lock")); errors.Is(err, os.ErrNotExist) {
		t.Error("there is no lock")
	}
}

// FuzzAblyJournal throws bytes at what reads a segment, and bytes that are framed as they should be at what reads a record:
// nothing panics, and what is counted is there.
func FuzzAblyJournal(f *testing.F) {
	folder := f.TempDir()
	j, err := openAblyJournal(folder, 1<<20, func() time.Duration { return time.Hour }, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		f.Fatal(err)
	}
	room := newScribe(j, "room")
	room.says("one")
	room.says("two")
	j.flush()
	j.begin()
	j.close([]journalMark{room.mark()})
	text, err := os.ReadFile(filepath.Join(folder, "0000000001"+journalSuffix))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, segment := range [][]byte{
			text,
			appendJournalRecord([]byte(journalMagic), func(dst []byte) []byte { return append(dst, text...) }),
			appendJournalRecord([]byte(journalMagic), func(dst []byte) []byte {
				return append(append(dst, journalMessage, 0), text...)
			}),
		} {
			past := readBytes(segment)
			size := int64(0)
			for i, p := range past.list {
				if i >= past.head && past.of(i) != nil {
					size += int64(p.size)
				}
			}
			if size != past.size {
				t.Errorf("%d bytes are counted, %d are there", past.size, size)
			}
		}
	})
}

// Whatever a message is, it comes out of the journal as it went in.
func TestAJournalKeepsMessagesAsTheyAre(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	s := startServer(t, withJournal(folder))
	bodies := []string{
		`{"name":"","data":"text 深 \u0000"}`, `{"data":{"n":1e400,"b":12345678901234567890,"a":[1, 2]}}`, `{"data":"AP8=","encoding":"base64"}`,
		`{"data":"{\"a\":1}","encoding":"json"}`, `{"name":"x","extras":{"headers":{"k":1.50}},"clientId":"ann"}`, `{"data":"not base64","encoding":"cipher/base64"}`, `{}`,
	}
	for _, body := range bodies {
		if a := s.rest(t, "POST", "/channels/"+url.PathEscape("kept:深/x")+"/messages", body); a.status != 201 {
			t.Fatalf("%s: %d %s", body, a.status, a.body)
		}
	}
	const path = "/channels/kept:%E6%B7%B1%2Fx/messages?direction=forwards"
	before := s.rest(t, "GET", path, "")
	s.stop()
	s = startServer(t, withJournal(folder))
	if after := s.rest(t, "GET", path, ""); !bytes.Equal(before.body, after.body) || len(before.body) < 500 {
		t.Errorf("before\n%s\nafter\n%s", before.body, after.body)
	}
}
