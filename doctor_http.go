package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// reply is an answer of HTTP, as much of it as tells who gave it.
type reply struct {
	status   int
	by       string // Server or Via
	location string
	body     []byte
	reason   string // the slug of one of letshare's own refusals, "" if it is none
	message  string
}

// newReply reads an answer and closes it.
func newReply(answer *http.Response) *reply {
	defer answer.Body.Close()
	r := &reply{
		status:   answer.StatusCode,
		by:       cmp.Or(answer.Header.Get("Server"), answer.Header.Get("Via")),
		location: answer.Header.Get("Location"),
	}
	r.body, _ = io.ReadAll(io.LimitReader(answer.Body, doctorAnswerBytes))
	var refusal struct {
		Error struct{ Reason, Message string }
	}
	if json.Unmarshal(r.body, &refusal) == nil {
		r.reason, r.message = refusal.Error.Reason, refusal.Error.Message
	}
	return r
}

// url is the address of a path of the server.
func (d *doctor) url(path, query string) string {
	u := d.base
	u.Path += path
	u.RawQuery = query
	return u.String()
}

// header has what a client shows of itself: the token where no proxy logs it, and the page.
func (d *doctor) header() http.Header {
	header := make(http.Header)
	if d.token != "" {
		header.Set("Authorization", "Bearer "+d.token)
	}
	if d.origin != "" {
		header.Set("Origin", d.origin)
	}
	return header
}

// get asks a path with these headers.
func (d *doctor) get(ctx context.Context, path, query string, header http.Header) (*reply, error) {
	ctx, cancel := context.WithTimeout(ctx, doctorStep)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url(path, query), nil)
	if err != nil {
		return nil, err
	}
	request.Header = header
	answer, err := d.client.Do(request)
	if err != nil {
		var withURL *url.Error
		if errors.As(err, &withURL) {
			err = withURL.Err
		}
		return nil, err
	}
	return newReply(answer), nil
}

// checkHealth asks /health, without the token: who knows what answers there. False: nothing further can be found out.
func (d *doctor) checkHealth(ctx context.Context) bool {
	r, err := d.get(ctx, "/health", "", make(http.Header))
	if err != nil {
		d.fail("http", "look whether the port is that of a web server", "no answer: %v", err)
		return false
	}
	d.middle = r.by
	if r.by == "" {
		d.ok("http", "an answer, from letshare itself or a proxy that does not say so")
	} else {
		d.ok("http", "an answer, by way of %s", cutRunes(r.by))
	}
	var health struct{ Status string }
	json.Unmarshal(r.body, &health)
	switch {
	case r.status == http.StatusOK && health.Status == "healthy":
		d.ok("health", "healthy")
		return true
	case r.status == http.StatusServiceUnavailable && health.Status == "draining":
		d.fail("health", "wait until it has started again", "the server is stopping")
		return false
	}
	text, fix := d.strange(r)
	d.fail("health", fix, "/health: %s", text)
	// A proxy may pass on the WebSocket's path alone; but where another scheme answers, or nothing behind the proxy, all is said.
	return r.status == http.StatusNotFound || r.status == http.StatusOK
}

// strange says what an answer means that is not the one hoped for, and what to do.
func (d *doctor) strange(r *reply) (text, fix string) {
	who := "a web server that is not letshare"
	if r.by != "" {
		who = cutRunes(r.by)
	}
	switch {
	case r.reason == NotFound.String():
		fix = "let the proxy pass the whole host to letshare, without a path of its own"
		if d.base.Path != "" {
			root := url.URL{Scheme: d.base.Scheme, Host: d.base.Host, Path: "/"}
			fix = fmt.Sprintf("use %s, or let the proxy cut %s off: in nginx by a slash at the end of proxy_pass, in Caddy by handle_path", root.String(), d.base.Path)
		}
		return "wrong path: letshare answers, but has nothing there", fix
	case r.reason != "":
		return fmt.Sprintf("letshare refuses: %s, %s", r.reason, r.message), "see docs/operations.md for the reason " + r.reason
	case r.status/100 == 3:
		return fmt.Sprintf("%s sends the visitor on to %s", who, withoutQuery(r.location)), "use the address it names: a WebSocket does not follow"
	case r.status == http.StatusBadRequest && bytes.Contains(bytes.ToUpper(r.body), []byte("HTTPS")):
		return "the port speaks TLS, and was asked in plain HTTP", "write https:// or wss:// in the URL"
	case r.status == http.StatusUnauthorized || r.status == http.StatusForbidden:
		return fmt.Sprintf("%s wants a login of its own (%d)", who, r.status), "switch that off for this host: no browser can log in on a WebSocket"
	case r.status == http.StatusBadGateway || r.status == http.StatusServiceUnavailable || r.status == http.StatusGatewayTimeout:
		return fmt.Sprintf("the proxy answers %d: it does not reach letshare", r.status),
			"start letshare, and let the proxy pass on to its server.host and server.port"
	case r.status == http.StatusNotFound || r.status/100 == 2:
		return fmt.Sprintf("wrong path: %s answers %d there itself", who, r.status),
			"mend the path of the URL, or let the proxy pass this path on to letshare (nginx: location / { proxy_pass http://127.0.0.1:8080; })"
	}
	return fmt.Sprintf("%s answers %d", who, r.status), "see the proxy's error log"
}

