package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Config is everything an operator can set, with its default. It is immutable once LoadConfig has returned it.
//
// Each leaf's key is the path of its json tags joined by dots ("websocket.max_room_users").
// The environment name of a key is LETSHARE_ + the path in capitals with _ for dots
// (LETSHARE_WEBSOCKET_MAX_ROOM_USERS); the one exception is mode, whose name is MODE.
// Keys tagged secret:"true" can also be read from a file: the same name + _FILE.
//
// Tags of a leaf: json (its name), doc (what it does; the row of docs/configuration.md), secret ("true": its value is
// never printed), reload ("reload" or "restart": what a changed value needs to come into force).
type Config struct {
	Mode      string          `json:"mode" reload:"restart" doc:"local or production. Production insists on real secrets and listens on all addresses."`
	Server    ServerConfig    `json:"server"`
	JWT       JWTConfig       `json:"jwt"`
	Auth      AuthConfig      `json:"auth"`
	CORS      CORSConfig      `json:"cors"`
	Log       LogConfig       `json:"log"`
	Metrics   MetricsConfig   `json:"metrics"`
	Console   ConsoleConfig   `json:"console"`
	WebSocket WebSocketConfig `json:"websocket"`
	Relay     RelayConfig     `json:"relay"`
	Turn      TurnConfig      `json:"turn"`
	Ably      AblyConfig      `json:"ably"`

	// file is the path given to LoadConfig, for messages; "" without one.
	file string
	// sources says where a value came from that is not the default: by key, and by key[i] for what stands in a list.
	sources map[string]string
}

// ServerConfig says where the server listens and whom it believes about client addresses.
type ServerConfig struct {
	Host            string `json:"host" reload:"restart" doc:"The address or host name to listen on; empty means all addresses."`
	Port            string `json:"port" reload:"restart" doc:"The TCP port, 0 to 65535, in quotes; 0 takes any free one."`
	UnixSocket      string `json:"unix_socket" reload:"restart" doc:"The path of a Unix socket to listen on instead of host and port, which may not be set then."`
	UnixSocketMode  string `json:"unix_socket_mode" reload:"restart" doc:"The permissions of that socket, in octal. A proxy needs to write to it."`
	UnixSocketOwner string `json:"unix_socket_owner" reload:"restart" doc:"Whose that socket is: user, user:group or :group, by name or number; empty leaves it to the server's own user."`
	// The contents of the two files may change on a reload; TLS itself goes on or off at a restart.
	TLSCert        string   `json:"tls_cert" reload:"reload" doc:"The PEM file of the certificate chain. With tls_key or not at all; with both, the server speaks TLS only."`
	TLSKey         string   `json:"tls_key" reload:"reload" doc:"The PEM file of the certificate's private key."`
	TrustedProxies []string `json:"trusted_proxies" reload:"reload" doc:"The addresses or networks (CIDR) of reverse proxies whose X-Forwarded-* headers are believed, or unix for the peers of the Unix socket. The client's address is the right-most untrusted one."`
	StaticDir      string   `json:"static_dir" reload:"reload" doc:"A folder with a built single-page app, which is served at /; empty serves none."`
	DrainSeconds   float64  `json:"drain_seconds" reload:"reload" doc:"Over how many seconds the connections are closed at the end, so that clients do not all come back at once; 0 closes them together."`
}

// JWTConfig holds the keys and lifetimes of tokens.
type JWTConfig struct {
	Secret           string   `json:"secret" secret:"true" reload:"reload" doc:"The key that signs and checks tokens (HS256). In production at least 32 bytes, and none of the published samples."`
	PreviousSecrets  []string `json:"previous_secrets" secret:"true" reload:"reload" doc:"Older keys: their tokens are still accepted, none is signed with them."`
	ExpirationHours  float64  `json:"expiration_hours" reload:"reload" doc:"The lifetime of a token that letshare token mints without -ttl, in hours."`
	MaxLifetimeHours float64  `json:"max_lifetime_hours" reload:"reload" doc:"A token that is valid for longer than these hours is refused."`
}

