package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// origin is a page's origin in one spelling: lower case, the scheme's default port left out, IPv6 addresses shortened.
// Two origins are the same when they are equal.
type origin struct {
	scheme string
	host   string // without port; an IPv6 address stands in brackets
	port   string // "" for the scheme's default
}

// String returns o as a browser writes it.
func (o origin) String() string {
	if o.port == "" {
		return o.scheme + "://" + o.host
	}
	return o.scheme + "://" + o.host + ":" + o.port
}

// parseOrigin reads an Origin header. Everything that is not exactly scheme://host[:port] in ASCII is refused:
// null, paths, userinfo, escapes, empty labels.
func parseOrigin(s string) (origin, error) {
	scheme, rest, found := strings.Cut(s, "://")
	if !found {
		return origin{}, errors.New("it is not scheme://host")
	}
	scheme = strings.ToLower(scheme)
	if !validScheme(scheme) {
		return origin{}, errors.New("the scheme is not made of letters and digits")
	}
	host, port, err := splitHost(rest)
	if err != nil {
		return origin{}, err
	}
	if port == defaultPort(scheme) {
		port = ""
	}
	return origin{scheme, host, port}, nil
}

// defaultPort returns the port that an origin of scheme leaves out, "" if there is none.
func defaultPort(scheme string) string {
	switch scheme {
	case "http":
		return "80"
	case "https":
		return "443"
	}
	return ""
}

// validScheme follows RFC 3986 section 3.1, lower case.
func validScheme(s string) bool {
	for i, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z'
		if !letter && (i == 0 || !('0' <= c && c <= '9' || c == '+' || c == '-' || c == '.')) {
			return false
		}
	}
	return s != ""
}

// splitHost reads host[:port] in ASCII, as an Origin or a Host header has it.
func splitHost(s string) (host, port string, err error) {
	host, hasPort := s, false
	if end := strings.LastIndexByte(s, ':'); end > strings.LastIndexByte(s, ']') {
		host, port, hasPort = s[:end], s[end+1:], true
	}
	if hasPort && !validPort(port) {
		return "", "", errors.New("the port is not a number between 1 and 65535")
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		addr, err := netip.ParseAddr(host[1 : len(host)-1])
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", "", errors.New("the address in brackets is not an IPv6 address")
		}
		return "[" + addr.String() + "]", port, nil
	}
	host = strings.ToLower(host)
	return host, port, checkHost(host)
}

// validPort accepts the one spelling of a port that browsers use: no sign, no leading zero.
func validPort(s string) bool {
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' || n > 65535 {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n > 0 && n <= 65535 && s[0] != '0'
}

// checkHost says what keeps a lower-case name from being a host.
func checkHost(host string) error {
	for _, c := range []byte(host) {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		case c == '@':
			return errors.New("it has a user name: leave out everything up to the @")
		case c == '/' || c == '?' || c == '#':
			return errors.New("it has a path: end it behind the host or port")
		case c == '*':
			return errors.New("* may only stand for whole labels at the front: https://*.host")
		case c >= 0x80:
			return errors.New("the host is not ASCII: write its xn-- form")
		default:
			return errors.New("the host has a character that hosts do not have")
		}
	}
	if host == "" || strings.HasPrefix(host, ".") || strings.HasSuffix(host, ".") || strings.Contains(host, "..") {
		return errors.New("the host is missing or has an empty label")
	}
	return nil
}

// originPattern is an entry of cors.allowed_origins: one origin, or with https://*.host every name below host,
// at any depth, but not host itself. Immutable.
type originPattern struct {
	origin
	below bool // host is a suffix that begins with a dot
}

