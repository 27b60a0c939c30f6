package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"letshare/ably"
)

// ablyDevelopmentKey is the name of the key that local mode has when none is configured.
const ablyDevelopmentKey = "letshare.dev"

// ablyAnyClient is the clientId of whoever may speak for anybody.
const ablyAnyClient = "*"

// The claims of an Ably JWT, beside iat and exp.
const (
	ablyCapabilityClaim = "x-ably-capability" // JSON text; absent: what the key grants
	ablyClientIDClaim   = "x-ably-clientId"
	ablyTokenClaim      = "x-ably-token" // another token, which is the one that counts
)

// ablyAuth says who an Ably client is: by an API key, or by a JWT that is signed with one's secret.
// It is immutable after newAblyAuth; any goroutine may call its methods.
type ablyAuth struct {
	keys        map[string]*ablyKey // by name
	decoy       *ablyKey            // stands in for unknown keys, so that they take as long
	origins     []originPattern     // of pages that may connect; none: all
	maxLifetime time.Duration
	revoked     *ablyRevocations // nil: nothing is ever revoked
	parser      *jwt.Parser
	verified    tokenCache[ablyClaims] // the one part that changes; it has a mutex
}

// ablyKey is an API key. Immutable.
type ablyKey struct {
	name       string
	secret     []byte
	hash       [sha256.Size]byte // of the secret, so that all are of one length to compare
	capability *ablyCapability
	revocable  bool // its tokens can be revoked
}

// ablyIdentity is who an Ably client is, and what it may do. Values are cheap to copy.
type ablyIdentity struct {
	keyName    string // the key that it rests on
	clientID   string // "": anonymous, "*": anybody, else the only one
	capability *ablyCapability
	expires    int64      // ms since 1970; 0: never
	key        *ablyKey   // as it was when the identity was found
	revocable  *revocable // nil: cannot be revoked
}

// ablyKeys returns the keys that are in force: those configured, or the development key of local mode. Its secret is made of
// jwt.secret: who has a secret of his own there has a development key that nobody guesses.
func (c *Config) ablyKeys() []AblyKey {
	if len(c.Ably.Keys) > 0 || c.Mode != modeLocal {
		return c.Ably.Keys
	}
	return []AblyKey{{Name: ablyDevelopmentKey, Secret: ablyDevelopmentSecret(c.JWT.Secret)}}
}

