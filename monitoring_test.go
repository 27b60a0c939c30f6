package main

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
)

// queries are the expressions of deploy's dashboard and alert rules, by the panel or alert that has them.
func queries(t *testing.T) map[string][]string {
	t.Helper()
	found := make(map[string][]string)
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	text, err := os.ReadFile("deploy/grafana-dashboard.json")
	if err == nil {
		err = json.Unmarshal(text, &dashboard)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			found["panel "+panel.Title] = append(found["panel "+panel.Title], target.Expr)
		}
	}
	rules, err := os.ReadFile("deploy/prometheus-rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range regexp.MustCompile(`- alert: (\w+)\n +expr: '(.+)'\n`).FindAllStringSubmatch(string(rules), -1) {
		found["alert "+rule[1]] = []string{strings.ReplaceAll(rule[2], "''", "'")}
	}
	if n := strings.Count(string(rules), "- alert:"); n < 10 || len(dashboard.Panels) < 10 || len(found) < n+10 {
		t.Fatalf("only %d panels and %d alerts, %d queries", len(dashboard.Panels), n, len(found))
	}
	return found
}

// Whatever a panel or an alert asks for is there, with these labels: else it would be empty, and silent, for ever.
func TestPanelsAndAlertsAskForWhatIsThere(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	_, exposition := s.get(t, "/metrics?format=prometheus")
	series := make(map[string]bool)
	for line := range strings.Lines(exposition) {
		if name, _, ok := strings.Cut(line, " "); ok && !strings.HasPrefix(line, "#") {
			series[name] = true
		}
	}
	selector := regexp.MustCompile(`(letshare_[a-z0-9_]+)(?:\{([^}]*)\})?`)
	matcher := regexp.MustCompile(`(\w+)(=~?)"([^"]*)"`)
	check := func(where, query string) {
		for _, asked := range selector.FindAllStringSubmatch(query, -1) {
			reasons := []string{""}
			for _, m := range matcher.FindAllStringSubmatch(asked[2], -1) {
				switch {
				case m[1] == "job":
				case m[1] != "reason":
					t.Errorf("%s asks for the label %s", where, m[1])
				default:
					reasons = strings.Split(m[3], "|")
				}
			}
			for _, reason := range reasons {
				name := asked[1]
				if reason != "" {
					name += `{reason="` + reason + `"}`
				}
				if labelled := strings.Contains(exposition, "\n"+name+`{reason="`); !series[name] && !labelled {
					t.Errorf("%s asks for %s, which is not there", where, name)
				}
			}
		}
		if !strings.Contains(query, "letshare_") && query != `up{job="letshare"} == 0` {
			t.Errorf("%s asks for nothing of letshare: %s", where, query)
		}
	}
	for where, list := range queries(t) {
		for _, query := range list {
			check(where, query)
		}
	}
}

// An alert without words wakes somebody who then does not know what to do.
func TestEachAlertSaysWhatToDo(t *testing.T) {
	rules, err := os.ReadFile("deploy/prometheus-rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	documentation, err := os.ReadFile("docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range strings.Split(string(rules), "- alert: ")[1:] {
		name, _, _ := strings.Cut(rule, "\n")
		for _, want := range []string{"severity: ", "summary: '", "description: '"} {
			if !strings.Contains(rule, want) {
				t.Errorf("%s lacks %s", name, want)
			}
		}
		if !strings.Contains(string(documentation), "`"+name+"`") {
			t.Errorf("docs/monitoring.md does not name %s", name)
		}
	}
}

// Who is near a limit can be seen without knowing the configuration.
func TestMetricsShowTheLimits(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(c *Config) {
		c.WebSocket.MaxConnections, c.WebSocket.MaxBufferedBytes, c.Relay.MaxMemory = 123, 4<<20, 5<<20
	})
	want := func(line string) {
		t.Helper()
		if _, exposition := s.get(t, "/metrics?format=prometheus"); !strings.Contains(exposition, "\n"+line+"\n") {
			t.Errorf("no %s in\n%s", line, exposition)
		}
	}
	want("letshare_connections_limit 123")
	want("letshare_buffered_limit_bytes 4194304")
	want("letshare_relay_limit_bytes 5242880")
	s.mustReload(t, func(c *Config) { c.WebSocket.MaxConnections, c.Relay.MaxMemory = 99, 6<<20 })
	want("letshare_connections_limit 99")
	want("letshare_relay_limit_bytes 6291456")
}
