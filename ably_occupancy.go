package main

import "letshare/ably"

// ablyOccupancy is how many are on a channel, in the words of Ably's channel status.
type ablyOccupancy struct {
	connections         int // that are attached
	publishers          int // of them: those that may publish
	subscribers         int // those that hear messages
	presenceConnections int // those that may enter the presence set
	presenceMembers     int // members of the presence set
	presenceSubscribers int // those that hear of presence
}

// occupancy counts who is in the room. LetShare members are connections that publish and hear messages, and know no presence.
// A connection that has attached under several names counts once. Shard.
func (r *Room) occupancy() (o ablyOccupancy) {
	o.connections, o.publishers, o.subscribers = len(r.members), len(r.members), len(r.members)
	if r.ably == nil {
		return o
	}
	granted := make(map[*Member]uint64)
	for _, a := range r.ably.attached {
		granted[a.member] |= a.granted
	}
	for _, modes := range granted {
		o.connections++
		o.publishers += int(modes / ably.ModePublish & 1)
		o.subscribers += int(modes / ably.ModeSubscribe & 1)
		o.presenceConnections += int(modes / ably.ModePresence & 1)
		o.presenceSubscribers += int(modes / ably.ModePresenceSubscribe & 1)
	}
	if r.ably.presence != nil {
		o.presenceMembers = len(r.ably.presence.members)
	}
	return o
}
