package main

import (
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// bannerUser is the identity in the token that local mode prints. The app brings an identity of its
// own, and the token is not bound to this one.
const bannerUser = "letshare-app"

// printBanner tells a person where the server listens: url is its WebSocket URL on this machine. In
// local mode it also prints what the LetShare app's settings need, with a token minted now.
// Production prints no token: its output ends in logs.
func printBanner(w io.Writer, cfg *Config, url string, now time.Time) error {
	if cfg.Server.UnixSocket != "" {
		fmt.Fprintf(w, "letshare listens on the socket %s\n", cfg.Server.UnixSocket)
		url = "(the wss:// URL of the proxy in front of the socket)"
	} else {
		fmt.Fprintf(w, "letshare listens on http%s\n", strings.TrimPrefix(url, "ws"))
	}
	if cfg.Mode != "local" {
		return nil
	}
	token, err := MintToken(cfg, Claims{UserID: bannerUser}, now)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, `
Paste this into the settings of the LetShare app:

  server mode         custom
  custom server URL   %s
  auth token          %s

`, url, token)
	if cfg.Ably.Enabled && len(cfg.Ably.Keys) == 0 {
		printAblyKey(w, cfg, url)
	}
	ip := net.ParseIP(cfg.Server.Host)
	if cfg.Server.UnixSocket == "" && (cfg.Server.Host == "" || ip.IsUnspecified()) {
		fmt.Fprintln(w, "On another device, write this machine's name or address in place of the loopback one.")
	}
	_, err = fmt.Fprintf(w, "The token is valid for %g hours. Ctrl+C stops the server.\n", cfg.JWT.ExpirationHours)
	return err
}

// printAblyKey tells a person how to use the SDK of Ably with the development key. Keys of one's own are never printed.
func printAblyKey(w io.Writer, cfg *Config, url string) {
	key := cfg.ablyKeys()[0]
	fmt.Fprintf(w, "For the Ably SDK:\n\n  key                 %s:%s\n", key.Name, key.Secret)
	scheme, address, _ := strings.Cut(strings.TrimSuffix(url, "/"), "://")
	if host, port, err := net.SplitHostPort(address); err == nil {
		options := map[string]string{"ws": "endpoint: %q, port: %s, tls: false", "wss": "endpoint: %q, tlsPort: %s"}[scheme]
		fmt.Fprintf(w, "  options             "+options+"\n", host, port)
	}
	fmt.Fprintln(w)
}
