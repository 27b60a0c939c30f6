package main

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Validate returns every rule that c breaks, one line each: where the value came from, key = value, what is wrong and the fix.
// It reads the TLS files and changes nothing. LoadConfig calls it; who changes a Config in code calls it again.
func (c *Config) Validate() error {
	v := &validator{c: c, keys: make(map[string]configKey)}
	for _, k := range configKeys() {
		v.keys[k.name] = k
	}
	if c.Mode != modeLocal && c.Mode != modeProduction {
		v.fail("mode", "must be local or production")
	}
	v.listener()
	v.tls()
	v.staticDir()
	v.trustedProxies()
	v.secrets()
	v.lifetimes()
	v.tokens()
	v.originList("cors.allowed_origins", v.c.CORS.AllowedOrigins)
	v.logs()
	v.limits()
	v.relay()
	v.turn()
	v.ably()
	return joinProblems(v.problems)
}

// validator collects the problems of one Config.
type validator struct {
	c        *Config
	keys     map[string]configKey
	problems []error
}

// where names the origin of a key's value, or what could have set it.
func (v *validator) where(names ...string) string {
	for _, name := range names {
		if source, set := v.c.sources[name]; set {
			return source
		}
	}
	if v.c.file != "" {
		return v.c.file
	}
	return "configuration"
}

// fail notes that the value of a key breaks a rule.
func (v *validator) fail(name, format string, args ...any) {
	k := v.keys[name]
	value := show(v.c.field(k).Interface(), k.secret)
	if !v.c.isSet(name) && v.c.sources != nil && value != "(unset)" {
		value += " (default)"
	}
	v.problems = append(v.problems, fmt.Errorf("%s: %s = %s: %s", v.where(name), name, value, fmt.Sprintf(format, args...)))
}

// failAt notes that one value of a list breaks a rule.
func (v *validator) failAt(name string, i int, format string, args ...any) {
	k := v.keys[name]
	value := v.c.field(k).Index(i).String()
	if !k.secret {
		value = withoutUserinfo(value)
	}
	element := fmt.Sprintf("%s[%d]", name, i)
	v.problems = append(v.problems, fmt.Errorf("%s: %s = %s: %s", v.where(element, name), element, show(value, k.secret), fmt.Sprintf(format, args...)))
}

// listener checks where the server listens.
func (v *validator) listener() {
	server := v.c.Server
	if !isHost(server.Host) {
		v.fail("server.host", "must be an IP address or a host name, without scheme, port or brackets; the port is server.port")
	}
	if port, err := strconv.Atoi(server.Port); err != nil || port < 0 || port > 65535 || strconv.Itoa(port) != server.Port {
		v.fail("server.port", "must be a port number from 0 to 65535; 0 takes any free port")
	}
	if n := server.DrainSeconds; !(n >= 0 && n <= maxDrainSeconds) {
		v.fail("server.drain_seconds", "must be from 0 to %d; 0 closes all connections together", maxDrainSeconds)
	}
	if _, err := parseSocketMode(server.UnixSocketMode); err != nil {
		v.fail("server.unix_socket_mode", "%v", err)
	}
	if server.UnixSocket == "" {
		if server.UnixSocketOwner != "" {
			v.fail("server.unix_socket_owner", "means nothing without server.unix_socket; set that, or remove the owner")
		}
		return
	}
	if len(server.UnixSocket) > maxUnixSocketBytes {
		v.fail("server.unix_socket", "is longer than the %d bytes that a socket's path may have; choose a shorter one", maxUnixSocketBytes)
	}
	for _, name := range []string{"server.host", "server.port"} {
		if v.c.isSet(name) {
			v.fail(name, "cannot be set together with server.unix_socket (%s); remove one of them", v.where("server.unix_socket"))
		}
	}
}

// isHost says whether s can stand before a port: empty, an IP address, or a host name.
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil || s == "" {
		return true
	}
	for _, r := range s {
		if !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '.' || r == '_') {
			return false
		}
	}
	return true
}

