package main

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

// tokenSubprotocol announces that the next element of Sec-WebSocket-Protocol is the token, for browsers that should
// not put it into a URL. A client that offers it must be answered with it: a browser fails the connection otherwise.
const tokenSubprotocol = "letshare.token"

// Authenticator says who a request is from: its token, its origin, its client address.
// It is immutable after NewAuthenticator; any goroutine may call its methods.
type Authenticator struct {
	keys        jwt.VerificationKeySet // the signing secret first, then the previous ones
	static      [][sha256.Size]byte    // hashes, so that all are of one length to compare
	prints      []uint32               // of the keys, in their order, and then of the static tokens
	maxLifetime time.Duration
	origins     []originPattern
	trusted     []netip.Prefix
	trustUnix   bool   // trusted_proxies names "unix"
	proKey      []byte // signs the app's PRO tokens; nil: they are ignored
	parser      *jwt.Parser
	verified    tokenCache[tokenClaims] // the one part that changes; it has a mutex
}

// Identity is who a connection is, for as long as it lives.
type Identity struct {
	UserID    string    // 1 to 128 bytes of UTF-8
	UserType  string    // what the token says, "" otherwise; for the log alone
	Room      string    // the only room the connection may use, "" for any
	Bound     bool      // the token is bound to UserID: strict identity
	ExpiresAt time.Time // the token's exp, without leeway; zero: never
	Guest     bool      // nobody said who this is: UserID is random
	Pro       bool      // a valid PRO token of this user came along
	key       uint32    // stands for what the token was accepted by, in Authenticator.prints
}

// NewAuthenticator reads the keys, tokens, origins and proxies of cfg. Its errors name the key at fault, never a secret.
func NewAuthenticator(cfg *Config) (*Authenticator, error) {
	a := &Authenticator{parser: newTokenParser()}
	if err := a.addKey("jwt.secret", cfg.JWT.Secret); err != nil {
		return nil, err
	}
	if cfg.Relay.ProSecret != "" {
		a.proKey = []byte(cfg.Relay.ProSecret)
	}
	for i, secret := range cfg.JWT.PreviousSecrets {
		if err := a.addKey(fmt.Sprintf("jwt.previous_secrets[%d]", i), secret); err != nil {
			return nil, err
		}
	}
	for i, token := range cfg.Auth.StaticTokens {
		if token == "" || len(token) > maxTokenBytes {
			return nil, fmt.Errorf("auth.static_tokens[%d] must be 1 to %d bytes long", i, maxTokenBytes)
		}
		a.static = append(a.static, staticHash(token))
		a.prints = append(a.prints, staticPrint(staticHash(token)))
	}
	var err error
	if a.maxLifetime, err = hours("jwt.max_lifetime_hours", cfg.JWT.MaxLifetimeHours); err != nil {
		return nil, err
	}
	for _, s := range cfg.CORS.AllowedOrigins {
		p, err := parseOriginPattern(s)
		if err != nil {
			return nil, fmt.Errorf("cors.allowed_origins: %w", err)
		}
		a.origins = append(a.origins, p)
	}
	for _, s := range cfg.Server.TrustedProxies {
		if s == trustedUnix {
			a.trustUnix = true
			continue
		}
		p, err := parseProxy(s)
		if err != nil {
			return nil, fmt.Errorf("server.trusted_proxies: %w", err)
		}
		a.trusted = append(a.trusted, p)
	}
	return a, nil
}

// newTokenParser returns the parser of all tokens: HS256 alone.
func newTokenParser() *jwt.Parser {
	return jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithJSONNumber(),
		jwt.WithStrictDecoding(),
		// Claims are checked by who knows them: the library takes an exp of 0 for none, and its errors quote what they refuse.
		jwt.WithoutClaimsValidation(),
	)
}

// signToken makes a token of claims, signed with HS256. kid names the key in the header, "" does not.
func signToken(claims jwt.MapClaims, kid string, secret []byte) (string, error) {
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
	if kid != "" {
		token.Header["kid"] = kid
	}
	return token.SignedString(secret)
}

// addKey accepts tokens signed with secret. An empty key would let anyone sign; a PEM block is a key of another
// algorithm, often a public one.
func (a *Authenticator) addKey(name, secret string) error {
	if secret == "" {
		return fmt.Errorf("%s is empty: set it to a random text of at least %d bytes (letshare token secret prints one)", name, minSecretBytes)
	}
	if strings.Contains(secret, "-----BEGIN ") {
		return fmt.Errorf("%s is a PEM file: tokens are signed with HS256, which needs a random text (letshare token secret prints one)", name)
	}
	a.keys.Keys = append(a.keys.Keys, []byte(secret))
	a.prints = append(a.prints, keyPrint(secret))
	return nil
}

