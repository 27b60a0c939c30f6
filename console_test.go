package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Who gets what at / and at /console.
func TestWhereTheConsoleIs(t *testing.T) {
	t.Parallel()
	folder := appFolder(t)
	const page, app, text, nothing, method = "<title>letshare</title>", "the app", "This is letshare", `"not_found"`, `"method_not_allowed"`
	production := func(c *Config) {
		c.Mode, c.JWT.Secret, c.Console.Enabled, c.Ably.Enabled = modeProduction, randomSecret(), false, false
	}
	for name, server := range map[string]struct {
		change                func(*Config)
		root, console, assets string
	}{
		"local":                   {nil, page, page, "font"},
		"local, switched off":     {func(c *Config) { c.Console.Enabled = false }, text, nothing, nothing},
		"production":              {production, text, nothing, nothing},
		"production, switched on": {func(c *Config) { production(c); c.Console.Enabled = true }, page, page, "font"},
		"an app":                  {func(c *Config) { c.Server.StaticDir = folder }, app, page, "font"},
		"an app, switched off":    {func(c *Config) { c.Server.StaticDir = folder; c.Console.Enabled = false }, app, nothing, nothing},
	} {
		s := startServer(t, server.change)
		for _, test := range []struct{ method, target, want string }{
			{"GET", "/", server.root},
			{"GET", "/?a=b", server.root},
			{"GET", "/console", server.console},
			{"GET", "/console?a=b", server.console},
			{"GET", "/console/style.css", server.assets},
			{"GET", "/console/nothing", nothing},
			{"GET", "/console/index.html", nothing},
			{"GET", "/consoles", nothing},
			{"POST", "/", method},
			{"DELETE", "/", method},
		} {
			if _, body := s.fetch(t, test.method, test.target); !strings.Contains(body, test.want) {
				t.Errorf("%s: %s %s: %.80q, want %q", name, test.method, test.target, body, test.want)
			}
		}
		get, whole := s.fetch(t, "GET", "/")
		head, body := s.fetch(t, "HEAD", "/")
		if head.StatusCode != http.StatusOK || body != "" || head.ContentLength != int64(len(whole)) || head.Header.Get("Content-Type") != get.Header.Get("Content-Type") {
			t.Errorf("%s: HEAD: %d %q %v", name, head.StatusCode, body, head.Header)
		}
		if server.root == text && (get.Header.Get("Content-Type") != "text/plain; charset=utf-8" || strings.Count(whole, "\n") != 1) {
			t.Errorf("%s: more than a line of text: %q %v", name, whole, get.Header)
		}
		// Whoever wants a WebSocket gets one, or hears what is missing.
		s.dial(t, "ann").leave(t)
		s.wantRefused(t, 426, "not_an_upgrade", "", withoutHeader("Upgrade"))
		s.wantRefused(t, 400, "not_an_upgrade", "", withoutHeader("Sec-WebSocket-Key"))
	}
}

func TestTheConsoleIsSwitchedByAReload(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.mustReload(t, func(c *Config) { c.Console.Enabled = false })
	if _, body := s.fetch(t, "GET", "/"); body != greeting {
		t.Errorf("switched off: %q", body)
	}
	for _, target := range []string{"/console", "/console/state", "/console/figures", "/console/log"} {
		if answer, body := s.fetch(t, "POST", target); answer.StatusCode != http.StatusNotFound {
			t.Errorf("switched off: %s: %d %s", target, answer.StatusCode, body)
		}
	}
}