// staticDir checks that there is an app to serve.
func (v *validator) staticDir() {
	if dir := v.c.Server.StaticDir; dir != "" {
		if info, err := os.Stat(filepath.Join(dir, indexPage)); err != nil || !info.Mode().IsRegular() {
			v.fail("server.static_dir", "has no %s; name the folder that the app's build has written (relative paths start at the working directory)", indexPage)
		}
	}
}

// tls checks that there are both files or none, and that they are a key pair: a server that was to speak TLS never speaks plain HTTP.
func (v *validator) tls() {
	cert, key := v.c.Server.TLSCert, v.c.Server.TLSKey
	switch {
	case cert == "" && key == "":
		return
	case key == "":
		v.fail("server.tls_cert", "needs server.tls_key too; set the file of its private key, or remove server.tls_cert")
		return
	case cert == "":
		v.fail("server.tls_key", "needs server.tls_cert too; set the file of its certificate, or remove server.tls_key")
		return
	}
	certPEM, err := readBounded(cert)
	if err != nil {
		v.fail("server.tls_cert", "cannot read the file: %v; correct the path (relative paths start at the working directory)", err)
	}
	keyPEM, keyErr := readBounded(key)
	if keyErr != nil {
		v.fail("server.tls_key", "cannot read the file: %v; correct the path (relative paths start at the working directory)", keyErr)
	}
	if err != nil || keyErr != nil {
		return
	}
	if _, err := tls.X509KeyPair(certPEM, keyPEM); err != nil {
		v.fail("server.tls_cert", "is no key pair with server.tls_key = %q: %v; give the PEM files of one certificate and its key", key, err)
	}
}

// trustedProxies checks each entry as the server will read it.
func (v *validator) trustedProxies() {
	for i, s := range v.c.Server.TrustedProxies {
		if _, err := parseProxy(s); err != nil && s != trustedUnix {
			v.failAt("server.trusted_proxies", i, "must be an IP address or a network, like 10.0.0.1 or 10.0.0.0/8, or %s for the peers of the Unix socket", trustedUnix)
		}
	}
}

// secrets checks the keys of the tokens: any in local mode, only real ones in production.
func (v *validator) secrets() {
	const fix = "set a random one of at least %d bytes (letshare token secret prints one) in LETSHARE_JWT_SECRET, LETSHARE_JWT_SECRET_FILE or the configuration file"
	problem := v.secretProblem(v.c.JWT.Secret)
	if problem != "" {
		v.fail("jwt.secret", "%s; "+fix, problem, minSecretBytes)
	}
	for i, secret := range v.c.JWT.PreviousSecrets {
		if problem := v.secretProblem(secret); problem != "" {
			v.failAt("jwt.previous_secrets", i, "%s; remove it", problem)
		}
	}
}

// secretProblem says why a secret will not do in this mode, or "".
func (v *validator) secretProblem(secret string) string {
	switch {
	case secret == "":
		return "is missing"
	case strings.Contains(secret, "-----BEGIN "):
		return "is a PEM file, a key of another algorithm than HS256"
	case v.c.Mode != modeProduction:
		return ""
	case strings.HasPrefix(secret, sampleSecretPrefix):
		return "is a published sample, with which anybody can make tokens"
	case len(secret) < minSecretBytes:
		return fmt.Sprintf("is shorter than %d bytes, which production mode does not take", minSecretBytes)
	}
	return ""
}

// lifetimes checks how long tokens live. The comparisons are written so that NaN fails them.
func (v *validator) lifetimes() {
	jwt := v.c.JWT
	const rule = "must be more than 0 and at most %d hours"
	if n := jwt.ExpirationHours; !(n > 0 && n <= maxConfigHours) {
		v.fail("jwt.expiration_hours", rule, maxConfigHours)
	}
	if n := jwt.MaxLifetimeHours; !(n > 0 && n <= maxConfigHours) {
		v.fail("jwt.max_lifetime_hours", rule, maxConfigHours)
	}
	if jwt.ExpirationHours > jwt.MaxLifetimeHours && jwt.MaxLifetimeHours > 0 {
		v.fail("jwt.expiration_hours", "must be at most jwt.max_lifetime_hours, %s; lower it, or raise jwt.max_lifetime_hours", show(jwt.MaxLifetimeHours, false))
	}
}

