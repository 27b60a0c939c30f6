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
	// maxCachedTokens is how many verified tokens are remembered: 300 KB at most.
	maxCachedTokens = 1024
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
	// maxConfigProblems is how many problems of a configuration are told at once: a screenful.
	maxConfigProblems = 20
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

// One connection.
const (
	// writeTimeout is how long a blocking write may take before the client is too slow.
	writeTimeout = 10 * time.Second
	// closeWriteTimeout is how long the close frame may take: the peer is alive or it is not.
	closeWriteTimeout = time.Second
	// closeLinger is how long the server waits for the peer's own close after its close frame: closing
	// with unread input resets the connection and can destroy the close frame.
	closeLinger = 2 * time.Second
	// protocolErrorLinger is the same after a violation of RFC 6455: such a peer may never answer.
	protocolErrorLinger = 500 * time.Millisecond
	// maxPacing is how long a client may stay over its bytes per second before it is cut.
	maxPacing = 5 * time.Second
	// pacingStep is how often a paced connection looks whether it has been ended meanwhile.
	pacingStep = 50 * time.Millisecond
	// maxErrorsInARow: after so many errors of code 400 in a row a client is broken or hostile.
	maxErrorsInARow = 20
	// errorRepeat is the least time between two error frames of one reason about one room without an id: the
	// app shows each as a toast.
	errorRepeat = time.Second
	// maxThrottled is how many reasons and rooms a connection remembers for errorRepeat.
	maxThrottled = 16
	// maxIDBytes bounds a client's message id, which is sent back.
	maxIDBytes = 64
	// messageBudgetSlack is what a message may take in raw bytes on top of twice the message limit: room for
	// the headers of honest fragments.
	messageBudgetSlack = 64 << 10
	// askBytes: a publish of at least this size is waited for, so that one connection never has two large ones
	// in a mailbox.
	askBytes = 16 << 10
)

// Buffers.
const (
	// firstReadBytes holds the first read after a rest: nearly every signalling message fits.
	firstReadBytes = 4 << 10
	// maxInlineWrite is the most that a shard writes to one client in one flush.
	maxInlineWrite = 64 << 10
	// maxBlockingWrite is the most that a writer goroutine hands to one system call: at 3 Mbit/s it
	// is through well within writeTimeout.
	maxBlockingWrite = 256 << 10
	// keptMessageBytes is the largest memory that is kept for messages to come: offers and answers of the app have some 3 KB.
	// The lengths of such memories are multiples of messageStep: no account knows of what they have beyond their frames' bytes.
	keptMessageBytes = 8 << 10
	messageStep      = 128
	// keptQueueFrames is how many places an empty queue keeps.
	keptQueueFrames = 8
	// libraryBufferBytes is the library's read and write buffer: bufio's least. It holds headers only;
	// payloads go straight to the message's buffer.
	libraryBufferBytes = 16
)

// The hub.
const (
	// mailboxOps is how many operations wait for a shard before their senders wait too.
	mailboxOps = 256
	// tickInterval is how often the rooms' deadlines are looked at.
	tickInterval = time.Second
	// batchBytes: a shard flushes at the latest when it may have put so many bytes of frames into one outbox, or half of what
	// its queue may hold, so that a healthy client's queue does not overflow within one batch.
	batchBytes = 256 << 10
)

// Ghosts.
const (
	// maxMissed is how many users one shard remembers to have died, until their rooms are told: about 1 MB. Whoever dies
	// beyond that leaves a tile behind.
	maxMissed = 4096
)

// Reload and drain.
const (
	// certificateInterval is how often the certificate's files are looked at. Renewals come days before they are needed.
	certificateInterval = time.Minute
	// defaultDrain spreads the clients' return; it stays well inside the 10 s after which container engines kill.
	defaultDrain = 5 * time.Second
	// notifyTimeout is how long the service manager may take to hear something.
	notifyTimeout = time.Second
	// maxDrainSeconds is an hour: a longer drain is a server that does not stop.
	maxDrainSeconds = 3600
	// drainStep is the most between two closes: 50 clients take the default window, fewer are away sooner.
	drainStep = 100 * time.Millisecond
	// drainTick is how often those who are due are sent away: clients see single closes, not bursts.
	drainTick = 10 * time.Millisecond
	// drainNotice is how long the word that transfers end has to reach clients before the first close.
	drainNotice = 250 * time.Millisecond
	// drainGrace is how long clients have after the window to answer; then they are cut. With it and shutdownWait the
	// server has ended 2 s after the window.
	drainGrace = 1200 * time.Millisecond
)

