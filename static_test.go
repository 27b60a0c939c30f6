package main

import (
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// appFolder is a built app beside which a secret lies.
func appFolder(t *testing.T) (folder string) {
	t.Helper()
	folder = filepath.Join(t.TempDir(), "app")
	for name, text := range map[string]string{
		"index.html":                 "<!doctype html>the app",
		"robots.txt":                 "everybody",
		"sw.js":                      "worker",
		"manifest.webmanifest":       "{}",
		"assets/index-Bx3kf9Qa.js":   "script",
		"assets/index-Dk-9f_Ra.css":  "style",
		"assets/logo-original.svg":   "<svg/>",
		"static/main.3f2a1b9c.js":    "webpack",
		"help/index.html":            "help",
		".env":                       "secret",
		"assets/.hidden":             "secret",
		".git/config":                "secret",
		"../secret.txt":              "secret",
		"empty/deeper/something.txt": "something",
	} {
		place := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(place), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, place, text)
	}
	for link, target := range map[string]string{"out.txt": "../secret.txt", "outside": "..", "absolute.txt": filepath.Join(folder, "../secret.txt"), "inside.txt": "robots.txt"} {
		if err := os.Symlink(target, filepath.Join(folder, link)); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// fetch asks for exactly this request target and returns the answer with its body read.
func (s *testServer) fetch(t *testing.T, method, target string, headers ...string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequest(method, "http://"+s.addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.URL.Opaque = "//" + s.addr + target // as it is: a client would clean it
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		request.Header.Add(name, value)
	}
	answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(body)
}

// navigation is what a browser says when somebody opens a page.
const navigation = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"

func TestAnAppIsServedFromTheSameOrigin(t *testing.T) {
	t.Parallel()
	folder := appFolder(t)
	s := startServer(t, func(c *Config) { c.Server.StaticDir = folder })
	const always, never = "no-cache", "public, max-age=31536000, immutable"
	for _, test := range []struct {
		target, header string
		status         int
		body           string // its beginning
		kind, cache    string
	}{
		{"/", "", 200, "<!doctype html>the app", "text/html; charset=utf-8", always},
		{"/?room=a%20b", "", 200, "<!doctype html>the app", "text/html; charset=utf-8", always},
		{"/index.html", "", 200, "<!doctype html>the app", "text/html; charset=utf-8", always},
		{"/room/42", navigation, 200, "<!doctype html>the app", "text/html; charset=utf-8", always},
		{"/room/4.2", "Sec-Fetch-Mode: navigate", 200, "<!doctype html>the app", "text/html; charset=utf-8", always},
		{"/empty/", navigation, 200, "<!doctype html>the app", "text/html; charset=utf-8", always}, // and no listing
		{"/help/", "", 200, "help", "text/html; charset=utf-8", always},
		{"/assets/index-Bx3kf9Qa.js", "", 200, "script", "text/javascript; charset=utf-8", never},
		{"/assets/index-Dk-9f_Ra.css", "", 200, "style", "text/css; charset=utf-8", never},
		{"/static/main.3f2a1b9c.js", "", 200, "webpack", "text/javascript; charset=utf-8", never},
		{"/assets/logo-original.svg", "", 200, "<svg/>", "image/svg+xml", always},
		{"/sw.js", "", 200, "worker", "text/javascript; charset=utf-8", always},
		{"/manifest.webmanifest", "", 200, "{}", "application/manifest+json", always},
		{"/inside.txt", "", 200, "everybody", "text/plain; charset=utf-8", always},
		{"/assets/index-GONE1234.js", "Sec-Fetch-Mode: no-cors", 404, "", "application/json", always}, // a page would be taken for a script
		{"/room/42", "Accept: application/json", 404, "", "application/json", always},
		{"/empty", "", 404, "", "application/json", always},
		{"/empty/", "", 404, "", "application/json", always},
	} {
		answer, body := s.fetch(t, "GET", test.target, orNothing(test.header))
		header := answer.Header
		if answer.StatusCode != test.status || !strings.HasPrefix(body, test.body) || header.Get("Content-Type") != test.kind || header.Get("Cache-Control") != test.cache {
			t.Errorf("%s (%s): %d %q, %q, %q", test.target, test.header, answer.StatusCode, body, header.Get("Content-Type"), header.Get("Cache-Control"))
		}
		if header.Get("X-Content-Type-Options") != "nosniff" || header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: header %v", test.target, header)
		}
	}
	if head, body := s.fetch(t, "HEAD", "/robots.txt"); head.StatusCode != 200 || body != "" || head.ContentLength != 9 {
		t.Errorf("HEAD: %d, %q, %d", head.StatusCode, body, head.ContentLength)
	}
	if post, _ := s.fetch(t, "POST", "/robots.txt"); post.StatusCode != 405 || post.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d, %v", post.StatusCode, post.Header)
	}
}

