package lovage_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

type paymentError struct{ Code int }

func (e *paymentError) Error() string { return fmt.Sprint("payment refused: ", e.Code) }

// body makes a task of a function without arguments.
func body(w *world, f func(ctx context.Context) (any, error), opts ...lovage.TaskOption) *lovage.Handle[struct{}, any] {
	return lovage.Func(w.app, "t.body", func(ctx context.Context, _ struct{}) (any, error) { return f(ctx) }, opts...)
}

// TestOutcomes is the table of what Run may return.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	type want struct {
		state   lovage.State // of the outcome
		stored  lovage.State // PENDING: nothing
		typ     string
		module  string // "" is null
		message string // JSON
		queued  int    // messages in the queue afterwards
		dead    int
	}
	for name, c := range map[string]struct {
		run   func(ctx context.Context) (any, error)
		cause error // cancels the run before it starts
		opts  []lovage.TaskOption
		want  want
	}{
		"Value":        {run: func(context.Context) (any, error) { return 3, nil }, want: want{state: "SUCCESS", stored: "SUCCESS"}},
		"Error":        {run: func(context.Context) (any, error) { return nil, boom }, want: want{"FAILURE", "FAILURE", "Error", "", `["boom"]`, 0, 0}},
		"TypedError":   {run: func(context.Context) (any, error) { return nil, fmt.Errorf("pay: %w", &paymentError{7}) }, want: want{"FAILURE", "FAILURE", "paymentError", "", `["pay: payment refused: 7"]`, 0, 0}},
		"Retry":        {run: func(context.Context) (any, error) { return nil, lovage.Retry(boom) }, want: want{"RETRY", "RETRY", "Error", "", `["boom"]`, 1, 0}},
		"WrappedRetry": {run: func(context.Context) (any, error) { return nil, fmt.Errorf("x: %w", lovage.Retry(boom)) }, want: want{"RETRY", "RETRY", "Error", "", `["boom"]`, 1, 0}},
		"RetryNoCause": {run: func(context.Context) (any, error) { return nil, lovage.Retry(nil, lovage.Countdown(5*time.Second)) }, want: want{"RETRY", "RETRY", "Retry", "celery.exceptions", `["Retry in 5s"]`, 1, 0}},
		"RetryAtTheEnd": {run: func(context.Context) (any, error) { return nil, lovage.Retry(boom) }, opts: []lovage.TaskOption{lovage.MaxRetries(0)},
			want: want{"FAILURE", "FAILURE", "Error", "", `["boom"]`, 0, 0}},
		"RetryNoCauseAtTheEnd": {run: func(context.Context) (any, error) { return nil, lovage.Retry(nil) }, opts: []lovage.TaskOption{lovage.MaxRetries(0)},
			want: want{"FAILURE", "FAILURE", "MaxRetriesExceededError", "celery.exceptions", `["Can't retry t.body[id] args:() kwargs:{}"]`, 0, 0}},
		"RetryBadPriority": {run: func(context.Context) (any, error) { return nil, lovage.Retry(boom, lovage.Priority(256)) },
			want: want{"REJECTED", "FAILURE", "Reject", "celery.exceptions", `["priority 256: want 0 to 255", false]`, 0, 1}},
		"Ignore":        {run: func(context.Context) (any, error) { return nil, fmt.Errorf("no news: %w", lovage.ErrIgnore) }, want: want{state: "IGNORED", stored: "PENDING"}},
		"Reject":        {run: func(context.Context) (any, error) { return nil, lovage.Reject(boom, false) }, want: want{"REJECTED", "FAILURE", "Reject", "celery.exceptions", `["boom", false]`, 0, 1}},
		"RejectRequeue": {run: func(context.Context) (any, error) { return nil, lovage.Reject(boom, true) }, want: want{state: "REJECTED", stored: "PENDING", queued: 1}},
		"RejectRequeueTooLate": {run: func(context.Context) (any, error) { return nil, lovage.Reject(boom, true) }, opts: []lovage.TaskOption{lovage.AcksLate(false)},
			want: want{"FAILURE", "FAILURE", "Reject", "celery.exceptions", `["boom (not requeued: the task acknowledges early)", true]`, 0, 0}},
		"TaskError": {run: func(context.Context) (any, error) {
			return nil, &lovage.TaskError{Type: "ValueError", Module: "builtins", Args: []any{"bad", 3}}
		}, want: want{"FAILURE", "FAILURE", "ValueError", "builtins", `["bad", 3]`, 0, 0}},
		"TaskErrorWithoutArgs": {run: func(context.Context) (any, error) { return nil, &lovage.TaskError{Type: "KeyError"} }, want: want{"FAILURE", "FAILURE", "KeyError", "", `[]`, 0, 0}},
		"TaskErrorArgsNoJSON": {run: func(context.Context) (any, error) {
			return nil, &lovage.TaskError{Type: "KeyError", Args: []any{1, complex(1, 0)}}
		}, want: want{state: "FAILURE", stored: "FAILURE", typ: "KeyError", message: `["1", "(1+0i)"]`}},
		"Panic":            {run: func(context.Context) (any, error) { panic("ouch") }, want: want{"FAILURE", "FAILURE", "Panic", "", `["panic: ouch"]`, 0, 0}},
		"PanicWithARetry":  {run: func(context.Context) (any, error) { panic(lovage.Retry(boom)) }, want: want{"RETRY", "RETRY", "Error", "", `["boom"]`, 1, 0}},
		"SoftLimit":        {run: func(ctx context.Context) (any, error) { return nil, ctx.Err() }, cause: lovage.ErrSoftTimeLimit, want: want{"FAILURE", "FAILURE", "SoftTimeLimitExceeded", "billiard.exceptions", `[]`, 0, 0}},
		"SoftLimitCaught":  {run: func(context.Context) (any, error) { return 3, nil }, cause: lovage.ErrSoftTimeLimit, want: want{state: "SUCCESS", stored: "SUCCESS"}},
		"SoftLimitRetried": {run: func(context.Context) (any, error) { return nil, lovage.Retry(boom) }, cause: lovage.ErrSoftTimeLimit, want: want{"RETRY", "RETRY", "Error", "", `["boom"]`, 1, 0}},
		"SoftLimitAutoRetried": {run: func(ctx context.Context) (any, error) { return nil, ctx.Err() }, cause: lovage.ErrSoftTimeLimit, opts: []lovage.TaskOption{lovage.RetryOn(lovage.ErrSoftTimeLimit)},
			want: want{"RETRY", "RETRY", "SoftTimeLimitExceeded", "billiard.exceptions", `[]`, 1, 0}},
		"Shutdown":         {run: func(ctx context.Context) (any, error) { return nil, ctx.Err() }, cause: lovage.ErrShutdown, want: want{state: "", stored: "PENDING", queued: 1}},
		"ShutdownEarlyAck": {run: func(ctx context.Context) (any, error) { return nil, boom }, cause: lovage.ErrShutdown, opts: []lovage.TaskOption{lovage.AcksLate(false)}, want: want{"FAILURE", "FAILURE", "Error", "", `["boom"]`, 0, 0}},
		"ShutdownFinished": {run: func(context.Context) (any, error) { return 3, nil }, cause: lovage.ErrShutdown, want: want{state: "SUCCESS", stored: "SUCCESS"}},
		"Terminated":       {run: func(ctx context.Context) (any, error) { return nil, ctx.Err() }, cause: lovage.ErrRevoked, want: want{"REVOKED", "REVOKED", "TaskRevokedError", "celery.exceptions", `["terminated"]`, 0, 0}},
		"NoJSON":           {run: func(context.Context) (any, error) { return make(chan int), nil }, want: want{state: "FAILURE", stored: "FAILURE", typ: "EncodeError", module: "kombu.exceptions"}},
		"NoJSONInside":     {run: func(context.Context) (any, error) { return map[string]any{"x": math.NaN(), "f": func() {}}, nil }, want: want{state: "FAILURE", stored: "FAILURE", typ: "EncodeError", module: "kombu.exceptions"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lovage.Config{})
			h := body(w, c.run, c.opts...)
			res := must[*lovage.Result[any]](t)(h.Delay(w.ctx(), struct{}{}, lovage.TaskID("id")))
			ctx := context.Background()
			if c.cause != nil {
				var cancel context.CancelCauseFunc
				ctx, cancel = context.WithCancelCause(ctx)
				cancel(c.cause)
			}
			out := w.runIn(ctx)
			equal(t, "state", out.State, c.want.state)
			m := must[*lovage.Meta](t)(res.Meta(w.ctx()))
			equal(t, "stored", m.Status, c.want.stored)
			if c.want.typ != "" {
				form, ok := m.Error()
				if !ok {
					t.Fatalf("no error is stored but %s", m.Result)
				}
				module := ""
				if form.Module != nil {
					module = *form.Module
				}
				equal(t, "exc_type", form.Type, c.want.typ)
				equal(t, "exc_module", module, c.want.module)
				if c.want.message != "" {
					equal(t, "exc_message", jsonText(t, parse(t, form.Message)), jsonText(t, parse(t, []byte(c.want.message))))
				}
				if m.Traceback == "" && c.want.state != "REVOKED" {
					t.Error("no traceback")
				}
			}
			equal(t, "queued", w.waiting("celery"), c.want.queued)
			conn := must[broker.Conn](t)(w.app.Broker(w.ctx()))
			dead := must[[]broker.Dead](t)(conn.(broker.DeadLetterer).DeadLetters(w.ctx(), "celery", "", 9))
			equal(t, "dead letters", len(dead), c.want.dead)
		})
	}
}

