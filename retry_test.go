package lovage_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

// randReader is a seeded source of chance.
type randReader struct{ *rand.ChaCha8 }

func seeded(n byte) lovage.AppOption {
	return lovage.WithRand(randReader{rand.NewChaCha8([32]byte{n})})
}

func TestRetryOn(t *testing.T) {
	t.Parallel()
	pay := &paymentError{402}
	for name, c := range map[string]struct {
		err  error
		opts []lovage.TaskOption
		want lovage.State
	}{
		"Nothing":                    {errNegative, nil, "FAILURE"},
		"Sentinel":                   {fmt.Errorf("x: %w", errNegative), []lovage.TaskOption{lovage.RetryOn(errNegative)}, "RETRY"},
		"OtherSentinel":              {errors.New("negative"), []lovage.TaskOption{lovage.RetryOn(errNegative)}, "FAILURE"},
		"TypeByZeroValue":            {fmt.Errorf("x: %w", pay), []lovage.TaskOption{lovage.RetryOn(&paymentError{})}, "RETRY"},
		"TypeByNilPointer":           {pay, []lovage.TaskOption{lovage.RetryOn((*paymentError)(nil))}, "RETRY"},
		"OneValueIsNoType":           {&paymentError{500}, []lovage.TaskOption{lovage.RetryOn(pay)}, "FAILURE"},
		"JoinedErrors":               {errors.Join(errors.New("a"), pay), []lovage.TaskOption{lovage.RetryOn(&paymentError{})}, "RETRY"},
		"Predicate":                  {pay, []lovage.TaskOption{lovage.RetryIf(func(err error) bool { return strings.Contains(err.Error(), "402") })}, "RETRY"},
		"Any":                        {pay, []lovage.TaskOption{lovage.RetryOnAny()}, "RETRY"},
		"Deadline":                   {context.DeadlineExceeded, []lovage.TaskOption{lovage.RetryOn(context.DeadlineExceeded)}, "RETRY"},
		"Exempt":                     {pay, []lovage.TaskOption{lovage.RetryOnAny(), lovage.DontRetryOn(&paymentError{})}, "FAILURE"},
		"IgnorePasses":               {lovage.ErrIgnore, []lovage.TaskOption{lovage.RetryOnAny()}, "IGNORED"},
		"RejectIsCaughtByAny":        {lovage.Reject(pay, false), []lovage.TaskOption{lovage.RetryOnAny()}, "RETRY"},
		"RejectPassesItsReasonsName": {lovage.Reject(pay, false), []lovage.TaskOption{lovage.RetryOn(&paymentError{})}, "REJECTED"},
		"RejectExempt":               {lovage.Reject(pay, false), []lovage.TaskOption{lovage.RetryOnAny(), lovage.DontRetryOn(&paymentError{})}, "REJECTED"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lovage.Config{})
			h := body(w, func(context.Context) (any, error) { return nil, c.err }, c.opts...)
			must[*lovage.Result[any]](t)(h.Delay(w.ctx(), struct{}{}))
			equal(t, "state", w.run().State, c.want)
		})
	}
}

func TestRetryLimits(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		opts  []lovage.TaskOption
		retry []lovage.RetryOption
		runs  int // until FAILURE; 0: still RETRY after 20
	}{
		"DefaultIsThree":  {runs: 4},
		"None":            {opts: []lovage.TaskOption{lovage.MaxRetries(0)}, runs: 1},
		"Five":            {opts: []lovage.TaskOption{lovage.MaxRetries(5)}, runs: 6},
		"NoLimit":         {opts: []lovage.TaskOption{lovage.MaxRetries(lovage.NoLimit)}},
		"PerRetry":        {opts: []lovage.TaskOption{lovage.MaxRetries(5)}, retry: []lovage.RetryOption{lovage.MaxRetries(1)}, runs: 2},
		"PerRetryWithout": {opts: []lovage.TaskOption{lovage.MaxRetries(0)}, retry: []lovage.RetryOption{lovage.MaxRetries(lovage.NoLimit)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, lovage.Config{})
				h := body(w, func(context.Context) (any, error) {
					return nil, lovage.Retry(errNegative, c.retry...)
				}, append(c.opts, lovage.DefaultRetryDelay(time.Second))...)
				must[*lovage.Result[any]](t)(h.Delay(w.ctx(), struct{}{}))
				runs := 0
				for runs < 20 {
					runs++
					if out := w.run(); out.State == lovage.Failure {
						equal(t, "type", out.Info.Type, "Error")
						break
					}
				}
				if want := c.runs; want != 0 && runs != want || want == 0 && runs != 20 {
					t.Errorf("%d runs, want %d", runs, want)
				}
				_ = w.cons.Close()
			})
		})
	}
}

