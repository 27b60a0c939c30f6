package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"
)

// ErrorLog keeps the newest warnings and errors, in memory and in a file that survives the process.
// It is a slog.Handler: give it to slog.New. Every record goes on to the handler it wraps, which
// filters by a level of its own; the ring takes warnings and errors whatever that level is.
//
// Identical records (all but the time) within collapseWindow of the first are one entry with a
// "count"; the wrapped handler gets the first at once and, when the window has ended, one more with
// the "count" of all of them. All methods may be called from any goroutine, and none waits for the disk but Close.
type ErrorLog struct {
	// Handler is the root handler: the ErrorLog itself, without attributes or groups.
	slog.Handler

	// Immutable.
	file       *logFile      // nil: memory only
	maxEntries int           // lines in the ring and in the file
	next       slog.Handler  // gets what the log has to say of itself
	wake       chan struct{} // capacity 1; tells run that there is something to do; never closed
	closing    chan struct{} // closed by Close
	stopped    chan struct{} // closed by run when it returns
	closeOnce  sync.Once

	// mu guards what follows. It is held neither over I/O nor over a call of another handler.
	mu      sync.Mutex
	entries []*logEntry          // oldest first
	bytes   int                  // sum of the entries' sizes
	open    map[string]*logEntry // entries whose window is open, by body; each is in entries too
	dirty   bool                 // the file lacks something that entries has

	// failing belongs to run: the last write failed and has been complained about.
	failing bool
}

// logEntry is one line of the log. ErrorLog.mu guards it.
type logEntry struct {
	first, last time.Time // when the record was made, and the latest identical one
	body        string    // JSON object without time and count; of an entry read back, the whole line
	readBack    bool      // from an earlier run: body is complete and never collapses
	count       int       // identical records, this one included

	// While the window is open; zero afterwards, so that a closed entry is text alone.
	opened time.Time    // by the monotonic clock
	record slog.Record  // the first record, clipped
	next   slog.Handler // where the closing line goes
}

// NewErrorLog returns a log of at most maxEntries entries (1 to 10000) that wraps next. It reads
// back what the file at path holds and starts the goroutine that writes it; path "" keeps the log
// in memory only. A file that cannot be read or written is one warning to next, never a failure:
// the log then lives in memory and returns to the disk when the disk does. The caller must Close it.
func NewErrorLog(path string, maxEntries int, next slog.Handler) *ErrorLog {
	l := newErrorLog(path, maxEntries, next)
	go l.run()
	return l
}

// newErrorLog is NewErrorLog without the goroutine.
func newErrorLog(path string, maxEntries int, next slog.Handler) *ErrorLog {
	l := &ErrorLog{
		maxEntries: max(maxEntries, 1),
		next:       next,
		wake:       make(chan struct{}, 1),
		closing:    make(chan struct{}),
		stopped:    make(chan struct{}),
		open:       make(map[string]*logEntry),
	}
	l.Handler = &errorLogHandler{log: l, next: next}
	if path == "" {
		return l
	}
	l.file = &logFile{path: path}
	lines, err := l.file.read()
	for _, line := range lines {
		l.append(&logEntry{body: line, readBack: true})
	}
	if err == nil {
		err = l.file.probe()
	}
	l.report(err)
	return l
}

// Entries returns a copy of the ring as JSON objects, newest last.
func (l *ErrorLog) Entries() []json.RawMessage {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]json.RawMessage, len(l.entries))
	for i, e := range l.entries {
		out[i] = e.appendJSON(nil)
	}
	return out
}

// Close ends the open windows, writes the file and waits until that is done. Records handled
// afterwards still reach the wrapped handler and the ring, but no file. Closing twice is harmless.
func (l *ErrorLog) Close() {
	l.closeOnce.Do(func() { close(l.closing) })
	<-l.stopped
}

// run is the log's one goroutine: it sleeps until there is a record, then looks every
// errorLogInterval for windows to end and entries to write until neither is left.
func (l *ErrorLog) run() {
	defer close(l.stopped)
	tick := time.NewTicker(errorLogInterval)
	defer tick.Stop()
	for {
		tick.Stop()
		select {
		case <-l.wake:
		case <-l.closing:
		}
		tick.Reset(errorLogInterval)
		for l.busy() {
			select {
			case <-tick.C:
				l.endWindows(time.Now().Add(-collapseWindow))
				l.flush()
			case <-l.closing:
				l.endWindows(time.Now())
				l.flush()
				return
			}
		}
		select {
		case <-l.closing:
			return
		default:
		}
	}
}

// busy tells whether run has something to wait for.
func (l *ErrorLog) busy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dirty && l.file != nil || len(l.open) > 0
}

