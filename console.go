package main

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// consolePath is where the console lies: the page itself, and below it the page's files and what they ask for.
const consolePath = "/console"

// greeting is all that / has to say without an app and without the console.
const greeting = "This is letshare, a server that introduces browsers running the LetShare file-sharing app to each other.\n"

// consoleFiles are the page as it is served: no build step makes something else of it.
//
//go:embed console
var consoleFiles embed.FS

// console is the embedded page. Immutable.
type console struct {
	assets map[string]consoleAsset // by URL path
	errors *ErrorLog               // what the page shows of the log; nil when the log goes elsewhere
}

// consoleAsset is one file of the page. Immutable.
type consoleAsset struct {
	name string // ends as contentType wants it
	body []byte
	tag  string // ETag
}

// newConsole reads the embedded page. log is where the error log is found.
func newConsole(log *slog.Logger) (console, error) {
	c := console{assets: make(map[string]consoleAsset)}
	c.errors, _ = log.Handler().(*ErrorLog)
	err := fs.WalkDir(consoleFiles, "console", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := consoleFiles.ReadFile(name)
		sum := sha256.Sum256(body)
		c.assets["/"+name] = consoleAsset{name, body, `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}
		return err
	})
	if err != nil {
		return c, fmt.Errorf("failed to read the embedded console: %w", err)
	}
	page := c.assets[consolePath+"/"+indexPage]
	delete(c.assets, consolePath+"/"+indexPage)
	c.assets["/"], c.assets[consolePath] = page, page
	return c, nil
}

// isConsolePath says whether a URL path is the console's.
func isConsolePath(urlPath string) bool {
	return urlPath == consolePath || strings.HasPrefix(urlPath, consolePath+"/")
}

// serveConsole answers for the page, its files and what it asks for.
func (s *Server) serveConsole(w http.ResponseWriter, r *http.Request) {
	if !s.rules.Load().cfg.Console.Enabled {
		answerRefusal(w, refuseNotFound)
		return
	}
	switch r.URL.Path {
	case consolePath + "/":
		w.Header().Set("Location", "../console") // relative: a proxy may have put the server below a path
		w.WriteHeader(http.StatusPermanentRedirect)
	case consolePath + "/state":
		s.serveConsoleData(w, r, s.consoleState)
	case consolePath + "/figures":
		s.serveConsoleData(w, r, s.consoleFigures)
	case consolePath + "/log":
		s.serveConsoleData(w, r, s.consoleLog)
	default:
		s.serveConsoleAsset(w, r)
	}
}

// serveConsoleAsset sends a file of the page.
func (s *Server) serveConsoleAsset(w http.ResponseWriter, r *http.Request) {
	asset, found := s.console.assets[r.URL.Path]
	if !found {
		answerRefusal(w, refuseNotFound)
		return
	}
	if !reads(w, r) {
		return
	}
	header := w.Header()
	header.Set("Content-Type", contentType(asset.name))
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Security-Policy", s.consolePolicy(r))
	header.Set("Referrer-Policy", "same-origin")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Cache-Control", "no-cache") // kept, but asked for again each time: after an update nobody has half of the old page
	header.Set("ETag", asset.tag)
	http.ServeContent(w, r, asset.name, time.Time{}, bytes.NewReader(asset.body))
}

// consolePolicy lets the page load its own files and connect to this server, and nothing else. Safari before version 15.4 does not
// count a WebSocket to the page's own host as 'self'; that host is named as far as a policy can (it has no way to write an IPv6
// address).
func (s *Server) consolePolicy(r *http.Request) string {
	sockets := ""
	if own, known := s.authenticator().ownOrigin(r); known && !strings.HasPrefix(own.host, "[") {
		host := strings.TrimPrefix(own.String(), own.scheme+"://")
		sockets = " ws://" + host + " wss://" + host
	}
	return "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'" + sockets +
		"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
}

// reads says whether a request only reads, and answers it if not.
func reads(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	answerRefusal(w, refuseMethod)
	return false
}

// serveGreeting says in one line of text what answers here.
func serveGreeting(w http.ResponseWriter, r *http.Request) {
	if reads(w, r) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		io.WriteString(w, greeting)
	}
}

// serveConsoleData answers what the page asks for. It asks with POST: then a browser names the origin of the page that asks,
// whatever proxies made of Host, and no page can prevent that.
func (s *Server) serveConsoleData(w http.ResponseWriter, r *http.Request, answer func(*http.Request) (any, *Refusal)) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	if r.Method != http.MethodPost {
		header.Set("Allow", http.MethodPost)
		answerRefusal(w, refuseMethod)
		return
	}
	body, refusal := answer(r)
	if refusal != nil {
		header.Set("WWW-Authenticate", "Bearer")
		answerRefusal(w, refusal)
		return
	}
	answerJSON(w, http.StatusOK, body)
}

// consoleReport is what the page is told about itself. Nothing secret is in it unless Withheld is empty.
type consoleReport struct {
	Withheld     string     `json:"withheld"`      // why there is no token: one of the reasons of withheld
	MetricsToken bool       `json:"metrics_token"` // one is configured: with it figures and log are shown
	Ably         ablyReport `json:"ably"`
	Version      string     `json:"version"`
	Token        string     `json:"token"` // good for jwt.expiration_hours
	Hours        float64    `json:"hours"`
}

// ablyReport tells the page whether it can try the Ably protocol, and with which API key.
type ablyReport struct {
	Enabled bool   `json:"enabled"`
	Key     string `json:"key"` // name:secret of the development key; keys of the operator's own are never shown
}

// consoleState answers /console/state. Anybody may ask.
func (s *Server) consoleState(r *http.Request) (any, *Refusal) {
	rules := s.rules.Load()
	report := consoleReport{Withheld: rules.withheld(r), MetricsToken: rules.cfg.Metrics.Token != ""}
	report.Ably.Enabled = rules.cfg.Ably.Enabled
	if report.Withheld != "" {
		return report, nil
	}
	token, err := MintToken(rules.cfg, Claims{UserID: bannerUser}, time.Now())
	if err != nil {
		s.log.Error("the console's token could not be made", "error", err.Error())
	}
	if keys := rules.cfg.ablyKeys(); rules.cfg.Ably.Enabled && len(rules.cfg.Ably.Keys) == 0 && len(keys) > 0 {
		report.Ably.Key = keys[0].Name + ":" + keys[0].Secret
	}
	report.Version, report.Token, report.Hours = version, token, rules.cfg.JWT.ExpirationHours
	return report, nil
}

// mayLook says whether a request may see figures and log: it may see a token, or it brings metrics.token.
func (s *Server) mayLook(r *http.Request) *Refusal {
	rules := s.rules.Load()
	switch token := rules.cfg.Metrics.Token; {
	case rules.withheld(r) == "":
		return nil
	case token == "":
		return tokenRefusal(TokenMissing) // there is none to bring
	default:
		return checkBearer(r, token)
	}
}

// consoleFigures answers /console/figures: /metrics, and of the last hour what was sampled after ?since=, a number of an earlier answer.
func (s *Server) consoleFigures(r *http.Request) (any, *Refusal) {
	if refusal := s.mayLook(r); refusal != nil {
		return nil, refusal
	}
	since, err := strconv.ParseInt(r.URL.Query().Get("since"), 10, 64)
	if err != nil {
		since = -1
	}
	return map[string]any{"now": s.figures().json(), "clock_ms": s.clock().Milliseconds(), "history": s.history.after(since)}, nil
}

// consoleLog answers /console/log: the newest entries of the error log, the newest first.
func (s *Server) consoleLog(r *http.Request) (any, *Refusal) {
	if refusal := s.mayLook(r); refusal != nil {
		return nil, refusal
	}
	entries := []json.RawMessage{}
	if s.console.errors != nil {
		entries = append(entries, s.console.errors.Entries()...)
	}
	slices.Reverse(entries)
	return map[string]any{"entries": entries[:min(len(entries), maxConsoleLog)]}, nil
}