func TestRetryDelays(t *testing.T) {
	t.Parallel()
	run := func(t *testing.T, w *world, h *lovage.Handle[struct{}, any], n int) (delays []time.Duration) {
		t.Helper()
		must[*lovage.Result[any]](t)(h.Delay(w.ctx(), struct{}{}))
		begin := time.Now()
		for range n {
			out := w.run()
			equal(t, "state", out.State, lovage.StateRetry)
			delays = append(delays, out.Delay)
		}
		_ = w.run()
		var sum time.Duration
		for _, d := range delays {
			sum += d
		}
		if since := time.Since(begin); since != sum {
			t.Errorf("the retries came after %v, want %v", since, sum)
		}
		_ = w.cons.Close()
		return delays
	}
	same := func(t *testing.T, got []time.Duration, want ...time.Duration) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("delays %v, want %v", got, want)
		}
	}
	fail := func(context.Context) (any, error) { return nil, errNegative }
	for name, f := range map[string]func(t *testing.T){
		"DefaultIs180s": func(t *testing.T) {
			w := newWorld(t, lovage.Config{})
			same(t, run(t, w, body(w, fail, lovage.RetryOnAny()), 1), 180*time.Second)
		},
		"OfTheTask": func(t *testing.T) {
			w := newWorld(t, lovage.Config{})
			same(t, run(t, w, body(w, fail, lovage.RetryOnAny(), lovage.DefaultRetryDelay(7*time.Second)), 1), 7*time.Second)
		},
		"CountdownAndETA": func(t *testing.T) {
			w := newWorld(t, lovage.Config{})
			tries := 0
			h := body(w, func(context.Context) (any, error) {
				if tries++; tries == 1 {
					return nil, lovage.Retry(nil, lovage.Countdown(3*time.Second))
				}
				return nil, lovage.Retry(nil, lovage.ETA(time.Now().Add(4*time.Second)))
			})
			same(t, run(t, w, h, 2), 3*time.Second, 4*time.Second)
		},
		"BackoffDoublesUpToItsMaximum": func(t *testing.T) {
			w := newWorld(t, lovage.Config{})
			h := body(w, fail, lovage.RetryOnAny(), lovage.MaxRetries(9), lovage.RetryBackoff(2*time.Second, 10*time.Second, false))
			same(t, run(t, w, h, 4), 2*time.Second, 4*time.Second, 8*time.Second, 10*time.Second)
		},
		"BackoffDefaultsTo1sUpTo600s": func(t *testing.T) {
			w := newWorld(t, lovage.Config{})
			h := body(w, fail, lovage.RetryOnAny(), lovage.MaxRetries(lovage.NoLimit), lovage.RetryBackoff(0, 0, false))
			d := run(t, w, h, 12)
			same(t, append(d[:2:2], d[11]), time.Second, 2*time.Second, 600*time.Second)
		},
		"JitterIsUniformBelowIt": func(t *testing.T) {
			w := newWorld(t, lovage.Config{}, seeded(1))
			h := body(w, fail, lovage.RetryOnAny(), lovage.MaxRetries(lovage.NoLimit), lovage.RetryBackoff(time.Minute, time.Minute, true))
			low, high := 0, 0
			for _, d := range run(t, w, h, 400) {
				switch {
				case d < 0 || d > time.Minute:
					t.Fatalf("delay %v", d)
				case d < 30*time.Second:
					low++
				default:
					high++
				}
			}
			if low < 150 || high < 150 {
				t.Errorf("%d below the half, %d above", low, high)
			}
		},
		"TheClassMayDecide": func(t *testing.T) {
			w := newWorld(t, lovage.Config{})
			h := body(w, fail, lovage.RetryOnAny(), lovage.WithBase(func() lovage.Base { return &ownBackoff{} }))
			same(t, run(t, w, h, 2), time.Second, 11*time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, f)
		})
	}
	t.Run("ASeedRepeats", func(t *testing.T) {
		t.Parallel()
		var ids [2]string
		for i := range ids {
			w := newWorld(t, lovage.Config{}, seeded(3))
			ids[i] = must[*lovage.Result[any]](t)(w.app.Send(w.ctx(), "x", lovage.Args{})).ID()
		}
		equal(t, "id", ids[0], ids[1])
		if len(ids[0]) != 36 || ids[0][14] != '4' {
			t.Errorf("%s is no UUID of version 4", ids[0])
		}
	})
}

