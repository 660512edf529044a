package amqpbroker_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/events"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

var (
	replyName = regexp.MustCompile(`\S+(\.reply\.\w+\.pidbox)`)
	replyKey  = regexp.MustCompile(`(bind <id>\.(reply\.\w+\.pidbox) \S+) \S+`)
	eventName = regexp.MustCompile(`\b(celeryev|myev|bcast)\.[0-9A-Za-z-]+`)
	nodeName  = regexp.MustCompile(`(queue|bind) [^ <]\S*?(\.\w+\.pidbox)`)
	resultID  = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
)

// nameless takes random names out of a declaration. The queue of a node's requests
// has its name in Celery; ours is random, so that after a lost connection the server
// does not refuse it as long as it holds the old one for in use.
func nameless(text string) string {
	text = replyName.ReplaceAllString(text, "<id>$1")
	text = nodeName.ReplaceAllString(text, "$1 <node>$2")
	text = replyKey.ReplaceAllString(text, "$1 <id>")
	text = eventName.ReplaceAllString(text, "$1.<id>")
	return resultID.ReplaceAllString(text, "<id>")
}

func quiet() lovage.AppOption { return lovage.WithLogger(slog.New(slog.DiscardHandler)) }

type recordedTopology struct {
	Methods []map[string]any `json:"amqp_methods_in_order"`
	Steps   []struct {
		Methods []map[string]any `json:"amqp_methods_in_order"`
	}
}

// declared are the declarations of a recording, each once, and if it is asked for
// where messages are sent to.
func (f *recordedTopology) declared(t *testing.T, sends bool) map[string]bool {
	t.Helper()
	list := f.Methods
	for _, s := range f.Steps {
		list = append(list, s.Methods...)
	}
	out := map[string]bool{}
	for _, m := range list {
		switch m["method"] {
		case "exchange.declare", "queue.declare", "queue.bind", "exchange.bind":
			out[nameless(recordedDeclaration(t, m))] = true
		case "basic.publish":
			if sends {
				out[fmt.Sprintf("publish %v %v", m["exchange"], m["routing_key"])] = true
			}
		}
	}
	return out
}

