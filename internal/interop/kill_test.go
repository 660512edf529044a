package interop_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

var (
	full = flag.Bool("battery", false, "run the full form: minutes")
	seed = flag.Uint64("seed", 1, "of the kills")
)

const roleKey = "INTEROP_ROLE"

func TestMain(m *testing.M) {
	if text := os.Getenv(roleKey); text != "" {
		var r role
		err := json.Unmarshal([]byte(text), &r)
		switch {
		case err != nil:
		case r.Kill != nil:
			err = r.Kill.run()
		default:
			err = runPrefork(*r.Prefork)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil { // they wait for most of their time
		panic(err)
	}
	os.Exit(m.Run())
}

// role is what a process of a test is: a worker of one of the two.
type role struct {
	Kill    *killPlan `json:",omitempty"`
	Prefork *site     `json:",omitempty"`
}

func (r role) String() string {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// killPlan is a fleet that is killed at.
type killPlan struct {
	urls
	Seed       uint64
	Ledger     string   // a file that each run appends a line to, outside of the stores
	Queues     []string // of Go's workers; none: all
	Tasks      int
	Every      time.Duration // between two kills
	Lease      time.Duration // of Go's claims
	Visibility time.Duration // after which Python's claims are given back; 0: with their connection
}

// options are those of the transport.
func (p *killPlan) options() map[string]any {
	if p.Visibility == 0 {
		return nil
	}
	return map[string]any{"visibility_timeout": p.Visibility.Seconds()}
}

// slots is the number of tasks that one worker runs at once.
const slots = 4

// killedPy is the Python half. With early acks, which are Celery's default, what
// runs when a worker is killed is lost; a fleet that must not lose it sets this.
const killedPy = `
import os, time
from celery import Celery
app = Celery('killed', broker=%[1]q, backend=%[2]q)
app.conf.update(task_default_queue='q', task_acks_late=True, broker_transport_options=%[4]s)

@app.task(name='k.nap')
def nap(id, millis):
    with open(%[3]q, 'a') as f:
        f.write('%%s py 0\n' %% id)
    time.sleep(millis / 1000)
    return id
`

type killArgs struct {
	ID     string `lovage:"id"`
	Millis int    `lovage:"millis"`
}

func (p *killPlan) app(log slog.Handler) *lovage.App {
	return lovage.New("killed", lovage.Config{
		BrokerURL: p.Broker, ResultBackend: p.Results, TaskDefaultQueue: "q", BrokerTransportOptions: p.options(),
	}, lovage.WithLogger(slog.New(log)))
}

// python is the source of the Python half.
func (p *killPlan) python() string {
	options := "{}"
	if p.Visibility > 0 {
		options = fmt.Sprintf("{'visibility_timeout': %d}", int(max(p.Visibility, time.Minute).Seconds()))
	}
	return fmt.Sprintf(killedPy, p.Broker, p.Results, p.Ledger, options)
}

// run is a Go worker process.
func (p *killPlan) run() error {
	app := p.app(slog.NewTextHandler(os.Stderr, nil))
	f, err := os.OpenFile(p.Ledger, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	nap := func(ctx context.Context, in killArgs) (string, error) {
		if _, err := fmt.Fprintln(f, in.ID, golang, lovage.RequestFrom(ctx).Delivery.Losses); err != nil {
			return "", err
		}
		<-time.After(time.Duration(in.Millis) * time.Millisecond)
		return in.ID, nil
	}
	lovage.Func(app, "k.nap", nap)
	lovage.Func(app, "k.early", nap, lovage.AcksLate(false))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := worker.New(app, worker.Config{Concurrency: slots, Queues: p.Queues, Lease: p.Lease}).Run(ctx); err != nil {
		return err
	}
	return app.Close(context.Background())
}

// TestInteropKill kills workers of both languages at random while they work on
// one queue. No task is lost or stuck, and no more of them run twice than ran in
// workers that were killed.
func TestInteropKill(t *testing.T) {
	t.Parallel()
	for name, store := range killStores {
		p := killPlan{Tasks: store.tasks, Every: 700 * time.Millisecond, Lease: 4 * time.Second, Visibility: 5 * time.Second}
		rounds := 1
		if *full {
			p = killPlan{Tasks: 5000, Every: 2 * time.Second, Lease: 30 * time.Second, Visibility: 60 * time.Second}
			rounds = 4
		}
		if !store.leases {
			p.Visibility = 0
		}
		t.Run(name, func(t *testing.T) {
			if !*full { // else the rates would be those of all stores at once
				t.Parallel()
			}
			for i := range rounds {
				p := p
				p.Seed = *seed + uint64(i)
				t.Run(fmt.Sprint("seed", p.Seed), func(t *testing.T) { kill(t, name, store, p) })
			}
		})
	}
}

func kill(t *testing.T, name string, store killStore, p killPlan) {
	at := store.open(t)
	p.urls = at.urls
	p.Ledger = filepath.Join(t.TempDir(), "ledger")
	rnd := rand.New(rand.NewPCG(p.Seed, p.Seed))
	started := 0
	fleet := map[string][]*testenv.CeleryProcess{}
	begin := func(language string) *testenv.CeleryProcess {
		if language == golang {
			return testenv.Again(t, roleKey, role{Kill: &p}.String())
		}
		started++
		return testenv.CeleryWorker(t, "killed", p.python(),
			"-P", "threads", "-c", strconv.Itoa(slots), "-n", fmt.Sprintf("py%d@test", started), "--prefetch-multiplier=1", "--without-gossip", "--without-mingle")
	}
	for _, language := range []string{golang, python, golang, python} {
		fleet[language] = append(fleet[language], begin(language))
	}
	client := p.app(slog.DiscardHandler)
	t.Cleanup(func() { client.Close(context.Background()) })
	limit := 3 * time.Minute
	if *full {
		limit = 10 * time.Minute
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	conn, err := client.Broker(ctx)
	if err != nil {
		t.Fatal(err)
	}
	queue := func() broker.Length {
		lengths, err := conn.(broker.Lengther).Lengths(ctx, "q")
		if err != nil {
			t.Fatal(err)
		}
		return lengths["q"]
	}
	sent := 0
	send := func(n int) {
		for range n {
			id := fmt.Sprint("k", sent)
			if _, err := client.Send(ctx, "k.nap", lovage.Args{Positional: []any{id, 20 + rnd.IntN(160)}}, lovage.TaskID(id)); err != nil {
				t.Fatal(err)
			}
			sent++
		}
	}
	send(p.Tasks)
	began := time.Now()
	kills, nowhere := map[string]int{}, 0
	tick := time.NewTicker(p.Every)
	defer tick.Stop()
	last := began
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("after %v, kills %v: %d tasks in no store; left: %s", time.Since(began), kills, nowhere, at.left())
		}
		if queue().Ready == 0 {
			if kills[golang] > 0 && kills[python] > 0 {
				break // the rest is what was killed: it must come back by itself
			}
			send(p.Tasks / 2) // where processes start slowly, all was done meanwhile
		}
		language := languages[rnd.IntN(2)]
		if kills[python] == 0 { // one of each while there is work: Go's first, it starts again sooner
			language = []string{golang, python}[min(kills[golang], 1)]
		}
		i := rnd.IntN(2)
		if language == golang {
			fleet[language][i].Kill()
		} else if nowhere = at.killPython(t, ctx, fleet[language][i], sent); nowhere != 0 {
			continue
		}
		kills[language]++
		last = time.Now()
		fleet[language][i] = begin(language)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := wait(ctx, client, sent); err != nil {
		t.Fatalf("after %v: %v; %s\n%s", time.Since(began), err, at.left(), tail(fleet[golang][0].Log()))
	}
	tailed := time.Since(last).Round(10 * time.Millisecond)
	what := ""
	if !reached(t.Context(), 2*time.Minute, func() bool { what = at.left(); return what == "" }) {
		t.Fatalf("all is done, and messages are left: %s", what)
	}
	if n := queue().Dead; n > 0 {
		t.Errorf("%d dead letters", n)
	}
	runs, by, beyond := readLedger(t, p.Ledger)
	again := 0
	for _, n := range runs {
		again += n - 1
	}
	most := slots * (kills[golang] + kills[python])
	if store.forgets { // an end that was told and not acknowledged
		most += slots * kills[golang]
	}
	if len(runs) != sent || again > most {
		t.Errorf("%d tasks of %d ran, %d times again after kills of %d slots: want %d at most", len(runs), sent, again, slots*(kills[golang]+kills[python]), most)
	}
	if beyond > slots*kills[golang] {
		t.Errorf("%d deaths were counted for messages that had not begun, of %d slots that were killed", beyond, slots*kills[golang])
	}
	if kills[golang] == 0 || kills[python] == 0 || by[golang] == 0 || by[python] == 0 {
		t.Errorf("kills %v, runs %v: want some of each", kills, by)
	}
	t.Logf("kill {\"store\": %q, \"seed\": %d, \"tasks\": %d, \"kills_go\": %d, \"kills_py\": %d, \"runs_go\": %d, \"runs_py\": %d, \"again\": %d, \"seconds\": %.0f, \"last\": \"%v\"}",
		name, p.Seed, sent, kills[golang], kills[python], by[golang], by[python], again, time.Since(began).Seconds(), tailed)
}

// reached waits for a condition, for so long at most.
func reached(ctx context.Context, limit time.Duration, is func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// readLedger counts the runs of each task, those of each language, and the deaths
// that were counted beyond them. What a dead worker only held costs one when it
// begins, and none before; so a run knows of as many as there are runs by then. One
// that is killed before it writes its line is missing.
func readLedger(t *testing.T, path string) (runs, by map[string]int, beyond int) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	runs, by = map[string]int{}, map[string]int{}
	most := map[string]int{} // of each task
	for line := range strings.Lines(string(data)) {
		var id, language string
		var losses int
		if _, err := fmt.Sscan(line, &id, &language, &losses); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		runs[id]++
		by[language]++
		most[id] = max(most[id], losses-runs[id])
	}
	for _, n := range most {
		beyond += n
	}
	return runs, by, beyond
}

// wait reads all results.
func wait(ctx context.Context, client *lovage.App, tasks int) error {
	for i := range tasks {
		id := fmt.Sprint("k", i)
		if got, err := client.Result(id).Get(ctx); err != nil || got != any(id) {
			return fmt.Errorf("task %s: %v, %w", id, got, err)
		}
	}
	return nil
}

func tail(s string) string { return s[max(0, len(s)-3000):] }
