package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// The documents must say what is so: these tests read them and try it.

// codeBlock is a fenced block of a document.
type codeBlock struct {
	language string // behind the fence
	heading  string // that it stands under
	line     int    // of its first line in the document, from 1
	lines    []string
}

// document is a Markdown file, cut into what the tests look at.
type document struct {
	path     string
	text     string
	headings []string // with their number signs
	blocks   []codeBlock
	prose    []string // lines outside of blocks
}

func readDocument(t *testing.T, path string) *document {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := &document{path: path, text: string(raw)}
	var open *codeBlock
	for i, line := range strings.Split(d.text, "\n") {
		language, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open == nil:
			open = &codeBlock{language: language, line: i + 2}
			if n := len(d.headings); n > 0 {
				open.heading = strings.TrimLeft(d.headings[n-1], "# ")
			}
		case fence:
			d.blocks = append(d.blocks, *open)
			open = nil
		case open != nil:
			open.lines = append(open.lines, line)
		default:
			if strings.HasPrefix(line, "#") {
				d.headings = append(d.headings, line)
			}
			d.prose = append(d.prose, line)
		}
	}
	if open != nil {
		t.Fatalf("%s:%d: a block that is never closed", path, open.line)
	}
	return d
}

// TestProtocolExamples plays every example of docs/protocol.md against a running server.
func TestProtocolExamples(t *testing.T) {
	examples := 0
	for _, block := range readDocument(t, "docs/protocol.md").blocks {
		if block.language != "letshare" {
			continue
		}
		examples++
		t.Run(strings.ReplaceAll(block.heading, " ", "_"), func(t *testing.T) {
			t.Parallel()
			play(t, &block)
		})
	}
	if examples < 8 {
		t.Errorf("only %d examples were found", examples)
	}
}

// exampleStep is a line of an example: who, what (connect, close, > or <) and the rest.
var exampleStep = regexp.MustCompile(`^(\w+)(: connect|: close|>|<) ?(.*)$`)

// play carries out one example. At its end nobody may have a message left.
func play(t *testing.T, block *codeBlock) {
	change := func(*Config) {}
	if text, ok := strings.CutPrefix(block.lines[0], "server: "); ok {
		block.lines, block.line = block.lines[1:], block.line+1
		change = func(cfg *Config) {
			if err := json.Unmarshal([]byte(text), cfg); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		}
	}
	s := startServer(t, change)
	here := make(map[string]*client)
	for i, line := range block.lines {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		step := exampleStep.FindStringSubmatch(line)
		if step == nil {
			t.Fatalf("docs/protocol.md:%d: not a step of an example: %s", block.line+i, line)
		}
		t.Logf("docs/protocol.md:%d: %s", block.line+i, line) // shown when the example fails
		who, rest := step[1], step[3]
		if c := here[who]; c == nil && step[2] != ": connect" {
			t.Fatalf("%s is not connected", who)
		} else if !takeStep(t, s, c, step[2], rest) {
			delete(here, who)
		} else if c == nil {
			here[who] = connectAs(t, s, who, rest)
		}
	}
	// In the second round everything that was sent before the first one has arrived.
	for range 2 {
		for _, c := range here {
			c.wantNothing(t)
		}
	}
}

// takeStep carries out one step of a client. False: the client is gone.
func takeStep(t *testing.T, s *testServer, c *client, step, rest string) bool {
	switch step {
	case ": close":
		c.leave(t)
		return false
	case ">":
		if frame := fileFrame(t, rest); frame != nil {
			c.frame(t, opBinary, frame)
		} else {
			c.send(t, rest)
		}
	case "<":
		return wantLine(t, c, rest)
	}
	return true
}

// wantLine wants the next that a client gets: an answer of HTTP, a close frame or a message. False: the client is gone.
func wantLine(t *testing.T, c *client, line string) bool {
	t.Helper()
	if c.answer.StatusCode != http.StatusSwitchingProtocols {
		body, err := io.ReadAll(c.answer.Body)
		if got := fmt.Sprintf("%d %s", c.answer.StatusCode, strings.TrimSpace(string(body))); err != nil || got != line {
			t.Fatalf("the answer is %s, want %s (error %v)", got, line, err)
		}
		return false
	}
	var code int
	var reason string
	if n, _ := fmt.Sscanf(line, "close %d %s", &code, &reason); n == 2 {
		c.wantClose(t, code, reason)
		return false
	}
	if frame := fileFrame(t, line); frame != nil {
		if opcode, got, err := c.read(); err != nil || opcode != opBinary || !bytes.Equal(got, frame) {
			t.Fatalf("%s gets opcode %d, %q, want the frame %q (error %v)", c.name, opcode, got, frame, err)
		}
		return true
	}
	if got := c.message(t); withoutTime(got) != withoutTime(line) {
		t.Fatalf("%s gets\n%s, want\n%s", c.name, got, line)
	}
	return true
}

