package main

import (
	"cmp"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"letshare/ably"
)

// wantsAbly reports whether an upgrade is for the Ably protocol: its clients, and no other, send one of these.
func wantsAbly(r *http.Request) bool {
	query := r.URL.Query()
	return query.Has("key") || query.Has("access_token") || query.Has("accessToken") || query.Has("v")
}

// serveAbly admits or refuses an upgrade of an Ably client whose form has been checked. A refusal is told inside the socket:
// of an HTTP status a browser's page learns nothing, and its SDK would try again for ever.
func (s *Server) serveAbly(w http.ResponseWriter, r *http.Request, rules *rules, address netip.Addr) {
	query, format := r.URL.Query(), ably.JSON
	if query.Get("format") == "msgpack" {
		format = ably.Msgpack
	}
	refuse := func(failure *ably.ErrorInfo) {
		action := ably.ActionError
		if failure.StatusCode == http.StatusServiceUnavailable {
			action = ably.ActionDisconnected // an ERROR would be for good
		}
		s.counters.refuse(reasonOfAbly(failure))
		s.log.Warn("connection refused", "protocol", "ably", "code", failure.Code, "address", address.String(), "detail", failure.Message)
		s.refuseInside(w, r, format, &ably.ProtocolMessage{Action: action, Error: failure})
	}
	identity, failure := s.identifyAbly(r, rules)
	if failure != nil {
		refuse(failure)
		return
	}
	if refusal := s.conns.reserve(address); refusal != nil {
		refuse(errAblyBusy)
		return
	}
	c := s.newConn(rules, address, Identity{UserID: identity.clientID})
	c.limits, c.member.dialect = rules.ably.conn, dialectAblyJSON+dialect(format)
	a := &ablyConn{
		conn: c, rules: rules.ably, format: format, channels: make(map[string]*ablyChannel),
		echo: query.Get("echo") != "false", heartbeats: query.Get("heartbeats") != "false",
	}
	a.remain = remainPresent(query.Get("remainPresentFor"), rules.ably)
	c.ably = a
	a.become(identity)
	if err := c.upgrade(w, r); err != nil {
		s.conns.cancel(address)
		s.log.Debug("handshake failed", "address", address.String(), "error", err.Error())
		return
	}
	s.begin(a, cmp.Or(query.Get("resume"), query.Get("recover")))
	s.start(c, rules)
}

// identifyAbly says who wants to connect, or why nobody does.
func (s *Server) identifyAbly(r *http.Request, rules *rules) (ablyIdentity, *ably.ErrorInfo) {
	if s.draining.Load() {
		return ablyIdentity{}, errAblyStopping
	}
	if v, err := strconv.Atoi(r.URL.Query().Get("v")); err == nil && v < 2 {
		return ablyIdentity{}, errAblyVersion
	}
	if failure := rules.ably.auth.checkOrigin(r, rules.auth); failure != nil {
		return ablyIdentity{}, failure
	}
	return rules.ably.auth.identify(r, time.Now())
}

// begin gives an upgraded connection its session, an earlier one if key is good for that, and says CONNECTED: nothing may
// precede it. Before the connection runs.
func (s *Server) begin(a *ablyConn, key string) {
	var lost *ably.ErrorInfo
	if key != "" {
		var refused bool
		if a.session, lost, refused = s.sessions.resume(key, a.conn, a.identity); refused {
			a.session = s.sessions.open(a.conn, a.identity)
			a.fail(lost)
			return
		}
	}
	if a.session == nil {
		a.session = s.sessions.open(a.conn, a.identity)
	}
	var present []string
	a.generation, present = s.sessions.joined(a.session, a.conn)
	s.account.counts.add(statConnections, 1)
	a.send(a.connected(lost))
	a.comeBack(present)
}

// refuseInside accepts the upgrade, says why there is no connection, and closes. It costs no connection's place.
func (s *Server) refuseInside(w http.ResponseWriter, r *http.Request, format ably.Format, m *ably.ProtocolMessage) {
	answer := append(acceptance(r), ablyFrame(format, m)...)
	answer = append(answer, closeFrame(1000, "")...)
	socket, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.log.Debug("handshake failed", "error", err.Error())
		return
	}
	defer s.listener.leave()
	defer socket.Close()
	socket.SetDeadline(time.Now().Add(protocolErrorLinger))
	if _, err := socket.Write(answer); err == nil {
		// A close with unread input would reset the connection, and could destroy the answer.
		io.Copy(io.Discard, socket)
	}
}
