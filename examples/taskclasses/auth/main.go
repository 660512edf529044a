// Auth is an authenticator: a task class with state.
//
// It is the NaiveAuthenticateServer of Celery's documentation. A task is made
// once per process, not once per call, so what it learns in one run the next run
// in the same process knows, and other processes do not: as in Celery, tasks
// that must share what they learn go to a queue that one process consumes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/embedded" // the scheme sqlite:
	"github.com/lovage-go/lovage/worker"
)

func run(ctx context.Context, out io.Writer) error {
	dir, err := os.MkdirTemp("", "lovage-example-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	one, both := "sqlite://"+filepath.Join(dir, "one.db"), "sqlite://"+filepath.Join(dir, "both.db")

	fmt.Fprintln(out, "here")
	if err := here(ctx, out, one); err != nil {
		return err
	}
	fmt.Fprintln(out, "two worker processes, one of them on the queue auth")
	if err := oneOfTwo(ctx, out, one); err != nil {
		return err
	}
	fmt.Fprintln(out, "two worker processes, both on the queue auth")
	return bothOfTwo(ctx, out, both)
}

// here runs the task in this process. Apply does all that a worker would, and
// sends nothing.
func here(ctx context.Context, out io.Writer, store string) error {
	auth := newAuth(store)
	defer auth.Close(context.WithoutCancel(ctx))

	for _, c := range []Credentials{{"george", "secret"}, {"george", "guess"}, {"nobody", "secret"}} {
		res, err := auth.Login.Apply(ctx, c)
		if err != nil {
			return err
		}
		ok, err := res.Get(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "  %-6s with %-6s  %t\n", c.User, c.Password, ok)
	}

	// The same task from the registry, by its name and without its types.
	login, err := auth.Task("auth.login")
	if err != nil {
		return err
	}
	res, err := login.Apply(ctx, lovage.Args{Positional: []any{"george"}, Keyword: map[string]any{"password": "secret"}})
	if err != nil {
		return err
	}
	ok, err := res.Get(ctx)
	if err != nil {
		return err
	}
	same := login.Instance() == lovage.Base(auth.Login.Self)
	fmt.Fprintf(out, "  by name             %v, the same instance: %t\n", ok, same)

	// 64 runs at once add a user each and log in.
	var runs sync.WaitGroup
	var in atomic.Int64
	for i := range 64 {
		runs.Go(func() {
			c := Credentials{fmt.Sprint("user", i), "secret"}
			if _, err := auth.AddUser.Apply(ctx, c); err != nil {
				return
			}
			res, err := auth.Login.Apply(ctx, c)
			if err != nil {
				return
			}
			if ok, err := res.Get(ctx); err == nil && ok {
				in.Add(1)
			}
		})
	}
	runs.Wait()
	fmt.Fprintf(out, "  64 at once          %d are in, users set up %d time\n", in.Load(), auth.Login.Self.setups.Load())
	return nil
}

// oneOfTwo has the queue auth consumed by one process: it keeps what it learns.
func oneOfTwo(ctx context.Context, out io.Writer, store string) error {
	auth := newAuth(store)
	defer auth.Close(context.WithoutCancel(ctx))

	return withProcesses(ctx, store, [][]string{{"auth"}, {"celery"}}, func(ctx context.Context) error {
		tulip := Credentials{"tulip", "bulb"}
		before, err := login(ctx, auth, tulip)
		if err != nil {
			return err
		}
		if err := add(ctx, auth, tulip); err != nil {
			return err
		}
		after, err := login(ctx, auth, tulip)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "  tulip before add_user: %t, after: %t\n", before, after)
		return nil
	})
}

// bothOfTwo has it consumed by both: add_user reaches one of them, and nobody
// can say which. To look into each, it has a queue of its own too.
func bothOfTwo(ctx context.Context, out io.Writer, store string) error {
	auth := newAuth(store)
	defer auth.Close(context.WithoutCancel(ctx))

	return withProcesses(ctx, store, [][]string{{"auth", "first"}, {"auth", "second"}}, func(ctx context.Context) error {
		tulip := Credentials{"tulip", "bulb"}
		if err := add(ctx, auth, tulip); err != nil {
			return err
		}
		known := 0
		for _, queue := range []string{"first", "second"} {
			ok, err := login(ctx, auth, tulip, lovage.Queue(queue))
			if err != nil {
				return err
			}
			if ok {
				known++
			}
		}
		fmt.Fprintf(out, "  tulip after add_user: known to %d process of 2\n", known)
		return nil
	})
}

func login(ctx context.Context, auth *Auth, c Credentials, opts ...lovage.CallOption) (bool, error) {
	res, err := auth.Login.Delay(ctx, c, opts...)
	if err != nil {
		return false, err
	}
	return res.Get(ctx)
}

func add(ctx context.Context, auth *Auth, c Credentials) error {
	res, err := auth.AddUser.Delay(ctx, c)
	if err != nil {
		return err
	}
	_, err = res.Get(ctx)
	return err
}

// withProcesses runs a worker process for each list of queues while f runs. Each
// is this program once more.
func withProcesses(ctx context.Context, store string, queues [][]string, f func(context.Context) error) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	fctx, cancel := context.WithCancelCause(ctx) // f need not wait for a worker that is gone
	defer cancel(nil)
	pctx, stop := context.WithCancel(ctx)
	var processes sync.WaitGroup
	for _, qs := range queues {
		p := exec.CommandContext(pctx, self, append([]string{"worker", store}, qs...)...)
		p.Cancel = func() error { return p.Process.Signal(os.Interrupt) } // a warm shutdown
		p.WaitDelay = 30 * time.Second                                    // one that was not listening yet may have missed it
		p.Stderr = os.Stderr
		if err = p.Start(); err != nil {
			break
		}
		processes.Go(func() { cancel(fmt.Errorf("worker process on %v ended: %v", qs, p.Wait())) })
	}
	if err == nil {
		err = f(fctx)
	}
	stop()
	processes.Wait()
	return err
}

// work is what a worker process does: auth worker STORE QUEUE...
func work(ctx context.Context, args []string) error {
	auth := newAuth(args[0])
	err := worker.New(auth.App, worker.Config{Queues: args[1:], Concurrency: 2}).Run(ctx)
	return errors.Join(err, auth.Close(context.WithoutCancel(ctx)))
}

func main() {
	slog.SetLogLoggerLevel(slog.LevelError) // without it: a line for each step
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if len(os.Args) > 2 && os.Args[1] == "worker" {
		err = work(ctx, os.Args[2:])
	} else {
		err = run(ctx, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
