package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// A secret that production takes, and one that no message may ever show.
const goodSecret = "0123456789abcdef0123456789abcdef"

// environment is a getenv of the given names and values.
func environment(pairs ...string) func(string) string {
	m := make(map[string]string)
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return m[name] }
}

// inFolder makes a fresh folder the working directory, with a config.json of the given text.
func inFolder(t *testing.T, text string) {
	t.Helper()
	t.Chdir(t.TempDir())
	write(t, "config.json", text)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func mustLoad(t *testing.T, path string, pairs ...string) *Config {
	t.Helper()
	c, err := LoadConfig(path, environment(pairs...))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWithoutAnythingTheDefaultsOfLocalModeHold(t *testing.T) {
	c := mustLoad(t, "")
	want := DefaultConfig()
	c.sources = nil
	if !reflect.DeepEqual(*c, want) {
		t.Errorf("loaded %+v\nwant   %+v", *c, want)
	}
	if c.Address() != "127.0.0.1:8080" || !c.Loopback() {
		t.Errorf("address %s, loopback %v", c.Address(), c.Loopback())
	}
	if c.JWT.Secret != "letshare-jwt-secret-key-2024" || len(c.CORS.AllowedOrigins) != 5 || len(c.Warnings()) != 0 {
		t.Errorf("secret %q, origins %q, warnings %q", c.JWT.Secret, c.CORS.AllowedOrigins, c.Warnings())
	}
}

func TestProductionHasDefaultsOfItsOwn(t *testing.T) {
	c := mustLoad(t, "", "MODE", "production", "LETSHARE_JWT_SECRET", goodSecret)
	if c.Address() != ":8080" || c.Loopback() {
		t.Errorf("address %s, loopback %v", c.Address(), c.Loopback())
	}
	if want := []string{"https://letshare.fun", "https://www.letshare.fun", "https://cdn.letshare.fun"}; !slices.Equal(c.CORS.AllowedOrigins, want) {
		t.Errorf("origins %q", c.CORS.AllowedOrigins)
	}
}

func TestTheEnvironmentStandsOverTheFile(t *testing.T) {
	inFolder(t, `{
		"server": {"port": "1", "host": "::1"},
		"websocket": {"max_room_users": 7, "ping_interval_seconds": 0.5, "strict_identity": true},
		"cors": {"allowed_origins": ["https://file.example"]}
	}`)
	c := mustLoad(t, "config.json", "LETSHARE_SERVER_PORT", "2", "LETSHARE_WEBSOCKET_MAX_ROOM_USERS", "",
		"LETSHARE_CORS_ALLOWED_ORIGINS", "https://a.example, capacitor://localhost", "LETSHARE_WEBSOCKET_STRICT_IDENTITY", "false",
		"LETSHARE_JWT_EXPIRATION_HOURS", "1.5")
	if c.Address() != "[::1]:2" || !c.Loopback() {
		t.Errorf("address %s, loopback %v", c.Address(), c.Loopback())
	}
	if ws := c.WebSocket; ws.MaxRoomUsers != 7 || ws.PingIntervalSeconds != 0.5 || ws.StrictIdentity {
		t.Errorf("websocket %+v", ws)
	}
	if want := []string{"https://a.example", "capacitor://localhost"}; !slices.Equal(c.CORS.AllowedOrigins, want) {
		t.Errorf("origins %q: a list replaces the defaults and the file's", c.CORS.AllowedOrigins)
	}
	if c.JWT.ExpirationHours != 1.5 || seconds(c.WebSocket.PingIntervalSeconds) != 500*time.Millisecond {
		t.Errorf("jwt %v hours, ping %v", c.JWT.ExpirationHours, seconds(c.WebSocket.PingIntervalSeconds))
	}
}

func TestSecretsCanComeFromFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	for content, want := range map[string]string{
		goodSecret:               goodSecret,
		goodSecret + "\n":        goodSecret,
		goodSecret + "\r\n":      goodSecret,
		goodSecret + "\n\n":      goodSecret + "\n",
		" " + goodSecret + "\r":  " " + goodSecret + "\r",
		goodSecret + "\nand\n":   goodSecret + "\nand",
		goodSecret + "," + "x\n": goodSecret + ",x",
	} {
		write(t, "secret", content)
		if c := mustLoad(t, "", "LETSHARE_JWT_SECRET_FILE", "secret", "MODE", "production"); c.JWT.Secret != want {
			t.Errorf("from %q: %q, want %q", content, c.JWT.Secret, want)
		}
	}
	write(t, "tokens", "one,two\r\nthree\n")
	c := mustLoad(t, "", "LETSHARE_AUTH_STATIC_TOKENS_FILE", "tokens", "LETSHARE_METRICS_TOKEN_FILE", "tokens")
	if want := []string{"one,two", "three"}; !slices.Equal(c.Auth.StaticTokens, want) {
		t.Errorf("static tokens %q, want %q", c.Auth.StaticTokens, want)
	}
	if c := mustLoad(t, "", "LETSHARE_JWT_PREVIOUS_SECRETS", "one, two"); !slices.Equal(c.JWT.PreviousSecrets, []string{"one", "two"}) {
		t.Errorf("previous secrets %q", c.JWT.PreviousSecrets)
	}
}

func TestAnEmptySecretInTheFileIsNone(t *testing.T) {
	inFolder(t, `{"jwt": {"secret": ""}}`)
	if c := mustLoad(t, "config.json"); c.JWT.Secret != sampleSecretPrefix || c.isSet("jwt.secret") {
		t.Errorf("secret %q, set %v: want the built-in one", c.JWT.Secret, c.isSet("jwt.secret"))
	}
}

func TestTheShippedFileHoldsTheDefaults(t *testing.T) {
	c := mustLoad(t, "config.json")
	want := DefaultConfig()
	want.JWT.Secret = "letshare-jwt-secret-key-2024-local"
	c.file, c.sources = "", nil
	if !reflect.DeepEqual(*c, want) {
		t.Errorf("config.json says %+v\nwant             %+v", *c, want)
	}
}

// Each of these files is refused with exactly these lines. A line without a place begins with "config.json".
func TestWrongFiles(t *testing.T) {
	for _, test := range []struct{ name, file, want string }{
		{"empty", ``, `config.json:1: the file is empty; write at least {}`},
		{"no object", "\n[]", `config.json:2: the configuration must be an object in braces, like {"mode": "local"}; it is a list`},
		{"syntax", "{\n\"mode\": local\n}", `config.json:2: not valid JSON: invalid character 'l' looking for beginning of value; correct it here or in the line before`},
		{"missing comma", "{\"mode\": \"local\"\n\n\"log\": {}}", `config.json:3: not valid JSON: invalid character '"' after object key:value pair; correct it here or in the line before`},
		{"cut", "{\n\"mode\": \"local\"\n", `config.json:2: not valid JSON: unexpected end of JSON input; correct it here or in the line before`},
		{"trailing", "{}\n{}", `config.json:2: text follows the closing brace of the configuration; remove it`},
		{"not UTF-8", "{\n\"mode\": \"\xff\"}", `config.json:2: the text is not valid UTF-8; save the file as UTF-8`},
		{"unknown at the top", "{\n\"moed\": 1}", `config.json:2: moed: unknown key; at the top there are mode, server, jwt, auth, cors, log, metrics, console, websocket, relay, turn, ably`},
		{"unknown in a section", "{\"jwt\":\n{\"secert\": \"hidden\"}}", `config.json:2: jwt.secert: unknown key; in jwt there are secret, previous_secrets, expiration_hours, max_lifetime_hours`},
		{"unknown with a tree", "{\"x\": {\"y\": [1, {\"z\": []}]},\n\"log\": {\"leve\": 1}}", "config.json:1: x: unknown key; at the top there are mode, server, jwt, auth, cors, log, metrics, console, websocket, relay, turn, ably\n" +
			"config.json:2: log.leve: unknown key; in log there are level, file, max_entries"},
		{"dotted", `{"log.level": "info"}`, `config.json:1: log.level: must stand in braces of its own: "log": {"level": …}`},
		{"case", "{\"Mode\": \"local\"}", `config.json:1: Mode: unknown key; write it as "mode"`},
		{"strange key", `{"a\nb": 1}`, `config.json:1: "a\nb": unknown key; at the top there are mode, server, jwt, auth, cors, log, metrics, console, websocket, relay, turn, ably`},
		{"twice", "{\"log\": {\"level\": \"info\",\n\n\"level\": \"debug\"}}", `config.json:3: log.level: stands here for the second time, after log.level in line 1; remove one of them`},
		{"twice in another case", "{\"log\": {},\n\"LOG\": {\"level\": 1}}", `config.json:2: LOG: stands here for the second time, after log in line 1; remove one of them`},
		{"twice by Kelvin", "{\"webSocKet\": {},\n\"websoc\u212aet\": {}}", "config.json:1: webSocKet: unknown key; write it as \"websocket\"\n" +
			"config.json:2: websoc\u212aet: stands here for the second time, after webSocKet in line 1; remove one of them"},
		{"number for a string", "{\"server\": {\n\"port\": 8080}}", `config.json:2: server.port = 8080: must be a string in quotes`},
		{"string for a number", `{"log": {"max_entries": "200"}}`, `config.json:1: log.max_entries = "200": must be a whole number, without quotes, point or exponent`},
		{"fraction", `{"log": {"max_entries": 1.5}}`, `config.json:1: log.max_entries = 1.5: must be a whole number, without quotes, point or exponent`},
		{"string for hours", `{"jwt": {"expiration_hours": "720h"}}`, `config.json:1: jwt.expiration_hours = "720h": must be a number, without quotes`},
		{"string for a switch", `{"websocket": {"strict_identity": "yes"}}`, `config.json:1: websocket.strict_identity = "yes": must be true or false, without quotes`},
		{"null", `{"mode": null}`, `config.json:1: mode = null: must be a string in quotes`},
		{"null for a section", `{"jwt": null}`, `config.json:1: jwt: must be an object in braces, like {"secret": …}; it is null`},
		{"list for a section", `{"jwt": [1, [2]], "log": 1}`, "config.json:1: jwt: must be an object in braces, like {\"secret\": …}; it is a list\n" +
			`config.json:1: log: must be an object in braces, like {"level": …}; it is a number`},
		{"string for a list", `{"cors": {"allowed_origins": "https://a.example"}}`, `config.json:1: cors.allowed_origins = "https://a.example": must be a list of strings, like ["one", "two"]`},
		{"number in a list", "{\"cors\": {\"allowed_origins\": [\"https://a.example\",\n5]}}", `config.json:2: cors.allowed_origins[1] = 5: must be a string in quotes`},
		{"secret of a wrong type", `{"jwt": {"secret": 12345}}`, `config.json:1: jwt.secret = (a number): must be a string in quotes`},
		{"secret tree", `{"jwt": {"previous_secrets": "hidden"}, "metrics": {"token": {"hidden": "hidden"}}}`,
			"config.json:1: jwt.previous_secrets = (a string): must be a list of strings, like [\"one\", \"two\"]\n" +
				`config.json:1: metrics.token = (an object): must be a string in quotes`},
		{"too large for an int", `{"log": {"max_entries": 99999999999999999999}}`, `config.json:1: log.max_entries = 99999999999999999999: is out of range; write a smaller number`},
		{"too large for a float", `{"jwt": {"expiration_hours": 1e999}}`, `config.json:1: jwt.expiration_hours = 1e999: is out of range; write a smaller number`},

		{"mode", "{\n\"mode\": \"prod\"}", `config.json:2: mode = "prod": must be local or production`},
		{"host with port", `{"server": {"host": "127.0.0.1:80"}}`, `config.json:1: server.host = "127.0.0.1:80": must be an IP address or a host name, without scheme, port or brackets; the port is server.port`},
		{"port", `{"server": {"port": "65536"}}`, `config.json:1: server.port = "65536": must be a port number from 0 to 65535; 0 takes any free port`},
		{"named port", `{"server": {"port": "http"}}`, `config.json:1: server.port = "http": must be a port number from 0 to 65535; 0 takes any free port`},
		{"port with a sign", `{"server": {"port": "+80"}}`, `config.json:1: server.port = "+80": must be a port number from 0 to 65535; 0 takes any free port`},
		{"socket and port", "{\"server\": {\"unix_socket\": \"s\",\n\"port\": \"80\"}}", `config.json:2: server.port = "80": cannot be set together with server.unix_socket (config.json:1); remove one of them`},
		{"long socket", `{"server": {"unix_socket": "` + strings.Repeat("s", 108) + `"}}`, `config.json:1: server.unix_socket = "` + strings.Repeat("s", 108) + `": is longer than the 107 bytes that a socket's path may have; choose a shorter one`},
		{"certificate alone", `{"server": {"tls_cert": "c.pem"}}`, `config.json:1: server.tls_cert = "c.pem": needs server.tls_key too; set the file of its private key, or remove server.tls_cert`},
		{"key alone", `{"server": {"tls_key": "k.pem"}}`, `config.json:1: server.tls_key = "k.pem": needs server.tls_cert too; set the file of its certificate, or remove server.tls_key`},
		{"TLS files missing", `{"server": {"tls_cert": "c.pem", "tls_key": "k.pem"}}`, "config.json:1: server.tls_cert = \"c.pem\": cannot read the file: no such file or directory; correct the path (relative paths start at the working directory)\n" +
			`config.json:1: server.tls_key = "k.pem": cannot read the file: no such file or directory; correct the path (relative paths start at the working directory)`},
		{"TLS files of another kind", `{"server": {"tls_cert": "config.json", "tls_key": "config.json"}}`,
			`config.json:1: server.tls_cert = "config.json": is no key pair with server.tls_key = "config.json": tls: failed to find any PEM data in certificate input; give the PEM files of one certificate and its key`},
		{"proxies", "{\"server\": {\"trusted_proxies\": [\"10.0.0.0/8\", \"::1\",\n\"10.0.0.0/33\"]}}", `config.json:2: server.trusted_proxies[2] = "10.0.0.0/33": must be an IP address or a network, like 10.0.0.1 or 10.0.0.0/8, or unix for the peers of the Unix socket`},

		{"production without a secret", `{"mode": "production"}`, `config.json: jwt.secret = (unset): is missing; set a random one of at least 32 bytes (letshare token secret prints one) in LETSHARE_JWT_SECRET, LETSHARE_JWT_SECRET_FILE or the configuration file`},
		{"production with a short secret", `{"mode": "production", "jwt": {"secret": "` + goodSecret[:31] + `"}}`,
			`config.json:1: jwt.secret = (set, 31 bytes): is shorter than 32 bytes, which production mode does not take; set a random one of at least 32 bytes (letshare token secret prints one) in LETSHARE_JWT_SECRET, LETSHARE_JWT_SECRET_FILE or the configuration file`},
		{"production with a sample", `{"mode": "production", "jwt": {"secret": "letshare-jwt-secret-key-2024-production"}}`,
			`config.json:1: jwt.secret = (set, 39 bytes): is a published sample, with which anybody can make tokens; set a random one of at least 32 bytes (letshare token secret prints one) in LETSHARE_JWT_SECRET, LETSHARE_JWT_SECRET_FILE or the configuration file`},
		{"production with an older sample", "{\"mode\": \"production\", \"jwt\": {\"secret\": \"" + goodSecret + "\", \"previous_secrets\": [\"" + goodSecret + "\",\n\"letshare-jwt-secret-key-2024-production\", \"short\"]}}",
			"config.json:2: jwt.previous_secrets[1] = (set, 39 bytes): is a published sample, with which anybody can make tokens; remove it\n" +
				"config.json:2: jwt.previous_secrets[2] = (set, 5 bytes): is shorter than 32 bytes, which production mode does not take; remove it"},
		{"empty older secret", `{"jwt": {"previous_secrets": [""]}}`, `config.json:1: jwt.previous_secrets[0] = (unset): is missing; remove it`},
		{"a PEM file", `{"jwt": {"secret": "-----BEGIN PUBLIC KEY-----\n"}}`,
			`config.json:1: jwt.secret = (set, 27 bytes): is a PEM file, a key of another algorithm than HS256; set a random one of at least 32 bytes (letshare token secret prints one) in LETSHARE_JWT_SECRET, LETSHARE_JWT_SECRET_FILE or the configuration file`},
		{"expiration of 0", `{"jwt": {"expiration_hours": 0}}`, `config.json:1: jwt.expiration_hours = 0: must be more than 0 and at most 876000 hours`},
		{"expiration over the limit", `{"jwt": {"expiration_hours": 8760.5}}`, `config.json:1: jwt.expiration_hours = 8760.5: must be at most jwt.max_lifetime_hours, 8760; lower it, or raise jwt.max_lifetime_hours`},
		{"limit under the default expiration", `{"jwt": {"max_lifetime_hours": 24}}`, `config.json: jwt.expiration_hours = 720 (default): must be at most jwt.max_lifetime_hours, 24; lower it, or raise jwt.max_lifetime_hours`},
		{"static tokens", "{\"auth\": {\"static_tokens\": [\"hidden\",\n\"\",\n\"hidden\"]}}", "config.json:2: auth.static_tokens[1] = (unset): is empty; remove it\n" +
			`config.json:3: auth.static_tokens[2] = (set, 6 bytes): is the same as auth.static_tokens[0]; remove one of them`},
		{"short static token", `{"mode": "production", "jwt": {"secret": "` + goodSecret + `"}, "auth": {"static_tokens": ["hidden"]}}`,
			`config.json:1: auth.static_tokens[0] = (set, 6 bytes): is shorter than 16 bytes, which production mode does not take; choose a longer one`},
		{"empty metrics token", `{"metrics": {"token": ""}}`, `config.json:1: metrics.token = (unset): is empty; set a token, or remove the key to leave /metrics open`},
		{"origin with a password", `{"cors": {"allowed_origins": ["https://me:hidden@a.example"]}}`, `config.json:1: cors.allowed_origins[0] = "…@a.example": must not hold a user name or password; write scheme://host[:port]`},
		{"log level", `{"log": {"level": "INFO"}}`, `config.json:1: log.level = "INFO": must be debug, info, warn or error`},
		{"log entries", `{"log": {"max_entries": 10001}}`, `config.json:1: log.max_entries = 10001: must be from 1 to 10000`},
		{"log in a directory", `{"log": {"file": "."}}`, `config.json:1: log.file = ".": is a directory; give the path of a file in it, or "" to keep the log in memory`},
		{"negative", `{"websocket": {"max_room_users": -1}}`, `config.json:1: websocket.max_room_users = -1: must be from 0 to 1073676288; 0 means no limit`},
		{"0 where there must be a limit", `{"websocket": {"max_message_bytes": 0}}`, `config.json:1: websocket.max_message_bytes = 0: must be more than 0 and at most 1073676288; this one cannot be switched off`},
		{"a day and more", `{"websocket": {"message_timeout_seconds": 86401}}`, `config.json:1: websocket.message_timeout_seconds = 86401: must be more than 0 and at most 86400; this one cannot be switched off`},
		{"idle before the ping", `{"websocket": {"idle_timeout_seconds": 25}}`,
			`config.json:1: websocket.idle_timeout_seconds = 25: must be greater than websocket.ping_interval_seconds, 25, or every quiet connection is cut before its ping is answered; raise it`},
		{"no burst", `{"websocket": {"message_burst": 0, "bytes_burst": 0}}`,
			"config.json:1: websocket.message_burst = 0: must be more than 0 while websocket.messages_per_second is 200, or no message is ever admitted; raise it, or set both to 0\n" +
				`config.json:1: websocket.bytes_burst = 0: must be more than 0 while websocket.bytes_per_second is 1048576, or no byte is ever admitted; raise it, or set both to 0`},
	} {
		t.Run(test.name, func(t *testing.T) {
			inFolder(t, test.file)
			wantError(t, test.want, "config.json")
		})
	}
}

// wantError loads the file and environment and wants exactly this error, without any of the hidden values.
func wantError(t *testing.T, want, path string, pairs ...string) {
	t.Helper()
	c, err := LoadConfig(path, environment(pairs...))
	if err == nil {
		t.Fatalf("accepted: %+v\nwant %s", *c, want)
	}
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
	if strings.Contains(err.Error(), "hidden") || strings.Contains(err.Error(), goodSecret[:31]) {
		t.Errorf("the error shows a secret: %s", err)
	}
}

func TestWrongEnvironments(t *testing.T) {
	inFolder(t, "{}")
	write(t, "empty", "\n")
	write(t, "short", "hidden\n")
	for _, test := range []struct {
		want  string
		pairs []string
	}{
		{`environment variable MODE: mode = "Production": must be local or production`, []string{"MODE", "Production"}},
		{`environment variable LETSHARE_LOG_MAX_ENTRIES: log.max_entries = "many": must be a whole number, without quotes, point or exponent`, []string{"LETSHARE_LOG_MAX_ENTRIES", "many"}},
		{`environment variable LETSHARE_LOG_MAX_ENTRIES: log.max_entries = " 5": must be a whole number, without quotes, point or exponent`, []string{"LETSHARE_LOG_MAX_ENTRIES", " 5"}},
		{`environment variable LETSHARE_LOG_MAX_ENTRIES: log.max_entries = 0: must be from 1 to 10000`, []string{"LETSHARE_LOG_MAX_ENTRIES", "0"}},
		{`environment variable LETSHARE_JWT_EXPIRATION_HOURS: jwt.expiration_hours = "inf": must be a number, without quotes`, []string{"LETSHARE_JWT_EXPIRATION_HOURS", "inf"}},
		{`environment variable LETSHARE_WEBSOCKET_STRICT_IDENTITY: websocket.strict_identity = "1": must be true or false`, []string{"LETSHARE_WEBSOCKET_STRICT_IDENTITY", "1"}},
		{`environment variable LETSHARE_SERVER_TRUSTED_PROXIES: server.trusted_proxies[1] = "": must be an IP address or a network, like 10.0.0.1 or 10.0.0.0/8, or unix for the peers of the Unix socket`,
			[]string{"LETSHARE_SERVER_TRUSTED_PROXIES", "10.0.0.1,"}},
		{`environment variables LETSHARE_JWT_SECRET and LETSHARE_JWT_SECRET_FILE: jwt.secret is given twice; unset one of them`, []string{"LETSHARE_JWT_SECRET", "hidden", "LETSHARE_JWT_SECRET_FILE", "short"}},
		{`environment variable LETSHARE_JWT_SECRET_FILE (none): cannot read the value of jwt.secret: no such file or directory; correct the path`, []string{"LETSHARE_JWT_SECRET_FILE", "none"}},
		{`environment variable LETSHARE_JWT_SECRET_FILE (.): cannot read the value of jwt.secret: is a directory; correct the path`, []string{"LETSHARE_JWT_SECRET_FILE", "."}},
		{`environment variable LETSHARE_JWT_SECRET_FILE (/dev/zero): cannot read the value of jwt.secret: it is larger than 1048576 bytes; correct the path`, []string{"LETSHARE_JWT_SECRET_FILE", "/dev/zero"}},
		{`environment variable LETSHARE_JWT_SECRET_FILE (empty): the value of jwt.secret is missing: the file is empty; write the secret into it, or unset the variable`, []string{"LETSHARE_JWT_SECRET_FILE", "empty"}},
		{`environment variable LETSHARE_JWT_SECRET_FILE (short): jwt.secret = (set, 6 bytes): is shorter than 32 bytes, which production mode does not take; set a random one of at least 32 bytes (letshare token secret prints one) in LETSHARE_JWT_SECRET, LETSHARE_JWT_SECRET_FILE or the configuration file`,
			[]string{"MODE", "production", "LETSHARE_JWT_SECRET_FILE", "short"}},
		{`configuration: jwt.secret = (unset): is missing; set a random one of at least 32 bytes (letshare token secret prints one) in LETSHARE_JWT_SECRET, LETSHARE_JWT_SECRET_FILE or the configuration file`, []string{"MODE", "production"}},
		{`environment variable LETSHARE_AUTH_STATIC_TOKENS: auth.static_tokens[1] = (set, 6 bytes): is the same as auth.static_tokens[0]; remove one of them`, []string{"LETSHARE_AUTH_STATIC_TOKENS", "hidden, hidden"}},
	} {
		wantError(t, test.want, "", test.pairs...)
	}
	// What the environment replaces, it also answers for.
	write(t, "config.json", `{"cors": {"allowed_origins": ["https://a.example", "https://b.example"]}}`)
	_, err := LoadConfig("config.json", environment("LETSHARE_CORS_ALLOWED_ORIGINS", "evil.example"))
	if err == nil || !strings.HasPrefix(err.Error(), `environment variable LETSHARE_CORS_ALLOWED_ORIGINS: cors.allowed_origins[0] = "evil.example": `) {
		t.Errorf("got %v", err)
	}
}

func TestOriginsAreCheckedAtLoad(t *testing.T) {
	for _, wrong := range []string{"", "*", "null", "letshare.fun", "*evil.test", "https://*evil.test", "https://a.example/", "https://a.example/app", "https://a.example:port", "https://a.*.example"} {
		inFolder(t, fmt.Sprintf("{\"cors\": {\"allowed_origins\": [\"https://a.example\",\n%q]}}", wrong))
		_, err := LoadConfig("config.json", environment())
		if err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("config.json:2: cors.allowed_origins[1] = %q: ", wrong)) || strings.Count(err.Error(), fmt.Sprintf("%q: ", wrong)) > 1 {
			t.Errorf("%q: got %v", wrong, err)
		}
	}
	inFolder(t, `{"cors": {"allowed_origins": ["https://a.example:8443", "https://*.a.example", "http://[::1]:3000", "capacitor://localhost", "https://localhost"]}}`)
	mustLoad(t, "config.json")
}

