package main

import (
	"net/http"
	"slices"
	"strings"

	"letshare/ably"
)

// channel answers GET /channels/C: who is there.
func (q *ablyRequest) channel(label string) {
	room, problem := q.channelFor(label, ablyOpChannelMetadata)
	var who ablyOccupancy
	if problem == nil {
		problem = q.look(room, func(room *Room) { who = occupancyOf(room) })
	}
	if problem != nil {
		q.fail(problem)
		return
	}
	q.answer(http.StatusOK, ably.AppendValue(nil, q.format, channelDetails(room, who)))
}

// channelDetails is what clients are told of a channel's state.
func channelDetails(room string, who ablyOccupancy) ably.Object {
	return ably.Object{{Key: "channelId", Value: room}, {Key: "status", Value: ably.Object{
		{Key: "isActive", Value: who.connections > 0},
		{Key: "occupancy", Value: ably.Object{{Key: "metrics", Value: who.metrics()}}},
	}}}
}

// channels answers GET /channels: the channels that somebody is on, in alphabetical order, as far as the capability allows to
// look at them.
func (q *ablyRequest) channels(string) {
	limit, problem := ablyLimit(q.query)
	by := q.query.Get("by")
	if problem == nil && by != "" && by != "id" && by != "value" {
		problem = errAblyQuery
	}
	if problem == nil && !q.identity.capability.grants(ablyOpChannelMetadata) {
		problem = errAblyNotAllowed
	}
	var names []string
	if problem == nil {
		names, problem = q.occupied(q.query.Get("prefix"), q.query.Get("cursor"))
	}
	if problem != nil {
		q.fail(problem)
		return
	}
	cursor := ""
	if len(names) > limit {
		names, cursor = names[:limit], names[limit-1]
	}
	list := make([]any, 0, len(names))
	for _, name := range names {
		if by == "id" {
			list = append(list, name)
			continue
		}
		var who ablyOccupancy
		if problem := q.look(name, func(room *Room) { who = occupancyOf(room) }); problem != nil {
			q.fail(problem)
			return
		}
		list = append(list, channelDetails(name, who))
	}
	q.setLinks("channels", pageOf(q.query, "prefix", "limit", "by", "cursor"), cursor)
	q.answer(http.StatusOK, ably.AppendValue(nil, q.format, list))
}

// occupied returns, in order, the names that begin with prefix and come after another one.
func (q *ablyRequest) occupied(prefix, after string) (names []string, problem *ably.ErrorInfo) {
	found := make(chan []string, len(q.server.hub.shards))
	problem = q.server.askShards(func(s *shard) {
		var here []string
		for name, room := range s.rooms {
			if strings.HasPrefix(name, prefix) && name > after && room.population() > 0 && !strings.HasPrefix(name, metaPrefix) {
				here = append(here, name)
			}
		}
		found <- here
	})
	close(found)
	for here := range found {
		names = append(names, here...)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !q.identity.capability.allows(name, ablyOpChannelMetadata) })
	slices.Sort(names)
	return names, problem
}

// grants says whether the operation is granted on any channel at all.
func (c *ablyCapability) grants(op ablyOp) bool {
	return slices.ContainsFunc(c.rules, func(r ablyRule) bool { return r.ops.has(op) })
}

// occupancyOf is the occupancy of a room, or of none. Shard.
func occupancyOf(room *Room) (who ablyOccupancy) {
	if room != nil {
		who = room.occupancy()
	}
	return who
}

// metrics is the occupancy as clients get it.
func (o ablyOccupancy) metrics() ably.Object {
	return ably.Object{
		{Key: "connections", Value: o.connections},
		{Key: "publishers", Value: o.publishers},
		{Key: "subscribers", Value: o.subscribers},
		{Key: "presenceConnections", Value: o.presenceConnections},
		{Key: "presenceMembers", Value: o.presenceMembers},
		{Key: "presenceSubscribers", Value: o.presenceSubscribers},
	}
}