// The page and its files may load each other and reach this server, and nothing else; and a browser asks for them each time.
func TestThePageIsShutIn(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for _, target := range []string{"/", "/console", "/console/app.js", "/console/style.css", "/console/icon.svg"} {
		answer, _ := s.fetch(t, "GET", target)
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' ws://" + s.addr + " wss://" + s.addr +
				"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
			"X-Content-Type-Options":       "nosniff",
			"Referrer-Policy":              "same-origin",
			"Cross-Origin-Resource-Policy": "same-origin",
			"Cache-Control":                "no-cache",
			"Access-Control-Allow-Origin":  "",
		} {
			if got := answer.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", target, name, got, want)
			}
		}
		if again, body := s.fetch(t, "GET", target, "If-None-Match: "+answer.Header.Get("ETag")); again.StatusCode != http.StatusNotModified || body != "" {
			t.Errorf("%s: what the browser has is sent again: %d", target, again.StatusCode)
		}
	}
	// A Host cannot smuggle anything into the policy.
	for host, want := range map[string]string{
		"[::1]:8080":                   "connect-src 'self';",
		"a.example":                    "connect-src 'self' ws://a.example wss://a.example;",
		"a.example; script-src *":      "connect-src 'self';",
		"a.example,script-src":         "connect-src 'self';",
		"share.example.org:8443":       "connect-src 'self' ws://share.example.org:8443 wss://share.example.org:8443;",
		"*":                            "connect-src 'self';",
		"a.example'unsafe-inline'.org": "connect-src 'self';",
	} {
		r, _ := http.NewRequest(http.MethodGet, "/", nil)
		r.Host, r.RemoteAddr = host, "127.0.0.1:1"
		if policy := s.server.consolePolicy(r); !strings.Contains(policy, want) {
			t.Errorf("Host %q: %s", host, policy)
		}
	}
	moved, _ := s.fetch(t, "GET", "/console/")
	if moved.StatusCode != http.StatusPermanentRedirect || moved.Header.Get("Location") != "../console" {
		t.Errorf("/console/: %d to %q", moved.StatusCode, moved.Header.Get("Location"))
	}
}

// No file of the page names another host, holds a script or style in the page, or leaves a name without its text.
func TestThePageIsWhole(t *testing.T) {
	var page, scripts, texts string
	files := 0
	err := fs.WalkDir(consoleFiles, "console", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := consoleFiles.ReadFile(name)
		text := strings.ReplaceAll(string(body), "http://www.w3.org/2000/svg", "") // the name of SVG, which nobody asks for
		files++
		switch {
		case name == "console/index.html":
			page = text
		case name == "console/texts.js":
			texts = text
		case strings.HasSuffix(name, ".js"):
			scripts += text
		}
		for _, found := range regexp.MustCompile(`(?:\w+:)?//[\w-]+(?:\.[\w-]+)+|url\(|@import|eval\(|innerHTML|new Function|(?:local|session)Storage|document\.cookie|indexedDB`).FindAllString(text, -1) {
			t.Errorf("%s: %s", name, found)
		}
		return err
	})
	if err != nil || files < 8 {
		t.Fatalf("%d files, %v", files, err)
	}
	if found := regexp.MustCompile(`(?i)<style|\sstyle=|\son\w+=|javascript:|<script(?: type="module")? ?>`).FindString(page); found != "" {
		t.Errorf("the page holds %s, which its policy forbids", found)
	}
	english, chinese, _ := strings.Cut(texts, "\nconst zh = ")
	key := regexp.MustCompile(`(?m)^  (\w+): `)
	names := func(part string) (names []string) {
		for _, match := range key.FindAllStringSubmatch(part, -1) {
			names = append(names, match[1])
		}
		return names
	}
	if en, zh := names(english), names(chinese); !slices.Equal(en, zh) || len(en) < 100 {
		t.Errorf("the languages do not say the same: %d and %d texts", len(en), len(zh))
	}
	for _, match := range regexp.MustCompile(`data-(?:text|label|hint)="(\w+)"`).FindAllStringSubmatch(page, -1) {
		if !slices.Contains(names(english), match[1]) {
			t.Errorf("the page has no text for %s", match[1])
		}
	}
	// Each token's refusal, each finding of /api/check and each reason to withhold has its sentence; each failure a way to mend it.
	for reason := TokenMissing; reason <= TokenClaims; reason++ {
		if !slices.Contains(names(english), reason.String()) {
			t.Errorf("no text for %s", reason)
		}
	}
	for _, name := range []string{upgradeHTTP10, upgradeHeadersRemoved, upgradeDraining, RateLimited.String()} {
		if !slices.Contains(names(english), name) {
			t.Errorf("no text for %s", name)
		}
	}
	for _, why := range []string{withheldProduction, withheldProxy, withheldAddress, withheldHost} {
		if !slices.Contains(names(english), "withheld_"+why) {
			t.Errorf("no text for %s", why)
		}
	}
	for _, match := range regexp.MustCompile(`new Failure\('(\w+)'`).FindAllStringSubmatch(scripts, -1) {
		if name := match[1]; name != "refused_upgrade" && (!slices.Contains(names(english), name) || !slices.Contains(names(english), name+"_mend")) {
			t.Errorf("no text for the failure %s", name)
		}
	}
}