// fileFrame is the binary message that "binary HEADER PAYLOAD" stands for, nil for any other line.
func fileFrame(t *testing.T, line string) []byte {
	t.Helper()
	text, ok := strings.CutPrefix(line, "binary ")
	if !ok {
		return nil
	}
	end := strings.Index(text, "}") + 1
	if end == 0 || end > relayHeaderBytes {
		t.Fatalf("no header of a frame: %s", line)
	}
	frame := make([]byte, relayHeaderBytes)
	copy(frame, text[:end])
	return append(frame, strings.TrimPrefix(text[end:], " ")...)
}

// connectAs sends the upgrade that an example describes.
func connectAs(t *testing.T, s *testServer, who, target string) *client {
	t.Helper()
	path, query, _ := strings.Cut(target, "?")
	query = strings.Replace(query, "TOKEN", s.token(t, Claims{UserID: "example"}), 1)
	if before, command, ok := strings.Cut(query, "$("); ok {
		command, after, _ := strings.Cut(command, ")")
		args := strings.Fields(command)
		var token strings.Builder
		if exit := run(t.Context(), args[1:], &token, io.Discard, func(string) string { return "" }); args[0] != "letshare" || exit != 0 {
			t.Fatalf("%s: exit code %d", command, exit)
		}
		query = before + strings.TrimSpace(token.String()) + after
	}
	c := s.open(t, "", withPath(path), withQuery(query))
	c.name = who
	return c
}

var timestamps = regexp.MustCompile(`"timestamp":\d{13}([,}])`)

// withoutTime makes all timestamps alike.
func withoutTime(message string) string {
	return timestamps.ReplaceAllString(message, `"timestamp":0$1`)
}

// TestProtocolNamesEverything wants each reason, ending and limit in a table of docs/protocol.md.
func TestProtocolNamesEverything(t *testing.T) {
	var rows []string
	for _, line := range readDocument(t, "docs/protocol.md").prose {
		if strings.HasPrefix(line, "|") || strings.Contains(line, "answer") {
			rows = append(rows, line)
		}
	}
	said := func(words ...string) {
		t.Helper()
		if !slices.ContainsFunc(rows, func(row string) bool {
			return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(row, word) })
		}) {
			t.Errorf("no row of docs/protocol.md has %s", strings.Join(words, " and "))
		}
	}
	for reason := range reasonCount {
		said("`" + reason.String() + "`")
	}
	for ending := notEnded + 1; ending < endingCount; ending++ {
		if code := endings[ending].code; code != 0 {
			said("`"+ending.String()+"`", fmt.Sprintf("| %d |", code))
		} else {
			said("`" + ending.String() + "`")
		}
	}
	for problem := relayNoProblem + 1; problem < relayProblemCount; problem++ {
		said("`"+problem.String()+"`", fmt.Sprintf("| %d |", relayProblems[problem].code))
	}
	cfg := reflect.ValueOf(DefaultConfig())
	for _, section := range []string{"WebSocket", "Relay"} {
		defaults := cfg.FieldByName(section)
		for i := range defaults.NumField() {
			key := defaults.Type().Field(i).Tag.Get("json")
			value := fmt.Sprint(defaults.Field(i).Interface())
			if value == "" {
				value = "none"
			}
			said("`"+key+"`", value)
		}
	}
}

