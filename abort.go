package lovage

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/protocol"
)

// Aborted is the state by which a client asks a run to end: that of Celery's
// contrib.abortable. It is a wish, and no end: the run looks for it with
// [Request.Aborted], and what it returns is the result.
const Aborted = protocol.Aborted

// abortEvery is the least time between two looks of a run into the store.
const abortEvery = time.Second

// abortion is what a run knows of the wish to end it.
type abortion struct {
	mu     sync.Mutex // guards what follows
	told   bool       // that the store cannot say
	wanted bool
	looked time.Time
}

// Abort asks the run of the task to end, in Go or in Python (AbortableTask), by
// the state ABORTED in the result store; nothing happens if the task has ended.
// Whether and when it ends is the run's to decide. The wish stays until then, also
// for a task that has not started; only what a run in Python stores on its way
// overwrites it, as in Celery. With rpc:// no run can see it, and Abort is an error.
func (r *Result[Out]) Abort(ctx context.Context) error {
	if err := r.core.abort(ctx); err != nil {
		return fmt.Errorf("abort task %s: %w", r.core.id, err)
	}
	return nil
}

func (c *resultCore) abort(ctx context.Context) error {
	if c.meta != nil {
		return nil // it ran here, and has ended
	}
	b, err := c.app.Backend(ctx)
	if err != nil {
		return err
	}
	if _, apart := b.(backend.Expecter); apart {
		return fmt.Errorf("its run cannot read results that go to the process that made the call: revoke it, or use another result_backend than rpc://: %w", backend.ErrUnsupported)
	}
	m, err := c.fetch(ctx)
	if err != nil || m.Status.Ready() {
		return err
	}
	meta := Meta{Status: Aborted, TaskID: c.id}
	return b.Store(ctx, &protocol.Record{TaskID: c.id, State: Aborted, Meta: meta.AppendJSON(nil), Expires: c.app.resultExpires()})
}

// IsAborted reports whether the run of the task was asked to end and has not
// ended.
func (r *Result[Out]) IsAborted(ctx context.Context) (bool, error) {
	s, err := r.State(ctx)
	return s == Aborted, err
}

// Aborted reports whether a client has asked the run to end, in Go or in Python
// (AbortableAsyncResult.abort). A loop may call it as often as it likes: it reads
// the result store at most once a second, and waits a second for it at most. Where
// there is no store that can say it is false, and the log tells so once.
func (r *Request) Aborted() bool {
	a := &r.abort
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.wanted && (a.looked.IsZero() || time.Since(a.looked) >= abortEvery) {
		r.lookForAbort()
	}
	return a.wanted
}

// lookForAbort reads the store. The caller holds mu.
func (r *Request) lookForAbort() {
	if r.app == nil || r.IsEager {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), abortEvery)
	defer cancel()
	m, err := r.app.readable(ctx, r.ID)
	r.abort.looked = time.Now()
	switch {
	case err == nil:
		r.abort.wanted = m.Status == Aborted
	case !r.abort.told:
		r.abort.told = true
		r.Log().Warn("the run cannot see whether it is to be aborted: "+err.Error(), "error", err)
	}
}

// readable reads the record of a run from within it.
func (a *App) readable(ctx context.Context, id string) (*Meta, error) {
	b, err := a.Backend(ctx)
	if err != nil {
		return nil, err
	}
	if _, apart := b.(backend.Expecter); apart {
		return nil, errors.New("with rpc:// results go to the process that made the call")
	}
	return (&resultCore{app: a, id: id}).fetch(ctx)
}
