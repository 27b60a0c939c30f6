package main

import (
	"slices"
	"sync"
)

// Member is a client in the eyes of the rooms: who it is, how it speaks and where its frames go.
type Member struct {
	// Immutable.
	identity string
	dialect  dialect
	outbox   *Outbox

	mu    sync.Mutex
	left  []leftRoom // rooms that a shard has put this member out of, or never let in; taken by the read goroutine
	told  throttle   // error frames that were sent of late
	files *files     // nil until the first transfer
}

// leftRoom says that after the operation numbered seq the member was not in the room.
type leftRoom struct {
	room string
	seq  uint64
}

// files is what a member remembers of file transfers. Guarded by Member.mu.
type files struct {
	known    map[string]*knownTransfer // those it has a part in, by their id
	sending  int                       // those under way that it sends
	begun    int                       // those known that it has begun, ended or not
	answered []string                  // those whose errors were told of late; at most maxAnswered
}

// knownTransfer is what a connection must know of a transfer, since not all messages about it name the room.
type knownTransfer struct {
	room string // immutable
	ours bool   // the member has begun it; immutable
	pace bucket // bytes of frames that this member sends; read goroutine
}

// gone notes that the member is not in the room after operation seq. Shard.
func (m *Member) gone(room string, seq uint64) {
	m.mu.Lock()
	m.left = append(m.left, leftRoom{room, seq})
	m.mu.Unlock()
}

// takeGone returns what gone noted since the last call. Read goroutine.
func (m *Member) takeGone() []leftRoom {
	m.mu.Lock()
	left := m.left
	m.left = nil
	m.mu.Unlock()
	return left
}

// remembered returns the member's files, made at first use. Called with mu held.
func (m *Member) remembered() *files {
	if m.files == nil {
		m.files = &files{known: make(map[string]*knownTransfer)}
	}
	return m.files
}

// involve notes that the member has a part in a transfer of the room. An id that it knows from another room stays there. Shard.
func (m *Member) involve(id, room string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.remembered(); f.known[id] == nil {
		f.known[id] = &knownTransfer{room: room}
	}
}

// beginSending is involve for the sender of a new transfer, which it may not begin beyond its limit or twice. Shard.
func (m *Member) beginSending(id, room string, limit int) relayProblem {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.remembered()
	switch {
	case f.known[id] != nil:
		return relayDuplicate
	case limit > 0 && f.sending >= limit, f.begun >= maxRelayRemembered:
		return relayTooManyTransfers
	}
	f.known[id] = &knownTransfer{room: room, ours: true}
	f.sending++
	f.begun++
	return relayNoProblem
}

// endSending notes that a transfer of the member's is over. Shard.
func (m *Member) endSending() {
	m.mu.Lock()
	m.files.sending--
	m.mu.Unlock()
}

// forget removes what involve noted. Shard.
func (m *Member) forget(id, room string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.remembered()
	known := f.known[id]
	if known == nil || known.room != room {
		return
	}
	if known.ours {
		f.begun--
	}
	delete(f.known, id)
}

// transfer returns what the member knows of a transfer, nil if nothing. Read goroutine.
func (m *Member) transfer(id []byte) *knownTransfer {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.files == nil {
		return nil
	}
	return m.files.known[string(id)]
}

// transferRooms returns the rooms of the member's transfers. Read goroutine.
func (m *Member) transferRooms() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.files == nil {
		return nil
	}
	var rooms []string
	for _, t := range m.files.known {
		if !slices.Contains(rooms, t.room) {
			rooms = append(rooms, t.room)
		}
	}
	return rooms
}

// firstAnswer reports whether the member has not been told of an error of this transfer of late, and notes that it is. Any goroutine.
func (m *Member) firstAnswer(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.remembered()
	if slices.Contains(f.answered, id) {
		return false
	}
	if len(f.answered) == maxAnswered {
		f.answered = slices.Delete(f.answered, 0, 1)
	}
	f.answered = append(f.answered, id)
	return true
}
