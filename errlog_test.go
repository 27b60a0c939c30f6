package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lockedBuffer is what a wrapped handler prints to; the log's goroutine and a test share it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// lines returns what was printed, without times, so that tests can name it whole.
func (b *lockedBuffer) lines() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.FieldsFunc(b.buf.String(), func(r rune) bool { return r == '\n' })
}

// handler returns a text handler without times that prints to b.
func (b *lockedBuffer) handler(level slog.Level) slog.Handler {
	return slog.NewTextHandler(b, &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
}

// quietHandler is a wrapped handler for tests that do not look at it.
func quietHandler() slog.Handler { return slog.NewTextHandler(io.Discard, nil) }

// logLine is what tests read of one line of the log.
type logLine struct {
	Time, Last time.Time
	Level, Msg string
	Count      int
	N          int
}

func parseLogLine(t *testing.T, line []byte) logLine {
	t.Helper()
	var e logLine
	if err := json.Unmarshal(line, &e); err != nil {
		t.Fatalf("damaged line %q: %v", line, err)
	}
	return e
}

// ringMessages returns the messages in the ring with "×count" where there were several.
func ringMessages(t *testing.T, l *ErrorLog) string {
	t.Helper()
	var out []string
	for _, raw := range l.Entries() {
		e := parseLogLine(t, raw)
		if e.Count != 0 {
			e.Msg += fmt.Sprintf("×%d", e.Count)
		}
		out = append(out, e.Msg)
	}
	return strings.Join(out, " ")
}

func TestErrorLogKeepsWarningsWhateverTheLevel(t *testing.T) {
	var printed lockedBuffer
	l := NewErrorLog("", 200, printed.handler(slog.LevelError))
	defer l.Close()
	log := slog.New(l)
	log.Debug("debug")
	log.Info("info")
	log.Warn("warning")
	log.Error("error")
	if got := ringMessages(t, l); got != "warning error" {
		t.Errorf("the ring holds %q", got)
	}
	if got := strings.Join(printed.lines(), "|"); got != "level=ERROR msg=error" {
		t.Errorf("at level error was printed %q", got)
	}
}

func TestErrorLogKeepsTheNewest(t *testing.T) {
	l := NewErrorLog("", 3, quietHandler())
	defer l.Close()
	for _, msg := range []string{"a", "b", "c", "d", "e"} {
		slog.New(l).Warn(msg)
	}
	if got := ringMessages(t, l); got != "c d e" {
		t.Errorf("of five, a ring of three holds %q", got)
	}
}

// TestErrorLogWritesAttributes: groups nest, values keep their kind, errors and stringers are text.
func TestErrorLogWritesAttributes(t *testing.T) {
	l := NewErrorLog("", 10, quietHandler())
	defer l.Close()
	log := slog.New(l).With("room", "lobby").WithGroup("client").With("reason", TokenExpired)
	log.Warn("refused", "n", 3, slog.Group("g", "on", true), "error", errors.New("no"), "list", []string{"x"})
	var got map[string]any
	if err := json.Unmarshal(l.Entries()[0], &got); err != nil {
		t.Fatal(err)
	}
	if _, err := time.Parse(time.RFC3339Nano, fmt.Sprint(got["time"])); err != nil {
		t.Error(err)
	}
	delete(got, "time")
	want := `{"client":{"error":"no","g":{"on":true},"list":["x"],"n":3,"reason":"token_expired"},"level":"WARN","msg":"refused","room":"lobby"}`
	if text, _ := json.Marshal(got); string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

// TestErrorLogCollapses plays a flood: identical warnings, others between, and the window's end.
func TestErrorLogCollapses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var printed lockedBuffer
		l := NewErrorLog("", 200, printed.handler(slog.LevelInfo))
		defer l.Close()
		log := slog.New(l)
		start := time.Now()
		for range 5 {
			log.Warn("flood", "ip", "192.0.2.1")
			log.Warn("flood", "ip", "192.0.2.2")
			time.Sleep(time.Second)
		}
		log.Warn("once")
		if got := ringMessages(t, l); got != "flood×5 flood×5 once" {
			t.Errorf("the ring holds %q", got)
		}
		if e := parseLogLine(t, l.Entries()[0]); !e.Time.Equal(start) || !e.Last.Equal(start.Add(4*time.Second)) {
			t.Errorf("first %v, last %v after the start", e.Time.Sub(start), e.Last.Sub(start))
		}
		first := []string{"level=WARN msg=flood ip=192.0.2.1", "level=WARN msg=flood ip=192.0.2.2", "level=WARN msg=once"}
		if got := printed.lines(); strings.Join(got, "|") != strings.Join(first, "|") {
			t.Errorf("in the window was printed\n%s", strings.Join(got, "\n"))
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		all := append(first, first[0]+" count=5", first[1]+" count=5")
		if got := printed.lines(); strings.Join(got, "|") != strings.Join(all, "|") {
			t.Errorf("after the window was printed\n%s", strings.Join(got, "\n"))
		}
		log.Warn("once")
		if got := ringMessages(t, l); got != "flood×5 flood×5 once once" {
			t.Errorf("a new window is a new line, the ring holds %q", got)
		}
	})
}