// TestREADMEsAreShortAndAlike: both languages have the same parts, commands and links, and a newcomer reads them to the end.
func TestREADMEsAreShortAndAlike(t *testing.T) {
	english, chinese := readDocument(t, "README.md"), readDocument(t, "README.zh-CN.md")
	for _, d := range []*document{english, chinese} {
		if words := len(strings.Fields(d.text)); words >= 1200 {
			t.Errorf("%s has %d words, want fewer than 1200", d.path, words)
		}
	}
	han := 0
	for _, r := range chinese.text {
		if unicode.Is(unicode.Han, r) {
			han++
		}
	}
	if han >= 2000 || han < 500 { // a Chinese word has between one and two characters
		t.Errorf("%s has %d Chinese characters, want 500 to 1999", chinese.path, han)
	}
	shape := func(d *document) (parts []string) {
		for _, heading := range d.headings {
			parts = append(parts, "heading "+heading[:strings.Index(heading, " ")])
		}
		for _, block := range d.blocks {
			parts = append(parts, "block "+block.language+"\n"+strings.Join(block.lines, "\n"))
		}
		for _, line := range d.prose {
			if strings.HasPrefix(line, "|") {
				parts = append(parts, fmt.Sprintf("row of %d cells", strings.Count(line, "|")-1))
			}
			for _, link := range links.FindAllStringSubmatch(line, -1) {
				if !strings.HasPrefix(link[1], "README") && !strings.HasPrefix(link[1], "#") {
					parts = append(parts, "link to "+link[1])
				}
			}
		}
		return parts
	}
	ours, theirs := shape(english), shape(chinese)
	for i := range max(len(ours), len(theirs)) {
		if i >= len(ours) || i >= len(theirs) || ours[i] != theirs[i] {
			t.Fatalf("the READMEs differ: %q against %q", ours[min(i, len(ours)):min(i+1, len(ours))], theirs[min(i, len(theirs)):min(i+1, len(theirs))])
		}
	}
	for _, command := range []string{"go run . -config config.json", "go test ./..."} {
		if !slices.ContainsFunc(english.blocks, func(b codeBlock) bool { return slices.Contains(b.lines, command) }) {
			t.Errorf("README.md does not show the command %s", command)
		}
	}
}

var links = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestDocumentLinks: a link to a file leads to one, and a link into a document to one of its headings.
func TestDocumentLinks(t *testing.T) {
	for _, path := range documents(t) {
		d := readDocument(t, path)
		for _, link := range links.FindAllStringSubmatch(strings.Join(d.prose, "\n"), -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			name, anchor, _ := strings.Cut(link[1], "#")
			target := d
			if name != "" {
				name = filepath.Join(filepath.Dir(path), name)
				if _, err := os.Stat(name); err != nil {
					t.Errorf("%s links to %s, which is not there", path, link[1])
					continue
				}
				if anchor != "" {
					target = readDocument(t, name)
				}
			}
			if anchor != "" && !slices.ContainsFunc(target.headings, func(h string) bool { return anchorOf(h) == anchor }) {
				t.Errorf("%s links to %s, but there is no such heading", path, link[1])
			}
		}
	}
}

// documents are all Markdown files of the project.
func documents(t *testing.T) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "node_modules" || len(path) > 1 && strings.HasPrefix(entry.Name(), ".")):
			return fs.SkipDir
		case filepath.Ext(path) == ".md":
			paths = append(paths, path)
		}
		return nil
	})
	if err != nil || len(paths) < 8 {
		t.Fatalf("only these documents were found: %q (error %v)", paths, err)
	}
	return paths
}

// anchorOf is the anchor that a heading gets on the page: lower case, hyphens for spaces, no punctuation.
func anchorOf(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, strings.TrimLeft(heading, "# "))
}

// TestMigrationExample: the configuration that docs/migrating.md arrives at is one that starts in production.
func TestMigrationExample(t *testing.T) {
	examples := 0
	for _, block := range readDocument(t, "docs/migrating.md").blocks {
		if block.language != "json" {
			continue
		}
		examples++
		path := filepath.Join(t.TempDir(), "config.json")
		if err := os.WriteFile(path, []byte(strings.Join(block.lines, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		environment := map[string]string{"LETSHARE_JWT_SECRET": randomSecret()}
		cfg, err := LoadConfig(path, func(name string) string { return environment[name] })
		if err != nil {
			t.Errorf("docs/migrating.md:%d: %v", block.line, err)
		} else if cfg.Mode != modeProduction {
			t.Errorf("docs/migrating.md:%d: the mode is %s", block.line, cfg.Mode)
		}
	}
	if examples == 0 {
		t.Error("docs/migrating.md shows no configuration")
	}
}
