package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

const tokenHelp = `Usage:
  letshare token -user NAME [-type TYPE] [-room ROOM] [-ttl DURATION] [-bind] [-config FILE]
  letshare token -ably [-key NAME] [-client-id ID] [-capability JSON] [-ttl DURATION] [-config FILE]
  letshare token -inspect TOKEN [-config FILE]
  letshare token secret

The first form mints a token: it is printed alone on standard output, what it means on standard error.
The second does the same for clients of the Ably protocol.
The third says whether the server would accept a token now, and why not: exit code 0 or 1.
The fourth prints a random secret for jwt.secret or a key of ably.keys.

  -user NAME      who the token is for (user_id), up to 128 bytes; required to mint one
  -type TYPE      what it is for (user_type), such as desktop or mobile
  -room ROOM      the only room it may use (room_id); without: every room
  -ttl DURATION   how long it is valid, such as 720h or 90m; without: jwt.expiration_hours,
                  with -ably an hour
  -bind           its holder can be nobody but NAME (bind_user): the server checks userId and from
  -ably           mint a token for the Ably protocol
  -key NAME       whose secret signs it, a name of ably.keys; without: the only one
  -client-id ID   who its holder is, or "*" for anybody; without: nobody
  -capability JSON
                  what it allows, such as '{"chat:*":["subscribe"]}'; without: what the key does
  -inspect TOKEN  the token to look at
  -config FILE    the server's configuration; without: defaults and environment
  -h              this help

Exit codes: 0 done or accepted, 1 refused or failed, 2 wrong usage.
`

// tokenFlags is the command line of letshare token.
type tokenFlags struct {
	claims  Claims
	forAbly bool
	ably    ablyMint // its ttl is that of claims
	inspect string
	config  string
	set     map[string]bool // the flags that were given
}

// runToken is letshare token: it mints a token, inspects one, or prints a random secret, and returns the exit code.
func runToken(args []string, stdout, stderr io.Writer, getenv func(string) string) int {
	var f tokenFlags
	fs := flag.NewFlagSet("letshare token", flag.ContinueOnError)
	fs.StringVar(&f.claims.UserID, "user", "", "")
	fs.StringVar(&f.claims.UserType, "type", "", "")
	fs.StringVar(&f.claims.Room, "room", "", "")
	fs.DurationVar(&f.claims.TTL, "ttl", 0, "")
	fs.BoolVar(&f.claims.Bind, "bind", false, "")
	fs.BoolVar(&f.forAbly, "ably", false, "")
	fs.StringVar(&f.ably.key, "key", "", "")
	fs.StringVar(&f.ably.capability, "capability", "", "")
	fs.StringVar(&f.ably.clientID, "client-id", "", "")
	fs.StringVar(&f.inspect, "inspect", "", "")
	fs.StringVar(&f.config, "config", "", "")
	positional, exit, done := parseFlags(fs, args, tokenHelp, stdout, stderr)
	if done {
		return exit
	}
	f.set = map[string]bool{}
	fs.Visit(func(given *flag.Flag) { f.set[given.Name] = true })
	if mistake := f.mistake(positional); mistake != "" {
		return usageError(stderr, fs.Name(), mistake)
	}
	if len(positional) == 1 {
		fmt.Fprintln(stdout, randomSecret())
		return 0
	}
	cfg, err := LoadConfig(f.config, getenv)
	if err == nil && f.set["inspect"] {
		var accepted bool
		if accepted, err = inspectToken(stdout, cfg, f.inspect, time.Now()); err == nil && !accepted {
			return 1
		}
	} else if err == nil && f.forAbly {
		f.ably.ttl = f.claims.TTL
		err = mintAblyToken(stdout, stderr, cfg, f.ably, time.Now())
	} else if err == nil {
		err = mintToken(stdout, stderr, cfg, f.claims, time.Now())
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", fs.Name(), err)
		return 1
	}
	return 0
}