// hours turns the number of hours of a key into a duration.
func hours(key string, n float64) (time.Duration, error) {
	if !(n > 0 && n <= maxConfigHours) {
		return 0, fmt.Errorf("%s must be more than 0 and at most %d", key, maxConfigHours)
	}
	return time.Duration(n * float64(time.Hour)), nil
}

// Identify says who asks, by the token first and the URL's userId after it. The Refusal is for the client;
// detail, set whenever the Refusal is, is for the log: it names numbers and times, never a token or a part of one.
func (a *Authenticator) Identify(r *http.Request, now time.Time) (Identity, *Refusal, error) {
	// Pairs that cannot be decoded are dropped by ParseQuery: they must not silently count as absent.
	query, queryErr := url.ParseQuery(r.URL.RawQuery)
	token := requestToken(r, query)
	if token == "" {
		if queryErr != nil {
			return Identity{}, tokenRefusal(TokenMalformed), errors.New("the query string cannot be decoded")
		}
		return Identity{}, tokenRefusal(TokenMissing), errors.New("no token in the URL, Authorization or Sec-WebSocket-Protocol")
	}
	id, refusal, detail := a.tokenIdentity(token, now)
	if refusal != nil {
		return Identity{}, refusal, detail
	}
	userID := query.Get("userId")
	if (userID == "" && queryErr != nil) || !validUserID(userID) {
		return Identity{}, &Refusal{http.StatusBadRequest, BadUserID, fmt.Sprintf("userId must be valid UTF-8 of at most %d bytes", maxUserIDBytes)},
			fmt.Errorf("userId of %d bytes", len(userID))
	}
	if id.Bound && userID != "" && userID != id.UserID {
		return Identity{}, tokenRefusal(TokenClaims), errors.New("userId is not the user_id that the token is bound to")
	}
	if userID != "" {
		id.UserID = strings.Clone(userID) // a part of the request line would keep all of it in memory, the token included
	}
	if id.UserID == "" {
		// 16 characters of base32 are 80 random bits.
		id.UserID, id.Guest = "guest-"+strings.ToLower(rand.Text()[:16]), true
	}
	id.Pro = a.isPro(query.Get("pro_token"), id.UserID, now)
	return id, nil, nil
}

// isPro says whether token is the app's PRO token for the user: HS256, is_pro, sub the user's id, exp not passed. Whatever is
// wrong with it, the user is simply not PRO: the app sends an old one for ever.
func (a *Authenticator) isPro(token, userID string, now time.Time) bool {
	if a.proKey == nil || token == "" || len(token) > maxTokenBytes {
		return false
	}
	claims := jwt.MapClaims{}
	_, err := a.parser.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return a.proKey, nil })
	exp, hasExp := numericDate(claims["exp"])
	return err == nil && claims["is_pro"] == true && claims["sub"] == userID && hasExp && now.Before(exp.Add(tokenLeeway))
}

// requestToken returns the token of a request, "" if it brings none. An empty place is no place: the next one is asked.
func requestToken(r *http.Request, query url.Values) string {
	if token := query.Get("token"); token != "" {
		return token
	}
	if scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		if token = strings.TrimSpace(token); token != "" {
			return token
		}
	}
	offered := strings.Split(strings.Join(r.Header.Values("Sec-WebSocket-Protocol"), ","), ",")
	for i := range len(offered) - 1 {
		if strings.TrimSpace(offered[i]) == tokenSubprotocol {
			return strings.TrimSpace(offered[i+1])
		}
	}
	return ""
}

// tokenIdentity says whom a token admits. A static token admits without saying who: UserID stays empty.
func (a *Authenticator) tokenIdentity(token string, now time.Time) (Identity, *Refusal, error) {
	if len(token) > maxTokenBytes {
		return Identity{}, tokenRefusal(TokenMalformed), fmt.Errorf("token of %d bytes, at most %d are read", len(token), maxTokenBytes)
	}
	if a.isStatic(token) {
		return Identity{key: staticPrint(staticHash(token))}, nil, nil
	}
	sum := sha256.Sum256([]byte(token))
	claims, verified := a.verified.get(sum)
	if !verified {
		raw, refusal, detail := a.verifySignature(token)
		if refusal != nil {
			return Identity{}, refusal, detail
		}
		var err error
		if claims, err = readClaims(raw); err != nil {
			return Identity{}, tokenRefusal(TokenClaims), err
		}
		claims.key = a.signer(token)
		a.verified.put(sum, claims)
	}
	if reason, err := claims.check(now, a.maxLifetime); err != nil {
		return Identity{}, tokenRefusal(reason), err
	}
	return Identity{UserID: claims.userID, UserType: claims.userType, Room: claims.room, Bound: claims.bind, ExpiresAt: claims.expires, key: claims.key}, nil, nil
}

