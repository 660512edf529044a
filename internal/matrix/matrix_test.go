package matrix_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(planKey); text != "" {
		if err := child(text); err != nil {
			slog.Error(err.Error())
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

// compare wants each cell to have come to what the model says.
func (x *world) compare() {
	x.Helper()
	x.Logf("%s: %d cells", x.place, len(x.cells))
	wrong := map[string][]string{} // cells that differ alike
	for c, got := range x.observed() {
		if want := expect(c, x.place); !reflect.DeepEqual(got, want) {
			text := fmt.Sprintf("%s on %s:\n got %v\nwant %v", c.end, x.place, got, want)
			wrong[text] = append(wrong[text], c.settings.String())
		}
	}
	for text, cells := range wrong {
		x.Errorf("%s\nwith %v", text, cells)
	}
	if len(wrong) > 0 {
		x.Log(x.log.tail())
	}
}

func (o outcome) String() string {
	return fmt.Sprintf("state %q, message %s, %v, %v", o.State, o.Fate, o.Steps, o.Events)
}

// testBroker runs the whole matrix on one broker.
func testBroker(t *testing.T, name string, open func(t *testing.T) stores) {
	t.Parallel()
	for _, pool := range []string{"goroutine", "prefork"} {
		p := place{name, pool}
		t.Run(pool+"/Plain", func(t *testing.T) {
			t.Parallel()
			testPlain(t, p, open(t))
		})
		for e, test := range map[end]func(*testing.T, place, stores, end){
			warm: testStop, softStop: testStop, cold: testStop, coldDeaf: testStop, killed: testKill, cut: testCut, cutDouble: testCut,
		} {
			if p.impossible(e) == "" {
				t.Run(pool+"/"+string(e), func(t *testing.T) {
					t.Parallel()
					test(t, p, open(t), e)
				})
			}
		}
	}
}

// slots is how many tasks a worker has at once: all of a world that has to have
// them under way together.
func (p place) slots() int { return map[string]int{"goroutine": 400, "prefork": 32}[p.pool] }

// testPlain runs all ends that leave the worker as it was, at once.
func testPlain(t *testing.T, p place, s stores) {
	list := append(plain[:len(plain):len(plain)], lost)
	x := newWorld(t, p, s, cellsOf(slices.DeleteFunc(list, func(e end) bool { return p.impossible(e) != "" })...))
	x.start(worker.Config{Hostname: "plain@here", Concurrency: p.slots()})
	x.send()
	x.settle()
	x.ledger.open()
	x.w.Stop(worker.Warm)
	x.ended()
	x.listen(1)
	x.compare()
	losses := 0
	for _, c := range x.cells {
		if c.end == lost && c.kind(p) == noEnd {
			losses++
		}
	}
	if n := x.w.Stats().Losses; n != int64(losses) {
		t.Errorf("losses counted: got %d, want %d", n, losses)
	}
}

// testStop stops a worker under runs with all settings, and looks at what comes of
// their messages by another worker.
func testStop(t *testing.T, p place, s stores, e end) {
	x := newWorld(t, p, s, cellsOf(e))
	cfg := worker.Config{Hostname: "stopped@here", Concurrency: p.slots()}
	how := worker.Cold
	switch e {
	case warm:
		how = worker.Warm
	case softStop:
		cfg.SoftShutdownTimeout = patience
	case cold:
		cfg.Grace = patience
	case coldDeaf:
		cfg.Grace = 2 * time.Second
	}
	x.start(cfg)
	x.send()
	x.ledger.wait(t, "all run", x.ledger.running(x.cells))
	if e == warm || e == softStop {
		x.app.Signals.WorkerShuttingDown.Connect(func(context.Context, lovage.WorkerShuttingDown) { x.ledger.open() })
	}
	x.w.Stop(how)
	x.ended()
	x.ledger.open()
	x.succeed()
	x.listen(2)
	x.compare()
}

// testKill kills the process of a worker.
func testKill(t *testing.T, p place, s stores, e end) {
	x := newWorld(t, p, s, cellsOf(e))
	first := testenv.Again(t, planKey, x.plan(worker.Config{Hostname: "killed@here", Concurrency: p.slots(), Pool: p.pool, Lease: 4 * time.Second}))
	x.send()
	x.ledger.wait(t, "all run", x.ledger.running(x.cells))
	x.hearStarted()
	first.Kill()
	x.ledger.open()
	x.succeed()
	x.listen(1)
	x.compare()
}

// testCut loses the connection of a worker under runs, which end when it is there
// again, and what the broker takes back has come again.
func testCut(t *testing.T, p place, s stores, e end) {
	s.near.WorkerDeduplicateSuccessfulTasks = new(e != cutDouble)
	x := newWorld(t, p, s, cellsOf(e))
	x.start(worker.Config{Hostname: "cut@here", Concurrency: max(p.slots(), 48)})
	x.send()
	x.ledger.wait(t, "all run", x.ledger.running(x.cells))
	x.hearStarted()
	x.ledger.cut()
	x.proxy.Drop()
	for _, c := range x.cells {
		received, _ := expect(c, p).again()
		switch {
		case received == 1:
		case e == cutDouble:
			x.ledger.wait(t, c.id()+" runs again", func() bool { return x.ledger.tasks[c.id()].runs > 1 })
		default:
			x.logged("[" + c.id() + "] has come again while it runs here")
		}
	}
	x.ledger.open()
	x.settle()
	x.w.Stop(worker.Warm)
	x.ended()
	x.listen(1)
	x.compare()
}

// succeed has another worker do what is left.
func (x *world) succeed() {
	x.start(worker.Config{Hostname: "next@here", Concurrency: 4})
	x.settle()
	x.w.Stop(worker.Warm)
	x.ended()
}
