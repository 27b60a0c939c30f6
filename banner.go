package main

import (
	"fmt"
	"io"
	"net"
	"time"
)

// bannerUser is the identity in the token that local mode prints. The app brings an identity of its
// own, and the token is not bound to this one.
const bannerUser = "letshare-app"

// printBanner tells a person where the server listens (addr: host:port as bound, or the path of a
// socket). In local mode it also prints what the LetShare app's settings need, with a token minted now.
// Production prints no token: its output ends in logs.
func printBanner(w io.Writer, cfg *Config, addr string, now time.Time) error {
	if cfg.Server.UnixSocket != "" {
		_, err := fmt.Fprintf(w, "letshare listens on the socket %s\n", cfg.Server.UnixSocket)
		return err
	}
	http, ws := "http", "ws"
	if cfg.Server.TLSCert != "" {
		http, ws = "https", "wss"
	}
	reached, wildcard, err := reachableAddress(addr)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "letshare listens on %s://%s/\n", http, reached)
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
  custom server URL   %s://%s/
  auth token          %s

`, ws, reached, token)
	if wildcard {
		fmt.Fprintln(w, "On another device, write this machine's name or address in place of the loopback one.")
	}
	_, err = fmt.Fprintf(w, "The token is valid for %g hours. Ctrl+C stops the server.\n", cfg.JWT.ExpirationHours)
	return err
}

// reachableAddress turns an address to listen on into one that this machine can dial: a host that
// means all addresses becomes loopback.
func reachableAddress(addr string) (dial string, wildcard bool, err error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", false, err
	}
	if host != "" {
		ip := net.ParseIP(host)
		if ip == nil || !ip.IsUnspecified() {
			return addr, false, nil
		}
		// A listener on all addresses reports [::] even where it was asked for 0.0.0.0, and takes
		// IPv4 as well, which every machine's loopback has.
	}
	return net.JoinHostPort("127.0.0.1", port), true, nil
}
