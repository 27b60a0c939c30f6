package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	stdlog "log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// examine lets a doctor look at a server, after change has prepared the doctor.
func examine(t *testing.T, target, token, page string, idle time.Duration, change func(*doctor)) (exit int, said string) {
	t.Helper()
	var out bytes.Buffer
	d, err := newDoctor(target, token, page, idle, &out)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(d)
	}
	exit = d.examine(t.Context())
	if token != "" && strings.Contains(out.String(), token) {
		t.Errorf("the doctor shows the token:\n%s", &out)
	}
	return exit, out.String()
}

// wantFinding wants one line of a kind and step with all the words in it.
func wantFinding(t *testing.T, said, kind, step string, words ...string) {
	t.Helper()
	for line := range strings.Lines(said) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[0] == kind && fields[1] == step {
			found := true
			for _, word := range words {
				found = found && strings.Contains(line, word)
			}
			if found {
				return
			}
		}
	}
	t.Errorf("no %s of %s says %q:\n%s", kind, step, words, said)
}

// TestDoctorFindsAHealthyServerHealthy, with whatever spelling of the URL.
func TestDoctorFindsAHealthyServerHealthy(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(cfg *Config) {
		cfg.WebSocket.PingIntervalSeconds, cfg.WebSocket.IdleTimeoutSeconds = 0.3, 1.6
	})
	token := s.token(t, Claims{UserID: "alice"})
	for _, target := range []string{"http://" + s.addr, "ws://" + s.addr + "/", "ws://" + s.addr + "/ws?userId=alice", "http://" + s.addr + "/ws/"} {
		// The silence is longer than what the server bears without answers to its pings.
		idle := 2200 * time.Millisecond
		if target != "http://"+s.addr {
			idle = 0
		}
		exit, said := examine(t, target, token, "http://"+s.addr, idle, nil)
		if exit != 0 {
			t.Errorf("%s: exit %d", target, exit)
		}
		wantFinding(t, said, "skip", "dns", "127.0.0.1 is an address")
		wantFinding(t, said, "ok", "health")
		wantFinding(t, said, "ok", "origin", "may connect")
		wantFinding(t, said, "ok", "token", "expires in")
		wantFinding(t, said, "ok", "address", "127.0.0.1 (peer)")
		wantFinding(t, said, "ok", "upgrade", "/ and /ws", "connected")
		wantFinding(t, said, "ok", "message")
		if idle > 0 {
			wantFinding(t, said, "ok", "idle", "2.2s of silence")
		}
	}
	// A token in the URL is one, and one for a single room is tried there.
	exit, said := examine(t, "ws://"+s.addr+"/?token="+s.token(t, Claims{UserID: "bob", Room: "kitchen", Bind: true}), "", "", 0, nil)
	if exit != 0 {
		t.Error("exit", exit)
	}
	wantFinding(t, said, "ok", "message")
	// Without a token the upgrade is still seen to arrive.
	exit, said = examine(t, "ws://"+s.addr, "", "", 0, nil)
	if exit != 0 {
		t.Error("exit", exit)
	}
	wantFinding(t, said, "skip", "token")
	wantFinding(t, said, "ok", "upgrade", "it arrives")
}

