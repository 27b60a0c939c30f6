package main

import "time"

// throttle remembers which error frames a connection was sent of late, so that the same reason for the same room is
// said at most once in errorRepeat. It is bounded: the longest ago is forgotten first. Guarded by Member.mu.
type throttle struct {
	said []saidError // at most maxThrottled
}

type saidError struct {
	reason Reason
	room   string
	at     time.Time
}

// allow reports whether the error may be said now, and remembers that it was.
func (t *throttle) allow(reason Reason, room string, now time.Time) bool {
	oldest := 0
	for i := range t.said {
		s := &t.said[i]
		if s.reason == reason && s.room == room {
			if now.Sub(s.at) < errorRepeat {
				return false
			}
			s.at = now
			return true
		}
		if s.at.Before(t.said[oldest].at) {
			oldest = i
		}
	}
	entry := saidError{reason, room, now}
	if len(t.said) < maxThrottled {
		t.said = append(t.said, entry)
	} else {
		t.said[oldest] = entry
	}
	return true
}

// mayTell reports whether an error without an id may be sent to the member now. Any goroutine.
func (m *Member) mayTell(reason Reason, room string, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.told.allow(reason, room, now)
}
