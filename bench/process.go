package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// startTimeout bounds building aside: how long a server may take until it answers.
const startTimeout = 15 * time.Second

// process is a server that the bench started and will stop.
type process struct {
	*target
	cmd  *exec.Cmd
	done chan struct{} // closed when it has exited
	tail *tailWriter   // the end of what it printed
}

// usage is what a piece of load cost.
type usage struct {
	wall         time.Duration
	user, system time.Duration // of the server; 0 when it is not on this machine
	self         time.Duration // of this process
}

func (u usage) cpu() time.Duration { return u.user + u.system }

// startMeter begins to measure the server pid (0: unknown) and this process; the returned function ends it.
func startMeter(pid int) func() usage {
	start := time.Now()
	user, system := cpuTimes(pid)
	self := selfCPU()
	return func() usage {
		u2, s2 := cpuTimes(pid)
		return usage{time.Since(start), u2 - user, s2 - system, selfCPU() - self}
	}
}

// runProcess starts argv on the cores of cpus (nil: all) and returns at once.
func runProcess(argv []string, dir string, cpus []int) (*process, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = cleanEnv(os.Environ())
	tail := &tailWriter{}
	cmd.Stdout, cmd.Stderr = tail, tail
	if err := startPinned(cmd, cpus); err != nil {
		return nil, fmt.Errorf("starting %s: %w", argv[0], err)
	}
	p := &process{cmd: cmd, done: make(chan struct{}), tail: tail}
	go func() {
		cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// cleanEnv drops what would configure the server behind the bench's back.
func cleanEnv(env []string) (clean []string) {
	for _, kv := range env {
		if !strings.HasPrefix(kv, "LETSHARE_") && !strings.HasPrefix(kv, "MODE=") {
			clean = append(clean, kv)
		}
	}
	return clean
}

// stop ends the process and waits for it: politely first, after 6 s not.
func (p *process) stop() {
	p.cmd.Process.Signal(os.Interrupt)
	select {
	case <-p.done:
	case <-time.After(6 * time.Second):
		p.cmd.Process.Kill()
		<-p.done
	}
}

// awaitPort waits until the target's address accepts a connection.
func (p *process) awaitPort() error {
	for end := time.Now().Add(startTimeout); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		select {
		case <-p.done:
			return fmt.Errorf("%s ended at once: %s", p.name, p.tail)
		default:
		}
		if conn, err := net.Dial("tcp", p.addr); err == nil {
			conn.Close()
			return nil
		}
	}
	return fmt.Errorf("%s does not listen after %s: %s", p.name, startTimeout, p.tail)
}

// startFloor runs this program's own floor of the given kind as a process.
func startFloor(kind string, cpus []int) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	addr := net.JoinHostPort("127.0.0.1", port)
	p, err := runProcess([]string{exe, "floor", kind, addr}, "", cpus)
	if err != nil {
		return nil, err
	}
	p.target = &target{name: "floor: " + kind, wire: lengthPrefix, addr: addr, pid: p.cmd.Process.Pid, spread: runtime.GOOS == "linux"}
	if kind == floorHandshake {
		p.target.wire, p.target.host, p.target.path = webSocket, addr, "/"
	}
	if err := p.awaitPort(); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// launcher knows how to start a LetShare server, afresh for each scenario that needs one.
type launcher struct {
	name    string
	command string // for sh -c; {port}, {secret} and {config} are filled in
	token   string // "" to mint one with the secret
	path    string
	tls     bool
	dir     string // for configuration, certificates and the built binary
	cpus    []int
	binary  string // "" when command is not ours
}

// buildServer compiles the server of the module that the working directory is in, with flags for go build.
func buildServer(dir string, cpus []int, flags ...string) (*launcher, error) {
	mod, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return nil, fmt.Errorf("finding the module: %w (run the bench in the source tree, or use -url or -server)", err)
	}
	binary := filepath.Join(dir, "letshare")
	build := exec.Command("go", append(append([]string{"build"}, flags...), "-o", binary, ".")...)
	build.Dir = strings.TrimSpace(string(mod))
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the server: %w\n%s", err, out)
	}
	return &launcher{name: "letshare", command: "'" + binary + "' -config {config}", path: "/ws", dir: dir, cpus: cpus, binary: binary}, nil
}

