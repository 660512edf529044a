package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/events"
	"github.com/lovage-go/lovage/worker"
)

// gossip writes down what a worker hears.
type gossip struct {
	mu    sync.Mutex
	heard []string
}

func (g *gossip) note(what, who string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.heard = append(g.heard, what+" "+who)
}

func (g *gossip) take() (heard []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	heard, g.heard = g.heard, nil
	return heard
}

// of is what a worker of this name is given.
func (g *gossip) of(name string) worker.Config {
	return worker.Config{Hostname: name, Gossip: worker.Gossip{
		Joined: func(p worker.Peer) { g.note(name+": joined", p.Hostname) },
		Left:   func(p worker.Peer) { g.note(name+": left", p.Hostname) },
		Lost:   func(p worker.Peer) { g.note(name+": lost", p.Hostname) },
		Topics: map[string]func(context.Context, json.RawMessage) error{
			"crown": func(_ context.Context, action json.RawMessage) error {
				g.note(name+": won", string(action))
				return nil
			},
		},
	}}
}

func TestGossip(t *testing.T) {
	t.Parallel()
	g := &gossip{}
	in(t, setup{tasks: withTask("t"), cfg: g.of("a@host")}, func(x *world) {
		heard := func(want ...string) {
			x.t.Helper()
			if got := g.take(); !slices.Equal(got, want) {
				x.t.Errorf("heard %q, want %q", got, want)
			}
		}
		pause(5 * time.Second)
		heard()
		_, stop := x.peerOf(lovage.Config{}, worker.Config{Hostname: "b@host"}, withTask("t"))
		pause(time.Second)
		heard("a@host: joined b@host")
		pause(time.Minute)
		heard() // its heartbeats are
		stop()
		pause(time.Second)
		heard("a@host: left b@host")

		// One that is heard once and never again.
		d := x.app.NewDispatcher(x.store.Broker(), "dead@host")
		if err := d.Send(context.Background(), events.WorkerHeartbeat, map[string]any{"freq": 2.0}); err != nil {
			x.t.Fatal(err)
		}
		pause(3 * time.Second)
		heard("a@host: joined dead@host")
		pause(10 * time.Second)
		heard("a@host: lost dead@host")
		x.wantLog(1, "missed heartbeat from dead@host")
	})
}

// TestElection: one worker wins, that with the lowest clock, and does what the
// topic is for.
func TestElection(t *testing.T) {
	t.Parallel()
	g := &gossip{}
	var ran []string
	tasks := func(app *lovage.App) {
		lovage.Func(app, "t", func(ctx context.Context, _ lovage.Args) (any, error) {
			ran = append(ran, lovage.RequestFrom(ctx).ID)
			return nil, nil
		})
	}
	in(t, setup{tasks: tasks, cfg: g.of("a@host")}, func(x *world) {
		var stops []func()
		for _, name := range []string{"b@host", "c@host"} {
			_, stop := x.peerOf(lovage.Config{}, g.of(name), tasks)
			stops = append(stops, stop)
		}
		off := g.of("off@host")
		off.WithoutGossip, off.WithoutHeartbeat = true, true
		_, stop := x.peerOf(lovage.Config{}, off, tasks)
		stops = append(stops, stop)
		pause(10 * time.Second)
		g.take()
		c := x.app.Control()
		for i := range 5 {
			if _, err := c.Election(context.Background(), fmt.Sprint("e", i), "crown", map[string]any{"n": i}, control.Options{}); err != nil {
				x.t.Fatal(err)
			}
			pause(time.Second)
			if got := g.take(); len(got) != 1 || got[0][1:] != fmt.Sprintf(`@host: won {"n":%d}`, i) {
				x.t.Errorf("election %d: %q, want one winner", i, got)
			}
		}
		action := map[string]any{"task": "t", "args": []int{}, "kwargs": map[string]any{}, "options": map[string]any{"task_id": "elected"}, "subtask_type": nil, "immutable": false}
		if _, err := c.Election(context.Background(), "e6", "task", action, control.Options{}); err != nil {
			x.t.Fatal(err)
		}
		pause(time.Second)
		x.wantState("elected", lovage.Success)
		if len(ran) != 1 {
			x.t.Errorf("the task of an election ran as %q, want once", ran)
		}
		if _, err := c.Election(context.Background(), "e7", "nothing", nil, control.Options{}); err != nil {
			x.t.Fatal(err)
		}
		pause(time.Second)
		x.wantLog(1, "its topic nothing could not be carried out: unknown topic")
		for _, stop := range stops {
			stop()
		}
	})
}
