// Package startstop runs the goroutines of a service, so that its Run blocks
// until all of them are gone.
package startstop

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
)

// Group is a set of named goroutines that share a context. The first that ends
// with an error, or panics, cancels it with that error as the cause; one that
// ends with nil ends alone. It is safe for concurrent use.
type Group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	mu    sync.Mutex // guards first
	first error
}

// New returns an empty group whose context is derived from ctx.
func New(ctx context.Context) *Group {
	g := new(Group)
	g.ctx, g.cancel = context.WithCancelCause(ctx)
	return g
}

// Context is what the goroutines run under.
func (g *Group) Context() context.Context { return g.ctx }

// Go starts f. An error is wrapped with name; the cause of the group's own end,
// which f returns because it was told to stop, is no error. Go must not be called
// after Wait has returned.
func (g *Group) Go(name string, f func(ctx context.Context) error) {
	g.wg.Go(func() {
		if err := run(g.ctx, f); err != nil && !g.stopped(err) {
			g.fail(fmt.Errorf("%s: %w", name, err))
		}
	})
}

// stopped reports whether err only says that the group was told to stop.
func (g *Group) stopped(err error) bool {
	return g.ctx.Err() != nil && (errors.Is(err, context.Cause(g.ctx)) || errors.Is(err, context.Canceled))
}

func (g *Group) fail(err error) {
	g.mu.Lock()
	if g.first == nil {
		g.first = err
	}
	g.mu.Unlock()
	g.cancel(err)
}

// Stop cancels the group's context with a cause; Wait then returns nil unless a
// goroutine fails on its way out.
func (g *Group) Stop(cause error) { g.cancel(cause) }

// Wait blocks until every goroutine has ended and returns the first error, nil
// if they ended by themselves or because they were told to.
func (g *Group) Wait() error {
	g.wg.Wait()
	g.cancel(nil)
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.first
}

// PanicError is a panic as an error, with the stack of where it was raised.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.Value, e.Stack) }

// Unwrap gives the value if it was an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

func run(ctx context.Context, f func(ctx context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	return f(ctx)
}
