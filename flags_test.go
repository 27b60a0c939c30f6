package main

import (
	"flag"
	"slices"
	"strings"
	"testing"
)

func TestFlagsStandBeforeAndAfterArguments(t *testing.T) {
	for _, row := range []struct {
		args       string
		positional string
		name       string
		loud       bool
		exit       int
		done       bool
		stdout     string
		stderr     string
	}{
		{args: ""},
		{args: "a b", positional: "a b"},
		{args: "-name x -loud", name: "x", loud: true},
		{args: "-loud a -name x b", positional: "a b", name: "x", loud: true},
		{args: "a -loud -- -name b", positional: "a -name b", loud: true},
		{args: "-- -h", positional: "-h"},
		{args: "-", positional: "-"},
		{args: "-h", done: true, stdout: "the help\n"},
		{args: "a -loud --help", loud: true, done: true, stdout: "the help\n"},
		{args: "-none", exit: 2, done: true, stderr: "cmd: flag provided but not defined: -none (cmd -h shows how)\n"},
		{args: "a -name", exit: 2, done: true, stderr: "cmd: flag needs an argument: -name (cmd -h shows how)\n"},
		{args: "-loud=maybe", loud: false, exit: 2, done: true, stderr: "cmd: invalid boolean value \"maybe\" for -loud: parse error (cmd -h shows how)\n"},
		{args: "-two\nlines\x01here", exit: 2, done: true, stderr: "cmd: flag provided but not defined: -two lines here (cmd -h shows how)\n"},
	} {
		t.Run(row.args, func(t *testing.T) {
			fs := flag.NewFlagSet("cmd", flag.ContinueOnError)
			name, loud := fs.String("name", "", ""), fs.Bool("loud", false, "")
			var stdout, stderr strings.Builder
			positional, exit, done := parseFlags(fs, strings.FieldsFunc(row.args, func(r rune) bool { return r == ' ' }), "the help\n\n", &stdout, &stderr)
			if !slices.Equal(positional, strings.Fields(row.positional)) || *name != row.name || *loud != row.loud {
				t.Errorf("positional %q, name %q, loud %t", positional, *name, *loud)
			}
			if exit != row.exit || done != row.done || stdout.String() != row.stdout || stderr.String() != row.stderr {
				t.Errorf("exit %d, done %t, stdout %q, stderr %q", exit, done, stdout.String(), stderr.String())
			}
		})
	}
}
