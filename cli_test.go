package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCommandLine plays the scripts in testdata/cli against the real program, each in a folder of its own.
//
// A script is lines, then files. The files begin with "-- name --" and are laid into the folder first.
//
//	# text          a comment
//	env NAME=VALUE  for the commands that follow; the environment is empty but for these
//	$ letshare …    runs the program; words are split at spaces, '…' keeps them together,
//	                $NAME is what was saved
//	1> pattern      one line that it prints on standard output; 2> on standard error
//	exit N          its exit code, 0 if not said
//	save NAME       keeps what it printed on standard output, without the line end
//
// Output is compared as a whole: what is not in the script may not be printed. In a pattern * stands
// for any text, and a line that is just ... for any number of lines.
func TestCommandLine(t *testing.T) {
	scripts, err := filepath.Glob("testdata/cli/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, script := range scripts {
		name := strings.TrimSuffix(filepath.Base(script), ".txt")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(script)
			if err != nil {
				t.Fatal(err)
			}
			playScript(t, string(text))
		})
	}
}

// cliStep is one command of a script and what is expected of it.
type cliStep struct {
	line           int
	command        []string
	stdout, stderr []string // patterns
	exit           int
	save           string
	env            []string
}

func playScript(t *testing.T, text string) {
	t.Helper()
	dir := t.TempDir()
	lines, files := splitScript(text)
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	steps, err := parseSteps(lines)
	if err != nil {
		t.Fatal(err)
	}
	saved := map[string]string{}
	for _, step := range steps {
		playStep(t, dir, step, saved)
	}
}

// splitScript returns the lines of a script and the files behind them.
func splitScript(text string) (lines []string, files map[string]string) {
	files = map[string]string{}
	file := ""
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "-- "); ok && strings.HasSuffix(name, " --") {
			file = strings.TrimSuffix(name, " --")
			files[file] = ""
		} else if file != "" {
			files[file] += line
		} else {
			lines = append(lines, strings.TrimRight(line, "\r\n"))
		}
	}
	return lines, files
}

func parseSteps(lines []string) ([]*cliStep, error) {
	var steps []*cliStep
	var env []string
	for i, line := range lines {
		word, rest, _ := strings.Cut(line, " ")
		var step *cliStep
		if len(steps) > 0 {
			step = steps[len(steps)-1]
		}
		if step == nil && (word == "1>" || word == "2>" || word == "exit" || word == "save") {
			return nil, fmt.Errorf("line %d: %q before any command", i+1, line)
		}
		var err error
		switch word {
		case "", "#":
		case "env":
			env = append(env, rest)
		case "$":
			step = &cliStep{line: i + 1, env: env[:len(env):len(env)]}
			step.command, err = splitWords(rest)
			steps = append(steps, step)
		case "1>":
			step.stdout = append(step.stdout, rest)
		case "2>":
			step.stderr = append(step.stderr, rest)
		case "exit":
			step.exit, err = strconv.Atoi(rest)
		case "save":
			step.save = rest
		default:
			err = fmt.Errorf("unknown line %q", line)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return steps, nil
}

// splitWords splits a command at spaces; what stands between single quotes is one word, also when empty.
func splitWords(s string) ([]string, error) {
	var words []string
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		if quoted, ok := strings.CutPrefix(s, "'"); ok {
			word, rest, ok := strings.Cut(quoted, "'")
			if !ok {
				return nil, errors.New("a quote is not closed")
			}
			words, s = append(words, word), rest
			continue
		}
		word, rest, _ := strings.Cut(s, " ")
		words, s = append(words, word), rest
	}
	if len(words) == 0 || words[0] != "letshare" {
		return nil, errors.New("a command must begin with letshare")
	}
	return words[1:], nil
}

func playStep(t *testing.T, dir string, step *cliStep, saved map[string]string) {
	t.Helper()
	args := make([]string, len(step.command))
	for i, arg := range step.command {
		args[i] = os.Expand(arg, func(name string) string {
			if _, ok := saved[name]; !ok {
				t.Errorf("line %d: nothing was saved as %s", step.line, name)
			}
			return saved[name]
		})
	}
	cmd := letshareCommand(t, dir, step.env, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	exit := exitCode(t, cmd.Run())
	if exit != step.exit {
		t.Errorf("line %d: exit %d, want %d; it printed\n%s%s", step.line, exit, step.exit, &stdout, &stderr)
	}
	matchOutput(t, step.line, "standard output", step.stdout, stdout.String())
	matchOutput(t, step.line, "standard error", step.stderr, stderr.String())
	if step.save != "" {
		saved[step.save] = strings.TrimSuffix(stdout.String(), "\n")
	}
}

func matchOutput(t *testing.T, line int, stream string, patterns []string, got string) {
	t.Helper()
	if !outputMatches(patterns, got) {
		t.Errorf("line %d: %s is\n%s\nwant\n%s", line, stream, got, strings.Join(patterns, "\n"))
	}
}

// outputMatches tells whether an output consists of lines like these patterns and no others.
func outputMatches(patterns []string, got string) bool {
	var want strings.Builder
	want.WriteString(`\A`)
	for _, pattern := range patterns {
		if pattern == "..." {
			want.WriteString(`(?:.*\n)*?`)
			continue
		}
		want.WriteString(strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `.*`) + `\n`)
	}
	want.WriteString(`\z`)
	return regexp.MustCompile(want.String()).MatchString(got)
}

// letshareCommand returns the real program, not started: this test binary in its other role, with
// that environment alone. It is killed when the test is over or has waited for far too long.
func letshareCommand(t *testing.T, dir string, env []string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // the longest stories, on a busy machine
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, testBinary(t), args...)
	cmd.Dir = dir
	cmd.Env = append([]string{roleEnv + "=letshare"}, env...)
	if runtime.GOOS == "windows" {
		cmd.Env = append(cmd.Env, "SYSTEMROOT="+os.Getenv("SYSTEMROOT")) // no sockets without it
	}
	return cmd
}

