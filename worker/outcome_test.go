package worker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/worker"
)

// failing is a task whose body does what it is told.
type Order struct{ Do string }

func obey(ctx context.Context, in Order) (string, error) {
	switch in.Do {
	case "fail":
		return "", errBoom
	case "panic":
		panic("went wrong")
	case "ignore":
		return "", lovage.ErrIgnore
	case "reject":
		return "", lovage.Reject(errBoom, false)
	case "requeue":
		if r := lovage.RequestFrom(ctx); !r.Delivery.Redelivered {
			return "", lovage.Reject(errBoom, true)
		}
	case "retry":
		if r := lovage.RequestFrom(ctx); r.Retries < 2 {
			return "", lovage.Retry(errBoom, lovage.Countdown(time.Minute))
		}
	case "wait":
		<-ctx.Done()
		return "", context.Cause(ctx)
	}
	return "done " + in.Do, nil
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		do    string
		opts  []lovage.TaskOption
		after time.Duration
		state lovage.State
		dead  string // part of the dead letter's reason
		stat  func(worker.Stats) int64
	}{
		"SuccessIsAcked":           {do: "work", state: lovage.Success, stat: func(s worker.Stats) int64 { return s.Succeeded }},
		"FailureIsAcked":           {do: "fail", state: lovage.Failure, stat: func(s worker.Stats) int64 { return s.Failed }},
		"PanicIsAFailure":          {do: "panic", state: lovage.Failure, stat: func(s worker.Stats) int64 { return s.Failed }},
		"FailureIsADeadLetter":     {do: "fail", opts: []lovage.TaskOption{lovage.AcksOnFailure(false)}, state: lovage.Failure, dead: "boom", stat: func(s worker.Stats) int64 { return s.Dead }},
		"IgnoredLeavesNoState":     {do: "ignore", state: "", stat: func(s worker.Stats) int64 { return s.Processed }},
		"RejectedIsADeadLetter":    {do: "reject", state: lovage.Failure, dead: "rejected", stat: func(s worker.Stats) int64 { return s.Rejected }},
		"RejectedWithRequeueRuns":  {do: "requeue", state: lovage.Success, stat: func(s worker.Stats) int64 { return s.Rejected }},
		"RetryRunsAgain":           {do: "retry", after: 3 * time.Minute, state: lovage.Success, stat: func(s worker.Stats) int64 { return s.Retried / 2 }},
		"EarlyAckRuns":             {do: "work", opts: []lovage.TaskOption{lovage.AcksLate(false)}, state: lovage.Success, stat: func(s worker.Stats) int64 { return s.Succeeded }},
		"EarlyAckFailureIsStored":  {do: "fail", opts: []lovage.TaskOption{lovage.AcksLate(false), lovage.AcksOnFailure(false)}, state: lovage.Failure, stat: func(s worker.Stats) int64 { return s.Failed }},
		"EarlyAckRetryIsPublished": {do: "retry", opts: []lovage.TaskOption{lovage.AcksLate(false)}, after: 3 * time.Minute, state: lovage.Success, stat: func(s worker.Stats) int64 { return s.Retried / 2 }},
		"RejectWithoutAckFails":    {do: "requeue", opts: []lovage.TaskOption{lovage.AcksLate(false)}, state: lovage.Failure, stat: func(s worker.Stats) int64 { return s.Failed }},
	}
	for name, c := range cases {
		for _, apart := range []bool{false, true} {
			name := name
			if apart {
				name += "/StoresApart"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				var h *lovage.Handle[Order, string]
				s := setup{tasks: func(app *lovage.App) { h = lovage.Func(app, "t.obey", obey, c.opts...) }}
				if apart {
					s.broker, s.backend = plainBroker, plainBackend
				}
				in(t, s, func(x *world) {
					id := delay(x, h, Order{c.do})
					pause(time.Second + c.after)
					x.wantState(id, c.state)
					if got := c.stat(x.w.Stats()); got != 1 {
						t.Errorf("stats: got %d in %+v, want 1", got, x.w.Stats())
					}
					dead := x.dead()
					switch {
					case c.dead == "" && len(dead) > 0:
						t.Errorf("dead letters: got %v, want none", dead)
					case c.dead != "" && (len(dead) != 1 || !strings.Contains(dead[0].Reason, c.dead)):
						t.Errorf("dead letters: got %v, want one for %q", dead, c.dead)
					}
					if l := x.lengths("celery"); l.Ready+l.Claimed+l.Delayed != 0 {
						t.Errorf("queue: got %+v, want it empty", l)
					}
				})
			})
		}
	}
}