// AuthConfig holds what else than a JWT admits a connection.
type AuthConfig struct {
	StaticTokens []string `json:"static_tokens" secret:"true" reload:"reload" doc:"Opaque tokens that are accepted as they are. In production at least 16 bytes each."`
}

// CORSConfig lists the web pages that may connect.
type CORSConfig struct {
	AllowedOrigins []string `json:"allowed_origins" reload:"reload" doc:"The origins of web pages that may connect: scheme://host[:port], or https://*.host for all subdomains. A list given here replaces the default one."`
}

// LogConfig configures the structured log and the error log.
type LogConfig struct {
	Level      string `json:"level" reload:"reload" doc:"debug, info, warn or error."`
	File       string `json:"file" reload:"restart" doc:"The file of the error log (warnings and errors, the newest last); empty keeps it in memory alone."`
	MaxEntries int    `json:"max_entries" reload:"restart" doc:"How many entries the error log keeps, 1 to 10000."`
}

// MetricsConfig protects /metrics.
type MetricsConfig struct {
	Token string `json:"token" secret:"true" reload:"reload" doc:"The Bearer token that /metrics asks for; without one, /metrics is open to all."`
}

// ConsoleConfig switches the page at /console.
type ConsoleConfig struct {
	Enabled bool `json:"enabled" reload:"reload" doc:"Whether /console, and / without server.static_dir, is a page that tries the server out, shows what to paste into the app, and how the server is doing."`
}

// WebSocketConfig bounds what one client, and all of them together, may use. 0 means no limit, except
// where limits.go's default is of a message, a queue, buffered bytes, a timeout or a ping: there 0 is an error.
type WebSocketConfig struct {
	MaxRoomUsers             int     `json:"max_room_users" reload:"reload" doc:"Connections in one room."`
	MaxRoomsPerConnection    int     `json:"max_rooms_per_connection" reload:"reload" doc:"Rooms that one connection may be in."`
	MaxEventsPerRoom         int     `json:"max_events_per_room" reload:"reload" doc:"Events that one connection may subscribe to in one room."`
	MaxEventBytes            int     `json:"max_event_bytes" reload:"reload" doc:"The longest name of an event, in bytes."`
	MaxConnections           int     `json:"max_connections" reload:"reload" doc:"Connections to the server."`
	MaxConnectionsPerAddress int     `json:"max_connections_per_address" reload:"reload" doc:"Connections from one client address (IPv6: from one /64 network)."`
	MessagesPerSecond        int     `json:"messages_per_second" reload:"reload" doc:"Messages a second from one connection, on average."`
	MessageBurst             int     `json:"message_burst" reload:"reload" doc:"Messages that one connection may send at once before that average holds."`
	BytesPerSecond           int     `json:"bytes_per_second" reload:"reload" doc:"Bytes a second from one connection, on average; above it the connection is not read for a while."`
	BytesBurst               int     `json:"bytes_burst" reload:"reload" doc:"Bytes that one connection may send at once before that average holds."`
	MaxMessageBytes          int     `json:"max_message_bytes" nonzero:"true" reload:"reload" doc:"The longest message from a client, in bytes; not 0."`
	MaxQueueBytes            int     `json:"max_queue_bytes" nonzero:"true" reload:"reload" doc:"Bytes that may wait for one slow reader before it is cut; not 0."`
	MaxBufferedBytes         int     `json:"max_buffered_bytes" nonzero:"true" reload:"restart" doc:"All queued and half-received bytes of the server together; above it the largest holder is cut; not 0."`
	MessageTimeoutSeconds    float64 `json:"message_timeout_seconds" nonzero:"true" reload:"reload" doc:"The time from a message's first byte to its last, in seconds; not 0."`
	PingIntervalSeconds      float64 `json:"ping_interval_seconds" nonzero:"true" reload:"reload" doc:"The time between the server's pings, in seconds; not 0."`
	IdleTimeoutSeconds       float64 `json:"idle_timeout_seconds" nonzero:"true" reload:"reload" doc:"A connection that is silent for so many seconds is cut; more than ping_interval_seconds."`
	PingsPerSecond           int     `json:"pings_per_second" nonzero:"true" reload:"reload" doc:"Pings a second from one client; not 0."`
	AnnounceLeaveSeconds     float64 `json:"announce_leave_seconds" reload:"reload" doc:"So long after a LetShare user's last socket in a room died without a leave, the server says it for them; 0 means never."`
	StrictIdentity           bool    `json:"strict_identity" reload:"reload" doc:"Refuses messages in another's name, and directed events of others (signal:<someone else>)."`
}

