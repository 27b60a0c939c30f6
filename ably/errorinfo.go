package ably

import (
	"math"
	"strconv"
)

// ErrorInfo is an error as clients are told it. Code, StatusCode and Message are always written: the SDK throws
// when it gets an error that lacks one of them.
type ErrorInfo struct {
	Code       int // of Ably's list, 40160 for instance
	StatusCode int // of HTTP
	Message    string
	Href       string
}

func (e ErrorInfo) Error() string { return e.Message + " (" + strconv.Itoa(e.Code) + ")" }

func (r *reader) errorInfo() *ErrorInfo {
	if r.null() {
		return nil
	}
	e := &ErrorInfo{}
	for c := r.object(); r.next(&c); {
		switch string(c.key) {
		case "code":
			e.Code = int(r.intUpTo(math.MaxInt32))
		case "statusCode":
			e.StatusCode = int(r.intUpTo(math.MaxInt32))
		case "message":
			e.Message = r.text()
		case "href":
			e.Href = r.text()
		default:
			r.skip()
		}
	}
	return e
}

func (e *ErrorInfo) write(w *writer) {
	g := w.object()
	w.zeroIntField(&g, "code", int64(e.Code))
	w.zeroIntField(&g, "statusCode", int64(e.StatusCode))
	w.key(&g, "message")
	w.text(e.Message)
	w.textField(&g, "href", e.Href)
	w.end(g)
}
