package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// allCases are their numbers: 43, and those of Ably clients.
func allCases() (numbers []string) {
	for n := range 43 {
		numbers = append(numbers, fmt.Sprintf("%02d", n+1))
	}
	for n := range 10 {
		numbers = append(numbers, fmt.Sprintf("A%02d", n+1))
	}
	return numbers
}

// The tables of cases in docs/reliability.md name every case once, by its number, with tests that there are, and .ci/mutate
// knows what keeps each case away whose test is one of these.
func TestTheTableOfCases(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, path := range append(files, "docs/reliability.md", ".ci/mutations") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(path, ".go") {
			source.Write(text)
			continue
		}
		pattern := map[string]string{"docs/reliability.md": `(?m)^\| (A?\d+) \|.*$`, ".ci/mutations": `(?m)^(A?\d\d) \S+: .*$`}[path]
		seen := map[string]bool{}
		for _, row := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
			number := fmt.Sprintf("%02s", row[1])
			if seen[number] && strings.HasSuffix(path, ".md") {
				t.Errorf("%s names case %s twice", path, number)
			}
			seen[number] = true
			for _, name := range regexp.MustCompile(`(Test|Fuzz)\w+`).FindAllString(row[0], -1) {
				if !strings.Contains(source.String(), "func "+name+"(") {
					t.Errorf("%s names %s for case %s, which is not there", path, name, number)
				}
			}
		}
		for _, number := range allCases() {
			if tested := strings.Contains(source.String(), "func TestAbuse"+number+"_"); !seen[number] && (tested || strings.HasSuffix(path, ".md")) {
				t.Errorf("%s lacks case %s", path, number)
			}
		}
	}
}
