package main

import "time"

// The app tells its room when its page goes, but not when its socket dies: the others then keep a dead tile until they reload.
// With websocket.announce_leave_seconds the server says leave for such a user, in the app's own words, after that grace.
//
// Whoever hears it removes the user and closes a direct connection to them that may still run. Hence the grace; hence nothing
// while another socket of the user is in the room, and nothing when the server itself is what stops.
//
// A user who is missed is state of the room. A room with nobody in it misses nobody: there is no one to tell.

// leaveData is the app's own leave, but for who: the server inserts from, as into any message without it.
var leaveData = envelope{data: []byte(`{"type":"leave"}`)}

// died reports whether a connection with this ending may have left a tile behind. The app's page says leave, or unsubscribes,
// before it closes its socket; and when the server goes away everybody is told.
func (e Ending) died() bool { return e != PeerClosed && e != GoingAway }

// hasUser reports whether a member of the room, other than Ably's clients, has the identity.
func (r *Room) hasUser(identity string) bool {
	for m := range r.members {
		if m.identity == identity {
			return true
		}
	}
	return false
}

// miss notes when the room is to hear of a user's end. False: nobody is there to hear it, or the user is there still.
func (r *Room) miss(identity string, until time.Time) bool {
	if r.population() == 0 || r.hasUser(identity) {
		return false
	}
	if r.missed == nil {
		r.missed = make(map[string]time.Time)
	}
	r.missed[identity] = until
	return true
}

// missNoLonger calls say for each user whose grace is over, and misses them no more.
func (r *Room) missNoLonger(now time.Time, say func(identity string)) {
	for identity, until := range r.missed {
		if !now.Before(until) {
			delete(r.missed, identity)
			say(identity)
		}
	}
}

// died notes that a member that was in the room until now has left it by its connection's end. Shard.
func (s *shard) died(room *Room, m *Member) {
	if s.announce == 0 || s.stopping || m.dialect != dialectLetShare || !m.outbox.ended().died() || s.missed >= maxMissed {
		return
	}
	if !room.miss(m.identity, s.now.Add(s.announce)) {
		return
	}
	if s.missing == nil {
		s.missing = make(map[string]*Room)
	}
	s.missing[room.name] = room
	s.missed++
}

// returned notes that a user is in the room again: nobody is to hear of the end of an earlier socket. Shard.
func (s *shard) returned(room *Room, m *Member) {
	if _, missed := room.missed[m.identity]; missed {
		delete(room.missed, m.identity)
		s.missed--
		s.keepMissing(room)
	}
}

// keepMissing forgets what a room misses when nobody is in it any more, and the room among those that miss users when it does
// not. Shard.
func (s *shard) keepMissing(room *Room) {
	if room.missed == nil {
		return
	}
	if room.population() == 0 {
		s.missed -= len(room.missed)
		clear(room.missed)
	}
	if len(room.missed) == 0 {
		room.missed = nil
		delete(s.missing, room.name)
	}
}

// leaveTick tells the rooms of those whose grace is over. Shard.
func (s *shard) leaveTick() {
	for _, room := range s.missing {
		room.missNoLonger(s.now, func(identity string) {
			s.missed--
			s.sayLeave(room, identity)
		})
		s.keepMissing(room)
	}
}

// sayLeave publishes the app's leave in the name of a user who is not there. Shard.
func (s *shard) sayLeave(room *Room, identity string) {
	message := draftMessage(room.name, eventAll, &leaveData, identity)
	s.publish(room, &op{kind: opPublish, member: &Member{identity: identity}, room: room.name, event: eventAll, message: message})
}

// missNobody forgets everybody who is missed: leaves are announced no more, or the server stops. Shard.
func (s *shard) missNobody() {
	for _, room := range s.missing {
		room.missed = nil
	}
	s.missing, s.missed = nil, 0
}

// checkMissing compares what the rooms miss with what the shard keeps of it. Shard.
func (s *shard) checkMissing(r *shardReport) {
	users := 0
	for name, room := range s.rooms {
		users += len(room.missed)
		if (room.missed != nil) != (s.missing[name] == room) || room.missed != nil && len(room.missed) == 0 {
			r.note("room %q misses %d users, listed among those that miss any: %t", name, len(room.missed), s.missing[name] != nil)
		}
		if room.population() == 0 && len(room.missed) > 0 {
			r.note("room %q misses users, and nobody is in it", name)
		}
		for identity := range room.missed {
			if room.hasUser(identity) {
				r.note("room %q misses %q, who is there", name, identity)
			}
		}
	}
	for name := range s.missing {
		if s.rooms[name] == nil {
			r.note("room %q is listed among those that miss users, and is not there", name)
		}
	}
	if users != s.missed || users > 0 && (s.announce == 0 || s.stopping) {
		r.note("the rooms miss %d users, %d are counted, announced after %v", users, s.missed, s.announce)
	}
}
