package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// parseFlags parses the command line of one subcommand. Unlike flag alone it lets flags stand before, between and
// after positional arguments, which it returns; everything behind a "--" is positional.
//
// When done is true the command has nothing left to do but to end with exit: -h or -help printed help to stdout
// (exit 0), or a mistake was reported on stderr as one line that begins with the name of fs (exit 2).
func parseFlags(fs *flag.FlagSet, args []string, help string, stdout, stderr io.Writer) (positional []string, exit int, done bool) {
	fs.Init(fs.Name(), flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	for {
		err := fs.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(stdout, strings.TrimRight(help, "\n")+"\n")
			return nil, 0, true
		}
		if err != nil {
			return nil, usageError(stderr, fs.Name(), err.Error()), true
		}
		rest := fs.Args()
		if parsed := len(args) - len(rest); parsed > 0 && args[parsed-1] == "--" {
			return append(positional, rest...), 0, false
		}
		if len(rest) == 0 {
			return positional, 0, false
		}
		positional, args = append(positional, rest[0]), rest[1:]
	}
}

// usageError reports a mistake on the command line as the one line it must be, and returns the exit code of such mistakes.
func usageError(stderr io.Writer, command, text string) int {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r < ' ' }), " ")
	fmt.Fprintf(stderr, "%s: %s (%s -h shows how)\n", command, text, command)
	return 2
}
