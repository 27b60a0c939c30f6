package main

import "time"

// Config is everything an operator can set, with its default. It is immutable once Load has returned it.
//
// Each leaf's key is the path of its json tags joined by dots ("websocket.max_room_users").
// The environment name of a key is LETSHARE_ + the path in capitals with _ for dots
// (LETSHARE_WEBSOCKET_MAX_ROOM_USERS); the one exception is mode, whose name is MODE.
// Keys tagged secret:"true" can also be read from a file: the same name + _FILE.
type Config struct {
	Mode      string          `json:"mode" reload:"restart" doc:"local or production"`
	Server    ServerConfig    `json:"server"`
	JWT       JWTConfig       `json:"jwt"`
	Auth      AuthConfig      `json:"auth"`
	CORS      CORSConfig      `json:"cors"`
	Log       LogConfig       `json:"log"`
	Metrics   MetricsConfig   `json:"metrics"`
	WebSocket WebSocketConfig `json:"websocket"`
}

// ServerConfig says where the server listens and whom it believes about client addresses.
type ServerConfig struct {
	Host           string   `json:"host"`            // "" in production: all addresses; local mode: 127.0.0.1
	Port           string   `json:"port"`            // "8080"
	UnixSocket     string   `json:"unix_socket"`     // a path; instead of host and port
	TLSCert        string   `json:"tls_cert"`        // PEM file; with tls_key or not at all
	TLSKey         string   `json:"tls_key"`         //
	TrustedProxies []string `json:"trusted_proxies"` // CIDRs or addresses whose X-Forwarded-* are believed
}

// JWTConfig holds the keys and lifetimes of tokens.
type JWTConfig struct {
	Secret           string   `json:"secret" secret:"true"`
	PreviousSecrets  []string `json:"previous_secrets" secret:"true"` // accepted, never used to sign
	ExpirationHours  float64  `json:"expiration_hours"`               // what `letshare token` mints
	MaxLifetimeHours float64  `json:"max_lifetime_hours"`             // a token valid for longer is refused
}

// AuthConfig holds what else than a JWT admits a connection.
type AuthConfig struct {
	StaticTokens []string `json:"static_tokens" secret:"true"` // opaque, compared in constant time
}

// CORSConfig lists the web pages that may connect.
type CORSConfig struct {
	AllowedOrigins []string `json:"allowed_origins"` // scheme://host[:port] or https://*.host
}

// LogConfig configures the structured log and the error log.
type LogConfig struct {
	Level      string `json:"level"`       // debug, info, warn, error
	File       string `json:"file"`        // the error log; "" keeps it in memory only
	MaxEntries int    `json:"max_entries"` // 1 to 10000
}

// MetricsConfig protects /metrics.
type MetricsConfig struct {
	Token string `json:"token" secret:"true"`
}

// WebSocketConfig bounds what one client, and all of them together, may use. 0 means no limit, except
// where limits.go's default is of a message, a queue, buffered bytes, a timeout or a ping: there 0 is an error.
type WebSocketConfig struct {
	MaxRoomUsers             int     `json:"max_room_users"`
	MaxRoomsPerConnection    int     `json:"max_rooms_per_connection"`
	MaxEventsPerRoom         int     `json:"max_events_per_room"`
	MaxEventBytes            int     `json:"max_event_bytes"`
	MaxConnections           int     `json:"max_connections"`
	MaxConnectionsPerAddress int     `json:"max_connections_per_address"`
	MessagesPerSecond        int     `json:"messages_per_second"`
	MessageBurst             int     `json:"message_burst"`
	BytesPerSecond           int     `json:"bytes_per_second"`
	BytesBurst               int     `json:"bytes_burst"`
	MaxMessageBytes          int     `json:"max_message_bytes"`
	MaxQueueBytes            int     `json:"max_queue_bytes"`
	MaxBufferedBytes         int     `json:"max_buffered_bytes"`
	MessageTimeoutSeconds    float64 `json:"message_timeout_seconds"`
	PingIntervalSeconds      float64 `json:"ping_interval_seconds"`
	IdleTimeoutSeconds       float64 `json:"idle_timeout_seconds"`
	PingsPerSecond           int     `json:"pings_per_second"`
	StrictIdentity           bool    `json:"strict_identity"`
}

// seconds turns a configured number of seconds into a duration.
func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
