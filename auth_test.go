package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"hash"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
)

const (
	authTestSecret   = "a secret of the tests, 32 bytes or more"
	authTestPrevious = "the secret before it, as long as it must be"
	authTestStatic   = "opaque+token/of an instance="
	hs256Header      = `{"alg":"HS256","typ":"JWT"}`
)

// authTestNow is the clock of the token tests.
var authTestNow = time.Unix(1_800_000_000, 0)

func authTestConfig() *Config {
	return &Config{
		JWT:  JWTConfig{Secret: authTestSecret, PreviousSecrets: []string{authTestPrevious}, ExpirationHours: 720, MaxLifetimeHours: 8760},
		Auth: AuthConfig{StaticTokens: []string{"another static token", authTestStatic}},
		CORS: CORSConfig{AllowedOrigins: []string{"https://letshare.fun"}},
	}
}

func newTestAuthenticator(t testing.TB, cfg *Config) *Authenticator {
	t.Helper()
	a, err := NewAuthenticator(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// signedToken builds a token by hand, as an implementation that is not ours would: with whatever header and claims.
func signedToken(header, claims, key string, algorithm func() hash.Hash) string {
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	mac := hmac.New(algorithm, []byte(key))
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func goodToken(claims string) string {
	return signedToken(hs256Header, claims, authTestSecret, sha256.New)
}

// claimsAt returns claims of user123 with times in seconds from authTestNow, and whatever else is given.
func claimsAt(iat, exp int, more string) string {
	n := int(authTestNow.Unix())
	return fmt.Sprintf(`{"user_id":"user123","iat":%d,"exp":%d%s}`, n+iat, n+exp, more)
}

func tokenRequest(token string) *http.Request {
	return httptest.NewRequest("GET", "/ws?"+url.Values{"token": {token}}.Encode(), nil)
}

// wantIdentify asks a about r and checks the reason ("" for admitted). What is said of a refusal must hold no part of the token.
func wantIdentify(t *testing.T, a *Authenticator, r *http.Request, token, want string) Identity {
	t.Helper()
	id, refusal, detail := a.Identify(r, authTestNow)
	if refusal == nil {
		if want != "" || detail != nil {
			t.Fatalf("admitted as %q (detail %v), want %q", id.UserID, detail, want)
		}
		return id
	}
	if refusal.Reason.String() != want {
		t.Fatalf("refused with %s (%v), want %q", refusal.Reason, detail, want)
	}
	wantCode := 401
	if want == "bad_user_id" {
		wantCode = 400
	}
	if refusal.Code != wantCode || refusal.Message == "" || detail == nil {
		t.Errorf("refusal %+v, detail %v; want code %d, a message and a detail", refusal, detail, wantCode)
	}
	if id != (Identity{}) {
		t.Errorf("a refused request has the identity %+v", id)
	}
	for _, said := range []string{refusal.Message, detail.Error()} {
		for _, part := range append(strings.Split(token, "."), authTestSecret, authTestPrevious, authTestStatic) {
			if len(part) > 5 && strings.Contains(said, part) {
				t.Errorf("%q quotes %q", said, part)
			}
		}
	}
	return id
}

func TestTokensAreAdmittedOrRefusedForTheRightReason(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)}))
	good := claimsAt(0, 3600, "")
	withHeader := func(header string) string { return signedToken(header, good, authTestSecret, sha256.New) }
	unsigned := strings.Join(strings.Split(signedToken(`{"alg":"none"}`, good, "", sha256.New), ".")[:2], ".") + "."
	altered := goodToken(good)
	altered = altered[:len(altered)-20] + strings.Map(func(r rune) rune { return 'A' }, altered[len(altered)-20:])

	// The last of a signature's 43 characters has two bits to spare: 'A' is the same as 'B' to a lenient decoder.
	respelled := goodToken(good)
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	respelled = respelled[:len(respelled)-1] + string(alphabet[strings.IndexByte(alphabet, respelled[len(respelled)-1])+1])

	for _, row := range []struct{ name, token, want string }{
		{"good", goodToken(good), ""},
		{"previous secret", signedToken(hs256Header, good, authTestPrevious, sha256.New), ""},
		{"static", authTestStatic, ""},
		{"no typ", withHeader(`{"alg":"HS256"}`), ""},

		{"empty", "", "token_missing"},
		{"text", "hello", "token_malformed"},
		{"part of a static token", authTestStatic[:len(authTestStatic)-1], "token_malformed"},
		{"only dots", "..", "token_malformed"},
		{"10000 dots", strings.Repeat(".", 10000), "token_malformed"},
		{"4000 dots", strings.Repeat(".", 4000), "token_malformed"},
		{"1 MiB", strings.Repeat("A", 1<<20), "token_malformed"},
		{"over 4 KiB, well signed", goodToken(claimsAt(0, 3600, `,"x":"`+strings.Repeat("x", 4096)+`"`)), "token_malformed"},
		{"header is no JSON", signedToken(`HS256`, good, authTestSecret, sha256.New), "token_malformed"},
		{"signature in another spelling", respelled, "token_malformed"},
		{"claims are no JSON", goodToken(`user123`), "token_malformed"},
		{"claims are an array", goodToken(`[]`), "token_malformed"},

		{"alg none", unsigned, "token_signature"},
		{"alg None, with a signature", withHeader(`{"alg":"None"}`), "token_signature"},
		{"alg missing", withHeader(`{}`), "token_signature"},
		{"alg a number", withHeader(`{"alg":256}`), "token_signature"},
		{"header null", withHeader(`null`), "token_signature"},
		{"HS512 with our secret", signedToken(`{"alg":"HS512"}`, good, authTestSecret, sha512.New), "token_signature"},
		{"HS512 named, HS256 signed", withHeader(`{"alg":"HS512"}`), "token_signature"},
		{"RS256 signed with a public key as HMAC", signedToken(`{"alg":"RS256"}`, good, public, sha256.New), "token_signature"},
		{"HS256 signed with a public key", signedToken(hs256Header, good, public, sha256.New), "token_signature"},
		{"empty key", signedToken(hs256Header, good, "", sha256.New), "token_signature"},
		{"another secret", signedToken(hs256Header, good, "letshare-jwt-secret-key-2024", sha256.New), "token_signature"},
		{"altered signature", altered, "token_signature"},
		{"no signature", strings.Join(strings.Split(goodToken(good), ".")[:2], ".") + ".", "token_signature"},
		{"unknown kid", withHeader(`{"alg":"HS256","kid":"other"}`), "token_signature"},
		{"kid is a path", withHeader(`{"alg":"HS256","kid":"../../etc/passwd"}`), "token_signature"},
		{"kid is empty", withHeader(`{"alg":"HS256","kid":""}`), "token_signature"},
		{"crit", withHeader(`{"alg":"HS256","crit":["b64"],"b64":false}`), "token_signature"},

		{"expired 1 s ago", goodToken(claimsAt(-60, -1, "")), ""},
		{"expired 29 s ago", goodToken(claimsAt(-60, -29, "")), ""},
		{"expired 30 s ago", goodToken(claimsAt(-60, -30, "")), "token_expired"},
		{"expired 31 s ago", goodToken(claimsAt(-60, -31, "")), "token_expired"},
		{"nbf in 30 s", goodToken(claimsAt(0, 3600, fmt.Sprintf(`,"nbf":%d`, authTestNow.Unix()+30))), ""},
		{"nbf in 31 s", goodToken(claimsAt(0, 3600, fmt.Sprintf(`,"nbf":%d`, authTestNow.Unix()+31))), "token_not_yet_valid"},
		{"nbf in 40 s", goodToken(claimsAt(0, 3600, fmt.Sprintf(`,"nbf":%d`, authTestNow.Unix()+40))), "token_not_yet_valid"},
		{"iat in 30 s", goodToken(claimsAt(30, 3600, "")), ""},
		{"iat in 31 s", goodToken(claimsAt(31, 3600, "")), "token_not_yet_valid"},
		{"iat hides a long lifetime", goodToken(claimsAt(10*365*86400-60, 10*365*86400, "")), "token_not_yet_valid"},
		{"as long as may be", goodToken(claimsAt(0, 8760*3600, "")), ""},
		{"a second longer", goodToken(claimsAt(0, 8760*3600+1, "")), "token_claims"},
		{"exp in 10 years", goodToken(claimsAt(0, 10*365*86400, "")), "token_claims"},
		{"exp in 10 years, no iat", goodToken(fmt.Sprintf(`{"user_id":"u","exp":%d}`, authTestNow.Unix()+10*365*86400)), "token_claims"},
		{"exp with a fraction, no iat", goodToken(fmt.Sprintf(`{"user_id":"u","exp":%d.5}`, authTestNow.Unix()+60)), ""},

		{"no exp", goodToken(`{"user_id":"user123"}`), "token_claims"},
		{"exp 0", goodToken(`{"user_id":"user123","exp":0}`), "token_claims"},
		{"exp 0.5", goodToken(`{"user_id":"user123","exp":0.5}`), "token_claims"},
		{"exp null", goodToken(`{"user_id":"user123","exp":null}`), "token_claims"},
		{"exp a string", goodToken(`{"user_id":"user123","exp":"1800003600"}`), "token_claims"},
		{"exp negative", goodToken(`{"user_id":"user123","exp":-1}`), "token_claims"},
		{"exp 1e400", goodToken(`{"user_id":"user123","exp":1e400}`), "token_claims"},
		{"exp after the year 9999", goodToken(`{"user_id":"user123","exp":1e15}`), "token_claims"},
		{"EXP is another claim", goodToken(`{"user_id":"user123","EXP":1800003600}`), "token_claims"},
		{"iat a string", goodToken(claimsAt(0, 3600, `,"iat":"now"`)), "token_claims"},
		{"nbf true", goodToken(claimsAt(0, 3600, `,"nbf":true`)), "token_claims"},
		{"no claims", goodToken(`{}`), "token_claims"},
		{"claims null", goodToken(`null`), "token_claims"},
		{"user_id missing", goodToken(`{"exp":1800003600}`), "token_claims"},
		{"user_id empty", goodToken(claimsAt(0, 3600, `,"user_id":""`)), "token_claims"},
		{"user_id a number", goodToken(claimsAt(0, 3600, `,"user_id":7`)), "token_claims"},
		{"user_id of 128 bytes", goodToken(claimsAt(0, 3600, `,"user_id":"`+strings.Repeat("u", 128)+`"`)), ""},
		{"user_id of 129 bytes", goodToken(claimsAt(0, 3600, `,"user_id":"`+strings.Repeat("u", 129)+`"`)), "token_claims"},
		{"user_id is not UTF-8", goodToken(claimsAt(0, 3600, ",\"user_id\":\"a\xff\"")), "token_claims"},
		{"user_type an object", goodToken(claimsAt(0, 3600, `,"user_type":{}`)), "token_claims"},
		{"room_id null", goodToken(claimsAt(0, 3600, `,"room_id":null`)), "token_claims"},
		{"room_id a list", goodToken(claimsAt(0, 3600, `,"room_id":["a"]`)), "token_claims"},
		{"bind_user a string", goodToken(claimsAt(0, 3600, `,"bind_user":"true"`)), "token_claims"},
	} {
		t.Run(row.name, func(t *testing.T) {
			wantIdentify(t, newTestAuthenticator(t, authTestConfig()), tokenRequest(row.token), row.token, row.want)
		})
	}
}