// Static files.
const (
	// staticSlowest is what a client must read at least of a file, in bytes per second, before its time is up: a phone
	// in a tunnel. requestTimeout comes on top.
	staticSlowest = 16 << 10
	// maxHashedFile: files of up to so many bytes are told apart by their content, larger ones by time and size.
	maxHashedFile = 1 << 20
)

// The server.
const (
	// sweepInterval is how often every connection's deadlines are looked at: a deadline is met within it.
	sweepInterval = 500 * time.Millisecond
	// restAfter is how long a connection, or the arrival of new ones, must be quiet to be called at rest.
	restAfter = 1500 * time.Millisecond
	// restLeast is how many connections must have come to rest for a tidying to pay: each frees about 2 KB.
	restLeast = 64
	// restInterval is the least time between two tidyings: each collects all garbage.
	restInterval = 5 * time.Second
	// restLatest is when a tidying is due although new connections keep arriving.
	restLatest = time.Minute
	// sweepChunk is how many connections are looked at under one hold of the registry's mutex.
	sweepChunk = 256
	// requestTimeout bounds reading a request and writing its answer; an upgrade ends it.
	requestTimeout = 15 * time.Second
	// keepAliveTimeout is how long an idle HTTP connection is kept.
	keepAliveTimeout = 60 * time.Second
	// shutdownWait is how long HTTP requests under way have at the end of a drain.
	shutdownWait = 500 * time.Millisecond
	// assumedOpenFiles stands in for the open-file limit where it is not known.
	assumedOpenFiles = 1 << 16
	// memoryReadInterval is the least time between two looks at the runtime's memory figures, which stop the world.
	memoryReadInterval = time.Second
	// retryAfter is what a refused client is told to wait, in seconds.
	retryAfter = "5"
	// reservedFiles are descriptors that connections may not take: log files, health checks, refusals.
	reservedFiles = 64
)