// TestErrorLogWindowIsTenSeconds: the window counts from the first, not from the latest.
func TestErrorLogWindowIsTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var printed lockedBuffer
		l := NewErrorLog("", 200, printed.handler(slog.LevelInfo))
		// Windows begin at 0, 10.45 and 20.9 s. No window ends in the same moment as one of the log's own ticks: which
		// of the two is printed first would be open.
		for range 25 {
			slog.New(l).Warn("again")
			time.Sleep(950 * time.Millisecond)
		}
		if got := ringMessages(t, l); got != "again×11 again×11 again×3" {
			t.Errorf("the ring holds %q", got)
		}
		l.Close()
		want := "again|again 11|again|again 11|again|again 3"
		got := strings.NewReplacer("level=WARN msg=", "", "count=", "").Replace(strings.Join(printed.lines(), "|"))
		if got != want {
			t.Errorf("printed %s, want %s", got, want)
		}
	})
}

// TestErrorLogTellsRecordsApart: a record with the same text in another group or level is another one.
func TestErrorLogTellsRecordsApart(t *testing.T) {
	l := NewErrorLog("", 200, quietHandler())
	defer l.Close()
	log := slog.New(l)
	log.Warn("m", "k", 1)
	log.Error("m", "k", 1)
	log.Warn("m", "k", 2)
	log.WithGroup("g").Warn("m", "k", 1)
	log.With("k", 1).Warn("m") // the same as the first
	if got := ringMessages(t, l); got != "m×2 m m m" {
		t.Errorf("the ring holds %q", got)
	}
}

func TestErrorLogReachesTheFileWithinTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "deep", "er", "errors.log")
		l := NewErrorLog(path, 200, quietHandler())
		log := slog.New(l)
		for n := range 300 {
			log.Warn("numbered", "n", n)
		}
		time.Sleep(2*time.Second - 1)
		synctest.Wait()
		lines := readLogFile(t, path)
		if len(lines) != 200 {
			t.Fatalf("%d lines, want 200", len(lines))
		}
		if first, last := parseLogLine(t, []byte(lines[0])).N, parseLogLine(t, []byte(lines[199])).N; first != 100 || last != 299 {
			t.Errorf("lines %d to %d, want 100 to 299", first, last)
		}
		log.Error("at the end")
		l.Close()
		if lines := readLogFile(t, path); !strings.Contains(lines[199], "at the end") {
			t.Errorf("after Close the last line is %s", lines[199])
		}
		l.Close() // harmless
	})
}

// TestErrorLogReadsBack: a start keeps the good lines of the last run and never counts on with them.
func TestErrorLogReadsBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "errors.log")
	good := func(msg string) string {
		return `{"time":"2026-01-02T03:04:05Z","level":"WARN","msg":"` + msg + `"}`
	}
	damaged := []string{`{"time":"2026-01-02T03:0`, "", "\x00\x00\x00", `[1]`, `{"msg":"no time"}`, `{"time":5,"level":"WARN"}`, "null",
		good(strings.Repeat("x", 2*maxErrorLogEntryBytes))}
	text := good("one") + "\n" + strings.Join(damaged, "\n") + "\n" + good("two") + "\r\n" + good("three")[:20]
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l := NewErrorLog(path, 200, quietHandler())
	if got := ringMessages(t, l); got != "one two" {
		t.Fatalf("read back %q", got)
	}
	slog.New(l).Warn("two")
	slog.New(l).Warn("two")
	l.Close()
	l = NewErrorLog(path, 3, quietHandler())
	defer l.Close()
	if got := ringMessages(t, l); got != "one two two×2" {
		t.Errorf("after another start the ring holds %q", got)
	}
}

