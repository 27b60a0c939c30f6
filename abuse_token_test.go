package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Fifty clients without a token are refused, and are one line of the error log.
func TestAbuse01_NoTokenIsOneLineInTheLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := startServing(t, dir, nil)
	a := watch(t, processServer(p))
	for i := range 50 {
		query := []string{"", "token=", "userId=ann", "token=&userId=ann"}[i%4]
		a.wantRefused(t, http.StatusUnauthorized, "token_missing", "", withQuery(query))
	}
	a.wantMetric(t, "refusals", "token_missing", 50)
	a.calm()
	a.wantMetric(t, "websocket", "total_connections", 4) // the bystanders
	if exit, _ := p.stop(t, syscall.SIGTERM); exit != 0 {
		t.Errorf("exit %d", exit)
	}
	lines := readLogFile(t, filepath.Join(dir, "logs", "errors.log"))
	if len(lines) != 1 || !strings.Contains(lines[0], `"count":50`) || !strings.Contains(lines[0], "token_missing") {
		t.Errorf("the error log holds\n%s\nwant one line with the count 50", strings.Join(lines, "\n"))
	}
}

// processServer lets the test kit talk to a server that is another process, in local mode with the built-in secret.
func processServer(p *servingProcess) *testServer {
	cfg := DefaultConfig()
	return &testServer{cfg: &cfg, addr: strings.TrimSuffix(strings.TrimPrefix(p.url, "http://"), "/")}
}

// Each classic way to forge a token, with the real secret where the attack needs it to be accepted.
func TestAbuse02_ForgedSignatures(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&key.PublicKey)}))
	a := underAttack(t)
	secret := a.cfg.JWT.Secret
	claims := fmt.Sprintf(`{"user_id":"mallory","exp":%d}`, time.Now().Unix()+600)
	good := signedToken(hs256Header, claims, secret, sha256.New)
	unsigned := func(token string) string { return token[:strings.LastIndex(token, ".")+1] }
	for name, token := range map[string]string{
		"alg none":             signedToken(`{"alg":"none"}`, claims, secret, sha256.New),
		"alg none, unsigned":   unsigned(signedToken(`{"alg":"none"}`, claims, secret, sha256.New)),
		"HS256, unsigned":      unsigned(good),
		"HS512, the same key":  signedToken(`{"alg":"HS512"}`, claims, secret, sha512.New),
		"RS256 by public key":  signedToken(`{"alg":"RS256"}`, claims, public, sha256.New),
		"HS256 by public key":  signedToken(hs256Header, claims, public, sha256.New),
		"unknown kid":          signedToken(`{"alg":"HS256","kid":"1"}`, claims, secret, sha256.New),
		"kid is a path":        signedToken(`{"alg":"HS256","kid":"../../etc/passwd"}`, claims, secret, sha256.New),
		"a critical extension": signedToken(`{"alg":"HS256","crit":["b64"],"b64":false}`, claims, secret, sha256.New),
		"another's secret":     signedToken(hs256Header, claims, "another server's key, long enough", sha256.New),
		"no secret":            signedToken(hs256Header, claims, "", sha256.New),
		"changed claims":       strings.Replace(good, strings.Split(good, ".")[1], strings.Split(signedToken(hs256Header, strings.Replace(claims, "mallory", "admin", 1), "", sha256.New), ".")[1], 1),
	} {
		t.Run(name, func(t *testing.T) {
			a.wantRefused(t, http.StatusUnauthorized, "token_signature", "", withQuery(url.Values{"token": {token}}.Encode()))
			if strings.Contains(a.log.String(), token) {
				t.Error("the token is in the log")
			}
		})
	}
	a.dial("", withQuery("token="+good)) // the test can tell a good one
	a.calm()
}