// The two modes.
const (
	modeLocal      = "local"
	modeProduction = "production"
)

// sampleSecretPrefix begins every secret that the original server published: worthless outside a developer's machine.
// It is also the built-in secret of local mode.
const sampleSecretPrefix = "letshare-jwt-secret-key-2024"

// RelayConfig bounds the public relay, which carries files for people without a direct path.
type RelayConfig struct {
	Enabled                   bool   `json:"enabled" reload:"reload" doc:"Whether files are relayed. They pass through this server's memory and line, unencrypted by it."`
	MaxFileBytes              int64  `json:"max_file_bytes" reload:"reload" doc:"The largest file that is relayed, in bytes; the default is the app's free tier."`
	MaxTransfersPerConnection int    `json:"max_transfers_per_connection" reload:"reload" doc:"How many files one connection may be sending at once; 0 means no limit."`
	MaxMemory                 int64  `json:"max_memory" reload:"reload" doc:"How many bytes of files all transfers together may hold in memory; above it new ones are refused. One transfer holds at most 2.2 MiB."`
	MaxBytesPerSecond         int64  `json:"max_bytes_per_second" reload:"reload" doc:"How fast one transfer may go, in bytes per second; 0 means no limit."`
	MaxTotalBytesPerSecond    int64  `json:"max_total_bytes_per_second" reload:"reload" doc:"How fast all transfers together may go, in bytes per second; 0 means no limit. Set it to a part of a small line, so that signalling keeps the rest."`
	MessagesPerSecond         int    `json:"messages_per_second" reload:"reload" doc:"How many frames and control messages of transfers one connection may send per second before it is read more slowly; 0 means no limit."`
	ProSecret                 string `json:"pro_secret" secret:"true" reload:"reload" doc:"The key of the app's PRO tokens (HS256): whoever shows one may send files of up to pro_max_file_bytes. Empty: PRO tokens are ignored."`
	ProMaxFileBytes           int64  `json:"pro_max_file_bytes" reload:"reload" doc:"The largest file that is relayed for PRO users, in bytes."`
}

// AblyConfig says who may speak the Ably protocol, and how much one of them may use.
type AblyConfig struct {
	Enabled                  bool            `json:"enabled" reload:"reload" doc:"Whether the Ably protocol is spoken. In production the default is false without ably.keys and true with them."`
	Keys                     []AblyKey       `json:"keys" secret:"true" reload:"reload" doc:"The API keys of Ably clients, see below. Local mode has a development key when none is given."`
	Namespaces               []AblyNamespace `json:"namespaces" reload:"reload" doc:"What is special about channels whose name begins with such an id and a colon, see below."`
	AllowedOrigins           []string        `json:"allowed_origins" reload:"reload" doc:"The origins of web pages that may use the Ably protocol, written as in cors.allowed_origins; empty admits every page: the key decides, not the page."`
	MaxMessageBytes          int             `json:"max_message_bytes" reload:"reload" doc:"The largest publish, in bytes; not 0."`
	MessagesPerSecond        int             `json:"messages_per_second" reload:"reload" doc:"Messages a second from one connection, on average; 0 means no limit."`
	MaxChannelsPerConnection int             `json:"max_channels_per_connection" reload:"reload" doc:"Channels that one connection may be attached to; 0 means no limit."`
	MaxAttachmentsPerChannel int             `json:"max_attachments_per_channel" reload:"reload" doc:"Connections that may be attached to one channel; 0 means no limit."`
	MaxPresenceMembers       int             `json:"max_presence_members" reload:"reload" doc:"Members of one channel's presence set; 0 means no limit."`
	ConnectionStateSeconds   float64         `json:"connection_state_seconds" reload:"reload" doc:"How long a lost connection can be resumed, in seconds; not 0."`
	HistorySeconds           float64         `json:"history_seconds" reload:"reload" doc:"How long messages are kept for history, rewind and resume, in seconds; 0 keeps none."`
	PersistedSeconds         float64         `json:"persisted_seconds" reload:"reload" doc:"The same on channels of a persisted namespace."`
	Journal                  string          `json:"journal" reload:"restart" doc:"The directory in which messages of persisted namespaces outlive the server; empty keeps them in memory alone."`
}