func TestLeaseLostLeavesNoTrace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lovage.Config{})
	h := body(w, func(ctx context.Context) (any, error) { return nil, ctx.Err() })
	watch(w.app, w.log)
	must[*lovage.Result[any]](t)(h.Delay(w.ctx(), struct{}{}, lovage.TaskID("id")))
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(lovage.ErrLeaseLost)
	d := w.claim()
	w.log.take()
	out := w.app.Execute(ctx, w.receive(d), lovage.FinisherFunc(func(_ context.Context, e *lovage.Effects) error {
		if len(e.Publish)+len(e.Store) > 0 {
			t.Errorf("effects %+v", e)
		}
		return nil
	}))
	if !errors.Is(out.Fenced, lovage.ErrLeaseLost) {
		t.Errorf("outcome %+v", out)
	}
	equalLines(t, w.log.take(), []string{"prerun id"})
}

func TestAFinisherThatFailsFencesTheRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lovage.Config{})
	c := lovage.Register(w.app, "t.rec", &recorded{recorder{d: &diary{}}})
	must[*lovage.Result[int]](t)(c.Delay(w.ctx(), AddArgs{X: 1}))
	out := w.app.Execute(w.ctx(), w.receive(w.claim()), lovage.FinisherFunc(func(context.Context, *lovage.Effects) error { return broker.ErrLeaseLost }))
	if !errors.Is(out.Fenced, broker.ErrLeaseLost) {
		t.Errorf("outcome %+v", out)
	}
	for _, line := range c.Self.d.read() {
		if strings.HasPrefix(line, "OnSuccess") || strings.HasPrefix(line, "AfterReturn") {
			t.Errorf("a late hook ran: %s", line)
		}
	}
}