// mistake says what is wrong with the combination of flags and arguments, "" if nothing is.
// Arguments are not quoted: one may be a token that lost its flag.
func (f *tokenFlags) mistake(positional []string) string {
	given := func(names ...string) string {
		for _, name := range names {
			if f.set[name] {
				return name
			}
		}
		return ""
	}
	minting := given("ably", "user", "type", "room", "ttl", "bind")
	ours, theirs := given("user", "type", "room", "bind"), given("key", "capability", "client-id")
	switch {
	case len(positional) == 1 && positional[0] == "secret":
		if len(f.set) > 0 {
			return "secret takes no flags"
		}
	case len(positional) > 0:
		return "the only argument is secret; a token to look at stands behind -inspect"
	case f.set["inspect"] && minting != "":
		return "-inspect and -" + minting + " do not go together"
	case f.set["inspect"] && f.inspect == "":
		return "-inspect needs a token"
	case f.forAbly && ours != "":
		return "-ably and -" + ours + " do not go together"
	case !f.forAbly && theirs != "":
		return "-" + theirs + " is for tokens of the Ably protocol: add -ably"
	case !f.set["inspect"] && !f.forAbly && f.claims.UserID == "":
		return "-user is missing: who is the token for?"
	case f.set["room"] && f.claims.Room == "":
		return "-room is empty, which would allow every room: name one or leave the flag out"
	case f.set["capability"] && f.ably.capability == "":
		return "-capability is empty: leave it out for what the key allows"
	case f.set["ttl"] && f.claims.TTL <= 0:
		return "-ttl must be positive, such as 720h"
	}
	return ""
}

// randomSecret returns 32 random bytes, as many as HS256 can use, in hexadecimal.
func randomSecret() string {
	secret := make([]byte, minSecretBytes)
	rand.Read(secret) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(secret)
}

// mintToken writes a token to stdout and what it means to stderr.
func mintToken(stdout, stderr io.Writer, cfg *Config, c Claims, now time.Time) error {
	auth, err := NewAuthenticator(cfg)
	if err != nil {
		return err
	}
	token, err := MintToken(cfg, c, now)
	if err != nil {
		return err
	}
	// What is printed is what the server will make of the token, not what was meant.
	id, refusal, detail := auth.tokenIdentity(token, now)
	if refusal != nil {
		return fmt.Errorf("this server would refuse the token: %w", detail)
	}
	if _, err := fmt.Fprintln(stdout, token); err != nil {
		return fmt.Errorf("failed to print the token: %w", err)
	}
	room, bound := "every room", "The userId of a connection may be another one."
	if id.Room != "" {
		room = fmt.Sprintf("room %q alone", id.Room)
	}
	if id.Bound {
		bound = "The userId of a connection must be the same one."
	}
	fmt.Fprintf(stderr, "Token for user %q", id.UserID)
	if id.UserType != "" {
		fmt.Fprintf(stderr, " (%s)", printableClaim(id.UserType))
	}
	fmt.Fprintf(stderr, ", %s, valid for %s until %s. %s\n", room, id.ExpiresAt.Sub(now.Truncate(time.Second)), id.ExpiresAt.Local().Format(time.RFC3339), bound)
	return nil
}

// inspectToken writes to w what token says and whether the server would accept it at now.
func inspectToken(w io.Writer, cfg *Config, token string, now time.Time) (accepted bool, err error) {
	auth, err := NewAuthenticator(cfg)
	if err != nil {
		return false, err
	}
	report := auth.inspect(token, now)
	accepted = report.refusal == nil
	if accepted {
		fmt.Fprintln(w, "accepted")
	} else {
		fmt.Fprintf(w, "refused: %s: %v\n", report.refusal.Reason, report.detail)
	}
	switch {
	case report.static:
		fmt.Fprintln(w, "one of auth.static_tokens: every room, never expires")
	case report.claims != nil && !report.verified:
		fmt.Fprintln(w, "claims (not verified: anybody can have written them):")
	case report.claims != nil:
		fmt.Fprintln(w, "claims:")
	}
	for _, name := range slices.Sorted(maps.Keys(report.claims)) {
		fmt.Fprintf(w, "  %s: %s\n", printableClaim(name), showClaim(name, report.claims[name], now))
	}
	return accepted, nil
}

// showClaim returns a claim as JSON, times with their meaning.
func showClaim(name string, value any, now time.Time) string {
	text, err := json.Marshal(value)
	if err != nil {
		return "?" // a value that came out of JSON goes in again
	}
	if at, ok := numericDate(value); ok && (name == "exp" || name == "iat" || name == "nbf") {
		side, distance := "ago", now.Sub(at)
		if distance < 0 {
			side, distance = "from now", -distance
		}
		return fmt.Sprintf("%s (%s, %s %s)", text, at.Local().Format(time.RFC3339), roundTime(distance), side)
	}
	return printableClaim(string(text))
}

// printableClaim escapes what would move a terminal's cursor, and leaves quotes and other languages alone.
func printableClaim(s string) string {
	quoted := []rune{}
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			r = '\uFFFD'
		}
		quoted = append(quoted, r)
	}
	return string(quoted)
}
