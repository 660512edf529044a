package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// stateDB keeps what is revoked, and the logical clock, in a file over restarts:
// Celery's --statedb. The form is ours, since Celery's is a shelf of pickles,
// which nothing here reads.
type stateDB struct {
	path string        // "": nothing is kept
	wake chan struct{} // something has changed

	mu   sync.Mutex    // guards what follows
	done chan struct{} // closed when the next write has ended; nil: nobody waits

	writing sync.Mutex // one write at a time
}

// state is the form of the file: JSON, times in seconds since 1970.
type state struct {
	Version int              `json:"version"`
	Clock   int64            `json:"clock"`
	Revoked map[string]int64 `json:"revoked"`           // by task id
	Stamps  map[string]int64 `json:"stamped,omitempty"` // by header=value
}

const (
	stateVersion = 1
	maxState     = 64 << 20               // the largest file that is read
	stateEvery   = 100 * time.Millisecond // between two writes
)

// kept returns what tells that all that is known now has been written, or that
// it cannot be.
func (s *stateDB) kept() <-chan struct{} {
	if s.path == "" {
		return closedChan
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done == nil {
		s.done = make(chan struct{})
	}
	ring(s.wake)
	return s.done
}

func (s *stateDB) take() (done chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	done, s.done = s.done, nil
	return done
}

// startState takes over what the file has, and keeps it up to date from now on.
// A file that cannot be written ends the start; one that cannot be read does not.
func (w *Worker) startState(context.Context, Parent) error {
	w.group.Go(func() { w.keepRevokes(w.work) })
	if w.db.path == "" {
		return nil
	}
	if err := w.loadState(); err != nil {
		return err
	}
	if err := w.saveState(); err != nil {
		return err
	}
	w.group.Go(func() { w.keepState(w.work) })
	return nil
}

// stopState writes the file a last time, with the clock as it is then.
func (w *Worker) stopState(context.Context, Parent) error {
	if w.db.path == "" {
		return nil
	}
	return w.saveState()
}

// keepState writes what changes until ctx ends. A disk that is full, say, is
// tried again.
func (w *Worker) keepState(ctx context.Context) {
	defer w.rescue("state", func(error) {})
	for wait, told := stateEvery, false; ; {
		select {
		case <-w.db.wake:
		case <-ctx.Done():
			return
		}
		done := w.db.take()
		switch err := w.saveState(); {
		case err == nil:
			wait, told = stateEvery, false
		default:
			if !told {
				told = true
				w.log.Error("revokes are not kept over a restart; trying again: "+err.Error(), "error", err)
			}
			ring(w.db.wake)
			wait = w.longer(wait)
		}
		if done != nil {
			close(done)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// loadState reads the file. One that cannot be understood is set aside.
func (w *Worker) loadState() error {
	path := w.db.path
	st, err := readState(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, errNoState):
		aside := path + ".corrupt"
		if err := os.Rename(path, aside); err != nil {
			return fmt.Errorf("worker_state_db: set the unreadable file aside: %w", err)
		}
		w.log.Error("The state file is set aside, and the worker starts with no revokes of its own: "+err.Error(), "file", path, "aside", aside)
		return nil
	case err != nil:
		return fmt.Errorf("worker_state_db: %w", err)
	}
	w.app.Clock().Adjust(st.Clock)
	w.revokes.restore(st.Revoked)
	w.stamps.restore(st.Stamps)
	return nil
}

var errNoState = errors.New("it is no state file of this worker's")

func readState(path string) (*state, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > maxState {
		return nil, fmt.Errorf("%w: %d bytes, more than the %d that are read", errNoState, info.Size(), maxState)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var st state
	if err := json.Unmarshal(text, &st); err != nil {
		return nil, fmt.Errorf("%w (Celery's, a Python shelf, cannot be read): %v", errNoState, err)
	}
	if st.Version != stateVersion {
		return nil, fmt.Errorf("%w: version %d, not %d", errNoState, st.Version, stateVersion)
	}
	return &st, nil
}

// saveState writes the file, whole or not at all.
func (w *Worker) saveState() (err error) {
	w.db.writing.Lock()
	defer w.db.writing.Unlock()
	text, err := json.Marshal(state{stateVersion, w.app.Clock().Value(), w.revokes.seconds(), w.stamps.seconds()})
	if err == nil {
		err = replaceFile(w.db.path, text)
	}
	if err != nil {
		return fmt.Errorf("worker_state_db: %w", err)
	}
	return nil
}

// replaceFile puts a new file in the place of the old one.
func replaceFile(path string, text []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// seconds is the set as the file has it.
func (s *revoked) seconds() map[string]int64 {
	known := s.all(time.Now())
	out := make(map[string]int64, len(known))
	for id, at := range known {
		out[id] = at.Unix()
	}
	return out
}

// restore takes over what a file had, the oldest first, since those make room.
func (s *revoked) restore(known map[string]int64) {
	ids := make([]string, 0, len(known))
	for id := range known {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int { return int(known[a] - known[b]) })
	for _, id := range ids {
		s.add(time.Unix(known[id], 0), id)
	}
}
