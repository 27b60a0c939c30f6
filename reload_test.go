package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// reload puts the server's configuration with a change in force. Tokens of the kit are signed with what is configured then.
func (s *testServer) reload(t testing.TB, change func(*Config)) error {
	t.Helper()
	next := *s.cfg
	change(&next)
	if err := next.Validate(); err != nil {
		t.Fatalf("the test's configuration is wrong: %v", err)
	}
	err := s.server.Reload(&next)
	if err == nil {
		s.cfg = &next
	}
	return err
}

// mustReload is reload, which must succeed.
func (s *testServer) mustReload(t testing.TB, change func(*Config)) {
	t.Helper()
	if err := s.reload(t, change); err != nil {
		t.Fatalf("Reload: %v", err)
	}
}

// wantInside wants the client to be connected still, and everything that came to it to be what it has been told.
func (c *client) wantInside(t testing.TB) {
	t.Helper()
	c.send(t, `{"type":"unsubscribe","channel":"nowhere","id":"inside"}`)
	c.want(t, `{"type":"unsubscribed","id":"inside"}`)
}

func TestAReloadHoldsForThoseWhoAreHere(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	ann, bob := s.dial(t, "ann"), s.dial(t, "bob")
	ann.subscribe(t, "room", "")
	bob.subscribe(t, "room", "")
	s.mustReload(t, func(c *Config) {
		c.WebSocket.MaxRoomUsers, c.WebSocket.MaxRoomsPerConnection = 1, 1
		c.WebSocket.MaxEventBytes, c.WebSocket.MaxMessageBytes = 20, 1000
	})
	if err := s.server.ConsistencyCheck(); err != nil {
		t.Error(err)
	}
	ann.publish(t, "room", eventAll, `{"from":"ann"}`) // who is in a room stays, though it holds more than it may
	bob.wantData(t, `{"from":"ann"}`)
	bob.send(t, `{"type":"subscribe","channel":"another"}`)
	bob.wantError(t, 409, "too_many_rooms")
	bob.send(t, `{"type":"subscribe","channel":"room","event":"signal:`+strings.Repeat("x", 20)+`"}`)
	bob.wantError(t, 400, "bad_event")
	cid := s.dial(t, "cid")
	cid.send(t, `{"type":"subscribe","channel":"room"}`)
	cid.wantError(t, 409, "room_full")
	bob.frame(t, opText, []byte(strings.Repeat("x", 1001)))
	bob.wantClose(t, 1009, "message_too_big")

	s.mustReload(t, func(c *Config) { c.WebSocket.MaxRoomUsers, c.WebSocket.MaxMessageBytes = 2, 1<<20 })
	cid.subscribe(t, "room", "")
	long := fmt.Sprintf(`{"from":"ann","text":%q}`, strings.Repeat("x", 600_000)) // more than at first: the library must know
	ann.publish(t, "room", eventAll, long)
	cid.wantData(t, long)
	if err := s.server.ConsistencyCheck(); err != nil {
		t.Error(err)
	}
}

func TestAReloadChangesHowManyMayCome(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	ann, bob := s.dial(t, "ann"), s.dial(t, "bob")
	s.mustReload(t, func(c *Config) { c.WebSocket.MaxConnections = 1 })
	s.wantRefused(t, 503, "too_many_connections", "cid")
	s.mustReload(t, func(c *Config) { c.WebSocket.MaxConnections, c.WebSocket.MaxConnectionsPerAddress = 100, 2 })
	s.wantRefused(t, 503, "too_many_connections_from_address", "cid")
	ann.leave(t)
	s.wantMetric(t, "websocket", "active_connections", 1)
	cid := s.dial(t, "cid")
	s.wantRefused(t, 503, "too_many_connections_from_address", "dot")
	s.mustReload(t, func(c *Config) { c.WebSocket.MaxConnectionsPerAddress = 0 })
	s.dial(t, "dot").wantInside(t)
	cid.wantInside(t)
	bob.wantInside(t)
	if err := s.server.ConsistencyCheck(); err != nil {
		t.Error(err)
	}
}