func TestThrowsLogsAtInfo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  error
		opts []lovage.TaskOption
		line string
	}{
		"Unexpected": {errNegative, nil, "log ERROR Task t.body[id] raised unexpected: Error('negative') +traceback"},
		"Sentinel":   {fmt.Errorf("x: %w", errNegative), []lovage.TaskOption{lovage.Throws(errNegative)}, "log INFO Task t.body[id] raised expected: Error('x: negative')"},
		"Type":       {&paymentError{5}, []lovage.TaskOption{lovage.Throws(&paymentError{})}, "log INFO Task t.body[id] raised expected: paymentError('payment refused: 5')"},
		"AfterRetries": {lovage.Retry(errNegative), []lovage.TaskOption{lovage.Throws(errNegative), lovage.MaxRetries(0)},
			"log INFO Task t.body[id] raised expected: Error('negative')"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lovage.Config{})
			h := body(w, func(context.Context) (any, error) { return nil, c.err }, c.opts...)
			must[*lovage.Result[any]](t)(h.Delay(w.ctx(), struct{}{}, lovage.TaskID("id")))
			equal(t, "state", w.run().State, lovage.Failure)
			equal(t, "stored", w.state("id"), lovage.Failure)
			equalLines(t, w.log.read(), []string{c.line})
		})
	}
}

