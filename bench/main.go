// Command bench measures a LetShare server: how much it holds, how fast it is, and what that costs.
// See -h, and docs/performance.md for what the scenarios are and what they gave.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

const help = `Usage:
  go run ./bench [flags]           load a server and say what it holds
  go run ./bench compare [flags]   our server beside two floors of plain TCP: exit 1 when a target is missed
  go run ./bench soak -h           and what else takes long: soak, frozen, hold, watch, warn

Without -url the bench builds the server of this source tree, starts it on a free port of 127.0.0.1 and stops it again.
Aim it at a server of your own only: it makes as much load as that can bear. For s3 such a server needs a
websocket.messages_per_second and message_burst far above the defaults. Exit 1: something was cut, lost or refused.

Scenarios:
  s1    idle connections, each subscribed, in rooms of 50: memory per connection
  s2    fan-out: 20 rooms of 50, messages of 300 bytes; closed loops, then an open loop at -rate
  s3    signalling: directed offers, answers and candidates between 50 pairs, in rooms of 50
  s4    churn: connect, upgrade, subscribe, close; 64 at once
  s5    a member that does not read, and what the others notice of it
  line  1,000 members behind a line of 3 Mbit/s that is half full
  relay files through the server, and what signalling notices of it; then one behind the line of 3 Mbit/s

Flags:
`

// What a user may ask for at most: the bench is bounded in count and time.
const (
	maxConnections = 18_000 // open files
	maxRate        = 100_000
	maxDuration    = 10 * time.Minute
)

type options struct {
	scenario, url, token, secret, config string
	server, against, againstToken        string
	insecure, json, tls, pin             bool
	duration                             time.Duration
	rounds, connections, rooms, members  int
	window, pid                          int
	rate                                 float64
}

var (
	errMissed = errors.New("a target is missed")
	errFaults = errors.New("faults were seen")
)

func main() {
	// The client's own garbage collector must not disturb what it measures.
	debug.SetGCPercent(400)
	switch err := run(os.Args[1:]); {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errMissed), errors.Is(err, errFaults): // the report has said it
		os.Exit(1)
	case errors.As(err, new(usageError)):
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type usageError string

func (e usageError) Error() string { return string(e) }

func run(args []string) error {
	if len(args) == 3 && args[0] == "floor" {
		return runFloor(args[1], args[2])
	}
	if len(args) > 0 && longRuns[args[0]] != nil {
		return runLong(args[0], args[1:])
	}
	compare := len(args) > 0 && args[0] == "compare"
	if compare {
		args = args[1:]
	}
	o, err := parse(args, compare)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "letshare-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if compare {
		return o.compare(dir)
	}
	return o.load(dir)
}

func parse(args []string, compare bool) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {} // a mistake is one line; only -h is answered with the help
	f.BoolVar(&o.json, "json", false, "print the report as JSON")
	f.BoolVar(&o.pin, "pin", true, "keep server and client on cores of their own (Linux, servers that the bench starts)")
	f.BoolVar(&o.tls, "tls", false, "measure the server with TLS in its own process (in compare: beside plain)")
	f.StringVar(&o.server, "server", "", "`command` that starts the server, instead of building it; {config}, {port} and {secret} are filled in")
	f.Float64Var(&o.rate, "rate", 400, "s2: messages per second of the open loop")
	f.IntVar(&o.connections, "connections", 10_000, "s1: how many")
	f.DurationVar(&o.duration, "duration", 3*time.Second, "of one measurement")
	if compare {
		f.IntVar(&o.rounds, "rounds", 3, "how often each figure is taken; the median counts")
		f.StringVar(&o.against, "against", "", "`command` that starts one more server that speaks the LetShare protocol; {port} and {secret} are filled in")
		f.StringVar(&o.againstToken, "against-token", "", "its token; without, one is signed with {secret}")
	} else {
		f.StringVar(&o.scenario, "scenario", "s1,s2,s3,s4,s5", "what to run, separated by commas, or all")
		f.StringVar(&o.url, "url", "", "`address` of a running server, as ws://host:port/ws")
		f.StringVar(&o.token, "token", "", "token for -url")
		f.StringVar(&o.secret, "secret", "", "jwt secret of -url's server, to sign a token with")
		f.StringVar(&o.config, "config", "", "`file` of -url's server, to take the jwt secret from")
		f.BoolVar(&o.insecure, "insecure", false, "accept any certificate of -url's server")
		f.IntVar(&o.pid, "pid", 0, "process id of -url's server, when it runs on this machine: for CPU and memory")
		f.IntVar(&o.rooms, "rooms", 20, "s2: rooms")
		f.IntVar(&o.members, "members", 50, "s2: members of each room")
		f.IntVar(&o.window, "window", 4, "s2: messages in flight per room in the first closed loop; the second has 1")
	}
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		f.SetOutput(os.Stdout)
		fmt.Print(help)
		f.PrintDefaults()
		return nil, err
	case err != nil:
		return nil, usageError(err.Error())
	}
	if f.NArg() > 0 {
		return nil, usageError(fmt.Sprintf("unknown argument %q; -h shows what there is", f.Arg(0)))
	}
	return o, o.check(compare)
}