// The documented rule: a connection must leave when its static token or the key that signed its token is no longer accepted, or the
// origin of its page no longer allowed. Everybody else stays.
func TestAWithdrawnRightEndsTheConnection(t *testing.T) {
	t.Parallel()
	const kept, removed = "static-token-that-stays", "static-token-that-goes"
	const fresh = "a-fresh-secret-of-more-than-32-bytes"
	s := startServer(t, func(c *Config) {
		c.Auth.StaticTokens = []string{kept, removed}
		c.CORS.AllowedOrigins = []string{"https://a.example", "https://*.b.example"}
	})
	from := func(origin string) dialOption { return withHeader("Origin: " + origin) }
	stay := []*client{s.dial(t, "ann"), s.dial(t, "bob", withToken(kept)), s.dial(t, "cid", from("https://x.b.example")), s.dial(t, "dot", from("http://"+s.addr))}
	ofOld := s.token(t, Claims{UserID: "hal"})
	static, page := s.dial(t, "eve", withToken(removed)), s.dial(t, "fay", from("https://a.example"))
	if err := s.reload(t, func(c *Config) {
		c.JWT.PreviousSecrets, c.JWT.Secret = []string{c.JWT.Secret}, fresh
		c.Auth.StaticTokens = []string{"another-static-token", kept}
		c.CORS.AllowedOrigins = []string{"https://*.b.example"}
	}); err != nil {
		t.Fatal(err)
	}
	static.wantClose(t, 4003, "access_withdrawn")
	page.wantClose(t, 4003, "access_withdrawn")
	s.wantRefused(t, 401, "token_malformed", "eve", withToken(removed))
	s.wantRefused(t, 403, "origin_not_allowed", "fay", from("https://a.example"))
	for _, c := range stay {
		c.wantInside(t)
	}
	gil, hal := s.dial(t, "gil"), s.dial(t, "hal", withToken(ofOld)) // by the new secret, and by the previous one
	s.mustReload(t, func(c *Config) { c.JWT.PreviousSecrets = nil })
	hal.wantClose(t, 4003, "access_withdrawn")
	stay[0].wantClose(t, 4003, "access_withdrawn")
	stay[2].wantClose(t, 4003, "access_withdrawn")
	stay[3].wantClose(t, 4003, "access_withdrawn")
	stay[1].wantInside(t)
	gil.wantInside(t)
	s.wantMetric(t, "closes", "access_withdrawn", 6)
	for _, secret := range []string{kept, removed, fresh, "another-static-token", sampleSecretPrefix} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("the log holds %s", secret)
		}
	}
}

// A client whose handshake is under way while the rules change is judged by the new ones, though nobody could visit it.
func TestAReloadFindsThoseWhoAreJustComing(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(c *Config) { c.Auth.StaticTokens = []string{"a-static-token"} })
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		admitted := s.server.rules.Load()
		identity, refusal, _ := admitted.auth.Identify(r, time.Now())
		if refusal != nil || s.server.conns.reserve(netip.Addr{}) != nil {
			t.Error("eve is not let in")
			return
		}
		s.server.listener.open <- struct{}{}
		c := s.server.newConn(admitted, netip.Addr{}, identity)
		if err := c.upgrade(w, r); err != nil {
			t.Error(err)
		}
		s.mustReload(t, func(c *Config) { c.Auth.StaticTokens = nil })
		s.server.start(c, admitted)
	}))
	defer door.Close()
	socket, err := net.Dial("tcp", door.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	eve := shakeHands(t, s, "eve", socket, []byte("GET /ws?token=a-static-token HTTP/1.1\r\nHost: x\r\n"+strings.Join(usualHandshake[1:], "\r\n")+"\r\n\r\n"))
	eve.wantClose(t, 4003, "access_withdrawn")
}

func TestAReloadChangesWhoMayReadTheMetrics(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.mustReload(t, func(c *Config) { c.Metrics.Token = "the-token-of-the-metrics" })
	if status, _ := s.get(t, "/metrics"); status != http.StatusUnauthorized {
		t.Errorf("without a token: %d", status)
	}
	if status, _ := s.get(t, "/metrics", "Authorization: Bearer the-token-of-the-metrics"); status != http.StatusOK {
		t.Errorf("with the token: %d", status)
	}
}