func TestAMissingFileIsAnError(t *testing.T) {
	t.Chdir(t.TempDir())
	wantError(t, "none.json: cannot read the configuration: no such file or directory; correct the path, or leave -config out to use defaults and environment", "none.json")
	write(t, "huge.json", "{"+strings.Repeat(" ", maxConfigBytes)+"}")
	wantError(t, "huge.json: cannot read the configuration: it is larger than 1048576 bytes; correct the path, or leave -config out to use defaults and environment", "huge.json")
}

func TestTheByteOrderMarkOfAnEditorIsNoError(t *testing.T) {
	inFolder(t, "\ufeff{\"log\": {\"level\": \"warn\"}}")
	if c := mustLoad(t, "config.json"); c.Log.Level != "warn" {
		t.Errorf("level %q", c.Log.Level)
	}
}

func TestTLSWantsAKeyPair(t *testing.T) {
	inFolder(t, `{"server": {"tls_cert": "cert.pem", "tls_key": "key.pem"}}`)
	writeKeyPair(t, "cert.pem", "key.pem")
	mustLoad(t, "config.json")
	writeKeyPair(t, "cert.pem", "other.pem")
	wantError(t, `config.json:1: server.tls_cert = "cert.pem": is no key pair with server.tls_key = "key.pem": tls: private key does not match public key; give the PEM files of one certificate and its key`, "config.json")
}

