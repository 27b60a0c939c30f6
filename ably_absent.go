package main

import (
	"net/http"

	"letshare/ably"
)

// What Ably has and this server has not. Each of its addresses and messages is answered in so many words, with a code that the
// client's library does the right thing with.
var (
	errAblyNoPush    = &ably.ErrorInfo{Code: 40400, StatusCode: http.StatusNotFound, Message: "this server has no push notifications"}
	errAblyNoSSE     = &ably.ErrorInfo{Code: 40400, StatusCode: http.StatusNotFound, Message: "this server has no server-sent events: connect by WebSocket"}
	errAblyNoObjects = &ably.ErrorInfo{Code: 40400, StatusCode: http.StatusNotFound, Message: "this server has no LiveObjects"}
	// errAblyNoComet is not for good, as one of the 40000s would be: the library falls back to polling when a WebSocket does not
	// open at once, and must go on trying.
	errAblyNoComet = &ably.ErrorInfo{Code: 80000, StatusCode: http.StatusNotFound, Message: "this server has no long polling: connect by WebSocket"}
	// errAblyNoObjectModes fails a channel that is attached for LiveObjects alone, and refuses what is said of them.
	errAblyNoObjectModes = &ably.ErrorInfo{Code: 40020, StatusCode: http.StatusBadRequest, Message: errAblyNoObjects.Message}
)

// ablyObjectModes are never granted: whoever asks for them sees that at attaching.
const ablyObjectModes = ably.ModeObjectSubscribe | ably.ModeObjectPublish

// ablyAbsent is the answer to a request for an address that is no resource here.
func ablyAbsent(segments []string) *ably.ErrorInfo {
	switch {
	case segments[0] == "push":
		return errAblyNoPush
	case segments[0] == "sse", segments[0] == "event-stream":
		return errAblyNoSSE
	case segments[0] == "comet":
		return errAblyNoComet
	case len(segments) > 2 && segments[0] == "channels" && (segments[2] == "object" || segments[2] == "objects"):
		return errAblyNoObjects
	}
	return errAblyNotFound()
}
