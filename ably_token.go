package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"letshare/ably"
)

// ablyTokenRequest is what somebody with a key's secret has signed, so that another can get a token without knowing it.
// The fields are the texts that were signed, "" where one is absent.
type ablyTokenRequest struct {
	KeyName    string     `json:"keyName"`
	TTL        ablyNumber `json:"ttl"` // ms
	Capability string     `json:"capability"`
	ClientID   string     `json:"clientId"`
	Timestamp  ablyNumber `json:"timestamp"` // ms since 1970
	Nonce      string     `json:"nonce"`
	MAC        string     `json:"mac"`
}

// ablyNumber is the text of a number, which may come as a number or as a string: token requests pass through query strings.
type ablyNumber string

// UnmarshalJSON implements json.Unmarshaler.
func (n *ablyNumber) UnmarshalJSON(text []byte) error {
	var s string
	switch {
	case text[0] == '"':
		if err := json.Unmarshal(text, &s); err != nil {
			return err
		}
	case text[0] == '-' || text[0] >= '0' && text[0] <= '9':
		s = string(text)
	case !bytes.Equal(text, []byte("null")):
		return errors.New("not a number")
	}
	*n = ablyNumber(s)
	return nil
}

// ablyTokenDetails is a token with what it says.
type ablyTokenDetails struct {
	token, keyName, capability, clientID string
	issued, expires                      int64 // ms since 1970
}

// parseAblyTokenRequest reads the body of a token request. Only the capability, which is JSON, may hold line feeds: what is
// signed is the fields with line feeds between them, which could be told apart in another way otherwise.
func parseAblyTokenRequest(body []byte) (ablyTokenRequest, *ably.ErrorInfo) {
	var q ablyTokenRequest
	if err := json.Unmarshal(body, &q); err != nil { // its text may quote the body
		return q, ablyBadRequest(40000, "the body is not a token request in JSON")
	}
	for _, field := range [...]string{q.KeyName, string(q.TTL), q.ClientID, string(q.Timestamp), q.Nonce} {
		if strings.Contains(field, "\n") {
			return q, ablyBadRequest(40000, "a field of the token request holds a line feed")
		}
	}
	return q, nil
}

// ablyBadRequest is the answer to a request that nobody could carry out.
func ablyBadRequest(code int, why string) *ably.ErrorInfo {
	return &ably.ErrorInfo{Code: code, StatusCode: http.StatusBadRequest, Message: why}
}