// The relay: one file on its way through the server (transfer.go, relay_message.go).
const (
	// maxRelayUnacked is how many frames of one transfer wait for the receiver's word: the app's window of 24 chunks,
	// and room for one resend beside it. 32 frames of 65,792 bytes are 2.0 MiB.
	maxRelayUnacked = 32
	// relayWindow is how many unacknowledged chunks the app sends, and relayAckEvery how many it takes for each ack.
	relayWindow   = 24
	relayAckEvery = 8
	// maxLaneControl is how many bytes of control one transfer has waiting for its receiver: with its frames they are 2.2 MiB.
	// Honest senders say a few hundred bytes.
	maxLaneControl = 128 << 10
	// relayHeaderBytes is the JSON header, padded with NUL, in front of each chunk.
	relayHeaderBytes = 256
	// maxRelayChunkBytes is the app's chunk, and the largest that a client may choose: a frame is 65,792 bytes at most.
	maxRelayChunkBytes = 64 << 10
	// maxRelayControlBytes bounds one control message. The longest, a resend of 256 indexes, has about 3 KB.
	maxRelayControlBytes = 16 << 10
	// maxRelayResendIndexes is how many chunks one resend names. The app's figure; the number that it misses may be larger.
	maxRelayResendIndexes = 256
	// maxTransferIDBytes: the app's ids have about 30 bytes, and one must leave room in the frame header.
	maxTransferIDBytes = 128
	// maxRelayFileNameBytes is four times what common file systems allow.
	maxRelayFileNameBytes = 1024
	// maxRelayTextBytes bounds the other texts of a request: file type, user ids, room name.
	maxRelayTextBytes = 256
	// relayFrameBudget and relayFrameBudgetSlack bound the frames of one transfer, re-sent ones included, to
	// budget × chunks + slack: an honest receiver asks for a chunk once or twice, a tunnel asks for ever.
	relayFrameBudget      = 4
	relayFrameBudgetSlack = 1024
	// relayRequestTimeout is how long a request waits for an answer. The app's sender gives up after 30 s by itself.
	relayRequestTimeout = 35 * time.Second
	// defaultRelayFileBytes is the app's free tier, defaultRelayProFileBytes its paid one.
	defaultRelayFileBytes    = 50 << 20
	defaultRelayProFileBytes = 3 << 30
	// defaultRelayTransfers is how many files one connection sends at once; the app sends one.
	defaultRelayTransfers = 4
	// defaultRelayMemory is room for 31 large files at once.
	defaultRelayMemory = 64 << 20
	// minRelayMemory is room for one transfer.
	minRelayMemory = maxRelayUnacked * (relayHeaderBytes + maxRelayChunkBytes + maxFrameHeader)
	// defaultRelayMessages is 1000 MiB per second in the app's frames: no bound for files, but one for tiny frames, which then cost
	// less than a file does.
	defaultRelayMessages = 16000
	// minRelayBytesPerSecond is the least speed of a file that the app has patience for: a chunk every 3 s. It gives up when its
	// socket takes nothing for 15 s.
	minRelayBytesPerSecond = 20000
	// relayHoldStep is how often a paused sender's frame is tried again.
	relayHoldStep = 5 * time.Millisecond
	// maxUnsentBytes is how much a relaying socket's kernel queues unsent: two frames, so that signalling does not wait behind more.
	maxUnsentBytes = 128 << 10
	// maxAnswered is how many transfers a connection remembers to have been told of an error.
	maxAnswered = 16
	// maxRelayRemembered is how many transfers a connection may have begun that are under way or remembered: whoever begins and
	// ends them without pause must not fill the memory, nor a receiver's queue with requests.
	maxRelayRemembered = 256
	// relayGrace is how long a receiver without a socket may take to come back.
	relayGrace = 30 * time.Second
	// relayPauseTimeout is how long a sender is not read. The app aborts after 15 s of back pressure.
	relayPauseTimeout = 10 * time.Second
	// relayIdleTimeout ends a transfer that makes no progress. The original server's figure.
	relayIdleTimeout = 10 * time.Minute
	// relayCompletedRetention is how long a completed transfer is remembered, so that a late end gets its complete.
	relayCompletedRetention = 30 * time.Second
	// relayEndedRetention is how long any other ended transfer is remembered, so that what was under way stays unanswered.
	relayEndedRetention = 5 * time.Second
)

// The error log.
const (
	// errorLogInterval is how often new entries are written: well inside the two seconds that are promised.
	errorLogInterval = time.Second
	// collapseWindow is how long identical warnings are one line, counted from the first.
	collapseWindow = 10 * time.Second
	// maxErrorLogValueBytes is what is kept of one message or attribute: a panic's stack fits.
	maxErrorLogValueBytes = 8 << 10
	// maxErrorLogEntryBytes bounds one entry of many attributes.
	maxErrorLogEntryBytes = 16 << 10
	// maxErrorLogBytes bounds the whole log, in memory and on disk: 10,000 ordinary entries fit,
	// and writing it every second is bearable on the smallest machine.
	maxErrorLogBytes = 2 << 20
	// errorLogOverhead is what time, count, last time and line end add to an entry, at most 140 bytes.
	errorLogOverhead = 160
)

// The program.
const (
	// healthTimeout is the whole time `letshare health` waits: shorter than any container's own limit.
	healthTimeout = 5 * time.Second
	// maxHealthBytes is what it reads of the answer, which is some 300 bytes.
	maxHealthBytes = 64 << 10
	// maxQuotedWord is the longest word of a wrong command line that an error repeats, in bytes: a longer one may be a token.
	maxQuotedWord = 24
)

// GET /api/check.
const (
	// checksPerSecond and checkBurst bound the checks of one client address: a page asks once after a failed upgrade,
	// a person with a doctor a few times; each costs what a refused upgrade costs.
	checksPerSecond = 0.5
	checkBurst      = 10
	// checkRetryAfter is what whoever asks too often is told to wait, in seconds.
	checkRetryAfter = "20"
	// maxCheckAddresses bounds each of two generations of addresses, about 150 bytes each.
	maxCheckAddresses = 2048
	// checkMemory is how long an upgrade that lost its headers is held against the way it came.
	checkMemory = time.Minute
)

