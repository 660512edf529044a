package lovage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
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
	lastErr error
	delay   time.Duration // back-off after lastErr
	retryAt time.Time
	closer  func(context.Context, T) error
	owner   *lifecycle
}

type lazyOpening[T any] struct {
	done  chan struct{}
	value T
	err   error
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
		l.opening = op
		wait := time.Until(l.retryAt)
		go l.run(context.WithoutCancel(ctx), op, wait, open)
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
// provided that the opener obeys its context.
func (l *Lazy[T]) run(ctx context.Context, op *lazyOpening[T], wait time.Duration, open func(context.Context) (T, error)) {
	if wait > 0 {
		timer := time.NewTimer(wait)
		<-timer.C
	}
	l.mu.Lock()
	if l.closed {
		l.opening = nil
		l.mu.Unlock()
		op.err = ErrLazyClosed
		close(op.done)
		return
	}
	l.mu.Unlock()
	timeout := l.Timeout
	if timeout <= 0 {
		timeout = OpenTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	value, err := openSafely(ctx, open)

	l.mu.Lock()
	l.opening = nil
	var orphan bool
	switch {
	case err != nil:
		l.delay = min(max(2*l.delay, lazyBackoffMin), lazyBackoffMax)
		l.retryAt = time.Now().Add(l.delay)
		l.lastErr = err
		op.err = err
	case l.closed: // closed while it was being opened
		op.err, orphan = ErrLazyClosed, true
	default:
		l.value, l.open, l.lastErr, l.delay = value, true, nil, 0
		l.retryAt = time.Time{}
		op.value = value
		if l.owner != nil {
			l.owner.opened(l)
		}
	}
	closer := l.closer
	l.mu.Unlock()
	if orphan {
		_ = closeValue(ctx, value, closer)
	}
	close(op.done)
}

func openSafely[T any](ctx context.Context, open func(context.Context) (T, error)) (v T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	return open(ctx)
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

// Close closes the resource for good. Closing twice, or what was never opened,
// is no error.
func (l *Lazy[T]) Close(ctx context.Context) error { return l.drop(ctx, true) }

func (l *Lazy[T]) drop(ctx context.Context, forGood bool) error {
	l.mu.Lock()
	l.check()
	l.closed = l.closed || forGood
	value, open, closer := l.value, l.open, l.closer
	var zero T
	l.value, l.open = zero, false
	l.mu.Unlock()
	if !open {
		return nil
	}
	return closeValue(ctx, value, closer)
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

func (l *Lazy[T]) adopt(o *lifecycle) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.owner = o
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
