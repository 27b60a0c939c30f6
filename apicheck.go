package main

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// GET /api/check answers a page, or `letshare doctor`, what a browser hides when an upgrade fails: what the server makes of
// the caller's origin, token and address, and whether an upgrade would reach it.

// checkReport is the body of the answer. Texts that say nothing are empty.
type checkReport struct {
	OK        bool           `json:"ok"` // origin, token and upgrade are all well
	Origin    checkOrigin    `json:"origin"`
	Token     checkToken     `json:"token"`
	Client    checkClient    `json:"client"`
	Forwarded checkForwarded `json:"forwarded"`
	Upgrade   checkUpgraded  `json:"upgrade"`
}

// checkOrigin: received is the Origin header, cut to maxLoggedRunes; fix the line of the configuration that would admit it.
type checkOrigin struct {
	Received string `json:"received"`
	Allowed  bool   `json:"allowed"`
	Fix      string `json:"fix"`
}

// checkToken has the reason that a refused upgrade has, and a text that says by how much.
type checkToken struct {
	OK      bool   `json:"ok"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// checkClient: via is "peer", "unix", or "x-forwarded-for, hop 2 of 3", counted from the left.
type checkClient struct {
	Address string `json:"address"`
	Via     string `json:"via"`
}

// checkForwarded is the scheme and the host that the server takes for those of the page: of the request itself, or of
// X-Forwarded-Proto and -Host when a trusted proxy sent them.
type checkForwarded struct {
	Proto string `json:"proto"`
	Host  string `json:"host"`
}

// checkUpgraded has one of the upgrade reasons below.
type checkUpgraded struct {
	OK     bool   `json:"ok"`
	Reason string `json:"reason"`
}

// What the server can know about an upgrade from a request that is none. Empty: this request asked for an upgrade,
// and that arrived.
const (
	upgradeNotTested      = "not_tested"      // ok: nothing speaks against it, but the request asked for no upgrade
	upgradeHTTP10         = "http_1_0"        // the proxy speaks HTTP/1.0 to the server, which has no upgrades
	upgradeHeadersRemoved = "headers_removed" // the caller, or its address a moment ago, asked for an upgrade and the headers did not arrive
	upgradeDraining       = "draining"        // the server is stopping
)

// probeUpgrade is what ?probe= says when the caller has sent the headers of an upgrade.
const probeUpgrade = "upgrade"

// refuseTooManyChecks answers whoever asks too often.
var refuseTooManyChecks = &Refusal{http.StatusTooManyRequests, RateLimited, "too many checks from your address, try again in a minute"}

// serveCheck answers /api/check. Any page may read the answer, for a page that may not connect needs it most: it holds
// nothing that the caller has not sent itself, no cookie is asked for, and credentials are not allowed.
func (s *Server) serveCheck(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Add("Vary", "Origin")
	if asking := r.Header.Get("Origin"); asking != "" {
		header.Set("Access-Control-Allow-Origin", asking)
		header.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, OPTIONS")
		header.Set("Access-Control-Allow-Headers", "Authorization")
		header.Set("Access-Control-Max-Age", "600")
	}
	if r.Header.Get("Upgrade") != "" {
		// What was asked to be an upgrade and is none: no proxy shall take the connection for a tunnel.
		header.Set("Connection", "close")
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost: // of a page of the server's own, a browser tells the origin with a POST alone
	case http.MethodOptions:
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		header.Set("Allow", "GET, HEAD, POST, OPTIONS")
		answerRefusal(w, refuseMethod)
		return
	}
	if !s.checks.take(s.authenticator().ClientAddress(r), s.clock()) {
		s.counters.refuse(RateLimited)
		header.Set("Retry-After", checkRetryAfter)
		answerRefusal(w, refuseTooManyChecks)
		return
	}
	answerJSON(w, http.StatusOK, s.check(r, time.Now()))
}

// check looks at a request as an upgrade would be looked at.
func (s *Server) check(r *http.Request, now time.Time) *checkReport {
	report := &checkReport{
		Client:  s.authenticator().describeClient(r),
		Token:   s.authenticator().describeToken(r, now),
		Upgrade: s.describeUpgrade(r),
	}
	report.Origin.Allowed, report.Origin.Received, report.Origin.Fix = s.authenticator().CheckOrigin(r)
	if own, known := s.authenticator().ownOrigin(r); known {
		report.Forwarded = checkForwarded{own.scheme, strings.TrimPrefix(own.String(), own.scheme+"://")}
	}
	report.OK = report.Origin.Allowed && report.Token.OK && report.Upgrade.OK
	return report
}

// describeToken says what an upgrade would say of the token, and the numbers and times that only the log has otherwise:
// whoever holds the token can read them in it.
func (a *Authenticator) describeToken(r *http.Request, now time.Time) checkToken {
	identity, refusal, detail := a.Identify(r, now)
	switch {
	case refusal != nil:
		return checkToken{Reason: refusal.Reason.String(), Message: refusal.Message + ": " + detail.Error()}
	case identity.ExpiresAt.IsZero():
		return checkToken{OK: true, Message: "accepted, does not expire"}
	}
	return checkToken{OK: true, Message: fmt.Sprintf("accepted, expires in %s", roundTime(identity.ExpiresAt.Sub(now)))}
}

// describeClient says whom the server takes the caller for, and where it read that.
func (a *Authenticator) describeClient(r *http.Request) checkClient {
	address, hop, hops := a.clientHop(r)
	client := checkClient{Via: "peer"}
	if address.IsValid() {
		client.Address = address.String()
	}
	if hop > 0 {
		client.Via = fmt.Sprintf("x-forwarded-for, hop %d of %d", hop, hops)
	} else if !address.IsValid() {
		client.Via = "unix"
	}
	return client
}

// describeUpgrade says whether an upgrade would arrive, as far as this request and the last minute of its address can tell.
func (s *Server) describeUpgrade(r *http.Request) checkUpgraded {
	arrived := hasToken(r, "Connection", "upgrade") && hasToken(r, "Upgrade", "websocket")
	switch {
	case s.draining.Load():
		return checkUpgraded{Reason: upgradeDraining}
	case !r.ProtoAtLeast(1, 1):
		return checkUpgraded{Reason: upgradeHTTP10}
	case arrived:
		return checkUpgraded{OK: true}
	case r.URL.Query().Get("probe") == probeUpgrade, s.checks.removedOfLate(s.authenticator().ClientAddress(r), s.clock()):
		return checkUpgraded{Reason: upgradeHeadersRemoved}
	}
	return checkUpgraded{OK: true, Reason: upgradeNotTested}
}

// noteUpgrade remembers of a request to the WebSocket's paths whether a proxy took the upgrade out of it. Only a WebSocket
// client sends Sec-WebSocket-Key, and proxies that drop Upgrade and Connection leave it in.
func (s *Server) noteUpgrade(r *http.Request, address netip.Addr, refusal *Refusal) {
	if refusal == refuseNoUpgrade && r.Header.Get("Sec-WebSocket-Key") != "" {
		s.checks.removed(address, s.clock())
	}
}

// checkTable bounds how often each client address may ask for a check, and knows whose upgrades arrived without
// their headers. Any goroutine; the zero table is empty.
type checkTable struct{ addressTable[checkEntry] }

// checkEntry is what is known of one address. Guarded by the table's mutex.
type checkEntry struct {
	asked   bucket
	removed time.Duration // when an upgrade last arrived without its headers; 0: never
}

// take reports whether the address may ask now, and counts it.
func (t *checkTable) take(address netip.Addr, now time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.entry(address).asked.take(rate{checksPerSecond, checkBurst}, 1, now)
}

// removed notes that an upgrade of the address arrived without its headers.
func (t *checkTable) removed(address netip.Addr, now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entry(address).removed = max(now, 1)
}

// removedOfLate reports whether one did within checkMemory.
func (t *checkTable) removedOfLate(address netip.Addr, now time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.entry(address).removed
	return at != 0 && now-at < checkMemory
}
