package main

import (
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

const doctorHelp = `letshare doctor looks at a server from outside, as the app meets it, and says what is wrong and how to mend it.

Usage:
  letshare doctor URL [-token TOKEN] [-origin ORIGIN] [-idle DURATION | -quick]

It checks, in this order: the name in DNS, the TCP port, the certificate, HTTP, /health, /api/check, the upgrade on
/ and /ws, a message from one connection to another, and whether a silent connection lives for 70 seconds.
URL is what stands in the app: http, https, ws or wss, with or without /ws.

Flags:
  -token TOKEN     the auth token from the app's settings; without it, what needs one is left out
  -origin ORIGIN   the page that shall connect, such as https://letshare.fun
  -idle DURATION   how long a silent connection must live, 70s by default
  -quick           leave that out
  -h               print this help

One line for each finding: ok, warn, FAIL or skip. The token is sent to the server alone, and only when its certificate is good.
Exit code: 0 if nothing failed, 1 if something did, 2 for a wrong command line.
`

// doctor is one examination of one server. One goroutine owns it.
type doctor struct {
	// Immutable after newDoctor.
	base   url.URL       // http or https; its path has no slash at the end, and no /ws
	token  string        // "" for none
	origin string        // the page that shall connect, "" for none
	idle   time.Duration // how long a silent connection must live, 0: not tried
	roots  *x509.CertPool
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	out    io.Writer

	client   *http.Client   // goes to address, without a proxy of its own and without following redirects
	address  netip.AddrPort // the one that took the TCP connection
	failures int
	middle   string       // what stands between, as it names itself in Server or Via; "" if nothing does
	report   *checkReport // of /api/check; nil without one
}

// runDoctor is `letshare doctor`.
func runDoctor(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("letshare doctor", flag.ContinueOnError)
	token := flags.String("token", "", "")
	page := flags.String("origin", "", "")
	idle := flags.Duration("idle", doctorIdle, "")
	quick := flags.Bool("quick", false, "")
	positional, exit, done := parseFlags(flags, args, doctorHelp, stdout, stderr)
	if done {
		return exit
	}
	if len(positional) != 1 {
		return usageError(stderr, flags.Name(), "one URL is needed, such as wss://share.example.org/")
	}
	if *idle <= 0 {
		return usageError(stderr, flags.Name(), "-idle must be positive, such as 70s")
	}
	if *quick {
		*idle = 0
	}
	d, err := newDoctor(positional[0], *token, *page, *idle, stdout)
	if err != nil {
		return usageError(stderr, flags.Name(), err.Error())
	}
	return d.examine(ctx)
}

// newDoctor reads the URL as people write it. Its errors never quote it: it may have a token in its query.
func newDoctor(target, token, page string, idle time.Duration, out io.Writer) (*doctor, error) {
	u, err := url.Parse(target)
	if err != nil || u.Host == "" || u.Hostname() == "" {
		return nil, errors.New("the URL must begin with wss://, ws://, https:// or http:// and a host")
	}
	switch u.Scheme {
	case "ws", "http":
		u.Scheme = "http"
	case "wss", "https":
		u.Scheme = "https"
	default:
		return nil, errors.New("the URL must begin with wss://, ws://, https:// or http://")
	}
	if page != "" {
		if _, err := parseOrigin(page); err != nil {
			return nil, fmt.Errorf("-origin: an origin is scheme://host[:port]: %w", err)
		}
	}
	if token == "" {
		token = u.Query().Get("token")
	}
	path := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/ws"), "/")
	return &doctor{
		base:   url.URL{Scheme: u.Scheme, Host: u.Host, Path: path},
		token:  token,
		origin: page,
		idle:   idle,
		lookup: net.DefaultResolver.LookupNetIP,
		out:    out,
	}, nil
}

// examine goes on for as long as the next step can tell something, and returns the exit code.
func (d *doctor) examine(ctx context.Context) int {
	if d.findHost(ctx) && d.checkCertificate(ctx) {
		d.client = d.newClient()
		defer d.client.CloseIdleConnections()
		if d.checkHealth(ctx) {
			d.askReport(ctx)
			if path := d.checkUpgrades(ctx); path != "" {
				d.checkMessages(ctx, path)
			}
		}
	}
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(d.out, "stopped")
		return 1
	case d.failures > 0:
		fmt.Fprintf(d.out, "%s: %d failed\n", d.base.String(), d.failures)
		return 1
	}
	fmt.Fprintf(d.out, "%s: all is well\n", d.base.String())
	return 0
}

// newClient returns a client that dials the address that was found good, and takes every answer as it comes.
func (d *doctor) newClient() *http.Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, d.address.String())
		},
		TLSClientConfig:    d.tlsConfig(),
		Protocols:          new(http.Protocols),
		DisableCompression: true,
		DisableKeepAlives:  true, // each question finds its own way, as a browser's upgrade does
	}
	transport.Protocols.SetHTTP1(true)
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// The four kinds of findings. step is one or two words; fix, if there is one, what to do.

func (d *doctor) ok(step, format string, args ...any) { d.say("ok", step, "", format, args...) }
func (d *doctor) skip(step, format string, args ...any) {
	d.say("skip", step, "", format, args...)
}
func (d *doctor) warn(step, fix, format string, args ...any) {
	d.say("warn", step, fix, format, args...)
}
func (d *doctor) fail(step, fix, format string, args ...any) {
	d.failures++
	d.say("FAIL", step, fix, format, args...)
}

// say prints a finding as one line. Some of its words are the server's: they cannot command a terminal.
func (d *doctor) say(kind, step, fix, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if len(text) > doctorLineBytes {
		text = strings.ToValidUTF8(text[:doctorLineBytes], "") + "…"
	}
	if fix != "" {
		text += ". Fix: " + fix
	}
	fmt.Fprintf(d.out, "%-4s  %-11s %s\n", kind, step, printableClaim(text))
}
