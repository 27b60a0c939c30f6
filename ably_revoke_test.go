package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"letshare/ably"
)

// The key whose tokens can be revoked.
const testAblyRevocableKey = "app.revocable:secret-of-the-key-whose-tokens-end-early"

// withRevocable configures it beside the others.
func withRevocable(c *Config) {
	withAblyKeys(c)
	name, secret, _ := strings.Cut(testAblyRevocableKey, ":")
	c.Ably.Keys = append(c.Ably.Keys, AblyKey{Name: name, Secret: secret, RevocableTokens: true})
}

// revocableToken makes a token of that key, issued a while ago and good for an hour from then; claims are added to it.
func revocableToken(t testing.TB, ago time.Duration, claims jwt.MapClaims) string {
	t.Helper()
	name, secret, _ := strings.Cut(testAblyRevocableKey, ":")
	issued := time.Now().Add(-ago).UnixMilli()
	all := jwt.MapClaims{"iat": ablySeconds(issued), "exp": ablySeconds(issued + maxRevocableTTL.Milliseconds())}
	for claim, value := range claims {
		if all[claim] = value; value == nil {
			delete(all, claim)
		}
	}
	token, err := signToken(all, name, []byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// revoked reads a batch answer.
type revoked struct {
	SuccessCount, FailureCount int
	Results                    []struct {
		Target                  string
		IssuedBefore, AppliesAt int64
		Error                   *ably.ErrorInfo
	}
}

// What a revocation covers is what Ably says: tokens of that target, issued before; nothing is forgotten while such a token can
// still live, and everything is afterwards.
func TestRevocationsCoverTokensIssuedBefore(t *testing.T) {
	var v ablyRevocations
	anna := revocationTarget("app.key", "clientId", "anna")
	token := func(issued int64) *revocable { return &revocable{issued, [][16]byte{anna}} }
	hour := maxRevocableTTL.Milliseconds()
	if !v.add(anna, revocation{issuedBefore: 1000, appliesAt: 5000}, 1000) {
		t.Fatal("the first revocation is refused")
	}
	want := func(issued, now int64, revoked, soon bool) {
		t.Helper()
		if r, s := v.judge(token(issued), now); r != revoked || s != soon {
			t.Errorf("issued at %d, at %d: revoked %v, soon %v", issued, now, r, s)
		}
	}
	want(999, 4999, false, true)
	want(999, 5000, true, true)
	want(1000, 9000, false, false)
	if r, s := v.judge(&revocable{0, [][16]byte{revocationTarget("app.other", "clientId", "anna"), revocationTarget("app.key", "channel", "anna")}}, 9000); r || s {
		t.Error("another key's token, or one of another kind, is revoked")
	}
	if r, s := (*ablyRevocations)(nil).judge(token(0), 9000); r || s {
		t.Error("what remembers nothing revokes")
	}

	v.add(anna, revocation{issuedBefore: 6000, appliesAt: 36000}, 6000) // with a margin: the first stays in force
	want(999, 6000, true, true)
	want(5999, 6000, false, true)
	want(5999, 36000, true, true)
	v.sweep(6000 + hour)
	want(5999, 6000+hour, true, true)
	v.sweep(6001 + hour)
	if v.some.Load() || len(v.byTarget) > 0 {
		t.Error("what is over is remembered")
	}
}

// Nobody fills the memory: of one target few are kept, in doubt the stricter ones, and of all targets so many.
func TestRevocationsAreBounded(t *testing.T) {
	var v ablyRevocations
	target := [16]byte{1}
	for i := range int64(20) {
		v.add(target, revocation{issuedBefore: 1000 + i, appliesAt: 1000 + i}, 1000+i)
	}
	if n := len(v.byTarget[target]); n != maxRevocationsEach {
		t.Errorf("%d revocations of one target are kept", n)
	}
	if r, _ := v.judge(&revocable{1018, [][16]byte{target}}, 1019); !r {
		t.Error("the latest is lost")
	}
	for i := range maxRevocations + 10 {
		if added := v.add(revocationTarget("a.b", "clientId", fmt.Sprint(i)), revocation{5000, 5000}, 5000); added != (i < maxRevocations-1) {
			t.Fatalf("the %dth target: %v", i, added)
		}
	}
	later := 5001 + maxRevocableTTL.Milliseconds()
	if !v.add([16]byte{2}, revocation{later, later}, later) || len(v.byTarget) != 1 {
		t.Errorf("%d targets are kept, of which all but one are over", len(v.byTarget))
	}
}

// A REST request with a revoked token is refused with 40141, whichever way it was revoked; one with a newer token is not. A target
// that is none does not keep the others from counting.
func TestRevokedTokensAreRefused(t *testing.T) {
	t.Parallel()
	s := startServer(t, withRevocable)
	path := "/keys/app.revocable/revokeTokens"
	tokens := map[string]string{
		"clientId:anna":         revocableToken(t, time.Minute, jwt.MapClaims{ablyClientIDClaim: "anna"}),
		"revocationKey:group 1": revocableToken(t, time.Minute, jwt.MapClaims{ablyRevocationClaim: "group 1"}),
		"channel:foo:*":         revocableToken(t, time.Minute, jwt.MapClaims{ablyCapabilityClaim: `{"foo:*":["*"],"bar":["*"]}`}),
	}
	uses := func(token string) int {
		a := s.rest(t, "GET", "/channels/foo:x/presence", "", "Authorization: Bearer "+token)
		if a.status == http.StatusOK {
			return 0
		}
		var e struct{ Error struct{ Code int } }
		if err := json.Unmarshal(a.body, &e); err != nil {
			t.Fatal(err)
		}
		return e.Error.Code
	}
	for target, token := range tokens {
		if code := uses(token); code != 0 {
			t.Fatalf("%s: refused with %d before it is revoked", target, code)
		}
	}
	bystander := revocableToken(t, time.Minute, jwt.MapClaims{ablyClientIDClaim: "ben", ablyCapabilityClaim: `{"foo:x":["*"]}`})
	before := time.Now().UnixMilli()
	for _, accept := range []string{"Accept: application/json", withMsgpack} {
		a := s.rest(t, "POST", path, `{"targets":["clientId:anna","revocationKey:group 1","channel:foo:*","invalidType:abc","clientId:"]}`, withRestKey(testAblyRevocableKey), accept)
		var r revoked
		if err := json.Unmarshal([]byte(a.value(t)), &r); err != nil || a.status != 201 || r.SuccessCount != 3 || r.FailureCount != 2 || len(r.Results) != 5 {
			t.Fatalf("%d %s", a.status, a.value(t))
		}
		if first := r.Results[0]; first.Target != "clientId:anna" || first.Error != nil || first.IssuedBefore < before || first.AppliesAt != first.IssuedBefore {
			t.Errorf("the first result is %+v", first)
		}
		if bad := r.Results[3]; bad.Target != "invalidType:abc" || bad.Error == nil || bad.Error.StatusCode != 400 || bad.AppliesAt != 0 {
			t.Errorf("the bad target's result is %+v", bad)
		}
	}
	for target, token := range tokens {
		if code := uses(token); code != 40141 {
			t.Errorf("%s: %d after it is revoked", target, code)
		}
	}
	if code := uses(bystander); code != 0 {
		t.Errorf("the bystander is refused with %d", code)
	}
	if code := uses(revocableToken(t, -time.Second, jwt.MapClaims{ablyClientIDClaim: "anna"})); code != 0 {
		t.Errorf("a newer token is refused with %d", code)
	}
	// An envelope of somebody else's changes nothing about the token in it.
	inner := revocableToken(t, time.Minute, jwt.MapClaims{ablyClientIDClaim: "anna"})
	outer, err := signToken(jwt.MapClaims{ablyTokenClaim: inner, "exp": time.Now().Add(time.Hour).Unix()}, "theirs", []byte("their secret"))
	if err != nil {
		t.Fatal(err)
	}
	if code := uses(outer); code != 40141 {
		t.Errorf("an embedded token is answered %d", code)
	}
	if !strings.Contains(s.log.String(), "tokens revoked") || strings.Contains(s.log.String(), "anna") {
		t.Errorf("the log says %s", s.log.String())
	}
}

// FuzzAblyRevocation holds the reader of revocations to bounded targets and times, in both codecs.
func FuzzAblyRevocation(f *testing.F) {
	f.Add([]byte(`{"targets":["clientId:anna","channel:foo:*"],"issuedBefore":1000,"allowReauthMargin":true}`), false)
	f.Add([]byte("\x82\xa7targets\x91\xa3a:b\xacissuedBefore\xcb\x40\x8f\x40\x00\x00\x00\x00\x00"), true)
	f.Fuzz(func(t *testing.T, body []byte, binary bool) {
		format := ably.JSON
		if binary {
			format = ably.Msgpack
		}
		now := maxRevocableTTL.Milliseconds()
		q, problem := parseRevocation(format, body, now)
		if problem == nil && (len(q.targets) == 0 || len(q.targets) > maxRevocationTargets || q.issuedBefore < 0 || q.issuedBefore > now) {
			t.Errorf("%q is read as %+v", body, q)
		}
	})
}

// Tokens that can be revoked live for an hour at most, and say when they began.
func TestRevocableTokensAreShortLived(t *testing.T) {
	t.Parallel()
	s := startServer(t, withRevocable)
	auth := s.server.rules.Load().ably.auth
	for name, want := range map[string]struct {
		claims jwt.MapClaims
		code   int
	}{
		"an hour":           {nil, 0},
		"more than an hour": {jwt.MapClaims{"exp": time.Now().Add(2 * time.Hour).Unix()}, 40003},
		"no iat":            {jwt.MapClaims{"iat": nil}, 40144},
	} {
		_, problem := auth.token(revocableToken(t, 0, want.claims), "", time.Now())
		if code := 0; problem != nil && problem.Code != want.code || problem == nil && code != want.code {
			t.Errorf("%s: %v, want %d", name, problem, want.code)
		}
	}
	key, _ := auth.find("app.revocable")
	for ttl, code := range map[string]int{"": 0, "3600000": 0, "3600001": 40003} {
		q := ablyTokenRequest{KeyName: "app.revocable", TTL: ablyNumber(ttl), Timestamp: ablyNumber(fmt.Sprint(time.Now().UnixMilli())), Nonce: "n" + ttl}
		q.MAC = q.mac(key)
		if _, problem := auth.issue("app.revocable", q, &s.server.nonces, time.Now()); problem != nil && problem.Code != code || problem == nil && code != 0 {
			t.Errorf("a ttl of %q: %v, want %d", ttl, problem, code)
		}
	}
}

// Only who holds the key revokes, only tokens of that key, and only if it says so; the rest of the request must be right, too.
func TestWhoMayRevoke(t *testing.T) {
	t.Parallel()
	s := startServer(t, withRevocable)
	own := withRestKey(testAblyRevocableKey)
	body := `{"targets":["clientId:x"]}`
	for name, want := range map[string]struct {
		path, body, who string
		status, code    int
	}{
		"the key":          {"app.revocable", body, own, 201, 0},
		"another key":      {"app.revocable", body, withRestKey(testAblyKey), 401, 40101},
		"a key without":    {"app.all", body, withRestKey(testAblyKey), 401, 40164},
		"a token":          {"app.revocable", body, "Authorization: Bearer " + revocableToken(t, 0, nil), 401, 40162},
		"nobody":           {"app.revocable", body, "Authorization:", 401, 40101},
		"no targets":       {"app.revocable", `{"targets":[]}`, own, 400, 40000},
		"many targets":     {"app.revocable", `{"targets":["` + strings.Repeat(`a:b","`, 100) + `a:b"]}`, own, 400, 40000},
		"targets of what":  {"app.revocable", `{"targets":[1]}`, own, 400, 40000},
		"no object":        {"app.revocable", `[]`, own, 400, 40000},
		"no JSON":          {"app.revocable", `{`, own, 400, 40000},
		"the future":       {"app.revocable", fmt.Sprintf(`{"targets":["clientId:x"],"issuedBefore":%d}`, time.Now().Add(time.Minute).UnixMilli()), own, 400, 40000},
		"long ago":         {"app.revocable", fmt.Sprintf(`{"targets":["clientId:x"],"issuedBefore":%d}`, time.Now().Add(-2*time.Hour).UnixMilli()), own, 400, 40000},
		"within the hour":  {"app.revocable", fmt.Sprintf(`{"targets":["clientId:x"],"issuedBefore":%d}`, time.Now().Add(-time.Minute).UnixMilli()), own, 201, 0},
		"a time in words":  {"app.revocable", `{"targets":["clientId:x"],"issuedBefore":"now"}`, own, 400, 40000},
		"a margin of what": {"app.revocable", `{"targets":["clientId:x"],"allowReauthMargin":1}`, own, 400, 40000},
	} {
		a := s.rest(t, "POST", "/keys/"+want.path+"/revokeTokens", want.body, want.who)
		if a.status != want.status || want.code != 0 && a.header.Get("X-Ably-ErrorCode") != fmt.Sprint(want.code) {
			t.Errorf("%s: %d %s, want %d %d", name, a.status, a.body, want.status, want.code)
		}
	}
	if a := s.rest(t, "GET", "/keys/app.revocable/revokeTokens", "", own); a.status != 404 {
		t.Errorf("GET is answered %d", a.status)
	}
}

// A revocation disconnects those who are here within a second, with 40141; with a margin it first asks them for another token, and
// who brings one stays. A reload does not forget it.
func TestRevocationEndsConnections(t *testing.T) {
	t.Parallel()
	inBubble(t, withRevocable, func(t *testing.T, s *pipeServer) {
		join := func(name, client string) *pipeClient {
			return s.ablyJoin(name, "key=", "access_token="+revocableToken(t, time.Second, jwt.MapClaims{ablyClientIDClaim: client}), "heartbeats=false")
		}
		anna, ben := join("anna", "anna"), join("ben", "ben")
		good, bad := join("good", "crowd"), join("bad", "crowd")
		revoke := func(target string, margin time.Duration) {
			now := time.Now().UnixMilli()
			kind, name, _ := strings.Cut(target, ":")
			s.revocations.add(revocationTarget("app.revocable", kind, name), revocation{now, now + margin.Milliseconds()}, now)
		}
		time.Sleep(time.Second)
		began := s.since()
		revoke("clientId:anna", 0)
		revoke("clientId:crowd", 30*time.Second)
		anna.wantEnded(began, 0, time.Second, "close 4001 token_revoked")
		if got := strings.Join(anna.got(), " "); !strings.Contains(got, `{"action":6,"error":{"code":40141,"statusCode":401,`) {
			t.Errorf("anna is told %s", got)
		}
		time.Sleep(time.Second)
		good.wantLast(`{"action":17}`)
		bad.wantLast(`{"action":17}`)
		good.send(`{"action":17,"auth":{"accessToken":"` + revocableToken(t, 0, jwt.MapClaims{ablyClientIDClaim: "crowd"}) + `"}}`)
		if err := s.Reload(s.rules.Load().cfg); err != nil {
			t.Fatal(err)
		}
		bad.wantEnded(began, 29*time.Second, 31*time.Second, "close 4001 token_revoked")
		time.Sleep(time.Minute)
		good.wantLast(`{"action":4,`)
		ben.wantLast(`{"action":4,`)
		again := s.ablyJoin("again", "key=", "access_token="+revocableToken(t, 10*time.Minute, jwt.MapClaims{ablyClientIDClaim: "anna"}))
		time.Sleep(time.Second)
		if got := again.got(); len(got) == 0 || !strings.Contains(got[0], `"code":40141`) {
			t.Errorf("who comes back with the revoked token is told %q", got)
		}
	})
}
