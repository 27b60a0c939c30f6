package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// raceExit is the exit code of a server under the race detector that saw a race.
const raceExit = 66

// ownServer is a server with the limits that people get, which the bench built, started and watches.
type ownServer struct {
	*process
	dir     string       // immutable: its configuration, error log and race reports
	client  *http.Client // immutable
	checked int          // how often /debug/check was clean
}

// startOwn builds the server of this source tree, with the race detector or without, and starts it with its
// defaults, but for a few keys of the configuration's section websocket.
func startOwn(dir string, race bool, websocket map[string]any) (*ownServer, error) {
	progress("building the server")
	flags := []string{}
	if race {
		flags = append(flags, "-race")
	}
	l, err := buildServer(dir, nil, flags...)
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	secret := rand.Text() + rand.Text()
	text, err := json.Marshal(map[string]any{
		"mode":      "local",
		"server":    map[string]any{"host": "127.0.0.1", "port": port},
		"jwt":       map[string]any{"secret": secret},
		"log":       map[string]any{"level": "warn", "file": filepath.Join(dir, "errors.log")},
		"websocket": websocket,
	})
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "config.json")
	if err := os.WriteFile(config, text, 0o600); err != nil {
		return nil, err
	}
	reports := fmt.Sprintf("GORACE=log_path=%s exitcode=%d", filepath.Join(dir, "race"), raceExit)
	p, err := runProcess([]string{"env", reports, l.binary, "-config", config}, dir, nil)
	if err != nil {
		return nil, err
	}
	if p.target, err = parseTarget("letshare", "ws://127.0.0.1:"+port+"/ws", mint(secret), false); err == nil {
		p.pid = p.cmd.Process.Pid
		err = p.awaitPort()
	}
	if err != nil {
		p.stop()
		return nil, err
	}
	return &ownServer{process: p, dir: dir, client: httpClient(p.target)}, nil
}

// serverFigures is what a look at the server gave.
type serverFigures struct {
	at         time.Time
	rss        int64   // bytes
	runtime    float64 // MiB that Go has of the system: without what the race detector takes for itself
	goroutines float64
	websocket  map[string]float64
	reasons    map[string]map[string]float64 // drops, refusals, closes
}

// look reads /metrics and the resident set.
func (s *ownServer) look() (serverFigures, error) {
	var body struct {
		WebSocket map[string]float64 `json:"websocket"`
		System    struct {
			Goroutines float64            `json:"goroutines"`
			Memory     map[string]float64 `json:"memory"`
		} `json:"system"`
		Drops    map[string]float64 `json:"drops"`
		Refusals map[string]float64 `json:"refusals"`
		Closes   map[string]float64 `json:"closes"`
	}
	if !askMetrics(s.target, &body) || body.WebSocket == nil {
		return serverFigures{}, fmt.Errorf("/metrics does not answer")
	}
	rss, _ := memoryOf(s.pid)
	return serverFigures{time.Now(), rss, body.System.Memory["sys_mb"], body.System.Goroutines, body.WebSocket,
		map[string]map[string]float64{"drops": body.Drops, "refusals": body.Refusals, "closes": body.Closes}}, nil
}

// check asks the server whether all that it knows fits together.
func (s *ownServer) check() error {
	resp, err := s.client.Get(strings.TrimSuffix(s.metrics, "/metrics") + "/debug/check")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/debug/check: %s: %.300s", resp.Status, strings.TrimSpace(string(text)))
	}
	s.checked++
	return nil
}

// emptied waits until nothing is left of the connections that there were, and returns the last look.
func (s *ownServer) emptied(goroutines float64) (serverFigures, error) {
	var f serverFigures
	var err error
	for end := time.Now().Add(45 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if f, err = s.look(); err != nil {
			return f, err
		}
		if f.websocket["active_connections"]+f.websocket["total_rooms"]+f.websocket["buffered_bytes"] == 0 && f.goroutines <= goroutines {
			return f, nil
		}
	}
	return f, fmt.Errorf("left behind: %.0f connections, %.0f rooms, %.0f buffered bytes, %.0f goroutines (%.0f at the start)",
		f.websocket["active_connections"], f.websocket["total_rooms"], f.websocket["buffered_bytes"], f.goroutines, goroutines)
}

// finish stops the server and says what was wrong with its end: a race, a panic, an exit code.
func (s *ownServer) finish() (faults []string) {
	s.stop()
	if code := s.cmd.ProcessState.ExitCode(); code == raceExit {
		faults = append(faults, "the race detector saw races")
	} else if code != 0 {
		faults = append(faults, fmt.Sprintf("the server exited with %d: %s", code, s.tail))
	}
	reports, _ := filepath.Glob(filepath.Join(s.dir, "race.*"))
	for _, name := range reports {
		text, _ := os.ReadFile(name)
		faults = append(faults, fmt.Sprintf("%.4000s", text))
	}
	return faults
}
