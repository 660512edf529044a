// Package demo is "lovage demo": worker processes that count a tree of real
// files, one of which dies half-way, and what task classes do.
//
// The tasks (tasks.go, cases.go) are written as a user's would be. The client
// (job.go, show.go) checks all that it shows: what is not so is an error.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/sqlbackend" // the temporary store
	_ "github.com/lovage-go/lovage/broker/sqlbroker"
	"github.com/lovage-go/lovage/internal/proc"
	"github.com/lovage-go/lovage/internal/term"
)

// Options say what is run. The zero Options count the Go installation on two
// workers.
type Options struct {
	// Dir is the directory whose .go files are counted. Default: the Go installation.
	Dir string
	// Broker and Backend are URLs. Default, for both: a temporary SQLite file.
	Broker, Backend string
	// Workers is the number of worker processes, at least 2. Default 2.
	Workers int
	// Concurrency is the number of runs at once in each. Default: the CPUs.
	Concurrency int
	// Pause is how long counting a file takes at least. Default 0.
	Pause time.Duration
	// JSON prints a Report instead of text.
	JSON bool
	// Keep leaves the temporary directory, store and logs, where it is.
	Keep bool
	// Worker are the words after this program's name that make it a worker
	// process. Default: demo demo-worker.
	Worker []string
}

// demo is one run of it.
type demo struct {
	opts    Options
	screen  *screen
	scratch string // the temporary directory
	fleet   *fleet
	app     *lovage.App
	tasks   *Tasks
	report  Report
	paths   []string // of the files to count, below opts.Dir
	counted []Counted
}

// Run runs the demo and returns once all of its processes are gone. An error
// says what was not as it should be; the ends of the workers' logs are then on
// stderr. ctx ending stops it early, and everything is cleaned up.
func Run(ctx context.Context, opts Options, stdout, stderr io.Writer) (err error) {
	begun := time.Now()
	if err := opts.complete(ctx); err != nil {
		return err
	}
	out := stdout
	if opts.JSON {
		out = io.Discard
	}
	d := &demo{opts: opts, screen: newScreen(out)}
	if d.paths, err = list(ctx, opts.Dir); err != nil {
		return err
	}
	if d.scratch, err = os.MkdirTemp("", "lovage-demo-"); err != nil {
		return fmt.Errorf("make a temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, d.tidy(ctx, err, stderr)) }()
	if d.opts.Broker == "" {
		url := "sqlite://" + filepath.ToSlash(filepath.Join(d.scratch, "demo.db"))
		d.opts.Broker, d.opts.Backend = url, url
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program to start workers: %w", err)
	}
	running, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	d.fleet = &fleet{argv: append([]string{self}, d.opts.Worker...), dir: d.scratch, lost: lost}
	if err := d.all(running); err != nil {
		if running.Err() != nil { // a worker's death says more than what followed from it
			return context.Cause(running)
		}
		return err
	}
	d.report.Time = time.Since(begun)
	d.next()
	if opts.JSON {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		return e.Encode(d.report)
	}
	return nil
}

// complete fills in the defaults.
func (o *Options) complete(ctx context.Context) error {
	switch {
	case o.Backend == "" && o.Broker != "":
		o.Backend = o.Broker
		if scheme, _, _ := strings.Cut(o.Broker, ":"); slices.Contains([]string{"amqp", "amqps", "pyamqp"}, scheme) {
			o.Backend = "rpc://"
		}
	case o.Backend != "" && o.Broker == "":
		return errors.New("--backend needs --broker: give both, or none for a temporary SQLite file")
	}
	if o.Workers == 0 {
		o.Workers = 2
	}
	if o.Workers < 2 {
		return fmt.Errorf("%d workers are too few: one of them is killed, so give at least 2", o.Workers)
	}
	if o.Concurrency <= 0 {
		o.Concurrency = proc.CPUs()
	}
	if len(o.Worker) == 0 {
		o.Worker = []string{"demo", workerName}
	}
	if o.Dir == "" {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
		if err != nil {
			return fmt.Errorf("find the Go installation by go env GOROOT: %w: name a directory with Go sources instead", err)
		}
		o.Dir = strings.TrimSpace(string(root))
	}
	dir, err := filepath.Abs(o.Dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	o.Dir = dir
	return err
}

// all is the demo, section by section.
func (d *demo) all(ctx context.Context) error {
	logFile, err := os.Create(filepath.Join(d.scratch, "client.log"))
	if err != nil {
		return err
	}
	defer logFile.Close()
	d.app = NewApp(d.opts.Broker, d.opts.Backend, slog.New(slog.NewTextHandler(logFile, nil)))
	d.tasks = Declare(d.app, d.opts.Dir, d.opts.Pause)
	for _, section := range []func(context.Context) error{d.start, d.count, d.classes, d.failures, d.measure} {
		if err := section(ctx); err != nil {
			return err
		}
	}
	return nil
}

// start starts the workers.
func (d *demo) start(ctx context.Context) error {
	d.report.Store = "a SQLite file, no server"
	if !strings.HasPrefix(d.opts.Broker, "sqlite:") {
		scheme, _, _ := strings.Cut(d.opts.Broker, ":")
		d.report.Store = scheme
	}
	d.screen.say(d.screen.Paint("Lovage", term.Bold, term.Green) + ": Celery for Go. What you see is checked while it runs; what does not hold is an error.")
	d.screen.section(fmt.Sprintf("%d worker processes on one store (%s), %d runs at once in each", d.opts.Workers, d.report.Store, d.opts.Concurrency))
	for i := range d.opts.Workers {
		queues := []string{queue}
		if i == 1 { // it lives to the end
			queues = append(queues, loginQueue)
		}
		if err := d.startWorker(ctx, queues); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) startWorker(ctx context.Context, queues []string) error {
	w, err := d.fleet.start(ctx, workerConfig{
		name: fmt.Sprintf("worker-%d", len(d.fleet.workers())+1), broker: d.opts.Broker, backend: d.opts.Backend,
		dir: d.opts.Dir, queues: queues, concurrency: d.opts.Concurrency, pause: d.opts.Pause,
	})
	if err != nil {
		return err
	}
	d.screen.line(w.name, "pid %-8d ready in %s", w.pid, span(w.readyIn))
	return nil
}

// tidy ends the processes and removes the temporary directory. After a failure
// it says what the workers said last, and keeps their logs.
func (d *demo) tidy(ctx context.Context, failed error, stderr io.Writer) error {
	var errs []error
	if d.fleet != nil {
		errs = append(errs, d.fleet.stopAll())
	}
	if d.app != nil {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		errs = append(errs, d.app.Close(closing))
	}
	interrupted := ctx.Err() != nil
	if failed != nil && !interrupted && d.fleet != nil {
		for _, w := range d.fleet.workers() {
			fmt.Fprintf(stderr, "\nthe end of %s:\n%s\n", w.log, indent(w.tail(15), "  "))
		}
	}
	if d.opts.Keep || (failed != nil && !interrupted) {
		fmt.Fprintf(stderr, "\nstore and logs are in %s\n", d.scratch)
	} else {
		errs = append(errs, os.RemoveAll(d.scratch))
	}
	return errors.Join(errs...)
}