func TestATokenSaysWhoAndWhere(t *testing.T) {
	a := newTestAuthenticator(t, authTestConfig())
	token := goodToken(claimsAt(0, 3600, `,"user_type":"desktop","room_id":"room456","bind_user":true`))
	got := wantIdentify(t, a, tokenRequest(token), token, "")
	want := Identity{UserID: "user123", UserType: "desktop", Room: "room456", Bound: true, ExpiresAt: authTestNow.Add(time.Hour), key: keyPrint(authTestSecret)}
	if got != want {
		t.Errorf("identity %+v, want %+v", got, want)
	}
}

func TestTheTokenIsFoundWhereverAClientCanPutIt(t *testing.T) {
	a := newTestAuthenticator(t, authTestConfig())
	named := func(user string) string { return goodToken(claimsAt(0, 3600, `,"user_id":"`+user+`"`)) }
	u, h, p := named("from-url"), named("from-header"), named("from-protocol")
	for _, row := range []struct {
		name, query, authorization string
		protocols                  []string
		want, reason               string
	}{
		{name: "url before all", query: "token=" + u, authorization: "Bearer " + h, protocols: []string{tokenSubprotocol + ", " + p}, want: "from-url"},
		{name: "header before subprotocol", authorization: "Bearer " + h, protocols: []string{tokenSubprotocol + ", " + p}, want: "from-header"},
		{name: "scheme in any case", authorization: "bearer  " + h, want: "from-header"},
		{name: "subprotocol", protocols: []string{tokenSubprotocol + "," + p}, want: "from-protocol"},
		{name: "subprotocol among others", protocols: []string{"chat, " + tokenSubprotocol + " , " + p + ", more"}, want: "from-protocol"},
		{name: "subprotocol over two headers", protocols: []string{tokenSubprotocol, p}, want: "from-protocol"},
		{name: "an empty URL token is none", query: "token=", authorization: "Bearer " + h, want: "from-header"},
		{name: "a bad one is not passed over", query: "token=bad", authorization: "Bearer " + h, reason: "token_malformed"},
		{name: "Basic is not Bearer", authorization: "Basic " + h, reason: "token_missing"},
		{name: "Bearer of nothing", authorization: "Bearer", reason: "token_missing"},
		{name: "subprotocol of nothing", protocols: []string{tokenSubprotocol}, reason: "token_missing"},
		{name: "token before its name", protocols: []string{p + ", " + tokenSubprotocol}, reason: "token_missing"},
		{name: "a query that cannot be decoded", query: "token=%zz", reason: "token_malformed"},
		{name: "a static token as the app sends it", query: "token=opaque+token/of%20an%20instance="},
		{name: "a static token in a header", authorization: "Bearer " + authTestStatic},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/ws?"+row.query, nil)
			if row.authorization != "" {
				r.Header.Set("Authorization", row.authorization)
			}
			r.Header["Sec-Websocket-Protocol"] = row.protocols
			if id := wantIdentify(t, a, r, u, row.reason); row.want != "" && id.UserID != row.want {
				t.Errorf("identity %q, want %q", id.UserID, row.want)
			}
		})
	}
}

