package main

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"path"
	"strings"
	"time"
)

// indexPage is the page of a single-page app, and of a folder.
const indexPage = "index.html"

// site serves a built single-page app from a folder. Immutable; any goroutine may call its methods.
type site struct {
	root *os.Root // nothing outside it is opened, whatever a path or a link says
}

// openSite opens the folder, nil when none is configured.
func openSite(folder string) (*site, error) {
	if folder == "" {
		return nil, nil
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, fmt.Errorf("server.static_dir %q: %w", folder, reasonOf(err))
	}
	return &site{root}, nil
}

// reserved says whether a path belongs to the server's own interfaces, or to the REST paths of Ably's clients: a file or a page
// there would be taken for an answer.
func reserved(urlPath string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(urlPath, "/"), "/")
	switch first {
	case "ws", "console", "health", "metrics", "api", "debug":
		return true
	}
	return ablyAddress(urlPath)
}

// serve answers with a file, or, when somebody navigates to a path that is none, with the app's page: it knows its own paths.
func (s *site) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		answerRefusal(w, refuseMethod)
		return
	}
	name, ok := sitePath(r.URL.Path)
	if !ok {
		answerRefusal(w, refuseNotFound)
		return
	}
	file, info := s.open(name)
	if file == nil {
		header := w.Header()
		header.Add("Vary", "Accept, Sec-Fetch-Mode")
		if navigates(r) {
			name = indexPage
			file, info = s.open(name)
		}
		if file == nil {
			header.Set("Cache-Control", "no-cache")
			answerRefusal(w, refuseNotFound)
			return
		}
	}
	defer file.Close()
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	if kind := contentType(name); kind != "" {
		header.Set("Content-Type", kind)
	}
	header.Set("Cache-Control", "no-cache") // kept, but asked for again each time: usually a short 304
	if hasHashedName(name) {
		header.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	if tag := entityTag(file, info); tag != "" {
		header.Set("ETag", tag)
	}
	patience := requestTimeout + time.Duration(info.Size()/staticSlowest)*time.Second
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(patience))
	// Without the time of the file: images and packages are often built with one and the same for all files.
	http.ServeContent(w, r, name, time.Time{}, file)
}

// sitePath is the name within the folder of what a URL's path asks for. Not ok: nobody gets that. A path with a backslash, an
// empty element, or one that begins with a dot, is no file of an app; links to parents and hidden files begin with a dot.
func sitePath(urlPath string) (name string, ok bool) {
	name, rooted := strings.CutPrefix(urlPath, "/")
	if name == "" || strings.HasSuffix(name, "/") {
		name += indexPage
	}
	for element := range strings.SplitSeq(name, "/") {
		if element == "" || element[0] == '.' || strings.ContainsAny(element, "\\\x00") {
			return "", false
		}
	}
	return name, rooted
}

// open opens a regular file, nil if there is none of that name. Folders, sockets and devices are none.
func (s *site) open(name string) (*os.File, os.FileInfo) {
	if info, err := s.root.Stat(name); err != nil || !info.Mode().IsRegular() {
		return nil, nil // before opening: that of a pipe would wait for a writer
	}
	file, err := s.root.Open(name)
	if err != nil {
		return nil, nil
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, nil
	}
	return file, info
}

// navigates says whether a browser asks for a page to show, and not for a part of one.
func navigates(r *http.Request) bool {
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate"
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// contentType is the type by the name's ending, "" to have it guessed from the content. What browsers insist on is not left to
// the tables of the machine.
func contentType(name string) string {
	switch ending := path.Ext(name); ending {
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".html":
		return "text/html; charset=utf-8"
	case ".json", ".map":
		return "application/json"
	case ".webmanifest":
		return "application/manifest+json"
	case ".wasm":
		return "application/wasm"
	case ".svg":
		return "image/svg+xml"
	case ".txt":
		return "text/plain; charset=utf-8"
	default:
		return mime.TypeByExtension(ending)
	}
}

// hasHashedName says whether a build has put a hash of the file's content into its name, so that another content has another
// name: main-Bx3kf9Qa.js (Vite), main.3f2a1b9c.chunk.css (webpack). Builds put such files into folders; what lies beside
// index.html is called as it is called.
func hasHashedName(name string) bool {
	folder, base := path.Split(name)
	if folder == "" {
		return false
	}
	parts := strings.Split(base, ".")
	for i, part := range parts[:len(parts)-1] {
		if i > 0 && isHash(part) {
			return true
		}
	}
	// Vite's hash may itself hold the dash that stands before it.
	stem := parts[0]
	return len(parts) > 1 && len(stem) > 9 && stem[len(stem)-9] == '-' && isHash(stem[len(stem)-8:])
}

// isHash says whether s looks like 8 to 64 characters of hexadecimal or base64url and not like a word, a version or a date: it has
// digits among letters, or capitals within.
func isHash(s string) bool {
	if len(s) < 8 || len(s) > 64 {
		return false
	}
	var digits, letters, capitals, small int
	for i, c := range []byte(s) {
		switch {
		case '0' <= c && c <= '9':
			digits++
		case 'a' <= c && c <= 'z':
			letters++
			small++
		case 'A' <= c && c <= 'Z':
			letters++
			if i > 0 {
				capitals++
			}
		case c != '-' && c != '_':
			return false
		}
	}
	return digits > 0 && letters > 0 || capitals > 1 && small > 0
}

// entityTag tells one content from another, "" when it cannot be read.
func entityTag(file *os.File, info os.FileInfo) string {
	if info.Size() > maxHashedFile {
		return fmt.Sprintf(`"%x-%x"`, info.Size(), info.ModTime().UnixNano())
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, io.LimitReader(file, maxHashedFile)); err != nil {
		return ""
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return ""
	}
	return `"` + base64.RawURLEncoding.EncodeToString(hash.Sum(nil)[:12]) + `"`
}
