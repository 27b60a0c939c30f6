package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const serveHelp = `letshare serves the LetShare app: it introduces browsers to each other over WebSocket.

Usage:
  letshare [-config FILE]      serve until SIGTERM or Ctrl+C
  letshare COMMAND [flags]

Commands:
  token     mint a token for a user, or tell what is wrong with one
  check     validate the configuration and print what is in force
  health    ask a running server whether it is healthy
  doctor    look at a server from outside, and say what is wrong
  version   print version, commit and Go version

Flags:
  -config FILE   the configuration; without it, defaults and the environment
  -h             print this help; "letshare COMMAND -h" prints a command's own

Any key of the configuration can be set in the environment: server.port is
LETSHARE_SERVER_PORT. SIGHUP reads the configuration again; a second SIGTERM or
Ctrl+C ends at once.
Exit code: 0 after a clean stop, 1 after a failure, 2 for a wrong command line.
`

const checkHelp = `letshare check validates a configuration and prints what is in force, secrets hidden.

Usage:
  letshare check [-config FILE]

Flags:
  -config FILE   the configuration; without it, defaults and the environment
  -h             print this help

Exit code: 0 if a server would start with it, 1 if not, 2 for a wrong command line.
`

// main prints and exits; run does the work.
func main() {
	os.Exit(run(untilSignal(), os.Args[1:], os.Stdout, os.Stderr, os.Getenv))
}

// untilSignal returns a context that the first SIGTERM or SIGINT ends. The second one does not ask:
// it ends the process with exit code 1. For main alone.
func untilSignal() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-signals
		cancel()
		<-signals
		os.Exit(1)
	}()
	return ctx
}

// run is the whole program: it carries out the command line args (without the program's name) until
// it is done or ctx is, and returns the exit code: 0, 1 for a failure, 2 for a wrong command line.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, getenv func(string) string) int {
	command, given, args := splitCommand(args)
	if !given {
		return runServe(ctx, args, stdout, stderr, getenv)
	}
	switch command {
	case "token":
		return runToken(args, stdout, stderr, getenv)
	case "check":
		return runCheck(args, stdout, stderr, getenv)
	case "health":
		return runHealth(ctx, args, stdout, stderr, getenv)
	case "doctor":
		return runDoctor(ctx, args, stdout, stderr)
	case "version":
		return runVersion(args, stdout, stderr)
	}
	return usageError(stderr, "letshare", "unknown command"+quoteShort(command))
}

// splitCommand takes the subcommand out of a command line, if one is given, and returns it with the
// rest in order. -config may stand before it, so that one command line serves every subcommand.
func splitCommand(args []string) (command string, given bool, rest []string) {
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "--":
			return "", false, args
		case arg == "-config" || arg == "--config":
			i++
		case !strings.HasPrefix(arg, "-"):
			return arg, true, append(args[:i:i], args[i+1:]...)
		}
	}
	return "", false, args
}

// parseCommand parses the flags of a subcommand that takes no arguments beside them.
func parseCommand(flags *flag.FlagSet, args []string, help string, stdout, stderr io.Writer) (exit int, done bool) {
	positional, exit, done := parseFlags(flags, args, help, stdout, stderr)
	if !done && len(positional) > 0 {
		return usageError(stderr, flags.Name(), "unexpected argument"+quoteShort(positional[0])), true
	}
	return exit, done
}

// quoteShort returns a misplaced word of the command line for an error text, or nothing if it is so
// long that it may be a token.
func quoteShort(word string) string {
	if len(word) > maxQuotedWord {
		return ""
	}
	return fmt.Sprintf(" %q", word)
}

// fail reports an error as the one line it must be and returns the exit code of failures.
func fail(stderr io.Writer, err error) int {
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' })
	fmt.Fprintf(stderr, "letshare: %s\n", strings.Join(lines, "; "))
	return 1
}

// runCheck is `letshare check`.
func runCheck(args []string, stdout, stderr io.Writer, getenv func(string) string) int {
	flags := flag.NewFlagSet("letshare check", flag.ContinueOnError)
	path := flags.String("config", "", "")
	if exit, done := parseCommand(flags, args, checkHelp, stdout, stderr); done {
		return exit
	}
	cfg, err := LoadConfig(*path, getenv)
	if err != nil {
		return fail(stderr, err)
	}
	cfg.Print(stdout)
	for _, warning := range cfg.Warnings() {
		fmt.Fprintf(stderr, "letshare: warning: %s\n", warning)
	}
	return 0
}

