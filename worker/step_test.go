package worker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/worker"
)

// book notes what steps do.
type book struct {
	mu    sync.Mutex
	lines []string
}

func (b *book) note(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, text)
}

// take returns what was noted since the last time.
func (b *book) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := strings.Join(b.lines, ", ")
	b.lines = nil
	return text
}

// step is one that notes its start and stop.
func (b *book) step(name string, requires ...string) worker.Step {
	note := func(what string) func(context.Context, worker.Parent) error {
		return func(context.Context, worker.Parent) error { b.note(what + " " + name); return nil }
	}
	return worker.Step{Name: name, Requires: requires, Start: note("start"), Stop: note("stop")}
}

func TestSteps(t *testing.T) {
	t.Parallel()
	t.Run("StartInOrderAndStopInReverse", func(t *testing.T) {
		t.Parallel()
		b := new(book)
		var h *lovage.Handle[Order, string]
		in(t, setup{
			cfg: worker.Config{Steps: []worker.Step{b.step("web", "db", "Pool"), b.step("db"), b.step("other")}},
			tasks: func(app *lovage.App) {
				h = lovage.Func(app, "t.sleep", func(ctx context.Context, in Order) (string, error) {
					defer b.note("the run ends")
					return sleeper(ctx, in)
				})
			},
		}, func(x *world) {
			delay(x, h, Order{})
			pause(time.Second)
			if got, want := b.take(), "start db, start web, start other"; got != want {
				t.Errorf("at the start: got %q, want %q", got, want)
			}
			x.stop()
			if got, want := b.take(), "the run ends, stop other, stop web, stop db"; got != want {
				t.Errorf("at the end: got %q, want %q", got, want)
			}
		})
	})
	t.Run("AConsumerStepStartsAnewWithEachConnection", func(t *testing.T) {
		t.Parallel()
		b, o := new(book), new(outage)
		var conns []broker.Conn
		step := b.step("listener", "Tasks")
		start := step.Start
		var life context.Context
		step.Start = func(ctx context.Context, p worker.Parent) error {
			conns, life = append(conns, p.Conn), ctx
			return start(ctx, p)
		}
		stop := step.Stop
		step.Stop = func(ctx context.Context, p worker.Parent) error {
			if life.Err() == nil || ctx.Err() != nil || p.Conn != conns[len(conns)-1] {
				t.Error("Stop: want the context of Start to have ended, its own not, and the same connection")
			}
			return stop(ctx, p)
		}
		in(t, setup{conn: shaky(o), cfg: worker.Config{Steps: []worker.Step{b.step("once")}, ConsumerSteps: []worker.Step{step}}}, func(x *world) {
			pause(time.Second)
			if got, want := b.take(), "start once, start listener"; got != want {
				t.Errorf("at the start: got %q, want %q", got, want)
			}
			o.off.Store(true)
			pause(20 * time.Second)
			if got, want := b.take(), "stop listener"; got != want {
				t.Errorf("connection lost: got %q, want %q", got, want)
			}
			o.off.Store(false)
			pause(5 * time.Second)
			if got, want := b.take(), "start listener"; got != want {
				t.Errorf("connection back: got %q, want %q", got, want)
			}
			if len(conns) != 2 || conns[0] == conns[1] {
				t.Errorf("connections: got %v, want two", conns)
			}
			x.stop()
			if got, want := b.take(), "stop listener, stop once"; got != want {
				t.Errorf("at the end: got %q, want %q", got, want)
			}
		})
	})
	t.Run("TheConnectionIsThereUntilItsStepsHaveStopped", func(t *testing.T) {
		t.Parallel()
		var err error
		step := worker.Step{Name: "slow", Stop: func(ctx context.Context, p worker.Parent) error {
			<-time.After(3 * time.Second)
			err = p.Conn.Declare(ctx, broker.Named("still"))
			return nil
		}}
		in(t, setup{cfg: worker.Config{ConsumerSteps: []worker.Step{step}}}, func(x *world) {
			pause(time.Second)
			x.stop()
			if err != nil {
				t.Errorf("the connection in Stop: got %v, want it open", err)
			}
		})
	})
	t.Run("ColdTerminates", func(t *testing.T) {
		t.Parallel()
		b := new(book)
		kill := b.step("kill")
		kill.Terminate = func(context.Context, worker.Parent) error { b.note("terminate kill"); return nil }
		link := b.step("link")
		link.Terminate = func(context.Context, worker.Parent) error { b.note("terminate link"); return nil }
		in(t, setup{cfg: worker.Config{Steps: []worker.Step{kill, b.step("plain")}, ConsumerSteps: []worker.Step{link}}}, func(x *world) {
			b.take()
			x.w.Stop(worker.Cold)
			if err := <-x.ended; err != nil {
				t.Errorf("Run: got %v, want nil", err)
			}
			x.cancel()
			x.cancel = nil
			if got, want := b.take(), "terminate link, stop plain, terminate kill"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	})
	t.Run("AFailedStartStopsWhatWasStarted", func(t *testing.T) {
		t.Parallel()
		for _, panics := range []bool{false, true} {
			b := new(book)
			bad := worker.Step{Name: "bad", Start: func(context.Context, worker.Parent) error {
				if panics {
					panic("the port is taken")
				}
				return errors.New("the port is taken")
			}}
			fails(t, setup{cfg: worker.Config{Steps: []worker.Step{b.step("first"), bad, b.step("never")}}}, `start worker step "bad": `)
			fails(t, setup{cfg: worker.Config{Steps: []worker.Step{bad}}}, `the port is taken`)
			if got, want := b.take(), "start first, stop first"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			fails(t, setup{cfg: worker.Config{Steps: []worker.Step{b.step("outer")}, ConsumerSteps: []worker.Step{b.step("first"), bad}}}, `start consumer step "bad": `)
			if got, want := b.take(), "start outer, start first, stop first, stop outer"; got != want {
				t.Errorf("consumer: got %q, want %q", got, want)
			}
		}
	})
	t.Run("AConsumerStepThatFindsNoBrokerIsTriedAgain", func(t *testing.T) {
		t.Parallel()
		tries := 0
		step := worker.Step{Name: "late", Start: func(context.Context, worker.Parent) error {
			if tries++; tries < 4 {
				return fmt.Errorf("declare: %w", broker.ErrUnavailable)
			}
			return nil
		}}
		in(t, setup{cfg: worker.Config{ConsumerSteps: []worker.Step{step}}}, func(x *world) {
			pause(10 * time.Second)
			if tries != 4 {
				t.Errorf("starts: got %d, want 4", tries)
			}
			x.wantLog(1, "ready.")
		})
	})
	t.Run("OneThatDoesNotStopIsLeftAlone", func(t *testing.T) {
		t.Parallel()
		release := make(chan struct{})
		synctest.Test(t, func(t *testing.T) {
			release = make(chan struct{})
			b := new(book)
			x := build(t, setup{cfg: worker.Config{Steps: []worker.Step{b.step("good"), {Name: "stuck", Stop: func(context.Context, worker.Parent) error {
				<-release
				return nil
			}}}}})
			x.start()
			began := time.Now()
			x.stop()
			if d := time.Since(began); d < 10*time.Second || d > 11*time.Second {
				t.Errorf("stopped after %s, want the ten seconds of a step", d)
			}
			x.wantLog(1, `stop step \"stuck\": it did not return within 10s`)
			if got := b.take(); got != "start good, stop good" {
				t.Errorf("the other step: got %q", got)
			}
			close(release)
			x.invariants()
		})
	})
	t.Run("AWordToStopEndsALongStart", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			b := new(book)
			x := build(t, setup{cfg: worker.Config{Steps: []worker.Step{b.step("first"), {Name: "long", Start: func(ctx context.Context, _ worker.Parent) error {
				<-ctx.Done()
				return context.Cause(ctx)
			}}}}})
			x.start()
			x.w.Stop(worker.Warm)
			if err := <-x.ended; err != nil {
				t.Errorf("Run: got %v, want nil", err)
			}
			x.cancel()
			if got, want := b.take(), "start first, stop first"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			x.wantLog(0, "ready.")
		})
	})
	t.Run("BadOrders", func(t *testing.T) {
		t.Parallel()
		b := new(book)
		for want, c := range map[string]worker.Config{
			`worker: step "web" requires "nothing"`: {Steps: []worker.Step{b.step("web", "nothing")}},
			`circle: a -> b -> a`:                   {Steps: []worker.Step{b.step("a", "b"), b.step("b", "a")}},
			`worker: step "Pool" is given twice`:    {Steps: []worker.Step{b.step("Pool")}},
			`consumer: step "x" requires "Pool"`:    {ConsumerSteps: []worker.Step{b.step("x", "Pool")}},
			`worker step 6 has no name`:             {Steps: []worker.Step{{}}},
			`circle: late -> Consumer -> late`:      {Steps: []worker.Step{b.step("late", "Consumer")}},
		} {
			fails(t, setup{cfg: c}, want)
		}
		if got := b.take(); got != "" {
			t.Errorf("started all the same: %q", got)
		}
	})
}