// start runs the server and waits until it is healthy.
func (l *launcher) start() (*process, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	secret := rand.Text() + rand.Text()
	config := filepath.Join(l.dir, "config-"+port+".json")
	if err := l.writeConfig(config, port, secret); err != nil {
		return nil, err
	}
	command := strings.NewReplacer("{port}", port, "{secret}", secret, "{config}", "'"+config+"'").Replace(l.command)
	p, err := runProcess([]string{"sh", "-c", "exec " + command}, l.dir, l.cpus)
	if err != nil {
		return nil, err
	}
	scheme, token := "ws", l.token
	if l.tls {
		scheme = "wss"
	}
	if token == "" {
		token = mint(secret)
	}
	p.target, err = parseTarget(l.name, scheme+"://127.0.0.1:"+port+l.path, token, true)
	if err == nil {
		p.pid = p.cmd.Process.Pid
		err = p.awaitPort()
	}
	if err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// writeConfig writes the server's configuration: every feature on, the limits of rate so high that the load passes.
func (l *launcher) writeConfig(file, port, secret string) error {
	server := map[string]any{"host": "127.0.0.1", "port": port}
	if l.tls {
		server["tls_cert"], server["tls_key"] = filepath.Join(l.dir, "cert.pem"), filepath.Join(l.dir, "key.pem")
		if err := writeCertificate(l.dir); err != nil {
			return err
		}
	}
	text, err := json.MarshalIndent(map[string]any{
		"mode":   "local",
		"server": server,
		"jwt":    map[string]any{"secret": secret},
		"log":    map[string]any{"level": "warn", "file": ""},
		"websocket": map[string]any{
			"max_room_users": 64, "max_connections": 20000,
			"messages_per_second": 1_000_000, "message_burst": 2_000_000,
			"bytes_per_second": 1_000_000_000, "bytes_burst": 1_000_000_000,
		},
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

// writeCertificate puts a self-signed certificate for 127.0.0.1 into dir.
func writeCertificate(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	form := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "letshare bench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600),
		os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
}

// freePort returns a loopback port that nothing listens on at the moment.
func freePort() (string, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// serverMemory is what /metrics says of the server's own memory, in bytes.
type serverMemory struct {
	live  float64 // live heap, or where the server does not tell it, the allocated one
	stack float64
	known bool
}

// askMemory reads /metrics. A server without it, or one that wants a token, leaves known false.
func askMemory(t *target) (m serverMemory) {
	var body struct {
		System struct {
			Memory map[string]float64 `json:"memory"`
		} `json:"system"`
	}
	if !askMetrics(t, &body) {
		return m
	}
	mem := body.System.Memory
	heap, ok := mem["heap_live_bytes"]
	if !ok {
		heap, ok = mem["heap_alloc_mb"]
		heap *= 1 << 20
	}
	stack, ok2 := mem["stack_bytes"]
	if !ok2 {
		stack, ok2 = mem["stack_mb"]
		stack *= 1 << 20
	}
	return serverMemory{heap, stack, ok && ok2}
}

// askCloses reads how many connections /metrics counts as closed for reason.
func askCloses(t *target, reason string) (n float64, known bool) {
	var body struct {
		Closes map[string]float64 `json:"closes"`
	}
	known = askMetrics(t, &body) && body.Closes != nil
	return body.Closes[reason], known
}

func askMetrics(t *target, into any) bool {
	if t.metrics == "" {
		return false
	}
	resp, err := httpClient(t).Get(t.metrics)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return err == nil && resp.StatusCode == 200 && json.Unmarshal(text, into) == nil
}