func TestTheURLSaysWhoUnlessTheTokenIsBound(t *testing.T) {
	a := newTestAuthenticator(t, authTestConfig())
	free, bound := goodToken(claimsAt(0, 60, "")), goodToken(claimsAt(0, 60, `,"bind_user":true`))
	for _, row := range []struct{ name, token, userID, want, reason string }{
		{"no userId", free, "", "user123", ""},
		{"another userId", free, "\u5f20\u4e09\U0001f600:ab12cd", "\u5f20\u4e09\U0001f600:ab12cd", ""},
		{"128 bytes", free, strings.Repeat("x", 128), strings.Repeat("x", 128), ""},
		{"129 bytes", free, strings.Repeat("x", 129), "", "bad_user_id"},
		{"not UTF-8", free, "a\xff", "", "bad_user_id"},
		{"bound, no userId", bound, "", "user123", ""},
		{"bound, the same", bound, "user123", "user123", ""},
		{"bound, another", bound, "user124", "", "token_claims"},
		{"bound, another case", bound, "USER123", "", "token_claims"},
		{"static with userId", authTestStatic, "me", "me", ""},
		{"the token comes first", "bad", strings.Repeat("x", 129), "", "token_malformed"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/?"+url.Values{"token": {row.token}, "userId": {row.userID}}.Encode(), nil)
			if id := wantIdentify(t, a, r, row.token, row.reason); id.UserID != row.want || id.Guest {
				t.Errorf("identity %+v, want %q", id, row.want)
			}
		})
	}
	r := httptest.NewRequest("GET", "/?token="+free+"&userId=%zz", nil)
	wantIdentify(t, a, r, free, "bad_user_id")
}