// mac is the signature of the request by a key, base64(HMAC-SHA256).
func (q *ablyTokenRequest) mac(key *ablyKey) string {
	mac := hmac.New(sha256.New, key.secret)
	for _, field := range [...]string{q.KeyName, string(q.TTL), q.Capability, q.ClientID, string(q.Timestamp), q.Nonce} {
		mac.Write([]byte(field + "\n"))
	}
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// lifetime returns how long the token is to live, in ms.
func (q *ablyTokenRequest) lifetime() (int64, *ably.ErrorInfo) {
	if q.TTL == "" {
		return defaultAblyTTL.Milliseconds(), nil
	}
	ttl, err := strconv.ParseInt(string(q.TTL), 10, 64)
	if err != nil || ttl <= 0 || ttl > maxAblyTTL.Milliseconds() {
		return 0, ablyBadRequest(40003, fmt.Sprintf("ttl must be a whole number of milliseconds from 1 to %d", maxAblyTTL.Milliseconds()))
	}
	return ttl, nil
}

// issue answers a token request for the key named in the URL. nonces remembers it.
func (a *ablyAuth) issue(keyName string, q ablyTokenRequest, nonces *ablyNonces, now time.Time) (ablyTokenDetails, *ably.ErrorInfo) {
	key, known := a.find(q.KeyName)
	if same := subtle.ConstantTimeCompare([]byte(q.MAC), []byte(q.mac(key))) == 1; !same || !known || q.KeyName != keyName {
		return ablyTokenDetails{}, ablyUnauthorized(40101, "the token request's mac is not that of this key")
	}
	ttl, problem := q.lifetime()
	if problem != nil {
		return ablyTokenDetails{}, problem
	}
	if key.revocable && ttl > maxRevocableTTL.Milliseconds() {
		return ablyTokenDetails{}, ablyBadRequest(40003, fmt.Sprintf("tokens of this key can be revoked: ttl must be at most %d", maxRevocableTTL.Milliseconds()))
	}
	if !validAblyClientID(q.ClientID) {
		return ablyTokenDetails{}, ablyBadClientID(fmt.Sprintf("at most %d bytes", maxAblyClientIDBytes))
	}
	issued := now.UnixMilli()
	details := ablyTokenDetails{keyName: key.name, capability: key.capability.text, clientID: q.ClientID, issued: issued, expires: issued + ttl}
	granted := ""
	if q.Capability != "" {
		wanted, problem := parseAblyCapability(q.Capability)
		if problem != nil {
			return ablyTokenDetails{}, problem
		}
		both, problem := key.capability.intersect(wanted)
		if problem != nil {
			return ablyTokenDetails{}, problem
		}
		granted, details.capability = both.text, both.text
	}
	if problem := nonces.use(&q, issued); problem != nil {
		return ablyTokenDetails{}, problem
	}
	var err error
	if details.token, err = key.sign(granted, q.ClientID, issued, details.expires); err != nil || len(details.token) > maxAblyTokenBytes {
		return ablyTokenDetails{}, errAblyCapability("it makes the token too long")
	}
	return details, nil
}

// sign makes a token of the key. capability is JSON, "" for whatever the key grants; times are in ms since 1970.
func (k *ablyKey) sign(capability, clientID string, issued, expires int64) (string, error) {
	claims := jwt.MapClaims{"iat": ablySeconds(issued), "exp": ablySeconds(expires), "jti": rand.Text()}
	if capability != "" {
		claims[ablyCapabilityClaim] = capability
	}
	if clientID != "" {
		claims[ablyClientIDClaim] = clientID
	}
	return signToken(claims, k.name, k.secret)
}

// ablySeconds writes ms as seconds: the library's own times have none smaller.
func ablySeconds(ms int64) json.Number {
	return json.Number(fmt.Sprintf("%d.%03d", ms/1000, ms%1000))
}

// ablyNonces remembers token requests, so that none is answered twice. It outlives reloads. Any goroutine.
type ablyNonces struct {
	mu       sync.Mutex
	until    map[[16]byte]int64 // when the request is too old anyway, in ms since 1970; by the hash of key and nonce
	earliest int64              // no entry can be forgotten before
	sweepAt  int                // how many entries make it worth looking
}

// use refuses a request that is too old or too new, that has no nonce or one that was used before, and remembers the others.
// now is in ms since 1970.
func (n *ablyNonces) use(q *ablyTokenRequest, now int64) *ably.ErrorInfo {
	timestamp, err := strconv.ParseInt(string(q.Timestamp), 10, 64)
	skew := maxAblyClockSkew.Milliseconds()
	if err != nil || timestamp < now-skew || timestamp > now+skew {
		return ablyUnauthorized(40104, "the token request's timestamp is too far from the server's time")
	}
	if q.Nonce == "" {
		return ablyBadRequest(40000, "the token request has no nonce")
	}
	sum := sha256.Sum256([]byte(q.KeyName + "\n" + q.Nonce))
	id := [16]byte(sum[:])
	n.mu.Lock()
	defer n.mu.Unlock()
	if until, used := n.until[id]; used && now <= until {
		return ablyUnauthorized(40105, "the token request's nonce has been used before")
	}
	if n.until == nil {
		n.until = make(map[[16]byte]int64)
	}
	if len(n.until) >= n.sweepAt && now > n.earliest {
		n.sweep(now)
	}
	if len(n.until) >= maxAblyNonces {
		return &ably.ErrorInfo{Code: 42910, StatusCode: http.StatusTooManyRequests, Message: "too many token requests"}
	}
	n.until[id] = timestamp + skew
	n.earliest = min(n.earliest, timestamp+skew)
	return nil
}

// sweep forgets the requests that are too old. Under mu.
func (n *ablyNonces) sweep(now int64) {
	n.earliest = now + 2*maxAblyClockSkew.Milliseconds()
	for id, until := range n.until {
		if until < now {
			delete(n.until, id)
		} else {
			n.earliest = min(n.earliest, until)
		}
	}
	n.sweepAt = min(2*len(n.until)+1024, maxAblyNonces)
}

// serveAblyToken answers POST /keys/NAME/requestToken: 201 with a token.
func (s *Server) serveAblyToken(w http.ResponseWriter, r *http.Request) {
	rules := s.rules.Load()
	if rules.ably == nil {
		answerAblyError(w, ably.JSON, errAblyNotFound())
		return
	}
	if rules.ably.auth.cors(w, r, rules.auth) {
		return
	}
	path, isRequest := strings.CutSuffix(r.URL.Path, "/requestToken")
	keyName, isKey := strings.CutPrefix(path, "/keys/")
	if r.Method != http.MethodPost || !isRequest || !isKey {
		answerAblyError(w, ably.JSON, errAblyNotFound())
		return
	}
	var details ablyTokenDetails
	var q ablyTokenRequest
	problem := ablyBadRequest(40000, "the token request is too long, or was cut off")
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAblyRequestBytes))
	if err == nil {
		q, problem = parseAblyTokenRequest(body)
	}
	if problem == nil {
		details, problem = rules.ably.auth.issue(keyName, q, &s.nonces, time.Now())
	}
	if problem != nil {
		s.account.counts.add(statTokensRefused, 1)
		s.log.Warn("token request refused", "code", problem.Code, "address", rules.auth.ClientAddress(r).String(), "detail", problem.Message)
		answerAblyError(w, ably.JSON, problem)
		return
	}
	s.account.counts.add(statTokens, 1)
	answer := ably.Object{{Key: "token", Value: details.token}, {Key: "keyName", Value: details.keyName}, {Key: "issued", Value: details.issued},
		{Key: "expires", Value: details.expires}, {Key: "capability", Value: details.capability}}
	if details.clientID != "" {
		answer = append(answer, ably.Field{Key: "clientId", Value: details.clientID})
	}
	answerAbly(w, ably.JSON, http.StatusCreated, ably.AppendValue(nil, ably.JSON, answer))
}

