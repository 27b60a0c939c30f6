package ably

import "strconv"

// ErrorInfo is an error as clients are told it. Code, StatusCode and Message are always written: the SDK throws
// when it gets an error that lacks one of them.
type ErrorInfo struct {
	Code       int // of Ably's list, 40160 for instance
	StatusCode int // of HTTP
	Message    string
	Href       string
}

func (e ErrorInfo) Error() string { return e.Message + " (" + strconv.Itoa(e.Code) + ")" }
