// Package ably is the codec of the Ably realtime protocol: protocol messages and the bodies of its REST calls, to
// and from JSON and msgpack. It knows no sockets and no channels, and imports nothing of the program around it.
//
// Each type tells its fields once, for both formats and in both directions: read takes them from a reader, write
// puts them into a writer, and these two know the formats. Fields that are null count as absent, unknown ones are
// passed over, of two with the same key the last one wins, and keys are case-sensitive.
//
// The bytes of msgpack are github.com/tinylib/msgp's: it works on slices without reflection, is kept up, and was
// 2 to 10 times as fast as github.com/vmihailenco/msgpack/v5, with a tenth of its allocations.
package ably