// TestErrorLogReadsTheEndOfAHugeFile: of a file far over the bound, the newest lines alone are read.
func TestErrorLogReadsTheEndOfAHugeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "errors.log")
	var text bytes.Buffer
	for n := 0; text.Len() < 3*maxErrorLogBytes; n++ {
		fmt.Fprintf(&text, `{"time":"2026-01-02T03:04:05Z","level":"WARN","msg":"%d","n":%d}`+"\n", n, n)
	}
	fmt.Fprintln(&text, `{"time":"2026-01-02T03:04:05Z","level":"WARN","msg":"last"}`)
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	l := newErrorLog(path, 1<<20, quietHandler())
	if l.bytes > maxErrorLogBytes {
		t.Errorf("the ring holds %d bytes", l.bytes)
	}
	entries := l.Entries()
	if e := parseLogLine(t, entries[len(entries)-1]); e.Msg != "last" {
		t.Errorf("the newest is %q", e.Msg)
	}
}

// TestErrorLogIsBoundedInBytes: long values are cut, endless records shortened, and all together stays under the limit.
func TestErrorLogIsBoundedInBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "errors.log")
	l := newErrorLog(path, 10000, quietHandler())
	log := slog.New(l)
	long := strings.Repeat("好", 100<<10)
	log.Warn("long", "value", long)
	log.Warn("any", "value", []string{long})
	log.Warn(long)
	many := make([]any, 0, 100)
	for i := range 50 {
		many = append(many, fmt.Sprint(i), long)
	}
	log.Warn("many", many...)
	for i, raw := range l.Entries() {
		if len(raw) > maxErrorLogEntryBytes+errorLogOverhead {
			t.Errorf("entry %d has %d bytes", i, len(raw))
		}
		if !json.Valid(raw) || bytes.Contains(raw, []byte(`\ufffd`)) {
			t.Errorf("entry %d was cut inside a character: …%s", i, raw[len(raw)-20:])
		}
	}
	for n := range 1000 {
		log.Warn("long", "n", n, "value", long)
	}
	l.flush()
	info, err := os.Stat(path)
	if err != nil || info.Size() > maxErrorLogBytes {
		t.Errorf("the file has %d bytes (%v)", info.Size(), err)
	}
	if len(l.open) > len(l.entries) {
		t.Errorf("%d open windows for %d entries", len(l.open), len(l.entries))
	}
}

// TestErrorLogDroppedEntryStillTellsItsCount: an entry pushed out of the ring prints what it counted.
func TestErrorLogDroppedEntryStillTellsItsCount(t *testing.T) {
	var printed lockedBuffer
	l := NewErrorLog("", 1, printed.handler(slog.LevelInfo))
	defer l.Close()
	for _, msg := range []string{"a", "a", "b"} {
		slog.New(l).Warn(msg)
	}
	want := "level=WARN msg=a|level=WARN msg=a count=2|level=WARN msg=b"
	if got := strings.Join(printed.lines(), "|"); got != want {
		t.Errorf("printed %s, want %s", got, want)
	}
}

// TestErrorLogSurvivesItsDisk: whatever stands where the file should be is left alone and is one
// warning; the log goes on in memory and returns to the disk when the obstacle is gone.
func TestErrorLogSurvivesItsDisk(t *testing.T) {
	for name, obstruct := range map[string]func(t *testing.T, dir, path string) error{
		"a folder has the file's name":     func(_ *testing.T, _, path string) error { return os.MkdirAll(path, 0o755) },
		"a file has the folder's name":     func(_ *testing.T, dir, _ string) error { return os.WriteFile(dir, nil, 0o600) },
		"a link to what is no file":        linkToSocket,
		"the folder is a dangling symlink": func(_ *testing.T, dir, _ string) error { return os.Symlink(dir+"-gone", dir) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "logs")
				path := filepath.Join(dir, "errors.log")
				if err := obstruct(t, dir, path); err != nil {
					t.Fatal(err)
				}
				var printed lockedBuffer
				l := NewErrorLog(path, 200, printed.handler(slog.LevelInfo))
				defer l.Close()
				slog.New(l).Warn("one")
				time.Sleep(time.Minute)
				slog.New(l).Warn("two")
				time.Sleep(time.Minute)
				synctest.Wait()
				if got := printed.lines(); len(got) != 3 || !strings.Contains(got[0], "log.file") {
					t.Errorf("printed\n%s\nwant one complaint and the two warnings", strings.Join(got, "\n"))
				}
				if got := ringMessages(t, l); got != "one two" {
					t.Errorf("the ring holds %q", got)
				}
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if got := len(readLogFile(t, path)); got != 2 {
					t.Errorf("%d lines in the file after the disk came back", got)
				}
				if got := printed.lines(); !strings.Contains(got[len(got)-1], "again") {
					t.Errorf("the last line printed is %s", got[len(got)-1])
				}
			})
		})
	}
}