// isStatic compares token with every static token, in a time that does not depend on which one it is or how much of it fits.
func (a *Authenticator) isStatic(token string) bool {
	if len(a.static) == 0 {
		return false
	}
	sum, found := staticHash(token), 0
	for i := range a.static {
		found |= subtle.ConstantTimeCompare(sum[:], a.static[i][:])
	}
	return found == 1
}

// staticHash hashes a static token. The app puts its token into the URL unescaped, where a plus sign means a space:
// the two count as one character.
func staticHash(token string) [sha256.Size]byte {
	return sha256.Sum256([]byte(strings.ReplaceAll(token, "+", " ")))
}

// verifySignature parses a token of at most maxTokenBytes and checks its signature against every key.
// With a Refusal of token_signature the claims are returned as well, unverified: only an inspection may look at them.
// The library's errors quote the token and are dropped.
func (a *Authenticator) verifySignature(token string) (jwt.MapClaims, *Refusal, error) {
	raw := jwt.MapClaims{}
	parsed, err := a.parser.ParseWithClaims(token, raw, a.keyFor)
	switch {
	case errors.Is(err, jwt.ErrTokenMalformed):
		return nil, tokenRefusal(TokenMalformed), errors.New("not three parts of base64url with JSON inside")
	case errors.Is(err, errTokenHeader):
		return raw, tokenRefusal(TokenSignature), errTokenHeader
	case err != nil && (parsed == nil || parsed.Header["alg"] != jwt.SigningMethodHS256.Alg()):
		return raw, tokenRefusal(TokenSignature), errors.New("signing algorithm is not HS256")
	case err != nil:
		return raw, tokenRefusal(TokenSignature), errors.New("not signed with jwt.secret or one of jwt.previous_secrets")
	}
	// encoding/json mends invalid UTF-8, by which two names could become one.
	if payload, err := a.parser.DecodeSegment(strings.Split(token, ".")[1]); err != nil || !utf8.Valid(payload) {
		return nil, tokenRefusal(TokenClaims), errors.New("claims are not valid UTF-8")
	}
	return raw, nil, nil
}

// signer returns the print of the key that a verified token is signed with.
func (a *Authenticator) signer(token string) uint32 {
	end := strings.LastIndexByte(token, '.')
	signature, err := a.parser.DecodeSegment(token[end+1:])
	for i, key := range a.keys.Keys[1:] {
		if err == nil && jwt.SigningMethodHS256.Verify(token[:end], signature, key) == nil {
			return a.prints[i+1]
		}
	}
	return a.prints[0]
}

var errTokenHeader = errors.New("the header has kid or crit, which tokens for this server do not have")

// keyFor returns the keys that may have signed t. A kid is never looked up, as a name or as a path: tokens for this
// server have none. crit asks for what is not implemented (RFC 7515 section 4.1.11).
func (a *Authenticator) keyFor(t *jwt.Token) (any, error) {
	for _, name := range [...]string{"kid", "crit"} {
		if _, present := t.Header[name]; present {
			return nil, errTokenHeader
		}
	}
	return a.keys, nil
}

// tokenClaims are the claims of a token with their types checked. Absent times are zero.
type tokenClaims struct {
	userID, userType, room     string
	bind                       bool
	key                        uint32 // of whom signed them, in Authenticator.prints; readClaims does not know
	issued, notBefore, expires time.Time
}

// readClaims checks the types of the claims that mean something here; others are ignored. null is a wrong type:
// a room_id of null must not come to mean every room.
func readClaims(raw jwt.MapClaims) (tokenClaims, error) {
	var c tokenClaims
	for _, claim := range [...]struct {
		name   string
		target *string
	}{{"user_id", &c.userID}, {"user_type", &c.userType}, {"room_id", &c.room}} {
		value, present := raw[claim.name]
		text, ok := value.(string)
		if present && (!ok || !validUserID(text)) {
			return c, fmt.Errorf("%s is not a string of at most %d bytes", claim.name, maxUserIDBytes)
		}
		*claim.target = text
	}
	for _, claim := range [...]struct {
		name   string
		target *time.Time
	}{{"iat", &c.issued}, {"nbf", &c.notBefore}, {"exp", &c.expires}} {
		value, present := raw[claim.name]
		if !present {
			continue
		}
		at, ok := numericDate(value)
		if !ok {
			return c, fmt.Errorf("%s is not a number of seconds between 1970 and the year 9999", claim.name)
		}
		*claim.target = at
	}
	if value, present := raw["bind_user"]; present {
		bind, ok := value.(bool)
		if !ok {
			return c, errors.New("bind_user is not true or false")
		}
		c.bind = bind
	}
	switch {
	case c.userID == "":
		return c, errors.New("user_id is missing")
	case c.expires.IsZero() || c.expires.Unix() == 0:
		return c, errors.New("exp is missing")
	}
	return c, nil
}