// AblyKey is one API key: name:secret is what a client is configured with.
type AblyKey struct {
	Name       string              `json:"name"`                 // appId.keyId
	Secret     string              `json:"secret" secret:"true"` // signs token requests and JWTs, too
	Capability map[string][]string `json:"capability"`           // operations by resource; nil: everything on ordinary channels

	RevocableTokens bool `json:"revocableTokens"` // tokens live for an hour at most, and can be revoked
}

// AblyNamespace is what is special about channels whose name begins with ID and a colon, or is ID.
type AblyNamespace struct {
	ID              string `json:"id"`
	Persisted       bool   `json:"persisted"`       // messages are kept for ably.persisted_seconds
	MutableMessages bool   `json:"mutableMessages"` // messages can be changed and annotated
}

// TurnConfig names the TURN servers for which /api/turn-credentials makes credentials. Without URLs it makes none.
type TurnConfig struct {
	URLs       []string `json:"urls" reload:"reload" doc:"The TURN servers that /api/turn-credentials names, like turn:turn.example.org:3478?transport=udp; none switches it off."`
	Secret     string   `json:"secret" secret:"true" reload:"reload" doc:"The secret that those servers share with this one (static-auth-secret of coturn). In production at least 16 bytes."`
	TTLSeconds int      `json:"ttl_seconds" reload:"reload" doc:"How long such credentials are good for new connections to the TURN server, in seconds; never longer than the token that they were given for."`
}

// defaultOrigins returns the origins that may connect when none are configured: the app's pages, and in local mode
// its development servers.
func defaultOrigins(mode string) []string {
	origins := []string{"https://letshare.fun", "https://www.letshare.fun", "https://cdn.letshare.fun"}
	if mode == modeLocal {
		origins = append(origins, "http://localhost:3000", "http://localhost:5173")
	}
	return origins
}

// DefaultConfig returns what is in force without a file and without environment: local mode.
func DefaultConfig() Config {
	c := Config{
		Mode:   modeLocal,
		Server: ServerConfig{Port: "8080", UnixSocketMode: "0660", DrainSeconds: defaultDrain.Seconds()},
		JWT:    JWTConfig{ExpirationHours: defaultTokenHours, MaxLifetimeHours: defaultMaxTokenHours},
		Log:    LogConfig{Level: "info", File: "logs/errors.log", MaxEntries: defaultLogEntries},
		WebSocket: WebSocketConfig{
			MaxRoomUsers:             defaultMaxRoomUsers,
			MaxRoomsPerConnection:    defaultMaxRoomsPerConnection,
			MaxEventsPerRoom:         defaultMaxEventsPerRoom,
			MaxEventBytes:            defaultMaxEventBytes,
			MaxConnections:           defaultMaxConnections,
			MaxConnectionsPerAddress: defaultMaxConnectionsPerAddress,
			MessagesPerSecond:        defaultMessagesPerSecond,
			MessageBurst:             defaultMessageBurst,
			BytesPerSecond:           defaultBytesPerSecond,
			BytesBurst:               defaultBytesBurst,
			MaxMessageBytes:          defaultMaxMessageBytes,
			MaxQueueBytes:            defaultMaxQueueBytes,
			MaxBufferedBytes:         defaultMaxBufferedBytes,
			MessageTimeoutSeconds:    defaultMessageTimeout.Seconds(),
			PingIntervalSeconds:      defaultPingInterval.Seconds(),
			IdleTimeoutSeconds:       defaultIdleTimeout.Seconds(),
			PingsPerSecond:           defaultPingsPerSecond,
		},
		Relay: RelayConfig{
			Enabled:                   true,
			MaxFileBytes:              defaultRelayFileBytes,
			MaxTransfersPerConnection: defaultRelayTransfers,
			MaxMemory:                 defaultRelayMemory,
			MessagesPerSecond:         defaultRelayMessages,
			ProMaxFileBytes:           defaultRelayProFileBytes,
		},
		Turn: TurnConfig{TTLSeconds: defaultTurnSeconds},
		Ably: AblyConfig{
			MaxMessageBytes:          defaultAblyMessageBytes,
			MessagesPerSecond:        defaultAblyMessagesPerSecond,
			MaxChannelsPerConnection: defaultAblyChannels,
			MaxAttachmentsPerChannel: defaultAblyAttachments,
			MaxPresenceMembers:       defaultAblyPresenceMembers,
			ConnectionStateSeconds:   defaultAblyConnectionState.Seconds(),
			HistorySeconds:           defaultAblyHistory.Seconds(),
			PersistedSeconds:         defaultAblyPersisted.Seconds(),
		},
	}
	c.applyMode()
	return c
}

