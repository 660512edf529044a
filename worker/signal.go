package worker

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/lovage-go/lovage"
)

// HandleSignals lets the signals of the process stop the worker, as Celery's
// do: the first SIGTERM or SIGINT warm, the second cold; SIGQUIT cold at once;
// the one after that ends the process with exit code 1. It returns what ends
// the handling.
func (w *Worker) HandleSignals() (stop func()) {
	ch := make(chan os.Signal, 4)
	done, gone := make(chan struct{}), make(chan struct{})
	signal.Notify(ch, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	go func() {
		defer close(gone)
		how := How("")
		for {
			select {
			case s := <-ch:
				how = w.signalled(s, how)
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(ch)
		close(done)
		<-gone
	}
}

func (w *Worker) signalled(s os.Signal, how How) How {
	switch {
	case how == Cold:
		w.log.Error("worker: told to stop a third time; exiting at once", "signal", s.String())
		os.Exit(1)
	case how == Warm, s == syscall.SIGQUIT:
		how = Cold
	default:
		how = Warm
	}
	w.request(stopRequest{how: how, signal: s.String()})
	return how
}

// Run makes a worker for app, runs it until ctx ends or a signal stops it, and
// closes the app.
func Run(ctx context.Context, app *lovage.App, cfg Config) error {
	w := New(app, cfg)
	defer w.HandleSignals()()
	err := w.Run(ctx)
	return errors.Join(err, app.Close(context.WithoutCancel(ctx)))
}
