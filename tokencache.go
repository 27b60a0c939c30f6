package main

import (
	"crypto/sha256"
	"sync"
)

// tokenCache remembers the claims (a T) of tokens whose signature was good. Many people paste the same token into the app,
// and checking a signature costs more than all the rest of letting somebody in. Whether the claims admit, the clock decides
// anew each time. Any goroutine.
type tokenCache[T any] struct {
	mu       sync.Mutex
	verified map[[sha256.Size]byte]T // by the token's hash; at most maxCachedTokens
}

func (c *tokenCache[T]) get(sum [sha256.Size]byte) (T, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	claims, ok := c.verified[sum]
	return claims, ok
}

// put remembers a token. When the cache is full, any other is forgotten.
func (c *tokenCache[T]) put(sum [sha256.Size]byte, claims T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.verified == nil {
		c.verified = make(map[[sha256.Size]byte]T)
	}
	if len(c.verified) >= maxCachedTokens {
		for other := range c.verified {
			delete(c.verified, other)
			break
		}
	}
	c.verified[sum] = claims
}