// numericDate reads a time of RFC 7519: seconds since 1970, with or without a fraction.
func numericDate(value any) (time.Time, bool) {
	number, ok := value.(json.Number)
	if !ok {
		return time.Time{}, false
	}
	s, err := number.Float64()
	if err != nil || s < 0 || s > maxNumericDate {
		return time.Time{}, false
	}
	whole := int64(s)
	return time.Unix(whole, int64((s-float64(whole))*1e9)), true
}

// check compares the times of c with now, the wall clock. A token counts until just before exp + leeway and
// from nbf - leeway on. An iat in the future would hide a lifetime that is too long.
func (c tokenClaims) check(now time.Time, maxLifetime time.Duration) (Reason, error) {
	if late := now.Sub(c.expires); late >= tokenLeeway {
		return TokenExpired, fmt.Errorf("expired %s ago (leeway %s, clock %s)", roundTime(late), tokenLeeway, now.UTC().Format(time.RFC3339))
	}
	for _, start := range [...]struct {
		name string
		at   time.Time
	}{{"nbf", c.notBefore}, {"iat", c.issued}} {
		if early := start.at.Sub(now); !start.at.IsZero() && early > tokenLeeway {
			return TokenNotYetValid, fmt.Errorf("%s is %s in the future (leeway %s, clock %s)", start.name, roundTime(early), tokenLeeway, now.UTC().Format(time.RFC3339))
		}
	}
	from := c.issued
	if from.IsZero() {
		from = now
	}
	if lifetime := c.expires.Sub(from); lifetime > maxLifetime {
		return TokenClaims, fmt.Errorf("valid for %s, jwt.max_lifetime_hours allows %s", roundTime(lifetime), maxLifetime)
	}
	return 0, nil
}

// roundTime drops what nobody reads of a duration.
func roundTime(d time.Duration) time.Duration { return d.Round(time.Second) }

// validUserID says whether s can be an identity or a claim; "" is valid and means absent.
func validUserID(s string) bool { return len(s) <= maxUserIDBytes && utf8.ValidString(s) }

// tokenRefusal is the answer to a token that does not admit. It tells no more than the reason does.
func tokenRefusal(reason Reason) *Refusal {
	text := map[Reason]string{
		TokenMissing:     "an auth token is needed",
		TokenMalformed:   "the auth token is not well-formed",
		TokenSignature:   "the auth token is not one of this server's",
		TokenExpired:     "the auth token has expired",
		TokenNotYetValid: "the auth token is not valid yet",
		TokenClaims:      "the auth token does not allow this connection",
	}[reason]
	return &Refusal{http.StatusUnauthorized, reason, text}
}

// trustedUnix in server.trusted_proxies means the peers of the Unix socket, which have no address.
const trustedUnix = "unix"

// parseProxy reads an entry of server.trusted_proxies: a CIDR, or one address.
func parseProxy(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a CIDR such as 10.0.0.0/8, nor %q", s, trustedUnix)
	}
	// An IPv4 address is compared as such, however it came in: so is a prefix of mapped ones.
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// ClientAddress returns whom r comes from: the peer, or, while that is a trusted proxy, the right-most hop of
// X-Forwarded-For that is not one. A hop that cannot be read ends the walk at the hop before it; if all are trusted
// the left-most counts. IPv4 is never mapped and no address has a zone.
//
// It is the zero Addr for a peer on the Unix socket that is not trusted, or that forwards for nobody.
func (a *Authenticator) ClientAddress(r *http.Request) netip.Addr {
	client, _, _ := a.clientHop(r)
	return client
}

// clientHop is ClientAddress, and which of the hops of X-Forwarded-For it is, counted from 1 at the left; 0: the peer.
func (a *Authenticator) clientHop(r *http.Request) (client netip.Addr, hop, hops int) {
	client = peerAddress(r)
	if !a.peerTrusted(r) {
		return client, 0, 0
	}
	list := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(list) - 1; i >= 0; i-- {
		address := hopAddress(strings.TrimSpace(list[i]))
		if !address.IsValid() {
			break
		}
		client, hop = address, i+1
		if !a.trusts(client) {
			break
		}
	}
	return client, hop, len(list)
}

