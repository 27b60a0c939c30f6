package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"letshare/ably"
)

// ablyJournal writes the messages of persisted namespaces to a directory, so that they outlive the process. Messages are
// acknowledged before they are written: what is lost when the process is killed is what waits in the queue, usually nothing and
// never more than ablyJournalQueueBytes; when the power fails, also what was written since the last fsync, which comes every
// ablyJournalSync and at the end. What is there is whole, or is not read at all.
//
// The directory holds segments, files that only grow, of records in the order of publishing. When the queue is full or the disk
// fails, records are left out and counted; each names the one before it of its channel, so the gap shows when they are read.
type ablyJournal struct {
	// Immutable.
	folder string
	log    *slog.Logger
	limit  int64                // bytes of all segments, beside the one that is written
	keep   func() time.Duration // for how long records are of use
	lock   *os.File             // held while the journal is open
	queue  chan journalRecord   // from shards to run; never closed
	done   sync.WaitGroup       // run
	stop   chan struct{}        // closed by close

	// Atomic.
	queued  atomic.Int64  // bytes in the queue, roughly
	dropped atomic.Uint64 // records that were left out

	// Owned by run; before and after it by whoever opens and closes.
	file     *os.File         // the segment that is written; nil: none can be
	size     int64            // bytes of it that are whole records
	began    time.Time        // when it was opened
	unsynced bool             // it holds bytes that a power failure takes
	failing  bool             // and it has been said
	told     uint64           // dropped, as far as it has been said
	segments []journalSegment // the others, oldest first
	number   int              // of the segment that is written
	buffer   []byte
}

// journalRecord is a publication on its way to the journal.
type journalRecord struct {
	publication *publication // whose message does not change any more
	before      string       // channelSerial of the publication before it on the channel, "" if it is the first
	size        int          // of the publication, when it was recorded
}

// journalSegment is a segment that is not written any more.
type journalSegment struct {
	path string
	size int64
	last time.Time // when it was last written to
}

// journalMark is what a clean end says of a room: every serial of these series up to the number is the room's, and nothing that
// came after it is missing.
type journalMark struct {
	Room   string            `json:"room"`
	Last   string            `json:"last"`   // channelSerial of its latest publication, "" if there was none
	Count  uint64            `json:"count"`  // of the room
	Series map[string]uint64 `json:"series"` // the latest number of each
	Time   int64             `json:"time"`   // of its latest publication, ms since 1970
}

// The kinds of records, the first byte of each.
const (
	journalBegin   = 'B' // a process has begun to write
	journalMessage = 'M' // length and text of the serial before it, then the publication as a protocol message in JSON
	journalRoom    = 'R' // a journalMark in JSON
	journalEnd     = 'E' // the process has ended well: the marks before it hold
)

// journalMagic begins every segment.
const journalMagic = "letshare ably journal 1\n"

// journalHeader is the length of what stands before each record's payload: its length and its checksum, four bytes each,
// the least significant first.
const journalHeader = 8

var journalTable = crc32.MakeTable(crc32.Castagnoli)

