package main

import (
	"crypto/tls"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestOnlyListedOriginsAndTheOwnOneMayConnect(t *testing.T) {
	cfg := authTestConfig()
	cfg.CORS.AllowedOrigins = []string{
		"https://letshare.fun", "http://localhost:5173", "https://*.example.org", "https://*.example.net:8443",
		"https://localhost", "capacitor://localhost", "https://[2001:DB8::0:1]:444", "HTTPS://Upper.Example:443",
	}
	a := newTestAuthenticator(t, cfg)
	for _, row := range []struct {
		origin string
		want   bool
	}{
		{"https://letshare.fun", true},
		{"https://letshare.fun:443", true},
		{"HTTPS://LetShare.Fun", true},
		{"http://localhost:5173", true},
		{"https://localhost", true},
		{"capacitor://localhost", true},
		{"https://[2001:db8::1]:444", true},
		{"https://upper.example", true},
		{"https://a.example.org", true},
		{"https://a.b.example.org", true},
		{"https://a.example.net:8443", true},
		{"http://own.test:8080", true}, // the server's own

		{"http://letshare.fun", false},
		{"https://letshare.fun:8443", false},
		{"https://letshare.fun:80", false},
		{"https://letshare.fun:0443", false},
		{"https://letshare.fun:", false},
		{"https://letshare.fun:443:443", false},
		{"https://letshare.fun.", false},
		{"https://letshare.fun/", false},
		{"https://letshare.fun/x", false},
		{"https://letshare.fun?x", false},
		{"https://letshare.fun#x", false},
		{"https://letshare.fun.evil.test", false},
		{"https://notletshare.fun", false},
		{"https://www.letshare.fun", false},
		{"https://letshare.funn", false},
		{"https://letshare.fun@evil.test", false},
		{"https://evil.test@letshare.fun", false},
		{"https://user:pw@letshare.fun", false},
		{"https://letshare.fun\\.evil.test", false},
		{"https://letshare%2efun", false},
		{"https://l\u0435tshare.fun", false}, // Cyrillic
		{" https://letshare.fun", false},
		{"https://letshare.fun ", false},
		{"https://letshare.fun, https://evil.test", false},
		{"https:letshare.fun", false},
		{"https:///letshare.fun", false},
		{"//letshare.fun", false},
		{"letshare.fun", false},
		{"https://example.org", false}, // a wildcard is not its own host
		{"https://.example.org", false},
		{"https://notexample.org", false},
		{"http://a.example.org", false},
		{"https://a.example.org:8443", false},
		{"https://a.example.net", false},
		{"https://a.example.org.evil.test", false},
		{"http://localhost", false},
		{"http://localhost:5174", false},
		{"http://127.0.0.1:5173", false},
		{"ionic://localhost", false},
		{"https://own.test:8080", false}, // own host, another scheme
		{"http://own.test", false},       // own host, another port
		{"https://[2001:db8::1%25eth0]:444", false},
		{"null", false},
		{"NULL", false},
		{"", false},
		{"file://", false},
		{"*", false},
	} {
		t.Run(row.origin, func(t *testing.T) {
			r := httptest.NewRequest("GET", "http://own.test:8080/ws", nil)
			r.Header["Origin"] = []string{row.origin}
			if ok, _, _ := a.CheckOrigin(r); ok != row.want || a.OriginAllowed(r) != row.want {
				t.Errorf("allowed: %t, want %t", ok, row.want)
			}
		})
	}
}

func TestWhoSendsNoOriginIsNoBrowserAndSeveralAreNone(t *testing.T) {
	a := newTestAuthenticator(t, authTestConfig())
	r := httptest.NewRequest("GET", "/ws", nil)
	if !a.OriginAllowed(r) {
		t.Error("a request without Origin is refused")
	}
	r.Header["Origin"] = []string{"https://letshare.fun", "https://letshare.fun"}
	if ok, received, fix := a.CheckOrigin(r); ok || received != "https://letshare.fun, https://letshare.fun" || fix != "" {
		t.Errorf("two Origin headers: %t, %q, %q", ok, received, fix)
	}
}

func TestTheOwnOriginDependsOnWhoForwards(t *testing.T) {
	for _, row := range []struct {
		name, host, proto, forwardedHost, origin string
		tls, trusted, want                       bool
	}{
		{name: "plain", host: "own.test", origin: "http://own.test", want: true},
		{name: "plain, default port", host: "own.test:80", origin: "http://own.test", want: true},
		{name: "plain is not https", host: "own.test", origin: "https://own.test"},
		{name: "TLS", host: "own.test", tls: true, origin: "https://own.test", want: true},
		{name: "TLS is not http", host: "own.test", tls: true, origin: "http://own.test"},
		{name: "IPv6", host: "[::1]:8080", origin: "http://[::1]:8080", want: true},
		{name: "proxy", trusted: true, host: "own.test", proto: "https", origin: "https://own.test", want: true},
		{name: "proxy that says wss", trusted: true, host: "own.test", proto: "wss", origin: "https://own.test", want: true},
		{name: "proxy that renames", trusted: true, host: "10.0.0.7:8080", proto: "https", forwardedHost: "own.test", origin: "https://own.test", want: true},
		{name: "two proxies", trusted: true, host: "inner", proto: "https, http", forwardedHost: "own.test, middle", origin: "https://own.test", want: true},
		{name: "anybody's proto", host: "own.test", proto: "https", origin: "https://own.test"},
		{name: "anybody's host", host: "own.test", forwardedHost: "evil.test", origin: "http://evil.test"},
		{name: "no Host", host: "", origin: "http://"},
	} {
		t.Run(row.name, func(t *testing.T) {
			cfg := authTestConfig()
			if row.trusted {
				cfg.Server.TrustedProxies = []string{"192.0.2.0/24"} // httptest's peer
			}
			r := httptest.NewRequest("GET", "/ws", nil)
			r.Host = row.host
			if row.tls {
				r.TLS = &tls.ConnectionState{}
			}
			for name, value := range map[string]string{"Origin": row.origin, "X-Forwarded-Proto": row.proto, "X-Forwarded-Host": row.forwardedHost} {
				if value != "" {
					r.Header.Set(name, value)
				}
			}
			if got := newTestAuthenticator(t, cfg).OriginAllowed(r); got != row.want {
				t.Errorf("allowed: %t, want %t", got, row.want)
			}
		})
	}
}

func TestTheLogOfARefusedOriginNamesTheLineThatWouldAdmitIt(t *testing.T) {
	a := newTestAuthenticator(t, authTestConfig())
	long := "https://" + strings.Repeat("a", 80) + ".test"
	for _, row := range []struct{ origin, received, fix string }{
		{"https://x:8443", "https://x:8443", `"cors": {"allowed_origins": ["https://x:8443"]}`},
		{"HTTPS://X:443", "HTTPS://X:443", `"cors": {"allowed_origins": ["https://x"]}`},
		{"null", "null", ""},
		{"https://x/y", "https://x/y", ""},
		{long, long[:64] + "…", ""}, // half an origin would admit another one
		{strings.Repeat("\u5f20", 65), strings.Repeat("\u5f20", 64) + "…", ""},
	} {
		r := httptest.NewRequest("GET", "/ws", nil)
		r.Header["Origin"] = []string{row.origin}
		ok, received, fix := a.CheckOrigin(r)
		if ok || received != row.received || fix != row.fix {
			t.Errorf("%q: %t, %q, %q", row.origin, ok, received, fix)
		}
		if fix == "" {
			continue
		}
		cfg := authTestConfig()
		cfg.CORS.AllowedOrigins = []string{strings.Split(fix, `"`)[5]}
		if !newTestAuthenticator(t, cfg).OriginAllowed(r) {
			t.Errorf("%s does not admit %q", fix, row.origin)
		}
	}
	if refusal := originRefusal(); refusal.Code != 403 || refusal.Reason != OriginNotAllowed || refusal.Message == "" {
		t.Errorf("refusal %+v", refusal)
	}
}

func TestOriginPatternsThatWouldAdmitTheWrongPagesAreErrors(t *testing.T) {
	for _, row := range []struct{ pattern, want string }{
		{"*", "list each origin"},
		{"null", "sandboxed"},
		{"", "scheme://host"},
		{"letshare.fun", `did you mean "https://letshare.fun"`},
		{"*evil", "scheme://host"},
		{"https://*evil.test", "whole labels"},
		{"https://a.*.test", "whole labels"},
		{"https://*", "whole labels"},
		{"https://*.*.test", "whole labels"},
		{"https://*.", "missing"},
		{"http://*.example.org", "for https alone"},
		{"https://*.[::1]", "names below"},
		{"https://letshare.fun/", "path"},
		{"https://letshare.fun/app", "path"},
		{"https://me@letshare.fun", "user name"},
		{"https://letshare.fun:", "port"},
		{"https://letshare.fun:99999", "port"},
		{"https://[::1", "hosts do not have"},
		{"https://[1.2.3.4]", "IPv6"},
		{"https://", "missing"},
		{"file://", "missing"},
		{"wss://letshare.fun", "https://letshare.fun"},
		{"ws://letshare.fun", "http://letshare.fun"},
		{"https://b\u00fccher.example", "xn--"},
		{"1https://letshare.fun", "scheme"},
	} {
		_, err := parseOriginPattern(row.pattern)
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%q: error %v, want one with %q", row.pattern, err, row.want)
		}
		if err != nil && !strings.Contains(err.Error(), fmt.Sprintf("%q", row.pattern)) {
			t.Errorf("%q: the error does not quote it: %v", row.pattern, err)
		}
	}
}

