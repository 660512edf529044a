package lovage

import (
	"context"
	"fmt"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/control"
)

// Control is the client of remote control: it asks the workers of the whole
// fleet, Python's too, on the App's broker connection, which is opened at the
// first call.
func (a *App) Control() *control.Client {
	a.controlOnce.Do(func() {
		c := control.ClientConfig{
			Conn:  func(ctx context.Context) (broker.Conn, error) { return a.Broker(ctx) },
			Clock: &a.clock, NewID: a.rand.uuid, Logger: a.log,
		}
		if a.Freeze() == nil { // otherwise Broker tells what is wrong
			c.Namespace = a.conf.ControlExchange
			c.Revoking = a.keepRevoked
		}
		a.control = control.NewClient(c)
	})
	return a.control
}

// Revoke tells all workers not to run the task; with terminate a run under way
// is cancelled, in Go with ErrRevoked as the cause. Nobody confirms it: a worker
// that is cut off does not know. Go workers that start later read it in the
// result store, if there is one.
func (r *Result[Out]) Revoke(ctx context.Context, terminate bool) error {
	ask := r.core.app.Control().Revoke
	if terminate {
		ask = r.core.app.Control().Terminate
	}
	if _, err := ask(ctx, []string{r.core.id}, control.Options{}); err != nil {
		return fmt.Errorf("revoke task %s: %w", r.core.id, err)
	}
	return nil
}