func TestSwitchingTheRelayOffEndsTransfers(t *testing.T) {
	t.Parallel()
	s, anna, bob := relayPair(t)
	f := newFile("f1", 10*appChunk)
	agree(t, anna, bob, f)
	anna.sendFrames(t, f, 0, 1)
	bob.wantFrames(t, f, 0, 1)
	s.mustReload(t, func(c *Config) { c.Relay.Enabled = false })
	for _, c := range []*client{anna, bob} {
		c.want(t, `{"type":"error","error":{"code":501,"reason":"relay_disabled","transfer_id":"f1"}}`)
		c.wantInside(t)
	}
	anna.send(t, newFile("f2", 10).request("bob"))
	anna.want(t, `{"type":"error","error":{"code":501,"reason":"relay_disabled","transfer_id":"f2"}}`)
	s.wantNothingHeld(t)
	s.mustReload(t, func(c *Config) { c.Relay.Enabled, c.Relay.MaxFileBytes = true, 100 })
	anna.send(t, newFile("f3", 101).request("bob"))
	anna.want(t, `{"type":"error","error":{"code":413,"transfer_id":"f3"}}`)
	g := newFile("f4", 100)
	agree(t, anna, bob, g)
	transport(t, anna, bob, g)
}

func TestKeysThatNeedARestartAreNamedAndKept(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	port := s.cfg.Server.Port
	err := s.reload(t, func(c *Config) {
		c.Server.Port, c.Log.MaxEntries, c.WebSocket.MaxRoomUsers = "1234", 7, 3
	})
	if err != nil {
		t.Fatal(err)
	}
	if cfg := s.server.rules.Load().cfg; cfg.Server.Port != port || cfg.Log.MaxEntries == 7 || cfg.WebSocket.MaxRoomUsers != 3 {
		t.Errorf("in force: port %s, %d entries, %d users", cfg.Server.Port, cfg.Log.MaxEntries, cfg.WebSocket.MaxRoomUsers)
	}
	if log := s.log.String(); !strings.Contains(log, `keys="[server.port log.max_entries]"`) || !strings.Contains(log, "changed=[websocket.max_room_users]") {
		t.Errorf("the log names other keys:\n%s", log)
	}
}

// Production is not to be had, or left, by a reload: what the running mode would not start with is refused as a whole.
func TestAReloadCannotWeakenProduction(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(c *Config) {
		c.Mode, c.JWT.Secret, c.Server.Host = modeProduction, strings.Repeat("0123456789abcdef", 2), "127.0.0.1"
		c.Ably.Enabled = false // as it is there without keys
	})
	ann := s.dial(t, "ann")
	err := s.reload(t, func(c *Config) { c.Mode, c.JWT.Secret, c.WebSocket.MaxRoomUsers = modeLocal, "weak", 1 })
	if err == nil || !strings.Contains(err.Error(), "jwt.secret") || strings.Contains(err.Error(), "weak") {
		t.Errorf("Reload: %v", err)
	}
	if users := s.server.rules.Load().cfg.WebSocket.MaxRoomUsers; users != defaultMaxRoomUsers {
		t.Errorf("half of it is in force: %d users", users)
	}
	ann.wantInside(t)
}

func TestAReloadAfterTheEndIsRefused(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.stop()
	if err := s.reload(t, func(*Config) {}); err != errStopping {
		t.Errorf("Reload: %v", err)
	}
}

// servedCertificate is the certificate that the server shows now, in DER.
func servedCertificate(t *testing.T, addr string) string {
	t.Helper()
	socket, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	return string(socket.ConnectionState().PeerCertificates[0].Raw)
}

// A new certificate is served after a reload, a broken one is not, and who is connected notices nothing.
func TestAbuse35_NewCertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeKeyPair(t, cert, key)
	s := startServer(t, func(c *Config) { c.Server.TLSCert, c.Server.TLSKey = cert, key })
	socket, err := tls.Dial("tcp", s.addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	ann := shakeHands(t, s, "ann", socket, []byte("GET /ws?token="+s.token(t, Claims{UserID: "ann"})+" HTTP/1.1\r\nHost: "+s.addr+"\r\n"+strings.Join(usualHandshake[1:], "\r\n")+"\r\n\r\n"))
	defer ann.wantInside(t)
	first := servedCertificate(t, s.addr)
	writeKeyPair(t, cert, key)
	if servedCertificate(t, s.addr) != first {
		t.Error("a file counts before it was looked at")
	}
	s.mustReload(t, func(*Config) {})
	second := servedCertificate(t, s.addr)
	if second == first {
		t.Error("the old certificate is served after a reload")
	}
	write(t, key, "no key")
	broken := *s.cfg
	if err := s.server.Reload(&broken); err == nil || !strings.Contains(err.Error(), "server.tls_cert") {
		t.Errorf("with a broken key: %v", err)
	}
	if servedCertificate(t, s.addr) != second {
		t.Error("the certificate changed with a reload that failed")
	}
	broken.Server.TLSCert, broken.Server.TLSKey = "", "" // plain HTTP is not to be had without a restart
	writeKeyPair(t, cert, key)
	if err := s.server.Reload(&broken); err != nil || !strings.Contains(s.log.String(), `keys="[server.tls_cert server.tls_key]"`) {
		t.Errorf("without TLS: %v", err)
	}
	if servedCertificate(t, s.addr) == second {
		t.Error("a reload does not read the files again")
	}
}

