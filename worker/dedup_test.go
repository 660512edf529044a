package worker_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

// comeAgain lets a worker of another language die with all that waits in the
// queue, and with results stored for some of it: id, state, result.
func comeAgain(x *world, results ...[3]string) {
	x.t.Helper()
	ctx := context.Background()
	dead := x.store.Process("dead")
	c, err := dead.Broker().Consume(ctx, broker.ConsumeConfig{Queues: []broker.Queue{broker.Named("celery")}, Worker: "dead"})
	if err != nil {
		x.t.Fatal(err)
	}
	for x.lengths("celery").Ready > 0 {
		if _, err := c.Claim(ctx, 10); err != nil {
			x.t.Fatal(err)
		}
	}
	for _, r := range results {
		x.stored(r[0], r[1], r[2])
	}
	dead.Kill()
}

// stored puts a result into the store.
func (x *world) stored(id, state, result string) {
	x.t.Helper()
	meta := fmt.Sprintf(`{"status": %q, "result": %s, "traceback": null, "children": [], "date_done": "2026-01-01T00:00:00", "task_id": %q}`, state, result, id)
	b := x.store.Backend()
	defer b.Close()
	if err := b.Store(context.Background(), &backend.Record{TaskID: id, State: protocol.State(state), Meta: []byte(meta)}); err != nil {
		x.t.Fatal(err)
	}
}

