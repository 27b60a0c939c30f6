package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// askCheck asks /api/check and wants a report in exactly the shape that is documented.
func (s *testServer) askCheck(t *testing.T, query string, headers ...string) (report checkReport, header http.Header) {
	t.Helper()
	request := httptest.NewRequest(http.MethodGet, "http://"+s.addr+"/api/check?"+query, nil)
	request.RequestURI = ""
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		request.Header.Add(name, value)
	}
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s %s (error %v)", answer.Status, body, err)
	}
	var shape map[string]any
	if err := json.Unmarshal(body, &shape); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	for path := range strings.FieldsSeq("ok origin.received origin.allowed origin.fix token.ok token.reason token.message " +
		"client.address client.via forwarded.proto forwarded.host upgrade.ok upgrade.reason") {
		section, key, nested := strings.Cut(path, ".")
		value, found := shape[section]
		if nested {
			value, found = shape[section].(map[string]any)[key]
		}
		switch value.(type) {
		case bool, string:
		default:
			t.Errorf("%s is %v (there: %v) in %s", path, value, found, body)
		}
	}
	if len(shape) != 6 {
		t.Errorf("more than was promised: %s", body)
	}
	if err := json.Unmarshal(body, &report); err != nil {
		t.Fatal(err)
	}
	return report, answer.Header
}

// TestCheckOfAVisitorWhoMayConnect: nothing is wrong, nothing is to be mended.
func TestCheckOfAVisitorWhoMayConnect(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for name, ask := range map[string]func(token string) (checkReport, http.Header){
		"query": func(token string) (checkReport, http.Header) { return s.askCheck(t, "token="+token) },
		"Bearer": func(token string) (checkReport, http.Header) {
			return s.askCheck(t, "", "Authorization: Bearer "+token)
		},
	} {
		report, _ := ask(s.token(t, Claims{UserID: "alice", TTL: time.Hour}))
		want := checkReport{
			OK:        true,
			Origin:    checkOrigin{Allowed: true},
			Token:     checkToken{OK: true, Message: report.Token.Message},
			Client:    checkClient{"127.0.0.1", "peer"},
			Forwarded: checkForwarded{"http", s.addr},
			Upgrade:   checkUpgraded{OK: true, Reason: upgradeNotTested},
		}
		if report != want || !strings.HasPrefix(report.Token.Message, "accepted, expires in ") {
			t.Errorf("token by %s:\n%+v, want\n%+v", name, report, want)
		}
	}
}

// TestCheckTellsAForeignPage: any page may read the answer, without credentials, and learns what would admit it; the
// other endpoints stay closed to it.
func TestCheckTellsAForeignPage(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	report, header := s.askCheck(t, "", "Origin: https://share.example.org:8443")
	want := checkOrigin{"https://share.example.org:8443", false, `"cors": {"allowed_origins": ["https://share.example.org:8443"]}`}
	if report.OK || report.Origin != want {
		t.Errorf("origin %+v, want %+v", report.Origin, want)
	}
	for name, value := range map[string]string{
		"Access-Control-Allow-Origin":      "https://share.example.org:8443",
		"Access-Control-Allow-Credentials": "",
		"Cache-Control":                    "no-store",
		"Vary":                             "Origin",
	} {
		if got := header.Get(name); got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
	for _, page := range []string{"null", "https://evil.example"} {
		if _, header := s.askCheck(t, "", "Origin: "+page); header.Get("Access-Control-Allow-Origin") != page {
			t.Errorf("the page %s may not read why it may not connect", page)
		}
	}
	preflight := func(path string) http.Header {
		recorder := httptest.NewRecorder()
		request := httptest.NewRequest(http.MethodOptions, path, nil)
		request.Header.Set("Origin", "https://evil.example")
		s.server.ServeHTTP(recorder, request)
		return recorder.Header()
	}
	if header := preflight("/api/check"); header.Get("Access-Control-Allow-Origin") != "https://evil.example" || header.Get("Access-Control-Allow-Headers") != "Authorization" {
		t.Errorf("preflight: %v", header)
	}
	for _, path := range []string{"/health", "/metrics"} {
		if header := preflight(path); header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s is open to any page", path)
		}
	}
}