// What the page asks for is asked with POST, and shown to nobody else's page.
func TestTheConsoleAnswersItsOwnPage(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for _, target := range []string{"/console/state", "/console/figures", "/console/log"} {
		if answer, _ := s.fetch(t, "GET", target); answer.StatusCode != http.StatusMethodNotAllowed || answer.Header.Get("Allow") != "POST" {
			t.Errorf("GET %s: %d", target, answer.StatusCode)
		}
		answer, body := s.fetch(t, "POST", target, "Origin: http://"+s.addr)
		if answer.StatusCode != http.StatusOK || !json.Valid([]byte(body)) {
			t.Errorf("POST %s: %d %s", target, answer.StatusCode, body)
		}
		for name, want := range map[string]string{"Cache-Control": "no-store", "Access-Control-Allow-Origin": "", "Cross-Origin-Resource-Policy": "same-origin", "X-Content-Type-Options": "nosniff"} {
			if got := answer.Header.Get(name); got != want {
				t.Errorf("POST %s: %s is %q, want %q", target, name, got, want)
			}
		}
	}
}

// The token that the page fills in is one that admits.
func TestTheTokenOfThePageIsGood(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(c *Config) { c.JWT.ExpirationHours = 3 })
	_, body := s.fetch(t, "POST", "/console/state")
	var state consoleReport
	if err := json.Unmarshal([]byte(body), &state); err != nil || state.Withheld != "" || state.Hours != 3 || state.MetricsToken {
		t.Fatalf("%s (error %v)", body, err)
	}
	s.dial(t, "", withQuery("token="+state.Token)).leave(t)
	key := s.cfg.ablyKeys()[0]
	if want := (ablyReport{true, key.Name + ":" + key.Secret}); state.Ably != want {
		t.Errorf("the development key: %+v, want %+v", state.Ably, want)
	}

	// Keys of one's own are nobody's business.
	s.mustReload(t, func(c *Config) { c.Ably.Keys = []AblyKey{{Name: "app.key", Secret: "a-secret-of-ones-own"}} })
	if _, body := s.fetch(t, "POST", "/console/state"); strings.Contains(body, "ones-own") || !strings.Contains(body, `"ably":{"enabled":true,"key":""}`) {
		t.Errorf("with keys of one's own: %s", body)
	}
}

