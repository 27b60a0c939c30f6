package main

import (
	"net/http"
	"testing"
)

// Who is shown a token: the whole matrix of mode, client address, Host and proxies.
func TestWhoIsShownAToken(t *testing.T) {
	production := func(c *Config) { c.Mode, c.JWT.Secret = modeProduction, randomSecret() }
	behind := func(proxies ...string) func(*Config) { return func(c *Config) { c.Server.TrustedProxies = proxies } }
	for _, test := range []struct {
		what   string
		change func(*Config)
		peer   string
		host   string
		header []string // name, value, …
		want   string
	}{
		{"this machine", nil, "127.0.0.1:1", "127.0.0.1:8080", nil, ""},
		{"this machine, by name", nil, "127.0.0.1:1", "localhost:8080", nil, ""},
		{"this machine, without a port", nil, "127.0.0.1:1", "LOCALHOST", nil, ""},
		{"this machine, IPv6", nil, "[::1]:1", "[::1]:8080", nil, ""},
		{"this machine, its own page", nil, "127.0.0.1:1", "127.0.0.1:8080", []string{"Origin", "http://127.0.0.1:8080"}, ""},
		{"a private network", nil, "192.168.1.20:1", "192.168.1.2:8080", nil, ""},
		{"a private network, 10/8", nil, "10.1.2.3:1", "10.0.0.1", nil, ""},
		{"a private network, 172.16/12", nil, "172.31.2.3:1", "172.16.0.1", nil, ""},
		{"a private network, IPv6", nil, "[fd00::1]:1", "[fd00::2]:8080", nil, ""},
		{"a mapped address", nil, "[::ffff:192.168.1.20]:1", "192.168.1.2:8080", nil, ""},

		{"production", production, "127.0.0.1:1", "127.0.0.1:8080", nil, withheldProduction},

		{"the internet", nil, "203.0.113.7:1", "198.51.100.1:8080", nil, withheldAddress},
		{"the internet, IPv6", nil, "[2001:db8::7]:1", "[2001:db8::1]", nil, withheldAddress},
		{"beside a private network", nil, "172.32.0.1:1", "172.16.0.1", nil, withheldAddress},
		{"shared addresses of a provider", nil, "100.64.0.1:1", "100.64.0.2", nil, withheldAddress},
		{"a Unix socket", nil, "@", "localhost", nil, withheldAddress},

		{"DNS rebinding", nil, "127.0.0.1:1", "attacker.example", nil, withheldHost},
		{"DNS rebinding, with a port", nil, "127.0.0.1:1", "attacker.example:8080", nil, withheldHost},
		{"DNS rebinding to a private network", nil, "192.168.1.20:1", "attacker.example", nil, withheldHost},
		{"a name that looks like an address", nil, "127.0.0.1:1", "127.0.0.1.attacker.example", nil, withheldHost},
		{"a name below localhost", nil, "127.0.0.1:1", "attacker.localhost", nil, withheldHost},
		{"a name that begins like localhost", nil, "127.0.0.1:1", "localhost.attacker.example", nil, withheldHost},
		{"no name", nil, "127.0.0.1:1", "", nil, withheldHost},
		{"an address in another spelling", nil, "127.0.0.1:1", "2130706433", nil, withheldHost},
		{"an address with leading zeros", nil, "127.0.0.1:1", "127.000.000.001", nil, withheldHost},
		{"a user name", nil, "127.0.0.1:1", "127.0.0.1@attacker.example", nil, withheldHost},
		{"a page of another name", nil, "127.0.0.1:1", "127.0.0.1:8080", []string{"Origin", "http://attacker.example"}, withheldHost},
		{"a page of no name", nil, "127.0.0.1:1", "127.0.0.1:8080", []string{"Origin", "null"}, withheldHost},
		{"a page of two names", nil, "127.0.0.1:1", "127.0.0.1:8080", []string{"Origin", "http://127.0.0.1:8080", "Origin", "http://attacker.example"}, withheldHost},

		{"an unknown proxy", nil, "127.0.0.1:1", "127.0.0.1:8080", []string{"X-Forwarded-For", "127.0.0.1"}, withheldProxy},
		{"an unknown proxy, scheme", nil, "127.0.0.1:1", "127.0.0.1:8080", []string{"X-Forwarded-Proto", "https"}, withheldProxy},
		{"an unknown proxy, host", nil, "127.0.0.1:1", "127.0.0.1:8080", []string{"X-Forwarded-Host", "localhost"}, withheldProxy},
		{"an unknown proxy, an empty header", nil, "127.0.0.1:1", "127.0.0.1:8080", []string{"X-Forwarded-For", ""}, withheldProxy},
		{"an unknown proxy, Forwarded", nil, "127.0.0.1:1", "127.0.0.1:8080", []string{"Forwarded", "for=127.0.0.1"}, withheldProxy},
		{"an unknown proxy, Via", nil, "127.0.0.1:1", "127.0.0.1:8080", []string{"Via", "1.1 somebody"}, withheldProxy},
		{"an unknown proxy, X-Real-IP", nil, "127.0.0.1:1", "127.0.0.1:8080", []string{"X-Real-IP", "127.0.0.1"}, withheldProxy},
		{"an unknown proxy, Cloudflare", nil, "127.0.0.1:1", "127.0.0.1:8080", []string{"CF-Connecting-IP", "127.0.0.1"}, withheldProxy},
		{"an unknown proxy on HTTP/1.0", nil, "127.0.0.1:1", "127.0.0.1:8080", []string{"", "HTTP/1.0"}, withheldProxy},
		{"a proxy elsewhere is trusted", behind("10.0.0.9"), "127.0.0.1:1", "127.0.0.1:8080", []string{"X-Forwarded-For", "127.0.0.1"}, withheldProxy},

		{"a trusted proxy", behind("127.0.0.1"), "127.0.0.1:1", "192.168.1.2", []string{"X-Forwarded-For", "192.168.1.20"}, ""},
		{"a trusted proxy on this machine, for this machine", behind("127.0.0.1"), "127.0.0.1:1", "localhost", []string{"X-Forwarded-For", "127.0.0.1"}, ""},
		{"a trusted proxy on HTTP/1.0", behind("127.0.0.1"), "127.0.0.1:1", "192.168.1.2", []string{"X-Forwarded-For", "192.168.1.20", "", "HTTP/1.0"}, ""},
		{"two trusted proxies", behind("127.0.0.1", "10.0.0.9"), "127.0.0.1:1", "192.168.1.2", []string{"X-Forwarded-For", "192.168.1.20, 10.0.0.9"}, ""},
		{"a trusted proxy on a Unix socket", behind("unix"), "@", "localhost", []string{"X-Forwarded-For", "192.168.1.20"}, ""},
		{"a trusted proxy for the internet", behind("127.0.0.1"), "127.0.0.1:1", "192.168.1.2", []string{"X-Forwarded-For", "203.0.113.7"}, withheldAddress},
		{"a client's own claim before the proxy's", behind("127.0.0.1"), "127.0.0.1:1", "192.168.1.2", []string{"X-Forwarded-For", "192.168.1.20, 203.0.113.7"}, withheldAddress},
		{"a trusted proxy for nobody", behind("127.0.0.1"), "127.0.0.1:1", "127.0.0.1:8080", nil, withheldProxy},
		{"a trusted proxy for somebody unreadable", behind("127.0.0.1"), "127.0.0.1:1", "127.0.0.1:8080", []string{"X-Forwarded-For", "unknown"}, withheldProxy},
		{"a trusted proxy for one who stands behind somebody unreadable", behind("127.0.0.1", "10.0.0.9"), "127.0.0.1:1", "192.168.1.2", []string{"X-Forwarded-For", "unknown, 10.0.0.9"}, withheldProxy},
		{"a trusted proxy, a public name", behind("127.0.0.1"), "127.0.0.1:1", "share.example.org", []string{"X-Forwarded-For", "192.168.1.20"}, withheldHost},
		{"a trusted proxy that tells the host apart", behind("127.0.0.1"), "127.0.0.1:1", "127.0.0.1:8080", []string{"X-Forwarded-For", "192.168.1.20", "X-Forwarded-Host", "share.example.org"}, withheldHost},
		{"rebinding that makes up the forwarded host", behind("127.0.0.1"), "127.0.0.1:1", "attacker.example", []string{"X-Forwarded-For", "192.168.1.20", "X-Forwarded-Host", "localhost"}, withheldHost},
		{"rebinding through a proxy that hides the host", behind("127.0.0.1"), "127.0.0.1:1", "127.0.0.1:8080",
			[]string{"X-Forwarded-For", "192.168.1.20", "X-Forwarded-Host", "localhost", "Origin", "https://attacker.example"}, withheldHost},
	} {
		cfg := DefaultConfig()
		if test.change != nil {
			test.change(&cfg)
		}
		rules, err := newRules(&cfg)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequest(http.MethodPost, "/console/state", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.RemoteAddr, r.Host, r.ProtoMajor, r.ProtoMinor = test.peer, test.host, 1, 1
		for i := 0; i < len(test.header); i += 2 {
			if name := test.header[i]; name == "" {
				r.ProtoMinor = 0
			} else {
				r.Header.Add(name, test.header[i+1])
			}
		}
		if got := rules.withheld(r); got != test.want {
			t.Errorf("%s: withheld %q, want %q", test.what, got, test.want)
		}
	}
}
