package main

import (
	"errors"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"letshare/ably"
)

// ablyRequest is a request of Ably's REST interface on its way to its answer. Owned by its HTTP goroutine.
type ablyRequest struct {
	server   *Server
	w        http.ResponseWriter
	r        *http.Request
	rules    *rules // in force when it came
	address  netip.Addr
	query    url.Values
	format   ably.Format // of the answer
	envelope bool        // status and headers are wanted within the body: pages cannot see them all
	identity ablyIdentity
	charged  int64  // bytes of the body that are in the account
	serial   string // of the message that the path names
}

// ablyRoute is a resource with a method. Its path is that of the URL without the first slash; * is a name, # a message's serial.
type ablyRoute struct {
	method, path string
	serve        func(q *ablyRequest, name string)
	open         bool // for everybody: no credentials are looked at
}

// ablyRoutes are all there are, but for token requests, which carry their own signature.
var ablyRoutes = [...]ablyRoute{
	{http.MethodGet, "time", (*ablyRequest).time, true},
	{http.MethodGet, "stats", (*ablyRequest).stats, false},
	{http.MethodGet, "channels", (*ablyRequest).channels, false},
	{http.MethodGet, "channels/*", (*ablyRequest).channel, false},
	{http.MethodGet, "channels/*/messages", (*ablyRequest).history, false},
	{http.MethodPost, "channels/*/messages", (*ablyRequest).publish, false},
	{http.MethodGet, "channels/*/messages/#", (*ablyRequest).message, false},
	{http.MethodPatch, "channels/*/messages/#", (*ablyRequest).changeMessage, false},
	{http.MethodGet, "channels/*/messages/#/versions", (*ablyRequest).versions, false},
	{http.MethodGet, "channels/*/messages/#/annotations", (*ablyRequest).annotations, false},
	{http.MethodPost, "channels/*/messages/#/annotations", (*ablyRequest).annotateMessage, false},
	{http.MethodGet, "channels/*/presence", (*ablyRequest).presence, false},
	{http.MethodGet, "channels/*/presence/history", (*ablyRequest).presenceHistory, false},
	{http.MethodGet, "presence", (*ablyRequest).presenceBatch, false},
	{http.MethodPost, "keys/*/revokeTokens", (*ablyRequest).revoke, false},
	{http.MethodPost, "messages", (*ablyRequest).publishBatch, false},
}

// ablyAddress reports whether a path is one of Ably's REST interface, by its first segment.
func ablyAddress(urlPath string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(urlPath, "/"), "/")
	switch first {
	case "channels", "time", "keys", "stats", "messages", "presence", "push", "comet", "sse", "event-stream":
		return true
	}
	return false
}

// ablyPath splits the path of a URL, as it was sent, at its slashes: an escaped slash belongs to a name. Not ok: it cannot be
// told which were meant, or a name is not text.
func ablyPath(u *url.URL) (segments []string, ok bool) {
	escaped := u.EscapedPath()
	if u.RawPath != "" && u.RawPath != escaped {
		return nil, false // sent with characters that must be escaped: the slashes can no longer be told apart
	}
	segments = strings.Split(strings.TrimPrefix(escaped, "/"), "/")
	for i, segment := range segments {
		name, err := url.PathUnescape(segment)
		if err != nil {
			return nil, false
		}
		segments[i] = name
	}
	return segments, true
}

// findAblyRoute returns the route of a request, and the name and the serial in its path.
func findAblyRoute(method string, segments []string) (route *ablyRoute, name, serial string) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for i := range ablyRoutes {
		route := &ablyRoutes[i]
		pattern := strings.Split(route.path, "/")
		if route.method != method || len(pattern) != len(segments) {
			continue
		}
		name, serial = "", ""
		if slices.EqualFunc(pattern, segments, func(want, got string) bool {
			switch want {
			case "*":
				name = got
			case "#":
				serial = got
			default:
				return want == got
			}
			return true
		}) {
			return route, name, serial
		}
	}
	return nil, "", ""
}

// serveAblyREST answers a request for one of Ably's resources.
func (s *Server) serveAblyREST(w http.ResponseWriter, r *http.Request) {
	rules := s.rules.Load()
	if rules.ably == nil {
		answerRefusal(w, refuseNotFound)
		return
	}
	segments, ok := ablyPath(r.URL)
	if ok && len(segments) == 3 && segments[0] == "keys" && segments[2] == "requestToken" {
		s.serveAblyToken(w, r)
		return
	}
	if rules.ably.auth.cors(w, r, rules.auth) {
		return
	}
	q := &ablyRequest{server: s, w: w, r: r, rules: rules, address: rules.auth.ClientAddress(r), query: r.URL.Query()}
	defer q.charge(0)
	q.negotiate()
	var route *ablyRoute
	var name string
	if ok {
		route, name, q.serial = findAblyRoute(r.Method, segments)
	}
	if route == nil {
		q.fail(ablyAbsent(append(segments, ""))) // an address that cannot be told apart has none
		return
	}
	if problem := q.admit(route); problem != nil {
		q.fail(problem)
		return
	}
	route.serve(q, name)
}