// check bounds what was asked for.
func (o *options) check(compare bool) error {
	switch {
	case o.connections < 1 || o.connections > maxConnections:
		return usageError(fmt.Sprintf("-connections: 1 to %d", maxConnections))
	case o.rate <= 0 || o.rate > maxRate:
		return usageError(fmt.Sprintf("-rate: up to %d", maxRate))
	case o.duration < 100*time.Millisecond || o.duration > maxDuration:
		return usageError(fmt.Sprintf("-duration: 100ms to %s", maxDuration))
	case compare && (o.rounds < 1 || o.rounds > 20):
		return usageError("-rounds: 1 to 20")
	case compare:
		return nil
	case o.rooms < 1 || o.members < 2 || o.rooms*o.members > maxConnections || o.members > 1000:
		return usageError(fmt.Sprintf("-rooms times -members: up to %d, at most 1000 members to a room", maxConnections))
	case o.window < 1 || o.window > maxWindow:
		return usageError(fmt.Sprintf("-window: 1 to %d", maxWindow))
	}
	return nil
}

// cores divides the machine: the server gets its last core, the client the others. ok is false on a single core.
func (o *options) cores() (server, client []int, ok bool) {
	all := allowedCPUs()
	if !o.pin || len(all) < 2 {
		return nil, nil, false
	}
	return all[len(all)-1:], all[:len(all)-1], true
}

// launcher prepares our own server.
func (o *options) launcher(dir string, cpus []int) (*launcher, error) {
	if o.server != "" {
		return &launcher{name: "server", command: o.server, path: "/ws", dir: dir, cpus: cpus}, nil
	}
	progress("building the server")
	return buildServer(dir, cpus)
}

func (o *options) compare(dir string) error {
	serverCPUs, clientCPUs, pinned := o.cores()
	ours, err := o.launcher(dir, serverCPUs)
	if err != nil {
		return err
	}
	c := &comparison{report: newReport(pinned), servers: []*launcher{ours}, cpus: serverCPUs, rounds: o.rounds, each: o.duration, rate: o.rate,
		idle: idleSteps(o.connections)}
	if o.tls {
		withTLS := *ours
		withTLS.name, withTLS.tls = ours.name+"+tls", true
		c.servers = append(c.servers, &withTLS)
	}
	if o.against != "" {
		c.servers = append(c.servers, &launcher{name: "against", command: o.against, token: o.againstToken, path: "/ws", dir: dir, cpus: serverCPUs})
	}
	if pinned {
		if err := pinSelf(clientCPUs); err != nil {
			return fmt.Errorf("pinning the client: %w", err)
		}
	}
	met, err := c.run()
	if err != nil {
		return err
	}
	if err := c.report.write(os.Stdout, o.json); err != nil {
		return err
	}
	if !met {
		return errMissed
	}
	return nil
}

// idleSteps are the numbers of connections at which S1 looks at the memory.
func idleSteps(most int) (steps []int) {
	for _, n := range []int{1000, 2000} {
		if n < most {
			steps = append(steps, n)
		}
	}
	return append(steps, most)
}