func testBinary(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0
}

// TestScriptsCanFail makes sure that the comparison of outputs is able to say no.
func TestScriptsCanFail(t *testing.T) {
	for _, c := range []struct {
		patterns []string
		got      string
		match    bool
	}{
		{nil, "", true},
		{nil, "x\n", false},
		{[]string{"a*c"}, "abc\n", true},
		{[]string{"a*c"}, "abd\n", false},
		{[]string{"a*c"}, "ab\nc\n", false},
		{[]string{"a", "...", "z"}, "a\nb\nc\nz\n", true},
		{[]string{"a", "...", "z"}, "a\nb\n", false},
		{[]string{"a.c"}, "abc\n", false},
	} {
		if got := outputMatches(c.patterns, c.got); got != c.match {
			t.Errorf("%q against %q: %t", c.got, c.patterns, got)
		}
	}
}

// servingProcess is the real program while it serves.
type servingProcess struct {
	cmd    *exec.Cmd
	url    string        // http://host:port/, from its first line
	banner *bufio.Reader // the rest of its standard output
	stderr *bytes.Buffer // complete after Wait
}

// startServing starts the program on a free port of loopback and waits for the first line of its banner.
func startServing(t *testing.T, dir string, env []string, args ...string) *servingProcess {
	t.Helper()
	env = append([]string{"LETSHARE_SERVER_HOST=127.0.0.1", "LETSHARE_SERVER_PORT=0"}, env...)
	return startCommand(t, letshareCommand(t, dir, env, args...))
}

// startCommand is startServing for a command that letshareCommand made. Its standard error may go elsewhere.
func startCommand(t *testing.T, cmd *exec.Cmd) *servingProcess {
	t.Helper()
	p := &servingProcess{cmd: cmd, stderr: new(bytes.Buffer)}
	if p.cmd.Stderr == nil {
		p.cmd.Stderr = p.stderr
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			p.cmd.Process.Kill()
			p.cmd.Wait()
		}
	})
	p.banner = bufio.NewReader(stdout)
	line, err := p.banner.ReadString('\n')
	url, ok := strings.CutPrefix(strings.TrimSpace(line), "letshare listens on ")
	if err != nil || !ok {
		p.cmd.Wait()
		t.Fatalf("first line %q (%v), standard error:\n%s", line, err, p.stderr)
	}
	p.url = url
	return p
}

// stop sends the signal and returns the exit code and what was left to read on standard output.
func (p *servingProcess) stop(t *testing.T, signal os.Signal) (exit int, rest string) {
	t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(p.banner)
	if err != nil {
		t.Fatal(err)
	}
	return exitCode(t, p.cmd.Wait()), string(text)
}

