package lovage_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
)

func TestURLs(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, c := range map[string]struct {
		cfg             lovage.Config
		broker, backend string // parts of the errors; empty: none
	}{
		"Unset":          {lovage.Config{}, "broker_url is not set: set Config.BrokerURL, or import _ ", "no result backend"},
		"BrokerAlone":    {lovage.Config{BrokerURL: "memory://urls1"}, "", "no result backend"},
		"Both":           {lovage.Config{BrokerURL: "memory://urls2", ResultBackend: "memory://urls2"}, "", ""},
		"WriteURL":       {lovage.Config{BrokerURL: "nowhere://x", BrokerWriteURL: "memory://urls3"}, "", "no result backend"},
		"UnknownSchemes": {lovage.Config{BrokerURL: "rabbit://user:secret@h", ResultBackend: "tape://x"}, `scheme "rabbit" is not known; this program has: `, `scheme "tape" is not known`},
		"NoScheme":       {lovage.Config{BrokerURL: "/tmp/x", ResultBackend: "x"}, "has no scheme", "has no scheme"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := lovage.New("t", c.cfg)
			defer app.Close(ctx)
			_, err := app.Broker(ctx)
			_, err2 := app.Backend(ctx)
			for _, e := range []struct {
				err  error
				want string
			}{{err, c.broker}, {err2, c.backend}} {
				if (e.err == nil) != (e.want == "") || e.err != nil && (!strings.Contains(e.err.Error(), e.want) || strings.Contains(e.err.Error(), "secret")) {
					t.Errorf("got %v, want %q", e.err, e.want)
				}
			}
			if c.backend == "no result backend" && !errors.Is(err2, lovage.ErrNoBackend) {
				t.Errorf("got %v, want ErrNoBackend", err2)
			}
		})
	}
}

// TestReadURL: what consumes goes by broker_read_url, what publishes does not.
func TestReadURL(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	app := lovage.New("t", lovage.Config{BrokerURL: "nowhere://x", BrokerReadURL: "memory://read1"})
	defer app.Close(ctx)
	conn, err := app.OpenBroker(ctx)
	if err != nil {
		t.Fatalf("to consume: %v", err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if _, err := app.Broker(ctx); err == nil {
		t.Error("to publish: got no error for a scheme that nobody has")
	}
}

func TestTaskOptionsReachTheSettings(t *testing.T) {
	t.Parallel()
	app := newWorld(t, lovage.Config{}).app
	h := lovage.Func(app, "t.add", add, lovage.AcksOnFailure(false), lovage.AcksOnTimeout(false), lovage.RejectOnWorkerLost(false),
		lovage.MaxWorkerLosses(lovage.NoLimit), lovage.SendEvents(false), lovage.ResultReprMaxSize(9), lovage.RateLimit("5/m"),
		lovage.StoreErrorsEvenIfIgnored(true), lovage.TrackStarted(true), lovage.Typing(false), lovage.Trail(false), lovage.DefaultRetryDelay(time.Second))
	want := lovage.TaskSettings{AcksLate: true, MaxWorkerLosses: lovage.NoLimit, MaxRetries: 3, DefaultRetryDelay: time.Second, RateLimit: "5/m",
		StoreErrorsEvenIfIgnored: true, TrackStarted: true, ResultReprMaxSize: 9}
	equal(t, "settings", h.Definition().Settings(), want)
	params := h.Definition().Params()
	if len(params) != 2 || params[0].Name != "x" || params[1].Name != "y" {
		t.Errorf("params %+v", params)
	}
}

func TestAnnotationNames(t *testing.T) {
	t.Parallel()
	attrs := map[string]any{
		"exchange": "e", "routing_key": "k", "serializer": "json", "compression": "zlib", "priority": 3, "delivery_mode": 1, "rate_limit": 2.5,
		"max_worker_losses": 1, "resultrepr_maxsize": 5, "acks_on_failure": false, "acks_on_timeout": false, "reject_on_worker_lost": false,
		"ignore_result": true, "store_errors_even_if_ignored": true, "send_events": false, "trail": false, "typing": false, "soft_time_limit": time.Second,
	}
	w := newWorld(t, lovage.Config{TaskAnnotations: map[string]map[string]any{"*": attrs}})
	s := lovage.Func(w.app, "t.add", add).Definition().Settings()
	want := lovage.TaskSettings{AcksLate: true, MaxWorkerLosses: 1, MaxRetries: 3, DefaultRetryDelay: 3 * time.Minute, RateLimit: "2.5",
		SoftTimeLimit: time.Second, OwnSoftTimeLimit: true, IgnoreResult: true, StoreErrorsEvenIfIgnored: true, ResultReprMaxSize: 5}
	equal(t, "settings", s, want)
	var got lovage.BeforeTaskPublish
	w.app.Signals.BeforeTaskPublish.Connect(func(_ context.Context, e lovage.BeforeTaskPublish) { got = e })
	must[*lovage.Result[any]](t)(w.app.Send(w.ctx(), "t.add", lovage.Args{Positional: []any{1}}))
	m := got.Message
	if m.Exchange != "e" || m.RoutingKey != "k" || *m.Properties.Priority != 3 || m.Properties.DeliveryMode != 1 || m.Headers.Compression != "application/x-gzip" {
		t.Errorf("%+v", m)
	}
}