// GET /api/turn-credentials.
const (
	// defaultTurnSeconds is a day, as the draft behind coturn's use-auth-secret recommends: a page that stays open needs no others.
	defaultTurnSeconds = 24 * 60 * 60
	// maxTurnSeconds is a week: whoever gets hold of credentials can use them until they end, and nothing takes them back.
	maxTurnSeconds = 7 * 24 * 60 * 60
	// turnPerSecond and turnBurst bound the credentials of one client address: a page asks once before a call, and a
	// household or an office shares an address.
	turnPerSecond = 1
	turnBurst     = 30
	// turnRetryAfter is what whoever asks too often is told to wait, in seconds.
	turnRetryAfter = "5"
	// maxTurnURLs bounds the list that goes to every page; browsers grow slow beyond a handful.
	maxTurnURLs = 16
)

// The console.
const (
	// historyInterval and historySamples are an hour of a series: 360 float32 are 1,440 bytes.
	historyInterval = 10 * time.Second
	historySamples  = 360
	// maxHistorySeries is more than there are figures and reasons: 180 KiB of series at most.
	maxHistorySeries = 128
	// maxConsoleLog is how many entries of the error log the page gets, the newest: more than log.max_entries is by default.
	maxConsoleLog = 500
)

// letshare doctor.
const (
	// doctorIdle outlives the 60 s after which most proxies cut a silent connection.
	doctorIdle = 70 * time.Second
	// doctorStep is how long any one step may take: the patience of a person who waits for a line.
	doctorStep = 10 * time.Second
	// doctorAnswerBytes is how much of an answer is read: a report is about 500 bytes.
	doctorAnswerBytes = 64 << 10
	// doctorLineBytes is how much of what a server says stands in one finding.
	doctorLineBytes = 400
	// doctorRenewal warns of a certificate that has less than this part of its life left: those that renew themselves do so
	// when a third is left.
	doctorRenewal = 5
)

// The consistency check.
const (
	// checkPatience is how long a difference between what several owners count may last before it is one: what is under way
	// is over in microseconds, on a busy machine in tens of milliseconds.
	checkPatience = time.Second
	// checkStep is the time between two looks.
	checkStep = time.Millisecond
)

// The Ably protocol: what the configuration can change, and who asks (ably_auth.go, ably_capability.go, ably_token.go).
const (
	// Ably's published figures for its free plan.
	defaultAblyMessageBytes      = 64 << 10
	defaultAblyMessagesPerSecond = 50
	defaultAblyChannels          = 200
	defaultAblyPresenceMembers   = 200
	// defaultAblyAttachments is how many connections one channel takes. Ours: Ably publishes none.
	defaultAblyAttachments = 1000
	// defaultAblyConnectionState and defaultAblyHistory are the two minutes that the SDK counts on.
	defaultAblyConnectionState = 120 * time.Second
	defaultAblyHistory         = 120 * time.Second
	// defaultAblyPersisted is how long Ably's free plan keeps messages of persisted namespaces.
	defaultAblyPersisted = 24 * time.Hour
	// minAblyConnectionState (seconds): a client needs some time to come back.
	minAblyConnectionState = 0.1
	// maxAblyPersistedSeconds is a year, after which nobody looks for a message in memory.
	maxAblyPersistedSeconds = 365 * 24 * 60 * 60
	// maxAblyKeys and maxAblyNamespaces: tens are used; each is looked through at load.
	maxAblyKeys       = 1000
	maxAblyNamespaces = 1000
	// maxAblyNameBytes bounds the name of a key and the id of a namespace.
	maxAblyNameBytes = 128
	// minAblySecretBytes: Ably's own secrets have 43 characters. Wanted in production alone.
	minAblySecretBytes = 16
	// maxAblySecretBytes: name and secret together travel in a header or a URL.
	maxAblySecretBytes = 1024
	// maxAblyTokenBytes is refused before parsing: encoded once more, as clients send it, it fits maxHeaderBytes.
	maxAblyTokenBytes = 8 << 10
	// maxAblyCapabilityBytes leaves room for the rest of such a token.
	maxAblyCapabilityBytes = 4 << 10
	// maxAblyResources is how many resources one capability has; two are intersected pair by pair.
	maxAblyResources = 128
	// maxAblyResourceBytes bounds one resource.
	maxAblyResourceBytes = 512
	// maxAblyClientIDBytes bounds an identity, which travels in every message.
	maxAblyClientIDBytes = 256
	// defaultAblyTTL and maxAblyTTL are the lifetime of a token that is asked for without one, and the longest. Ably's figures.
	defaultAblyTTL = time.Hour
	maxAblyTTL     = 24 * time.Hour
	// maxAblyClockSkew is how far the timestamp of a token request may be from the server's clock, either way.
	maxAblyClockSkew = 10 * time.Minute
	// maxAblyNonces is how many requests are remembered until their timestamp is too old anyway: about 5 MB, and 50 tokens a
	// second for 20 minutes.
	maxAblyNonces = 1 << 16
	// maxAblyRequestBytes bounds the body of a token request: the longest capability fits.
	maxAblyRequestBytes = 16 << 10
)