// orNothing is a header that means nothing in the place of none.
func orNothing(header string) string {
	if header == "" {
		return "X-Nothing: here"
	}
	return header
}

// Whatever a path says, nobody gets what is hidden or lies outside.
func TestNothingButTheAppIsServed(t *testing.T) {
	t.Parallel()
	folder := appFolder(t)
	s := startServer(t, func(c *Config) { c.Server.StaticDir = folder })
	for _, target := range []string{
		"/.env", "/.git/config", "/assets/.hidden", "/%2eenv", "/assets/%2ehidden", "/./.env",
		"/../secret.txt", "/%2e%2e/secret.txt", "/assets/../../secret.txt", "/..%2fsecret.txt", "/assets/..%2f..%2fsecret.txt", "/..%5csecret.txt", "/..\\secret.txt",
		"//etc/passwd", "/%2fetc/passwd", "/index.html%00.txt", "/out.txt", "/absolute.txt", "/outside/secret.txt",
	} {
		for _, header := range []string{"X-Nothing: here", navigation} {
			answer, body := s.fetch(t, "GET", target, header)
			if strings.Contains(body, "secret") || strings.Contains(body, "root:") {
				t.Errorf("%s (%s) is served: %q", target, header, body)
			}
			if answer.StatusCode != 404 && !(answer.StatusCode == 200 && strings.HasPrefix(body, "<!doctype html>the app")) && answer.StatusCode != 400 {
				t.Errorf("%s (%s): %d %q", target, header, answer.StatusCode, body)
			}
		}
	}
}

func TestUpgradesAndOtherInterfacesWorkBesideTheApp(t *testing.T) {
	t.Parallel()
	folder := appFolder(t)
	s := startServer(t, func(c *Config) { c.Server.StaticDir = folder; c.CORS.AllowedOrigins = nil })
	ann := s.dial(t, "ann", withHeader("Origin: http://"+s.addr)) // the app's own page
	bob := s.dial(t, "bob", withPath("/ws"))
	ann.subscribe(t, "room", "")
	bob.subscribe(t, "room", "")
	ann.publish(t, "room", eventAll, `{"from":"ann"}`)
	bob.wantData(t, `{"from":"ann"}`)
	s.wantRefused(t, 400, "not_an_upgrade", "", withoutHeader("Sec-WebSocket-Key"))
	for target, want := range map[string]string{"/health": `"status":"healthy"`, "/metrics": `"websocket"`, "/ws": "not_an_upgrade", "/ws/": "not_an_upgrade"} {
		if _, body := s.fetch(t, "GET", target, navigation); !strings.Contains(body, want) {
			t.Errorf("%s: %q", target, body)
		}
	}
	for _, target := range []string{"/api", "/api/unknown", "/channels", "/channels/room/messages", "/time", "/keys/x/requestToken", "/stats", "/messages", "/presence", "/push/publish", "/comet/connect", "/sse", "/event-stream"} {
		if answer, body := s.fetch(t, "GET", target, navigation); strings.Contains(body, "the app") {
			t.Errorf("%s: %d %q", target, answer.StatusCode, body)
		}
	}
	s.mustReload(t, func(c *Config) { c.Server.StaticDir = "" })
	if answer, _ := s.fetch(t, "GET", "/robots.txt"); answer.StatusCode != 404 {
		t.Errorf("without the app: %d", answer.StatusCode)
	}
}

