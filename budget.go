package main

import (
	"sync"
	"sync/atomic"
)

// Budget is the account of all bytes that the process holds for its clients: queued for slow readers, and
// received of messages that are not whole yet. When it is overdrawn, the largest holder is cut.
//
// A shared frame counts once for each queue it stands in: the account bounds the worst case.
type Budget struct {
	limit int64                       // bytes; immutable
	each  func(visit func(o *Outbox)) // calls visit for every live connection's outbox; immutable
	total atomic.Int64                // bytes held now; changed by outboxes under their own mutex
	mu    sync.Mutex                  // held while somebody is cut, so that no second one is for the same bytes
}

// over reports whether the account is overdrawn. Any goroutine.
func (b *Budget) over() bool { return b.total.Load() > b.limit }

// relieve cuts the largest holders, one after the other, until the account is in order. While somebody else is at it nobody
// waits: shards have better things to do, and whoever is at it looks once more at the end. Any goroutine that holds no outbox's mutex.
func (b *Budget) relieve() {
	for b.over() && b.mu.TryLock() {
		cut := b.cutLargest()
		b.mu.Unlock()
		if !cut {
			return
		}
	}
}

// cutLargest cuts the largest holder, whose bytes leave the account with that. False: nobody holds anything. Called with mu held.
func (b *Budget) cutLargest() bool {
	var largest *Outbox
	var most int64
	b.each(func(o *Outbox) {
		if held := o.held(); held > most {
			largest, most = o, held
		}
	})
	if largest == nil {
		return false
	}
	largest.end(MemoryPressure)
	return true
}