// withoutQuery drops what may be secret of an address.
func withoutQuery(address string) string {
	address, _, _ = strings.Cut(address, "?")
	return address
}

// askReport asks /api/check with the headers of an upgrade, and says what the server makes of origin, token and address.
func (d *doctor) askReport(ctx context.Context) {
	header := d.header()
	header.Set("Connection", "Upgrade")
	header.Set("Upgrade", "websocket")
	// Some proxies refuse an upgrade that is not whole.
	header.Set("Sec-WebSocket-Version", "13")
	header.Set("Sec-WebSocket-Key", base64.StdEncoding.EncodeToString([]byte(rand.Text()[:16])))
	r, err := d.get(ctx, "/api/check", "probe="+probeUpgrade, header)
	if err != nil {
		d.warn("check", "see the proxy's error log", "/api/check gives no answer: %v", err)
		return
	}
	var report checkReport
	if r.status != http.StatusOK || json.Unmarshal(r.body, &report) != nil {
		text, fix := d.strange(r)
		d.warn("check", fix, "/api/check: %s", text)
		return
	}
	d.report = &report
	d.describeOrigin(report.Origin)
	d.describeToken(report.Token)
	d.describeWay(report.Client, report.Forwarded)
}

func (d *doctor) describeOrigin(o checkOrigin) {
	switch {
	case d.origin == "":
		d.skip("origin", "-origin checks whether a page may connect")
	case o.Received == "":
		d.warn("origin", "let the proxy pass the Origin header on: the server cannot tell pages apart without it", "the Origin did not arrive")
	case o.Allowed:
		d.ok("origin", "%s may connect", o.Received)
	default:
		d.fail("origin", "put "+cmp.Or(o.Fix, "it into cors.allowed_origins")+" into the configuration, beside the origins that shall stay", "%s may not connect", o.Received)
	}
}

// tokenFixes say what to do about a refused token.
var tokenFixes = map[string]string{
	TokenMissing.String():     "let the proxy pass the Authorization header on, and not use it for a login of its own",
	TokenMalformed.String():   "copy the whole token, without spaces and quotes",
	TokenSignature.String():   "mint one with the secret of this very server: letshare token -user NAME, with its configuration and environment",
	TokenExpired.String():     "mint a new one: letshare token -user NAME",
	TokenNotYetValid.String(): "set the clocks (timedatectl)",
	TokenClaims.String():      "letshare token -inspect TOKEN says more; mint a new one: letshare token -user NAME",
	BadUserID.String():        "mint one for a shorter name",
}

func (d *doctor) describeToken(t checkToken) {
	switch {
	case d.token == "":
		d.skip("token", "-token checks one, and lets the doctor connect")
	case t.OK:
		d.ok("token", "%s", t.Message)
	default:
		d.fail("token", tokenFixes[t.Reason], "%s: %s", t.Reason, t.Message)
	}
}

// describeWay says how the server sees the caller: behind a proxy that it does not trust everybody has the proxy's address.
func (d *doctor) describeWay(client checkClient, forwarded checkForwarded) {
	proxied := d.middle != "" || forwarded.Proto != d.base.Scheme
	switch {
	case client.Via == "peer" && proxied:
		d.warn("address", fmt.Sprintf(`"server": {"trusted_proxies": [%q]}, and let the proxy send X-Forwarded-For, -Proto and -Host`, client.Address),
			"the server takes the proxy, %s, for every client", client.Address)
	case forwarded.Proto != d.base.Scheme:
		d.warn("address", "let the proxy send X-Forwarded-Proto: a page of the server's own host is refused otherwise",
			"the server sees you at %s (%s), but takes the page's scheme for %s", client.Address, client.Via, forwarded.Proto)
	default:
		d.ok("address", "the server sees you at %s (%s), and itself at %s://%s", cmp.Or(client.Address, "a Unix socket"), client.Via, forwarded.Proto, forwarded.Host)
	}
}
