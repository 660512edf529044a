package battery_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/sqlbackend"
	_ "github.com/lovage-go/lovage/broker/sqlbroker"
	"github.com/lovage-go/lovage/worker"
)

// fate is what a task is meant to come to. It is read off its id, so that any
// process, and the judge, know it without asking the store.
type fate int

const (
	succeeds fate = iota
	fails
	retriesOnce
	linked   // succeeds and calls battery.after
	poisoned // kills its process each time
	fates
)

func fateOf(id string, poison bool) fate {
	h := fnv.New32a()
	h.Write([]byte(id))
	n := h.Sum32()
	if poison && n%500 == 7 {
		return poisoned
	}
	switch n % 10 {
	case 0:
		return fails
	case 1:
		return retriesOnce
	case 2, 3:
		return linked
	}
	return succeeds
}

// ledger is an append-only file: one line a write, which the kernel keeps
// whatever becomes of the process.
type ledger struct {
	mu sync.Mutex
	f  *os.File
}

func openLedger(path string) (*ledger, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return &ledger{f: f}, err
}

func (l *ledger) write(words ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := fmt.Fprintln(l.f, words...); err != nil {
		panic(err)
	}
}

// work is the argument of battery.work.
type work struct {
	ID     string
	Millis int
	Poison bool
}

// flaky is the argument of battery.flaky, which fails as often and is tried
// again after as many milliseconds.
type flaky struct{ Failures, Millis int }

type parts struct {
	app   *lovage.App
	work  *lovage.Handle[work, string]
	after *lovage.Handle[string, string]
	flaky *lovage.Handle[flaky, int]
}

func newParts(url string, l *ledger, log *slog.Logger) *parts {
	app := lovage.New("battery", lovage.Config{BrokerURL: url, ResultBackend: url}, lovage.WithLogger(log))
	p := &parts{app: app}
	p.work = lovage.Func(app, "battery.work", func(ctx context.Context, in work) (string, error) {
		r := lovage.RequestFrom(ctx)
		l.write("start", in.ID, r.Retries, os.Getpid())
		select {
		case <-time.After(time.Duration(in.Millis) * time.Millisecond):
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
		defer func() { l.write("end", in.ID, r.Retries, os.Getpid()) }()
		switch fateOf(in.ID, in.Poison) {
		case poisoned:
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		case fails:
			return "", errors.New("meant to fail")
		case retriesOnce:
			if r.Retries == 0 {
				return "", lovage.Retry(errors.New("once more"), lovage.Countdown(50*time.Millisecond))
			}
		}
		return "done " + in.ID, nil
	})
	p.after = lovage.Func(app, "battery.after", func(ctx context.Context, parent string) (string, error) {
		l.write("after", parent, lovage.RequestFrom(ctx).ID, os.Getpid())
		return parent, nil
	})
	p.flaky = lovage.Func(app, "battery.flaky", func(ctx context.Context, in flaky) (int, error) {
		if n := lovage.RequestFrom(ctx).Retries; n < in.Failures {
			return 0, lovage.Retry(errors.New("once more"), lovage.Countdown(time.Duration(in.Millis)*time.Millisecond))
		}
		return in.Failures, nil
	})
	return p
}

// runWorker is a worker process.
func runWorker(url, ledgerPath string, concurrency int) error {
	l, err := openLedger(ledgerPath)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	p := newParts(url, l, log)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	w := worker.New(p.app, worker.Config{Concurrency: concurrency, Ready: func(worker.Info) { fmt.Println("ready") }})
	if err := w.Run(ctx); err != nil {
		return err
	}
	return p.app.Close(context.Background())
}

// runProducer sends tasks of a prefix until it is stopped, and writes each id
// to its ledger once the store has confirmed it.
func runProducer(url, ledgerPath, prefix string, n int, poison bool) error {
	l, err := openLedger(ledgerPath)
	if err != nil {
		return err
	}
	p := newParts(url, l, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	ctx := context.Background()
	fmt.Println("ready")
	for i := range n {
		id := prefix + "-" + strconv.Itoa(i)
		opts := []lovage.CallOption{lovage.TaskID(id)}
		if fateOf(id, poison) == linked {
			opts = append(opts, lovage.Link(p.after.S(id)))
		}
		in := work{ID: id, Millis: i % 23, Poison: poison}
		if _, err := p.work.Delay(ctx, in, opts...); err != nil {
			return fmt.Errorf("send %s: %w", id, err)
		}
		l.write("sent", id)
	}
	return p.app.Close(ctx)
}
