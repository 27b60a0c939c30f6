package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"letshare/ably"
)

// signedRequest is a token request of app.all at authTestNow, changed, then signed with secret as an SDK would.
func signedRequest(t testing.TB, secret string, change map[string]any) []byte {
	t.Helper()
	q := map[string]any{"keyName": "app.all", "timestamp": authTestNow.UnixMilli(), "nonce": "1234567890123456"}
	maps.Copy(q, change)
	text := func(name string) string {
		if q[name] == nil {
			return ""
		}
		return fmt.Sprint(q[name])
	}
	signed := ""
	for _, name := range []string{"keyName", "ttl", "capability", "clientId", "timestamp", "nonce"} {
		signed += text(name) + "\n"
	}
	if q["mac"] == nil {
		q["mac"] = hmacOf(secret, signed)
	}
	return []byte(toJSON(t, q))
}

// requestToken asks a for a token at authTestNow, by a request that is read from body.
func requestAblyToken(a *ablyAuth, nonces *ablyNonces, body []byte, now time.Time) (ablyTokenDetails, *ably.ErrorInfo) {
	q, problem := parseAblyTokenRequest(body)
	if problem != nil {
		return ablyTokenDetails{}, problem
	}
	return a.issue("app.all", q, nonces, now)
}

func TestATokenRequestIsAnsweredWithWhatItAsksFor(t *testing.T) {
	a := newTestAblyAuth(t)
	for _, row := range []struct {
		name     string
		change   map[string]any
		ttl      int64
		text     string // of the capability
		clientID string
	}{
		{"nothing asked", nil, 3600_000, `{"*":["*"]}`, ""},
		{"everything as numbers", map[string]any{"ttl": 123, "capability": `{"a":["publish"]}`, "clientId": "bob"}, 123, `{"a":["publish"]}`, "bob"},
		{"everything as texts", map[string]any{"ttl": "1", "timestamp": strconv.FormatInt(authTestNow.UnixMilli(), 10)}, 1, `{"*":["*"]}`, ""},
		{"any client", map[string]any{"clientId": "*"}, 3600_000, `{"*":["*"]}`, "*"},
		{"strange characters", map[string]any{"clientId": "zoë \"<&>\" 文", "capability": "{ \"a\": [\"publish\",\n\"history\"] }"}, 3600_000, `{"a":["history","publish"]}`, "zoë \"<&>\" 文"},
		{"a day", map[string]any{"ttl": 86400_000}, 86400_000, `{"*":["*"]}`, ""},
		{"nulls and empty texts", map[string]any{"ttl": nil, "capability": nil, "clientId": ""}, 3600_000, `{"*":["*"]}`, ""},
		{"a clock that is behind", map[string]any{"timestamp": authTestNow.UnixMilli() - 600_000}, 3600_000, `{"*":["*"]}`, ""},
		{"a clock that is ahead", map[string]any{"timestamp": authTestNow.UnixMilli() + 600_000}, 3600_000, `{"*":["*"]}`, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, problem := requestAblyToken(a, &ablyNonces{}, signedRequest(t, ablyTestSecret, row.change), authTestNow)
			if problem != nil {
				t.Fatal(problem)
			}
			if got.keyName != "app.all" || got.issued != authTestNow.UnixMilli() || got.expires != got.issued+row.ttl || got.capability != row.text || got.clientID != row.clientID {
				t.Errorf("%+v", got)
			}
			last := time.UnixMilli(got.expires - 1)
			id, problem := a.token(got.token, "", last)
			if problem != nil {
				t.Fatalf("a millisecond before its end: %v", problem)
			}
			if id.expires != got.expires || id.clientID != row.clientID || id.capability.String() != row.text {
				t.Errorf("the token admits %+v", id)
			}
			_, problem = a.token(got.token, "", last.Add(time.Millisecond))
			wantAblyError(t, problem, 40142, 401, got.token)
		})
	}
}