// TestServeTellsWhatToPasteAndStopsCleanly is a person's first minute: start, read, ask, stop.
func TestServeTellsWhatToPasteAndStopsCleanly(t *testing.T) {
	dir := t.TempDir()
	p := startServing(t, dir, nil)
	if code := exitCode(t, letshareCommand(t, dir, nil, "health", "-url", p.url).Run()); code != 0 {
		t.Errorf("letshare health -url %s: exit %d", p.url, code)
	}
	exit, rest := p.stop(t, syscall.SIGTERM)
	if exit != 0 {
		t.Errorf("exit %d after SIGTERM; standard error:\n%s", exit, p.stderr)
	}
	ws := "ws" + strings.TrimPrefix(p.url, "http")
	for _, want := range []string{"custom server URL   " + ws + "\n", "server mode         custom\n", "Ctrl+C"} {
		if !strings.Contains(rest, want) {
			t.Errorf("the banner lacks %q:\n%s", want, rest)
		}
	}
	token := regexp.MustCompile(`auth token +(\S+)`).FindStringSubmatch(rest)
	if token == nil {
		t.Fatalf("no token in the banner:\n%s", rest)
	}
	if code := exitCode(t, letshareCommand(t, dir, nil, "token", "-inspect", token[1]).Run()); code != 0 {
		t.Errorf("the printed token is refused: exit %d", code)
	}
	if strings.Contains(p.stderr.String(), token[1]) {
		t.Errorf("the token is in the log:\n%s", p.stderr)
	}
}

// TestProductionPrintsNoToken: what a production server prints ends in logs that many read.
func TestProductionPrintsNoToken(t *testing.T) {
	env := []string{"MODE=production", "LETSHARE_JWT_SECRET=0123456789abcdef0123456789abcdef"}
	p := startServing(t, t.TempDir(), env)
	if exit, rest := p.stop(t, syscall.SIGINT); exit != 0 || rest != "" {
		t.Errorf("exit %d, printed beside the address: %q", exit, rest)
	}
}

// TestAddressInUse: the line names the keys, the value and the fix.
func TestAddressInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	cmd := letshareCommand(t, t.TempDir(), []string{"LETSHARE_SERVER_PORT=" + port})
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if exit := exitCode(t, cmd.Run()); exit != 1 {
		t.Errorf("exit %d, want 1", exit)
	}
	if runtime.GOOS == "windows" {
		return // whose error has another number
	}
	want := `letshare: defaults and environment: server.host "127.0.0.1", server.port "` + port + `": address already in use; another program listens there; stop it, or set another server.port (LETSHARE_SERVER_PORT)`
	if stderr.String() != want+"\n" {
		t.Errorf("standard error is\n%s\nwant\n%s", &stderr, want)
	}
}

// TestWarningsOutliveKill: what a killed server warned of is there after the next start.
func TestWarningsOutliveKill(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "logs", "errors.log")
	// Production without metrics.token warns at start.
	env := []string{"MODE=production", "LETSHARE_JWT_SECRET=0123456789abcdef0123456789abcdef"}
	for round := 1; round <= 2; round++ {
		p := startServing(t, dir, env)
		waitForProcess(t, "the start's warning in "+path, func() bool { return len(readLogFile(t, path)) >= round })
		p.stop(t, os.Kill)
		lines := readLogFile(t, path)
		if len(lines) != round || !strings.Contains(lines[round-1], "metrics.token") {
			t.Fatalf("after start and kill number %d the file holds\n%s", round, strings.Join(lines, "\n"))
		}
	}
}

// TestSecondSignalEndsAtOnce: a program that does not end when asked can be ended by asking again.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	cmd := letshareCommand(t, t.TempDir(), nil)
	cmd.Env = []string{roleEnv + "=stubborn"}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(stdout)
	for _, want := range []string{"ready\n", "asked to end\n"} {
		if line, err := out.ReadString('\n'); line != want {
			t.Fatalf("printed %q (%v), want %q", line, err, want)
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	if exit := exitCode(t, cmd.Wait()); exit != 1 {
		t.Errorf("exit %d after the second signal, want 1", exit)
	}
}

// readLogFile returns the lines of an error log; none if there is no file.
func readLogFile(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
}

// waitForProcess waits until another process has done something.
func waitForProcess(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
