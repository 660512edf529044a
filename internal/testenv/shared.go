package testenv

import (
	"sync"
	"testing"
)

// shared is a server that the tests of one binary use together: started for the
// first test that wants it, stopped when the last is done.
type shared[T any] struct {
	mu      sync.Mutex // guards what follows
	running T
	users   int
}

func (s *shared[T]) use(t testing.TB, start func() (T, error), stop func(T)) T {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == 0 {
		running, err := start()
		if err != nil {
			t.Fatal(err)
		}
		s.running = running
	}
	s.users++
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.users--; s.users == 0 {
			stop(s.running)
		}
	})
	return s.running
}