// The edges of a token's time, the leeway of 30 s included.
func TestAbuse03_TokensOutOfTime(t *testing.T) {
	t.Parallel()
	a := underAttack(t)
	now := time.Now().Unix()
	for _, row := range []struct {
		name, claims, reason string
	}{
		{"expired within the leeway", fmt.Sprintf(`"exp":%d`, now-1), ""},
		{"expired outside of it", fmt.Sprintf(`"exp":%d`, now-31), "token_expired"},
		{"not yet, within the leeway", fmt.Sprintf(`"exp":%d,"nbf":%d`, now+600, now+20), ""},
		{"not yet", fmt.Sprintf(`"exp":%d,"nbf":%d`, now+600, now+45), "token_not_yet_valid"},
		{"issued in the future", fmt.Sprintf(`"exp":%d,"iat":%d`, now+600, now+45), "token_not_yet_valid"},
		{"no exp", `"iat":1`, "token_claims"},
		{"exp of 0", `"exp":0`, "token_claims"},
		{"exp is a text", `"exp":"tomorrow"`, "token_claims"},
		{"exp below zero", `"exp":-1`, "token_claims"},
		{"exp beyond all calendars", `"exp":1e30`, "token_claims"},
		{"ten years", fmt.Sprintf(`"exp":%d`, now+10*365*86400), "token_claims"},
		{"ten years, by an iat in the future", fmt.Sprintf(`"exp":%d,"iat":%d`, now+10*365*86400, now+9*365*86400), "token_not_yet_valid"},
	} {
		t.Run(row.name, func(t *testing.T) {
			query := withQuery("token=" + signedToken(hs256Header, `{"user_id":"mallory",`+row.claims+`}`, a.cfg.JWT.Secret, sha256.New))
			if row.reason == "" {
				a.dial("", query)
			} else {
				a.wantRefused(t, http.StatusUnauthorized, row.reason, "", query)
			}
		})
	}
	a.calm()
}

// A token that expires takes its connection with it, at exp and the leeway, and out of its room.
func TestAbuse04_TokenExpiresWhileConnected(t *testing.T) {
	attackInBubble(t, nil, func(t *testing.T, s *pipeServer) {
		const ttl = 10 * time.Second
		began := s.since()
		c := s.connectWith("mallory", ttl, true, true)
		c.subscribe(nearRoom)
		c.wantEnded(began, ttl+tokenLeeway-time.Second, ttl+tokenLeeway+time.Second, "close 4001 token_expired")
		s.wantCloses("token_expired 1")
		if live := s.conns.live(); live != 4 {
			t.Errorf("%d connections, want the 4 bystanders", live)
		}
	})
}

// A token of a megabyte never reaches the parser, and one of 10,000 dots neither.
func TestAbuse05_HugeTokens(t *testing.T) {
	t.Parallel()
	a := underAttack(t)
	for name, header := range map[string]string{
		"in the URL":      "GET /ws?token=" + strings.Repeat("A", 1<<20) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"in a header":     "GET /ws HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + strings.Repeat("A", 1<<20) + "\r\n\r\n",
		"in many headers": "GET /ws HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-More: "+strings.Repeat("A", 1000)+"\r\n", 1000) + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			status, closed := rawRequest(t, a.addr, header)
			if status != http.StatusRequestHeaderFieldsTooLarge || !closed {
				t.Errorf("answered %d, and closed: %t", status, closed)
			}
		})
	}
	a.wantRefused(t, http.StatusUnauthorized, "token_malformed", "", withQuery("token="+strings.Repeat(".", 10000)))
	a.wantRefused(t, http.StatusUnauthorized, "token_malformed", "", withQuery("token="+strings.Repeat("A", maxTokenBytes+1)))
	if log := a.log.String(); !strings.Contains(log, "at most 4096 are read") {
		t.Errorf("the tokens were read in spite of their length:\n%s", log)
	}
	a.calm()
}

// rawRequest sends a request, as far as the server takes it, and returns the status of the answer and whether the
// connection was closed after it.
func rawRequest(t *testing.T, addr, request string) (status int, closed bool) {
	t.Helper()
	c := rawConnection(t, addr)
	stop := c.flood([]byte(request), len(request))
	defer stop()
	defer c.close()
	c.socket.SetReadDeadline(time.Now().Add(patience))
	answer, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		t.Errorf("no answer: %v", err)
		return 0, false
	}
	io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, wantEOF(c) == nil
}

// A token for one room opens no other, and the connection goes on.
func TestAbuse06_TokenOfAnotherRoom(t *testing.T) {
	t.Parallel()
	a := underAttack(t)
	c := a.dial("mallory", withToken(a.token(t, Claims{UserID: "mallory", Room: "own room"})))
	for _, message := range []string{
		`{"type":"subscribe","channel":"room","id":1}`,
		`{"type":"subscribe","channel":"room","event":"pulse","id":1}`,
		`{"type":"publish","channel":"room","data":{},"id":1}`,
		`{"type":"unsubscribe","channel":"room","id":1}`,
	} {
		c.send(t, message)
		c.wantError(t, 403, "room_not_allowed")
	}
	c.subscribe(t, "own room", "")
	a.lull()
	c.send(t, `{"type":"unsubscribe","channel":"own room","event":"fence","id":"fence"}`)
	c.want(t, `{"type":"unsubscribed","id":"fence"}`) // and nothing before it
	if heard := a.overheard(); len(heard) > 0 {
		t.Errorf("the room heard %q", heard)
	}
	a.calm()
}