// TestDeduplication: a task that has succeeded and comes again does not run
// again, and all that follows it happens.
func TestDeduplication(t *testing.T) {
	t.Parallel()
	chain := `{"chain": [` + signature("t.part", "last", "[7]", "") + `, ` + signature("t.list", "next", "[]", "") + `], "callbacks": [` + signature("t.list", "link", "[]", "") + `]}`
	for name, c := range map[string]struct {
		embed   string
		results [][3]string
		off     bool
		fanout  bool
		ran     string            // what t.list was called with
		want    map[string]string // results
		twice   int64
	}{
		"Alone":              {results: [][3]string{{"id", "SUCCESS", "[5]"}}, want: map[string]string{"id": "[5]"}, twice: 1},
		"WhatFollowsIsSent":  {embed: chain, results: [][3]string{{"id", "SUCCESS", "[5]"}}, ran: "body [5]; body [5]", want: map[string]string{"id": "[5]", "next": "[5]", "link": "[5]", "last": "7"}, twice: 1},
		"WhatWasSentIsNot":   {embed: chain, results: [][3]string{{"id", "SUCCESS", "[5]"}, {"next", "STARTED", "{}"}, {"link", "SUCCESS", "7"}}, want: map[string]string{"id": "[5]", "link": "7"}, twice: 1},
		"AFailureRunsAgain":  {results: [][3]string{{"id", "FAILURE", `{"exc_type": "E", "exc_message": ["x"], "exc_module": "m"}`}}, ran: "body [1]", twice: 0},
		"NoResultRunsAgain":  {ran: "body [1]", want: map[string]string{"id": "[1]"}},
		"ABadResultRunAgain": {results: [][3]string{{"id", "SUCCESS", "}"}}, ran: "body [1]"},
		"ABroadcastRuns":     {results: [][3]string{{"id", "SUCCESS", "[5]"}}, fanout: true, ran: "body [1]"},
		"OffRunsAgain":       {results: [][3]string{{"id", "SUCCESS", "[5]"}}, off: true, ran: "body [1]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := &called{}
			s := canvasSetup(log)
			if c.off {
				s.conf.WorkerDeduplicateSuccessfulTasks = new(false)
			}
			if c.fanout {
				s.conf.TaskQueues = []broker.Queue{{Name: "celery", Exchange: broker.Exchange{Name: "all", Type: "fanout"}}}
			}
			bubble(t, func(t *testing.T) {
				x := build(t, s)
				x.send("t.list", "id", "[[1]]", cmp.Or(c.embed, "{}"))
				comeAgain(x, c.results...)
				x.start()
				pause(time.Minute)
				if got := log.all(); got != c.ran {
					t.Errorf("ran %q, want %q\n%s", got, c.ran, x.log)
				}
				for id, want := range c.want {
					if got := x.result(id); got != want {
						t.Errorf("result of %s: got %s, want %s", id, got, want)
					}
				}
				if s := x.w.Stats(); s.Duplicates != c.twice || c.twice > 0 && s.Losses != 0 {
					t.Errorf("stats: got %+v, want %d not run, and no loss for it", s, c.twice)
				}
				x.wantLog(int(c.twice), "has succeeded before and is not run again")
				x.stop()
				x.invariants()
			})
		})
	}
	t.Run("ItsPartOfAChordCounts", func(t *testing.T) {
		t.Parallel()
		log := &called{}
		s := canvasSetup(log)
		var store *counting
		s.backend, store = newCounting()
		bubble(t, func(t *testing.T) {
			x := build(t, s)
			_ = store.StartChord(context.Background(), "g", 2, 0)
			x.send("t.add", "a", "[1]", bodyChord, inChord("g", 0))
			comeAgain(x, [3]string{"a", "SUCCESS", "41"})
			x.send("t.add", "b", "[2]", bodyChord, inChord("g", 1))
			x.start()
			pause(time.Minute)
			if got := x.result("body"); got != "[41 2]" {
				t.Errorf("body: got %s, want [41 2]\n%s", got, x.log)
			}
			x.stop()
			x.invariants()
		})
	})
	// What is sent again may come behind the first copy, which has no mark.
	t.Run("ACopyThatComesSecondIsNotRun", func(t *testing.T) {
		t.Parallel()
		log := &called{}
		in(t, canvasSetup(log), func(x *world) {
			x.send("t.list", "next", "[[5]]", "{}")
			pause(time.Second)
			x.send("t.list", "next", "[[5]]", `{"chain": [`+signature("t.part", "last", "[7]", "")+`]}`, func(m *protocol.Message) {
				m.Headers.Extra = map[string]json.RawMessage{protocol.OnceHeader: json.RawMessage(`"copy"`)}
			})
			if got := x.result("last"); got != "7" || log.all() != "body [5]" {
				x.t.Errorf("ran %q, then %s, want one body, and what follows the copy", log.all(), got)
			}
		})
	})
	t.Run("AStoreThatIsAwayIsWaitedFor", func(t *testing.T) {
		t.Parallel()
		log := &called{}
		s := canvasSetup(log)
		var away *awayStore
		s.backend = func(b backend.Backend) backend.Backend {
			away = &awayStore{Backend: b}
			away.away.Store(true)
			return away
		}
		bubble(t, func(t *testing.T) {
			x := build(t, s)
			x.send("t.list", "id", "[[1]]", "{}")
			comeAgain(x, [3]string{"id", "SUCCESS", "[5]"})
			x.start()
			pause(time.Minute)
			away.away.Store(false)
			pause(time.Minute)
			if s := x.w.Stats(); s.Duplicates != 1 || log.all() != "" {
				t.Errorf("ran %q, stats %+v, want nothing run", log.all(), s)
			}
			x.stop()
			x.invariants()
		})
	})
	// Its worker was stopped for longer than a lease, and others have done all of it.
	t.Run("ItIsLostWhileItsResultIsRead", func(t *testing.T) {
		t.Parallel()
		log := &called{}
		s := canvasSetup(log)
		var slow, lost atomic.Bool
		slow.Store(true)
		lost.Store(true)
		s.conn = func(c broker.Conn) broker.Conn { return disowning{plainConn{c}, &lost} }
		s.backend = func(b backend.Backend) backend.Backend { return slowReader{b, &slow} }
		bubble(t, func(t *testing.T) {
			x := build(t, s)
			x.send("t.list", "id", "[[1]]", chain)
			comeAgain(x, [3]string{"id", "SUCCESS", "[5]"})
			x.start()
			pause(10 * time.Minute)
			if s := x.w.Stats(); log.all() != "body [5]; body [5]" || s.Fenced != 1 || s.Duplicates != 1 {
				t.Errorf("ran %q, stats %+v, want what follows once each: the run that lost its message causes nothing", log.all(), s)
			}
			x.stop()
			x.invariants()
		})
	})
	t.Run("WhereResultsCannotBeAskedItSaysSo", func(t *testing.T) {
		t.Parallel()
		tasks := func(app *lovage.App) { lovage.Func(app, "t.add", add) }
		on := lovage.Config{WorkerDeduplicateSuccessfulTasks: new(true)}
		told := func(x *world) { x.wantLog(1, "worker_deduplicate_successful_tasks has no effect") }
		in(t, setup{conf: on, tasks: tasks, backend: func(b backend.Backend) backend.Backend { return mailed{b} }}, told)
		on.ResultBackend = "disabled"
		in(t, setup{conf: on, tasks: tasks, nowhere: true}, told)
		in(t, setup{tasks: tasks, backend: func(b backend.Backend) backend.Backend { return mailed{b} }}, func(x *world) { x.wantLog(0, "worker_deduplicate") })
	})
}