func TestFollowUps(t *testing.T) {
	t.Parallel()
	t.Run("LinkAndErrback", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		var note *lovage.Handle[string, lovage.None]
		var seen atomic.Value
		in(t, setup{tasks: func(app *lovage.App) {
			h = lovage.Func(app, "t.obey", obey)
			note = lovage.Proc(app, "t.note", func(_ context.Context, text string) error { seen.Store(text); return nil })
		}}, func(x *world) {
			id := delay(x, h, Order{"fail"}, lovage.LinkError(note.After()))
			pause(time.Second)
			if got := seen.Load(); got != id {
				t.Errorf("errback: got %v, want the id %s of the failed task", got, id)
			}
			delay(x, h, Order{"work"}, lovage.Link(note.After()))
			pause(time.Second)
			if got := seen.Load(); got != "done work" {
				t.Errorf("link: got %v, want the result", got)
			}
		})
	})
}

func TestBadMessages(t *testing.T) {
	t.Parallel()
	t.Run("UnregisteredIsADeadLetterAndFails", func(t *testing.T) {
		t.Parallel()
		in(t, setup{}, func(x *world) {
			unknown := ""
			x.app.Signals.TaskUnknown.Connect(func(_ context.Context, e lovage.TaskUnknown) { unknown = e.Name })
			r, err := x.app.Send(context.Background(), "t.nowhere", lovage.Args{})
			if err != nil {
				t.Fatal(err)
			}
			pause(time.Second)
			x.wantState(r.ID(), lovage.Failure)
			x.wantLog(1, "Received unregistered task of type 't.nowhere'")
			if _, err := r.Get(context.Background()); !errors.Is(err, lovage.ErrNotRegistered) {
				t.Errorf("Get: got %v, want ErrNotRegistered", err)
			}
			if unknown != "t.nowhere" {
				t.Errorf("TaskUnknown: got %q", unknown)
			}
			if d := x.dead(); len(d) != 1 || !strings.Contains(d[0].Reason, "unregistered task of type 't.nowhere'") {
				t.Errorf("dead letters: got %v", d)
			}
		})
	})
	for name, c := range map[string]struct {
		headers, body, reason string
		contentType           string
		id                    bool
	}{
		"MalformedBody":      {headers: `{"task":"t.add","id":"x"}`, body: `[[1,2`, reason: "malformed", id: true},
		"MalformedHeaders":   {headers: `{"task":`, body: `[[],{},{}]`, reason: "malformed"},
		"ContentNotAccepted": {headers: `{"task":"t.add","id":"x"}`, body: "\x80\x02", contentType: "application/x-python-serialize", reason: "not accepted", id: true},
		"TooDeep":            {headers: `{"task":"t.add","id":"x"}`, body: strings.Repeat("[", 5000) + strings.Repeat("]", 5000), reason: "too large", id: true},
		"HeaderOfAWrongType": {headers: `{"task":"t.add","id":{"a":1}}`, body: `[[],{},{}]`, reason: "malformed"},
	} {
		t.Run(name+"IsADeadLetter", func(t *testing.T) {
			t.Parallel()
			in(t, setup{tasks: func(app *lovage.App) { lovage.Func(app, "t.add", add) }}, func(x *world) {
				var rejected []byte
				x.app.Signals.TaskRejected.Connect(func(_ context.Context, e lovage.TaskRejected) { rejected = e.Body })
				x.raw(c.headers, c.body, c.contentType)
				pause(time.Second)
				d := x.dead()
				if len(d) != 1 || !strings.Contains(d[0].Reason, c.reason) || string(d[0].Body) != c.body {
					t.Fatalf("dead letters: got %+v, want the raw body and %q\n%s", d, c.reason, x.log)
				}
				if string(rejected) != c.body {
					t.Errorf("TaskRejected: got %q, want the body", rejected)
				}
				if c.id {
					x.wantState("x", lovage.Failure)
				}
				// The worker lives.
				h, _ := x.app.Task("t.add")
				r, err := h.Delay(context.Background(), lovage.Args{Positional: []any{1, 2}})
				if err != nil {
					t.Fatal(err)
				}
				pause(time.Second)
				x.wantState(r.ID(), lovage.Success)
			})
		})
	}
	t.Run("WrongArgumentsFailTheTask", func(t *testing.T) {
		t.Parallel()
		in(t, setup{tasks: func(app *lovage.App) { lovage.Func(app, "t.add", add) }}, func(x *world) {
			x.raw(`{"task":"t.add","id":"x"}`, `[["one"],{},{}]`, "")
			x.raw(`{"task":"t.add","id":"y"}`, `[[],{"z":1},{}]`, "")
			pause(time.Second)
			x.wantState("x", lovage.Failure)
			x.wantState("y", lovage.Failure)
		})
	})
}

