package lovage

import (
	"context"

	"github.com/lovage-go/lovage/protocol"
)

// An interceptor wraps what an App publishes or executes; it has one or both
// of these methods. It may change the context and the headers, or refuse by
// not calling next. Interceptors run outermost first, in the order of Use.
type (
	// PublishInterceptor wraps the sending of one message: a call, a callback or
	// errback, a retry. For the last three next only adds it to the effects of
	// the run, which are sent together. An error for a callback fails the task,
	// one for a retry makes it a Reject, one for an errback is logged.
	PublishInterceptor interface {
		Publish(ctx context.Context, m *protocol.Message, next func(context.Context, *protocol.Message) error) error
	}
	// ExecuteInterceptor wraps one run, from its start to its last hook. When
	// next returns the run is over, its message settled: what Execute returns
	// then is for the caller's eyes. Without next, the Outcome returned is that
	// of the run: its result is stored and its message settled accordingly, and
	// one without a State and an Info is a failure. Call next at most once.
	ExecuteInterceptor interface {
		Execute(ctx context.Context, r *Request, next func(context.Context, *Request) Outcome) Outcome
	}
)

type (
	publishFunc func(context.Context, *protocol.Message) error
	executeFunc func(context.Context, *Request, Finisher) Outcome
)

// Use adds interceptors. It panics after the App's first use, and for a value
// that is neither kind of interceptor.
func (a *App) Use(interceptors ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.frozen {
		panic("lovage: Use after the app's first use; add interceptors where you declare tasks")
	}
	for _, i := range interceptors {
		_, p := i.(PublishInterceptor)
		_, e := i.(ExecuteInterceptor)
		if !p && !e {
			panic("lovage: Use: the value has neither a Publish nor an Execute method of an interceptor")
		}
		a.interceptors = append(a.interceptors, i)
	}
}

func publishChain(interceptors []any, last publishFunc) publishFunc {
	for i := len(interceptors) - 1; i >= 0; i-- {
		if p, ok := interceptors[i].(PublishInterceptor); ok {
			next := last
			last = func(ctx context.Context, m *protocol.Message) error { return p.Publish(ctx, m, next) }
		}
	}
	return last
}

func executeChain(interceptors []any, last executeFunc) executeFunc {
	for i := len(interceptors) - 1; i >= 0; i-- {
		if e, ok := interceptors[i].(ExecuteInterceptor); ok {
			next := last
			last = func(ctx context.Context, r *Request, fin Finisher) Outcome {
				return e.Execute(ctx, r, func(ctx context.Context, r *Request) Outcome { return next(ctx, r, fin) })
			}
		}
	}
	return last
}
