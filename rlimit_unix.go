//go:build unix

package main

import "syscall"

// raiseOpenFileLimit raises the soft limit of open files to the hard one and returns the limit then
// in force, 0 if it is not known: each connection is an open file.
func raiseOpenFileLimit() (limit uint64, err error) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return 0, err
	}
	if files.Cur == files.Max {
		return uint64(files.Cur), nil
	}
	before := files.Cur
	files.Cur = files.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return uint64(before), err
	}
	return uint64(files.Cur), nil
}
