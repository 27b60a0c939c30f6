package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// ablyMint is what letshare token -ably is asked for.
type ablyMint struct {
	key        string        // a key's name; "": the only one
	capability string        // JSON; "": what the key grants
	clientID   string        // "": anonymous, "*": anybody
	ttl        time.Duration // 0: an hour
}

// mintAblyToken writes an Ably token to stdout and what it means to stderr.
func mintAblyToken(stdout, stderr io.Writer, cfg *Config, m ablyMint, now time.Time) error {
	auth, err := newAblyAuth(cfg)
	if err != nil {
		return err
	}
	if auth == nil {
		return errors.New("ably.enabled is false: the server would refuse the token")
	}
	key, err := auth.keyFor(m.key)
	if err != nil {
		return err
	}
	if m.ttl == 0 {
		m.ttl = defaultAblyTTL
	}
	if m.ttl < time.Second {
		return fmt.Errorf("a lifetime of %s is too short: give at least 1s", m.ttl)
	}
	issued := now.UnixMilli()
	token, err := key.sign(m.capability, m.clientID, issued, issued+m.ttl.Milliseconds())
	if err != nil {
		return fmt.Errorf("failed to sign the token: %w", err)
	}
	// What is printed is what the server will make of the token, not what was meant.
	id, problem := auth.token(token, "", now)
	if problem != nil {
		return fmt.Errorf("this server would refuse the token: %w", problem)
	}
	if _, err := fmt.Fprintln(stdout, token); err != nil {
		return fmt.Errorf("failed to print the token: %w", err)
	}
	who := fmt.Sprintf("for clientId %q", id.clientID)
	switch id.clientID {
	case "":
		who = "for an anonymous client"
	case ablyAnyClient:
		who = "for any clientId"
	}
	fmt.Fprintf(stderr, "Ably token of key %s %s, valid for %s until %s. It allows %s\n",
		id.keyName, who, m.ttl, time.UnixMilli(id.expires).Local().Format(time.RFC3339), id.capability)
	return nil
}

// keyFor returns the key of a name, or the only one there is. Its error says which there are.
func (a *ablyAuth) keyFor(name string) (*ablyKey, error) {
	if key := a.keys[name]; key != nil {
		return key, nil
	}
	switch {
	case name != "":
		return nil, fmt.Errorf("-key %s is none of ably.keys", showKeyName(name))
	case len(a.keys) == 0:
		return nil, errors.New("there is no key: set ably.keys")
	case len(a.keys) > 1:
		return nil, errors.New("-key is missing: ably.keys has more than one")
	}
	return slices.Collect(maps.Values(a.keys))[0], nil
}