type ownBackoff struct{ lovage.Task }

func (*ownBackoff) Backoff(_ context.Context, r *lovage.Request, err error) time.Duration {
	if !errors.Is(err, errNegative) {
		return time.Hour
	}
	return time.Second + 10*time.Second*time.Duration(r.Retries)
}

// TestRetryKeepsEverything is checklist A37, on a message as Celery sends it.
func TestRetryKeepsEverything(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lovage.Config{})
	body(w, func(context.Context) (any, error) {
		return nil, lovage.Retry(errNegative, lovage.Countdown(time.Minute))
	})
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	raw := func(v any) json.RawMessage { return json.RawMessage(jsonText(t, v)) }
	m := &protocol.Message{
		Queue: "q", Exchange: "", RoutingKey: "q", ExpiresAt: expires,
		Headers: protocol.Headers{
			Lang: "py", Task: "t.body", ID: "id", RootID: "root", ParentID: "parent", Group: "grp", GroupIndex: new(4), Shadow: "nick",
			Expires: protocol.FormatTime(expires), TimeLimit: protocol.TimeLimit{Hard: new(30.5), Soft: new(20.0)},
			ArgsRepr: "(secret)", KwargsRepr: "{}", ReplacedTaskNesting: 2, StampedHeaders: []string{"s"},
			Stamps: map[string]json.RawMessage{"s": raw("v")},
			Extra:  map[string]json.RawMessage{"x-tenant": raw("acme"), "x-death": raw([]any{map[string]any{"count": 3}})},
		},
		Properties: protocol.Properties{ContentType: "application/json", ContentEncoding: "utf-8", CorrelationID: "id", ReplyTo: "replies", DeliveryMode: 1, Priority: new(7)},
		// Spaces, escapes and an unknown key must stay as they are.
		Body: []byte(`[ [], {}, {"callbacks": [{"task": "cb", "args": [], "kwargs": {}, "options": {}, "subtask_type": null, "immutable": false}], "errbacks": null, "chain": [], "chord": null, "x": "\u00e9"}]`),
	}
	conn := must[broker.Conn](t)(w.app.Broker(w.ctx()))
	if err := errors.Join(conn.Declare(w.ctx(), broker.Named("q")), conn.Publish(w.ctx(), m)); err != nil {
		t.Fatal(err)
	}
	out := w.run("q")
	equal(t, "state", out.State, lovage.StateRetry)
	d := peek(t, w, "q")
	if !bytes.Equal(d.Body, m.Body) {
		t.Errorf("the body became %s", d.Body)
	}
	p := d.Properties
	if *p.Priority != 7 || p.ReplyTo != "replies" || p.CorrelationID != "id" || p.DeliveryMode != 1 || !p.HasExpiration || p.Expiration <= 59*time.Minute {
		t.Errorf("properties %+v", p)
	}
	h := must[protocol.Headers](t)(protocol.ParseHeaders(d.Headers))
	eta := must[time.Time](t)(protocol.ParseTime(h.ETA, time.UTC))
	if until := time.Until(eta); until > time.Minute || until < 50*time.Second {
		t.Errorf("eta is in %v", until)
	}
	want := m.Headers
	want.Lang, want.Retries, want.ParentID, want.ETA, want.Origin = "go", 1, "id", h.ETA, h.Origin
	want.Extra = map[string]json.RawMessage{"x-tenant": raw("acme")}
	same(t, "headers", parse(t, d.Headers), parse(t, want.AppendJSON(nil)))
}

