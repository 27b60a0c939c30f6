package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tokenCommand runs letshare token with a configuration of its own and no environment.
func tokenCommand(t *testing.T, config string, args ...string) (exit int, stdout, stderr string) {
	t.Helper()
	if config != "" {
		path := filepath.Join(t.TempDir(), "config.json")
		if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-config", path)
	}
	var out, errs strings.Builder
	exit = runToken(args, &out, &errs, func(string) string { return "" })
	return exit, out.String(), errs.String()
}

const tokenTestConfig = `{"jwt": {"secret": "` + authTestSecret + `", "max_lifetime_hours": 1000}, "auth": {"static_tokens": ["` + authTestStatic + `"]}}`

func wantOutput(t *testing.T, what, got string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(got, part) {
			t.Errorf("%s lacks %q:\n%s", what, part, got)
		}
	}
}

func TestAMintedTokenIsPrintedAloneAndAccepted(t *testing.T) {
	exit, stdout, stderr := tokenCommand(t, tokenTestConfig, "-user", "user123", "-type", "desktop", "-room", "room456", "-ttl", "720h", "-bind")
	token := strings.TrimSuffix(stdout, "\n")
	if exit != 0 || strings.Count(token, ".") != 2 || strings.ContainsAny(token, " \n") {
		t.Fatalf("exit %d, stdout %q, stderr %q", exit, stdout, stderr)
	}
	wantOutput(t, "standard error", stderr, `"user123"`, "(desktop)", `room "room456" alone`, "720h0m0s", "must be the same")
	if strings.Contains(stderr, token) {
		t.Error("standard error holds the token")
	}

	exit, stdout, stderr = tokenCommand(t, tokenTestConfig, "-inspect", token)
	if exit != 0 || stderr != "" {
		t.Errorf("inspecting: exit %d, stderr %q", exit, stderr)
	}
	wantOutput(t, "the inspection", stdout, "accepted\n", "claims:", `user_id: "user123"`, `user_type: "desktop"`, `room_id: "room456"`, "bind_user: true", "from now)", "ago)")

	exit, stdout, _ = tokenCommand(t, `{"jwt": {"secret": "another secret, also of 32 bytes or more"}}`, "-inspect", token)
	if exit != 1 {
		t.Errorf("inspecting with another secret: exit %d", exit)
	}
	wantOutput(t, "the inspection", stdout, "refused: token_signature: ", "not verified", `user_id: "user123"`)
	if signature := token[strings.LastIndexByte(token, '.')+1:]; strings.Contains(stdout, signature) {
		t.Error("the inspection shows the signature")
	}
}

func TestATokenWithoutATTLLivesAsConfigured(t *testing.T) {
	cfg := authTestConfig()
	token, err := MintToken(cfg, Claims{UserID: "u"}, authTestNow)
	if err != nil {
		t.Fatal(err)
	}
	got := wantIdentify(t, newTestAuthenticator(t, cfg), tokenRequest(token), token, "")
	if want := (Identity{UserID: "u", ExpiresAt: authTestNow.Add(720 * time.Hour), key: keyPrint(authTestSecret)}); got != want {
		t.Errorf("identity %+v, want %+v", got, want)
	}
}

func TestInspectSaysWhyNot(t *testing.T) {
	for _, row := range []struct {
		name, token string
		exit        int
		want        []string
	}{
		{"static", authTestStatic, 0, []string{"accepted\n", "auth.static_tokens"}},
		{"garbage", "garbage", 1, []string{"refused: token_malformed: "}},
		{"too long", strings.Repeat("x", 5000), 1, []string{"refused: token_malformed: ", "5000 bytes"}},
		{"expired", goodToken(`{"user_id":"u","exp":1000000000}`), 1, []string{"refused: token_expired: expired ", "claims:", "exp: 1000000000 (2001-09-"}},
		{"no exp", goodToken(`{"user_id":"u"}`), 1, []string{"refused: token_claims: exp is missing"}},
		{"escapes for a terminal", goodToken(`{"user_id":"\u001b[31m\u202e","exp":1000000000,"a\u0007b":1}`), 1, []string{`\u001b[31m`, "a\uFFFDb: 1"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			exit, stdout, stderr := tokenCommand(t, tokenTestConfig, "-inspect", row.token)
			if exit != row.exit || stderr != "" {
				t.Errorf("exit %d, stderr %q", exit, stderr)
			}
			wantOutput(t, "the inspection", stdout, row.want...)
			if strings.Contains(stdout, row.token) || strings.ContainsAny(stdout, "\x1b\x07\u202e") {
				t.Errorf("the inspection shows the token or its control characters: %q", stdout)
			}
		})
	}
}

