package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// section returns the lines of a document under a heading, up to the next one of its rank or a higher one.
func (d *document) section(t *testing.T, heading string) []string {
	t.Helper()
	_, rest, found := strings.Cut(d.text, "\n"+heading+"\n")
	if !found {
		t.Fatalf("%s has no heading %q", d.path, heading)
	}
	rank, _, _ := strings.Cut(heading, " ")
	if end := regexp.MustCompile(fmt.Sprintf(`(?m)^#{1,%d} `, len(rank))).FindStringIndex(rest); end != nil {
		rest = rest[:end[0]]
	}
	return strings.Split(rest, "\n")
}

// TestOperationsNameEverythingThatIsCounted: each reason of /metrics has a row that says what it means.
func TestOperationsNameEverythingThatIsCounted(t *testing.T) {
	d := readDocument(t, "docs/operations.md")
	rows := func(heading string) (names map[string]bool) {
		names = make(map[string]bool)
		for _, line := range d.section(t, heading) {
			if cell := strings.Split(line, "|"); len(cell) > 2 {
				for _, name := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(cell[1], -1) {
					names[name[1]] = true
				}
			}
		}
		return names
	}
	_, body := startServer(t).get(t, "/metrics")
	var figures struct{ Refusals, Closes, Drops map[string]uint64 }
	if err := json.Unmarshal([]byte(body), &figures); err != nil {
		t.Fatal(err)
	}
	for heading, counted := range map[string]map[string]uint64{
		"### Refusals": figures.Refusals,
		"### Closes":   figures.Closes,
		"### Drops":    figures.Drops,
	} {
		if len(counted) == 0 {
			t.Errorf("/metrics counts nothing for %q", heading)
		}
		named := rows(heading)
		for reason := range counted {
			if !named[reason] {
				t.Errorf("docs/operations.md does not say under %q what %s means", heading, reason)
			}
			delete(named, reason)
		}
		for name := range named {
			t.Errorf("docs/operations.md explains %s under %q, which is not counted", name, heading)
		}
	}
}

// TestAsksNameTestsThatExist: the last table of docs/operations.md shows each ask by tests and files that are there.
func TestAsksNameTestsThatExist(t *testing.T) {
	var tests strings.Builder
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tests.Write(text)
	}
	rows := 0
	for _, line := range readDocument(t, "docs/operations.md").section(t, "## What people ask for") {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || strings.HasPrefix(cells[1], "---") || cells[1] == " Ask " {
			continue
		}
		rows++
		names := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[3], -1)
		if len(names) == 0 {
			t.Errorf("nothing shows the ask%s", cells[1])
		}
		for _, name := range names {
			if strings.HasPrefix(name[1], "Test") {
				if !strings.Contains(tests.String(), "func "+name[1]+"(") {
					t.Errorf("the ask%sis shown by %s, which is not there", cells[1], name[1])
				}
			} else if _, err := os.Stat(name[1]); err != nil {
				t.Errorf("the ask%sis shown by %s, which is not there", cells[1], name[1])
			}
		}
	}
	if rows < 20 {
		t.Errorf("only %d asks were found", rows)
	}
}
