// Command bench measures Lovage on one machine: on SQLite beside a bare loop over
// the same driver, on Redis beside raw loops of the same client library and beside
// Celery, asynq and River, on RabbitMQ beside raw loops and Celery. All is measured in one run, in turn, several rounds;
// medians and ratios are printed, and whether each bar is met.
//
//	go run .                     the usual size, some ten minutes
//	go run . -short              a minute, to see that it works
//	go run . -only redis/worker  one part; -only redis for all on Redis,
//	                             -only rabbitmq for all on RabbitMQ
//	go run . -o ../docs/bench.md writes the report as a page too
//	go run . -json               for scripts
//
// It starts its own servers on ports of their own: redis-server, and PostgreSQL
// for River, and rabbitmq-server; Celery is the system's (apt: redis-server postgresql
// rabbitmq-server python3-celery python3-redis). Times on shared machines drift: compare ratios of one run, not
// figures of two, and CPU per task rather than rates.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
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
	peers       string
	dir         string
	page        string
	keep        bool
	bed         *bed // the servers that run
}

func main() {
	if len(os.Args) > 1 {
		var err error
		switch os.Args[1] {
		case sqliteArg:
			err = sqliteWorker(os.Args[2:])
		case selfArg:
			err = runSelf(os.Args[2:])
		default:
			bench()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "worker:", err)
			os.Exit(1)
		}
		return
	}
	bench()
}

func bench() {
	var o options
	flag.BoolVar(&o.short, "short", false, "small sizes: does it work")
	flag.BoolVar(&o.json, "json", false, "print the report as JSON")
	flag.IntVar(&o.rounds, "rounds", 3, "how often each rate is measured")
	flag.IntVar(&o.backlog, "backlog", 0, "the largest backlog, in tasks; 0 is 100,000 on SQLite and 1,000,000 on servers")
	flag.IntVar(&o.delayed, "delayed", 1_000_000, "delayed tasks in the SQLite store for the RSS figure")
	flag.IntVar(&o.roundTrips, "roundtrips", 1000, "calls for the latency figure")
	flag.IntVar(&o.concurrency, "c", runtime.NumCPU(), "concurrency of the worker on SQLite")
	flag.StringVar(&o.synchronous, "synchronous", "", "SQLite synchronous: full or normal; empty is Lovage's default")
	flag.StringVar(&o.only, "only", "", "run only the parts whose name contains one of these, with commas between: "+partNames())
	flag.StringVar(&o.peers, "peers", "", "measure only the peers on servers whose name contains one of these, with commas between: celery, asynq, river; Lovage and the raw loop always are")
	flag.StringVar(&o.dir, "dir", "", "where the files go; empty is a temporary directory")
	flag.StringVar(&o.page, "o", "", "write the report to this file too, as Markdown")
	flag.BoolVar(&o.keep, "keep", false, "keep the files")
	flag.Parse()
	if o.short {
		o.rounds, o.delayed, o.roundTrips = 1, min(o.delayed, 20_000), min(o.roundTrips, 100)
		if o.backlog == 0 {
			o.backlog = 10_000
		}
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
	o.bed = &bed{}
	defer o.bed.stop()
	r := newReport(o)
	for _, part := range parts {
		if !r.wanted(part.name) {
			continue
		}
		if err := o.bed.start(ctx, o.dir, part.name); err != nil {
			return err
		}
		r.progress(part.name)
		r.part(part.name)
		if err := part.run(ctx, o, r); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	r.Load += " before and " + load() + " after it"
	if o.page != "" {
		if err := r.writePage(o.page); err != nil {
			return err
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

type part struct {
	name string
	run  func(context.Context, *options, *report) error
}

// parts are run in this order.
var parts = []part{
	{"sqlite/enqueue", sqliteEnqueue},
	{"sqlite/worker", sqliteWork},
	{"sqlite/latency", sqliteLatency},
	{"sqlite/idle", sqliteIdle},
	{"sqlite/delayed", sqliteDelayed},
	{"redis/enqueue", redisEnqueue},
	{"redis/worker", redisWorker},
	{"redis/flat", redisFlat},
	{"redis/latency", redisLatency},
	{"redis/parked", redisParked},
	{"redis/idle", redisIdle},
	{"rabbitmq/enqueue", rabbitEnqueue},
	{"rabbitmq/worker", rabbitWorker},
	{"rabbitmq/flat", rabbitFlat},
	{"rabbitmq/latency", rabbitLatency},
	{"rabbitmq/parked", rabbitParked},
	{"rabbitmq/idle", rabbitIdle},
}

func partNames() string {
	names := make([]string, len(parts))
	for i, p := range parts {
		names[i] = p.name
	}
	return strings.Join(names, ", ")
}
