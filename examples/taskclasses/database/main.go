// Database gives tasks a base class that holds a database connection.
//
// It is the DatabaseTask of Celery's documentation, with its db property and its
// process_rows: opened once per process, never per call, and within reach from
// outside through the task. In Go the property is a method over a Lazy field,
// safe when many runs ask at once, and closed when the process ends.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/memory" // the scheme memory:
	"github.com/lovage-go/lovage/worker"
)

// processRows is a function bound to its base: Python's bind=True, base=DatabaseTask.
func processRows(ctx context.Context, self *DatabaseTask, _ struct{}) (int, error) {
	return self.sum(ctx, "true")
}

// PriceOf is a class on the base.
type PriceOf struct{ DatabaseTask }

// Run looks up one price; fruit that is not there costs nothing.
func (t *PriceOf) Run(ctx context.Context, fruit string) (int, error) {
	return t.sum(ctx, "name = ?", fruit)
}

// cheaper is a plain function. Self finds the base that its declaration gives it.
func cheaper(ctx context.Context, than int) (int, error) {
	return lovage.Self[*DatabaseTask](ctx).sum(ctx, "price < ?", than)
}

// dearer is a plain function too, with the app's default base.
func dearer(ctx context.Context, than int) (int, error) {
	return lovage.Self[*DatabaseTask](ctx).sum(ctx, "price > ?", than)
}

func run(ctx context.Context, out io.Writer) error {
	dir, err := os.MkdirTemp("", "lovage-example-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	shared := &Database{Path: filepath.Join(dir, "fruit.db")}
	base := func() lovage.Base { return &DatabaseTask{Database: shared, Out: out} }

	app := lovage.New("database",
		lovage.Config{BrokerURL: "memory://database", ResultBackend: "memory://database"},
		lovage.WithDefaultTask(base)) // for the tasks that bring no class of their own
	defer app.Close(context.WithoutCancel(ctx))

	rows := lovage.Bound(app, "process_rows", &DatabaseTask{Database: shared, Out: out}, processRows)
	price := lovage.Register(app, "price_of", &PriceOf{DatabaseTask{Database: shared, Out: out}})
	below := lovage.Func(app, "cheaper", cheaper, lovage.WithBase(base))
	above := lovage.Func(app, "dearer", dearer)

	err = withWorker(ctx, app, worker.Config{Concurrency: 4}, func(ctx context.Context) error {
		fmt.Fprintf(out, "opened:  %d times before the first run\n", shared.opens.Load())
		if err := show(ctx, out, "process_rows", rows.Handle, struct{}{}); err != nil {
			return err
		}
		if err := show(ctx, out, "price_of pear", price.Handle, "pear"); err != nil {
			return err
		}
		if err := show(ctx, out, "cheaper than 20", below, 20); err != nil {
			return err
		}
		if err := show(ctx, out, "dearer than 20", above, 20); err != nil {
			return err
		}

		// From outside, through the handle of the task ...
		db, err := rows.Self.DB(ctx)
		if err != nil {
			return err
		}
		if _, err := db.ExecContext(ctx, "INSERT INTO fruit VALUES ('quince', 100)"); err != nil {
			return err
		}
		// ... and through the registry.
		task, err := app.Task("dearer")
		if err != nil {
			return err
		}
		same, err := task.Instance().(*DatabaseTask).DB(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "outside: inserted a quince; the same pool in every task: %t\n", db == same)
		if err := show(ctx, out, "process_rows", rows.Handle, struct{}{}); err != nil {
			return err
		}
		fmt.Fprintf(out, "opened:  %d time after all runs\n", shared.opens.Load())
		return nil
	})
	if err != nil {
		return err
	}

	// Shutdown.
	db, err := shared.DB(ctx)
	if err != nil {
		return err
	}
	if err := app.Close(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	fmt.Fprintf(out, "closed:  the pool says %q\n", db.PingContext(ctx))
	_, err = shared.DB(ctx)
	fmt.Fprintf(out, "         a new one is refused: %t\n", errors.Is(err, lovage.ErrLazyClosed))
	return nil
}

// show calls a task and prints its result.
func show[In any](ctx context.Context, out io.Writer, label string, task *lovage.Handle[In, int], in In) error {
	res, err := task.Delay(ctx, in)
	if err != nil {
		return err
	}
	n, err := res.Get(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "run:     %-16s %d\n", label, n)
	return nil
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