// TestCheckTellsWhyATokenIsRefused: the reason of the refused upgrade, and by how much an expired token is late.
// The answer never has the token or the secret in it.
func TestCheckTellsWhyATokenIsRefused(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	mint := func(issued time.Time, secret string) string {
		cfg := *s.cfg
		if secret != "" {
			cfg.JWT.Secret = secret
		}
		token, err := MintToken(&cfg, Claims{UserID: "alice", TTL: time.Hour}, issued)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	now := time.Now()
	for _, story := range []struct{ token, reason, message string }{
		{"", "token_missing", "an auth token is needed"},
		{"no-token-at-all", "token_malformed", "not well-formed"},
		{mint(now, strings.Repeat("another", 8)), "token_signature", "not signed with jwt.secret"},
		{mint(now.Add(-3*time.Hour), ""), "token_expired", "expired 2h0m"},
		{mint(now.Add(2*time.Hour), ""), "token_not_yet_valid", "in the future"},
	} {
		report, _ := s.askCheck(t, "token="+story.token)
		if report.OK || report.Token.OK || report.Token.Reason != story.reason || !strings.Contains(report.Token.Message, story.message) {
			t.Errorf("%+v, want %s: %s", report.Token, story.reason, story.message)
		}
		text := fmt.Sprintf("%+v", report)
		for _, secret := range []string{story.token, s.cfg.JWT.Secret} {
			if secret != "" && strings.Contains(text, secret) {
				t.Errorf("the answer shows a secret: %s", text)
			}
		}
	}
	if log := s.log.String(); strings.Contains(log, "no-token-at-all") {
		t.Errorf("the log shows a token: %s", log)
	}
}

// TestCheckBehindAProxy: the address is the right-most untrusted hop and the answer says which; what an untrusted peer
// forwards is not believed.
func TestCheckBehindAProxy(t *testing.T) {
	t.Parallel()
	forwarded := []string{
		"X-Forwarded-For: 203.0.113.9, 198.51.100.7", "X-Forwarded-For: 10.1.1.1",
		"X-Forwarded-Proto: https", "X-Forwarded-Host: share.example.org",
	}
	trusting := startServer(t, func(cfg *Config) { cfg.Server.TrustedProxies = []string{"127.0.0.1", "10.0.0.0/8"} })
	report, _ := trusting.askCheck(t, "", append(forwarded, "Origin: https://share.example.org")...)
	if want := (checkClient{"198.51.100.7", "x-forwarded-for, hop 2 of 3"}); report.Client != want {
		t.Errorf("client %+v, want %+v", report.Client, want)
	}
	if want := (checkForwarded{"https", "share.example.org"}); report.Forwarded != want || !report.Origin.Allowed {
		t.Errorf("forwarded %+v, want %+v; its own page %+v", report.Forwarded, want, report.Origin)
	}
	suspicious := startServer(t)
	report, _ = suspicious.askCheck(t, "", forwarded...)
	if want := (checkClient{"127.0.0.1", "peer"}); report.Client != want || report.Forwarded.Proto != "http" {
		t.Errorf("an untrusted peer is believed: %+v", report)
	}
}

// TestCheckOfTheUpgrade: what arrived, what the caller says it sent, HTTP/1.0, and what the same address lost a moment ago.
func TestCheckOfTheUpgrade(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	if report, header := s.askCheck(t, "probe=upgrade", "Connection: Upgrade", "Upgrade: websocket"); report.Upgrade != (checkUpgraded{OK: true}) || header.Get("Upgrade") != "" {
		t.Errorf("an upgrade that arrived: %+v", report.Upgrade)
	}
	if report, _ := s.askCheck(t, "probe=upgrade"); report.Upgrade != (checkUpgraded{Reason: upgradeHeadersRemoved}) {
		t.Errorf("an upgrade that a proxy took away: %+v", report.Upgrade)
	}
	old := httptest.NewRequest(http.MethodGet, "/api/check", nil)
	old.Proto, old.ProtoMajor, old.ProtoMinor = "HTTP/1.0", 1, 0
	if got := s.server.describeUpgrade(old); got != (checkUpgraded{Reason: upgradeHTTP10}) {
		t.Errorf("a proxy that speaks HTTP/1.0: %+v", got)
	}

	// A person who looks at / in a browser has no WebSocket that failed; a WebSocket whose proxy dropped the headers has.
	s.get(t, "/")
	if report, _ := s.askCheck(t, ""); report.Upgrade.Reason != upgradeNotTested {
		t.Errorf("after a visit: %+v", report.Upgrade)
	}
	s.get(t, "/ws", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13")
	if report, _ := s.askCheck(t, ""); report.Upgrade != (checkUpgraded{Reason: upgradeHeadersRemoved}) {
		t.Errorf("after a WebSocket that lost its headers: %+v", report.Upgrade)
	}
	s.server.draining.Store(true)
	if report, _ := s.askCheck(t, ""); report.Upgrade != (checkUpgraded{Reason: upgradeDraining}) {
		t.Errorf("during a drain: %+v", report.Upgrade)
	}
	s.server.draining.Store(false)
}

// TestChecksAreLimitedPerAddress: after a burst an address must wait; the page can read that as well.
func TestChecksAreLimitedPerAddress(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for range checkBurst {
		s.askCheck(t, "")
	}
	recorder := httptest.NewRecorder()
	request := httptest.NewRequest(http.MethodGet, "/api/check", nil)
	request.RemoteAddr = "127.0.0.1:999"
	request.Header.Set("Origin", "https://evil.example")
	s.server.ServeHTTP(recorder, request)
	if recorder.Code != http.StatusTooManyRequests || !strings.Contains(recorder.Body.String(), `"rate_limited"`) || recorder.Header().Get("Retry-After") == "" {
		t.Errorf("after the burst: %d %s", recorder.Code, recorder.Body)
	}
	if recorder.Header().Get("Access-Control-Allow-Origin") != "https://evil.example" {
		t.Error("the page cannot read that it asks too often")
	}
	s.wantMetric(t, "refusals", "rate_limited", 1)
	other := httptest.NewRequest(http.MethodGet, "/api/check", nil)
	other.RemoteAddr = "127.0.0.2:999"
	recorder = httptest.NewRecorder()
	s.server.ServeHTTP(recorder, other)
	if recorder.Code != http.StatusOK {
		t.Errorf("another address is refused: %d", recorder.Code)
	}
}

// TestCheckTableIsBounded: however many addresses ask, two generations are all that is remembered, and an address that
// keeps asking stays limited.
func TestCheckTableIsBounded(t *testing.T) {
	t.Parallel()
	var table checkTable
	busy := netip.MustParseAddr("192.0.2.1")
	for range checkBurst {
		table.take(busy, 0)
	}
	address := netip.MustParseAddr("10.0.0.0")
	for i := range 5 * maxCheckAddresses {
		address = address.Next()
		table.take(address, 0)
		if i%1000 == 0 && table.take(busy, 0) {
			t.Fatalf("after %d others the address may ask again", i)
		}
	}
	if n := len(table.young) + len(table.old); n > 2*maxCheckAddresses {
		t.Errorf("%d addresses are remembered", n)
	}
	if !table.take(busy, time.Minute) {
		t.Error("the bucket does not fill again")
	}
	if table.removed(busy, time.Minute); !table.removedOfLate(busy, time.Minute+checkMemory-1) || table.removedOfLate(busy, time.Minute+checkMemory) {
		t.Error("a lost upgrade is not remembered for checkMemory")
	}
}