func TestRetryOptions(t *testing.T) {
	t.Parallel()
	retryWith := func(t *testing.T, cfg lovage.Config, call []lovage.CallOption, queue string, opts ...lovage.RetryOption) (*world, *lovage.Request, broker.Delivery) {
		w := newWorld(t, cfg)
		h := lovage.Func(w.app, "t.add", func(context.Context, AddArgs) (int, error) {
			return 0, lovage.Retry(errNegative, append(opts, lovage.Countdown(0))...)
		})
		must[*lovage.Result[int]](t)(h.Delay(w.ctx(), AddArgs{X: 1}, call...))
		equal(t, "state", w.run().State, lovage.StateRetry)
		d := peek(t, w, queue)
		return w, w.receive(&d), d
	}
	t.Run("NewArgs", func(t *testing.T) {
		t.Parallel()
		_, r, _ := retryWith(t, lovage.Config{}, []lovage.CallOption{lovage.Compression("zlib")}, "celery", lovage.NewArgs(AddArgs{X: 8, Y: 9}))
		if string(r.Args) != "[8]" || string(r.Kwargs) != `{"y":9}` || r.ArgsRepr != "(8,)" || r.KwargsRepr != "{'y': 9}" {
			t.Errorf("%s %s %s %s", r.Args, r.Kwargs, r.ArgsRepr, r.KwargsRepr)
		}
	})
	t.Run("Address", func(t *testing.T) {
		t.Parallel()
		_, r, d := retryWith(t, lovage.Config{}, nil, "other", lovage.Queue("other"), lovage.Priority(3), lovage.Headers(map[string]any{"a": 2}),
			lovage.TimeLimit(5*time.Second), lovage.Expires(time.Hour))
		equal(t, "priority", *d.Properties.Priority, 3)
		equal(t, "header", string(r.Headers["a"]), "2")
		equal(t, "limit", r.TimeLimit, 5*time.Second)
		equal(t, "expires", r.Expires.IsZero(), false)
	})
	t.Run("CompressedBodiesStayAsTheyAre", func(t *testing.T) {
		t.Parallel()
		_, r, _ := retryWith(t, lovage.Config{}, []lovage.CallOption{lovage.Compression("zlib")}, "celery")
		equal(t, "args", string(r.Args), "[1]")
	})
	t.Run("Version1", func(t *testing.T) {
		t.Parallel()
		w, r, d := retryWith(t, lovage.Config{TaskProtocol: 1}, []lovage.CallOption{lovage.Headers(map[string]any{"a": 2})}, "celery")
		equal(t, "retries", r.Retries, 1)
		equal(t, "args", string(r.Args), "[1]")
		same(t, "headers", parse(t, d.Headers), any(map[string]any{"a": 2.0}))
		for range 3 {
			w.run()
		}
		equal(t, "state", w.state(r.ID), lovage.Failure)
	})
	t.Run("AVersion1MessageIsRetriedAsVersion2", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		lovage.Func(w.app, "demo.tasks.add", func(context.Context, AddArgs) (int, error) { return 0, lovage.Retry(errNegative, lovage.Countdown(0)) })
		g := readGolden(t, "protocol1_plain")
		conn := must[broker.Conn](t)(w.app.Broker(w.ctx()))
		m := &protocol.Message{Queue: "celery", RoutingKey: "celery", Body: g.Body, Properties: protocol.Properties{ContentType: g.Type, ContentEncoding: g.Encoding, DeliveryMode: 2}}
		if err := errors.Join(conn.Declare(w.ctx(), broker.Named("celery")), conn.Publish(w.ctx(), m)); err != nil {
			t.Fatal(err)
		}
		w.run()
		d := peek(t, w, "celery")
		r := w.receive(&d)
		if r.Retries != 1 || strings.Join(strings.Fields(string(r.Args)), "") != "[2,3]" || r.ArgsRepr != "(2, 3)" || r.ID != "6bf27bac-f9d3-427d-aa26-274ca66f84a0" {
			t.Errorf("%+v", r)
		}
	})
	t.Run("AnErrorSharedByRunsIsNotWrittenTo", func(t *testing.T) {
		t.Parallel()
		again := lovage.Retry(errNegative, lovage.Countdown(time.Minute))
		w := newWorld(t, lovage.Config{})
		h := body(w, func(context.Context) (any, error) { return nil, again })
		must[*lovage.Result[any]](t)(h.Delay(w.ctx(), struct{}{}))
		out := w.run()
		equal(t, "When of the shared one", again.(*lovage.RetryError).When, 0)
		equal(t, "When of the run's", out.Info.Err.(*lovage.RetryError).When, time.Minute)
	})
}