// writeKeyPair writes a certificate that signs itself, and its key.
func writeKeyPair(t *testing.T, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err2 := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	der, err3 := x509.MarshalPKCS8PrivateKey(key)
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	write(t, certFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})))
	write(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

func TestTheUnixSocketStandsForHostAndPort(t *testing.T) {
	c := mustLoad(t, "", "LETSHARE_SERVER_UNIX_SOCKET", "letshare.sock")
	if !c.Loopback() {
		t.Error("a Unix socket is reached from this machine alone")
	}
	wantError(t, `environment variable LETSHARE_SERVER_HOST: server.host = "::": cannot be set together with server.unix_socket (environment variable LETSHARE_SERVER_UNIX_SOCKET); remove one of them`,
		"", "LETSHARE_SERVER_UNIX_SOCKET", "letshare.sock", "LETSHARE_SERVER_HOST", "::")
}

func TestWarnings(t *testing.T) {
	for _, test := range []struct {
		want  string // the one warning's beginning, "" for none
		pairs []string
	}{
		{"", nil},
		{"", []string{"LETSHARE_SERVER_HOST", "localhost"}},
		{"", []string{"LETSHARE_SERVER_HOST", "0.0.0.0", "LETSHARE_JWT_SECRET", goodSecret}},
		{"the server listens on 0.0.0.0:8080, not only for this machine, with a development secret", []string{"LETSHARE_SERVER_HOST", "0.0.0.0"}},
		{"the server listens on 0.0.0.0:8080, not only for this machine, with a development secret", []string{"LETSHARE_SERVER_HOST", "0.0.0.0", "LETSHARE_JWT_SECRET", "hidden"}},
		{"/metrics is open to everyone", []string{"MODE", "production", "LETSHARE_JWT_SECRET", goodSecret}},
		{"", []string{"MODE", "production", "LETSHARE_JWT_SECRET", goodSecret, "LETSHARE_METRICS_TOKEN", "hidden"}},
		{"server.trusted_proxies holds ::/0", []string{"LETSHARE_SERVER_TRUSTED_PROXIES", "10.0.0.0/8,::/0"}},
		{"websocket.max_queue_bytes, 1000, is less", []string{"LETSHARE_WEBSOCKET_MAX_QUEUE_BYTES", "1000"}},
		{"relay.max_bytes_per_second, 19999, is less", []string{"LETSHARE_RELAY_MAX_BYTES_PER_SECOND", "19999"}},
		{"relay.max_total_bytes_per_second, 1, is less", []string{"LETSHARE_RELAY_MAX_TOTAL_BYTES_PER_SECOND", "1"}},
		{"", []string{"LETSHARE_RELAY_MAX_BYTES_PER_SECOND", "20000"}},
	} {
		got := mustLoad(t, "", test.pairs...).Warnings()
		if all := strings.Join(got, "\n"); !strings.HasPrefix(all, test.want) || (test.want == "") != (len(got) == 0) || len(got) > 1 || strings.Contains(all, "hidden") {
			t.Errorf("%q: warnings %q, want %q", test.pairs, got, test.want)
		}
	}
}

func TestPrintShowsEverythingButSecrets(t *testing.T) {
	inFolder(t, "{\"server\": {\"trusted_proxies\": [\"::1\"]},\n\"jwt\": {\"previous_secrets\": [\"hidden1\", \"hidden2\"]}}")
	c := mustLoad(t, "config.json", "LETSHARE_METRICS_TOKEN", "hidden")
	var out bytes.Buffer
	c.Print(&out)
	for _, line := range []string{
		`mode = "local"  # default`,
		`server.port = "8080"  # default`,
		`server.trusted_proxies = ["::1"]  # config.json:1`,
		`jwt.secret = (set, 28 bytes)  # default`,
		`jwt.previous_secrets = (set, 2 values, 14 bytes)  # config.json:2`,
		`auth.static_tokens = (unset)  # default`,
		`metrics.token = (set, 6 bytes)  # environment variable LETSHARE_METRICS_TOKEN`,
		`websocket.ping_interval_seconds = 25  # default`,
		`websocket.strict_identity = false  # default`,
	} {
		if !strings.Contains(out.String(), line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if n := strings.Count(out.String(), "\n"); n != len(configKeys()) {
		t.Errorf("%d lines for %d keys", n, len(configKeys()))
	}
	if strings.Contains(out.String(), "hidden") || strings.Contains(out.String(), sampleSecretPrefix) {
		t.Error("a secret is shown")
	}
}

// Each key has its row in the documentation, and that row says what the code does.
func TestTheDocumentationMatchesTheCode(t *testing.T) {
	text, err := os.ReadFile("docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "| `") {
			rows++
		}
	}
	keys := configKeys()
	if rows != len(keys) {
		t.Errorf("the tables have %d rows for %d keys", rows, len(keys))
	}
	for _, k := range keys {
		if k.reload != "reload" && k.reload != "restart" || k.doc == "" {
			t.Errorf("%s: tags reload %q, doc %q", k.name, k.reload, k.doc)
		}
		if row := documentationRow(k); !strings.Contains(string(text), row) {
			t.Errorf("docs/configuration.md lacks the row\n%s", row)
		}
	}
}

// documentationRow is the row of a key in docs/configuration.md: key, type, default, environment, change, meaning.
func documentationRow(k configKey) string {
	local, production := DefaultConfig(), DefaultConfig()
	production.Mode, production.sources = modeProduction, map[string]string{}
	production.applyMode()
	production.Mode = local.Mode
	standard := documentedValue(local.field(k).Interface())
	if other := documentedValue(production.field(k).Interface()); other != standard {
		standard = "local: " + standard + "; production: " + other
	}
	env := "`" + k.env + "`"
	if k.secret {
		env += ", `" + k.env + "_FILE`"
	}
	kind := map[string]string{"string": "string", "[]string": "list of strings", "int": "whole number", "int64": "whole number", "float64": "number", "bool": "true or false",
		"[]main.AblyKey": "list of objects", "[]main.AblyNamespace": "list of objects"}[local.field(k).Type().String()]
	return fmt.Sprintf("| `%s` | %s | %s | %s | %s | %s |\n", k.name, kind, standard, env, k.reload, k.doc)
}

func documentedValue(value any) string {
	switch v := value.(type) {
	case string:
		if v == "" {
			return "none"
		}
		return "`" + v + "`"
	case []string:
		if len(v) == 0 {
			return "none"
		}
		return "`" + strings.Join(v, "`, `") + "`"
	case []AblyKey, []AblyNamespace: // no list of objects has any by default
		return "none"
	}
	return "`" + show(value, false) + "`"
}

// FuzzConfig: whatever the file holds, it is read as encoding/json would read it, or refused by messages that
// name a line and hold no secret. What was read is valid or refused again, and can always be printed.
func FuzzConfig(f *testing.F) {
	shipped, err := os.ReadFile("config.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(shipped)
	f.Add([]byte("{\"jwt\": {\"secret\": \"S3CRET\", \"previous_secrets\": [\"S3CRET\"]},\n\"metrics\": {\"token\": {\"a\": [1, null]}}}"))
	f.Add([]byte("{\"ably\": {\"keys\": [{\"name\": \"a.b\", \"secret\": \"S3CRET\", \"capability\": {\"a\": [\"*\"]}}], \"namespaces\": [{\"id\": \"a\", \"persisted\": true}]}}"))
	f.Add([]byte(`{"log": {"level": "x"}, "LOG": {}, "websocket": {"max_room_users": -1, "ping_interval_seconds": 1e-3}} x`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := DefaultConfig()
		c.file, c.sources = "config.json", make(map[string]string)
		problems := c.readJSON(data)
		for _, problem := range problems {
			if !strings.HasPrefix(problem.Error(), "config.json:") || strings.Contains(problem.Error(), "\n") {
				t.Errorf("not one line with a place: %q", problem)
			}
		}
		if len(problems) > 0 {
			return
		}
		want := DefaultConfig()
		want.CORS.AllowedOrigins = nil // encoding/json would write into the default's array
		dec := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(data, []byte("\ufeff"))))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&want); err != nil {
			t.Fatalf("accepted what encoding/json refuses: %v", err)
		}
		if want.CORS.AllowedOrigins == nil {
			want.CORS.AllowedOrigins = defaultOrigins(modeLocal)
		}
		want.file, want.sources = c.file, c.sources
		if !reflect.DeepEqual(c, want) {
			t.Fatalf("read %+v\nwant %+v", c, want)
		}
		const hidden = "s3cr3t-that-no-file-of-the-fuzzer-holds"
		c.Server.TLSCert, c.Server.StaticDir, c.Log.File = "", "", "" // the files that Validate looks at
		c.JWT = JWTConfig{hidden, []string{hidden[:9], hidden}, c.JWT.ExpirationHours, c.JWT.MaxLifetimeHours}
		c.Auth.StaticTokens, c.Metrics.Token = []string{hidden, hidden}, hidden
		c.Ably.Journal = ""
		c.Ably.Keys = append(c.Ably.Keys, AblyKey{Name: "a.b:" + hidden, Secret: hidden}, AblyKey{Name: "a.b", Secret: hidden[:9], Capability: map[string][]string{}})
		var out bytes.Buffer
		fmt.Fprintln(&out, c.Validate(), c.Warnings())
		c.Print(&out)
		if strings.Contains(out.String(), hidden[:9]) && !bytes.Contains(data, []byte(hidden[:5])) {
			t.Errorf("a secret is shown: %s", out.String())
		}
	})
}

func TestProblemsAreToldAScreenfulAtATime(t *testing.T) {
	inFolder(t, `{"cors": {"allowed_origins": [`+strings.Repeat(`"*",`, 21)+`"*"]}}`)
	_, err := LoadConfig("config.json", environment())
	if err == nil || strings.Count(err.Error(), "\n") != maxConfigProblems || !strings.HasSuffix(err.Error(), "\nand 2 more problems; correct these first") {
		t.Errorf("got %v", err)
	}
}
