package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/lovage-go/lovage/worker"
)

// readyLine is what a worker process writes to its standard output when it
// consumes.
const readyLine = "ready"

// workerConfig is what a worker process is told by its flags.
type workerConfig struct {
	name            string
	broker, backend string
	dir             string
	queues          []string
	concurrency     int
	pause           time.Duration
}

// args is the configuration as flags; see workerCommand.
func (c *workerConfig) args() []string {
	out := []string{
		"--name", c.name, "--broker", c.broker, "--backend", c.backend, "--dir", c.dir,
		"--concurrency", fmt.Sprint(c.concurrency), "--pause", c.pause.String(),
	}
	for _, q := range c.queues {
		out = append(out, "--queue", q)
	}
	return out
}

// serve is a worker process: it works until ctx or its standard input ends,
// and logs to stderr.
func serve(ctx context.Context, c workerConfig, stdin io.Reader, stdout, stderr io.Writer) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() { // ends with the process: reading standard input cannot be called off
		_, _ = io.Copy(io.Discard, stdin)
		stop()
	}()
	log := slog.New(slog.NewTextHandler(stderr, nil))
	app := NewApp(c.broker, c.backend, log)
	Declare(app, c.dir, c.pause)
	err := worker.New(app, worker.Config{
		Hostname: c.name + "@%h", Concurrency: c.concurrency, Queues: c.queues,
		Ready: func(worker.Info) { fmt.Fprintln(stdout, readyLine) },
	}).Run(ctx)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, app.Close(closing))
}

// closeTimeout bounds the closing of an App.
const closeTimeout = 10 * time.Second