// The Ably protocol: connections and channels (ably_conn.go, ably_session.go, ably_room.go).
const (
	// ablyMaxIdle is how long a client may hear nothing; it waits 10 s longer before it gives the connection up. Ably's figure.
	ablyMaxIdle = 15 * time.Second
	// ablyRenewal is how long before the end of a token its client is asked for another. Ably's figure.
	ablyRenewal = 30 * time.Second
	// ablyBurstSeconds of ably.messages_per_second may come at once.
	ablyBurstSeconds = 2
	// ablyControlsPerSecond is how many ATTACH, DETACH and AUTH of one connection are read a second, beyond ablyControlBurst and as
	// many as it may have channels, which come at once after a reconnect.
	ablyControlsPerSecond = 500
	ablyControlBurst      = 500
	// ablyOverflowBytes is how much more is read of a request's body that is too large.
	ablyOverflowBytes = 1 << 20
	// ablyFrameGrowth and ablyFrameSlack bound a frame by the largest publish: JSON may write one byte as six, and there are
	// names and ids. What is too large is refused; what is larger than this cannot even be read.
	ablyFrameGrowth = 6
	ablyFrameSlack  = 64 << 10
	// maxAblyChannelBytes bounds the name of a channel, which travels in every message. Ably's figure is not published.
	maxAblyChannelBytes = 2048
	// maxAblyIDBytes bounds an id that a client gives its message, and maxAblyMessages how many one publish has.
	maxAblyIDBytes  = 256
	maxAblyMessages = 1000
	// maxRewind is a number of messages or seconds beyond all history.
	maxRewind = 1 << 30
	// connectionIDBytes and seriesBytes are characters of 5 bits: ids that nobody meets twice.
	connectionIDBytes = 14
	seriesBytes       = 12
	// ablyEntryBytes is what keeping a message costs beside its content, roughly: it is charged for each, and for each channel.
	ablyEntryBytes = 256
	// ablySessionBytes is what a session costs that waits for its client.
	ablySessionBytes = 1 << 10
	// maxWaitingSessions is how many may wait; the one that has waited longest is forgotten for another. 8 MB.
	maxWaitingSessions = 8192
	// ablyKeptShare is the part of websocket.max_buffered_bytes that messages kept for Ably's clients may take.
	ablyKeptShare = 2
)

// Ably's REST interface and history (ably_rest.go, ably_history.go).
const (
	// defaultAblyPage and maxAblyPage are how many items a page has. Ably's figures.
	defaultAblyPage = 100
	maxAblyPage     = 1000
	// maxAblyPageBytes is what a page has of content at most: one with the largest messages is shorter than it was asked for,
	// and links to the rest.
	maxAblyPageBytes = 1 << 20
	// maxAblyBatchChannels is how many channels a batch names. Ably's figure.
	maxAblyBatchChannels = 100
	// ablyBodyStep is how a body grows that does not say how long it is: most fit at once.
	ablyBodyStep = 2 << 10
)

