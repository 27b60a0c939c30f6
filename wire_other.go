//go:build !unix

package main

import "errors"

// errWouldBlock and readDescriptor are never used here: rawConn gives no raw descriptor.
var errWouldBlock = errors.New("would block")

func readDescriptor(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }
