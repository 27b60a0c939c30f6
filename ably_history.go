package main

import (
	"cmp"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"letshare/ably"
)

// ablyPast is what a request wants of a channel's past.
type ablyPast struct {
	forwards   bool
	start, end int64 // ms since 1970, both included
	limit      int   // items of one page
	from       string
	cursor     ablyCursor
}

// ablyCursor is where a page ends, and the next goes on. All of it is in the link: the server keeps nothing, and pages neither
// repeat nor miss anything while messages come and go. The zero value is the beginning.
type ablyCursor struct {
	series string // the room's; earlier ones of its will do
	number uint64 // of the publication whose item was the last of the page
	index  int    // of that item in it; wholePublication: forwards, the page ended with it
	newest uint64 // number of the newest publication when the first page was made: what came later is not part of the list
}

// wholePublication is an index behind all.
const wholePublication = math.MaxInt32

// String is the cursor as it stands in links.
func (c ablyCursor) String() string {
	return c.series + "." + strconv.FormatUint(c.number, 10) + "." + strconv.Itoa(c.index) + "." + strconv.FormatUint(c.newest, 10)
}

// parseAblyCursor reads what String wrote.
func parseAblyCursor(text string) (c ablyCursor, ok bool) {
	parts := strings.Split(text, ".")
	if len(parts) != 4 || parts[0] == "" || len(parts[0]) > maxAblyIDBytes {
		return c, false
	}
	number, err1 := strconv.ParseUint(parts[1], 10, 64)
	index, err2 := strconv.ParseUint(parts[2], 10, 31)
	newest, err3 := strconv.ParseUint(parts[3], 10, 64)
	return ablyCursor{parts[0], number, int(index), newest}, err1 == nil && err2 == nil && err3 == nil
}

// parseAblyPast reads the query of a request for history.
func parseAblyPast(query url.Values) (h ablyPast, problem *ably.ErrorInfo) {
	switch query.Get("direction") {
	case "forwards":
		h.forwards = true
	case "backwards", "":
	default:
		return h, errAblyQuery
	}
	h.end = math.MaxInt64
	for name, to := range map[string]*int64{"start": &h.start, "end": &h.end} {
		if text := query.Get(name); text != "" {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil || n < 0 {
				return h, errAblyQuery
			}
			*to = n
		}
	}
	if h.start > h.end {
		return h, errAblyQuery
	}
	if h.limit, problem = ablyLimit(query); problem != nil {
		return h, problem
	}
	h.from = query.Get("from_serial")
	if text := query.Get("cursor"); text != "" {
		var ok bool
		if h.cursor, ok = parseAblyCursor(text); !ok {
			return h, errAblyCursor
		}
	}
	return h, nil
}