// tokens checks the tokens that are accepted as they are.
func (v *validator) tokens() {
	seen := make(map[string]int)
	for i, token := range v.c.Auth.StaticTokens {
		first, twice := seen[token]
		if !twice {
			seen[token] = i
		}
		switch {
		case token == "":
			v.failAt("auth.static_tokens", i, "is empty; remove it")
		case twice:
			v.failAt("auth.static_tokens", i, "is the same as auth.static_tokens[%d]; remove one of them", first)
		case v.c.Mode == modeProduction && len(token) < minStaticTokenBytes:
			v.failAt("auth.static_tokens", i, "is shorter than %d bytes, which production mode does not take; choose a longer one", minStaticTokenBytes)
		case len(token) > maxTokenBytes:
			v.failAt("auth.static_tokens", i, "is longer than %d bytes, which no connection may send; choose a shorter one", maxTokenBytes)
		}
	}
	if v.c.Metrics.Token == "" && v.c.isSet("metrics.token") {
		v.fail("metrics.token", "is empty; set a token, or remove the key to leave /metrics open")
	}
}

// originList checks each origin of a key as the server will compare it.
func (v *validator) originList(name string, origins []string) {
	for i, s := range origins {
		if strings.Contains(s, "@") {
			v.failAt(name, i, "must not hold a user name or password; write scheme://host[:port]")
		} else if _, err := parseOriginPattern(s); err != nil {
			v.failAt(name, i, "%s", strings.TrimPrefix(err.Error(), strconv.Quote(s)+": "))
		}
	}
}

// logs checks the log.
func (v *validator) logs() {
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, v.c.Log.Level) {
		v.fail("log.level", "must be debug, info, warn or error")
	}
	if v.c.Log.MaxEntries < 1 || v.c.Log.MaxEntries > maxLogEntries {
		v.fail("log.max_entries", "must be from 1 to %d", maxLogEntries)
	}
	if info, err := os.Stat(v.c.Log.File); v.c.Log.File != "" && err == nil && info.IsDir() {
		v.fail("log.file", "is a directory; give the path of a file in it, or \"\" to keep the log in memory")
	}
}

// limits checks every number under websocket by the tags of its field, then those that depend on each other.
func (v *validator) limits() {
	for _, k := range configKeys() {
		if !strings.HasPrefix(k.name, "websocket.") {
			continue
		}
		field := v.c.field(k)
		var n, most float64
		switch {
		case field.CanInt() && k.name == "websocket.max_buffered_bytes":
			n, most = float64(field.Int()), maxConfigBuffered
		case field.CanInt():
			n, most = float64(field.Int()), maxConfigCount
		case field.CanFloat():
			n, most = field.Float(), maxConfigSeconds
		default:
			continue
		}
		zero := "no limit"
		if k.name == "websocket.announce_leave_seconds" {
			zero = "never"
		}
		switch {
		case k.nonzero && !(n > 0 && n <= most):
			v.fail(k.name, "must be more than 0 and at most %.0f; this one cannot be switched off", most)
		case !(n >= 0 && n <= most):
			v.fail(k.name, "must be from 0 to %.0f; 0 means %s", most, zero)
		}
	}
	ws := v.c.WebSocket
	if ws.IdleTimeoutSeconds <= ws.PingIntervalSeconds && ws.IdleTimeoutSeconds > 0 {
		v.fail("websocket.idle_timeout_seconds", "must be greater than websocket.ping_interval_seconds, %s, or every quiet connection is cut before its ping is answered; raise it",
			show(ws.PingIntervalSeconds, false))
	}
	if ws.MessagesPerSecond > 0 && ws.MessageBurst == 0 {
		v.fail("websocket.message_burst", "must be more than 0 while websocket.messages_per_second is %d, or no message is ever admitted; raise it, or set both to 0", ws.MessagesPerSecond)
	}
	if ws.BytesPerSecond > 0 && ws.BytesBurst == 0 {
		v.fail("websocket.bytes_burst", "must be more than 0 while websocket.bytes_per_second is %d, or no byte is ever admitted; raise it, or set both to 0", ws.BytesPerSecond)
	}
}

