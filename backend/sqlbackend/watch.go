package sqlbackend

import (
	"context"
	"fmt"
	"sync"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/internal/sqlstore"
)

// watchers tell many watches of one process about results with one look at the
// store for each ring of the doorbell. The looking goroutine lives while there
// are watches.
type watchers struct {
	db *sqlstore.DB

	mu     sync.Mutex
	closed bool
	byID   map[string]map[*watch]struct{}
	count  int
	stop   context.CancelFunc // of the goroutine; nil: none runs
	done   chan struct{}
}

func newWatchers(db *sqlstore.DB) *watchers {
	return &watchers{db: db, byID: map[string]map[*watch]struct{}{}}
}

type watch struct {
	all  *watchers
	ids  []string
	ring chan struct{}
	once sync.Once
}

// Watch rings after a result of one of the ids was written, at the latest
// 250 ms after it.
func (b *Backend) Watch(ctx context.Context, ids ...string) (backend.Watch, error) {
	ws := b.watch
	w := &watch{all: ws, ids: append([]string(nil), ids...), ring: make(chan struct{}, 1)}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.closed {
		return nil, fmt.Errorf("sqlite %s: %w", ws.db.Path(), backend.ErrClosed)
	}
	if ws.stop == nil {
		seq, err := ws.seq(ctx)
		if err != nil {
			return nil, fault(err)
		}
		run, stop := context.WithCancel(context.Background())
		before := ws.done
		ws.stop, ws.done = stop, make(chan struct{})
		ear := ws.db.Ear(sqlstore.BellResults)
		ear.Listen()
		go ws.run(run, ear, seq, before, ws.done)
	}
	for _, id := range w.ids {
		set := ws.byID[id]
		if set == nil {
			set = map[*watch]struct{}{}
			ws.byID[id] = set
		}
		set[w] = struct{}{}
	}
	ws.count++
	return w, nil
}

func (ws *watchers) seq(ctx context.Context) (seq int64, err error) {
	err = ws.db.View(ctx, func(tx *sqlstore.Tx) (err error) {
		seq, err = tx.Seq()
		return err
	})
	return seq, err
}

// run looks after each ring, and every 250 ms, for what was written since.
// before is the end of the goroutine that ran before this one.
func (ws *watchers) run(ctx context.Context, ear *sqlstore.Ear, seen int64, before <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	if before != nil {
		defer func() { <-before }()
	}
	defer ear.Close()
	for {
		if ear.Wait(ctx, sqlstore.SafetyPoll, nil) != nil {
			return
		}
		// An error stays silent: it meets whoever then fetches, and the next look comes.
		seen, _ = ws.look(ctx, seen)
	}
}

// look rings for the results written after seen. With few watches it asks for
// their ids; with many, or few news, it reads the news. It rings with no reader
// in hand: Watch holds mu while it waits for one.
func (ws *watchers) look(ctx context.Context, seen int64) (next int64, err error) {
	last, err := ws.seq(ctx)
	if err != nil || last == seen {
		return seen, err
	}
	// The ids are taken after last was read: who watches from now on finds by a
	// look of his own what was written up to there.
	if ids, all := ws.some(); all && last-seen > int64(4*len(ids)) {
		var changed []string
		err := ws.db.View(ctx, func(tx *sqlstore.Tx) error {
			changed = changed[:0]
			for _, id := range ids {
				yes, err := tx.ResultChanged(id, seen)
				if err != nil {
					return err
				}
				if yes {
					changed = append(changed, id)
				}
			}
			return nil
		})
		if err != nil {
			return seen, err
		}
		ws.ringFor(changed...)
		return last, nil
	}
	const most = 1000
	for next = seen; ; {
		var news []string
		upTo := next
		err := ws.db.View(ctx, func(tx *sqlstore.Tx) (err error) {
			news, upTo, err = tx.ResultsSince(next, most)
			return err
		})
		if err != nil {
			return next, err
		}
		ws.ringFor(news...)
		if next = upTo; len(news) < most {
			return max(next, last), nil
		}
	}
}

// some are ids that are watched, up to lookup; all: there are no others.
func (ws *watchers) some() (ids []string, all bool) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ids = make([]string, 0, min(len(ws.byID), lookup))
	for id := range ws.byID {
		if len(ids) == cap(ids) {
			break
		}
		ids = append(ids, id)
	}
	return ids, len(ids) == len(ws.byID)
}

// lookup is how many ids are worth a question each.
const lookup = 64

func (ws *watchers) ringFor(ids ...string) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, id := range ids {
		for w := range ws.byID[id] {
			select {
			case w.ring <- struct{}{}:
			default:
			}
		}
	}
}

func (w *watch) Ring() <-chan struct{} { return w.ring }

func (w *watch) Close() error {
	w.once.Do(func() {
		ws := w.all
		ws.mu.Lock()
		defer ws.mu.Unlock()
		for _, id := range w.ids {
			if set := ws.byID[id]; set != nil {
				if delete(set, w); len(set) == 0 {
					delete(ws.byID, id)
				}
			}
		}
		ws.count--
		ws.idle()
	})
	return nil
}

// idle ends the goroutine when nobody watches. The caller holds mu; the
// goroutine is waited for by close, or ends by itself.
func (ws *watchers) idle() {
	if ws.count == 0 && ws.stop != nil {
		ws.stop()
		ws.stop = nil
	}
}

func (ws *watchers) close() {
	ws.mu.Lock()
	ws.closed = true
	if ws.stop != nil {
		ws.stop()
		ws.stop = nil
	}
	done := ws.done
	ws.mu.Unlock()
	if done != nil {
		<-done
	}
}