// ablyLimit reads how many items one page is to have.
func ablyLimit(query url.Values) (int, *ably.ErrorInfo) {
	text := query.Get("limit")
	if text == "" {
		return defaultAblyPage, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxAblyPage {
		return 0, errAblyQuery
	}
	return n, nil
}

// ablyItem is one message of a publication.
type ablyItem struct {
	publication *publication
	index       int
	message     *ably.Message // of history: as it was by then, which does not change any more
}

// ablyPage is what a shard hands over of a channel's past: pointers to what does not change any more.
type ablyPage struct {
	items  []ablyItem
	more   bool       // there are further ones
	newest uint64     // of ablyCursor
	end    ablyCursor // of the last item
}

// page collects the items of one page from what is kept, oldest first. items is how many a publication has of the kind that is
// asked for, lost the number of the newest that is gone. Shard.
func (h *ablyPast) page(r *ablyRoom, kept []*publication, lost uint64, items func(*publication) int) (page ablyPage, problem *ably.ErrorInfo) {
	page.newest = r.count
	low, high := h.times(kept)
	after := func(number uint64) int {
		i, _ := slices.BinarySearchFunc(kept, number+1, func(p *publication, n uint64) int { return cmp.Compare(p.number, n) })
		return i
	}
	if h.from != "" {
		number, ok := r.numberOf(h.from)
		if !ok {
			return page, errAblyUnknownSerial
		}
		high = min(high, after(number))
	}
	if c := h.cursor; c.series != "" {
		switch page.newest = c.newest; {
		case !r.knows(c.series, c.number):
			return page, errAblyCursor
		case h.forwards && (c.number < lost || c.number == lost && c.index != wholePublication):
			return page, errAblyExpiredSerial // some that were to follow are gone
		case h.forwards:
			low, high = max(low, after(c.number-1)), min(high, after(c.newest))
		default:
			high = min(high, after(c.number))
		}
	}
	page.end.series = r.series
	h.collect(kept[min(low, high):high], items, &page)
	return page, nil
}

// times returns the part of kept, from low to before high, that is within start and end. Timestamps of a room never go back.
func (h *ablyPast) times(kept []*publication) (low, high int) {
	low, _ = slices.BinarySearchFunc(kept, h.start, func(p *publication, t int64) int { return cmp.Compare(p.message.Timestamp, t) })
	high, _ = slices.BinarySearchFunc(kept, h.end, func(p *publication, t int64) int {
		if p.message.Timestamp <= t {
			return -1
		}
		return 1
	})
	return low, high
}

// collect takes items in the direction that is wanted until the page is full.
func (h *ablyPast) collect(kept []*publication, items func(*publication) int, page *ablyPage) {
	bytes := 0
	page.end.newest = page.newest // as it is in the cursor of each page of the list
	for i := range kept {
		p := kept[i]
		if !h.forwards {
			p = kept[len(kept)-1-i]
		}
		n := items(p)
		if n == 0 {
			continue // it changes others, or is said of them
		}
		if len(page.items) > 0 && bytes+p.size > maxAblyPageBytes {
			page.more = true
			return
		}
		bytes += p.size
		for j := range n {
			index := j
			if !h.forwards {
				index = n - 1 - j
			}
			if h.passed(p, index) {
				continue
			}
			if len(page.items) == h.limit {
				page.more = true
				return
			}
			page.items = append(page.items, ablyItem{publication: p, index: index})
			if page.end.number, page.end.index = p.number, index; h.forwards && index == n-1 {
				page.end.index = wholePublication
			}
		}
	}
}

// passed reports whether an item of the publication in which an earlier page ended was on that page.
func (h *ablyPast) passed(p *publication, index int) bool {
	if h.cursor.series == "" || p.number != h.cursor.number {
		return false
	}
	if h.forwards {
		return index <= h.cursor.index
	}
	return index >= h.cursor.index
}

// knows reports whether a number belongs to the room's own count.
func (r *ablyRoom) knows(series string, number uint64) bool {
	_, ok := r.numberOf("-" + strconv.FormatUint(number, 10) + "@" + series)
	return ok && number > 0
}

// history answers GET /channels/C/messages.
func (q *ablyRequest) history(label string) {
	past, page, problem := q.past(label, func(h *ablyPast, r *ablyRoom) (ablyPage, *ably.ErrorInfo) {
		page, problem := h.page(r, r.kept.all(), r.lost, (*publication).originals)
		for i, item := range page.items {
			page.items[i].message = item.publication.latest(item.index)
		}
		return page, problem
	})
	if problem != nil {
		q.fail(problem)
		return
	}
	list := make([]ably.Message, len(page.items))
	for i, item := range page.items {
		list[i] = *item.message
		list[i].ConnectionID = item.publication.message.ConnectionID
	}
	q.setPageLinks("messages", past, page)
	q.answer(http.StatusOK, ably.AppendMessages(nil, q.format, list))
}

// past asks a channel for a page of its past, of whatever kind see picks.
func (q *ablyRequest) past(label string, see func(*ablyPast, *ablyRoom) (ablyPage, *ably.ErrorInfo)) (past ablyPast, page ablyPage, problem *ably.ErrorInfo) {
	name, problem := q.channelFor(label, ablyOpHistory)
	if problem == nil {
		past, problem = parseAblyPast(q.query)
	}
	if problem != nil {
		return past, page, problem
	}
	if stopped := q.look(name, func(room *Room) {
		switch {
		case room != nil && room.ably != nil:
			page, problem = see(&past, room.ably)
		case past.from != "":
			problem = errAblyUnknownSerial
		case past.cursor.series != "":
			problem = errAblyCursor
		}
	}); stopped != nil {
		problem = stopped
	}
	return past, page, problem
}

// channelFor returns the room of a channel that is named in a path, if the capability grants the operation there.
func (q *ablyRequest) channelFor(label string, op ablyOp) (room string, problem *ably.ErrorInfo) {
	name, ok := parseChannelName(label)
	switch {
	case !ok:
		return "", errAblyBadName
	case !q.identity.capability.allows(name.room, op):
		return "", errAblyNotAllowed
	case strings.HasPrefix(name.room, metaPrefix) && op != ablyOpHistory && op != ablyOpSubscribe && op != ablyOpChannelMetadata:
		return "", errAblyNotAllowed
	}
	return name.room, nil
}

// setPageLinks links a page of history with its neighbours.
func (q *ablyRequest) setPageLinks(word string, past ablyPast, page ablyPage) {
	cursor := ""
	if page.more {
		cursor = page.end.String()
	}
	q.setLinks(word, pageOf(q.query, "start", "end", "limit", "direction", "from_serial", "cursor"), cursor)
}