// TestDoctorTellsRefusalsApart: each has a finding of its own, and the upgrade is said to arrive all the same.
func TestDoctorTellsRefusalsApart(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	good := s.token(t, Claims{UserID: "alice"})
	other := *s.cfg
	other.JWT.Secret = strings.Repeat("another", 8)
	foreign, err := MintToken(&other, Claims{UserID: "alice"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	expired, err := MintToken(s.cfg, Claims{UserID: "alice", TTL: time.Hour}, time.Now().Add(-25*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, story := range []struct {
		token, page, step string
		words             []string
	}{
		{foreign, "", "token", []string{"token_signature", "mint one with the secret of this very server"}},
		{expired, "", "token", []string{"token_expired", "expired 24h0m", "mint a new one"}},
		{"no token", "", "token", []string{"token_malformed", "copy the whole token"}},
		{good, "https://foreign.example", "origin", []string{"https://foreign.example may not connect", `"cors": {"allowed_origins": ["https://foreign.example"]}`}},
	} {
		exit, said := examine(t, "ws://"+s.addr, story.token, story.page, 0, nil)
		if exit != 1 {
			t.Errorf("%s: exit %d", story.words, exit)
		}
		wantFinding(t, said, "FAIL", story.step, story.words...)
		wantFinding(t, said, "ok", "upgrade", "it arrives, and is refused as said above")
		if n := strings.Count(said, "\nFAIL"); n != 1 {
			t.Errorf("%d lines say what is one fault:\n%s", n, said)
		}
	}
}

// proxyTo starts a reverse proxy in front of a server; change spoils what it passes on.
func proxyTo(t *testing.T, addr string, change func(*httputil.ProxyRequest)) (base string) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	proxy := httptest.NewServer(&httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: addr})
		if change != nil {
			change(r)
		}
	}, ModifyResponse: func(answer *http.Response) error {
		answer.Header.Set("Server", "testproxy")
		return nil
	}, ErrorLog: stdlog.New(io.Discard, "", 0)})
	t.Cleanup(proxy.Close)
	return proxy.URL
}

// TestDoctorBehindProxies that are set up wrong, each in its own way.
func TestDoctorBehindProxies(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	token := s.token(t, Claims{UserID: "alice"})
	removesUpgrade := func(r *httputil.ProxyRequest) { r.Out.Header.Del("Upgrade"); r.Out.Header.Del("Connection") }

	exit, said := examine(t, proxyTo(t, s.addr, removesUpgrade), token, "", 0, nil)
	if exit != 1 {
		t.Error("exit", exit)
	}
	wantFinding(t, said, "FAIL", "upgrade", "/ and /ws", "without its Upgrade and Connection headers", "proxy_set_header Upgrade $http_upgrade")

	exit, said = examine(t, proxyTo(t, s.addr, nil)+"/chat", token, "", 0, nil)
	if exit != 1 {
		t.Error("exit", exit)
	}
	wantFinding(t, said, "FAIL", "health", "wrong path: letshare answers, but has nothing there", "cut /chat off")

	exit, said = examine(t, proxyTo(t, s.addr, nil), token, "", 0, nil)
	if exit != 0 {
		t.Error("a good proxy: exit", exit)
	}
	wantFinding(t, said, "warn", "address", "takes the proxy, 127.0.0.1, for every client", `"server": {"trusted_proxies": ["127.0.0.1"]}`)

	exit, said = examine(t, proxyTo(t, "127.0.0.1:1", nil), token, "", 0, nil)
	if exit != 1 {
		t.Error("exit", exit)
	}
	wantFinding(t, said, "FAIL", "health", "502: it does not reach letshare", "start letshare")

	// The proxies of others: a page of its own, a login, another address, an answer of 400 to the upgrade alone.
	for name, story := range map[string]struct {
		handler http.HandlerFunc
		step    string
		words   []string
	}{
		"a web page": {func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<h1>Welcome</h1>")) }, "upgrade", []string{"wrong path", "answers 200 there itself"}},
		"a login":    {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, "health", []string{"wants a login of its own"}},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://share.example.org/health?token=x", http.StatusMovedPermanently)
		}, "health", []string{"sends the visitor on to https://share.example.org/health.", "use the address it names"}},
		"bad request": {func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") != "" {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			w.Write([]byte(`{"status":"healthy"}`))
		}, "upgrade", []string{"the proxy answered 400 to the upgrade", "proxy_http_version 1.1"}},
	} {
		stranger := httptest.NewServer(story.handler)
		exit, said := examine(t, stranger.URL, token, "", 0, nil)
		stranger.Close()
		if exit != 1 {
			t.Errorf("%s: exit %d", name, exit)
		}
		wantFinding(t, said, "FAIL", story.step, story.words...)
	}
}

// TestDoctorHearsSilenceBreak: a proxy that cuts silent connections is found out.
func TestDoctorHearsSilenceBreak(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	impatient, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	defer func() { impatient.Close(); <-done }()
	go func() { defer close(done); cutSilent(impatient, s.addr, 300*time.Millisecond) }()
	exit, said := examine(t, "ws://"+impatient.Addr().String(), s.token(t, Claims{UserID: "alice"}), "", 5*time.Second, nil)
	if exit != 1 {
		t.Error("exit", exit)
	}
	wantFinding(t, said, "ok", "message")
	wantFinding(t, said, "FAIL", "idle", "a silent connection was cut after ", "proxy_read_timeout 90s")
}