// applyMode gives the keys whose default depends on the mode their value, unless they were set.
// An empty jwt.secret in the file counts as none.
func (c *Config) applyMode() {
	if c.JWT.Secret == "" {
		delete(c.sources, "jwt.secret")
	}
	host, secret := "127.0.0.1", sampleSecretPrefix
	if c.Mode == modeProduction {
		host, secret = "", ""
	}
	if !c.isSet("server.host") {
		c.Server.Host = host
	}
	if !c.isSet("jwt.secret") {
		c.JWT.Secret = secret
	}
	if !c.isSet("cors.allowed_origins") {
		c.CORS.AllowedOrigins = defaultOrigins(c.Mode)
	}
	if !c.isSet("ably.enabled") {
		c.Ably.Enabled = c.Mode != modeProduction || len(c.Ably.Keys) > 0
	}
	if !c.isSet("console.enabled") {
		c.Console.Enabled = c.Mode != modeProduction
	}
}

// LoadConfig reads the file at path, then the environment, over the defaults, and validates the whole.
// Without a path there are the defaults and the environment alone; a path that cannot be read is an error.
// getenv is os.Getenv, or a test's map; an empty variable counts as unset.
// The error has one line for each problem, which names the file and line or the variable, the key, the value
// (never that of a secret) and the fix.
func LoadConfig(path string, getenv func(string) string) (*Config, error) {
	c := DefaultConfig()
	c.sources = make(map[string]string)
	var problems []error
	if path != "" {
		c.file = path
		data, err := readBounded(path)
		if err != nil {
			return nil, fmt.Errorf("%s: cannot read the configuration: %w; correct the path, or leave -config out to use defaults and environment", path, err)
		}
		problems = c.readJSON(data)
	}
	problems = append(problems, c.readEnvironment(getenv)...)
	if len(problems) > 0 { // half-read values would only raise false alarms
		return nil, joinProblems(problems)
	}
	c.applyMode()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &c, nil
}

// joinProblems makes one error of the first maxConfigProblems, one line each; nil of none.
func joinProblems(problems []error) error {
	if more := len(problems) - maxConfigProblems; more > 0 {
		problems = append(problems[:maxConfigProblems:maxConfigProblems], fmt.Errorf("and %d more problems; correct these first", more))
	}
	return errors.Join(problems...)
}

// readBounded reads a file of at most maxConfigBytes. Its error does not repeat the path.
func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err == nil {
		defer f.Close()
		var data []byte
		if data, err = io.ReadAll(io.LimitReader(f, maxConfigBytes+1)); err == nil {
			if len(data) > maxConfigBytes {
				return nil, fmt.Errorf("it is larger than %d bytes", maxConfigBytes)
			}
			return data, nil
		}
	}
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		err = pathError.Err
	}
	return nil, err
}

// configKey is one leaf of Config, as its tags describe it.
type configKey struct {
	name    string // "websocket.max_room_users"
	env     string // "LETSHARE_WEBSOCKET_MAX_ROOM_USERS"
	doc     string
	reload  string // "reload" or "restart"
	secret  bool
	nonzero bool  // 0 is an error, not "no limit"
	index   []int // of the field, for reflect
}

