package main

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	turnSecret = "the-secret-of-the-turn-server"
	turnURL    = "turn:turn.example.org:3478?transport=udp"
)

// withTurn names a TURN server.
func withTurn(c *Config) {
	c.Turn.URLs, c.Turn.Secret = []string{turnURL, "turns:turn.example.org"}, turnSecret
}

// askTurn asks for credentials. headers are "Name: value" lines.
func (s *testServer) askTurn(method, query string, headers ...string) *httptest.ResponseRecorder {
	request := httptest.NewRequest(method, "http://"+s.addr+"/api/turn-credentials?"+query, nil)
	request.RemoteAddr = "192.0.2.1:999"
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		request.Header.Add(name, value)
	}
	recorder := httptest.NewRecorder()
	s.server.ServeHTTP(recorder, request)
	return recorder
}

// wantCredentials wants an answer in the shape that is documented, whose credential a TURN server accepts, and returns for whom and how
// long it is.
func wantCredentials(t *testing.T, answer *httptest.ResponseRecorder, secret string) (user string, ttl time.Duration) {
	t.Helper()
	var body turnAnswer
	decoder := json.NewDecoder(answer.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&body); err != nil || answer.Code != http.StatusOK || len(body.ICEServers) != 1 {
		t.Fatalf("answered %d %+v (%v)", answer.Code, body, err)
	}
	server := body.ICEServers[0]
	if !slices.Equal(server.URLs, []string{turnURL, "turns:turn.example.org"}) {
		t.Errorf("urls are %q", server.URLs)
	}
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write([]byte(server.Username))
	if want := base64.StdEncoding.EncodeToString(mac.Sum(nil)); server.Credential != want {
		t.Errorf("the credential of %s is %s, want %s", server.Username, server.Credential, want)
	}
	expiry, user, _ := strings.Cut(server.Username, ":")
	seconds, err := strconv.ParseInt(expiry, 10, 64)
	if left := time.Until(time.Unix(seconds, 0)); err != nil || left > time.Duration(body.TTLSeconds)*time.Second || left < time.Duration(body.TTLSeconds-5)*time.Second {
		t.Errorf("%s ends in %v, ttl_seconds is %d", server.Username, left, body.TTLSeconds)
	}
	return user, time.Duration(body.TTLSeconds) * time.Second
}

func TestTurnCredentialsForWhoeverMayConnect(t *testing.T) {
	t.Parallel()
	s := startServer(t, withTurn, func(c *Config) { c.Auth.StaticTokens = []string{"an-opaque-token"} })
	token := s.token(t, Claims{UserID: "anna", TTL: 30 * 24 * time.Hour})
	for _, answer := range []*httptest.ResponseRecorder{
		s.askTurn("GET", "token="+token),
		s.askTurn("GET", "", "Authorization: Bearer "+token),
		s.askTurn("GET", "token=an-opaque-token&userId=anna"),
	} {
		if user, ttl := wantCredentials(t, answer, turnSecret); user != "anna" || ttl != 24*time.Hour {
			t.Errorf("credentials of %q for %v", user, ttl)
		}
		if got := answer.Header().Get("Cache-Control"); got != "no-store" {
			t.Errorf("Cache-Control is %q", got)
		}
	}
	// The credentials do not outlive the token.
	soon := s.token(t, Claims{UserID: "anna", TTL: time.Minute})
	if _, ttl := wantCredentials(t, s.askTurn("GET", "token="+soon), turnSecret); ttl > time.Minute || ttl < 50*time.Second {
		t.Errorf("by a token of a minute: credentials for %v", ttl)
	}
	late, err := MintToken(s.cfg, Claims{UserID: "anna", TTL: time.Minute}, time.Now().Add(-70*time.Second)) // expired, within the leeway
	if err != nil {
		t.Fatal(err)
	}
	if _, ttl := wantCredentials(t, s.askTurn("GET", "token="+late), turnSecret); ttl != time.Second {
		t.Errorf("by a token that has just expired: credentials for %v", ttl)
	}
}

// coturn refuses some names outright: their users get one that it takes.
func TestTurnNamesAreSuchAsCoturnTakes(t *testing.T) {
	for identity, want := range map[string]string{
		"anna": "anna", "张三😀:a1b2c3": "张三😀:a1b2c3", "selection": "selection", "union:abc": "union:abc",
		"with space": "77697468207370616365", "o'brien": "6f27627269656e", `q"q`: "712271", `a\b`: "615c62", "a\nb": "610a62",
		"Union1Select": "556e696f6e3153656c656374",
	} {
		if got := turnName(identity); got != want {
			t.Errorf("%q becomes %q, want %q", identity, got, want)
		}
	}
}

