package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"
)

const longHelp = `Usage:
  go run ./bench soak -minutes 2       everything at once, well and badly behaved, against a server with the race detector
  go run ./bench frozen                25 of 50 members of a room freeze; the others must not notice
  go run ./bench hold -minutes 10      idle connections: flat memory, all cut at once, and once more
  go run ./bench watch -url …          two rooms that talk on a running server, and notice whatever goes wrong
  go run ./bench warn -url …           refused tokens on a running server, each a line in its error log
  go run ./bench crowd -url …          many connections at once on a running server, and how many it takes
  go run ./bench press -url …          unfinished messages and frozen readers on a running server: memory

The first three build and start a server of their own. Exit 1: something was lost, left behind or not as promised.
`

// The subcommands that take long. Each returns errFaults when it saw something that must not be.
var longRuns = map[string]func(o *longOptions) error{
	"soak":   func(o *longOptions) error { return runSoak(o.minutes, o.race) },
	"frozen": func(*longOptions) error { return runFrozen() },
	"hold":   func(o *longOptions) error { return runHold(o.connections, minutes(o.minutes)) },
	"watch":  func(o *longOptions) error { return runWatch(o, minutes(o.minutes)) },
	"warn":   func(o *longOptions) error { return runWarn(o, minutes(o.minutes)) },
	"crowd":  func(o *longOptions) error { return runCrowd(o, minutes(o.minutes)) },
	"press":  func(o *longOptions) error { return runPress(o, minutes(o.minutes)) },
}

type longOptions struct {
	minutes     float64
	connections int
	race        bool
	url, token  string
	until       string
	quiet       bool
}

// target is the running server that was named.
func (o *longOptions) target() (*target, error) {
	t, err := parseTarget("server", o.url, o.token, true)
	if err != nil {
		return nil, usageError(err.Error())
	}
	return t, nil
}

func minutes(n float64) time.Duration { return time.Duration(n * float64(time.Minute)) }

// runLong parses a long subcommand's flags and runs it.
func runLong(name string, args []string) error {
	o := &longOptions{}
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	f.Float64Var(&o.minutes, "minutes", 1, "how long; hold: the first of the two holds")
	switch name {
	case "soak":
		f.BoolVar(&o.race, "race", true, "build the server with the race detector")
	case "hold":
		f.IntVar(&o.connections, "connections", 10_000, "how many")
	case "watch", "warn", "crowd", "press":
		f.IntVar(&o.connections, "connections", 100, "crowd, press: how many")
		f.BoolVar(&o.quiet, "quiet", false, "watch: each member says one thing, and from then on only answers pings")
		f.StringVar(&o.until, "until", "", "watch, crowd: end early when this `file` is there")
		f.StringVar(&o.url, "url", "", "`address` of the server, as ws://host:port/ws")
		f.StringVar(&o.token, "token", "", "token for it")
	}
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		f.SetOutput(os.Stdout)
		fmt.Print(longHelp, "\nFlags of ", name, ":\n")
		f.PrintDefaults()
		return err
	case err != nil:
		return usageError(err.Error())
	case f.NArg() > 0:
		return usageError(fmt.Sprintf("unknown argument %q; -h shows what there is", f.Arg(0)))
	case o.minutes <= 0 || minutes(o.minutes) > maxSoak:
		return usageError(fmt.Sprintf("-minutes: up to %d", int(maxSoak.Minutes())))
	case name != "soak" && name != "frozen" && (o.connections < idleMembers || o.connections > maxConnections):
		return usageError(fmt.Sprintf("-connections: %d to %d", idleMembers, maxConnections))
	}
	return longRuns[name](o)
}