func (o *options) load(dir string) error {
	names := strings.Split(strings.ToLower(o.scenario), ",")
	if o.scenario == "all" {
		names = []string{"s1", "s2", "s3", "s4", "s5", "line", "relay"}
	}
	for _, name := range names {
		if !slices.Contains([]string{"s1", "s2", "s3", "s4", "s5", "line", "relay"}, name) {
			return usageError(fmt.Sprintf("-scenario %q: s1, s2, s3, s4, s5, line, relay or all", name))
		}
	}
	start, pinned, err := o.loadTarget(dir)
	if err != nil {
		return err
	}
	r := newReport(pinned)
	for _, name := range names {
		t, stop, err := start()
		if err != nil {
			return err
		}
		err = o.scenarioOn(name, t, r)
		stop()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := r.write(os.Stdout, o.json); err != nil {
		return err
	}
	if slices.ContainsFunc(r.Results, func(x result) bool { return x.Faults.any() }) {
		return errFaults
	}
	return nil
}

// loadTarget returns how to get a server for one scenario: -url's, or one of our own, fresh each time.
func (o *options) loadTarget(dir string) (start func() (*target, func(), error), pinned bool, err error) {
	if o.url != "" {
		t, err := o.remote()
		return func() (*target, func(), error) { return t, func() {}, nil }, false, err
	}
	serverCPUs, clientCPUs, pinned := o.cores()
	ours, err := o.launcher(dir, serverCPUs)
	if err != nil {
		return nil, false, err
	}
	ours.tls = o.tls
	if pinned {
		if err := pinSelf(clientCPUs); err != nil {
			return nil, false, fmt.Errorf("pinning the client: %w", err)
		}
	}
	return func() (*target, func(), error) {
		p, err := ours.start()
		if err != nil {
			return nil, nil, err
		}
		return p.target, p.stop, nil
	}, pinned, nil
}

// remote makes the target of -url.
func (o *options) remote() (*target, error) {
	token, err := o.remoteToken()
	if err != nil {
		return nil, err
	}
	t, err := parseTarget("server", o.url, token, o.insecure)
	if err != nil {
		return nil, usageError(err.Error())
	}
	t.pid = o.pid
	if u, _ := url.Parse(o.url); u != nil {
		t.name = u.Host
		if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
			progress("aiming at %s: only load a server that is yours", u.Host)
		}
	}
	return t, nil
}

func (o *options) remoteToken() (string, error) {
	if o.token != "" {
		return o.token, nil
	}
	secret := o.secret
	if o.config != "" && secret == "" {
		text, err := os.ReadFile(o.config)
		if err != nil {
			return "", err
		}
		var c struct{ JWT struct{ Secret string } }
		if err := json.Unmarshal(text, &c); err != nil {
			return "", fmt.Errorf("%s: %w", o.config, err)
		}
		secret = c.JWT.Secret
	}
	if secret == "" {
		secret = os.Getenv("LETSHARE_JWT_SECRET")
	}
	if secret == "" {
		return "", usageError("-url needs -token, or -secret or -config to sign one")
	}
	return mint(secret), nil
}

// scenarioOn runs one scenario against t.
func (o *options) scenarioOn(name string, t *target, r *report) error {
	switch name {
	case "s1":
		results, err := idle(t, idleSteps(o.connections))
		for _, res := range results {
			r.add(res)
		}
		return err
	case "s2":
		s, err := newFanout(t, shape{rooms: o.rooms, members: o.members}, fanoutBytes)
		if err != nil {
			return err
		}
		defer s.fleet.close()
		r.add(s.closedLoop(o.window, o.duration))
		r.add(s.closedLoop(1, o.duration))
		res, err := s.openLoop(o.rate, o.duration)
		if err != nil {
			return err
		}
		r.add(res)
	case "s3":
		s, err := newSignalling(t, signallingRooms)
		if err != nil {
			return err
		}
		defer s.fleet.close()
		r.add(s.run(o.duration))
	case "s4":
		r.add(churn(t, o.duration))
	case "s5":
		res, err := slowMember(t, max(o.duration, 8*time.Second))
		if err != nil {
			return err
		}
		r.add(res)
	case "line":
		res, err := behindLine(t, max(o.duration, 15*time.Second))
		if err != nil {
			return err
		}
		r.add(res)
	case "relay":
		res, err := relaying(t, o.duration)
		if err != nil {
			return err
		}
		r.add(res)
		if res, err = relayBehindLine(t); err != nil {
			return err
		}
		r.add(res)
	}
	return nil
}