// peerTrusted says whether the peer of the TCP or Unix connection may speak for others.
func (a *Authenticator) peerTrusted(r *http.Request) bool {
	if r.RemoteAddr == "" || r.RemoteAddr == "@" {
		return a.trustUnix
	}
	return a.trusts(peerAddress(r))
}

func (a *Authenticator) trusts(addr netip.Addr) bool {
	for _, p := range a.trusted {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// peerAddress is the other end of the connection itself, the zero Addr on a Unix socket.
func peerAddress(r *http.Request) netip.Addr {
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil { // as net/http writes it; the rest is for tests and sockets
		return peer.Addr().WithZone("").Unmap()
	}
	return hopAddress(r.RemoteAddr)
}

// hopAddress reads an address with or without a port, with or without brackets; the zero Addr if it is none.
func hopAddress(s string) netip.Addr {
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	if err != nil {
		addrPort, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}
		}
		addr = addrPort.Addr()
	}
	return addr.WithZone("").Unmap()
}

// addressKey groups addresses that one client can choose from: an IPv4 address, or the /64 of an IPv6 one.
// The zero Addr has the zero Prefix.
func addressKey(addr netip.Addr) netip.Prefix {
	bits := addr.BitLen()
	if addr.Is6() {
		bits = ipv6ClientBits
	}
	key, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return key
}

// Claims are what MintToken puts into a token.
type Claims struct {
	UserID   string        // required
	UserType string        // optional: "desktop", "mobile", …
	Room     string        // the only room, "" for any
	Bind     bool          // bind_user: the connection can be nobody but UserID
	TTL      time.Duration // at least a second; 0: jwt.expiration_hours
}

// MintToken signs a token with cfg's secret, valid from now for c.TTL. Its errors name the fix.
func MintToken(cfg *Config, c Claims, now time.Time) (string, error) {
	if c.UserID == "" || !validUserID(c.UserID) || !validUserID(c.UserType) {
		return "", fmt.Errorf("user and type must be valid UTF-8 of at most %d bytes, and user not empty", maxUserIDBytes)
	}
	if c.Room != "" && !validRoomName(c.Room) {
		return "", errors.New("room must be 2 to 12 Chinese characters, letters A-Z a-z, digits, spaces, _ or -")
	}
	if cfg.JWT.Secret == "" {
		return "", errors.New("jwt.secret is empty: nobody could tell the token from a forged one")
	}
	longest, err := hours("jwt.max_lifetime_hours", cfg.JWT.MaxLifetimeHours)
	if err != nil {
		return "", err
	}
	if c.TTL == 0 {
		if c.TTL, err = hours("jwt.expiration_hours", cfg.JWT.ExpirationHours); err != nil {
			return "", err
		}
	}
	if c.TTL < time.Second {
		return "", fmt.Errorf("a lifetime of %s is too short: give at least 1s", c.TTL)
	}
	if c.TTL > longest {
		return "", fmt.Errorf("a lifetime of %s is longer than jwt.max_lifetime_hours (%g): give a shorter one or raise that key", c.TTL, cfg.JWT.MaxLifetimeHours)
	}
	claims := jwt.MapClaims{"user_id": c.UserID, "iat": now.Unix(), "exp": now.Unix() + int64(c.TTL/time.Second)}
	if c.UserType != "" {
		claims["user_type"] = c.UserType
	}
	if c.Room != "" {
		claims["room_id"] = c.Room
	}
	if c.Bind {
		claims["bind_user"] = true
	}
	return signToken(claims, "", []byte(cfg.JWT.Secret))
}

// tokenReport is what inspect found out about a token. It holds no signature.
type tokenReport struct {
	static   bool           // one of auth.static_tokens: no claims
	verified bool           // the signature is good; otherwise anybody can have written the claims
	claims   map[string]any // numbers are json.Number; nil if there are none to read
	refusal  *Refusal       // nil: the token is accepted
	detail   error
}

// inspect tells why token would or would not be accepted now.
func (a *Authenticator) inspect(token string, now time.Time) tokenReport {
	var report tokenReport
	if _, report.refusal, report.detail = a.tokenIdentity(token, now); len(token) > maxTokenBytes {
		return report
	}
	if report.static = a.isStatic(token); !report.static {
		var refusal *Refusal
		report.claims, refusal, _ = a.verifySignature(token)
		report.verified = refusal == nil
	}
	return report
}