func TestConclude(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		out  lovage.Outcome
		want []string
		is   error
	}{
		"HardLimit": {lovage.TimedOut(3 * time.Second), []string{
			"store id FAILURE", "OnFailure id [1] {} 0 [TimeLimitExceeded(3.0) false]", "failure TimeLimitExceeded",
			"log ERROR Task t.rec[id] raised unexpected: TimeLimitExceeded(3.0)",
			"AfterReturn id [1] {} 0 [FAILURE <nil> true]", "postrun FAILURE <nil>"}, lovage.ErrTimeLimit},
		"WorkerLost": {lovage.LostWorker("signal 9"), []string{
			"store id FAILURE", "OnFailure id [1] {} 0 [WorkerLostError('signal 9') false]", "failure WorkerLostError",
			"log ERROR Task t.rec[id] raised unexpected: WorkerLostError('signal 9')",
			"AfterReturn id [1] {} 0 [FAILURE <nil> true]"}, lovage.ErrWorkerLost},
		"Expired": {lovage.Expired(), []string{"store id REVOKED", "log INFO Task t.rec[id] revoked: expired"}, lovage.ErrRevoked},
		"Revoked": {lovage.RevokedOutcome(), []string{"store id REVOKED", "log INFO Task t.rec[id] revoked: revoked"}, lovage.ErrRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lovage.Config{})
			h := lovage.Register(w.app, "t.rec", &recorded{recorder{d: w.log}})
			watch(w.app, w.log)
			w.finished = func(e *lovage.Effects) {
				for _, r := range e.Store {
					w.log.write("store %s %s", r.TaskID, r.State)
				}
			}
			res := must[*lovage.Result[int]](t)(h.Delay(w.ctx(), AddArgs{X: 1}, lovage.TaskID("id")))
			d := w.claim()
			r := w.receive(d)
			w.log.take()
			w.app.Conclude(context.Background(), r, c.out, w.finisher(d))
			equalLines(t, w.log.take(), c.want)
			if _, err := res.Get(w.ctx()); !errors.Is(err, c.is) {
				t.Errorf("Get: %v, want %v", err, c.is)
			}
		})
	}
	t.Run("UnknownTask", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		res := must[*lovage.Result[any]](t)(w.app.Send(w.ctx(), "py.unknown", lovage.Args{}))
		equal(t, "state", w.run().State, lovage.Failure)
		_, err := res.Get(w.ctx())
		te, ok := errors.AsType[*lovage.TaskError](err)
		if !ok || te.Type != "NotRegistered" || te.Module != "celery.exceptions" || !errors.Is(err, lovage.ErrNotRegistered) {
			t.Errorf("Get: %#v", err)
		}
	})
}