// relay checks the bounds of file transfers.
func (v *validator) relay() {
	r := v.c.Relay
	for _, bound := range []struct {
		name        string
		n, least    int64
		most        int64
		consequence string
	}{
		{"relay.max_file_bytes", r.MaxFileBytes, 1, maxConfigBuffered, "to relay nothing set relay.enabled to false"},
		{"relay.pro_max_file_bytes", r.ProMaxFileBytes, 1, maxConfigBuffered, "the app's figure is 3221225472"},
		{"relay.max_memory", r.MaxMemory, minRelayMemory, maxConfigBuffered, "one transfer holds up to 2.2 MiB"},
		{"relay.max_transfers_per_connection", int64(r.MaxTransfersPerConnection), 0, maxConfigCount, "0 means no limit"},
		{"relay.max_bytes_per_second", r.MaxBytesPerSecond, 0, maxConfigBuffered, "0 means no limit"},
		{"relay.max_total_bytes_per_second", r.MaxTotalBytesPerSecond, 0, maxConfigBuffered, "0 means no limit"},
		{"relay.messages_per_second", int64(r.MessagesPerSecond), 0, maxConfigCount, "0 means no limit"},
	} {
		if bound.n < bound.least || bound.n > bound.most {
			v.fail(bound.name, "must be from %d to %d; %s", bound.least, bound.most, bound.consequence)
		}
	}
	if secret := r.ProSecret; secret != "" && v.c.Mode == modeProduction && len(secret) < minSecretBytes {
		v.fail("relay.pro_secret", "must have at least %d bytes in production", minSecretBytes)
	}
}

// Warnings returns what is allowed but hardly meant, one line each, for the log at start.
func (c *Config) Warnings() []string {
	var warnings []string
	warn := func(format string, args ...any) { warnings = append(warnings, fmt.Sprintf(format, args...)) }
	if c.Mode == modeLocal && !c.Loopback() && slices.ContainsFunc(append([]string{c.JWT.Secret}, c.JWT.PreviousSecrets...), isWeakSecret) {
		warn("the server listens on %s, not only for this machine, with a development secret: whoever knows it can make tokens; set LETSHARE_JWT_SECRET to what letshare token secret prints", c.Address())
	}
	if c.Mode == modeProduction && c.Metrics.Token == "" {
		warn("/metrics is open to everyone who reaches the server; set metrics.token (LETSHARE_METRICS_TOKEN)")
	}
	for _, s := range c.Server.TrustedProxies {
		if prefix, err := parseProxy(s); err == nil && prefix.Bits() == 0 {
			warn("server.trusted_proxies holds %s: every client is believed about its own address; name only the proxies", s)
		}
	}
	if c.WebSocket.MaxQueueBytes < c.WebSocket.MaxMessageBytes {
		warn("websocket.max_queue_bytes, %d, is less than websocket.max_message_bytes, %d: the longest messages cut whoever receives them; raise the first", c.WebSocket.MaxQueueBytes, c.WebSocket.MaxMessageBytes)
	}
	slow := func(name string, n int64) {
		if n > 0 && n < minRelayBytesPerSecond {
			warn("%s, %d, is less than %d: the app gives a file up when its socket takes nothing for 15 seconds; raise it", name, n, minRelayBytesPerSecond)
		}
	}
	slow("relay.max_bytes_per_second", c.Relay.MaxBytesPerSecond)
	slow("relay.max_total_bytes_per_second", c.Relay.MaxTotalBytesPerSecond)
	return warnings
}

// isWeakSecret says whether production mode would refuse the secret.
func isWeakSecret(secret string) bool {
	return strings.HasPrefix(secret, sampleSecretPrefix) || len(secret) < minSecretBytes
}