func TestTokenRequestsThatAreRefused(t *testing.T) {
	now := authTestNow.UnixMilli()
	for _, row := range []struct {
		name         string
		body         []byte
		code, status int
	}{
		{"another secret", signedRequest(t, ablyTestOther, nil), 40101, 401},
		{"unknown key", signedRequest(t, ablyTestSecret, map[string]any{"keyName": "no.key"}), 40101, 401},
		{"another key than the URL's", signedRequest(t, ablyTestOther, map[string]any{"keyName": "app.chat"}), 40101, 401},
		{"bad mac", signedRequest(t, ablyTestSecret, map[string]any{"mac": "12345"}), 40101, 401},
		{"changed behind the mac", []byte(strings.Replace(string(signedRequest(t, ablyTestSecret, map[string]any{"clientId": "bob"})), `"bob"`, `"eve"`, 1)), 40101, 401},
		{"ttl of 0", signedRequest(t, ablyTestSecret, map[string]any{"ttl": 0}), 40003, 400},
		{"negative ttl", signedRequest(t, ablyTestSecret, map[string]any{"ttl": -1}), 40003, 400},
		{"ttl over a day", signedRequest(t, ablyTestSecret, map[string]any{"ttl": 86400_001}), 40003, 400},
		{"ttl of a year", signedRequest(t, ablyTestSecret, map[string]any{"ttl": "31536000000"}), 40003, 400},
		{"ttl that is none", signedRequest(t, ablyTestSecret, map[string]any{"ttl": "notanumber"}), 40003, 400},
		{"ttl with a fraction", signedRequest(t, ablyTestSecret, map[string]any{"ttl": "1.5"}), 40003, 400},
		{"huge ttl", signedRequest(t, ablyTestSecret, map[string]any{"ttl": "99999999999999999999"}), 40003, 400},
		{"no timestamp", signedRequest(t, ablyTestSecret, map[string]any{"timestamp": nil}), 40104, 401},
		{"old timestamp", signedRequest(t, ablyTestSecret, map[string]any{"timestamp": now - 600_001}), 40104, 401},
		{"early timestamp", signedRequest(t, ablyTestSecret, map[string]any{"timestamp": now + 600_001}), 40104, 401},
		{"timestamp in seconds", signedRequest(t, ablyTestSecret, map[string]any{"timestamp": now / 1000}), 40104, 401},
		{"no nonce", signedRequest(t, ablyTestSecret, map[string]any{"nonce": ""}), 40000, 400},
		{"empty operations", signedRequest(t, ablyTestSecret, map[string]any{"capability": `{"a":[]}`}), 40000, 400},
		{"* beside others", signedRequest(t, ablyTestSecret, map[string]any{"capability": `{"a":["*","publish"]}`}), 40000, 400},
		{"unknown operation", signedRequest(t, ablyTestSecret, map[string]any{"capability": `{"a":["publish_"]}`}), 40000, 400},
		{"capability as an object", []byte(`{"keyName":"app.all","capability":{"*":["*"]}}`), 40000, 400},
		{"nothing left", signedRequest(t, ablyTestSecret, map[string]any{"capability": `{"[meta]*":["*"]}`}), 40160, 401},
		{"long clientId", signedRequest(t, ablyTestSecret, map[string]any{"clientId": strings.Repeat("c", 257)}), 40012, 400},
		{"a line feed that moves the fields", signedRequest(t, ablyTestSecret, map[string]any{"clientId": "bob\n" + strconv.FormatInt(now, 10)}), 40000, 400},
		{"no object", []byte(`[]`), 40000, 400},
		{"no JSON", []byte(`keyName=app.all`), 40000, 400},
		{"nothing", nil, 40000, 400},
		{"numbers of another type", []byte(`{"keyName":"app.all","ttl":{}}`), 40000, 400},
	} {
		t.Run(row.name, func(t *testing.T) {
			nonces := &ablyNonces{}
			_, problem := requestAblyToken(newTestAblyAuth(t), nonces, row.body, authTestNow)
			wantAblyError(t, problem, row.code, row.status, string(row.body))
			if len(nonces.until) != 0 {
				t.Error("what is refused is remembered")
			}
		})
	}
}

func TestANonceCountsOnceForAsLongAsItsTimestampDoes(t *testing.T) {
	a, nonces := newTestAblyAuth(t), &ablyNonces{}
	body := signedRequest(t, ablyTestSecret, nil)
	for minutes, code := range []int{0, 40105, 40105, 40105, 40105, 40105, 40105, 40105, 40105, 40105, 40105, 40104} {
		_, problem := requestAblyToken(a, nonces, body, authTestNow.Add(time.Duration(minutes)*time.Minute))
		if code == 0 && problem != nil {
			t.Fatal(problem)
		} else if code != 0 {
			wantAblyError(t, problem, code, 401, string(body))
		}
	}
	// A key's nonces are its own.
	q, _ := parseAblyTokenRequest(signedRequest(t, ablyTestOther, map[string]any{"keyName": "app.chat"}))
	if _, problem := a.issue("app.chat", q, nonces, authTestNow); problem != nil {
		t.Error(problem)
	}
}