// cutSilent passes connections on, and cuts each when the server has been silent for a while. It returns when the
// listener and all connections have ended.
func cutSilent(listener net.Listener, addr string, patience time.Duration) {
	ended := make(chan struct{})
	open := 0
	for {
		client, err := listener.Accept()
		if err != nil {
			break
		}
		server, err := net.Dial("tcp", addr)
		if err != nil {
			client.Close()
			continue
		}
		pass := func(to, from net.Conn) {
			buffer := make([]byte, 4096)
			for {
				from.SetReadDeadline(time.Now().Add(patience))
				n, err := from.Read(buffer)
				to.Write(buffer[:n])
				if err != nil {
					to.Close()
					from.Close()
					ended <- struct{}{}
					return
				}
			}
		}
		open += 2
		go pass(client, server)
		go pass(server, client)
	}
	for range open {
		<-ended
	}
}

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test Authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-1000 * time.Hour), NotAfter: time.Now().Add(10000 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err2 := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	certificate, err3 := x509.ParseCertificate(der)
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	return &authority{certificate, key}
}

// pool trusts the authority alone.
func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// files writes a certificate for a name, valid until an hour, and its key.
func (a *authority) files(t *testing.T, name string, until time.Time) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotBefore: time.Now().Add(-500 * time.Hour), NotAfter: until}
	der, err2 := x509.CreateCertificate(rand.Reader, template, a.certificate, &private.PublicKey, a.key)
	pkcs8, err3 := x509.MarshalPKCS8PrivateKey(private)
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	cert, key = filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	err = os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
	err2 = os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// TestDoctorReadsCertificates: a good one, one that has expired, one for another name, one of an unknown authority. No
// token goes where the certificate is bad.
func TestDoctorReadsCertificates(t *testing.T) {
	t.Parallel()
	known, unknown := newAuthority(t), newAuthority(t)
	now := time.Now()
	for name, story := range map[string]struct {
		by    *authority
		name  string
		until time.Time
		kind  string
		words []string
	}{
		"good":     {known, "share.example.org", now.Add(2000 * time.Hour), "ok", []string{"TLS 1.3", "share.example.org", "expires in 83 days"}},
		"old soon": {known, "share.example.org", now.Add(100 * time.Hour), "warn", []string{"expires in 4 days"}},
		"expired":  {known, "share.example.org", now.Add(-72 * time.Hour), "FAIL", []string{"expired 3 days ago", "renew it"}},
		"other":    {known, "chat.example.org", now.Add(2000 * time.Hour), "FAIL", []string{"is for chat.example.org, not for share.example.org"}},
		"unknown":  {unknown, "share.example.org", now.Add(2000 * time.Hour), "FAIL", []string{"private authority", "fullchain.pem"}},
	} {
		cert, key := story.by.files(t, story.name, story.until)
		s := startServer(t, func(cfg *Config) { cfg.Server.TLSCert, cfg.Server.TLSKey = cert, key })
		_, port, _ := net.SplitHostPort(s.addr)
		exit, said := examine(t, "wss://share.example.org:"+port, s.token(t, Claims{UserID: "alice"}), "", 0, func(d *doctor) {
			d.roots = known.pool()
			d.lookup = func(context.Context, string, string) ([]netip.Addr, error) {
				return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
			}
		})
		wantFinding(t, said, "ok", "dns", "share.example.org is 127.0.0.1")
		wantFinding(t, said, story.kind, "tls", story.words...)
		if good := story.kind != "FAIL"; (exit == 0) != good || strings.Contains(said, "upgrade") != good {
			t.Errorf("%s: exit %d\n%s", name, exit, said)
		}
		if _, total, _ := s.server.conns.counts(); (total > 0) != (story.kind != "FAIL") {
			t.Errorf("%s: %d connections were made", name, total)
		}
	}
}

