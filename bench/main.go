// Command bench measures Lovage on one machine, beside a bare loop over the
// same SQLite driver and, for comparison, River on SQLite. Everything is
// measured in one run, in turn, several rounds; medians and ratios are printed.
//
//	go run .                   the usual size, some minutes
//	go run . -short            a minute, to see that it works
//	go run . -backlog 1000000  the largest backlog
//	go run . -json             for scripts
//
// Times on shared machines drift: compare ratios of one run, not figures of two.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

type options struct {
	short       bool
	json        bool
	rounds      int
	backlog     int
	delayed     int
	roundTrips  int
	concurrency int
	synchronous string
	only        string
	dir         string
	keep        bool
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == childArg {
		if err := child(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.BoolVar(&o.short, "short", false, "small sizes: does it work")
	flag.BoolVar(&o.json, "json", false, "print the report as JSON")
	flag.IntVar(&o.rounds, "rounds", 3, "how often each rate is measured")
	flag.IntVar(&o.backlog, "backlog", 100_000, "the largest backlog, in tasks")
	flag.IntVar(&o.delayed, "delayed", 1_000_000, "delayed tasks in the store for the RSS figure")
	flag.IntVar(&o.roundTrips, "roundtrips", 1000, "calls for the latency figure")
	flag.IntVar(&o.concurrency, "c", runtime.NumCPU(), "concurrency of the worker")
	flag.StringVar(&o.synchronous, "synchronous", "", "SQLite synchronous: full or normal; empty is Lovage's default")
	flag.StringVar(&o.only, "only", "", "run only the parts whose name contains this")
	flag.StringVar(&o.dir, "dir", "", "where the database files go; empty is a temporary directory")
	flag.BoolVar(&o.keep, "keep", false, "keep the database files")
	flag.Parse()
	if o.short {
		o.rounds, o.backlog, o.delayed, o.roundTrips = 1, min(o.backlog, 10_000), min(o.delayed, 20_000), min(o.roundTrips, 100)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, &o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o *options) error {
	if o.dir == "" {
		dir, err := os.MkdirTemp("", "lovage-bench-")
		if err != nil {
			return err
		}
		o.dir = dir
		if !o.keep {
			defer os.RemoveAll(dir)
		}
	}
	r := newReport(o)
	for _, part := range parts {
		if !r.wanted(part.name) {
			continue
		}
		r.progress(part.name)
		if err := part.run(ctx, o, r); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	if o.json {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	r.print(os.Stdout)
	return nil
}

// parts are run in this order.
var parts = []struct {
	name string
	run  func(context.Context, *options, *report) error
}{
	{"enqueue", benchEnqueue},
	{"worker", benchWorker},
	{"latency", benchLatency},
	{"idle", benchIdle},
	{"delayed", benchDelayed},
}