func TestAStaticTokenAloneIsAGuestForEver(t *testing.T) {
	a := newTestAuthenticator(t, authTestConfig())
	seen := map[string]bool{}
	for range 20 {
		id := wantIdentify(t, a, tokenRequest(authTestStatic), authTestStatic, "")
		if !id.Guest || !strings.HasPrefix(id.UserID, "guest-") || len(id.UserID) != len("guest-")+16 || !id.ExpiresAt.IsZero() || id.Room != "" || id.Bound {
			t.Fatalf("identity %+v", id)
		}
		seen[id.UserID] = true
	}
	if len(seen) != 20 {
		t.Errorf("%d guests have %d names", 20, len(seen))
	}
}

func TestAnAuthenticatorRefusesWhatWouldLetAnyoneIn(t *testing.T) {
	for _, row := range []struct {
		name, want string
		change     func(*Config)
	}{
		{"no secret", "jwt.secret is empty", func(c *Config) { c.JWT.Secret = "" }},
		{"empty previous secret", "jwt.previous_secrets[1] is empty", func(c *Config) { c.JWT.PreviousSecrets = append(c.JWT.PreviousSecrets, "") }},
		{"a public key as secret", "PEM", func(c *Config) { c.JWT.Secret = "-----BEGIN PUBLIC KEY-----\nhidden\n" }},
		{"empty static token", "auth.static_tokens[0]", func(c *Config) { c.Auth.StaticTokens = []string{""} }},
		{"lifetime 0", "jwt.max_lifetime_hours", func(c *Config) { c.JWT.MaxLifetimeHours = 0 }},
		{"lifetime beyond a duration", "jwt.max_lifetime_hours", func(c *Config) { c.JWT.MaxLifetimeHours = 1e9 }},
		{"origin", "cors.allowed_origins", func(c *Config) { c.CORS.AllowedOrigins = []string{"*evil"} }},
		{"proxy", "server.trusted_proxies", func(c *Config) { c.Server.TrustedProxies = []string{"10.0.0.0/33"} }},
	} {
		t.Run(row.name, func(t *testing.T) {
			cfg := authTestConfig()
			row.change(cfg)
			_, err := NewAuthenticator(cfg)
			if _, mintErr := MintToken(cfg, Claims{UserID: "u"}, authTestNow); cfg.JWT.Secret == "" && mintErr == nil {
				t.Error("a token is signed with an empty secret")
			}
			if err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "hidden") {
				t.Errorf("error %v, want one with %q", err, row.want)
			}
		})
	}
}