// admit says whether who asks may ask now. What it may ask about is each resource's own business.
func (q *ablyRequest) admit(route *ablyRoute) (problem *ably.ErrorInfo) {
	if route.open {
		return nil
	}
	// First, so that guesses count too, and clients that ask again and again with a token that has expired.
	if problem = q.spend(1); problem == nil {
		q.identity, problem = q.rules.ably.auth.identify(q.r, time.Now())
	}
	return problem
}

// spend counts requests and messages. All that come from one address may do together what one connection may.
func (q *ablyRequest) spend(n int) *ably.ErrorInfo {
	if !q.server.asking.spend(q.address, q.rules.ably.messages, float64(n), q.server.clock()) {
		q.w.Header().Set("Retry-After", "1")
		return errAblyRequests
	}
	return nil
}

// spend takes n from what an address may do, and reports whether it was there.
func (t *askTable) spend(address netip.Addr, r rate, n float64, now time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.entry(address).take(r, n, now)
}

// negotiate finds out in which format the answer is wanted. Clients read what they have asked for, whatever the answer says it is.
func (q *ablyRequest) negotiate() {
	known := map[string]ably.Format{"application/x-msgpack": ably.Msgpack, "msgpack": ably.Msgpack, "application/json": ably.JSON, "json": ably.JSON}
	for kind := range strings.SplitSeq(strings.Join(q.r.Header.Values("Accept"), ","), ",") {
		kind, _, _ = strings.Cut(kind, ";")
		if format, ok := known[strings.ToLower(strings.TrimSpace(kind))]; ok {
			q.format = format
			break
		}
	}
	if format, ok := known[q.query.Get("format")]; ok {
		q.format = format
	}
	if format, ok := known[q.query.Get("envelope")]; ok && q.r.Method != http.MethodPost {
		q.format, q.envelope = format, true
	}
}

// fail answers with an error. The SDK in a page finds the error's code only in JSON, whatever it has asked for.
func (q *ablyRequest) fail(problem *ably.ErrorInfo) {
	q.server.counters.refuse(reasonOfAbly(problem))
	q.server.account.counts.request(problem)
	switch problem.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests, http.StatusServiceUnavailable:
		q.server.log.Warn("request refused", "protocol", "ably", "code", problem.Code, "address", q.address.String(), "detail", problem.Message)
	}
	format := q.format
	if q.envelope || q.r.Header.Get("Origin") != "" {
		format = ably.JSON
	}
	answerAblyError(q.w, format, problem)
}

// answer sends a body, which is in the format of the answer.
func (q *ablyRequest) answer(status int, body []byte) {
	q.server.account.counts.request(nil)
	if q.envelope {
		body = envelop(q.format, status, q.w.Header().Get("Link"), body)
		status = http.StatusOK
	}
	answerAbly(q.w, q.format, status, body)
}

// envelop puts status and links beside a body.
func envelop(format ably.Format, status int, link string, body []byte) []byte {
	headers := ably.Object{}
	if link != "" {
		headers = append(headers, ably.Field{Key: "link", Value: link})
	}
	if format == ably.JSON {
		return ably.AppendValue(nil, format, ably.Object{
			{Key: "statusCode", Value: status}, {Key: "headers", Value: headers}, {Key: "response", Value: ably.RawJSON(body)},
		})
	}
	const mapOfThree = 0x83
	dst := append(make([]byte, 0, len(body)+len(link)+64), mapOfThree)
	for _, value := range []any{"statusCode", status, "headers", headers, "response"} {
		dst = ably.AppendValue(dst, format, value)
	}
	return append(dst, body...)
}

// body reads what was sent, and says in which format it is. Its bytes are in the account until the answer has been sent.
func (q *ablyRequest) body() (body []byte, format ably.Format, problem *ably.ErrorInfo) {
	kind, _, _ := strings.Cut(q.r.Header.Get("Content-Type"), ";")
	switch strings.ToLower(strings.TrimSpace(kind)) {
	case "application/x-msgpack":
		format = ably.Msgpack
	case "application/json", "":
	default:
		return nil, format, errAblyContentType
	}
	limit := q.rules.ably.conn.maxMessage
	if q.r.ContentLength > int64(limit) {
		return nil, format, q.overflow()
	}
	for {
		if len(body) == cap(body) {
			if q.server.budget.over() {
				return nil, format, errAblyMemory
			}
			body = slices.Grow(body, max(len(body), ablyBodyStep))
			q.charge(int64(cap(body)))
		}
		n, err := q.r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case len(body) > limit:
			return nil, format, q.overflow()
		case errors.Is(err, io.EOF):
			return body, format, nil
		case err != nil:
			return nil, format, errAblyCutOff
		}
	}
}

