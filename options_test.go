package lovage_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/protocol"
)

type optionBase struct{ lovage.Task }

func (*optionBase) TaskOptions() []lovage.TaskOption {
	return []lovage.TaskOption{lovage.Queue("base"), lovage.MaxRetries(10), lovage.RateLimit("1/s"), lovage.Priority(1), lovage.Attr("team", "base"), lovage.Attr("page", 1)}
}

type optionClass struct{ optionBase }

func (*optionClass) Run(context.Context, struct{}) (int, error) { return 0, nil }

// TestOptionsMerge: app < base class < declaration < signature < call, and
// task_annotations over all of the task's own.
func TestOptionsMerge(t *testing.T) {
	t.Parallel()
	cfg := lovage.Config{TaskDefaultRateLimit: "100/h", TaskTimeLimit: time.Hour, TaskSoftTimeLimit: time.Minute, TaskIgnoreResult: new(true), TaskAcksOnFailureOrTimeout: new(false)}
	t.Run("AppBaseDeclaration", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, cfg)
		plain := lovage.Func(w.app, "t.plain", add).Definition().Settings
		c := lovage.Register(w.app, "t.class", &optionClass{}, lovage.MaxRetries(20), lovage.TimeLimit(lovage.NoLimit), lovage.SoftTimeLimit(0), lovage.IgnoreResult(false), lovage.AcksLate(false), lovage.Attr("page", 2))
		s := plain()
		if s.RateLimit != "100/h" || s.TimeLimit != time.Hour || s.SoftTimeLimit != time.Minute || !s.IgnoreResult || s.MaxRetries != 3 ||
			s.DefaultRetryDelay != 3*time.Minute || !s.AcksLate || s.AcksOnFailure || s.AcksOnTimeout || !s.RejectOnWorkerLost || s.MaxWorkerLosses != 3 ||
			!s.SendEvents || !s.Typing || !s.Trail || s.ResultReprMaxSize != 1024 {
			t.Errorf("app: %+v", s)
		}
		s = c.Definition().Settings()
		if s.RateLimit != "1/s" || s.MaxRetries != 20 || s.TimeLimit != 0 || s.SoftTimeLimit != 0 || s.IgnoreResult || s.AcksLate {
			t.Errorf("class: %+v", s)
		}
		equal(t, "attr of the base", c.Definition().Attr("team"), any("base"))
		equal(t, "attr of the declaration", c.Definition().Attr("page"), any(2))
	})
	t.Run("DeclarationSignatureCall", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		c := lovage.Register(w.app, "t.class", &optionClass{})
		d := lovage.Register(w.app, "t.declared", &optionClass{}, lovage.Queue("declaration"))
		first := lovage.Func(w.app, "t.first", add)
		for queue, send := range map[string]func() error{
			"base":        func() error { _, err := c.Delay(w.ctx(), struct{}{}); return err },
			"declaration": func() error { _, err := d.Delay(w.ctx(), struct{}{}); return err },
			"call": func() error {
				_, err := d.Delay(w.ctx(), struct{}{}, lovage.Queue("call"), lovage.Priority(9))
				return err
			},
		} {
			if err := send(); err != nil {
				t.Fatal(err)
			}
			equal(t, queue, w.waiting(queue), 1)
		}
		if d := peek(t, w, "call"); *d.Properties.Priority != 9 {
			t.Errorf("priority %d", *d.Properties.Priority)
		}
		sig := d.S(struct{}{})
		must[*lovage.Result[int]](t)(first.Delay(w.ctx(), AddArgs{}, lovage.Link(sig, sig.With(lovage.Queue("signature"), lovage.Priority(8)))))
		w.run()
		equal(t, "by the signature", w.waiting("signature"), 1)
		equal(t, "by the declaration", w.waiting("declaration"), 2)
		equal(t, "priority", *peek(t, w, "signature").Properties.Priority, 8)
	})
	t.Run("EncodingBySettingTaskCall", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{TaskCompression: "zlib", TaskSerializer: "json"})
		lovage.Func(w.app, "t.plain", add)
		lovage.Func(w.app, "t.own", add, lovage.Compression("bzip2"), lovage.Queue("own"))
		lovage.Func(w.app, "t.odd", add, lovage.Serializer("nothere"), lovage.Queue("odd"))
		send := func(task string, opts ...lovage.CallOption) error {
			_, err := w.app.Send(w.ctx(), task, lovage.Args{Positional: []any{1}}, opts...)
			return err
		}
		if err := errors.Join(send("t.plain"), send("t.own"), send("t.own", lovage.Compression("zstd"), lovage.Queue("call")), send("t.odd", lovage.Serializer("json"))); err != nil {
			t.Fatal(err)
		}
		for queue, want := range map[string]string{"celery": "application/x-gzip", "own": "application/x-bz2", "call": "application/zstd", "odd": "application/x-gzip"} {
			h := must[protocol.Headers](t)(protocol.ParseHeaders(peek(t, w, queue).Headers))
			equal(t, "compression in "+queue, h.Compression, want)
		}
		if err := send("t.odd"); err == nil || !strings.Contains(err.Error(), "nothere") {
			t.Errorf("serializer of the task: got %v, want it named", err)
		}
	})
	t.Run("ACallbackFromElsewhereGetsTheTasksOwnOptions", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		first := lovage.Func(w.app, "t.first", add)
		lovage.Func(w.app, "t.second", add, lovage.Queue("own"), lovage.Priority(4))
		bare := lovage.Remote[AddArgs, int](nil, "t.second") // as from Python: no options of ours
		must[*lovage.Result[int]](t)(first.Delay(w.ctx(), AddArgs{}, lovage.Link(bare.After())))
		w.run()
		equal(t, "priority", *peek(t, w, "own").Properties.Priority, 4)
	})
	t.Run("Annotations", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{TaskAnnotations: map[string]map[string]any{
			"t.add": {"rate_limit": "10/s", "max_retries": nil, "time_limit": 30.5, "acks_on_failure_or_timeout": false, "track_started": true, "expires": nil},
			"*":     {"rate_limit": "1/h", "default_retry_delay": 5, "queue": "slow", "acks_late": nil, "soft_time_limit": "2s"},
		}})
		h := lovage.Func(w.app, "t.add", add, lovage.RateLimit("7/m"), lovage.MaxRetries(2), lovage.AcksLate(false), lovage.Expires(time.Minute))
		other := lovage.Func(w.app, "t.other", add)
		s := h.Definition().Settings()
		if s.RateLimit != "10/s" || s.MaxRetries != lovage.NoLimit || s.TimeLimit != 30500*time.Millisecond || s.SoftTimeLimit != 2*time.Second ||
			s.DefaultRetryDelay != 5*time.Second || s.AcksOnFailure || s.AcksOnTimeout || !s.TrackStarted || !s.AcksLate {
			t.Errorf("%+v", s)
		}
		equal(t, "rate limit by *", other.Definition().Settings().RateLimit, "1/h")
		must[*lovage.Result[int]](t)(h.Delay(w.ctx(), AddArgs{}))
		if d := peek(t, w, "slow"); d.Properties.HasExpiration {
			t.Errorf("expires: None left %v", d.Properties.Expiration)
		}
	})
	for name, a := range map[string]map[string]any{
		`no such task attribute: did you mean "rate_limit"?`: {"rate_limits": "1/s"},
		"got a string, want a number":                        {"max_retries": "many"},
		"got a int, want a bool":                             {"acks_late": 1},
		"methods cannot come from configuration":             {"@on_failure": 1},
		`parsing`:                                            {"time_limit": "x"},
	} {
		t.Run("WrongAnnotation", func(t *testing.T) {
			t.Parallel()
			app := newWorld(t, lovage.Config{TaskAnnotations: map[string]map[string]any{"*": a}}).app
			lovage.Func(app, "t.add", add)
			err := app.Freeze()
			if err == nil && name != "parsing" {
				t.Fatal("no error")
			}
			if err == nil || !strings.Contains(err.Error(), `task_annotations["*"]["`) || name != "parsing" && !strings.Contains(err.Error(), name) {
				t.Errorf("got %v, want %s", err, name)
			}
		})
	}
	t.Run("LimitsThatContradictAreRefused", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, lovage.Config{})
		h := lovage.Func(w.app, "t.add", add)
		_, err := h.Delay(w.ctx(), AddArgs{}, lovage.TimeLimit(time.Second), lovage.SoftTimeLimit(time.Minute))
		if err == nil || !strings.Contains(err.Error(), `task "t.add": the soft time limit 60s is above the hard one 1s`) {
			t.Errorf("call: %v", err)
		}
		app := newWorld(t, lovage.Config{}).app
		lovage.Func(app, "t.bad", add, lovage.TimeLimit(time.Second), lovage.SoftTimeLimit(time.Minute))
		if err := app.Freeze(); err == nil || !strings.Contains(err.Error(), `task "t.bad": its soft time limit 1m0s is above its hard one 1s`) {
			t.Errorf("declaration: %v", err)
		}
	})
}
