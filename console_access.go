package main

import (
	"net/http"
	"net/netip"
	"strings"
)

// Why the console shows no token and, without metrics.token, no figures. On the wire; the page has a sentence for each.
const (
	withheldProduction = "production" // not local mode
	withheldProxy      = "proxy"      // something stands between that is not to be believed, or does not say who asks
	withheldAddress    = "address"    // the client is neither this machine nor in a private network
	withheldHost       = "host"       // the page has a name: names can be made to lead here by anybody
)

// withheld says why a request gets nothing secret, "" when it does: only in local mode, for a loopback or private client address,
// and a page whose host is an IP address or localhost. A page of any other name may be somebody's who lets that name lead to this
// machine (DNS rebinding), so that his page is of the same origin as the console.
func (r *rules) withheld(request *http.Request) string {
	client, known := r.auth.consoleClient(request)
	switch {
	case r.cfg.Mode != modeLocal:
		return withheldProduction
	case !known:
		return withheldProxy
	case !client.IsLoopback() && !client.IsPrivate():
		return withheldAddress
	case !namesAddress(request):
		return withheldHost
	}
	return ""
}

// consoleClient is whom a request comes from, where that is beyond doubt: the peer, if nothing tells of a proxy; or behind a
// trusted proxy whom that names. A trusted proxy that names nobody may stand before anybody.
func (a *Authenticator) consoleClient(r *http.Request) (client netip.Addr, known bool) {
	client, hop, _ := a.clientHop(r)
	if !a.peerTrusted(r) {
		return client, r.ProtoAtLeast(1, 1) && !forwarded(r.Header) // no browser speaks HTTP/1.0, many proxies do
	}
	return client, hop == 1 || hop > 1 && !a.trusts(client) // a trusted hop behind others: the one before it cannot be read
}

// forwarded says whether a proxy has left its mark on a request.
func forwarded(header http.Header) bool {
	for name := range header {
		switch {
		case strings.HasPrefix(name, "X-Forwarded-"), strings.HasPrefix(name, "Cf-"):
			return true
		case name == "Forwarded", name == "Via", name == "X-Real-Ip":
			return true
		}
	}
	return false
}

// namesAddress says whether all that names the host of the asking page is an IP address or localhost. A proxy may put
// another Host in the place of the browser's, and the page can make up X-Forwarded-Host; its Origin it cannot.
func namesAddress(r *http.Request) bool {
	hosts := []string{r.Host}
	for _, value := range r.Header.Values("X-Forwarded-Host") {
		for host := range strings.SplitSeq(value, ",") {
			hosts = append(hosts, strings.TrimSpace(host))
		}
	}
	for _, value := range r.Header.Values("Origin") {
		from, err := parseOrigin(value)
		if err != nil {
			return false
		}
		hosts = append(hosts, from.host)
	}
	for _, host := range hosts {
		name, _, err := splitHost(host)
		if _, notIP := netip.ParseAddr(strings.Trim(name, "[]")); err != nil || notIP != nil && name != "localhost" {
			return false
		}
	}
	return true
}