func TestWrongUseOfTokenIsOneLineAndExit2(t *testing.T) {
	for _, row := range []struct{ args, want string }{
		{"", "-user is missing"},
		{"-room room456", "-user is missing"},
		{"-user u -nope", "not defined: -nope"},
		{"-user u -ttl soon", "-ttl"},
		{"-user u -ttl -1h", "-ttl must be positive"},
		{"-user u -ttl 0s", "-ttl must be positive"},
		{"-user u -room=", "-room is empty"},
		{"-inspect a.b.c -user u", "do not go together"},
		{"-inspect=", "-inspect needs a token"},
		{"a.b.c", "behind -inspect"},
		{"secret secret", "the only argument"},
		{"secret -user u", "secret takes no flags"},
	} {
		exit, stdout, stderr := tokenCommand(t, "", strings.Fields(row.args)...)
		if exit != 2 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, row.want) || strings.Contains(stderr, "a.b.c") {
			t.Errorf("%q: exit %d, stdout %q, stderr %q, want %q", row.args, exit, stdout, stderr, row.want)
		}
	}
}

func TestTokensThatTheServerWouldRefuseAreNotMinted(t *testing.T) {
	for _, row := range []struct {
		want string
		args []string
	}{
		{"jwt.max_lifetime_hours (1000)", []string{"-user", "u", "-ttl", "1001h"}},
		{"at least 1s", []string{"-user", "u", "-ttl", "1ms"}},
		{"room must be", []string{"-user", "u", "-room", "x"}},
		{"room must be", []string{"-user", "u", "-room", "a room of too many"}},
		{"128 bytes", []string{"-user", strings.Repeat("u", 129)}},
		{"UTF-8", []string{"-user", "a\xff"}},
		{"128 bytes", []string{"-user", "u", "-type", strings.Repeat("u", 129)}},
	} {
		exit, stdout, stderr := tokenCommand(t, tokenTestConfig, row.args...)
		if exit != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, row.want) {
			t.Errorf("%.40q: exit %d, stdout %q, stderr %q, want %q", row.args, exit, stdout, stderr, row.want)
		}
	}
	if exit, _, stderr := tokenCommand(t, "", "-user", "u", "-config", "missing.json"); exit != 1 || !strings.Contains(stderr, "missing.json") {
		t.Errorf("missing configuration: exit %d, stderr %q", exit, stderr)
	}
}

func TestTokenHelpIsOnStandardOutput(t *testing.T) {
	exit, stdout, stderr := tokenCommand(t, "", "-user", "u", "-h")
	if exit != 0 || stderr != "" {
		t.Errorf("exit %d, stderr %q", exit, stderr)
	}
	wantOutput(t, "the help", stdout, "-user", "-type", "-room", "-ttl", "-bind", "-inspect", "-config", "token secret")
}

func TestARandomSecretIsGoodEnoughForProduction(t *testing.T) {
	_, first, _ := tokenCommand(t, "", "secret")
	exit, second, stderr := tokenCommand(t, "", "secret")
	if exit != 0 || stderr != "" || first == second || len(second) != 65 || strings.Trim(second, "0123456789abcdef") != "\n" {
		t.Errorf("exit %d, %q then %q, stderr %q", exit, first, second, stderr)
	}
}
