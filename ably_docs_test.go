package main

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// The requests that docs/ably.md shows are made as they stand there, and answered as it says.
func TestTheRESTExamplesOfTheDocument(t *testing.T) {
	t.Parallel()
	s := startServer(t, withAblyKeys)
	requests := 0
	for _, block := range readDocument(t, "docs/ably.md").blocks {
		if block.heading != "REST" || block.language != "sh" {
			continue
		}
		for i, line := range block.lines {
			if !strings.HasPrefix(line, "curl ") {
				continue
			}
			requests++
			got := s.curl(t, line)
			want := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimPrefix(block.lines[i+1], "# ")), "…", ".*")
			if !regexp.MustCompile("^" + want + "$").MatchString(got) {
				t.Errorf("docs/ably.md:%d: %s\nis answered %s\nnot %s", block.line+i, line, got, block.lines[i+1])
			}
		}
	}
	if requests < 10 {
		t.Errorf("docs/ably.md shows %d requests: the test does not find them", requests)
	}
}

// curl does what a command line of the document says: -u, -H, -d and an address.
func (s *testServer) curl(t *testing.T, line string) string {
	t.Helper()
	line = strings.NewReplacer("$KEY", testAblyKey, "$URL", "").Replace(line)
	method, body, path, headers := http.MethodGet, "", "", []string{"Authorization:", "Content-Type:"}
	words := regexp.MustCompile(`'[^']*'|"[^"]*"|\S+`).FindAllString(line, -1)[1:]
	for i := 0; i < len(words); i++ {
		word := words[i]
		if i+1 < len(words) && word[0] == '-' {
			i++
			value := strings.Trim(words[i], `'"`)
			if words[i][0] == '\'' {
				value = words[i][1 : len(words[i])-1]
			}
			switch word {
			case "-u":
				headers = append(headers, withRestKey(value))
			case "-H":
				headers = append(headers, value)
			case "-d":
				method, body = http.MethodPost, value
			default:
				t.Fatalf("the test does not know curl's %s", word)
			}
			continue
		}
		path = strings.Trim(word, `"`)
	}
	return string(s.rest(t, method, path, body, headers...).body)
}
