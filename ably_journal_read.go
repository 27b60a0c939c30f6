package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"maps"
	"os"
	"strconv"
	"strings"
	"time"

	"letshare/ably"
)

// readJournalSegment calls visit for each record of a segment, as far as it is whole: kind is its first byte, payload the rest,
// which is scratch.
func readJournalSegment(text []byte, visit func(kind byte, payload []byte)) {
	rest, ok := bytes.CutPrefix(text, []byte(journalMagic))
	for ok && len(rest) > journalHeader {
		size := uint64(binary.LittleEndian.Uint32(rest))
		sum := binary.LittleEndian.Uint32(rest[4:])
		if rest = rest[journalHeader:]; size == 0 || size > uint64(len(rest)) {
			return // torn, or what a failed disk has left
		}
		payload := rest[:size]
		if crc32.Checksum(payload, journalTable) != sum {
			return
		}
		visit(payload[0], payload[1:])
		rest = rest[size:]
	}
}

// journalPast is what a journal tells of the past. It is read by one goroutine, and then handed to the shards.
type journalPast struct {
	oldest int64 // ms since 1970: what was published before is of no use
	limit  int64 // bytes that may be kept
	keeps  func(channel string) bool

	rooms map[string]*journalPastRoom
	list  []*publication // of all rooms, in the order of publishing, those among them that are of no use after all
	head  int            // list[:head] is of no use
	size  int64          // bytes of what is of use
	marks []journalMark  // since the process that wrote them began
	clean bool           // the last process ended well
}

// journalPastRoom is what a journal tells of one room.
type journalPastRoom struct {
	first int    // place in list of its first publication that is of use
	size  int64  // bytes of those that are
	last  string // channelSerial of its latest
	count uint64
	lost  uint64 // as of ablyRoom
	time  int64  // of the latest
	// former are the series whose serials are still good, up to a number.
	former map[string]uint64
}

// read reads what the journal held when it was opened.
func (j *ablyJournal) read(past *journalPast) {
	past.rooms = make(map[string]*journalPastRoom)
	for _, segment := range j.segments {
		text, err := os.ReadFile(segment.path)
		if err != nil {
			j.log.Warn("a segment of the journal cannot be read", "path", segment.path, "error", err)
			continue
		}
		readJournalSegment(text, past.visit)
	}
	past.settle()
}

// visit takes one record.
func (h *journalPast) visit(kind byte, payload []byte) {
	h.clean = kind == journalEnd
	switch kind {
	case journalBegin:
		h.marks = nil
	case journalRoom:
		var mark journalMark
		if json.Unmarshal(payload, &mark) == nil && len(mark.Series) <= maxAblyFormer+1 {
			h.marks = append(h.marks, mark)
		}
	case journalMessage:
		size, n := binary.Uvarint(payload)
		if n <= 0 || size > uint64(len(payload)-n) {
			return
		}
		before := string(payload[n : n+int(size)])
		if m, err := ably.Decode(ably.JSON, payload[n+int(size):]); err == nil {
			h.take(before, &m)
		}
	}
}

// take takes one publication.
func (h *journalPast) take(before string, m *ably.ProtocolMessage) {
	number, ok := serialNumber(m.ChannelSerial)
	if !ok || len(m.Messages)+len(m.Annotations) == 0 || !m.Channel.OK || !h.keeps(m.Channel.V) {
		return
	}
	room := h.rooms[m.Channel.V]
	if room == nil || room.last != before {
		// What is known of the room before this, if anything, does not join on: it is as if it had never been.
		lost, _ := serialNumber(before)
		if room != nil {
			h.size -= room.size
		}
		room = &journalPastRoom{first: len(h.list), lost: lost}
		h.rooms[m.Channel.V] = room
	}
	room.last, room.count, room.time = m.ChannelSerial, number, m.Timestamp
	if m.Timestamp < h.oldest {
		h.size -= room.size
		room.lost, room.first, room.size = number, len(h.list), 0
		return
	}
	p := &publication{number: number, message: *m}
	p.size = p.cost()
	h.list = append(h.list, p)
	h.size += int64(p.size)
	room.size += int64(p.size)
	for h.size > h.limit {
		h.dropOldest()
	}
}

