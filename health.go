package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

const healthHelp = `letshare health asks a running server whether it is healthy, for container health checks.

Usage:
  letshare health [-config FILE] [-url URL]

Flags:
  -config FILE   ask at the address this configuration has; without it, at the
                 one that defaults and the environment have
  -url URL       ask there instead: http://host:port, or the full URL of /health
  -h             print this help

Waits 5 seconds at most and prints one line.
Exit code: 0 if the server is healthy, 1 if not, 2 for a wrong command line.
`

// runHealth is `letshare health`.
func runHealth(ctx context.Context, args []string, stdout, stderr io.Writer, getenv func(string) string) int {
	flags := flag.NewFlagSet("letshare health", flag.ContinueOnError)
	path := flags.String("config", "", "")
	given := flags.String("url", "", "")
	if exit, done := parseCommand(flags, args, healthHelp, stdout, stderr); done {
		return exit
	}
	check := healthCheck{transport: &http.Transport{}}
	if *given != "" {
		u, err := url.Parse(*given)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return usageError(stderr, flags.Name(), "-url is no http:// or https:// URL")
		}
		check.url = u
	} else {
		cfg, err := LoadConfig(*path, getenv)
		if err == nil {
			check, err = configuredHealthCheck(cfg)
		}
		if err != nil {
			return fail(stderr, err)
		}
	}
	if check.url.Path == "" || check.url.Path == "/" {
		check.url.Path = "/health"
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	if err := check.ask(ctx); err != nil {
		return fail(stderr, fmt.Errorf("unhealthy: %s: %w", check.name(), err))
	}
	fmt.Fprintf(stdout, "healthy: %s\n", check.name())
	return 0
}

// healthCheck is one question to one server.
type healthCheck struct {
	url       *url.URL
	socket    string // path of the Unix socket to ask through, or ""
	transport *http.Transport
}

// configuredHealthCheck returns the check of the server that runs with this configuration on this machine.
func configuredHealthCheck(cfg *Config) (healthCheck, error) {
	check := healthCheck{
		url:       &url.URL{Scheme: "http", Host: "localhost"},
		socket:    cfg.Server.UnixSocket,
		transport: &http.Transport{},
	}
	if cfg.Server.TLSCert != "" {
		check.url.Scheme = "https"
		// The certificate names the server as the world knows it, not its loopback address, and
		// nothing secret is sent: whether the name fits is not what is asked here.
		check.transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	}
	if check.socket != "" {
		check.transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", check.socket)
		}
		return check, nil
	}
	if cfg.Server.Port == "0" {
		return check, errors.New("server.port \"0\" lets the system choose; say with -url where the server is")
	}
	host, err := reachableAddress(cfg.Address())
	check.url.Host = host
	return check, err
}

// reachableAddress turns an address to listen on into one that this machine can dial: a host that
// means all addresses becomes the loopback of IPv4, which such a listener takes as well.
func reachableAddress(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	if host == "" || net.ParseIP(host).IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

// name is what is printed of the server asked: never a password or a query.
func (c healthCheck) name() string {
	if c.socket != "" {
		return c.socket
	}
	return (&url.URL{Scheme: c.url.Scheme, Host: c.url.Host, Path: c.url.Path}).String()
}

// ask returns nil if the server answers 200 and calls itself healthy.
func (c healthCheck) ask(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url.String(), nil)
	if err != nil {
		return err
	}
	defer c.transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: c.transport}).Do(req)
	if err != nil {
		var withURL *url.Error
		if errors.As(err, &withURL) {
			err = withURL.Err // without the URL, whose query may be secret
		}
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("no answer within %s", healthTimeout)
		}
		return err
	}
	defer res.Body.Close()
	var answer struct {
		Status string `json:"status"`
	}
	err = json.NewDecoder(io.LimitReader(res.Body, maxHealthBytes)).Decode(&answer)
	if res.StatusCode == http.StatusOK && err == nil && answer.Status == "healthy" {
		return nil
	}
	if err != nil || len(answer.Status) > 32 {
		return fmt.Errorf("answered %d, not as letshare does", res.StatusCode)
	}
	return fmt.Errorf("answered %d, status %q", res.StatusCode, answer.Status)
}
