package main

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Credentials for a TURN server, by the scheme that coturn calls use-auth-secret (draft-uberti-behave-turn-rest-00): the user name
// begins with the second at which it ends, and the password is its HMAC-SHA1 under a secret that both servers have. Neither asks
// the other anything.

// iceServer is one entry of RTCPeerConnection's iceServers.
type iceServer struct {
	URLs       []string `json:"urls"`
	Username   string   `json:"username"`
	Credential string   `json:"credential"`
}

// turnAnswer is the body of /api/turn-credentials.
type turnAnswer struct {
	ICEServers []iceServer `json:"ice_servers"`
	TTLSeconds int64       `json:"ttl_seconds"`
}

// What /api/turn-credentials refuses, beside origins and tokens.
var (
	refuseTurnDisabled = &Refusal{http.StatusNotFound, TurnDisabled, "this server has no TURN server to name"}
	refuseTurnTooOften = &Refusal{http.StatusTooManyRequests, RateLimited, "too many requests from your address, try again in a moment"}
)

// errTurnTooOften is the log's detail of a refusal by the rate.
var errTurnTooOften = errors.New("rate limit reached")

// serveTurn answers GET /api/turn-credentials. It admits whom the WebSocket admits; serveRead has done what CORS wants.
func (s *Server) serveTurn(w http.ResponseWriter, r *http.Request) {
	rules := s.rules.Load()
	turn := &rules.cfg.Turn
	if len(turn.URLs) == 0 {
		s.counters.refuse(TurnDisabled)
		answerRefusal(w, refuseTurnDisabled)
		return
	}
	address, now := rules.auth.ClientAddress(r), time.Now()
	identity, refusal, detail := Identity{}, refuseTurnTooOften, errTurnTooOften
	if s.turnAsks.take(address, rate{turnPerSecond, turnBurst}, s.clock()) {
		if ok, received, fix := rules.auth.CheckOrigin(r); !ok {
			refusal, detail = originRefusal(), errors.New(received+" is not allowed; "+fix+" admits it")
		} else {
			identity, refusal, detail = rules.auth.Identify(r, now)
		}
	}
	if refusal != nil {
		s.counters.refuse(refusal.Reason)
		s.log.Warn("turn credentials refused", "reason", refusal.Reason.String(), "address", address.String(), "detail", detail.Error())
		switch refusal.Code {
		case http.StatusTooManyRequests:
			w.Header().Set("Retry-After", turnRetryAfter)
		case http.StatusUnauthorized:
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		answerRefusal(w, refusal)
		return
	}
	answerJSON(w, http.StatusOK, turn.credentials(identity, now))
}

// credentials makes what admits a user to the TURN servers from now on. They do not outlive the user's token.
func (c *TurnConfig) credentials(who Identity, now time.Time) *turnAnswer {
	expiry := now.Unix() + int64(c.TTLSeconds)
	if exp := who.ExpiresAt; !exp.IsZero() {
		// Within its leeway an expired token still admits: to a second of TURN.
		expiry = max(min(expiry, exp.Unix()), now.Unix()+1)
	}
	username := strconv.FormatInt(expiry, 10) + ":" + turnName(who.UserID)
	mac := hmac.New(sha1.New, []byte(c.Secret))
	mac.Write([]byte(username))
	return &turnAnswer{
		ICEServers: []iceServer{{c.URLs, username, base64.StdEncoding.EncodeToString(mac.Sum(nil))}},
		TTLSeconds: expiry - now.Unix(),
	}
}

// turnName is the user's part of a TURN user name: the identity, by which the host finds a guest in the TURN server's log.
// coturn refuses white space, quotes, backslashes and what it takes for SQL: such an identity stands there in hexadecimal.
func turnName(identity string) string {
	strange := func(r rune) bool {
		return !unicode.IsGraphic(r) || unicode.IsSpace(r) || strings.ContainsRune(`'"\`, r)
	}
	folded := strings.ToLower(identity)
	if strings.ContainsFunc(identity, strange) || strings.Contains(folded, "union") && strings.Contains(folded, "select") {
		return hex.EncodeToString([]byte(identity))
	}
	return identity
}

// parseTurnURL checks a URL of a STUN or TURN server as browsers read it (RFC 7064, RFC 7065): scheme, host, and maybe a port
// and a transport. Its errors end in how to write it.
func parseTurnURL(s string) error {
	scheme, rest, _ := strings.Cut(s, ":")
	address, query, asks := strings.Cut(rest, "?")
	switch scheme {
	case "turn", "turns":
		if asks && query != "transport=udp" && query != "transport=tcp" {
			return errors.New("may ask for transport=udp or transport=tcp and nothing else")
		}
	case "stun", "stuns":
		if asks {
			return errors.New("is a STUN server, which has no transport to ask for; end it at the port")
		}
	default:
		return errors.New("must begin with turn:, turns:, stun: or stuns:, like turn:turn.example.org:3478?transport=udp")
	}
	host, port := address, "3478"
	if strings.LastIndexByte(address, ':') > strings.LastIndexByte(address, ']') {
		var err error
		if host, port, err = net.SplitHostPort(address); err != nil {
			return errors.New("must have host:port behind the scheme, an IPv6 address in brackets")
		}
	} else if inner, ok := strings.CutPrefix(address, "["); ok {
		host = strings.TrimSuffix(inner, "]")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || strconv.Itoa(n) != port {
		return errors.New("must have a port from 1 to 65535, or none")
	}
	// A zone (fe80::1%eth0) names an interface of this machine, which says nothing to a browser.
	zoned := strings.Contains(host, "%")
	if host == "" || zoned || !isHost(host) || strings.Contains(host, ":") != strings.HasPrefix(address, "[") {
		return errors.New("must name a host or an address behind the scheme, without slashes or a zone, an IPv6 address in brackets")
	}
	return nil
}

// turn checks what /api/turn-credentials hands out.
func (v *validator) turn() {
	turn := v.c.Turn
	for i, s := range turn.URLs {
		if strings.Contains(s, "@") {
			v.failAt("turn.urls", i, "must not hold a user name or password; write turn:host:port")
		} else if err := parseTurnURL(s); err != nil {
			v.failAt("turn.urls", i, "%v", err)
		}
	}
	switch n := len(turn.Secret); {
	case len(turn.URLs) > maxTurnURLs:
		v.fail("turn.urls", "are more than %d, which no browser tries with patience; name fewer", maxTurnURLs)
	case len(turn.URLs) > 0 && n == 0:
		v.fail("turn.secret", "is missing; set it to static-auth-secret of the TURN server, or remove turn.urls")
	case len(turn.URLs) == 0 && n > 0:
		v.fail("turn.secret", "means nothing without turn.urls; name the TURN servers, or remove it")
	case n > 0 && n < minStaticTokenBytes && v.c.Mode == modeProduction:
		v.fail("turn.secret", "is shorter than %d bytes, which production mode does not take: whoever has credentials can guess it; choose a longer one here and at the TURN server", minStaticTokenBytes)
	}
	if n := turn.TTLSeconds; n < 1 || n > maxTurnSeconds {
		v.fail("turn.ttl_seconds", "must be from 1 to %d; a day is 86400", maxTurnSeconds)
	}
}