func TestRememberedNoncesAreBounded(t *testing.T) {
	nonces := &ablyNonces{}
	now := authTestNow.UnixMilli()
	use := func(i int, now int64) *ably.ErrorInfo {
		return nonces.use(&ablyTokenRequest{KeyName: "k", Nonce: strconv.Itoa(i), Timestamp: ablyNumber(strconv.FormatInt(now, 10))}, now)
	}
	for i := range maxAblyNonces {
		if problem := use(i, now); problem != nil {
			t.Fatalf("nonce %d: %v", i, problem)
		}
	}
	wantAblyError(t, use(maxAblyNonces, now), 42910, 429, "")
	wantAblyError(t, use(0, now), 40105, 401, "")
	later := now + maxAblyClockSkew.Milliseconds() + 1
	if problem := use(maxAblyNonces, later); problem != nil {
		t.Fatalf("when all are too old: %v", problem)
	}
	if len(nonces.until) != 1 {
		t.Errorf("%d are kept", len(nonces.until))
	}
}

// postAbly asks the server for a token.
func postAbly(t testing.TB, s *testServer, method, path string, body []byte, headers ...string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequest(method, "http://"+s.addr+path, strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport, Timeout: patience}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(text)
}

func TestTheServerIssuesTokens(t *testing.T) {
	s := startServer(t, func(c *Config) { c.Ably.Keys = ablyTestConfig().Ably.Keys })
	body := signedRequest(t, ablyTestSecret, map[string]any{"timestamp": time.Now().UnixMilli(), "ttl": 5000, "clientId": "bob", "capability": `{"a":["publish"]}`})
	response, text := postAbly(t, s, "POST", "/keys/app.all/requestToken", body, "Origin", "https://page.example")
	if response.StatusCode != 201 || response.Header.Get("Content-Type") != "application/json" || response.Header.Get("Access-Control-Allow-Origin") != "https://page.example" {
		t.Fatalf("%d %v %s", response.StatusCode, response.Header, text)
	}
	var details struct {
		Token, KeyName, Capability, ClientID string
		Issued, Expires                      int64
	}
	if err := json.Unmarshal([]byte(text), &details); err != nil {
		t.Fatal(err)
	}
	if details.KeyName != "app.all" || details.Capability != `{"a":["publish"]}` || details.ClientID != "bob" || details.Expires != details.Issued+5000 {
		t.Errorf("%+v", details)
	}
	if _, problem := newTestAblyAuth(t).token(details.Token, "", time.Now()); problem != nil {
		t.Errorf("the token is refused: %v", problem)
	}

	response, text = postAbly(t, s, "POST", "/keys/app.all/requestToken", body)
	if want := `{"error":{"code":40105,"statusCode":401,"message":"the token request's nonce has been used before"}}`; response.StatusCode != 401 || text != want {
		t.Errorf("%d %s, want 401 %s", response.StatusCode, text, want)
	}
	if header := response.Header; header.Get("Content-Type") != "application/json" || header.Get("X-Ably-ErrorCode") != "40105" || header.Get("X-Ably-ErrorMessage") != "the token request's nonce has been used before" {
		t.Errorf("headers %v", header)
	}
	for name, row := range map[string]struct {
		method, path string
		body         []byte
		status       int
	}{
		"GET":          {"GET", "/keys/app.all/requestToken", nil, 404},
		"another path": {"POST", "/keys/app.all/request", body, 404},
		"no key":       {"POST", "/keys/requestToken", body, 404},
		"unknown key":  {"POST", "/keys/no.key/requestToken", body, 401},
		"huge":         {"POST", "/keys/app.all/requestToken", []byte(`{"nonce":"` + strings.Repeat("x", maxAblyRequestBytes) + `"}`), 400},
	} {
		response, text := postAbly(t, s, row.method, row.path, row.body)
		if response.StatusCode != row.status || !strings.HasPrefix(text, `{"error":{"code":`) || response.Header.Get("X-Ably-ErrorCode") == "" {
			t.Errorf("%s: %d %s", name, response.StatusCode, text)
		}
	}
	log := s.log.String()
	for _, secret := range []string{ablyTestSecret, ablyTestOther, details.Token, "1234567890123456", "mac\\\":"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds %q:\n%s", secret, log)
		}
	}
	if !strings.Contains(log, "token request refused") || !strings.Contains(log, "code=40105") {
		t.Errorf("the log does not tell of the refusal:\n%s", log)
	}
}