// ablyDevelopmentSecret is the secret of the development key beside a jwt.secret.
func ablyDevelopmentSecret(jwtSecret string) string {
	mac := hmac.New(sha256.New, []byte(jwtSecret))
	mac.Write([]byte("ably key " + ablyDevelopmentKey))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// newAblyAuth reads the keys and origins of cfg; nil while the Ably protocol is not spoken. Its errors name the key at fault,
// never a secret.
func newAblyAuth(cfg *Config) (*ablyAuth, error) {
	if !cfg.Ably.Enabled {
		return nil, nil
	}
	a := &ablyAuth{keys: make(map[string]*ablyKey), parser: newTokenParser()}
	for i, k := range cfg.ablyKeys() {
		if k.Name == "" || k.Secret == "" {
			return nil, fmt.Errorf("ably.keys[%d] needs a name and a secret", i)
		}
		key, problem := newAblyKey(k)
		if problem != nil {
			return nil, fmt.Errorf("ably.keys[%d].capability: %s", i, problem.Message)
		}
		a.keys[k.Name] = key
	}
	a.decoy, _ = newAblyKey(AblyKey{Secret: randomSecret()})
	for _, s := range cfg.Ably.AllowedOrigins {
		p, err := parseOriginPattern(s)
		if err != nil {
			return nil, fmt.Errorf("ably.allowed_origins: %w", err)
		}
		a.origins = append(a.origins, p)
	}
	var err error
	a.maxLifetime, err = hours("jwt.max_lifetime_hours", cfg.JWT.MaxLifetimeHours)
	return a, err
}

// newAblyKey makes a key of what is configured.
func newAblyKey(k AblyKey) (*ablyKey, *ably.ErrorInfo) {
	listed := k.Capability
	if listed == nil {
		listed = map[string][]string{"*": {"*"}}
	}
	capability, problem := newAblyCapability(listed)
	if problem != nil {
		return nil, problem
	}
	return &ablyKey{name: k.Name, secret: []byte(k.Secret), hash: sha256.Sum256([]byte(k.Secret)), capability: capability,
		revocable: k.RevocableTokens}, nil
}

// find returns the key of a name, or one that nobody knows, in the same time.
func (a *ablyAuth) find(name string) (key *ablyKey, known bool) {
	if key, known = a.keys[name]; !known {
		key = a.decoy
	}
	return key, known
}

// ablyUnauthorized is the answer to credentials that do not admit. why is for people and says no more than that.
func ablyUnauthorized(code int, why string) *ably.ErrorInfo {
	return &ably.ErrorInfo{Code: code, StatusCode: http.StatusUnauthorized, Message: why}
}

// identify says who asks: by Authorization, or by key, access_token or accessToken of the query. The clientId asked for is
// that of the header X-Ably-ClientId, and on an upgrade that of the query: elsewhere this one is a filter.
func (a *ablyAuth) identify(r *http.Request, now time.Time) (ablyIdentity, *ably.ErrorInfo) {
	// Pairs that cannot be decoded are dropped by ParseQuery: they must not silently count as absent.
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return ablyIdentity{}, &ably.ErrorInfo{Code: 40000, StatusCode: http.StatusBadRequest, Message: "the query string cannot be decoded"}
	}
	asked, problem := askedClientID(r, query)
	if problem != nil {
		return ablyIdentity{}, problem
	}
	scheme, credentials, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	credentials = strings.TrimSpace(credentials)
	switch {
	case strings.EqualFold(scheme, "Basic"):
		key, ok := decodeBase64(credentials)
		if !ok {
			return ablyIdentity{}, ablyUnauthorized(40101, "the Authorization header is not base64")
		}
		return a.basic(key, asked)
	case strings.EqualFold(scheme, "Bearer"):
		// Clients encode the token once more, a JWT too. No base64 has the points of a JWT.
		if token, ok := decodeBase64(credentials); ok {
			credentials = token
		}
		return a.token(credentials, asked, now)
	case scheme != "":
		return ablyIdentity{}, ablyUnauthorized(40101, "the Authorization header is neither Basic nor Bearer")
	}
	if key := query.Get("key"); key != "" {
		return a.basic(key, asked)
	}
	for _, name := range [...]string{"access_token", "accessToken"} {
		if token := query.Get(name); token != "" {
			return a.token(token, asked, now)
		}
	}
	return ablyIdentity{}, ablyUnauthorized(40101, "no credentials: neither a key nor a token")
}

// askedClientID returns the clientId that a request asks for, "" for none.
func askedClientID(r *http.Request, query url.Values) (string, *ably.ErrorInfo) {
	asked := ""
	if encoded := r.Header.Get("X-Ably-ClientId"); encoded != "" {
		decoded, ok := decodeBase64(encoded)
		if !ok {
			return "", ablyBadClientID("the header X-Ably-ClientId is not base64")
		}
		asked = decoded
	} else if r.Header.Get("Upgrade") != "" {
		asked = query.Get("clientId")
	}
	if !validAblyClientID(asked) {
		return "", ablyBadClientID(fmt.Sprintf("a clientId is valid UTF-8 of at most %d bytes", maxAblyClientIDBytes))
	}
	return strings.Clone(asked), nil // a part of the request line would keep all of it in memory, the token included
}

// validAblyClientID says whether s can be a clientId; "" is valid and means none.
func validAblyClientID(s string) bool { return len(s) <= maxAblyClientIDBytes && utf8.ValidString(s) }

// ablyBadClientID is the answer to a clientId that can be nobody's.
func ablyBadClientID(why string) *ably.ErrorInfo {
	return &ably.ErrorInfo{Code: 40012, StatusCode: http.StatusBadRequest, Message: "invalid clientId: " + why}
}

// decodeBase64 reads base64 in any of its spellings: both alphabets, with and without padding.
func decodeBase64(s string) (string, bool) {
	s = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(s, "="))
	decoded, err := base64.RawStdEncoding.DecodeString(s)
	return string(decoded), err == nil
}

