//go:build unix

package main

import (
	"os"
	"syscall"
)

// lockFile takes a file for this process alone, as long as it is open. False: another has it.
func lockFile(f *os.File) bool {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}
