// Model loads a model once per process and asks it from many runs at once.
//
// Celery's workers are processes, so a model loaded before the fork may break in
// the children and one loaded after it is there once for each of them; people
// put it into the task class and pay for N copies. Here the runs of a process
// are goroutines: Init loads one model, and all of them share it. Its
// counterpart for several processes, a model kept in memcached, comes with the
// memcached backend.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/memory" // the scheme memory:
	"github.com/lovage-go/lovage/worker"
)

// Classify is the task class. Its fields are set in Init and only read after.
type Classify struct {
	lovage.Task
	model *Classifier
	loads atomic.Int64
}

// Petal is what the task is called with.
type Petal struct{ Length, Width float64 }

// Init loads the model: once, before the first run, in processes that run tasks.
func (t *Classify) Init(ctx context.Context) error {
	t.loads.Add(1)
	t.model = Train(grow(1, 600))
	return nil
}

// Run is called by many goroutines at once.
func (t *Classify) Run(ctx context.Context, in Petal) (string, error) {
	return t.model.Predict([2]float64{in.Length, in.Width}), nil
}

func run(ctx context.Context, out io.Writer) error {
	app := lovage.New("model", lovage.Config{BrokerURL: "memory://model", ResultBackend: "memory://model"})
	defer app.Close(context.WithoutCancel(ctx))
	classify := lovage.Register(app, "model.classify", &Classify{})

	return withWorker(ctx, app, worker.Config{Concurrency: 8}, func(ctx context.Context) error {
		flowers := grow(2, 200) // which the model has never seen
		answers := make([]*lovage.Result[string], len(flowers))
		for i, f := range flowers {
			var err error
			if answers[i], err = classify.Delay(ctx, Petal{f.Petal[0], f.Petal[1]}); err != nil {
				return err
			}
		}
		right := 0
		for i, answer := range answers {
			kind, err := answer.Get(ctx)
			if err != nil {
				return err
			}
			if kind == flowers[i].Kind {
				right++
			}
		}
		fmt.Fprintf(out, "predictions: %d, by 8 runs at a time\n", len(answers))
		fmt.Fprintf(out, "right: %d %%\n", 100*right/len(answers))
		fmt.Fprintf(out, "model loaded: %d time\n", classify.Self.loads.Load())
		return nil
	})
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
	slog.SetLogLoggerLevel(slog.LevelError) // without it: a line for each step
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
