package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"letshare/ably"
)

const (
	ablyTestSecret = "the first secret of the Ably tests"
	ablyTestOther  = "the other secret: with a colon"
)

// ablyTestConfig has a key for everything and one for little.
func ablyTestConfig() *Config {
	cfg := DefaultConfig()
	cfg.Mode = modeProduction
	cfg.Ably.Enabled = true
	cfg.Ably.Keys = []AblyKey{
		{Name: "app.all", Secret: ablyTestSecret},
		{Name: "app.chat", Secret: ablyTestOther, Capability: map[string][]string{"chat:*": {"subscribe", "publish"}}},
	}
	return &cfg
}

func newTestAblyAuth(t testing.TB, change ...func(*Config)) *ablyAuth {
	t.Helper()
	cfg := ablyTestConfig()
	for _, set := range change {
		set(cfg)
	}
	a, err := newAblyAuth(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// ablyJWT signs claims by hand, as an implementation that is not ours would.
func ablyJWT(kid, claims, secret string) string {
	return signedToken(`{"alg":"HS256","typ":"JWT","kid":"`+kid+`"}`, claims, secret, sha256.New)
}

// ablyClaimsAt returns claims with times in seconds from authTestNow, and whatever else is given.
func ablyClaimsAt(iat, exp float64, more string) string {
	n := float64(authTestNow.Unix())
	return fmt.Sprintf(`{"iat":%.3f,"exp":%.3f%s}`, n+iat, n+exp, more)
}

// upgradeWith is an upgrade with this query.
func upgradeWith(query url.Values) *http.Request {
	r := httptest.NewRequest("GET", "/?"+query.Encode(), nil)
	r.Header.Set("Upgrade", "websocket")
	return r
}

// restWith is a REST request with these headers, name and value in turn.
func restWith(headers ...string) *http.Request {
	r := httptest.NewRequest("GET", "/stats", nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

func inBase64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// wantAblyError checks code and status, and that nothing secret is said: no part of what was sent, and no key's secret.
func wantAblyError(t *testing.T, got *ably.ErrorInfo, code, status int, sent string) {
	t.Helper()
	if got == nil {
		t.Fatalf("admitted, want %d", code)
	}
	if got.Code != code || got.StatusCode != status || got.Message == "" {
		t.Errorf("got %v with status %d, want %d with %d", got, got.StatusCode, code, status)
	}
	for _, secret := range []string{ablyTestSecret, ablyTestOther, sent} {
		if len(secret) > 4 && strings.Contains(got.Error(), secret) {
			t.Errorf("the error holds a secret: %s", got.Message)
		}
	}
}

func TestAKeyAdmitsByQueryAndByHeader(t *testing.T) {
	a := newTestAblyAuth(t)
	key := "app.chat:" + ablyTestOther
	for name, r := range map[string]*http.Request{
		"query":      upgradeWith(url.Values{"key": {key}}),
		"header":     restWith("Authorization", "Basic "+inBase64(key)),
		"lower case": restWith("Authorization", "basic  "+inBase64(key)),
		"both": func() *http.Request {
			r := upgradeWith(url.Values{"key": {"app.all:wrong"}})
			r.Header.Set("Authorization", "Basic "+inBase64(key))
			return r
		}(),
	} {
		id, problem := a.identify(r, authTestNow)
		if problem != nil {
			t.Errorf("%s: %v", name, problem)
		} else if id.keyName != "app.chat" || id.clientID != "*" || id.expires != 0 || id.capability.String() != `{"chat:*":["subscribe","publish"]}` {
			t.Errorf("%s: %+v", name, id)
		}
	}
}

func TestWrongCredentialsAreRefusedAndNotRepeated(t *testing.T) {
	a := newTestAblyAuth(t)
	for _, key := range []string{"app.all:wrong-secret", "app.all", "app.all:", "nobody.knows:" + ablyTestSecret, ":" + ablyTestSecret, ablyTestSecret, "app.all:" + ablyTestSecret + "x", "app.all:" + ablyTestOther, "APP.all:" + ablyTestSecret} {
		_, problem := a.identify(upgradeWith(url.Values{"key": {key}}), authTestNow)
		wantAblyError(t, problem, 40101, 401, key)
		_, problem = a.identify(restWith("Authorization", "Basic "+inBase64(key)), authTestNow)
		wantAblyError(t, problem, 40101, 401, key)
	}
	for _, r := range []*http.Request{
		upgradeWith(nil), upgradeWith(url.Values{"key": {""}, "access_token": {""}}), restWith(),
		restWith("Authorization", "Basic not base64!"), restWith("Authorization", "Digest x"), restWith("Authorization", "Basic"),
	} {
		_, problem := a.identify(r, authTestNow)
		wantAblyError(t, problem, 40101, 401, "")
	}
	r := upgradeWith(nil)
	r.URL.RawQuery = "key=app.all:" + url.QueryEscape(ablyTestSecret) + "&access_token=%zz"
	_, problem := a.identify(r, authTestNow)
	wantAblyError(t, problem, 40000, 400, ablyTestSecret)
}

func TestAJWTAdmitsByQueryAndByHeader(t *testing.T) {
	a := newTestAblyAuth(t)
	token := ablyJWT("app.chat", ablyClaimsAt(-1, 60.5, `,"x-ably-capability":"{\"*\":[\"publish\"]}","x-ably-clientId":"bob"`), ablyTestOther)
	envelope := signedToken(hs256Header, `{"x-ably-token":"`+token+`","exp":1}`, "somebody else's", sha256.New)
	for name, r := range map[string]*http.Request{
		"access_token": upgradeWith(url.Values{"access_token": {token}}),
		"accessToken":  upgradeWith(url.Values{"accessToken": {token}}),
		"base64":       restWith("Authorization", "Bearer "+inBase64(token)),
		"raw":          restWith("Authorization", "bearer "+token),
		"embedded":     restWith("Authorization", "Bearer "+envelope),
	} {
		for range 2 { // the second time from memory
			id, problem := a.identify(r, authTestNow)
			if problem != nil {
				t.Errorf("%s: %v", name, problem)
			} else if id.keyName != "app.chat" || id.clientID != "bob" || id.expires != authTestNow.UnixMilli()+60500 || id.capability.String() != `{"chat:*":["publish"]}` {
				t.Errorf("%s: %+v", name, id)
			}
		}
	}
}

func TestTokensThatDoNotAdmit(t *testing.T) {
	good := ablyClaimsAt(0, 60, "")
	capability := func(text string) string { return ablyClaimsAt(0, 60, `,"x-ably-capability":`+text) }
	for _, row := range []struct {
		name, token  string
		code, status int
	}{
		{"expired this millisecond", ablyJWT("app.all", ablyClaimsAt(-9, 0, ""), ablyTestSecret), 40142, 401},
		{"expired long ago", ablyJWT("app.all", ablyClaimsAt(-90, -60, ""), ablyTestSecret), 40142, 401},
		{"another key's secret", ablyJWT("app.all", good, ablyTestOther), 40144, 401},
		{"changed", strings.Replace(ablyJWT("app.all", good, ablyTestSecret), ".ey", ".ez", 1), 40143, 401},
		{"HS512", signedToken(`{"alg":"HS512","kid":"app.all"}`, good, ablyTestSecret, sha512.New), 40144, 401},
		{"none", base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"app.all"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(good)) + ".", 40144, 401},
		{"crit", signedToken(`{"alg":"HS256","kid":"app.all","crit":["exp"]}`, good, ablyTestSecret, sha256.New), 40144, 401},
		{"unknown kid", ablyJWT("invalid.invalid", good, ablyTestSecret), 40400, 404},
		{"no kid", signedToken(hs256Header, good, ablyTestSecret, sha256.New), 40400, 404},
		{"a path for kid", ablyJWT("../../etc/passwd", good, ablyTestSecret), 40400, 404},
		{"kid of another type", signedToken(`{"alg":"HS256","kid":7}`, good, ablyTestSecret, sha256.New), 40400, 404},
		{"LetShare's own", goodToken(claimsAt(0, 60, "")), 40400, 404},
		{"garbage", "garbage-of-a-token", 40143, 401},
		{"two parts", "a.b", 40143, 401},
		{"too long", strings.Repeat("x.", maxAblyTokenBytes), 40143, 401},
		{"no exp", ablyJWT("app.all", `{"iat":1800000000}`, ablyTestSecret), 40144, 401},
		{"exp of 0", ablyJWT("app.all", `{"exp":0}`, ablyTestSecret), 40144, 401},
		{"exp of another type", ablyJWT("app.all", `{"exp":"1900000000"}`, ablyTestSecret), 40144, 401},
		{"iat of another type", ablyJWT("app.all", `{"exp":1800000060,"iat":"now"}`, ablyTestSecret), 40144, 401},
		{"from the future", ablyJWT("app.all", ablyClaimsAt(31, 60, ""), ablyTestSecret), 40144, 401},
		{"not yet", ablyJWT("app.all", ablyClaimsAt(0, 60, `,"nbf":1800000031`), ablyTestSecret), 40144, 401},
		{"for too long", ablyJWT("app.all", ablyClaimsAt(0, 8760*3600+1, ""), ablyTestSecret), 40003, 400},
		{"capability of another type", ablyJWT("app.all", capability(`{"*":["*"]}`), ablyTestSecret), 40000, 400},
		{"null capability", ablyJWT("app.all", capability(`null`), ablyTestSecret), 40000, 400},
		{"empty capability", ablyJWT("app.all", capability(`""`), ablyTestSecret), 40000, 400},
		{"malformed capability", ablyJWT("app.all", capability(`"{\"*\":[\"all\"]}"`), ablyTestSecret), 40000, 400},
		{"capability beyond the key", ablyJWT("app.chat", capability(`"{\"news\":[\"*\"]}"`), ablyTestOther), 40160, 401},
		{"clientId of another type", ablyJWT("app.all", ablyClaimsAt(0, 60, `,"x-ably-clientId":7`), ablyTestSecret), 40012, 400},
		{"long clientId", ablyJWT("app.all", ablyClaimsAt(0, 60, `,"x-ably-clientId":"`+strings.Repeat("c", 257)+`"`), ablyTestSecret), 40012, 400},
		{"embedded garbage", signedToken(hs256Header, `{"x-ably-token":"x.y.z"}`, "x", sha256.New), 40143, 401},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := newTestAblyAuth(t)
			for range 2 {
				_, problem := a.token(row.token, "", authTestNow)
				wantAblyError(t, problem, row.code, row.status, row.token)
			}
		})
	}
}

func TestATokenEndsToTheMillisecond(t *testing.T) {
	a := newTestAblyAuth(t)
	token := ablyJWT("app.all", ablyClaimsAt(0, 0.123, ""), ablyTestSecret)
	for ms, want := range map[int64]bool{0: true, 122: true, 123: false, 124: false} {
		id, problem := a.token(token, "", authTestNow.Add(time.Duration(ms)*time.Millisecond))
		if (problem == nil) != want {
			t.Errorf("after %d ms: %v", ms, problem)
		}
		if want && id.expires != authTestNow.UnixMilli()+123 {
			t.Errorf("expires is %d", id.expires)
		}
	}
}

func TestWhoIsWho(t *testing.T) {
	a := newTestAblyAuth(t)
	token := func(clientID string) string {
		return ablyJWT("app.all", ablyClaimsAt(0, 60, `,"x-ably-clientId":`+clientID), ablyTestSecret)
	}
	for _, row := range []struct {
		name, token string // "" is the key
		asked, want string
		code        int
	}{
		{"key", "", "", "*", 0},
		{"key, asked", "", "bob", "bob", 0},
		{"key, asked for all", "", "*", "*", 0},
		{"key, too long", "", strings.Repeat("b", 257), "", 40012},
		{"key, not UTF-8", "", "b\xff", "", 40012},
		{"wildcard token", token(`"*"`), "", "*", 0},
		{"wildcard token, asked", token(`"*"`), "bob", "bob", 0},
		{"concrete token", token(`"bob"`), "", "bob", 0},
		{"concrete token, asked for the same", token(`"bob"`), "bob", "bob", 0},
		{"concrete token, asked for another", token(`"bob"`), "eve", "", 40102},
		{"concrete token, asked for all", token(`"bob"`), "*", "", 40102},
		{"token without", token(`null`), "", "", 0},
		{"token without, asked", token(`null`), "bob", "", 40102},
		{"token without, asked for all", token(`""`), "*", "", 40102},
	} {
		t.Run(row.name, func(t *testing.T) {
			query, authorization := url.Values{"clientId": {row.asked}}, ""
			if row.token == "" {
				query.Set("key", "app.all:"+ablyTestSecret)
				authorization = "Basic " + inBase64("app.all:"+ablyTestSecret)
			} else {
				query.Set("access_token", row.token)
				authorization = "Bearer " + inBase64(row.token)
			}
			for _, r := range []*http.Request{upgradeWith(query), restWith("Authorization", authorization, "X-Ably-ClientId", inBase64(row.asked))} {
				id, problem := a.identify(r, authTestNow)
				switch {
				case row.code != 0:
					wantAblyError(t, problem, row.code, map[int]int{40102: 401, 40012: 400}[row.code], row.asked)
				case problem != nil:
					t.Error(problem)
				case id.clientID != row.want:
					t.Errorf("clientId %q, want %q", id.clientID, row.want)
				}
			}
		})
	}
	// In REST the query's clientId is what is looked for, not who looks.
	r := restWith("Authorization", "Basic "+inBase64("app.all:"+ablyTestSecret))
	r.URL.RawQuery = "clientId=bob"
	if id, problem := a.identify(r, authTestNow); problem != nil || id.clientID != "*" {
		t.Errorf("%+v, %v", id, problem)
	}
	_, problem := a.identify(restWith("Authorization", "Basic "+inBase64("app.all:"+ablyTestSecret), "X-Ably-ClientId", "%"), authTestNow)
	wantAblyError(t, problem, 40012, 400, "")
}

func TestAnIdentityHoldsAsLongAsItsKeyIsTheSame(t *testing.T) {
	old := newTestAblyAuth(t)
	id, problem := old.identify(upgradeWith(url.Values{"key": {"app.chat:" + ablyTestOther}}), authTestNow)
	if problem != nil {
		t.Fatal(problem)
	}
	for name, row := range map[string]struct {
		change func(*Config)
		want   bool
	}{
		"nothing":              {func(*Config) {}, true},
		"another key gone":     {func(c *Config) { c.Ably.Keys = c.Ably.Keys[1:] }, true},
		"key gone":             {func(c *Config) { c.Ably.Keys = c.Ably.Keys[:1] }, false},
		"another secret":       {func(c *Config) { c.Ably.Keys[1].Secret = "new" }, false},
		"a smaller capability": {func(c *Config) { c.Ably.Keys[1].Capability = map[string][]string{"chat:*": {"subscribe"}} }, false},
	} {
		if got := newTestAblyAuth(t, row.change).admits(id); got != row.want {
			t.Errorf("%s: %v, want %v", name, got, row.want)
		}
	}
	if old.admits(ablyIdentity{keyName: "app.all"}) {
		t.Error("an identity without grounds is admitted")
	}
}

func TestTheDevelopmentKeyFollowsTheSecretAndIsForLocalModeAlone(t *testing.T) {
	plain, own := DefaultConfig(), DefaultConfig()
	own.JWT.Secret = goodSecret
	first, second := plain.ablyKeys(), own.ablyKeys()
	if len(first) != 1 || first[0].Name != "letshare.dev" || len(first[0].Secret) != 32 || first[0].Secret == second[0].Secret {
		t.Fatalf("%v and %v", first, second)
	}
	a, err := newAblyAuth(&plain)
	if err != nil {
		t.Fatal(err)
	}
	if _, problem := a.identify(upgradeWith(url.Values{"key": {"letshare.dev:" + first[0].Secret}}), authTestNow); problem != nil {
		t.Error(problem)
	}
	_, problem := a.identify(upgradeWith(url.Values{"key": {"letshare.dev:" + second[0].Secret}}), authTestNow)
	wantAblyError(t, problem, 40101, 401, second[0].Secret)
	own.Mode = modeProduction
	if keys := own.ablyKeys(); len(keys) != 0 {
		t.Errorf("production has %v", keys)
	}
	off := DefaultConfig()
	off.Ably.Enabled = false
	if a, err := newAblyAuth(&off); a != nil || err != nil {
		t.Errorf("switched off: %v, %v", a, err)
	}
}

func TestAblyPagesMayComeFromAnywhereUnlessTheyAreListed(t *testing.T) {
	server := newTestAuthenticator(t, authTestConfig())
	open := newTestAblyAuth(t)
	listed := newTestAblyAuth(t, func(c *Config) { c.Ably.AllowedOrigins = []string{"https://app.example"} })
	for _, row := range []struct {
		origin string
		want   bool
	}{
		{"", true}, {"https://app.example", true}, {"http://own.example", true},
		{"https://evil.example", false}, {"null", false}, {"https://app.example.evil.example", false}, {"https://app.example, https://app.example", false},
	} {
		r := upgradeWith(nil)
		r.Host = "own.example"
		if row.origin != "" {
			r.Header["Origin"] = strings.Split(row.origin, ", ")
		}
		if problem := open.checkOrigin(r, server); problem != nil {
			t.Errorf("%q with an open list: %v", row.origin, problem)
		}
		if problem := listed.checkOrigin(r, server); row.want != (problem == nil) {
			t.Errorf("%q: %v", row.origin, problem)
		} else if problem != nil {
			wantAblyError(t, problem, 40300, 403, row.origin)
		}
	}
}

// hmacOf is base64(HMAC-SHA256), as a client signs token requests.
func hmacOf(secret, text string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