// add puts a clipped record, with its rendered body, into the ring. It returns whether the wrapped
// handler should see the record now, and the entries whose closing line is due.
func (l *ErrorLog) add(r slog.Record, body string, next slog.Handler) (first bool, ended []*logEntry) {
	now := time.Now()
	at := r.Time
	if at.IsZero() {
		at = now
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dirty = true
	if e := l.open[body]; e != nil {
		if now.Sub(e.opened) < collapseWindow {
			e.count++
			e.last = at
			return false, nil
		}
		ended = append(ended, l.end(e)...)
	}
	e := &logEntry{first: at, last: at, body: body, count: 1, opened: now, record: r, next: next}
	l.open[body] = e
	return true, append(ended, l.append(e)...)
}

// append puts an entry at the end of the ring and drops the oldest that no longer fit. It returns
// those of them that still owe a closing line. Callers hold mu (or are alone, as newErrorLog is).
func (l *ErrorLog) append(e *logEntry) (ended []*logEntry) {
	l.entries = append(l.entries, e)
	l.bytes += e.size()
	for len(l.entries) > l.maxEntries || l.bytes > maxErrorLogBytes {
		old := l.entries[0]
		l.entries[0] = nil
		l.entries = l.entries[1:]
		l.bytes -= old.size()
		if !old.opened.IsZero() {
			ended = append(ended, l.end(old)...)
		}
	}
	return ended
}

// end closes an entry's window and returns a copy that owes a closing line, if it does. Callers hold mu.
func (l *ErrorLog) end(e *logEntry) []*logEntry {
	owed := *e
	delete(l.open, e.body)
	e.opened, e.record, e.next = time.Time{}, slog.Record{}, nil
	if owed.count == 1 {
		return nil
	}
	return []*logEntry{&owed}
}

// endWindows closes every window opened at that time or before and prints the closing lines. For run alone.
func (l *ErrorLog) endWindows(opened time.Time) {
	var ended []*logEntry
	l.mu.Lock()
	if len(l.open) > 0 {
		for _, e := range l.entries {
			if !e.opened.IsZero() && !e.opened.After(opened) {
				ended = append(ended, l.end(e)...)
			}
		}
	}
	l.mu.Unlock()
	printRepeats(ended)
}

// printRepeats hands the closing lines of ended windows to the handlers that saw their first records.
func printRepeats(ended []*logEntry) {
	ctx := context.Background()
	for _, e := range ended {
		if !e.next.Enabled(ctx, e.record.Level) {
			continue
		}
		r := e.record.Clone()
		r.Time = e.last
		r.AddAttrs(slog.Int("count", e.count))
		e.next.Handle(ctx, r) // an error here has nowhere to go
	}
}

// flush writes the ring to the file if they differ. For run alone.
func (l *ErrorLog) flush() {
	l.mu.Lock()
	if l.file == nil || !l.dirty {
		l.mu.Unlock()
		return
	}
	l.dirty = false
	text := make([]byte, 0, l.bytes)
	for _, e := range l.entries {
		text = append(e.appendJSON(text), '\n')
	}
	l.mu.Unlock()

	err := l.file.replace(text)
	if err != nil {
		l.mu.Lock()
		l.dirty = true
		l.mu.Unlock()
	}
	l.report(err)
}

// report tells the wrapped handler, once for each change, that the file cannot be written or can be
// written again. It bypasses the ring: a log that complains to itself would never come to rest.
// For run alone, and newErrorLog before it.
func (l *ErrorLog) report(err error) {
	if (err != nil) == l.failing {
		return
	}
	l.failing = err != nil
	log := slog.New(l.next)
	if err != nil {
		log.Warn("the error log cannot be written and is kept in memory; check log.file and its folder", "file", l.file.path, "error", err.Error())
		return
	}
	log.Info("the error log is written again", "file", l.file.path)
}

// size is the room an entry takes in the file and, within a constant, in memory. In bytes.
func (e *logEntry) size() int {
	if e.readBack {
		return len(e.body) + 1
	}
	return len(e.body) + errorLogOverhead
}

// appendJSON appends the entry as one JSON object without line end: the time, the body, the count if there were several.
func (e *logEntry) appendJSON(dst []byte) []byte {
	if e.readBack {
		return append(dst, e.body...)
	}
	dst = append(dst, `{"time":"`...)
	dst = e.first.AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `",`...)
	dst = append(dst, e.body[1:len(e.body)-1]...)
	if e.count > 1 {
		dst = append(dst, `,"count":`...)
		dst = strconv.AppendInt(dst, int64(e.count), 10)
		dst = append(dst, `,"last":"`...)
		dst = e.last.AppendFormat(dst, time.RFC3339Nano)
		dst = append(dst, '"')
	}
	return append(dst, '}')
}

