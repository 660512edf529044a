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
	Prefork *urls     `json:",omitempty"`
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
	Seed       uint64
	URL        string
	Ledger     string // a file that each run appends a line to, outside of the stores
	Tasks      int
	Every      time.Duration // between two kills
	Lease      time.Duration // of Go's claims
	Visibility time.Duration // after which Python's claims are given back
}

// slots is the number of tasks that one worker runs at once.
const slots = 4

// killedPy is the Python half. With early acks, which are Celery's default, what
// runs when a worker is killed is lost; a fleet that must not lose it sets this.
const killedPy = `
import os, time
from celery import Celery
app = Celery('killed', broker=%[1]q, backend=%[1]q)
app.conf.update(task_default_queue='q', task_acks_late=True, broker_transport_options={'visibility_timeout': %[3]d})

@app.task(name='k.nap')
def nap(id, millis):
    with open(%[2]q, 'a') as f:
        f.write('%%s py\n' %% id)
    time.sleep(millis / 1000)
    return id
`

type killArgs struct {
	ID     string `lovage:"id"`
	Millis int    `lovage:"millis"`
}

func (p *killPlan) app(log slog.Handler) *lovage.App {
	return lovage.New("killed", lovage.Config{
		BrokerURL: p.URL, ResultBackend: p.URL, TaskDefaultQueue: "q",
		BrokerTransportOptions: map[string]any{"visibility_timeout": p.Visibility.Seconds()},
	}, lovage.WithLogger(slog.New(log)))
}

// run is a Go worker process.
func (p *killPlan) run() error {
	app := p.app(slog.NewTextHandler(os.Stderr, nil))
	f, err := os.OpenFile(p.Ledger, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	lovage.Func(app, "k.nap", func(_ context.Context, in killArgs) (string, error) {
		if _, err := f.WriteString(in.ID + " go\n"); err != nil {
			return "", err
		}
		<-time.After(time.Duration(in.Millis) * time.Millisecond)
		return in.ID, nil
	})
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := worker.New(app, worker.Config{Concurrency: slots, Lease: p.Lease}).Run(ctx); err != nil {
		return err
	}
	return app.Close(context.Background())
}

// TestInteropKill kills workers of both languages at random while they work on
// one queue. No task is lost or stuck, and no more of them run twice than ran in
// workers that were killed.
func TestInteropKill(t *testing.T) {
	t.Parallel()
	p := killPlan{Tasks: 900, Every: 700 * time.Millisecond, Lease: 4 * time.Second, Visibility: 5 * time.Second}
	rounds := 1
	if *full {
		p = killPlan{Tasks: 5000, Every: 2 * time.Second, Lease: 30 * time.Second, Visibility: 60 * time.Second}
		rounds = 4
	}
	for i := range rounds {
		p := p
		p.Seed = *seed + uint64(i)
		t.Run(fmt.Sprint("seed", p.Seed), func(t *testing.T) { kill(t, p) })
	}
}

func kill(t *testing.T, p killPlan) {
	server := testenv.PrivateRedis(t)
	p.URL, p.Ledger = server.URL(0), filepath.Join(t.TempDir(), "ledger")
	rnd := rand.New(rand.NewPCG(p.Seed, p.Seed))
	started := 0
	fleet := map[string][]*testenv.CeleryProcess{}
	begin := func(language string) *testenv.CeleryProcess {
		if language == golang {
			return testenv.Again(t, roleKey, role{Kill: &p}.String())
		}
		started++
		return testenv.CeleryWorker(t, "killed", fmt.Sprintf(killedPy, p.URL, p.Ledger, int(max(p.Visibility, time.Minute).Seconds())),
			"-P", "threads", "-c", strconv.Itoa(slots), "-n", fmt.Sprintf("py%d@test", started), "--prefetch-multiplier=1", "--without-gossip", "--without-mingle")
	}
	for _, language := range []string{golang, python, golang, python} {
		fleet[language] = append(fleet[language], begin(language))
	}
	client := p.app(slog.DiscardHandler)
	t.Cleanup(func() { client.Close(context.Background()) })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	for i := range p.Tasks {
		id := fmt.Sprint("k", i)
		if _, err := client.Send(ctx, "k.nap", lovage.Args{Positional: []any{id, 20 + rnd.IntN(160)}}, lovage.TaskID(id)); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- p.wait(ctx, client) }()
	began := time.Now()
	kills := map[string]int{}
	tick := time.NewTicker(p.Every)
	defer tick.Stop()
	last := began
killing:
	for {
		select {
		case err := <-done:
			done <- err
			break killing
		case <-tick.C:
			if server.Must(t, "LLEN", "q") == "0" {
				break killing // the rest is what was killed: it must come back by itself
			}
			language := languages[rnd.IntN(2)]
			i := rnd.IntN(2)
			fleet[language][i].Kill()
			kills[language]++
			last = time.Now()
			fleet[language][i] = begin(language)
		}
	}
	if err := <-done; err != nil {
		t.Fatalf("after %v: %v; unacked %s\n%s", time.Since(began), err, server.Must(t, "HGETALL", "unacked"), tail(fleet[golang][0].Log()))
	}
	tailed := time.Since(last).Round(10 * time.Millisecond)
	idle := time.NewTicker(20 * time.Millisecond)
	defer idle.Stop()
	for server.Must(t, "HLEN", "unacked") != "0" || server.Must(t, "ZCARD", "unacked_index") != "0" || server.Must(t, "LLEN", "q") != "0" {
		select {
		case <-idle.C:
		case <-ctx.Done():
			t.Fatalf("all is done and %s messages are still claimed", server.Must(t, "HLEN", "unacked"))
		}
	}
	data, err := os.ReadFile(p.Ledger)
	if err != nil {
		t.Fatal(err)
	}
	runs, by := map[string]int{}, map[string]int{}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		runs[f[0]]++
		by[f[1]]++
	}
	again := 0
	for _, n := range runs {
		again += n - 1
	}
	all := kills[golang] + kills[python]
	if len(runs) != p.Tasks || again > slots*all {
		t.Errorf("%d tasks of %d ran, %d of them again after %d kills of %d slots", len(runs), p.Tasks, again, all, slots)
	}
	if kills[golang] == 0 || kills[python] == 0 || by[golang] == 0 || by[python] == 0 {
		t.Errorf("kills %v, runs %v: want some of each", kills, by)
	}
	t.Logf("kill {\"seed\": %d, \"tasks\": %d, \"kills_go\": %d, \"kills_py\": %d, \"runs_go\": %d, \"runs_py\": %d, \"again\": %d, \"seconds\": %.0f, \"last\": \"%v\"}",
		p.Seed, p.Tasks, kills[golang], kills[python], by[golang], by[python], again, time.Since(began).Seconds(), tailed)
}

// wait reads all results.
func (p *killPlan) wait(ctx context.Context, client *lovage.App) error {
	for i := range p.Tasks {
		id := fmt.Sprint("k", i)
		if got, err := client.Result(id).Get(ctx); err != nil || got != any(id) {
			return fmt.Errorf("task %s: %v, %w", id, got, err)
		}
	}
	return nil
}

func tail(s string) string { return s[max(0, len(s)-3000):] }
