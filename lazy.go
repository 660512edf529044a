package lovage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// OpenTimeout bounds one run of a [Lazy] opener unless the Lazy sets its own.
const OpenTimeout = 30 * time.Second

// ErrLazyClosed is returned by Get after Close.
var ErrLazyClosed = errors.New("lovage: the resource is closed: its task was shut down")

const (
	lazyBackoffMin = 50 * time.Millisecond
	lazyBackoffMax = 5 * time.Second
)

// Lazy is a resource that is opened at first need and then kept: a database
// pool, a model, a client. The zero value is ready. As a field of a task class
// it is opened once per process and closed when the task's App closes, in the
// reverse order of opening.
//
// The opener runs once at a time, under the values of the caller's context but
// not its cancellation, for at most Timeout. Every waiter leaves at its own
// deadline. A failure is handed to all who wait; the next Get tries again after
// a short back-off. All methods are safe for concurrent use. A Lazy must not be
// copied after first use: a copy panics.
//
// A Lazy in a struct that several classes embed by one pointer is shared by
// them and closes with the last. One behind a field that is a pointer is not the
// class's own: close it where it is made, or in Close.
type Lazy[T any] struct {
	noCopy noCopy
	// Timeout bounds one opening; 0 means OpenTimeout.
	Timeout time.Duration

	mu      sync.Mutex
	self    *Lazy[T] // set at first use, to detect copies
	value   T
	open    bool
	closed  bool
	opening *lazyOpening[T]
	delay   time.Duration // back-off after the last failure
	retryAt time.Time
	closer  func(context.Context, T) error
	owner   *lifecycle
}

type lazyOpening[T any] struct {
	done   chan struct{}
	cancel context.CancelCauseFunc
	value  T
	err    error
}

// noCopy makes go vet's copylocks check report copies.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// Get returns the resource and opens it first if need be. open is ignored when
// the resource is open already. ctx bounds only this caller's wait.
func (l *Lazy[T]) Get(ctx context.Context, open func(context.Context) (T, error)) (T, error) {
	l.mu.Lock()
	l.check()
	if l.open {
		v := l.value
		l.mu.Unlock()
		return v, nil
	}
	if l.closed {
		l.mu.Unlock()
		var zero T
		return zero, ErrLazyClosed
	}
	op := l.opening
	if op == nil {
		op = &lazyOpening[T]{done: make(chan struct{})}
		var octx context.Context
		octx, op.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
		l.opening = op
		go l.run(octx, op, time.Until(l.retryAt), open)
	}
	l.mu.Unlock()

	select {
	case <-op.done:
		return op.value, op.err
	case <-ctx.Done():
		var zero T
		return zero, fmt.Errorf("wait for the resource to open: %w", context.Cause(ctx))
	}
}

// run opens the resource. It ends by itself within the back-off plus Timeout,
// or at Close, provided that the opener obeys its context.
func (l *Lazy[T]) run(ctx context.Context, op *lazyOpening[T], wait time.Duration, open func(context.Context) (T, error)) {
	defer op.cancel(nil)
	if wait > 0 {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
	value, err := l.tryOpen(ctx, open)

	l.mu.Lock()
	l.opening = nil
	var orphan bool
	switch {
	case err != nil && l.closed:
		op.err = ErrLazyClosed
	case err != nil:
		l.delay = min(max(2*l.delay, lazyBackoffMin), lazyBackoffMax)
		l.retryAt = time.Now().Add(l.delay)
		op.err = err
	case l.closed: // closed while it was being opened
		op.err, orphan = ErrLazyClosed, true
	default:
		l.value, l.open, l.delay = value, true, 0
		l.retryAt = time.Time{}
		op.value = value
		if l.owner != nil {
			l.owner.opened(l)
		}
	}
	closer := l.closer
	l.mu.Unlock()
	if orphan {
		_ = guard(func() error { return closeValue(context.WithoutCancel(ctx), value, closer) })
	}
	close(op.done)
}

// tryOpen calls the opener once, in a goroutine that it cannot take down: a
// panic is its error, and so is runtime.Goexit.
func (l *Lazy[T]) tryOpen(ctx context.Context, open func(context.Context) (T, error)) (v T, err error) {
	if ctx.Err() != nil {
		return v, context.Cause(ctx)
	}
	timeout := l.Timeout
	if timeout <= 0 {
		timeout = OpenTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ended := make(chan struct{})
	err = errors.New("the opener ended its goroutine")
	go func() {
		defer close(ended)
		err = guard(func() (e error) { v, e = open(ctx); return e })
	}()
	<-ended
	return v, err
}

// OnClose sets how the resource is closed. Without it Close(ctx) error or
// Close() error of the resource is used, if it has one.
func (l *Lazy[T]) OnClose(f func(context.Context, T) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.check()
	l.closer = f
}

// Opened reports whether the resource is open.
func (l *Lazy[T]) Opened() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// Reset closes a broken resource, so that the next Get opens a new one.
func (l *Lazy[T]) Reset(ctx context.Context) error { return l.drop(ctx, false) }

// Close closes the resource for good: a Get after it is ErrLazyClosed. An
// opening under way is cancelled and waited for, as long as ctx allows. Closing
// twice, or what was never opened, is no error.
func (l *Lazy[T]) Close(ctx context.Context) error { return l.drop(ctx, true) }

func (l *Lazy[T]) drop(ctx context.Context, forGood bool) error {
	l.mu.Lock()
	l.check()
	l.closed = l.closed || forGood
	value, open, closer, op := l.value, l.open, l.closer, l.opening
	var zero T
	l.value, l.open = zero, false
	l.mu.Unlock()
	if forGood && op != nil {
		op.cancel(ErrLazyClosed)
		select {
		case <-op.done: // a value that came too late is closed by now
		case <-ctx.Done():
			return fmt.Errorf("wait for the opening that was under way: %w", context.Cause(ctx))
		}
	}
	if !open {
		return nil
	}
	return closeValue(ctx, value, closer)
}

// discard closes the resource if it is the one meant, and reports whether it was.
func (l *Lazy[T]) discard(ctx context.Context, meant func(T) bool) (bool, error) {
	l.mu.Lock()
	l.check()
	if !l.open || !meant(l.value) {
		l.mu.Unlock()
		return false, nil
	}
	value, closer := l.value, l.closer
	var zero T
	l.value, l.open = zero, false
	l.mu.Unlock()
	return true, closeValue(ctx, value, closer)
}

func (l *Lazy[T]) check() {
	if l.self == nil {
		l.self = l
	} else if l.self != l {
		panic("lovage: a Lazy was copied after first use; keep it in a struct that is used through a pointer")
	}
}

// lazyField is how a task's lifecycle sees its Lazy fields.
type lazyField interface {
	adopt(*lifecycle)
	Close(context.Context) error
}

// adopt makes o the owner, which closes the Lazy, unless another task came
// first: tasks are registered in the order of their names and close in reverse.
func (l *Lazy[T]) adopt(o *lifecycle) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.owner != nil {
		return
	}
	l.owner = o
	o.fields = append(o.fields, l)
	if l.open {
		o.opened(l)
	}
}

func closeValue[T any](ctx context.Context, v T, closer func(context.Context, T) error) error {
	if closer != nil {
		return closer(ctx, v)
	}
	switch c := any(v).(type) {
	case interface{ Close(context.Context) error }:
		return c.Close(ctx)
	case io.Closer:
		return c.Close()
	case interface{ Close() }:
		c.Close()
	}
	return nil
}

var _ lazyField = (*Lazy[int])(nil)