func TestTaskErrorMatches(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lovage.Config{})
	h := body(w, func(context.Context) (any, error) {
		return nil, fmt.Errorf("deep: %w", &lovage.TaskError{Type: "ValueError", Module: "builtins", Args: []any{"bad", 3}, Cause: errNegative})
	})
	res := must[*lovage.Result[any]](t)(h.Delay(w.ctx(), struct{}{}))
	out := w.run()
	if !errors.Is(out.Info.Err, errNegative) {
		t.Error("the cause is lost inside the process")
	}
	_, err := res.Get(w.ctx())
	te, ok := errors.AsType[*lovage.TaskError](err)
	if !ok || te.Error() != `ValueError: ("bad", 3)` || te.TaskID != res.ID() || te.Traceback == "" {
		t.Fatalf("got %v: %+v", err, te)
	}
	for _, c := range []struct {
		target *lovage.TaskError
		want   bool
	}{
		{&lovage.TaskError{Type: "ValueError"}, true},
		{&lovage.TaskError{Type: "ValueError", Module: "builtins"}, true},
		{&lovage.TaskError{Type: "ValueError", Module: "other"}, false},
		{&lovage.TaskError{Type: "KeyError"}, false},
	} {
		equal(t, fmt.Sprint(*c.target), errors.Is(err, c.target), c.want)
	}
}

func TestTrackStarted(t *testing.T) {
	t.Parallel()
	record := func(opts ...lovage.TaskOption) (seen *lovage.Meta) {
		w := newWorld(t, lovage.Config{TaskTrackStarted: new(true)})
		h := body(w, func(ctx context.Context) (any, error) {
			m, err := w.app.Result(lovage.RequestFrom(ctx).ID).Meta(ctx)
			seen = m
			return nil, err
		}, opts...)
		must[*lovage.Result[any]](t)(h.Delay(w.ctx(), struct{}{}))
		w.run()
		return seen
	}
	equal(t, "state in a run that is not tracked", record(lovage.TrackStarted(false)).Status, lovage.Pending)
	seen := record()
	info, _ := parse(t, seen.Result).(map[string]any)
	if seen.Status != lovage.Started || info["hostname"] != "celery@test" || info["pid"] == nil || seen.DateDone != "" {
		t.Errorf("record in the run: %+v %s", seen, seen.Result)
	}
}

func TestIgnoredResults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		task []lovage.TaskOption
		call []lovage.CallOption
		cfg  lovage.Config
		ok   lovage.State
		fail lovage.State
	}{
		"Kept":         {ok: "SUCCESS", fail: "FAILURE"},
		"ByTheTask":    {task: []lovage.TaskOption{lovage.IgnoreResult(true)}, ok: "PENDING", fail: "PENDING"},
		"ByTheCall":    {call: []lovage.CallOption{lovage.IgnoreResult(true)}, ok: "PENDING", fail: "PENDING"},
		"BySetting":    {cfg: lovage.Config{TaskIgnoreResult: new(true)}, ok: "PENDING", fail: "PENDING"},
		"ErrorsKept":   {task: []lovage.TaskOption{lovage.IgnoreResult(true), lovage.StoreErrorsEvenIfIgnored(true)}, ok: "PENDING", fail: "FAILURE"},
		"TaskOverApp":  {cfg: lovage.Config{TaskIgnoreResult: new(true)}, task: []lovage.TaskOption{lovage.IgnoreResult(false)}, ok: "SUCCESS", fail: "FAILURE"},
		"ErrorSetting": {cfg: lovage.Config{TaskIgnoreResult: new(true), TaskStoreErrorsEvenIfIgnored: new(true)}, ok: "PENDING", fail: "FAILURE"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.cfg)
			h := lovage.Func(w.app, "t.add", func(_ context.Context, fail bool) (int, error) {
				if fail {
					return 0, errNegative
				}
				return 1, nil
			}, c.task...)
			for _, fail := range []bool{false, true} {
				res := must[*lovage.Result[int]](t)(h.Delay(w.ctx(), fail, c.call...))
				w.run()
				want := map[bool]lovage.State{false: c.ok, true: c.fail}[fail]
				equal(t, fmt.Sprint("stored, fail ", fail), w.state(res.ID()), want)
				if c.ok == "PENDING" {
					if v, err := res.Get(context.Background()); v != 0 || err != nil || !res.Ignored() {
						t.Errorf("Get of an ignored result: %v, %v", v, err)
					}
				}
			}
		})
	}
}

func TestExtendedRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lovage.Config{ResultExtended: new(true)})
	h := lovage.Func(w.app, "t.add", add)
	res := must[*lovage.Result[int]](t)(h.Delay(w.ctx(), AddArgs{X: 1, Y: 2}))
	w.run()
	m := must[*lovage.Meta](t)(res.Meta(w.ctx()))
	x := m.Extended
	if x == nil || x.Name != "t.add" || string(x.Args) != "[1]" || string(x.Kwargs) != `{"y":2}` || x.Worker != "celery@test" || x.Queue != "celery" {
		t.Errorf("extended: %+v", x)
	}
	if _, err := protocol.ParseTime(m.DateDone, time.UTC); err != nil || !strings.HasSuffix(m.DateDone, "+00:00") {
		t.Errorf("date_done is %q", m.DateDone)
	}
}

// slots counts what a worker's pool would see.
type slots struct{ d *diary }

func (s slots) Release()                        { s.d.write("release") }
func (s slots) GiveUp()                         { s.d.write("release") }
func (s slots) Reacquire(context.Context) error { s.d.write("reacquire"); return nil }

func TestSlots(t *testing.T) {
	t.Parallel()
	t.Run("AClassWithoutLateHooksReturnsItsSlotAtOnce", func(t *testing.T) {
		t.Parallel()
		for _, late := range []bool{false, true} {
			w, d := newWorld(t, lovage.Config{}), &diary{}
			if late {
				lovage.Register(w.app, "t.x", &recorded{recorder{d: &diary{}}})
			} else {
				lovage.Func(w.app, "t.x", add)
			}
			must[*lovage.Result[any]](t)(w.app.Send(w.ctx(), "t.x", lovage.Args{Positional: []any{1}}))
			dl := w.claim()
			r := w.receive(dl)
			r.SetSlot(slots{d})
			fin := w.finisher(dl)
			w.app.Execute(w.ctx(), r, lovage.FinisherFunc(func(ctx context.Context, e *lovage.Effects) error {
				d.write("finish")
				return fin.Finish(ctx, e)
			}))
			want := []string{"release", "finish"}
			if late {
				want = want[1:] // the worker takes it back itself
			}
			equalLines(t, d.take(), want)
		}
	})
	t.Run("GetInATaskNeedsAllowJoinAndLendsTheSlotOnce", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w, d := newWorld(t, lovage.Config{}), &diary{}
			other := w.app.Result("other")
			h := body(w, func(ctx context.Context) (any, error) {
				if _, err := other.Get(ctx); !errors.Is(err, lovage.ErrGetInTask) {
					t.Errorf("Get in a task: %v", err)
				}
				ctx = lovage.AllowJoin(ctx)
				got := make(chan any, 2)
				for range 2 {
					go func() { v, err := other.Get(ctx); got <- fmt.Sprint(v, err) }()
				}
				synctest.Wait()
				d.write("waiting")
				b, _ := w.app.Backend(ctx)
				meta := protocol.ResultMeta{Status: lovage.Success, Result: []byte("5"), TaskID: "other"}
				_ = b.Store(ctx, &protocol.Record{TaskID: "other", State: lovage.Success, Meta: meta.AppendJSON(nil)})
				return fmt.Sprint(<-got, <-got), nil
			}, lovage.WithBase(func() lovage.Base { return &lateBase{} }))
			res := must[*lovage.Result[any]](t)(h.Delay(w.ctx(), struct{}{}))
			dl := w.claim()
			r := w.receive(dl)
			r.SetSlot(slots{d})
			w.app.Execute(context.Background(), r, w.finisher(dl))
			equalLines(t, d.take(), []string{"release", "waiting", "reacquire"})
			v, err := res.Get(w.ctx())
			if v != "5<nil>5<nil>" || err != nil {
				t.Errorf("got %v, %v", v, err)
			}
			_ = w.cons.Close()
		})
	})
}

type lateBase struct{ lovage.Task }

func (*lateBase) OnSuccess(context.Context, *lovage.Request, any) {}