func TestTurnCredentialsAreRefusedAsAConnectionIs(t *testing.T) {
	t.Parallel()
	s := startServer(t, withTurn)
	good := s.token(t, Claims{UserID: "anna"})
	bound := s.token(t, Claims{UserID: "anna", Bind: true})
	for _, row := range []struct {
		status int
		reason string
		answer *httptest.ResponseRecorder
	}{
		{401, "token_missing", s.askTurn("GET", "")},
		{401, "token_malformed", s.askTurn("GET", "token=nonsense")},
		{401, "token_signature", s.askTurn("GET", "token="+good[:len(good)-6]+"AAAAAA")},
		{401, "token_claims", s.askTurn("GET", "userId=bob&token="+bound)},
		{400, "bad_user_id", s.askTurn("GET", "userId="+strings.Repeat("x", maxUserIDBytes+1)+"&token="+good)},
		{403, "origin_not_allowed", s.askTurn("GET", "token="+good, "Origin: https://evil.example")},
		{405, "method_not_allowed", s.askTurn("POST", "token="+good)},
	} {
		body := row.answer.Body.String()
		if row.answer.Code != row.status || !strings.Contains(body, `"reason":"`+row.reason+`"`) {
			t.Errorf("answered %d %s, want %d %s", row.answer.Code, body, row.status, row.reason)
		}
		if strings.Contains(body, turnURL) || row.answer.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: answered %v %s", row.reason, row.answer.Header(), body)
		}
	}
	s.wantMetric(t, "refusals", "origin_not_allowed", 1)
	log := s.log.String()
	for _, secret := range []string{good, bound, turnSecret, "nonsense"} {
		if strings.Contains(log, secret) {
			t.Error("the log has a token or the secret")
		}
	}
	if !strings.Contains(log, "https://evil.example") || !strings.Contains(log, "allowed_origins") {
		t.Errorf("the log does not say which page, and what admits it:\n%s", log)
	}
}

// A page of an allowed origin may ask across origins, with its token in a header; no other page may.
func TestTurnCredentialsAcrossOrigins(t *testing.T) {
	t.Parallel()
	s := startServer(t, withTurn)
	const page = "http://localhost:5173"
	preflight := s.askTurn("OPTIONS", "", "Origin: "+page, "Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization")
	if h := preflight.Header(); preflight.Code != 204 || h.Get("Access-Control-Allow-Origin") != page || !strings.Contains(h.Get("Access-Control-Allow-Headers"), "Authorization") {
		t.Errorf("the preflight is answered %d %v", preflight.Code, h)
	}
	answer := s.askTurn("GET", "", "Origin: "+page, "Authorization: Bearer "+s.token(t, Claims{UserID: "anna"}))
	wantCredentials(t, answer, turnSecret)
	if h := answer.Header(); h.Get("Access-Control-Allow-Origin") != page || h.Get("Vary") != "Origin" || h.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("answered with %v", h)
	}
	if h := s.askTurn("OPTIONS", "", "Origin: https://evil.example").Header(); h.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("any page may ask: %v", h)
	}
}

func TestTurnCredentialsAreLimitedPerAddress(t *testing.T) {
	t.Parallel()
	s := startServer(t, withTurn)
	token := "token=" + s.token(t, Claims{UserID: "anna"})
	for range turnBurst {
		wantCredentials(t, s.askTurn("GET", token), turnSecret)
	}
	answer := s.askTurn("GET", token)
	if answer.Code != 429 || !strings.Contains(answer.Body.String(), `"rate_limited"`) || answer.Header().Get("Retry-After") == "" {
		t.Errorf("after the burst: %d %s", answer.Code, answer.Body)
	}
	s.wantMetric(t, "refusals", "rate_limited", 1)
	other := httptest.NewRequest("GET", "/api/turn-credentials?"+token, nil)
	other.RemoteAddr = "192.0.2.2:999"
	recorder := httptest.NewRecorder()
	s.server.ServeHTTP(recorder, other)
	wantCredentials(t, recorder, turnSecret)
}

func TestAReloadChangesTheTurnServer(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	token := "token=" + s.token(t, Claims{UserID: "anna"})
	without := func() {
		t.Helper()
		if answer := s.askTurn("GET", token); answer.Code != 404 || !strings.Contains(answer.Body.String(), `"turn_disabled"`) {
			t.Errorf("without a TURN server: %d %s", answer.Code, answer.Body)
		}
	}
	without()
	s.mustReload(t, withTurn)
	wantCredentials(t, s.askTurn("GET", token), turnSecret)
	s.mustReload(t, func(c *Config) { c.Turn.Secret, c.Turn.TTLSeconds = "another-secret-of-it", 60 })
	if _, ttl := wantCredentials(t, s.askTurn("GET", token), "another-secret-of-it"); ttl != time.Minute {
		t.Errorf("the credentials are for %v", ttl)
	}
	s.mustReload(t, func(c *Config) { c.Turn.URLs, c.Turn.Secret = nil, "" })
	without()
}

