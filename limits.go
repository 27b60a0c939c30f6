package main

import "time"

// Every number that bounds something stands here, with its unit and its reason.
// The first block holds the defaults of what the configuration can change.
const (
	// defaultMaxRoomUsers is how many connections one room takes. The original server's figure.
	defaultMaxRoomUsers = 50
	// defaultMaxRoomsPerConnection: the app uses one room; another client may watch a building.
	defaultMaxRoomsPerConnection = 100
	// defaultMaxEventsPerRoom: the app subscribes to two events of its room.
	defaultMaxEventsPerRoom = 16
	// defaultMaxEventBytes is the longest event name, in bytes: "signal:" and an identity of 128 bytes fit with room to spare.
	defaultMaxEventBytes = 192
	// defaultMaxConnections bounds memory: about 8 KB each while idle.
	defaultMaxConnections = 10000
	// defaultMaxConnectionsPerAddress is off: many users share one address behind a carrier's NAT,
	// and one refusal keeps the real app offline until its page is reloaded.
	defaultMaxConnectionsPerAddress = 0
	// defaultMessagesPerSecond and defaultMessageBurst (messages) are far above what the app sends when it joins a full room.
	defaultMessagesPerSecond = 200
	defaultMessageBurst      = 400
	// defaultBytesPerSecond and defaultBytesBurst (raw bytes from one client) let a handful of the largest messages through at once.
	defaultBytesPerSecond = 1 << 20
	defaultBytesBurst     = 4 << 20
	// defaultMaxMessageBytes is the original's read limit; the app's longest text fits.
	defaultMaxMessageBytes = 512 << 10
	// defaultMaxQueueBytes is what one slow reader may have waiting in user space before it is cut.
	defaultMaxQueueBytes = 1 << 20
	// defaultMaxBufferedBytes bounds all queued and half-received bytes of the process together.
	defaultMaxBufferedBytes = 64 << 20
	// defaultMessageTimeout is the time from a message's first byte to its last: a phone's bad line sends 512 KiB in it.
	defaultMessageTimeout = 30 * time.Second
	// defaultPingInterval stays under the 30 s after which the most impatient proxies drop a silent connection.
	defaultPingInterval = 25 * time.Second
	// defaultIdleTimeout is two lost pings; background tabs are throttled, so not less.
	defaultIdleTimeout = 60 * time.Second
	// defaultPingsPerSecond is how many pings a client may send; browsers send none.
	defaultPingsPerSecond = 10
	// defaultLogEntries is how many warnings and errors the error log keeps. The original server's figure.
	defaultLogEntries = 200
	// defaultTokenHours is the lifetime of a token that `letshare token` mints without -ttl.
	defaultTokenHours = 720
	// defaultMaxTokenHours is the longest lifetime (exp - iat, or exp - now without iat) a token may have.
	defaultMaxTokenHours = 8760
)

// Authentication.
const (
	// maxTokenBytes is refused before parsing: a JWT of ours is about 300 bytes.
	maxTokenBytes = 4 << 10
	// maxUserIDBytes bounds the identity, which travels in every message.
	maxUserIDBytes = 128
	// tokenLeeway forgives clocks that disagree, on exp and nbf alike.
	tokenLeeway = 30 * time.Second
	// minSecretBytes: HS256 wants a key as long as its hash (RFC 7518 section 3.2).
	minSecretBytes = 32
)

// HTTP.
const (
	// readHeaderTimeout cuts clients that dribble their request.
	readHeaderTimeout = 10 * time.Second
	// maxHeaderBytes is plenty for a browser's upgrade with the longest token.
	maxHeaderBytes = 16 << 10
)

// Configuration: the ends of what may be set, so that no product or duration made of it overflows.
const (
	// maxConfigBytes bounds the configuration file and each secret's file: a wrong path (a device, a log) must not fill the memory.
	maxConfigBytes = 1 << 20
	// maxConfigSeconds (a day) and maxConfigHours (a hundred years) are far beyond any sense, and fit a time.Duration.
	maxConfigSeconds = 24 * 60 * 60
	maxConfigHours   = 100 * 365 * 24
	// maxConfigCount bounds every count and size but the one below (1 TiB): 2 × a message + 64 KiB fits an int of 32 bits.
	maxConfigCount    = 1<<30 - 64<<10
	maxConfigBuffered = 1 << 40
	// maxLogEntries bounds the error log, which is rewritten as a whole.
	maxLogEntries = 10000
	// minStaticTokenBytes: a token that can be guessed is none. Wanted in production alone.
	minStaticTokenBytes = 16
	// maxUnixSocketBytes is the longest path the kernel takes (sun_path is 108 bytes with its end, unix(7)).
	maxUnixSocketBytes = 107
)

// Who asks.
const (
	// maxNumericDate (seconds) is the end of the year 9999: the times of a token fit every format and calculation.
	maxNumericDate = 253402300799
	// maxLoggedRunes is how much of what a client chose goes to the log.
	maxLoggedRunes = 64
	// ipv6ClientBits: a household or a server is given a /64 and can take any address in it.
	ipv6ClientBits = 64
)
