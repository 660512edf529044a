package worker

import (
	"sync"
	"time"
)

// revoked is the bounded set of task ids that must not run (Celery's 50 000 ids,
// for three hours each). The oldest make room.
type revoked struct {
	mu    sync.Mutex // guards what follows
	until map[string]time.Time
	order []string
}

func (s *revoked) add(now time.Time, ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until == nil {
		s.until = map[string]time.Time{}
	}
	for _, id := range ids {
		if _, known := s.until[id]; !known {
			s.order = append(s.order, id)
		}
		s.until[id] = now.Add(revokedFor)
	}
	for len(s.order) > maxRevoked {
		delete(s.until, s.order[0])
		s.order = s.order[1:]
	}
}

// has reports whether the id was revoked and is not forgotten yet.
func (s *revoked) has(now time.Time, id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.until) == 0 {
		return false
	}
	until, ok := s.until[id]
	return ok && now.Before(until)
}

// all are the ids that are not forgotten, with the time of their revocation.
func (s *revoked) all(now time.Time) map[string]time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]time.Time, len(s.until))
	for id, until := range s.until {
		if now.Before(until) {
			out[id] = until.Add(-revokedFor)
		}
	}
	return out
}