// Renewals write the files and tell nobody. They are looked at once a minute.
func TestARenewedCertificateIsServedByItself(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeKeyPair(t, cert, key)
	age := func(hours int) { // the bubble's clock is not that of the file system
		for _, path := range []string{cert, key} {
			if err := os.Chtimes(path, time.Time{}, time.Date(2026, 1, 1, hours, 0, 0, 0, time.UTC)); err != nil {
				t.Fatal(err)
			}
		}
	}
	age(1)
	inBubble(t, func(c *Config) { c.Server.TLSCert, c.Server.TLSKey = cert, key }, func(t *testing.T, s *pipeServer) {
		served := func() string {
			return string(s.rules.Load().certificate.pair.Certificate[0])
		}
		first := served()
		write(t, key, "half of a renewal")
		age(2)
		time.Sleep(5 * certificateInterval)
		if served() != first {
			t.Error("a certificate without its key is served")
		}
		if n := strings.Count(s.logged.String(), "cannot be used"); n != 1 {
			t.Errorf("%d warnings about one broken file", n)
		}
		writeKeyPair(t, cert, key)
		age(3)
		time.Sleep(certificateInterval + time.Second)
		if served() == first {
			t.Error("the renewed certificate is not served")
		}
	})
}

// TestAbuse35_Reloads plays an operator's day, by signals on the real program: a broken configuration, a new secret beside the old
// one, a page that loses its access. Bystanders lose nothing.
func TestAbuse35_Reloads(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.json")
	const rest = `"log": {"file": "", "level": %q}, "cors": {"allowed_origins": [%s]}, "websocket": {"max_room_users": %d}, "jwt": {"secret": %q, "previous_secrets": [%s]}}`
	configure := func(level, origins string, users int, secret, previous string) {
		write(t, config, fmt.Sprintf("{"+rest, level, origins, users, secret, previous))
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	old, fresh := DefaultConfig().JWT.Secret, "a-fresh-secret-of-more-than-32-bytes"
	configure("info", `"https://a.example", "https://b.example"`, 50, old, "")
	cmd := letshareCommand(t, dir, servingEnv(), "-config", config)
	cmd.Stderr = log
	p := startCommand(t, cmd)
	a := watch(t, processServer(p))
	logged := func() string {
		text, err := os.ReadFile(log.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	hangUp := func(want string) {
		t.Helper()
		seen := len(logged())
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		waitForProcess(t, "the log to say "+want, func() bool { return strings.Contains(logged()[seen:], want) })
	}
	good, lost := a.dial("ann", withHeader("Origin: https://b.example")), a.dial("lost", withHeader("Origin: https://a.example"))

	write(t, config, `{"websocket": {"max_room_users": "many"}}`)
	hangUp("max_room_users")
	configure("loud", `"https://b.example"`, 1, fresh, "")
	hangUp("log.level")
	for _, c := range []*client{good, lost} { // nothing of it is in force
		c.wantInside(t)
	}
	a.member("late")

	configure("debug", `"https://b.example"`, 51, fresh, fmt.Sprintf("%q", old))
	hangUp("configuration reloaded")
	lost.wantClose(t, 4003, "access_withdrawn")
	good.wantInside(t)
	byOld := a.member("by the old secret")
	a.cfg.JWT.Secret = fresh
	a.member("by the new secret")
	byOld.wantInside(t)
	if !strings.Contains(logged(), `"level":"DEBUG","msg":"connection opened"`) {
		t.Errorf("the level of the log is not in force:\n%s", logged())
	}
	a.calm()
	if exit, _ := p.stop(t, syscall.SIGTERM); exit != 0 {
		t.Errorf("exit %d", exit)
	}
	for _, secret := range []string{fresh, old} {
		if strings.Contains(logged(), secret) {
			t.Errorf("the log holds a secret:\n%s", logged())
		}
	}
}