// appendJournalRecord frames a payload, which put appends.
func appendJournalRecord(dst []byte, put func([]byte) []byte) []byte {
	begin := len(dst)
	dst = put(append(dst, make([]byte, journalHeader)...))
	payload := dst[begin+journalHeader:]
	binary.LittleEndian.PutUint32(dst[begin:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(dst[begin+4:], crc32.Checksum(payload, journalTable))
	return dst
}

// append appends the record.
func (r *journalRecord) append(dst []byte) []byte {
	return appendJournalRecord(dst, func(dst []byte) []byte {
		dst = append(dst, journalMessage)
		dst = binary.AppendUvarint(dst, uint64(len(r.before)))
		dst = append(dst, r.before...)
		return r.publication.message.Append(dst, ably.JSON)
	})
}

// openAblyJournal makes sure that the directory can be written, and by nobody else. limit is how many bytes it may take, roughly.
// Its errors name the fix.
func openAblyJournal(folder string, limit int64, keep func() time.Duration, log *slog.Logger) (*ablyJournal, error) {
	const fix = "give a directory that the server may write, or \"\" to keep messages in memory alone"
	if err := os.MkdirAll(folder, 0o750); err != nil {
		return nil, fmt.Errorf("ably.journal %q: %w; %s", folder, reasonOf(err), fix)
	}
	lock, err := os.OpenFile(filepath.Join(folder, "lock"), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("ably.journal %q: %w; %s", folder, reasonOf(err), fix)
	}
	if !lockFile(lock) {
		lock.Close()
		return nil, fmt.Errorf("ably.journal %q: another process writes there; give each its own directory", folder)
	}
	j := &ablyJournal{
		folder: folder, log: log, limit: limit, keep: keep, lock: lock,
		queue: make(chan journalRecord, ablyJournalQueue), stop: make(chan struct{}),
	}
	err = j.list()
	if err == nil {
		err = j.open()
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("ably.journal %q: %w; %s", folder, reasonOf(err), fix)
	}
	return j, nil
}

// list finds the segments that are there.
func (j *ablyJournal) list() error {
	paths, err := filepath.Glob(filepath.Join(j.folder, "*"+journalSuffix)) // in the order of their names
	if err != nil {
		return err
	}
	for _, path := range paths {
		var number int
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		if _, err := fmt.Sscanf(filepath.Base(path), "%010d"+journalSuffix, &number); err != nil {
			continue
		}
		j.number = max(j.number, number)
		j.segments = append(j.segments, journalSegment{path, info.Size(), info.ModTime()})
	}
	return nil
}

// journalSuffix ends the names of segments, which are numbered.
const journalSuffix = ".journal"

// path is that of the segment that is written.
func (j *ablyJournal) path() string {
	return filepath.Join(j.folder, fmt.Sprintf("%010d%s", j.number, journalSuffix))
}

// open begins a segment.
func (j *ablyJournal) open() error {
	j.number++
	file, err := os.OpenFile(j.path(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	if _, err = file.WriteString(journalMagic); err != nil {
		file.Close()
		os.Remove(j.path()) // a full disk needs the room
		return err
	}
	j.file, j.size, j.began, j.unsynced = file, int64(len(journalMagic)), time.Now(), true
	syncFolder(j.folder)
	return nil
}

// syncFolder makes the names in a directory outlast a power failure, where the system can do that.
func syncFolder(path string) {
	if folder, err := os.Open(path); err == nil {
		_ = folder.Sync()
		_ = folder.Close()
	}
}

// begin starts writing. Everything that was there has been read: the new segment says that marks no longer hold.
func (j *ablyJournal) begin() {
	j.write(appendJournalRecord(nil, func(dst []byte) []byte { return append(dst, journalBegin) }))
	j.sync()
	j.done.Go(j.run)
}

// record has a publication written. It never waits. Shard.
func (j *ablyJournal) record(p *publication, before string) {
	size := int64(p.size)
	if j.queued.Add(size) <= ablyJournalQueueBytes {
		select {
		case j.queue <- journalRecord{p, before, p.size}:
			return
		default:
		}
	}
	j.queued.Add(-size)
	j.dropped.Add(1)
}

// run writes until close.
func (j *ablyJournal) run() {
	ticker := time.NewTicker(ablyJournalSync)
	defer ticker.Stop()
	for {
		select {
		case record := <-j.queue:
			j.take(record)
		case <-ticker.C:
			j.sync()
			j.tidy(time.Now())
			j.tell()
		case <-j.stop:
			for len(j.queue) > 0 {
				j.take(<-j.queue)
			}
			return
		}
	}
}

// take writes a record, and with it what else waits.
func (j *ablyJournal) take(record journalRecord) {
	count, size := uint64(0), int64(0)
	j.buffer = j.buffer[:0]
	for more := true; more; {
		count++
		size += int64(record.size)
		j.buffer = record.append(j.buffer)
		if more = len(j.buffer) < ablyJournalWrite; more {
			select {
			case record = <-j.queue:
			default:
				more = false
			}
		}
	}
	if !j.write(j.buffer) {
		j.dropped.Add(count)
	}
	j.queued.Add(-size) // only now: whoever sees an empty queue finds everything in the file
	if cap(j.buffer) > 2*ablyJournalWrite {
		j.buffer = nil
	}
}

// write writes whole records. False: it could not, and none of them is there.
func (j *ablyJournal) write(records []byte) bool {
	if j.file == nil {
		return false
	}
	if _, err := j.file.Write(records); err != nil {
		_ = j.file.Truncate(j.size) // what was torn; where that fails too, the reader stops there
		j.fail(err)
		return false
	}
	j.size += int64(len(records))
	j.unsynced = true
	if j.size >= ablySegmentBytes {
		j.rotate()
	}
	return true
}

// sync brings what was written to the disk.
func (j *ablyJournal) sync() {
	if j.file == nil || !j.unsynced {
		return
	}
	if err := j.file.Sync(); err != nil {
		j.fail(err)
		return
	}
	j.unsynced = false
}

// fail gives the segment up. The next tick tries another one.
func (j *ablyJournal) fail(err error) {
	j.retire()
	if !j.failing {
		j.failing = true
		j.log.Warn("the journal cannot be written; messages of persisted namespaces are kept in memory alone until it can", "directory", j.folder, "error", err)
	}
}

// retire closes the segment and lists it with the others.
func (j *ablyJournal) retire() {
	if j.file == nil {
		return
	}
	_ = j.file.Close()
	j.file = nil
	j.segments = append(j.segments, journalSegment{j.path(), j.size, time.Now()})
}

// rotate goes on with another segment.
func (j *ablyJournal) rotate() {
	j.sync()
	j.retire()
	if err := j.open(); err != nil {
		j.fail(err)
	}
}

// tidy removes segments that are of no use any more, or too many, and goes on with another one where the last has grown old or
// could not be written.
func (j *ablyJournal) tidy(now time.Time) {
	keep := j.keep()
	switch {
	case j.file == nil:
		if err := j.open(); err != nil {
			j.fail(err)
			return
		}
		j.failing = false
		j.log.Info("the journal is written again", "directory", j.folder)
	case j.size > 2*int64(len(journalMagic)) && now.Sub(j.began) > max(keep/ablyJournalAge, time.Minute):
		j.rotate()
	}
	total := int64(0)
	for _, segment := range j.segments {
		total += segment.size
	}
	for len(j.segments) > 0 {
		oldest := j.segments[0]
		if total <= j.limit && now.Sub(oldest.last) <= keep {
			return
		}
		if err := os.Remove(oldest.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			j.log.Warn("an old segment of the journal cannot be removed", "path", oldest.path, "error", err)
		}
		total -= oldest.size
		j.segments = j.segments[1:]
	}
}

// tell says once in a while that records were left out.
func (j *ablyJournal) tell() {
	if dropped := j.dropped.Load(); dropped != j.told {
		j.log.Warn("messages were not written to the journal: it cannot keep up, or cannot be written", "messages", dropped-j.told, "directory", j.folder)
		j.told = dropped
	}
}

// close writes what waits, and what a clean end says. Nothing may be recorded any more.
func (j *ablyJournal) close(marks []journalMark) {
	close(j.stop)
	j.done.Wait()
	var records []byte
	for _, mark := range marks {
		text, err := json.Marshal(mark)
		if err != nil {
			continue // of strings and numbers: it cannot fail
		}
		records = appendJournalRecord(records, func(dst []byte) []byte { return append(append(dst, journalRoom), text...) })
	}
	j.write(appendJournalRecord(records, func(dst []byte) []byte { return append(dst, journalEnd) }))
	j.sync()
	j.tell()
	j.retire()
	j.lock.Close()
}