// basic admits whoever knows a key and its secret, name:secret.
func (a *ablyAuth) basic(credentials, asked string) (ablyIdentity, *ably.ErrorInfo) {
	name, secret, _ := strings.Cut(credentials, ":")
	key, known := a.find(name)
	sum := sha256.Sum256([]byte(secret))
	if same := subtle.ConstantTimeCompare(sum[:], key.hash[:]) == 1; !same || !known {
		return ablyIdentity{}, ablyUnauthorized(40101, "invalid key: it is unknown, or its secret is wrong")
	}
	clientID, problem := ablyClientID(ablyAnyClient, asked)
	return ablyIdentity{keyName: key.name, clientID: clientID, capability: key.capability, key: key}, problem
}

// ablyClientID returns who a client is: own is what its credentials say ("" nobody, "*" anybody), asked what it wants to be.
func ablyClientID(own, asked string) (string, *ably.ErrorInfo) {
	switch {
	case asked == "" || asked == own:
		return own, nil
	case own == ablyAnyClient:
		return asked, nil
	}
	return "", ablyUnauthorized(40102, "the token is not for this clientId")
}

// token admits whoever has a token. asked is the clientId that the client wants, "" for none.
func (a *ablyAuth) token(text, asked string, now time.Time) (ablyIdentity, *ably.ErrorInfo) {
	if len(text) > maxAblyTokenBytes {
		return ablyIdentity{}, ablyUnauthorized(40143, "the token is too long")
	}
	sum := sha256.Sum256([]byte(text))
	claims, known := a.verified.get(sum)
	if !known {
		var problem *ably.ErrorInfo
		if claims, problem = a.verify(text); problem != nil {
			return ablyIdentity{}, problem
		}
		a.verified.put(sum, claims)
	}
	if problem := claims.check(now, a.maxLifetime); problem != nil {
		return ablyIdentity{}, problem
	}
	if revoked, _ := a.revoked.judge(claims.revocable, now.UnixMilli()); revoked {
		return ablyIdentity{}, errAblyRevoked
	}
	clientID, problem := ablyClientID(claims.clientID, asked)
	if problem != nil {
		return ablyIdentity{}, problem
	}
	return ablyIdentity{keyName: claims.key.name, clientID: clientID, capability: claims.capability, expires: claims.expires, key: claims.key,
		revocable: claims.revocable}, nil
}

// ablyClaims is what a token says, its signature checked. Times are in ms since 1970, 0 for none.
type ablyClaims struct {
	key                        *ablyKey
	capability                 *ablyCapability
	clientID                   string
	issued, notBefore, expires int64
	revocable                  *revocable // nil: cannot be revoked
}

// errAblyUnknownKey is why a JWT whose kid is no key cannot be verified.
var errAblyUnknownKey = errors.New("the kid is no key of this server")

// verify reads a token and checks its signature. The library's errors quote the token and are dropped.
func (a *ablyAuth) verify(text string) (ablyClaims, *ably.ErrorInfo) {
	raw := jwt.MapClaims{}
	if _, _, err := a.parser.ParseUnverified(text, raw); err != nil {
		return ablyClaims{}, ablyUnauthorized(40143, "the token is none of this server's")
	}
	if inner, ok := raw[ablyTokenClaim].(string); ok { // in an envelope of somebody else's, which says nothing to us
		text = inner
	}
	var key *ablyKey
	raw = jwt.MapClaims{}
	_, err := a.parser.ParseWithClaims(text, raw, func(t *jwt.Token) (any, error) {
		name, _ := t.Header["kid"].(string)
		if key = a.keys[name]; key == nil {
			return nil, errAblyUnknownKey
		}
		if _, critical := t.Header["crit"]; critical { // asks for what is not implemented (RFC 7515 section 4.1.11)
			return nil, errTokenHeader
		}
		return key.secret, nil
	})
	switch {
	case errors.Is(err, errAblyUnknownKey):
		return ablyClaims{}, &ably.ErrorInfo{Code: 40400, StatusCode: http.StatusNotFound, Message: "the token is signed with a key that this server does not have"}
	case errors.Is(err, jwt.ErrTokenMalformed):
		return ablyClaims{}, ablyUnauthorized(40143, "the token is none of this server's")
	case err != nil:
		return ablyClaims{}, ablyUnauthorized(40144, "the token's signature is wrong")
	}
	return readAblyClaims(raw, key)
}

