package main

import (
	"strconv"
	"strings"
	"sync/atomic"

	"letshare/ably"
)

// The channels that the server itself speaks on. Clients only listen there.
const (
	metaPrefix    = "[meta]"
	metaLifecycle = metaPrefix + "channel.lifecycle" // which channels open and close
	metaStats     = metaPrefix + "stats:minute"      // the figures of each minute
)

// occupancyMetrics says which figures of a channel's occupancy are wanted: bit i is the i-th of ablyOccupancy.metrics.
type occupancyMetrics uint8

// parseOccupancy reads the channel param: metrics, for all of them, or metrics.publishers and its like, with commas between.
func parseOccupancy(text string) (wanted occupancyMetrics, ok bool) {
	all := ablyOccupancy{}.metrics()
	for name := range strings.SplitSeq(text, ",") {
		if name == "metrics" {
			wanted = 1<<len(all) - 1
			continue
		}
		found := false
		for i, metric := range all {
			if name == "metrics."+metric.Key {
				wanted |= 1 << i
				found = true
			}
		}
		if !found {
			return 0, false
		}
	}
	return wanted, true
}

// of picks the figures that are wanted.
func (w occupancyMetrics) of(o ablyOccupancy) (figures ably.Object) {
	for i, metric := range o.metrics() {
		if w>>i&1 != 0 {
			figures = append(figures, metric)
		}
	}
	return figures
}

// metaMessage is a message of the server's own.
func metaMessage(name string, data ably.Object) ably.Message {
	return ably.Message{Name: ably.Some(name), Encoding: "json",
		Data: ably.Data{Kind: ably.DataText, Bytes: ably.AppendValue(nil, ably.JSON, data)}}
}

// tellOccupancy tells an attachment how many are on the channel, if it wants to know and has not been told that already.
// It is no part of the channel's history, and takes no place in its order.
func (s *shard) tellOccupancy(state *ablyRoom, a *attachment, who ablyOccupancy) {
	if a.watches == 0 || a.granted&ably.ModeSubscribe == 0 {
		return
	}
	data := a.watches.of(who)
	message := metaMessage("[meta]occupancy", ably.Object{{Key: "metrics", Value: data}})
	if string(message.Data.Bytes) == a.told {
		return
	}
	a.told = string(message.Data.Bytes)
	message.Action = ably.MessageMeta
	state.told++
	s.put(a.member, ablyFrame(a.format(), &ably.ProtocolMessage{
		Action: ably.ActionMessage, Channel: ably.Some(a.name), Timestamp: s.now.UnixMilli(),
		ID: state.series + ":" + strconv.FormatUint(state.told, 10), Messages: []ably.Message{message},
	}))
}

// occupancyTick tells those who want to know what has changed since they were told last.
func (s *shard) occupancyTick(room *Room) {
	state := room.ably
	if !state.watched {
		return
	}
	state.watched = false
	who := room.occupancy()
	for _, a := range state.attached {
		state.watched = state.watched || a.watches != 0
		s.tellOccupancy(state, a, who)
	}
}

// metaAudience says on which of the server's own channels somebody listens. Their shards write it, anybody reads it.
type metaAudience struct {
	lifecycle, stats atomic.Bool
}

// note notes whether somebody listens on one of the channels.
func (m *metaAudience) note(channel string, somebody bool) {
	switch channel {
	case metaLifecycle:
		m.lifecycle.Store(somebody)
	case metaStats:
		m.stats.Store(somebody)
	}
}

// metaTick looks whether a channel has opened or closed since it was looked at last, and at one of the server's own whether
// anybody still listens.
func (s *shard) metaTick(room *Room) {
	if strings.HasPrefix(room.name, metaPrefix) {
		s.account.audience.note(room.name, len(room.ably.attached) > 0)
		return
	}
	if open := room.population() > 0; open != room.ably.open {
		room.ably.open = open
		s.noteLifecycle(room)
	}
}

// attachedMeta is metaTick for a room that a client has just attached to: one that is short may open and close between two ticks.
func (s *shard) attachedMeta(room *Room) {
	if strings.HasPrefix(room.name, metaPrefix) {
		s.account.audience.note(room.name, true)
	} else if !room.ably.open {
		room.ably.open = true
		s.noteLifecycle(room)
	}
}

// noteLifecycle remembers that a channel has opened or closed, until takeLifecycle. What nobody listens to, and what is too
// much, is left out.
func (s *shard) noteLifecycle(room *Room) {
	if !s.account.audience.lifecycle.Load() || len(s.channels.lifecycle) == maxLifecycleEvents {
		return
	}
	name := "channel.closed"
	if room.ably.open {
		name = "channel.opened"
	}
	s.channels.lifecycle = append(s.channels.lifecycle, metaMessage(name, channelDetails(room.name, room.occupancy())))
}

// takeLifecycle returns the events since the last time.
func (s *shard) takeLifecycle() (events []ably.Message) {
	events, s.channels.lifecycle = s.channels.lifecycle, nil
	return events
}

// tellLifecycle publishes which channels have opened and closed, for whoever listens. A shard must not wait for another one,
// so this is done between them. Sweep goroutine.
func (s *Server) tellLifecycle() {
	if !s.account.audience.lifecycle.Load() {
		return
	}
	events := make(chan []ably.Message, len(s.hub.shards))
	if s.askShards(func(shard *shard) { events <- shard.takeLifecycle() }) != nil {
		return
	}
	close(events)
	var messages []ably.Message
	for list := range events {
		messages = append(messages, list...)
	}
	s.sayMeta(metaLifecycle, messages)
}

// sayMeta publishes messages of the server's own. Any goroutine but a shard's.
func (s *Server) sayMeta(channel string, messages []ably.Message) {
	for len(messages) > 0 {
		some := messages[:min(len(messages), metaBatch)]
		messages = messages[len(some):]
		if completeIDs(some, randomText(connectionIDBytes)) != nil {
			return // they have no ids of their own, so this does not happen
		}
		call := &ablyCall{kind: ablyPublish, message: &publication{message: ably.ProtocolMessage{Action: ably.ActionMessage, Messages: some}}}
		if s.askAbly(channel, call) != nil {
			return
		}
	}
}