func TestExpiryAndRevoke(t *testing.T) {
	t.Parallel()
	var ran atomic.Int32
	declare := func(h **lovage.Handle[Order, string]) func(*lovage.App) {
		return func(app *lovage.App) {
			*h = lovage.Func(app, "t.obey", func(ctx context.Context, in Order) (string, error) {
				if in.Do == "count" {
					ran.Add(1)
				}
				return obey(ctx, in)
			})
		}
	}
	t.Run("ExpiredIsRevokedAndDoesNotRun", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		in(t, setup{tasks: declare(&h), cfg: worker.Config{Concurrency: 1, LookAhead: -1}}, func(x *world) {
			var expired bool
			x.app.Signals.TaskRevoked.Connect(func(_ context.Context, e lovage.TaskRevoked) { expired = e.Expired })
			blocker := delay(x, h, Order{"wait"}, lovage.SoftTimeLimit(time.Minute))
			id := delay(x, h, Order{"count"}, lovage.Expires(10*time.Second))
			pause(2 * time.Minute)
			x.wantState(blocker, lovage.Failure)
			x.wantState(id, lovage.Revoked)
			x.wantLog(1, "Discarding expired task: t.obey["+id+"]")
			if !expired || ran.Load() != 0 {
				t.Errorf("expired signal %t, runs %d, want true and 0", expired, ran.Load())
			}
		})
	})
	t.Run("ExpiredBehindALongRunIsRevokedBeforeThatEnds", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		in(t, setup{tasks: declare(&h), cfg: worker.Config{Concurrency: 1}}, func(x *world) {
			delay(x, h, Order{"wait"}, lovage.SoftTimeLimit(time.Minute))
			id := delay(x, h, Order{"count"}, lovage.Expires(900*time.Millisecond))
			pause(3 * time.Second)
			x.wantState(id, lovage.Revoked)
			if s := x.w.Stats(); s.Returned != 0 || s.Revoked != 1 || s.Active != 1 || ran.Load() != 0 {
				t.Errorf("got %+v, want one that is revoked, none handed back, and the long run", s)
			}
			pause(2 * time.Minute)
		})
	})
	t.Run("RevokedDoesNotRun", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		in(t, setup{tasks: declare(&h)}, func(x *world) {
			x.w.Revoke(false, "id-1")
			delay(x, h, Order{"count"}, lovage.TaskID("id-1"))
			pause(time.Second)
			x.wantState("id-1", lovage.Revoked)
			x.wantLog(1, "Discarding revoked task: t.obey[id-1]")
			if n := x.w.Stats().Revoked; n != 1 {
				t.Errorf("Revoked: got %d, want 1", n)
			}
		})
	})
	t.Run("TerminateCancelsARun", func(t *testing.T) {
		t.Parallel()
		var h *lovage.Handle[Order, string]
		in(t, setup{tasks: declare(&h)}, func(x *world) {
			id := delay(x, h, Order{"wait"})
			pause(time.Second)
			if a := x.w.Active(); len(a) != 1 || a[0].ID != id || a[0].Started.IsZero() {
				t.Fatalf("Active: got %+v, want the run", a)
			}
			x.w.Revoke(true, id)
			pause(time.Second)
			x.wantState(id, lovage.Revoked)
		})
	})
}