func TestClientAddressIsTheRightMostUntrustedHop(t *testing.T) {
	for _, row := range []struct {
		name, trusted, peer string
		forwarded           []string
		want                string
	}{
		{"nobody is trusted", "", "192.0.2.1:5", []string{"203.0.113.9"}, "192.0.2.1"},
		{"the peer is not trusted", "10.0.0.0/8", "192.0.2.1:5", []string{"203.0.113.9"}, "192.0.2.1"},
		{"one proxy", "10.0.0.0/8", "10.0.0.1:5", []string{"203.0.113.9"}, "203.0.113.9"},
		{"no header", "10.0.0.0/8", "10.0.0.1:5", nil, "10.0.0.1"},
		{"empty header", "10.0.0.0/8", "10.0.0.1:5", []string{""}, "10.0.0.1"},
		{"forged hops to the left", "10.0.0.0/8", "10.0.0.1:5", []string{"1.2.3.4, 203.0.113.9"}, "203.0.113.9"},
		{"a chain of proxies", "10.0.0.0/8 172.16.0.1", "10.0.0.1:5", []string{"1.2.3.4, 203.0.113.9, 172.16.0.1,10.9.9.9"}, "203.0.113.9"},
		{"over several headers", "10.0.0.0/8", "10.0.0.1:5", []string{"1.2.3.4", "203.0.113.9", "10.0.0.2"}, "203.0.113.9"},
		{"all are trusted", "10.0.0.0/8", "10.0.0.1:5", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"garbage ends the walk", "10.0.0.0/8", "10.0.0.1:5", []string{"203.0.113.9, unknown, 10.0.0.2"}, "10.0.0.2"},
		{"garbage at once", "10.0.0.0/8", "10.0.0.1:5", []string{"203.0.113.9, ../../x"}, "10.0.0.1"},
		{"with ports", "10.0.0.0/8", "10.0.0.1:5", []string{"203.0.113.9:4711"}, "203.0.113.9"},
		{"IPv6 in brackets", "10.0.0.0/8", "10.0.0.1:5", []string{"[2001:db8::1]"}, "2001:db8::1"},
		{"IPv6 with a port", "::1", "[::1]:5", []string{"[2001:db8::1]:4711"}, "2001:db8::1"},
		{"IPv6 with a zone", "fe80::/10", "[fe80::1%eth0]:5", []string{"2001:db8::1%x"}, "2001:db8::1"},
		{"a mapped peer is IPv4", "10.0.0.0/8", "[::ffff:10.0.0.1]:5", []string{"::ffff:203.0.113.9"}, "203.0.113.9"},
		{"a mapped proxy is IPv4", "::ffff:10.0.0.0/104", "10.0.0.1:5", []string{"203.0.113.9"}, "203.0.113.9"},
		{"unix, not trusted", "10.0.0.0/8", "@", []string{"203.0.113.9"}, "invalid IP"},
		{"unix, trusted", "unix", "@", []string{"203.0.113.9"}, "203.0.113.9"},
		{"unix without a name", "unix", "", []string{"203.0.113.9"}, "203.0.113.9"},
		{"unix is not everyone", "unix", "192.0.2.1:5", []string{"203.0.113.9"}, "192.0.2.1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			cfg := authTestConfig()
			cfg.Server.TrustedProxies = strings.Fields(row.trusted)
			r := httptest.NewRequest("GET", "/ws", nil)
			r.RemoteAddr = row.peer
			r.Header["X-Forwarded-For"] = row.forwarded
			if got := newTestAuthenticator(t, cfg).ClientAddress(r).String(); got != row.want {
				t.Errorf("client address %s, want %s", got, row.want)
			}
		})
	}
}