// Without the right of a local page there is nothing secret in the state; figures and log need the metrics token.
func TestStrangersSeeNothing(t *testing.T) {
	t.Parallel()
	const rebinding = "Origin: http://attacker.example"
	for name, server := range map[string]struct {
		token  string
		header []string // what the stranger sends besides
		may    bool
	}{
		"without a metrics token":                  {"", nil, false},
		"any token, where none is set":             {"", []string{"Authorization: Bearer x"}, false},
		"an empty token, where none is set":        {"", []string{"Authorization: Bearer "}, false},
		"with one that is not shown":               {"the-metrics-token", nil, false},
		"a wrong metrics token":                    {"the-metrics-token", []string{"Authorization: Bearer the-metrics-toke"}, false},
		"the metrics token in another scheme":      {"the-metrics-token", []string{"Authorization: Basic the-metrics-token"}, false},
		"the metrics token":                        {"the-metrics-token", []string{"Authorization: Bearer the-metrics-token"}, true},
		"the metrics token, by a page with a name": {"the-metrics-token", []string{"Authorization: Bearer the-metrics-token", rebinding}, true},
	} {
		log := NewErrorLog("", 100, slog.DiscardHandler)
		s := startServer(t, func(c *Config) { c.Metrics.Token = server.token })
		s.server.console.errors = log
		slog.New(log).Warn("a secret of the log")
		header := append([]string{rebinding}, server.header...)
		answer, state := s.fetch(t, "POST", "/console/state", header...)
		want := fmt.Sprintf(`{"withheld":"host","metrics_token":%v,"ably":{"enabled":true,"key":""},"version":"","token":"","hours":0}`+"\n", server.token != "")
		if answer.StatusCode != http.StatusOK || state != want {
			t.Errorf("%s: the state is %s, want %s", name, state, want)
		}
		for _, target := range []string{"/console/figures", "/console/log"} {
			answer, body := s.fetch(t, "POST", target, header...)
			if may := answer.StatusCode == http.StatusOK; may != server.may || !may && (answer.StatusCode != http.StatusUnauthorized || strings.Contains(body, "secret")) {
				t.Errorf("%s: %s: %d %s", name, target, answer.StatusCode, body)
			}
		}
		log.Close()
	}
}

// The log comes newest first, and not without end.
func TestTheLogOfTheConsole(t *testing.T) {
	t.Parallel()
	log := NewErrorLog("", maxLogEntries, slog.DiscardHandler)
	defer log.Close()
	s := startServer(t)
	if _, body := s.fetch(t, "POST", "/console/log"); body != "{\"entries\":[]}\n" {
		t.Errorf("a log that goes elsewhere: %s", body)
	}
	s.server.console.errors = log
	for i := range maxConsoleLog + 10 {
		slog.New(log).Warn("something", "n", i)
	}
	_, body := s.fetch(t, "POST", "/console/log")
	var answer struct{ Entries []struct{ N int } }
	if err := json.Unmarshal([]byte(body), &answer); err != nil || len(answer.Entries) != maxConsoleLog {
		t.Fatalf("%d entries (error %v)", len(answer.Entries), err)
	}
	if first, last := answer.Entries[0].N, answer.Entries[maxConsoleLog-1].N; first != maxConsoleLog+9 || last != 10 {
		t.Errorf("from %d to %d", first, last)
	}
}

// The server finds the error log where main puts it: around the log that it is given.
func TestTheConsoleFindsTheErrorLog(t *testing.T) {
	log := NewErrorLog("", 10, slog.DiscardHandler)
	defer log.Close()
	for name, logger := range map[string]*slog.Logger{"main's": slog.New(log), "another": slog.New(slog.DiscardHandler)} {
		c, err := newConsole(logger)
		if err != nil || (c.errors == log) != (name == "main's") {
			t.Errorf("%s: %v, %v", name, c.errors, err)
		}
	}
}

// The figures are those of /metrics, with the history.
func TestTheFiguresOfTheConsole(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.dial(t, "ann").subscribe(t, "room", "")
	var answer struct {
		Now     map[string]map[string]any
		Clock   int64 `json:"clock_ms"`
		History struct {
			Interval float64              `json:"interval_seconds"`
			Newest   *int64               `json:"newest"`
			Series   map[string][]float64 `json:"series"`
		}
	}
	_, body := s.fetch(t, "POST", "/console/figures?since=nonsense")
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	if answer.Now["websocket"]["active_connections"] != 1.0 || answer.Clock < 0 || answer.History.Interval != 10 || answer.History.Newest == nil || answer.History.Series == nil {
		t.Errorf("%s", body)
	}
}
