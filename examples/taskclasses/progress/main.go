// Progress reports how far a run is, to whoever watches from another process.
//
// There are Celery's two ways. self.update_state("PROGRESS", meta) keeps the last
// report beside the task's id, for a caller who asks; self.send_event sends each
// report to those who listen now: Flower, "celery events", or the watcher here.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/embedded" // the scheme sqlite:
	"github.com/lovage-go/lovage/worker"
)

// Import is a task that works through rows as they come in.
type Import struct {
	lovage.Task
	rows chan string
}

// Progress is what it reports.
type Progress struct {
	Done  int    `json:"done"`
	Total int    `json:"total"`
	Row   string `json:"row"`
}

// Run imports rows until there are no more.
func (t *Import) Run(ctx context.Context, total int) (string, error) {
	r := lovage.RequestFrom(ctx)
	for done := 0; ; {
		var row string
		var more bool
		select {
		case row, more = <-t.rows:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
		if !more {
			return fmt.Sprintf("%d rows", done), nil
		}
		done++
		if err := r.UpdateState(ctx, "PROGRESS", Progress{done, total, row}); err != nil {
			return "", err
		}
		if err := r.SendEvent(ctx, "task-progress", map[string]any{"done": done, "total": total}); err != nil {
			return "", err
		}
	}
}

func newApp(store string) (*lovage.App, *lovage.Class[*Import, int, string]) {
	app := lovage.New("progress", lovage.Config{BrokerURL: store, ResultBackend: store})
	return app, lovage.Register(app, "progress.import", &Import{rows: make(chan string, 1)})
}

// watch is what the watching process does: it prints the events of the import,
// and for each the state that a caller who asks would see.
func watch(ctx context.Context, out io.Writer, store string) error {
	app, _ := newApp(store)
	defer app.Close(context.WithoutCancel(ctx))
	events, err := app.Events(ctx)
	if err != nil {
		return err
	}
	defer events.Close()
	fmt.Fprintln(out, "watching")
	for {
		e, err := events.Next(ctx)
		if err != nil {
			return err
		}
		if e.Type != "task-progress" {
			continue
		}
		res := lovage.ResultOf[string](app, e.UUID)
		var p Progress
		state, err := res.Info(ctx, &p)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "event %s %v of %v; state %s %+v\n", e.Type, e.Fields["done"], e.Fields["total"], state, p)
		if p.Done == p.Total {
			result, err := res.Get(ctx)
			fmt.Fprintln(out, "result", result)
			return err
		}
	}
}

func run(ctx context.Context, out io.Writer) error {
	dir, err := os.MkdirTemp("", "lovage-example-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	store := "sqlite://" + filepath.Join(dir, "progress.db")
	app, imports := newApp(store)
	defer app.Close(context.WithoutCancel(ctx))

	return withWorker(ctx, app, worker.Config{Concurrency: 1}, func(ctx context.Context) error {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		watcher := exec.CommandContext(ctx, self, "watch", store) // this program once more
		watcher.Stderr = os.Stderr
		stdout, err := watcher.StdoutPipe()
		if err != nil {
			return err
		}
		if err := watcher.Start(); err != nil {
			return err
		}

		// A row comes in whenever the watcher has seen what happened before.
		rows := []string{"apple", "pear", "plum"}
		next := 0
		for seen := bufio.NewScanner(stdout); seen.Scan(); next++ {
			fmt.Fprintln(out, "watcher:", seen.Text())
			if next == 0 { // it watches
				if _, err := imports.Delay(ctx, len(rows)); err != nil {
					return err
				}
			}
			switch {
			case next < len(rows):
				imports.Self.rows <- rows[next]
			case next == len(rows):
				close(imports.Self.rows)
			}
		}
		return watcher.Wait()
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
	var err error
	if len(os.Args) > 2 && os.Args[1] == "watch" {
		err = watch(ctx, os.Stdout, os.Args[2])
	} else {
		err = run(ctx, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
