package main

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// roleEnv names the environment variable that makes the test binary something else than the tests.
// It has not the program's prefix, for the program may refuse variables it does not know.
const roleEnv = "TEST_BINARY_ROLE"

// TestMain runs the tests, or the part the environment gives this process: the real program, so that
// tests see real exit codes, signals and kills. Afterwards no goroutine of the tests may be left.
func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "letshare":
		main()
	case "stubborn": // is asked to end, and does not
		ctx := untilSignal()
		fmt.Println("ready")
		<-ctx.Done()
		fmt.Println("asked to end")
		select {}
	case "errlog":
		writeErrorLogForever(os.Args[1])
	case "clients":
		holdConnections(os.Args[1:])
	}
	code := m.Run()
	if code == 0 && !fuzzing() {
		if stacks := leakedGoroutines(2 * time.Second); stacks != "" {
			fmt.Fprintf(os.Stderr, "goroutines that nobody waited for:\n\n%s\n", stacks)
			code = 1
		}
	}
	os.Exit(code)
}

// fuzzing tells whether this process is a fuzz run or one of its workers, which keep goroutines of their own.
func fuzzing() bool {
	for _, name := range []string{"test.fuzz", "test.fuzzworker"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" && f.Value.String() != "false" {
			return true
		}
	}
	return false
}

// leakedGoroutines waits until only this goroutine is left and returns "", or the stacks of the
// others when patience is over.
func leakedGoroutines(patience time.Duration) string {
	http.DefaultClient.CloseIdleConnections() // its idle connections are the package's, not a test's
	var leaked string
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		leaked = otherStacks()
		if leaked == "" || time.Now().After(deadline) {
			return leaked
		}
	}
}

// otherStacks returns the stacks of all goroutines but the calling one and those of the standard
// library that live as long as the process.
func otherStacks() string {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var others []string
	for i, stack := range strings.Split(string(bytes.TrimSpace(buf)), "\n\n") {
		if i == 0 || strings.Contains(stack, "os/signal.loop") || strings.Contains(stack, "testing.(*M).startAlarm") {
			continue
		}
		others = append(others, stack)
	}
	return strings.Join(others, "\n\n")
}

// TestLeakCheckSeesALeak makes sure that the check after all tests is able to fail.
func TestLeakCheckSeesALeak(t *testing.T) {
	begun, release, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go forgottenGoroutine(begun, release, done)
	<-begun // before, its stack does not show what it is
	stacks := otherStacks()
	close(release)
	<-done
	if !strings.Contains(stacks, "forgottenGoroutine") {
		t.Errorf("a goroutine that waits is not among the leaked:\n%s", stacks)
	}
}

func forgottenGoroutine(begun, release, done chan struct{}) {
	defer close(done)
	close(begun)
	<-release
}