func TestOneIPv6HouseholdIsOneClient(t *testing.T) {
	key := func(s string) netip.Prefix { return addressKey(netip.MustParseAddr(s)) }
	if key("2001:db8:0:1::1") != key("2001:db8:0:1:ffff::2") {
		t.Error("two addresses of one /64 count as two clients")
	}
	if key("2001:db8:0:1::1") == key("2001:db8:0:2::1") {
		t.Error("two /64 count as one client")
	}
	if key("192.0.2.1") == key("192.0.2.2") || key("192.0.2.1").String() != "192.0.2.1/32" {
		t.Errorf("IPv4 is not counted by address: %s", key("192.0.2.1"))
	}
	if addressKey(netip.Addr{}) != (netip.Prefix{}) {
		t.Error("no address has a key")
	}
}

// FuzzToken: whatever the bytes, there is no panic, and nobody comes in without the secret.
func FuzzToken(f *testing.F) {
	good := goodToken(claimsAt(0, 3600, ""))
	f.Add(good)
	f.Add(signedToken(`{"alg":"none"}`, claimsAt(0, 3600, ""), "", sha256.New))
	f.Add(signedToken(hs256Header, `{"exp":1e400}`, authTestSecret, sha256.New))
	f.Add("a.b.c")
	cfg := authTestConfig()
	cfg.Auth.StaticTokens = nil
	a, err := NewAuthenticator(cfg)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, token string) {
		id, refusal, detail := a.tokenIdentity(token, authTestNow)
		if (refusal == nil) != (detail == nil) || (refusal == nil) != (id.UserID != "") {
			t.Fatalf("identity %+v, refusal %+v, detail %v", id, refusal, detail)
		}
		if report := a.inspect(token, authTestNow); (report.refusal == nil) != (refusal == nil) {
			t.Fatal("inspect judges differently")
		}
		// The same bytes as claims, well signed: they are judged without a panic, and only with a user and an end.
		if id, refusal, _ := a.tokenIdentity(goodToken(token), authTestNow); refusal == nil && (id.UserID == "" || !id.ExpiresAt.After(authTestNow.Add(-tokenLeeway))) {
			t.Fatalf("admitted %+v", id)
		}
		if refusal != nil || token == good {
			return
		}
		parts := strings.Split(strings.NewReplacer("\r", "", "\n", "").Replace(token), ".")
		header, _ := base64.RawURLEncoding.DecodeString(parts[0])
		claims, _ := base64.RawURLEncoding.DecodeString(parts[1])
		for _, secret := range []string{authTestSecret, authTestPrevious} {
			if signedToken(string(header), string(claims), secret, sha256.New) == strings.Join(parts, ".") {
				return
			}
		}
		t.Fatal("admitted without a good signature")
	})
}