// overflow is the answer to a body that is too large. Some of the rest is read and thrown away: a client that is cut off while it
// sends may not hear the answer.
func (q *ablyRequest) overflow() *ably.ErrorInfo {
	if q.r.Header.Get("Expect") == "" { // who asks first has sent nothing
		http.NewResponseController(q.w).SetReadDeadline(time.Now().Add(protocolErrorLinger))
		io.CopyN(io.Discard, q.r.Body, ablyOverflowBytes)
	}
	return q.rules.ably.tooLarge
}

// charge sets how many bytes of the body are in the account.
func (q *ablyRequest) charge(n int64) {
	q.server.bodies.Add(n - q.charged)
	q.server.budget.total.Add(n - q.charged)
	q.charged = n
}

// look lets the shard of a channel's room run see, with the room, or nil if there is none; it must not keep it. An error: the
// server stops.
func (q *ablyRequest) look(room string, see func(*Room)) *ably.ErrorInfo {
	return q.server.askAbly(room, &ablyCall{kind: ablyLook, look: func(_ *shard, room *Room) { see(room) }})
}

// askAbly lets a room's shard carry out a call. An error: the server stops, and nothing was done. Any goroutine but a shard's.
func (s *Server) askAbly(room string, call *ablyCall) *ably.ErrorInfo {
	defer s.handshakes.end(s.handshakes.begin()) // a drain waits for what is under way, and lets nothing begin
	if s.draining.Load() {
		return errAblyStopping
	}
	done := make(chan *Refusal, 1)
	s.hub.post(op{kind: opAbly, room: room, ably: call, reply: done})
	<-done
	return nil
}

// askShards lets every shard run see. It returns when all have. An error: the server stops, and nothing was done.
func (s *Server) askShards(see func(*shard)) *ably.ErrorInfo {
	defer s.handshakes.end(s.handshakes.begin())
	if s.draining.Load() {
		return errAblyStopping
	}
	s.hub.each(see)
	return nil
}

// each lets every shard run see, one after the other in no order that matters, and returns when all have. Any goroutine but a
// shard's, before close.
func (h *Hub) each(see func(*shard)) {
	done := make(chan *Refusal, len(h.shards))
	for _, s := range h.shards {
		s.mailbox <- op{kind: opAbly, ably: &ablyCall{kind: ablyLook, look: func(s *shard, _ *Room) { see(s) }}, reply: done}
	}
	for range h.shards {
		<-done
	}
}

// time answers GET /time.
func (q *ablyRequest) time(string) {
	q.answer(http.StatusOK, ably.AppendValue(nil, q.format, []any{time.Now().UnixMilli()}))
}

// pageOf keeps what describes a page of a request's query: no credentials, above all.
func pageOf(query url.Values, names ...string) url.Values {
	page := make(url.Values)
	for _, name := range names {
		if query.Has(name) {
			page.Set(name, query.Get(name))
		}
	}
	return page
}

// setLinks says where the first page is, the current and the next: cursor "" is none. Clients take the query alone, and use it
// with the path that they know; they want the last word of that path, or any.
func (q *ablyRequest) setLinks(word string, page url.Values, cursor string) {
	link := func(rel string) string {
		return `<./` + word + `?` + page.Encode() + `>; rel="` + rel + `"`
	}
	if !page.Has("limit") {
		page.Set("limit", strconv.Itoa(defaultAblyPage)) // an empty query is no link to clients
	}
	current := link("current")
	page.Del("cursor")
	links := []string{link("first"), current}
	if cursor != "" {
		page.Set("cursor", cursor)
		links = append(links, link("next"))
	}
	q.w.Header().Set("Link", strings.Join(links, ", "))
}

// What the REST interface refuses, by Ably's numbers.
var (
	errAblyRequests    = &ably.ErrorInfo{Code: 42910, StatusCode: 429, Message: "too many requests and messages a second from this address"}
	errAblyContentType = &ably.ErrorInfo{Code: 40000, StatusCode: 400, Message: "the Content-Type must be application/json or application/x-msgpack"}
	errAblyCutOff      = &ably.ErrorInfo{Code: 40000, StatusCode: 400, Message: "the body was cut off"}
	errAblyMemory      = &ably.ErrorInfo{Code: 50003, StatusCode: 503, Message: "the server has no memory left for this now"}
	errAblyQuery       = &ably.ErrorInfo{Code: 40000, StatusCode: 400, Message: "start and end are milliseconds since 1970, start is not behind end, limit is from 1 to 1000, direction is forwards or backwards"}
	errAblyCursor      = &ably.ErrorInfo{Code: 40000, StatusCode: 400, Message: "this page is not known any more: begin with the first"}
	errAblyConnection  = &ably.ErrorInfo{Code: 40006, StatusCode: 400, Message: "the connectionKey is none of a connection here"}
	errAblyEmpty       = &ably.ErrorInfo{Code: 40013, StatusCode: 400, Message: "there is no message to publish"}
	errAblyManyMembers = &ably.ErrorInfo{Code: 40009, StatusCode: 400, Message: "too many members for one answer: ask for this channel alone"}
	errAblyBatch       = &ably.ErrorInfo{Code: 40000, StatusCode: 400, Message: "a batch names channels and messages, and not too many"}
)
