package main

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"letshare/ably"
)

// memberPage is a part of a presence set, in the order in which the members entered.
type memberPage struct {
	// What is wanted.
	after uint64 // number of the last member of the page before
	limit int    // members
	bytes int    // content; the first member may be larger
	query url.Values

	// What there is. Written by the shard, read after its answer.
	members []ably.PresenceMessage
	last    uint64 // number of the last, if more follow
}

// collect takes members from a room, nil for one that is not there. Shard.
func (p *memberPage) collect(room *Room) {
	if room == nil || room.ably == nil || room.ably.presence == nil {
		return
	}
	set, size, last := room.ably.presence, 0, uint64(0)
	for _, m := range set.order[set.after(p.after):] {
		if !p.wants(&m.item) {
			continue
		}
		cost := presenceCost(&m.item)
		if len(p.members) == p.limit || len(p.members) > 0 && size+cost > p.bytes {
			p.last = last
			return
		}
		p.members = append(p.members, m.item)
		size += cost
		last = m.number
	}
}

// wants reports whether the query asks for a member.
func (p *memberPage) wants(m *ably.PresenceMessage) bool {
	return (!p.query.Has("clientId") || m.ClientID == p.query.Get("clientId")) &&
		(!p.query.Has("connectionId") || m.ConnectionID == p.query.Get("connectionId"))
}

// collect has a channel's shard fill a page, if who asks may subscribe there.
func (q *ablyRequest) collect(label string, page *memberPage) *ably.ErrorInfo {
	room, problem := q.channelFor(label, ablyOpSubscribe)
	if problem == nil {
		problem = q.look(room, page.collect)
	}
	return problem
}

// presence answers GET /channels/C/presence: the members.
func (q *ablyRequest) presence(label string) {
	page := memberPage{bytes: maxAblyPageBytes, query: q.query}
	var problem *ably.ErrorInfo
	page.limit, problem = ablyLimit(q.query)
	if text := q.query.Get("cursor"); text != "" && problem == nil {
		var err error
		if page.after, err = strconv.ParseUint(text, 10, 64); err != nil {
			problem = errAblyCursor
		}
	}
	if problem == nil {
		problem = q.collect(label, &page)
	}
	if problem != nil {
		q.fail(problem)
		return
	}
	cursor := ""
	if page.last > 0 {
		cursor = strconv.FormatUint(page.last, 10)
	}
	q.setLinks("presence", pageOf(q.query, "limit", "clientId", "connectionId", "cursor"), cursor)
	q.answer(http.StatusOK, ably.AppendPresence(nil, q.format, page.members))
}

// presenceBatch answers GET /presence?channels=A,B: who is present on each. A batch has no pages: what would be too much is an
// error of that channel's.
func (q *ablyRequest) presenceBatch(string) {
	names := slices.DeleteFunc(strings.Split(q.query.Get("channels"), ","), func(s string) bool { return s == "" })
	if len(names) == 0 || len(names) > maxAblyBatchChannels {
		q.fail(errAblyBatch)
		return
	}
	if problem := q.spend(len(names) - 1); problem != nil {
		q.fail(problem)
		return
	}
	left := maxAblyPageBytes
	q.answer(http.StatusOK, ably.AppendValue(nil, q.format, batchAnswer(names, func(label string) (ably.Object, *ably.ErrorInfo) {
		page := memberPage{limit: maxAblyPage, bytes: left}
		if problem := q.collect(label, &page); problem != nil {
			return nil, problem
		}
		for i := range page.members {
			left -= presenceCost(&page.members[i])
		}
		if page.last > 0 || left < 0 {
			return nil, errAblyManyMembers
		}
		return ably.Object{
			{Key: "channel", Value: label},
			{Key: "presence", Value: ably.RawJSON(ably.AppendPresence(nil, ably.JSON, page.members))},
		}, nil
	})))
}

// presenceHistory answers GET /channels/C/presence/history.
func (q *ablyRequest) presenceHistory(label string) {
	past, page, problem := q.past(label, func(h *ablyPast, r *ablyRoom) (ablyPage, *ably.ErrorInfo) {
		events, lost := r.presence.past(), r.count
		if len(events) > 0 {
			lost = events[0].number - 1 // as far as anybody knows
		}
		return h.page(r, events, lost, func(p *publication) int { return len(p.message.Presence) })
	})
	if problem != nil {
		q.fail(problem)
		return
	}
	list := make([]ably.PresenceMessage, len(page.items))
	for i, item := range page.items {
		list[i] = item.publication.message.Presence[item.index]
	}
	q.setPageLinks("history", past, page)
	q.answer(http.StatusOK, ably.AppendPresence(nil, q.format, list))
}