// configKeys returns every leaf of Config, in the order of the struct.
func configKeys() []configKey { return leavesOf(reflect.TypeFor[Config](), "", nil) }

func leavesOf(t reflect.Type, prefix string, index []int) []configKey {
	var keys []configKey
	for i := range t.NumField() {
		field := t.Field(i)
		if !field.IsExported() {
			continue
		}
		name := prefix + field.Tag.Get("json")
		at := append(index[:len(index):len(index)], i)
		if field.Type.Kind() == reflect.Struct {
			keys = append(keys, leavesOf(field.Type, name+".", at)...)
			continue
		}
		env := "LETSHARE_" + strings.ToUpper(strings.ReplaceAll(name, ".", "_"))
		if name == "mode" {
			env = "MODE"
		}
		keys = append(keys, configKey{
			name: name, env: env, doc: field.Tag.Get("doc"), reload: field.Tag.Get("reload"),
			secret: field.Tag.Get("secret") == "true", nonzero: field.Tag.Get("nonzero") == "true", index: at,
		})
	}
	return keys
}

// field is the place of a key's value in c.
func (c *Config) field(k configKey) reflect.Value {
	return reflect.ValueOf(c).Elem().FieldByIndex(k.index)
}

// isSet says whether a key's value came from the file or the environment.
func (c *Config) isSet(name string) bool { _, set := c.sources[name]; return set }

// Print writes what is in force, one line for each key: key = value  # where it came from.
// Of a secret it writes only whether it is set and how long it is.
func (c *Config) Print(w io.Writer) {
	for _, k := range configKeys() {
		source := "default"
		if from, set := c.sources[k.name]; set {
			source = from
		}
		fmt.Fprintf(w, "%s = %s  # %s\n", k.name, show(c.field(k).Interface(), k.secret), source)
	}
}

// show writes a value as it would stand in the file; of a secret only its size.
func show(value any, secret bool) string {
	switch v := value.(type) {
	case string:
		if secret && v == "" {
			return "(unset)"
		} else if secret {
			return fmt.Sprintf("(set, %d bytes)", len(v))
		}
		return strconv.Quote(v)
	case []string:
		if secret && len(v) == 0 {
			return "(unset)"
		} else if secret {
			return fmt.Sprintf("(set, %d values, %d bytes)", len(v), len(strings.Join(v, "")))
		}
		quoted := make([]string, len(v))
		for i := range v {
			quoted[i] = strconv.Quote(withoutUserinfo(v[i]))
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	case []AblyKey:
		return showKeys(v)
	case []AblyNamespace:
		text, err := json.Marshal(v)
		if err != nil || len(v) == 0 { // no namespace makes an error
			return "[]"
		}
		return string(text)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	default:
		return fmt.Sprint(v)
	}
}

// showKeys names API keys, and of their secrets says nothing.
func showKeys(keys []AblyKey) string {
	if len(keys) == 0 {
		return "(unset)"
	}
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = showKeyName(k.Name)
	}
	return fmt.Sprintf("(set, %d values: %s)", len(keys), strings.Join(names, ", "))
}

// showKeyName quotes the name of an API key without what stands behind a colon: somebody's secret, in a name that is refused for it.
func showKeyName(name string) string {
	if name, _, secret := strings.Cut(name, ":"); secret {
		return strconv.Quote(name + ":…")
	}
	return strconv.Quote(name)
}

// withoutUserinfo hides what stands before an @: somebody's password, in an origin that is refused for it.
func withoutUserinfo(s string) string {
	if at := strings.LastIndexByte(s, '@'); at >= 0 {
		return "…" + s[at:]
	}
	return s
}

// Address is the host and port to listen on, for net.Listen. It means nothing when server.unix_socket is set.
func (c *Config) Address() string { return net.JoinHostPort(c.Server.Host, c.Server.Port) }

// Loopback says whether only this machine can reach the server: a Unix socket, a loopback address, or localhost.
func (c *Config) Loopback() bool {
	if c.Server.UnixSocket != "" || strings.EqualFold(c.Server.Host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(c.Server.Host)
	return err == nil && addr.Unmap().IsLoopback()
}

// seconds turns a configured number of seconds into a duration.
func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