// Builds for packages give all files one and the same time, and index.html is of one size with every new hash in it: a browser
// that has the old one must be told.
func TestANewIndexOfOldSizeAndTimeIsNoticed(t *testing.T) {
	t.Parallel()
	folder := appFolder(t)
	s := startServer(t, func(c *Config) { c.Server.StaticDir = folder })
	index := filepath.Join(folder, "index.html")
	info, err := os.Stat(index)
	if err != nil {
		t.Fatal(err)
	}
	first, old := s.fetch(t, "GET", "/")
	tag := first.Header.Get("ETag")
	if again, body := s.fetch(t, "GET", "/", "If-None-Match: "+tag); again.StatusCode != 304 || body != "" {
		t.Errorf("what the browser has is sent again: %d %q", again.StatusCode, body)
	}
	write(t, index, strings.ToUpper(old))
	if err := os.Chtimes(index, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if changed, body := s.fetch(t, "GET", "/", "If-None-Match: "+tag); changed.StatusCode != 200 || body != strings.ToUpper(old) {
		t.Errorf("a new page of the same size and time: %d %q", changed.StatusCode, body)
	}
}

// A redeployment often swaps a link. The folder that it led to is served until a reload, and then the new one.
func TestAReloadOpensTheAppAgain(t *testing.T) {
	t.Parallel()
	folder, fresh := appFolder(t), appFolder(t)
	write(t, filepath.Join(fresh, indexPage), "the next app")
	link := filepath.Join(t.TempDir(), "current")
	if err := os.Symlink(folder, link); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, func(c *Config) { c.Server.StaticDir = link })
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(fresh, link); err != nil {
		t.Fatal(err)
	}
	if _, body := s.fetch(t, "GET", "/"); !strings.HasSuffix(body, "the app") {
		t.Errorf("before: %q", body)
	}
	s.mustReload(t, func(*Config) {})
	if _, body := s.fetch(t, "GET", "/"); body != "the next app" {
		t.Errorf("after: %q", body)
	}
}

func TestAnAppWithoutAPageIsAConfigurationError(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Server.StaticDir = t.TempDir()
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "server.static_dir") || !strings.Contains(err.Error(), "has no index.html") {
		t.Errorf("%v", err)
	}
}

func TestHashedNames(t *testing.T) {
	for name, want := range map[string]bool{
		"assets/index-Bx3kf9Qa.js": true, "assets/a-b-c-12345abc.css": true, "assets/vendor.0a1b2c3d4e5f6071.js": true, "js/chunk-2.9f8e7d6c.js.map": true,
		"assets/inter-latin-DHw_u-x8.woff2": true, "_app/immutable/entry/start.CcUwBDzp.js": true,
		"index-Bx3kf9Qa.js": false, "assets/logo-original.svg": false, "assets/index.js": false, "photos/beach-20240131.jpg": false,
		"assets/Bx3kf9Qa": false, "lib/jquery.min.js": false, "lib/app-component.js": false, "assets/.js": false,
	} {
		if hasHashedName(name) != want {
			t.Errorf("%s: %t, want %t", name, !want, want)
		}
	}
}

// FuzzSitePath: what a path becomes is always the name of something inside the folder, with nothing hidden on the way.
func FuzzSitePath(f *testing.F) {
	for _, seed := range []string{"/", "/a/b.js", "/../x", "//x", "/a/./b", "/.env", "a", "/a\\..\\b", "/a/", "/\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, urlPath string) {
		name, ok := sitePath(urlPath)
		if !ok {
			return
		}
		if !fs.ValidPath(name) && strings.ToValidUTF8(name, "") == name || path.Clean(name) != name || !filepath.IsLocal(name) {
			t.Errorf("%q becomes %q", urlPath, name)
		}
		for _, element := range strings.Split(name, "/") {
			if strings.HasPrefix(element, ".") {
				t.Errorf("%q becomes %q", urlPath, name)
			}
		}
		if want := strings.TrimPrefix(urlPath, "/"); name != want && name != want+indexPage {
			t.Errorf("%q becomes %q", urlPath, name)
		}
	})
}