// linkToSocket makes path a link to a socket, which stands for a device: replacing a real one, should
// the code be broken, would harm the machine.
func linkToSocket(t *testing.T, dir, path string) error {
	short, err := os.MkdirTemp("", "ls") // a socket's path must be
	if err != nil {
		return err
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	socket := filepath.Join(short, "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		return err
	}
	listener.SetUnlinkOnClose(false)
	return errors.Join(listener.Close(), os.Mkdir(dir, 0o755), os.Symlink(socket, path))
}

// TestErrorLogLeavesNoTempFiles: neither its own nor those of a process that was killed; other files stay.
func TestErrorLogLeavesNoTempFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"errors.log.123.tmp", "other.log.123.tmp"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := NewErrorLog(filepath.Join(dir, "errors.log"), 200, quietHandler())
	slog.New(l).Warn("one")
	l.Close()
	var names []string
	files, _ := os.ReadDir(dir)
	for _, file := range files {
		names = append(names, file.Name())
	}
	if got := strings.Join(names, " "); got != "errors.log other.log.123.tmp" {
		t.Errorf("the folder holds %s", got)
	}
}

// TestErrorLogFromManyGoroutines is for the race detector; all records are counted.
func TestErrorLogFromManyGoroutines(t *testing.T) {
	l := NewErrorLog(filepath.Join(t.TempDir(), "errors.log"), 200, quietHandler())
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			log := slog.New(l).With("k", 1)
			for range 200 {
				log.Warn("same")
				l.Entries()
			}
		})
	}
	group.Wait()
	l.Close()
	total := 0
	for _, raw := range l.Entries() {
		total += max(parseLogLine(t, raw).Count, 1)
	}
	if total != 1600 {
		t.Errorf("%d of 1600 records counted", total)
	}
}

// writeErrorLogForever is the test binary's role as a victim: it writes numbered entries until it is killed.
func writeErrorLogForever(path string) {
	l := newErrorLog(path, 20, quietHandler())
	log := slog.New(l)
	n := 0
	if entries := l.Entries(); len(entries) > 0 {
		var last logLine
		json.Unmarshal(entries[len(entries)-1], &last)
		n = last.N
	}
	for {
		n++
		log.Warn("numbered", "n", n, "filler", strings.Repeat("x", 4000))
		l.flush()
	}
}

// TestErrorLogAcrossKill kills a process while it writes, again and again: the file is always whole,
// its numbers go on without a gap, and the next process continues from it.
func TestErrorLogAcrossKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "logs", "errors.log")
	last := 0
	for round := range 8 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, testBinary(t), path)
		cmd.Env = append(os.Environ(), roleEnv+"=errlog")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitForProcess(t, "new lines", func() bool {
			lines := readLogFile(t, path)
			return len(lines) > 0 && parseLogLine(t, []byte(lines[len(lines)-1])).N >= last+25+round
		})
		cmd.Process.Kill()
		cmd.Wait()
		lines := readLogFile(t, path)
		if len(lines) != 20 {
			t.Fatalf("%d lines after kill %d, want 20", len(lines), round)
		}
		last = parseLogLine(t, []byte(lines[19])).N
		for i, line := range lines {
			if n := parseLogLine(t, []byte(line)).N; n != last-19+i {
				t.Fatalf("line %d has number %d, the last %d", i, n, last)
			}
		}
	}
}

// FuzzParseLogLines: whatever the file holds, what is read back is lines that are log entries, which
// written again read the same.
func FuzzParseLogLines(f *testing.F) {
	f.Add([]byte(`{"time":"2026-01-02T03:04:05Z","level":"WARN","msg":"one"}` + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		lines := parseLogLines(text)
		for _, line := range lines {
			if !json.Valid([]byte(line)) || strings.ContainsAny(line, "\n") {
				t.Fatalf("read back as an entry: %q", line)
			}
		}
		again := parseLogLines([]byte(strings.Join(lines, "\n")))
		if strings.Join(again, "\n") != strings.Join(lines, "\n") {
			t.Fatalf("%q reads back as %q", lines, again)
		}
	})
}
