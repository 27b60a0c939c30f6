package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

const ablyMintConfig = `{"ably": {"keys": [{"name": "app.all", "secret": "` + ablyTestSecret + `"}, {"name": "app.chat", "secret": "` + ablyTestOther + `", "capability": {"chat:*": ["publish"]}}]}}`

func TestAMintedAblyTokenIsPrintedAloneAndAccepted(t *testing.T) {
	for _, row := range []struct {
		args     []string
		clientID string
		text     string
		ttl      time.Duration
		said     string
	}{
		{[]string{"-key", "app.all"}, "", `{"*":["*"]}`, time.Hour, "of key app.all for an anonymous client, valid for 1h0m0s"},
		{[]string{"-key", "app.all", "-client-id", "bob", "-capability", `{"chat:a":["subscribe"]}`, "-ttl", "90m"}, "bob", `{"chat:a":["subscribe"]}`, 90 * time.Minute, `for clientId "bob", valid for 1h30m0s`},
		{[]string{"-key", "app.chat", "-client-id", "*", "-capability", `{"*":["*"]}`}, "*", `{"chat:*":["publish"]}`, time.Hour, "for any clientId"},
	} {
		exit, stdout, stderr := tokenCommand(t, ablyMintConfig, append([]string{"-ably"}, row.args...)...)
		token := strings.TrimSuffix(stdout, "\n")
		if exit != 0 || strings.Count(token, ".") != 2 || strings.ContainsAny(token, " \n") || strings.Contains(stderr, token) {
			t.Fatalf("%q: exit %d, stdout %q, stderr %q", row.args, exit, stdout, stderr)
		}
		wantOutput(t, "standard error", stderr, row.said, row.text)
		id, problem := newTestAblyAuth(t).token(token, "", time.Now())
		if problem != nil {
			t.Fatalf("%q: %v", row.args, problem)
		}
		left := time.Until(time.UnixMilli(id.expires))
		if id.clientID != row.clientID || !strings.Contains(id.capability.String(), "publish") && id.capability.String() != row.text || left > row.ttl || left < row.ttl-time.Minute {
			t.Errorf("%q: %+v, %s left", row.args, id, left)
		}
	}
	// Where there is one key it needs no name: here the development key.
	exit, stdout, stderr := tokenCommand(t, "", "-ably")
	if exit != 0 || !strings.Contains(stderr, "letshare.dev") || stdout == "" {
		t.Errorf("exit %d, stderr %q", exit, stderr)
	}
}

func TestAblyTokensThatTheServerWouldRefuseAreNotMinted(t *testing.T) {
	for _, row := range []struct {
		want string
		exit int
		args []string
	}{
		{"-key is missing", 1, nil},
		{`-key "no.key" is none of ably.keys`, 1, []string{"-key", "no.key"}},
		{`-key "app.all:…" is none`, 1, []string{"-key", "app.all:" + ablyTestSecret}},
		{"at least 1s", 1, []string{"-key", "app.all", "-ttl", "1ms"}},
		{"longer than this server allows", 1, []string{"-key", "app.all", "-ttl", "8761h"}},
		{"invalid capability", 1, []string{"-key", "app.all", "-capability", "everything"}},
		{"grants nothing", 1, []string{"-key", "app.chat", "-capability", `{"news":["*"]}`}},
		{"invalid clientId", 1, []string{"-key", "app.all", "-client-id", strings.Repeat("c", 257)}},
		{"-ttl must be positive", 2, []string{"-ttl", "0s"}},
		{"-capability is empty", 2, []string{"-capability="}},
		{"-ably and -user do not go together", 2, []string{"-user", "bob"}},
		{"-ably and -room do not go together", 2, []string{"-room", "lobby"}},
		{"-inspect and -ably do not go together", 2, []string{"-inspect", "a.b.c"}},
	} {
		exit, stdout, stderr := tokenCommand(t, ablyMintConfig, append([]string{"-ably"}, row.args...)...)
		if exit != row.exit || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, row.want) || strings.Contains(stderr, ablyTestSecret) {
			t.Errorf("%.60q: exit %d, stdout %q, stderr %q, want %q", row.args, exit, stdout, stderr, row.want)
		}
	}
	if exit, _, stderr := tokenCommand(t, "", "-user", "bob", "-client-id", "bob"); exit != 2 || !strings.Contains(stderr, "add -ably") {
		t.Errorf("exit %d, stderr %q", exit, stderr)
	}
	if exit, _, stderr := tokenCommand(t, `{"ably": {"enabled": false}}`, "-ably"); exit != 1 || !strings.Contains(stderr, "ably.enabled is false") {
		t.Errorf("exit %d, stderr %q", exit, stderr)
	}
}

func TestTheBannerShowsTheDevelopmentKeyAndNoOther(t *testing.T) {
	banner := func(change func(*Config), url string) string {
		cfg := DefaultConfig()
		change(&cfg)
		var out strings.Builder
		if err := printBanner(&out, &cfg, url, time.Now()); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	key := "letshare.dev:" + ablyDevelopmentSecret(sampleSecretPrefix)
	local := banner(func(*Config) {}, "ws://127.0.0.1:8080/")
	wantOutput(t, "the banner", local, "key                 "+key+"\n", `endpoint: "127.0.0.1", port: 8080, tls: false`)
	wantOutput(t, "the banner with TLS", banner(func(*Config) {}, "wss://127.0.0.1:8443/"), `endpoint: "127.0.0.1", tlsPort: 8443`)
	for name, text := range map[string]string{
		"own keys":   banner(func(c *Config) { c.Ably.Keys = ablyTestConfig().Ably.Keys }, "ws://127.0.0.1:8080/"),
		"off":        banner(func(c *Config) { c.Ably.Enabled = false }, "ws://127.0.0.1:8080/"),
		"production": banner(func(c *Config) { c.Mode = modeProduction }, "ws://127.0.0.1:8080/"),
	} {
		if strings.Contains(text, key) || strings.Contains(text, ablyTestSecret) || strings.Contains(text, "Ably") {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func TestAMintedTokenHasTimesToTheMillisecond(t *testing.T) {
	key := newTestAblyAuth(t).keys["app.all"]
	token, err := key.sign("", "", 1_800_000_000_007, 1_800_000_000_130)
	if err != nil {
		t.Fatal(err)
	}
	payload, _ := decodeBase64(strings.Split(token, ".")[1])
	var claims map[string]json.RawMessage
	if err := json.Unmarshal([]byte(payload), &claims); err != nil {
		t.Fatal(err)
	}
	if string(claims["iat"]) != "1800000000.007" || string(claims["exp"]) != "1800000000.130" || len(claims) != 3 {
		t.Errorf("%s", payload)
	}
}