// FuzzOrigin: an origin that is read has one spelling, which reads as itself; a wildcard admits only what ends with its host.
func FuzzOrigin(f *testing.F) {
	for _, s := range []string{"https://letshare.fun", "https://*.example.org:8443", "capacitor://localhost", "https://[2001:db8::1]:444", "null", "https://a@b", "*evil"} {
		f.Add(s, "https://a.example.org:8443")
	}
	f.Fuzz(func(t *testing.T, pattern, header string) {
		o, err := parseOrigin(header)
		if err == nil {
			again, err := parseOrigin(o.String())
			if err != nil || again != o || !utf8.ValidString(o.String()) || strings.ContainsAny(o.host, "/@?#\\ *%") {
				t.Fatalf("%q reads as %q, that as %q (%v)", header, o, again, err)
			}
			exact, err := parseOriginPattern(o.String())
			// ws and wss are schemes, but of no page.
			if err != nil && o.scheme != "ws" && o.scheme != "wss" || err == nil && !exact.match(o) {
				t.Fatalf("%q is no pattern for itself: %v", o, err)
			}
		}
		p, patternErr := parseOriginPattern(pattern)
		if err != nil || patternErr != nil || !p.match(o) {
			return
		}
		if p.scheme != o.scheme || p.port != o.port || !p.below && p.host != o.host || p.below && !strings.HasSuffix(o.host, p.host) {
			t.Fatalf("%q admits %q", pattern, header)
		}
	})
}