// TestDoctorTellsThePlainFromTheSecret: plain HTTP where https was asked, and the reverse.
func TestDoctorTellsThePlainFromTheSecret(t *testing.T) {
	t.Parallel()
	plain := startServer(t)
	exit, said := examine(t, "https://"+plain.addr, "", "", 0, nil)
	if exit != 1 {
		t.Error("exit", exit)
	}
	wantFinding(t, said, "FAIL", "tls", "plain HTTP answers there, not TLS")

	cert, key := newAuthority(t).files(t, "share.example.org", time.Now().Add(time.Hour))
	secret := startServer(t, func(cfg *Config) { cfg.Server.TLSCert, cfg.Server.TLSKey = cert, key })
	exit, said = examine(t, "http://"+secret.addr, "", "", 0, nil)
	if exit != 1 {
		t.Error("exit", exit)
	}
	wantFinding(t, said, "FAIL", "health", "the port speaks TLS", "write https:// or wss://")

	// A server that hangs up during the handshake has no certificate for the name.
	picky, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none") }})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			socket, err := picky.Accept()
			if err != nil {
				return
			}
			socket.(*tls.Conn).Handshake()
			socket.Close()
		}
	}()
	exit, said = examine(t, "https://"+picky.Addr().String(), "", "", 0, nil)
	picky.Close()
	<-done
	if exit != 1 {
		t.Error("exit", exit)
	}
	wantFinding(t, said, "FAIL", "tls", "the handshake failed")
}

// TestDoctorBeforeTheServer: what the DNS and TCP say.
func TestDoctorBeforeTheServer(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	_, port, _ := net.SplitHostPort(s.addr)
	lookup := func(addresses []netip.Addr, err error) func(*doctor) {
		return func(d *doctor) {
			d.lookup = func(context.Context, string, string) ([]netip.Addr, error) { return addresses, err }
		}
	}
	exit, said := examine(t, "ws://share.example.org", "", "", 0, lookup(nil, &net.DNSError{Err: "no such host", IsNotFound: true}))
	if exit != 1 {
		t.Error("exit", exit)
	}
	wantFinding(t, said, "FAIL", "dns", "share.example.org has no address", "add an A record")

	exit, said = examine(t, "ws://127.0.0.1:1", "", "", 0, nil)
	if exit != 1 {
		t.Error("exit", exit)
	}
	wantFinding(t, said, "FAIL", "tcp", "connection refused", "nothing listens there")

	// One address of two is deaf: browsers stumble over it, the doctor goes on with the other.
	exit, said = examine(t, "ws://share.example.org:"+port, "", "", 0,
		lookup([]netip.Addr{netip.MustParseAddr("127.0.0.77"), netip.MustParseAddr("127.0.0.1")}, nil))
	if exit != 0 {
		t.Error("exit", exit)
	}
	wantFinding(t, said, "warn", "tcp", "127.0.0.77 has no open port", "take the address out of the DNS")
	wantFinding(t, said, "ok", "upgrade")

	if _, said := examine(t, "ws://127.0.0.1:99999", "", "", 0, nil); !strings.Contains(said, "FAIL") {
		t.Errorf("a port that is none:\n%s", said)
	}
}

// TestDoctorIsNotCommanded: what a server says cannot move a terminal's cursor, and a hostile answer is read to its bound only.
func TestDoctorIsNotCommanded(t *testing.T) {
	t.Parallel()
	hostile := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/check" {
			w.Write([]byte(`{"token":{"reason":"\u001b[2J\u001b[H","message":"\r\nok    token` + strings.Repeat("x", 4000) + `"},"client":{"via":"peer"}}`))
			return
		}
		w.Header().Set("Server", strings.Repeat("x", 4000))
		w.Write(append([]byte(`{"status":"healthy"}`), bytes.Repeat([]byte{' '}, 10<<20)...))
	}))
	defer hostile.Close()
	exit, said := examine(t, hostile.URL, "secret-token", "", 0, nil)
	if exit != 1 || strings.ContainsAny(said, "\x1b\r") {
		t.Errorf("exit %d\n%q", exit, said)
	}
	for line := range strings.Lines(said) {
		if len(line) > 1000 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}
