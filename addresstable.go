package main

import (
	"net/netip"
	"sync"
	"time"
)

// addressTable remembers something of each client address, of an IPv6 one by its /64: two generations of at most
// maxCheckAddresses addresses. When the younger is full, the older is forgotten. Any goroutine; the zero table is empty.
type addressTable[T any] struct {
	mu         sync.Mutex
	young, old map[netip.Prefix]*T
}

// entry returns what is known of an address, at first the zero value. Called with mu held.
func (t *addressTable[T]) entry(address netip.Addr) *T {
	key := addressKey(address)
	if entry := t.young[key]; entry != nil {
		return entry
	}
	entry := t.old[key]
	if entry == nil {
		entry = new(T)
	}
	if t.young == nil || len(t.young) >= maxCheckAddresses {
		t.young, t.old = make(map[netip.Prefix]*T), t.young
	}
	t.young[key] = entry
	return entry
}

// askTable bounds how often each client address may ask for something. Any goroutine; the zero table is empty.
type askTable struct{ addressTable[bucket] }

// take reports whether the address may ask now, and counts it.
func (t *askTable) take(address netip.Addr, limit rate, now time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.entry(address).take(limit, 1, now)
}