// parseOriginPattern reads an entry of cors.allowed_origins. The error quotes s and says what is wrong and what to write.
func parseOriginPattern(s string) (originPattern, error) {
	plain, below := s, false
	if scheme, name, found := strings.Cut(s, "://*."); found {
		if !strings.EqualFold(scheme, "https") {
			return originPattern{}, fmt.Errorf("%q: a wildcard is for https alone: write https://*.host, or each origin in full", s)
		}
		plain, below = scheme+"://"+name, true
	}
	switch lower := strings.ToLower(s); {
	case lower == "*":
		return originPattern{}, errors.New(`"*" would admit every page: list each origin, such as "https://example.org"`)
	case lower == "null":
		return originPattern{}, errors.New(`"null" is the origin of every sandboxed page: serve the page from an address and list that`)
	case !strings.Contains(s, "://"):
		return originPattern{}, fmt.Errorf("%q: an origin is scheme://host[:port]: did you mean %q", s, "https://"+s)
	case strings.HasPrefix(lower, "ws://"), strings.HasPrefix(lower, "wss://"):
		return originPattern{}, fmt.Errorf("%q: an origin is that of the page: write http%s", s, strings.TrimPrefix(lower, "ws"))
	}
	o, err := parseOrigin(plain)
	if err != nil {
		return originPattern{}, fmt.Errorf("%q: an origin is scheme://host[:port] or https://*.host: %w", s, err)
	}
	if below {
		if strings.HasPrefix(o.host, "[") {
			return originPattern{}, fmt.Errorf("%q: an address has no names below it: write it in full", s)
		}
		o.host = "." + o.host
	}
	return originPattern{o, below}, nil
}

// match says whether p admits o.
func (p originPattern) match(o origin) bool {
	if !p.below {
		return p.origin == o
	}
	// A parsed host has no empty label: a name stands before the suffix and its dot.
	return o.scheme == p.scheme && o.port == p.port && strings.HasSuffix(o.host, p.host)
}

// CheckOrigin says whether the page that sent r may connect: it is on the list, or it is the server's own.
// Requests without an Origin, which no browser can be made to send, are admitted.
//
// For the log of a refusal, received is the Origin, cut to maxLoggedRunes, and fix the line of the configuration
// that would admit it; fix is "" when no line can.
func (a *Authenticator) CheckOrigin(r *http.Request) (ok bool, received, fix string) {
	values := r.Header["Origin"]
	if len(values) == 0 {
		return true, "", ""
	}
	received = cutRunes(strings.Join(values, ", "))
	if len(values) > 1 {
		return false, received, ""
	}
	o, err := parseOrigin(values[0])
	if err != nil {
		return false, received, ""
	}
	for _, p := range a.origins {
		if p.match(o) {
			return true, received, ""
		}
	}
	if own, known := a.ownOrigin(r); known && own == o {
		return true, received, ""
	}
	if text := o.String(); cutRunes(text) == text {
		fix = fmt.Sprintf(`"cors": {"allowed_origins": [%q]}`, text)
	}
	return false, received, fix
}

// OriginAllowed is CheckOrigin for those who log nothing.
func (a *Authenticator) OriginAllowed(r *http.Request) bool {
	ok, _, _ := a.CheckOrigin(r)
	return ok
}

// originRefusal is the answer to a page that may not connect.
func originRefusal() *Refusal {
	return &Refusal{http.StatusForbidden, OriginNotAllowed, "this page may not connect to this server"}
}

// ownOrigin is the origin of a page that this server, or the trusted proxy before it, would serve under the same name.
// Of several values of a forwarding header the first is what the browser saw. No page can forge these headers on an
// upgrade, and what is no page can forge its Origin as well.
func (a *Authenticator) ownOrigin(r *http.Request) (origin, bool) {
	scheme, host := "http", r.Host
	if r.TLS != nil {
		scheme = "https"
	}
	if a.peerTrusted(r) {
		switch proto := strings.ToLower(firstValue(r, "X-Forwarded-Proto")); proto {
		case "https", "wss": // some proxies name the scheme of the WebSocket
			scheme = "https"
		case "http", "ws":
			scheme = "http"
		}
		if forwarded := firstValue(r, "X-Forwarded-Host"); forwarded != "" {
			host = forwarded
		}
	}
	o, err := parseOrigin(scheme + "://" + host)
	return o, err == nil
}

// firstValue returns the first element of a header that is a list.
func firstValue(r *http.Request, name string) string {
	value, _, _ := strings.Cut(r.Header.Get(name), ",")
	return strings.TrimSpace(value)
}

// cutRunes bounds what a client chose before it goes to the log.
func cutRunes(s string) string {
	n := 0
	for i := range s {
		if n == maxLoggedRunes {
			return s[:i] + "…"
		}
		n++
	}
	return s
}