// of returns the room of list[i], nil if the publication is of no use.
func (h *journalPast) of(i int) *journalPastRoom {
	if room := h.rooms[h.list[i].message.Channel.V]; i >= room.first {
		return room
	}
	return nil
}

// dropOldest drops the oldest publication of all.
func (h *journalPast) dropOldest() {
	if room := h.of(h.head); room != nil {
		p := h.list[h.head]
		h.size -= int64(p.size)
		room.size -= int64(p.size)
		room.lost, room.first = p.number, h.head+1
	}
	h.head++
}

// settle looks at the marks when everything has been read.
func (h *journalPast) settle() {
	if !h.clean {
		return
	}
	for _, mark := range h.marks {
		if !h.keeps(mark.Room) {
			continue
		}
		room := h.rooms[mark.Room]
		if room == nil {
			// All that it ever said is gone, and known to be.
			lost, _ := serialNumber(mark.Last)
			room = &journalPastRoom{last: mark.Last, lost: lost, time: mark.Time}
			h.rooms[mark.Room] = room
		}
		if room.last == mark.Last && mark.Count >= room.count {
			room.count, room.former = mark.Count, mark.Series
		}
	}
}

// serialNumber reads the number out of a serial, whatever its series.
func serialNumber(serial string) (number uint64, ok bool) {
	times, _, found := strings.Cut(serial, "@")
	_, text, dashed := strings.Cut(times, "-")
	number, err := strconv.ParseUint(text, 10, 64)
	return number, found && dashed && err == nil
}

// recall reads the journal back into the hub, and begins to write. Nobody may use the hub yet.
func (s *Server) recall() {
	rules := s.rules.Load().ably
	past := &journalPast{
		oldest: time.Now().Add(-rules.persisted).UnixMilli(), limit: s.account.limit,
		keeps: func(channel string) bool { return rules.namespace(channel).Persisted },
	}
	s.journal.read(past)
	s.hub.each(func(shard *shard) {
		shard.now = time.Now()
		for name, room := range past.rooms {
			if s.hub.shard(name) == shard {
				shard.recallRoom(name, room)
			}
		}
		for i, p := range past.list {
			if i >= past.head && past.of(i) != nil && s.hub.shard(p.message.Channel.V) == shard {
				p.state = shard.rooms[p.message.Channel.V].ably
				shard.keepAbly(p)
				shard.recallSummary(p)
			}
		}
	})
	s.log.Info("the journal has been read", "directory", s.journal.folder, "channels", len(past.rooms), "messages", len(past.list)-past.head, "clean_end", past.clean)
	s.journal.begin()
}

// recallRoom makes a room of what the journal tells. Its serials go on in a series of their own: the earlier ones are known if the
// journal proves that nothing is missing.
func (s *shard) recallRoom(name string, past *journalPastRoom) {
	room := newRoom(name)
	s.rooms[name] = room
	s.openAbly(room)
	room.last = past.time
	state := room.ably
	state.count, state.lost, state.said, state.former = past.count, past.lost, past.last, past.former
}

// marks is what a clean end says of the shard's rooms. Shard.
func (s *shard) marks() (marks []journalMark) {
	for name, room := range s.channels.rooms {
		state := room.ably
		if s.ably == nil || !s.ably.namespace(name).Persisted || state.said == "" {
			continue
		}
		series := maps.Clone(state.former)
		if series == nil || len(series) >= maxAblyFormer {
			series = make(map[string]uint64) // those who were last here so many restarts ago begin anew
		}
		series[state.series] = state.count
		marks = append(marks, journalMark{Room: name, Last: state.said, Count: state.count, Series: series, Time: room.last})
	}
	return marks
}

// endJournal closes the journal with what the shards know. Nobody publishes any more.
func (s *Server) endJournal() {
	found := make(chan []journalMark, len(s.hub.shards))
	s.hub.each(func(shard *shard) { found <- shard.marks() })
	close(found)
	var marks []journalMark
	for here := range found {
		marks = append(marks, here...)
	}
	s.journal.close(marks)
}