func TestPagesMayAskForTokensWhereTheyAreAdmitted(t *testing.T) {
	s := startServer(t, func(c *Config) { c.Ably.AllowedOrigins = []string{"https://app.example"} })
	const path = "/keys/letshare.dev/requestToken"
	response, _ := postAbly(t, s, "OPTIONS", path, nil, "Origin", "https://app.example", "Access-Control-Request-Headers", "content-type,x-ably-version")
	header := response.Header
	if response.StatusCode != 204 || header.Get("Access-Control-Allow-Origin") != "https://app.example" || header.Get("Access-Control-Allow-Headers") != "content-type,x-ably-version" ||
		!strings.Contains(header.Get("Access-Control-Allow-Methods"), "PATCH") || !strings.Contains(header.Get("Vary"), "Origin") {
		t.Errorf("%d %v", response.StatusCode, header)
	}
	response, text := postAbly(t, s, "POST", path, nil, "Origin", "https://evil.example")
	if response.StatusCode != 403 || !strings.Contains(text, "40300") || response.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%d %v %s", response.StatusCode, response.Header, text)
	}
	response, _ = postAbly(t, s, "POST", path, nil, "Origin", "https://app.example")
	if response.StatusCode != 400 || !strings.Contains(response.Header.Get("Access-Control-Expose-Headers"), "X-Ably-ErrorCode") {
		t.Errorf("%d %v", response.StatusCode, response.Header)
	}
}

func TestWithoutTheAblyProtocolThereAreNoTokens(t *testing.T) {
	s := startServer(t, func(c *Config) { c.Ably.Enabled = false })
	if response, text := postAbly(t, s, "POST", "/keys/letshare.dev/requestToken", []byte("{}")); response.StatusCode != 404 {
		t.Errorf("%d %s", response.StatusCode, text)
	}
}

func TestAnErrorHasOneShapeInBothFormats(t *testing.T) {
	e := &ably.ErrorInfo{Code: 40160, StatusCode: 401, Message: "no", Href: "https://example.org/40160"}
	w := httptest.NewRecorder()
	answerAblyError(w, ably.JSON, e)
	if want := `{"error":{"code":40160,"statusCode":401,"message":"no","href":"https://example.org/40160"}}`; w.Code != 401 || w.Body.String() != want || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	w = httptest.NewRecorder()
	answerAblyError(w, ably.Msgpack, e)
	value, err := ably.DecodeValue(ably.Msgpack, w.Body.Bytes())
	if err != nil || !strings.Contains(fmt.Sprint(value), "40160") || w.Header().Get("Content-Type") != "application/x-msgpack" || w.Header().Get("X-Ably-ErrorCode") != "40160" || w.Header().Get("X-Ably-ErrorMessage") != "no" {
		t.Errorf("%v %v %v", value, err, w.Header())
	}
}

// FuzzAblyTokenRequest: any body is refused by an error of the list, unless it is signed; and its mac never admits it.
func FuzzAblyTokenRequest(f *testing.F) {
	f.Add(signedRequest(f, ablyTestOther, nil))
	f.Add(signedRequest(f, ablyTestOther, map[string]any{"ttl": "5", "clientId": "bob", "capability": `{"*":["*"]}`}))
	a := newTestAblyAuth(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		q, problem := parseAblyTokenRequest(body)
		if problem != nil {
			if problem.Code != 40000 || problem.StatusCode != 400 {
				t.Fatalf("refused by %v", problem)
			}
			return
		}
		if _, problem := a.issue("app.all", q, &ablyNonces{}, authTestNow); problem == nil || problem.Code != 40101 {
			t.Fatalf("without the secret: %v", problem)
		}
		q.KeyName = "app.all"
		q.MAC = q.mac(a.keys["app.all"])
		details, problem := a.issue("app.all", q, &ablyNonces{}, authTestNow)
		if problem != nil {
			if problem.Code < 40000 || problem.Code > 40160 || problem.Code == 40101 || problem.StatusCode != 400 && problem.StatusCode != 401 {
				t.Fatalf("signed: %v", problem)
			}
			return
		}
		id, problem := a.token(details.token, "", authTestNow)
		if problem != nil || id.clientID != q.ClientID || id.expires != details.expires || id.capability.String() != details.capability {
			t.Fatalf("the token is %+v (%v), the details are %+v", id, problem, details)
		}
	})
}