func TestTurnIsCheckedAtLoad(t *testing.T) {
	for _, test := range []struct{ file, want string }{
		{`{"turn": {"urls": ["turn:a.example"]}}`, `config.json: turn.secret = (unset): is missing; set it to static-auth-secret of the TURN server, or remove turn.urls`},
		{`{"turn": {"secret": "hidden"}}`, `config.json:1: turn.secret = (set, 6 bytes): means nothing without turn.urls; name the TURN servers, or remove it`},
		{`{"turn": {"urls": ["turn:a.example"], "secret": "hidden", "ttl_seconds": 0}}`, `config.json:1: turn.ttl_seconds = 0: must be from 1 to 604800; a day is 86400`},
		{`{"turn": {"urls": ["turn:me@a.example"], "secret": "hidden"}}`, `config.json:1: turn.urls[0] = "…@a.example": must not hold a user name or password; write turn:host:port`},
		{`{"turn": {"urls": ["https://a.example"], "secret": "hidden"}}`, `config.json:1: turn.urls[0] = "https://a.example": must begin with turn:, turns:, stun: or stuns:, like turn:turn.example.org:3478?transport=udp`},
		{`{"mode": "production", "jwt": {"secret": "` + goodSecret + `"}, "turn": {"urls": ["turn:a.example"], "secret": "hidden"}}`,
			`config.json:1: turn.secret = (set, 6 bytes): is shorter than 16 bytes, which production mode does not take: whoever has credentials can guess it; choose a longer one here and at the TURN server`},
		{`{"turn": {"urls": ["turn:a"` + strings.Repeat(`,"turn:a"`, maxTurnURLs) + `], "secret": "hidden"}}`,
			`config.json:1: turn.urls = ["turn:a"` + strings.Repeat(`, "turn:a"`, maxTurnURLs) + `]: are more than 16, which no browser tries with patience; name fewer`},
	} {
		inFolder(t, test.file)
		wantError(t, test.want, "config.json")
	}
	inFolder(t, "{}")
	write(t, "turn", turnSecret+"\n")
	c := mustLoad(t, "config.json", "LETSHARE_TURN_URLS", turnURL+", turns:turn.example.org", "LETSHARE_TURN_SECRET_FILE", "turn")
	if len(c.Turn.URLs) != 2 || c.Turn.Secret != turnSecret {
		t.Errorf("from the environment: %q", c.Turn.URLs)
	}
}

func TestTurnURLs(t *testing.T) {
	for _, good := range []string{"turn:a.example", "turn:a.example:3478", "turns:a.example:5349?transport=tcp", "turn:192.0.2.1?transport=udp", "turn:[2001:db8::1]:3478", "turn:[2001:db8::1]", "stun:a.example", "stuns:a.example:5349"} {
		if err := parseTurnURL(good); err != nil {
			t.Errorf("%s is refused: %v", good, err)
		}
	}
	for _, bad := range []string{"", "turn:", "turn", "turn://a.example", "a.example:3478", "turn:a.example:0", "turn:a.example:65536", "turn:a.example:", "turn:a.example:http", "turn:a.example/x",
		"turn:a.example?transport=sctp", "stun:a.example?transport=udp", "turn:2001:db8::1", "turn:[2001:db8::1", "turn:[a.example]", "turn:[fe80::1%25eth0]", "turn:[fe80::1%eth0]:3478", "turn:a example", "TURN:a.example", "turn:a.example?"} {
		if err := parseTurnURL(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// FuzzTurnURL: what is accepted has the parts that browsers want, and nothing that could be taken for more.
func FuzzTurnURL(f *testing.F) {
	for _, seed := range []string{turnURL, "turns:[2001:db8::1]:5349", "stun:a.example", "turn://a", "turn:a:b", "turn:[a]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if parseTurnURL(s) != nil {
			return
		}
		scheme, rest, _ := strings.Cut(s, ":")
		u, err := url.Parse(scheme + "://" + rest)
		if err != nil || u.Host == "" || u.Path != "" || u.User != nil || u.Fragment != "" {
			t.Errorf("accepted %q, of which net/url makes %+v (%v)", s, u, err)
		}
		if strings.ContainsAny(s, " \t\r\n\"'\\<>") {
			t.Errorf("accepted %s", fmt.Sprintf("%q", s))
		}
	})
}