// readAblyClaims checks the types of the claims that mean something here, and cuts the capability to that of the key.
func readAblyClaims(raw jwt.MapClaims, key *ablyKey) (ablyClaims, *ably.ErrorInfo) {
	c := ablyClaims{key: key, capability: key.capability}
	for _, claim := range [...]struct {
		name   string
		target *int64
	}{{"iat", &c.issued}, {"nbf", &c.notBefore}, {"exp", &c.expires}} {
		value, present := raw[claim.name]
		at, ok := milliseconds(value)
		if present && !ok || claim.name == "exp" && at == 0 {
			return c, ablyUnauthorized(40144, "the token has no "+claim.name+" that can be read, in seconds since 1970")
		}
		*claim.target = at
	}
	if value, present := raw[ablyClientIDClaim]; present && value != nil {
		text, ok := value.(string)
		if !ok || !validAblyClientID(text) {
			return c, ablyBadClientID("that of the token cannot be used")
		}
		c.clientID = text
	}
	if value, present := raw[ablyCapabilityClaim]; present { // null, too, must not come to mean everything
		text, ok := value.(string)
		if !ok {
			return c, errAblyCapability("that of the token is not a JSON text")
		}
		wanted, problem := parseAblyCapability(text)
		if problem != nil {
			return c, problem
		}
		if c.capability, problem = key.capability.intersect(wanted); problem != nil {
			return c, problem
		}
	}
	if key.revocable {
		if c.issued == 0 {
			return c, ablyUnauthorized(40144, "the token has no iat, without which it cannot be revoked")
		}
		name, _ := raw[ablyRevocationClaim].(string)
		c.revocable = newRevocable(&c, name)
	}
	return c, nil
}

// milliseconds reads a time of RFC 7519, seconds since 1970 with or without a fraction, to the nearest millisecond.
func milliseconds(value any) (int64, bool) {
	number, ok := value.(json.Number)
	if !ok {
		return 0, false
	}
	s, err := number.Float64()
	if err != nil || s < 0 || s > maxNumericDate {
		return 0, false
	}
	return int64(math.Round(s * 1000)), true
}

// check compares the times of c with now, the wall clock. A token ends at its exp to the millisecond: clients reckon with it.
// Only for the start there is a leeway. An iat in the future would hide a lifetime that is too long.
func (c ablyClaims) check(now time.Time, maxLifetime time.Duration) *ably.ErrorInfo {
	at := now.UnixMilli()
	if at >= c.expires {
		return ablyUnauthorized(40142, "the token has expired")
	}
	if max(c.issued, c.notBefore)-at > tokenLeeway.Milliseconds() {
		return ablyUnauthorized(40144, "the token is not valid yet")
	}
	if c.revocable != nil {
		maxLifetime = min(maxLifetime, maxRevocableTTL)
	}
	from := c.issued
	if from == 0 {
		from = at
	}
	if c.expires-from > maxLifetime.Milliseconds() {
		return &ably.ErrorInfo{Code: 40003, StatusCode: http.StatusBadRequest, Message: "the token is valid for longer than this server allows"}
	}
	return nil
}

// admits says whether an identity found earlier, maybe under another configuration, still holds: its key is there, with the
// same secret and the same capability. Whoever it does not hold for must come back and be judged anew.
func (a *ablyAuth) admits(id ablyIdentity) bool {
	if id.key == nil {
		return false
	}
	key, known := a.find(id.keyName)
	same := subtle.ConstantTimeCompare(key.hash[:], id.key.hash[:]) == 1
	return same && known && key.capability.text == id.key.capability.text
}

// checkOrigin refuses a page that may not use the Ably protocol: with ably.allowed_origins set, it is neither listed there nor
// the server's own, which server knows. nil: it may, as may programs that send no Origin.
func (a *ablyAuth) checkOrigin(r *http.Request, server *Authenticator) *ably.ErrorInfo {
	values := r.Header["Origin"]
	if len(a.origins) == 0 || len(values) == 0 {
		return nil
	}
	page, err := parseOrigin(strings.Join(values, ","))
	if err == nil && slices.ContainsFunc(a.origins, func(p originPattern) bool { return p.match(page) }) {
		return nil
	}
	if own, known := server.ownOrigin(r); err == nil && known && own == page {
		return nil
	}
	return &ably.ErrorInfo{Code: 40300, StatusCode: http.StatusForbidden, Message: "this page may not use this server"}
}
