package main

import (
	"testing"
	"unsafe"
)

// A connection is one allocation. The runtime's next size class is 896 bytes: one field too many costs 1.3 MB at 10,000 connections.
func TestAConnectionFitsItsSizeClass(t *testing.T) {
	if size := unsafe.Sizeof(conn{}); unsafe.Sizeof(uintptr(0)) == 8 && size > 768 {
		t.Errorf("a conn has %d bytes, the size class 768", size)
	}
}

// Unmasking by words must come to the same bytes as unmasking one by one, at every length.
func TestUnmask(t *testing.T) {
	for n := range 40 {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(i*7) ^ []byte{1, 2, 3, 4}[i%4]
		}
		unmask(p, [4]byte{1, 2, 3, 4})
		for i := range p {
			if p[i] != byte(i*7) {
				t.Fatalf("length %d: byte %d is %d", n, i, p[i])
			}
		}
	}
}