// runServe is `letshare` without a subcommand: it serves until ctx is done and the clients have been sent away.
func runServe(ctx context.Context, args []string, stdout, stderr io.Writer, getenv func(string) string) int {
	flags := flag.NewFlagSet("letshare", flag.ContinueOnError)
	path := flags.String("config", "", "")
	if exit, done := parseCommand(flags, args, serveHelp, stdout, stderr); done {
		return exit
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP) // early: it would end a program that does not expect it
	defer signal.Stop(hangups)
	cfg, err := LoadConfig(*path, getenv)
	if err != nil {
		return fail(stderr, err)
	}
	tuneMemory(getenv)
	level := new(slog.LevelVar)
	level.Set(logLevel(cfg.Log.Level))
	errlog := NewErrorLog(cfg.Log.File, cfg.Log.MaxEntries, logHandler(stderr, level))
	defer errlog.Close()
	log := slog.New(errlog)

	openFiles, limitErr := raiseOpenFileLimit()
	srv, err := openServer(cfg, log, int(min(openFiles, math.MaxInt32)), getenv)
	if err != nil {
		return fail(stderr, fmt.Errorf("%s: %w", cmp.Or(*path, "defaults and environment"), err))
	}
	log.Info("letshare listens", "address", srv.Addr(), "mode", cfg.Mode, "version", version, "open_files", openFiles)
	if limitErr != nil {
		log.Warn("the limit of open files could not be raised", "limit", openFiles, "error", limitErr)
	}
	for _, warning := range cfg.Warnings() {
		log.Warn(warning)
	}
	if err := printBanner(stdout, cfg, srv.URL(), time.Now()); err != nil {
		log.Error("the address and token could not be printed", "error", err)
	}
	reload := func() {
		srv.notify.reloading()
		defer srv.notify.ready()
		fresh, err := LoadConfig(*path, getenv)
		if err == nil {
			err = srv.Reload(fresh)
		}
		if err != nil {
			log.Error("the configuration was not reloaded; the old one stays in force", "error", err)
			return
		}
		level.Set(logLevel(fresh.Log.Level))
		for _, warning := range fresh.Warnings() {
			log.Warn(warning)
		}
	}
	stopReloads := repeat(hangups, reload)
	defer stopReloads()
	if err := srv.Run(ctx); err != nil {
		log.Error("the server failed", "error", err)
		return 1
	}
	return 0
}

// openServer makes the server on the socket that systemd hands over, or on the address of the configuration.
func openServer(cfg *Config, log *slog.Logger, openFiles int, getenv func(string) string) (*Server, error) {
	inherited, err := inheritListener(getenv)
	if err != nil {
		return nil, err
	}
	var srv *Server
	if inherited == nil {
		srv, err = NewServer(cfg, log, openFiles)
	} else if srv, err = newServer(cfg, log, openFiles, inherited); err != nil {
		inherited.Close()
	}
	if err != nil {
		return nil, err
	}
	srv.inherited, srv.notify = inherited != nil, newNotifier(getenv)
	return srv, nil
}

// repeat calls act for every signal until stop is called, which waits for it.
func repeat(signals <-chan os.Signal, act func()) (stop func()) {
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-signals:
				act()
			case <-ended:
				return
			}
		}
	}()
	return func() { close(ended); <-done }
}

// logLevel is the level that the configuration names.
func logLevel(name string) slog.Level {
	switch name {
	case "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	return slog.LevelInfo
}

// logHandler returns the handler that writes the log from a level on: text for a person at a terminal, JSON for
// everything that collects logs.
func logHandler(w io.Writer, level slog.Leveler) slog.Handler {
	options := &slog.HandlerOptions{Level: level}
	if isTerminal(w) {
		return slog.NewTextHandler(w, options)
	}
	return slog.NewJSONHandler(w, options)
}

// isTerminal tells whether w is a character device, which for a program's output means a terminal.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&fs.ModeCharDevice != 0
}