// TestGoldenTopology compares what a worker, a client and a receiver declare with
// what Celery's declared, bit by bit and with the types of the arguments.
func TestGoldenTopology(t *testing.T) {
	t.Parallel()
	prio, wqt := broker.Named("prioq"), broker.Named("wqt")
	prio.MaxPriority = 10
	wqt.Type, wqt.Exchange.Type = "quorum", "topic"
	wq := broker.Named("wq")
	wq.Type = "quorum"
	argq := broker.Queue{Name: "argq", Exchange: broker.Exchange{Name: "argx", Type: "direct", Transient: true}, RoutingKey: "argk",
		Expires: time.Minute, MessageTTL: 30 * time.Second, MaxLength: 100, Transient: true, AutoDelete: true,
		Arguments: map[string]any{"x-dead-letter-exchange": "dlx", "x-max-length-bytes": 10_000}}
	nap := func(t *testing.T, app *lovage.App, opts ...lovage.CallOption) {
		if _, err := app.Send(limit(t, patience), "t.nap", lovage.Args{}, opts...); err != nil {
			t.Fatal(err)
		}
	}
	send := func(t *testing.T, app *lovage.App, _ *tap) { nap(t, app) }
	cases := map[string]struct {
		conf lovage.Config
		cfg  worker.Config
		do   func(*testing.T, *lovage.App, *tap) // once the worker is there
		part bool                                // its start was not recorded; what is sent is compared too
	}{
		"worker_startup_alone":       {},
		"worker_startup_second":      {cfg: worker.Config{Hostname: "w2@worker.example"}},
		"worker_default":             {},
		"no_gossip_mingle_heartbeat": {cfg: worker.Config{WithoutGossip: true, WithoutMingle: true, WithoutHeartbeat: true}},
		"max_priority":               {conf: lovage.Config{TaskDefaultQueue: "prioq", TaskQueues: []broker.Queue{prio}}},
		"broadcast_queue":            {conf: lovage.Config{TaskQueues: []broker.Queue{broker.Named("celery"), broker.Broadcast("broadcast_tasks")}}},
		"queue_arguments":            {conf: lovage.Config{TaskDefaultQueue: "argq", TaskQueues: []broker.Queue{argq}}},
		"quorum_default_queue":       {conf: lovage.Config{TaskDefaultQueue: "wq", TaskQueues: []broker.Queue{wq}}, part: true, do: send},
		"pidbox_event_queue_options": {conf: lovage.Config{ControlQueueTTL: 100 * time.Second, ControlQueueExpires: 20 * time.Second,
			EventQueuePrefix: "myev", EventExchange: "myevents", ControlExchange: "myctl"}},
		"quorum_topic_native_delay": {conf: lovage.Config{TaskDefaultQueue: "wqt", TaskQueues: []broker.Queue{wqt}},
			do: func(t *testing.T, app *lovage.App, tp *tap) { nap(t, app, lovage.Countdown(1<<27*time.Second)) }}, // as late as can be
		"ack_late": {conf: lovage.Config{TaskAcksLate: new(true)}, part: true, do: send},
		"eta_prefetch_increment": {conf: lovage.Config{WorkerPrefetchMultiplier: 1}, part: true,
			do: func(t *testing.T, app *lovage.App, tp *tap) { nap(t, app, lovage.Countdown(time.Second)); nap(t, app) }},
		"worker_shutdown": {cfg: worker.Config{Hostname: "w2@worker.example"}, part: true, do: func(t *testing.T, app *lovage.App, tp *tap) {
			compareDeclarations(t, tp, map[string]bool{"publish celeryev worker.heartbeat": true}, true) // it has begun
			if _, err := app.Control().Shutdown(limit(t, patience), control.Options{Destination: []string{"w2@worker.example"}}); err != nil {
				t.Fatal(err)
			}
		}},
	}
	server := testenv.RabbitMQ(t)
	files := load[recordedTopology](t, "testdata/golden/topology/*.json")
	if len(files) != len(cases) || len(files) != 13 {
		t.Errorf("%d files, and %d are compared", len(files), len(cases))
	}
	for name, f := range files {
		c, is := cases[name]
		if !is {
			t.Errorf("%s is not compared", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := f.declared(t, c.part)
			// What was delayed comes to a queue by bindings of its own, not by its
			// exchange's, which know the last word of a key only: TestETAFromPythonLetsOthersPass.
			maps.DeleteFunc(want, func(text string, _ bool) bool { return strings.HasSuffix(text, " #.wqt map[]") })
			tp := newTap(t, server.Addr)
			c.conf.BrokerURL = strings.Replace(server.Vhost(t), server.Addr, tp.addr, 1)
			app := lovage.New("proj", c.conf, quiet())
			goWorkerWith(t, app, func(cfg *worker.Config) {
				cfg.WithoutGossip, cfg.WithoutMingle, cfg.WithoutHeartbeat = c.cfg.WithoutGossip, c.cfg.WithoutMingle, c.cfg.WithoutHeartbeat
				cfg.Hostname = "celery@worker.example"
				if c.cfg.Hostname != "" {
					cfg.Hostname = c.cfg.Hostname
				}
			})
			if c.do != nil {
				c.do(t, app, tp)
			}
			compareDeclarations(t, tp, want, c.part)
			for _, m := range tp.all() { // Celery raises it for what is early, which does not wait in a worker of ours
				if m.name() == basicQos && m.args[6] != 0 {
					t.Error("a global prefetch is set")
				}
			}
		})
	}
	t.Run("receiver_declarations", func(t *testing.T) {
		t.Parallel()
		f := load[recordedTopology](t, "testdata/golden/events/receiver_declarations.json")["receiver_declarations"]
		tp := newTap(t, server.Addr)
		conn := open(t, strings.Replace(server.Vhost(t), server.Addr, tp.addr, 1), nil)
		defer conn.Close()
		r, err := events.Listen(t.Context(), conn, events.ListenConfig{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		want := f.declared(t, false)
		// The recorded receiver asks for heartbeats at once; ours waits for them.
		maps.DeleteFunc(want, func(text string, _ bool) bool { return strings.HasPrefix(text, "exchange celery.pidbox") })
		compareDeclarations(t, tp, want, false)
	})
	t.Run("ping", func(t *testing.T) {
		t.Parallel()
		exchange := load[recordedExchange](t, "testdata/golden/control/ping.json")["ping"]
		tp := newTap(t, server.Addr)
		app := lovage.New("proj", lovage.Config{BrokerURL: strings.Replace(server.Vhost(t), server.Addr, tp.addr, 1)}, quiet())
		defer app.Close(context.Background())
		if _, err := app.Control().Ping(t.Context(), control.Options{Reply: true, Timeout: 100 * time.Millisecond}); err != nil {
			t.Fatal(err)
		}
		f := recordedTopology{Methods: exchange.Methods} // the process had made the exchange of requests before
		compareDeclarations(t, tp, f.declared(t, false), true)
	})
}

// compareDeclarations waits until all that is wanted was declared, and wants no
// more than that, and Lovage's own, unless it is a part only.
func compareDeclarations(t *testing.T, tp *tap, want map[string]bool, part bool) {
	t.Helper()
	ours := regexp.MustCompile(`lovage|celery_delayed`)
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		missing := maps.Clone(want)
		var more []string
		for _, m := range tp.all() {
			text := nameless(declaration(t, m))
			if text != "" && !want[text] && !ours.MatchString(text) && !slices.Contains(more, text) {
				more = append(more, text)
			}
			delete(missing, text)
			delete(missing, publication(m))
		}
		if len(more) > 0 && !part {
			t.Fatalf("declared and not in the recording: %q\nmissing: %q", more, slices.Sorted(maps.Keys(missing)))
		}
		if len(missing) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not declared: %q", slices.Sorted(maps.Keys(missing)))
		}
	}
}
