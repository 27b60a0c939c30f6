package main

import (
	"crypto/sha256"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"letshare/ably"
)

// ablyRevocationClaim is the claim by which a token can be revoked together with others, at will of whoever made it.
const ablyRevocationClaim = "x-ably-revocation-key"

// revocable is what must be known of a token that can be revoked: those of keys with revocableTokens can. Immutable, shared.
type revocable struct {
	issued  int64      // ms since 1970
	targets [][16]byte // by which it can be revoked
}

// revocationTarget is the hash of a target: a kind and what it names, of the tokens of one key.
func revocationTarget(keyName, kind, name string) [16]byte {
	sum := sha256.Sum256([]byte(keyName + "\n" + kind + ":" + name))
	return [16]byte(sum[:])
}

// newRevocable collects by what a token can be revoked: its clientId, its revocation key, and each resource of its capability.
func newRevocable(c *ablyClaims, revocationKey string) *revocable {
	r := &revocable{issued: c.issued}
	if c.clientID != "" {
		r.targets = append(r.targets, revocationTarget(c.key.name, "clientId", c.clientID))
	}
	if revocationKey != "" {
		r.targets = append(r.targets, revocationTarget(c.key.name, "revocationKey", revocationKey))
	}
	for i := range c.capability.rules {
		r.targets = append(r.targets, revocationTarget(c.key.name, "channel", c.capability.rules[i].resource.text))
	}
	return r
}

// revocation takes back the tokens of one target that were issued before a time, from another time on. Both in ms since 1970.
type revocation struct{ issuedBefore, appliesAt int64 }

// over says that no token lives any more that the revocation could take back.
func (r revocation) over(now int64) bool {
	return now > r.issuedBefore+maxRevocableTTL.Milliseconds() && now > r.appliesAt
}

// ablyRevocations remembers which tokens have been revoked, until the last of them has ended anyway. It outlives reloads.
// Any goroutine may call its methods; a nil one remembers nothing.
type ablyRevocations struct {
	some atomic.Bool // there are any: while there are none, nobody waits for mu

	mu       sync.Mutex
	byTarget map[[16]byte][]revocation // at most maxRevocationsEach of each
	sweepAt  int                       // how many targets make it worth looking for what is over
}

// add remembers a revocation. False: there are too many.
func (v *ablyRevocations) add(target [16]byte, r revocation, now int64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.byTarget) >= v.sweepAt {
		v.sweep(now)
	}
	list, known := v.byTarget[target]
	if !known && len(v.byTarget) >= maxRevocations {
		return false
	}
	if v.byTarget == nil {
		v.byTarget = make(map[[16]byte][]revocation)
	}
	// One that takes back no more tokens than another, and no earlier, adds nothing.
	list = slices.DeleteFunc(list, func(old revocation) bool {
		return old.over(now) || old.issuedBefore <= r.issuedBefore && old.appliesAt >= r.appliesAt
	})
	if len(list) == maxRevocationsEach {
		last := &list[len(list)-1]
		last.issuedBefore, last.appliesAt = max(last.issuedBefore, r.issuedBefore), min(last.appliesAt, r.appliesAt)
	} else {
		list = append(list, r)
	}
	v.byTarget[target] = list
	v.some.Store(true)
	return true
}

// sweep forgets what is over. Under mu.
func (v *ablyRevocations) sweep(now int64) {
	for target, list := range v.byTarget {
		if !slices.ContainsFunc(list, func(r revocation) bool { return !r.over(now) }) {
			delete(v.byTarget, target)
		}
	}
	v.sweepAt = min(2*len(v.byTarget)+1024, maxRevocations)
	v.some.Store(len(v.byTarget) > 0)
}

