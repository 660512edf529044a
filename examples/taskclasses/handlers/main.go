// Handlers shows what happens around a run: BeforeStart, OnSuccess, OnFailure,
// OnRetry and AfterReturn.
//
// They are Celery's before_start, on_success, on_failure, on_retry and
// after_return, written once in a base class and inherited by embedding it. Each
// gets what Celery gives it: task id and arguments (in the request), the return
// value or the error with its traceback, and the state. A handler that fails
// changes neither the state of its task nor the fate of its message.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/signal"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	_ "github.com/lovage-go/lovage/memory" // the scheme memory:
	"github.com/lovage-go/lovage/worker"
)

func run(ctx context.Context, out io.Writer) error {
	mails, err := startSink()
	if err != nil {
		return err
	}
	defer mails.Close()

	app := lovage.New("handlers",
		lovage.Config{BrokerURL: "memory://handlers", ResultBackend: "memory://handlers"},
		lovage.WithLogger(slog.New(slog.DiscardHandler))) // the worker's log would say all of it again
	defer app.Close(context.WithoutCancel(ctx))

	base := func() Notifier { return Notifier{SMTPAddr: mails.Addr, Journal: log.New(out, "  ", 0)} }
	login := lovage.Register(app, "login_task", &LoginTask{base()})
	careless := lovage.Register(app, "careless", &Careless{base()})

	// Where a failed handler is reported, besides the log.
	app.Signals.TaskInternalError.Connect(func(ctx context.Context, e lovage.TaskInternalError) {
		fmt.Fprintf(out, "  reported:      %s: %v\n", e.Where, e.Err)
	})
	// The last thing a run does. A result is there before its handlers run.
	ended := make(chan struct{}, 16)
	app.Signals.TaskPostrun.Connect(func(context.Context, lovage.TaskPostrun) { ended <- struct{}{} })
	wait := func(ctx context.Context, runs int) error {
		for range runs {
			select {
			case <-ended:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	}

	// One run at a time, so that the output is in order.
	return withWorker(ctx, app, worker.Config{Concurrency: 1}, func(ctx context.Context) error {
		fmt.Fprintln(out, "the right password")
		if _, err := login.Delay(ctx, LoginArgs{Payload: encode(Login{"ann", "secret", "ann@example.org"})}); err != nil {
			return err
		}
		if err := wait(ctx, 1); err != nil {
			return err
		}
		fmt.Fprintln(out, "  mail:         ", mails.next())

		fmt.Fprintln(out, "a wrong password, retry sent by position")
		wrong := encode(Login{"eve", "guess", "eve@example.org"})
		if _, err := app.Send(ctx, "login_task", lovage.Args{Positional: []any{wrong, 0}}); err != nil {
			return err
		}
		if err := wait(ctx, 3); err != nil { // this one and two more
			return err
		}

		fmt.Fprintln(out, "a busy directory")
		if _, err := login.Delay(ctx, LoginArgs{Payload: encode(Login{"bob", "secret", "bob@example.org"})}); err != nil {
			return err
		}
		if err := wait(ctx, 2); err != nil { // the run and its retry
			return err
		}
		fmt.Fprintln(out, "  mail:         ", mails.next())

		fmt.Fprintln(out, "handlers that fail")
		res, err := careless.Delay(ctx, struct{}{})
		if err != nil {
			return err
		}
		if err := wait(ctx, 1); err != nil {
			return err
		}
		state, err := res.State(ctx)
		if err != nil {
			return err
		}
		left, err := unacked(ctx, app)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "  in the end:    %s, %d messages not acknowledged\n", state, left)
		return nil
	})
}

// unacked counts the messages of the default queue that nobody has settled.
func unacked(ctx context.Context, app *lovage.App) (int, error) {
	conn, err := app.Broker(ctx)
	if err != nil {
		return 0, err
	}
	lengths, err := conn.(broker.Lengther).Lengths(ctx, "celery")
	n := lengths["celery"]
	return n.Ready + n.Claimed + n.Delayed + n.Dead, err
}

// withWorker runs a worker while f runs, and ends with both.
func withWorker(ctx context.Context, app *lovage.App, cfg worker.Config, f func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	worked := make(chan error, 1)
	go func() {
		defer stop()
		worked <- worker.New(app, cfg).Run(ctx)
	}()
	err := f(ctx)
	stop()
	return errors.Join(err, <-worked)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
