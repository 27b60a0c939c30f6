package main

import (
	"flag"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// version and commit are set when a release is built: -ldflags "-X main.version=1.2.3 -X main.commit=…".
// Without commit, the one that the go command noted in the binary counts.
var (
	version = "dev"
	commit  = ""
)

const versionHelp = `letshare version prints the version, the commit it was built from and the Go version.

Usage:
  letshare version

Flags:
  -h   print this help
`

// runVersion is `letshare version`.
func runVersion(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("letshare version", flag.ContinueOnError)
	if exit, done := parseCommand(flags, args, versionHelp, stdout, stderr); done {
		return exit
	}
	fmt.Fprintf(stdout, "letshare %s, commit %s, %s %s/%s\n", version, builtFrom(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return 0
}

// builtFrom returns the commit this binary was built from, marked if the work tree had changes, or "unknown".
func builtFrom() string {
	if commit != "" {
		return commit
	}
	revision, changed := "unknown", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			switch {
			case setting.Key == "vcs.revision":
				revision = setting.Value
			case setting.Key == "vcs.modified" && setting.Value == "true":
				changed = " with changes"
			}
		}
	}
	return revision + changed
}