// Presence on Ably's channels (ably_presence.go).
const (
	// presenceGrace is how long members stay whose connection was lost, and presenceMaxGrace what a client may ask for at most,
	// or ably.connection_state_seconds if that is more: nobody comes back later. Ably's figure is 15 s.
	presenceGrace    = 15 * time.Second
	presenceMaxGrace = 60 * time.Second
	// presencePageMembers and presencePageBytes are how many members one frame tells of: reading such a frame blocks no page.
	presencePageMembers = 100
	presencePageBytes   = 64 << 10
	// maxPresenceRecent is how many messages of one connection and channel are known again when they are sent again: the SDK
	// sends again what was not acknowledged, and has rarely more than a few such. 512 bytes.
	maxPresenceRecent = 64
	// maxPresenceLeft is how many members that have left are remembered, so that a reconnect that crosses with the leave does
	// not bring them back.
	maxPresenceLeft = 16
	// syncIDBytes are characters that tell one sync from the next.
	syncIDBytes = 8
)

// The journal (ably_journal.go).
const (
	// ablyJournalSync is how often what was written is brought to the disk: what a power failure takes at most.
	ablyJournalSync = time.Second
	// ablyJournalQueue and ablyJournalQueueBytes bound what waits to be written: a disk may stand still for a moment.
	ablyJournalQueue      = 4096
	ablyJournalQueueBytes = 8 << 20
	// ablyJournalWrite is how much is written at once, about.
	ablyJournalWrite = 256 << 10
	// ablySegmentBytes is how long a segment grows. A whole one is removed at a time.
	ablySegmentBytes = 4 << 20
	// ablyJournalShare is how many times as much as is kept in memory the journal may hold on disk: its records are wordier.
	ablyJournalShare = 2
	// ablyJournalAge is the part of ably.persisted_seconds after which a segment is not written any more, so that what is too
	// old does not stay for long.
	ablyJournalAge = 8
	// maxAblyFormer is through how many restarts the serials of a room stay good.
	maxAblyFormer = 16
	// ablyChannelShare is the part of what may be kept in all that one channel may keep.
	ablyChannelShare = 4
)

// Filters, and the channels that the server itself speaks on (ably_filter.go, ably_meta.go).
const (
	// maxAblyFilterBytes, maxAblyFilterParts and maxAblyFilterDepth bound a filter: every message on the channel is held
	// against it, for each who has one.
	maxAblyFilterBytes = 1024
	maxAblyFilterParts = 64
	maxAblyFilterDepth = 16
	// maxAblyFilterText bounds the extras that a filter looks into, and a text that it searches.
	maxAblyFilterText = 8 << 10
	// maxLifecycleEvents is how many channels of one shard may open and close within half a second and be told of.
	maxLifecycleEvents = 1000
	// metaBatch is how many of the server's own messages go out together.
	metaBatch = 100
)

// Changed messages and annotations (ably_mutable.go, ably_annotation.go).
const (
	// maxAnnotationNameBytes bounds the type and the name of an annotation, which a summary repeats, and maxAblyAnnotations how
	// many are published at once.
	maxAnnotationNameBytes = 256
	maxAblyAnnotations     = 100
	// maxAnnotationCount is what one annotation of multiple.v1 counts for at most.
	maxAnnotationCount = 1_000_000
	// maxAnnotationNames and maxAnnotationClients are how many types with names, and clients in all of them, one message's
	// summary has. annotationClientBytes is what remembering one costs beside its id.
	maxAnnotationNames    = 100
	maxAnnotationClients  = 10_000
	annotationClientBytes = 96
	// maxSummaryClientBytes is how much of a summary are clients' ids: each change sends it to every subscriber.
	maxSummaryClientBytes = 16 << 10
)

// Revoking tokens (ably_revoke.go).
const (
	// maxRevocableTTL is the lifetime of a token that can be revoked: for so long a revocation is remembered. Ably's figure.
	maxRevocableTTL = time.Hour
	// maxRevocationTargets is how many targets one request names. Ably's figure.
	maxRevocationTargets = 100
	// maxRevocations is how many targets are remembered, and maxRevocationsEach how many revocations of one. 5 MB.
	maxRevocations     = 1 << 15
	maxRevocationsEach = 4
)

// maxStatsAge is for how long the figures of each minute are kept (ably_stats.go).
const maxStatsAge = 24 * time.Hour