func TestGraph(t *testing.T) {
	t.Parallel()
	b := new(book)
	w := worker.New(lovage.New("g", lovage.Config{}), worker.Config{
		Steps: []worker.Step{b.step("db"), b.step("web", "db", "Pool")}, ConsumerSteps: []worker.Step{b.step("listener", "Tasks")}})
	graph := func(include ...string) []string {
		var out strings.Builder
		if err := w.WriteGraph(&out, include...); err != nil {
			t.Fatal(err)
		}
		var edges []string
		for line := range strings.Lines(out.String()) {
			if edge, attrs, ok := strings.Cut(strings.TrimSpace(line), " ["); ok && strings.Contains(edge, "->") {
				if !strings.Contains(attrs, `fontname="HelveticaNeue"`) {
					t.Errorf("an edge without Celery's attributes: %s", line)
				}
				edges = append(edges, strings.ReplaceAll(edge, `"`, ""))
			}
		}
		return edges
	}
	all := graph()
	for _, want := range []string{"web -> db", "web -> Pool", "Pool -> Timer", "∘Events -> Timer", "⧉Consumer -> web", "⧉Consumer -> Timer",
		"Connection -> ⧉Consumer", "listener -> Tasks", "∘Control -> Tasks", "⧉claims -> listener"} {
		if !slices.Contains(all, want) {
			t.Errorf("the graph lacks %q:\n%s", want, strings.Join(all, "\n"))
		}
	}
	if one := graph(worker.GraphConsumer); slices.Contains(one, "web -> db") || !slices.Contains(one, "listener -> Tasks") {
		t.Errorf("the consumer's graph is\n%s", strings.Join(one, "\n"))
	}
	if err := w.WriteGraph(new(strings.Builder), "pool"); err == nil || !strings.Contains(err.Error(), `no graph of "pool"`) {
		t.Errorf("another graph: got %v", err)
	}
}