func TestTime(t *testing.T) {
	t.Parallel()
	for _, park := range []bool{true, false} {
		t.Run(fmt.Sprintf("EtaFromElsewhereWaits/Park=%t", park), func(t *testing.T) {
			t.Parallel()
			s := setup{tasks: func(app *lovage.App) { lovage.Func(app, "t.add", add) }}
			if !park {
				s.broker = plainBroker
			}
			in(t, s, func(x *world) {
				eta := time.Now().UTC().Add(time.Hour)
				x.raw(`{"task":"t.add","id":"x","eta":"`+eta.Format("2006-01-02T15:04:05.000000+00:00")+`"}`, `[[1],{},{}]`, "")
				pause(59 * time.Minute)
				x.wantState("x", "")
				if n := x.w.Stats().SlotsUsed; n != 0 {
					t.Errorf("slots used while it waits: got %d, want 0", n)
				}
				pause(2 * time.Minute)
				x.wantState("x", lovage.Success)
			})
		})
		t.Run(fmt.Sprintf("EtaTaskLimit/Park=%t", park), func(t *testing.T) {
			t.Parallel()
			var h *lovage.Handle[AddArgs, int]
			s := setup{tasks: func(app *lovage.App) { h = lovage.Func(app, "t.add", add) }, conf: lovage.Config{WorkerETATaskLimit: 3}}
			if !park {
				s.broker = plainBroker
			}
			in(t, s, func(x *world) {
				eta := time.Now().UTC().Add(time.Hour).Format("2006-01-02T15:04:05.000000+00:00")
				for i := range 5 {
					x.raw(fmt.Sprintf(`{"task":"t.add","id":"x%d","eta":"%s"}`, i, eta), `[[1],{},{}]`, "")
				}
				pause(time.Second)
				plain := delay(x, h, AddArgs{X: 1})
				pause(10 * time.Minute)
				want, taken := lovage.Success, int64(5)
				if !park { // it holds three, and takes no more
					want, taken = "", 3
				}
				x.wantState(plain, want)
				if n := x.w.Stats().Parked; n != taken {
					t.Errorf("%d messages wait for their time with the worker, want %d", n, taken)
				}
				pause(time.Hour)
				x.wantState(plain, lovage.Success)
				x.wantState("x4", lovage.Success)
			})
		})
		t.Run(fmt.Sprintf("RateLimitSpreadsRuns/Park=%t", park), func(t *testing.T) {
			t.Parallel()
			var h *lovage.Handle[AddArgs, int]
			var mu sync.Mutex
			var at []time.Time
			s := setup{tasks: func(app *lovage.App) {
				h = lovage.Func(app, "t.add", func(ctx context.Context, in AddArgs) (int, error) {
					mu.Lock()
					defer mu.Unlock()
					at = append(at, time.Now())
					return 0, nil
				}, lovage.RateLimit("6/m"))
			}, cfg: worker.Config{Concurrency: 1}}
			if !park {
				s.broker = plainBroker
			}
			in(t, s, func(x *world) {
				for range 5 {
					delay(x, h, AddArgs{})
				}
				pause(time.Minute)
				if len(at) != 5 {
					t.Fatalf("runs in a minute: got %d, want 5 (6/m)\n%s", len(at), x.log)
				}
				for i := 1; i < len(at); i++ {
					if d := at[i].Sub(at[i-1]); d < 9999*time.Millisecond || d > 11*time.Second {
						t.Errorf("run %d: got %s after the one before, want 10s", i, d)
					}
				}
			})
		})
	}
	t.Run("BadRateLimitStopsTheStart", func(t *testing.T) {
		t.Parallel()
		s := setup{tasks: func(app *lovage.App) { lovage.Func(app, "t.add", add, lovage.RateLimit("fast")) }}
		fails(t, s, `rate limit "fast"`)
	})
}
