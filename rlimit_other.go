//go:build !unix

package main

// raiseOpenFileLimit has nothing to raise where the system sets no such limit; 0 says that none is known.
func raiseOpenFileLimit() (limit uint64, err error) { return 0, nil }