// errorLogHandler is the log as seen through one chain of With and WithGroup. Immutable.
type errorLogHandler struct {
	log   *ErrorLog
	next  slog.Handler                      // the wrapped handler after the same chain
	chain []func(slog.Handler) slog.Handler // replayed on the handler that renders an entry
}

// Enabled lets warnings and errors through for the ring; below them the wrapped handler decides.
func (h *errorLogHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn || h.next.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *errorLogHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		return h.next.Handle(ctx, r)
	}
	r = clipRecord(r)
	body, err := h.render(ctx, r)
	if err != nil {
		return fmt.Errorf("failed to render a log entry: %w", err)
	}
	first, ended := h.log.add(r, body, h.next)
	select {
	case h.log.wake <- struct{}{}:
	default: // run has not yet seen the last one
	}
	printRepeats(ended)
	if first && h.next.Enabled(ctx, r.Level) {
		return h.next.Handle(ctx, r)
	}
	return nil
}

// render returns the record as a JSON object without its time. One that is too long even with
// clipped values keeps its level and message alone.
func (h *errorLogHandler) render(ctx context.Context, r slog.Record) (string, error) {
	var buf bytes.Buffer
	var json slog.Handler = slog.NewJSONHandler(&buf, nil)
	for _, with := range h.chain {
		json = with(json)
	}
	r.Time = time.Time{}
	if err := json.Handle(ctx, r); err != nil {
		return "", err
	}
	if buf.Len() > maxErrorLogEntryBytes {
		buf.Reset()
		short := slog.NewRecord(time.Time{}, r.Level, r.Message, 0)
		short.AddAttrs(slog.Bool("truncated", true))
		if err := slog.NewJSONHandler(&buf, nil).Handle(ctx, short); err != nil {
			return "", err
		}
	}
	return string(bytes.TrimSuffix(buf.Bytes(), []byte("\n"))), nil
}

// WithAttrs implements slog.Handler.
func (h *errorLogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return h
	}
	clipped := clipAttrs(attrs)
	return h.with(func(to slog.Handler) slog.Handler { return to.WithAttrs(clipped) })
}

// WithGroup implements slog.Handler.
func (h *errorLogHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.with(func(to slog.Handler) slog.Handler { return to.WithGroup(name) })
}

// with returns the handler with one more link in its chain.
func (h *errorLogHandler) with(link func(slog.Handler) slog.Handler) slog.Handler {
	chain := append(h.chain[:len(h.chain):len(h.chain)], link)
	return &errorLogHandler{log: h.log, next: link(h.next), chain: chain}
}

// clipRecord returns the record with its values resolved to plain ones and the long ones cut:
// what is kept for a window's closing line is then bounded and cannot change under it.
func clipRecord(r slog.Record) slog.Record {
	out := slog.NewRecord(r.Time, r.Level, clipString(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(clipAttr(a))
		return true
	})
	return out
}

// clipAttrs is clipAttr for a list.
func clipAttrs(attrs []slog.Attr) []slog.Attr {
	out := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		out[i] = clipAttr(a)
	}
	return out
}

// clipAttr resolves and cuts one attribute. Numbers, times and the like stay as they are.
func clipAttr(a slog.Attr) slog.Attr {
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindString:
		v = slog.StringValue(clipString(v.String()))
	case slog.KindGroup:
		v = slog.GroupValue(clipAttrs(v.Group())...)
	case slog.KindAny:
		v = clipAny(v.Any())
	}
	return slog.Attr{Key: a.Key, Value: v}
}

// clipAny renders a value at once: what has a text becomes it, anything else its JSON.
func clipAny(v any) slog.Value {
	switch v.(type) {
	case error, fmt.Stringer:
		return slog.StringValue(clipString(fmt.Sprint(v))) // Sprint survives a nil receiver
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return slog.StringValue(clipString(fmt.Sprintf("%+v", v)))
	}
	var text string
	if json.Unmarshal(raw, &text) == nil && len(raw) > 0 && raw[0] == '"' {
		return slog.StringValue(clipString(text))
	}
	if len(raw) > maxErrorLogValueBytes {
		return slog.StringValue(clipString(string(raw)))
	}
	return slog.AnyValue(json.RawMessage(raw))
}

// clipString cuts a text to maxErrorLogValueBytes without splitting a character.
func clipString(s string) string {
	if len(s) <= maxErrorLogValueBytes {
		return s
	}
	cut := maxErrorLogValueBytes
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