// judge says whether a token has been revoked, and whether that will be so before long.
func (v *ablyRevocations) judge(token *revocable, now int64) (revoked, soon bool) {
	if v == nil || token == nil || !v.some.Load() {
		return false, false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, target := range token.targets {
		for _, r := range v.byTarget[target] {
			if token.issued < r.issuedBefore {
				revoked = revoked || now >= r.appliesAt
				soon = true
			}
		}
	}
	return revoked, soon
}

// heed makes the rules go by what has been revoked. Before they are in force.
func (r *rules) heed(v *ablyRevocations) {
	if r.ably != nil {
		r.ably.auth.revoked = v
	}
}

// revocationRequest is the body of a revocation.
type revocationRequest struct {
	targets      []string
	issuedBefore int64 // ms since 1970
	margin       bool  // the clients may get new tokens before it applies
}

// parseRevocation reads the body. issuedBefore may be up to an hour ago, and is now if it is not given.
func parseRevocation(format ably.Format, body []byte, now int64) (revocationRequest, *ably.ErrorInfo) {
	q := revocationRequest{issuedBefore: now}
	value, err := ably.DecodeValue(format, body)
	object, ok := value.(ably.Object)
	if err != nil || !ok {
		return q, ablyBadRequest(40000, "the body is no object")
	}
	for _, field := range object {
		switch field.Key {
		case "targets":
			q.targets = textList(field.Value)
		case "issuedBefore":
			if field.Value == nil {
				continue
			}
			if q.issuedBefore, ok = wholeNumber(field.Value); !ok || q.issuedBefore > now || q.issuedBefore < now-maxRevocableTTL.Milliseconds() {
				return q, ablyBadRequest(40000, "issuedBefore is a time in milliseconds since 1970, not in the future and within the last hour")
			}
		case "allowReauthMargin":
			if q.margin, ok = field.Value.(bool); !ok && field.Value != nil {
				return q, ablyBadRequest(40000, "allowReauthMargin is true or false")
			}
		}
	}
	if len(q.targets) == 0 || len(q.targets) > maxRevocationTargets {
		return q, ablyBadRequest(40000, fmt.Sprintf("targets is a list of 1 to %d texts", maxRevocationTargets))
	}
	return q, nil
}

// wholeNumber reads a number that came by either codec.
func wholeNumber(value any) (int64, bool) {
	switch n := value.(type) {
	case int64:
		return n, true
	case float64:
		return int64(n), n == math.Trunc(n) && math.Abs(n) < 1<<53
	}
	return 0, false
}

// revoke answers POST /keys/K/revokeTokens. What is wrong with one target does not keep the others from being revoked.
func (q *ablyRequest) revoke(keyName string) {
	now := time.Now().UnixMilli()
	problem := q.mayRevoke(keyName)
	var body []byte
	var format ably.Format
	if problem == nil {
		body, format, problem = q.body()
	}
	var wanted revocationRequest
	if problem == nil {
		wanted, problem = parseRevocation(format, body, now)
	}
	if problem == nil {
		problem = q.spend(len(wanted.targets) - 1) // the request itself has been counted as one
	}
	if problem != nil {
		q.fail(problem)
		return
	}
	r := revocation{wanted.issuedBefore, now}
	if wanted.margin {
		r.appliesAt += ablyRenewal.Milliseconds()
	}
	results, failures := make([]any, 0, len(wanted.targets)), 0
	for _, target := range wanted.targets {
		result := ably.Object{{Key: "target", Value: target}}
		if problem := q.revokeTarget(keyName, target, r, now); problem != nil {
			failures++
			result = append(result, ably.Field{Key: "error", Value: problem})
		} else {
			result = append(result, ably.Field{Key: "issuedBefore", Value: r.issuedBefore}, ably.Field{Key: "appliesAt", Value: r.appliesAt})
		}
		results = append(results, result)
	}
	q.server.log.Info("tokens revoked", "key", keyName, "targets", len(results)-failures, "refused", failures, "address", q.address.String())
	q.answer(http.StatusCreated, ably.AppendValue(nil, q.format, ably.Object{
		{Key: "successCount", Value: len(results) - failures}, {Key: "failureCount", Value: failures}, {Key: "results", Value: results},
	}))
}

// mayRevoke says whether who asks holds the key whose tokens are meant, and whether they can be revoked.
func (q *ablyRequest) mayRevoke(keyName string) *ably.ErrorInfo {
	switch {
	case q.identity.expires != 0:
		return ablyUnauthorized(40162, "tokens are revoked with the key that they were made with, not with a token")
	case q.identity.keyName != keyName:
		return ablyUnauthorized(40101, "these tokens are another key's")
	case !q.identity.key.revocable:
		return ablyUnauthorized(40164, "the tokens of this key cannot be revoked: it has no revocableTokens")
	}
	return nil
}

// revokeTarget remembers a revocation for one target, as kind:name.
func (q *ablyRequest) revokeTarget(keyName, target string, r revocation, now int64) *ably.ErrorInfo {
	kind, name, _ := strings.Cut(target, ":")
	switch {
	case kind != "clientId" && kind != "revocationKey" && kind != "channel":
		return ablyBadRequest(40000, "a target is clientId:…, revocationKey:… or channel:…")
	case name == "":
		return ablyBadRequest(40000, "the target names nothing")
	case !q.server.revocations.add(revocationTarget(keyName, kind, name), r, now):
		return &ably.ErrorInfo{Code: 42910, StatusCode: http.StatusTooManyRequests, Message: "too many revocations within the last hour"}
	}
	return nil
}