// disowning tells once of all claims that they have ended.
type disowning struct {
	plainConn
	lost *atomic.Bool
}

func (c disowning) Consume(ctx context.Context, cfg broker.ConsumeConfig) (broker.Consumer, error) {
	cons, err := c.plainConn.Consume(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return disowned{cons.(plainConsumer), c.lost}, nil
}

type disowned struct {
	plainConsumer
	lost *atomic.Bool
}

func (c disowned) Renew(ctx context.Context, held []*broker.Delivery) ([]*broker.Delivery, error) {
	if c.lost.Swap(false) {
		return held, nil
	}
	return c.plainConsumer.Renew(ctx, held)
}

// slowReader takes a minute for its first answer on task "id".
type slowReader struct {
	backend.Backend
	slow *atomic.Bool
}

func (s slowReader) Fetch(ctx context.Context, ids ...string) ([]backend.Record, error) {
	if slices.Contains(ids, "id") && s.slow.Swap(false) {
		<-time.After(time.Minute)
	}
	return s.Backend.Fetch(ctx, ids...)
}

// mailed is a store whose results go to the callers.
type mailed struct{ backend.Backend }

func (mailed) Expect(context.Context, ...string) (string, error) { return "", nil }

func (mailed) Fetch(context.Context, ...string) ([]backend.Record, error) {
	return nil, errors.New("not ours")
}

// losesAcks takes the claim of each message that is to be acknowledged away once,
// as RabbitMQ does that closes a channel: the message comes again.
type losesAcks struct {
	plainConn
	lost map[string]bool
}

func (c *losesAcks) Consume(ctx context.Context, cfg broker.ConsumeConfig) (broker.Consumer, error) {
	cons, err := c.plainConn.Consume(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return acksLost{cons.(plainConsumer), c}, nil
}

type acksLost struct {
	plainConsumer
	c *losesAcks
}

func (a acksLost) Settle(ctx context.Context, all ...broker.Settlement) error {
	errs := make([]error, len(all))
	for i, s := range all {
		if id := s.Delivery.Properties.CorrelationID; s.Action == broker.Ack && !a.c.lost[id] {
			a.c.lost[id] = true
			s.Action = broker.HandBack
			errs[i] = broker.ErrLeaseLost
		}
		if err := a.plainConsumer.Settle(ctx, s); err != nil {
			errs[i] = err
		}
	}
	return broker.Batch(errs)
}

func (a acksLost) Claim(ctx context.Context, limit int) ([]broker.Delivery, error) {
	ds, err := a.plainConsumer.Claim(ctx, limit)
	for i := range ds {
		ds[i].Redelivered = a.c.lost[ds[i].Properties.CorrelationID]
	}
	return ds, err
}

// TestAckLostAfterSuccess: the result is stored and the message comes again, and is
// not run again: the first run has told of its end, since no other will.
func TestAckLostAfterSuccess(t *testing.T) {
	t.Parallel()
	for name, alone := range map[string]bool{"Stored": false, "NoStore": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var h *lovage.Handle[Order, string]
			var runs, told int
			s := setup{nowhere: alone, conn: func(c broker.Conn) broker.Conn { return &losesAcks{plainConn{c}, map[string]bool{}} },
				backend: plainBackend, tasks: func(app *lovage.App) {
					h = lovage.Func(app, "t.once", func(context.Context, Order) (string, error) { runs++; return "done", nil })
					app.Signals.TaskSuccess.Connect(func(context.Context, lovage.TaskSuccess) { told++ })
				}}
			in(t, s, func(x *world) {
				id := delay(x, h, Order{})
				pause(time.Minute)
				want, fenced, twice := 1, int64(0), int64(1)
				if alone {
					want, fenced, twice = 2, 1, 0 // nobody knows that it has run
				} else {
					x.wantState(id, lovage.Success)
				}
				if runs != want || told != 1 {
					t.Errorf("%d runs, of whose success %d signals tell, want %d and one\n%s", runs, told, want, x.log)
				}
				if s := x.w.Stats(); s.Succeeded != 1 || s.Fenced != fenced || s.Duplicates != twice {
					t.Errorf("stats %+v", s)
				}
			})
		})
	}
}