// errAblyNotFound is the answer to an address that is none, or to a method that it does not have.
func errAblyNotFound() *ably.ErrorInfo {
	return &ably.ErrorInfo{Code: 40400, StatusCode: http.StatusNotFound, Message: "there is nothing here"}
}

// answerAbly sends a body. Clients parse it only when the content type is exactly this, without a charset.
func answerAbly(w http.ResponseWriter, format ably.Format, status int, body []byte) {
	header := w.Header()
	header.Set("Content-Type", "application/json")
	if format == ably.Msgpack {
		header.Set("Content-Type", "application/x-msgpack")
	}
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // whoever asked may be gone
}

// answerAblyError sends an error, in the body and once more in headers: some clients look only at one of them.
func answerAblyError(w http.ResponseWriter, format ably.Format, e *ably.ErrorInfo) {
	fields := ably.Object{{Key: "code", Value: e.Code}, {Key: "statusCode", Value: e.StatusCode}, {Key: "message", Value: e.Message}}
	if e.Href != "" {
		fields = append(fields, ably.Field{Key: "href", Value: e.Href})
	}
	w.Header().Set("X-Ably-ErrorCode", strconv.Itoa(e.Code))
	w.Header().Set("X-Ably-ErrorMessage", strings.ToValidUTF8(e.Message, "?"))
	answerAbly(w, format, e.StatusCode, ably.AppendValue(nil, format, ably.Object{{Key: "error", Value: fields}}))
}

// ablyRequestHeaders are those that the SDK's browser build sends.
const ablyRequestHeaders = "authorization, content-type, accept, x-ably-version, ably-agent, x-ably-clientid, x-ably-lib"

// cors lets pages use the REST part: it sets the headers, and answers preflights and pages that ably.allowed_origins does not
// admit. True: there is nothing left to do. No cookie counts here, so a page has only the credentials that it brings.
func (a *ablyAuth) cors(w http.ResponseWriter, r *http.Request, server *Authenticator) (answered bool) {
	header := w.Header()
	header.Add("Vary", "Origin")
	if problem := a.checkOrigin(r, server); problem != nil {
		answerAblyError(w, ably.JSON, problem)
		return true
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		header.Set("Access-Control-Allow-Origin", origin) // by name: with credentials browsers do not take *
		header.Set("Access-Control-Allow-Credentials", "true")
		header.Set("Access-Control-Expose-Headers", "Link, X-Ably-ErrorCode, X-Ably-ErrorMessage")
	}
	if r.Method != http.MethodOptions {
		return false
	}
	header.Set("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE, OPTIONS")
	header.Set("Access-Control-Allow-Headers", ablyRequestHeaders)
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
		header.Set("Access-Control-Allow-Headers", asked) // none of them is dangerous
	}
	header.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}
