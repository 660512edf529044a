package interop_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend/rpcbackend"
)

// call is a row of the table: what a client of either language sends, and what
// clients of both must see, whoever runs it.
type call struct {
	Name    string         `json:"name"`
	Task    string         `json:"task"`
	Args    []any          `json:"args"`
	Kwargs  map[string]any `json:"kwargs"`
	Options options        `json:"options"`

	want outcome
	// callback is what the link comes to, with the id of the call in the place of
	// ID.
	callback string
}

// options are apply_async's, under its names.
type options struct {
	ID         string    `json:"task_id,omitempty"`
	Queue      string    `json:"queue,omitempty"`
	Exchange   string    `json:"exchange,omitempty"`
	RoutingKey string    `json:"routing_key,omitempty"`
	Countdown  float64   `json:"countdown,omitempty"`
	ETA        float64   `json:"eta,omitempty"`  // Unix time
	Zone       int       `json:"zone,omitempty"` // minutes east, in which it is written
	Expires    float64   `json:"expires,omitempty"`
	Priority   int       `json:"priority,omitempty"`
	Compress   string    `json:"compression,omitempty"`
	Ignore     bool      `json:"ignore_result,omitempty"`
	Link       *callback `json:"link,omitempty"`
	LinkError  *callback `json:"link_error,omitempty"`
}

// callback is a signature with an id of its own.
type callback struct {
	Task  string `json:"task"`
	ID    string `json:"id"`
	Queue string `json:"queue"`

	ReplyTo string `json:"-"` // Go's; Python's client has its own
}

func (o options) callbacks() []*callback {
	return slices.DeleteFunc([]*callback{o.Link, o.LinkError}, func(c *callback) bool { return c == nil })
}

func (o options) forGo(app *lovage.App) (opts []lovage.CallOption) {
	add := func(on bool, opt lovage.CallOption) {
		if on {
			opts = append(opts, opt)
		}
	}
	add(o.ID != "", lovage.TaskID(o.ID))
	add(o.Queue != "", lovage.Queue(o.Queue))
	add(o.Exchange != "", lovage.Exchange(o.Exchange))
	add(o.RoutingKey != "", lovage.RoutingKey(o.RoutingKey))
	add(o.Countdown != 0, lovage.Countdown(seconds(o.Countdown)))
	add(o.ETA != 0, lovage.ETA(time.UnixMicro(int64(o.ETA*1e6)).In(time.FixedZone("", 60*o.Zone))))
	add(o.Expires != 0, lovage.Expires(seconds(o.Expires)))
	add(o.Priority != 0, lovage.Priority(o.Priority))
	add(o.Compress != "", lovage.Compression(o.Compress))
	add(o.Ignore, lovage.IgnoreResult(true))
	sig := func(c *callback) *lovage.Signature[any] {
		opts := []lovage.CallOption{lovage.TaskID(c.ID), lovage.Queue(c.Queue)}
		if c.ReplyTo != "" {
			opts = append(opts, lovage.ReplyTo(c.ReplyTo))
		}
		return lovage.Remote[any, any](app, c.Task).After().With(opts...)
	}
	if o.Link != nil {
		opts = append(opts, lovage.Link(sig(o.Link)))
	}
	if o.LinkError != nil {
		opts = append(opts, lovage.LinkError(sig(o.LinkError)))
	}
	return opts
}

// big is a text of some bytes that does not shrink to nothing.
func big(n int) string {
	b := make([]byte, 0, n+20)
	for i := uint64(1); len(b) < n; i++ {
		b = append(strconv.AppendUint(b, i*0x9E3779B97F4A7C15, 36), ' ')
	}
	return string(b[:n])
}

func seconds(f float64) time.Duration { return time.Duration(f * float64(time.Second)) }

func success(v any) outcome { return outcome{State: "SUCCESS", Result: v} }

func failure(class, module string, args ...any) outcome {
	return outcome{State: "FAILURE", Type: class, Module: module, Args: args, Traced: true}
}

// echoed is what t.echo gives.
func echoed(kwargs map[string]any, args ...any) outcome {
	if args == nil {
		args = []any{}
	}
	if kwargs == nil {
		kwargs = map[string]any{}
	}
	return success([]any{args, kwargs})
}

// table is the table for the workers of a language, or for all.
func table(language string) []call {
	other := python
	if language == python {
		other = golang
	}
	now := float64(time.Now().UnixMicro()) / 1e6
	many := big(5 << 20)
	nested := map[string]any{"list": []any{1, 1.0, 1.5, -0.25, "1", true, nil, []any{}, map[string]any{}}, "ключ": "значение"}
	return []call{
		{Name: "Plain", Task: "t.add", Args: []any{2, 3}, want: success(5)},
		{Name: "DefaultArgument", Task: "t.add", Args: []any{2}, want: success(2)},
		{Name: "Kwargs", Task: "t.add", Kwargs: map[string]any{"y": 5, "x": 4}, want: success(9)},
		{Name: "Nested", Task: "t.echo", Args: []any{nested}, Kwargs: nested, want: echoed(nested, nested)},
		{Name: "NoArguments", Task: "t.echo", want: echoed(nil)},
		{Name: "Unicode", Task: "t.echo", Args: []any{"äß日本🌿\u2028\x00</script>"}, want: echoed(nil, "äß日本🌿\u2028\x00</script>")},
		{Name: "Binary", Task: "t.echo", Args: []any{[]byte{0, 255, 128, 10}}, want: echoed(nil, []byte{0, 255, 128, 10})},
		{Name: "Big", Task: "t.echo", Args: []any{many}, want: echoed(nil, many)},
		{Name: "Compressed", Task: "t.echo", Args: []any{many}, Options: options{Compress: "zlib"}, want: echoed(nil, many)},
		{Name: "Countdown", Task: "t.late", Args: []any{now + 1}, Options: options{Countdown: 2}, want: success(true)},
		{Name: "ETAInUTC", Task: "t.late", Args: []any{now + 2}, Options: options{ETA: now + 2}, want: success(true)},
		{Name: "ETAEastOfUTC", Task: "t.late", Args: []any{now + 2}, Options: options{ETA: now + 2, Zone: 345}, want: success(true)},
		{Name: "ETAWestOfUTC", Task: "t.late", Args: []any{now + 2}, Options: options{ETA: now + 2, Zone: -570}, want: success(true)},
		{Name: "NotExpired", Task: "t.add", Args: []any{1, 1}, Options: options{Expires: 600}, want: success(2)},
		{Name: "Expired", Task: "t.add", Args: []any{1, 1}, Options: options{Expires: -5},
			want: outcome{State: "REVOKED", Type: "TaskRevokedError", Module: "celery.exceptions", Args: []any{"expired"}}},
		{Name: "Priority", Task: "t.add", Args: []any{1, 3}, Options: options{Priority: 9}, want: success(4)},
		{Name: "Retries", Task: "t.again", Args: []any{3}, want: success(3)},
		{Name: "RetriesInVain", Task: "t.never", Args: []any{"why"}, want: failure("KeyError", "builtins", "why")},
		{Name: "Failure", Task: "t.fail", Args: []any{"böse"}, want: failure("ValueError", "builtins", "böse", 17)},
		{Name: "CustomState", Task: "t.progress", Args: []any{40}, want: success("ready")},
		{Name: "IgnoredResult", Task: "t.add", Args: []any{1, 2}, Options: options{Ignore: true, Link: &callback{Task: "t.echo", Queue: queue(other)}},
			want: outcome{State: "PENDING"}, callback: `[[3],{}]`},
		{Name: "LinkIntoTheOtherLanguage", Task: "t.add", Args: []any{2, 2}, Options: options{Link: &callback{Task: "t.add", Queue: queue(other)}},
			want: success(4), callback: `4`},
		{Name: "LinkErrorIntoTheOtherLanguage", Task: "t.fail", Args: []any{"x"}, Options: options{LinkError: &callback{Task: "t.failed", Queue: queue(other)}},
			want: failure("ValueError", "builtins", "x", 17), callback: `"told of ID"`},
		{Name: "DirectExchange", Task: "t.add", Args: []any{5, 6}, Options: options{Exchange: "parcels", RoutingKey: language}, want: success(11)},
		{Name: "TopicExchange", Task: "t.add", Args: []any{6, 7}, Options: options{Exchange: "news", RoutingKey: language + ".of.today"}, want: success(13)},
		{Name: "FanoutExchange", Task: "t.add", Args: []any{7, 8}, Options: options{Exchange: "alarm." + language, RoutingKey: shared}, want: success(15)},
	}
}

// runTable sends every row from each language to each language, and to a queue
// that workers of both consume, and has both read what comes of it: so many cells.
func runTable(t *testing.T, f *fleet, want int) {
	if f.drops {
		t.Log("left out: Expired: clients send expires as a property too, so that RabbitMQ drops the message where no consumer waits, and no worker can store REVOKED; ExpiresReserved is what can be told")
	}
	if f.rpc {
		t.Log("left out: reading results of another client's calls, which go to their caller alone; callbacks carry the caller's reply_to, else their results go to the worker that sends them")
	}
	cells := 0
	for _, client := range languages {
		for _, runs := range append(languages[:2:2], shared) {
			rows := table(runs)
			if runs == shared { // whoever is first; its queue is bound to no exchange of the table
				rows = slices.DeleteFunc(rows, func(c call) bool { return c.Options.Exchange != "" })
			}
			if f.drops {
				rows = slices.DeleteFunc(rows, func(c call) bool { return c.Name == "Expired" })
			}
			for i := range rows {
				c := &rows[i]
				o := &c.Options
				o.ID = client + "-" + runs + "-" + c.Name
				if o.Exchange == "" {
					o.Queue = queue(runs)
				}
				for _, cb := range o.callbacks() {
					cb.ID = o.ID + "-callback"
				}
				f.send(t, client, *c)
				if c.Name == "CustomState" {
					if f.rpc && client == python { // it is told of each state when it gets the result
						f.open(t, o.ID)
					}
					var looking sync.WaitGroup
					for _, reader := range f.readers(client) {
						looking.Go(func() { f.progressed(t, reader, o.ID, 40) })
					}
					looking.Wait()
					f.open(t, o.ID)
				}
			}
			for _, c := range rows {
				t.Run(client+"To"+runs+"/"+c.Name, func(t *testing.T) {
					for _, reader := range f.readers(client) {
						cells++
						f.look(t, reader, c)
					}
				})
			}
		}
	}
	if t.Logf("%d cells", cells); cells != want {
		t.Errorf("want %d cells", want)
	}
}

// look has a client see what came of a call.
func (f *fleet) look(t *testing.T, reader string, c call) {
	t.Helper()
	short := func(s string) string { return s[:min(len(s), 300)] }
	if c.callback != "" {
		got := f.outcome(t, reader, c.Options.ID+"-callback")
		if want := strings.ReplaceAll(c.callback, "ID", c.Options.ID); got.State != "SUCCESS" || !sameJSON([]byte(text(got.Result)), want) {
			t.Errorf("%s reads of the callback %s, want %s", reader, short(got.String()), want)
		}
	}
	if c.want.State == "PENDING" { // it has run, as its callback shows
		f.pending(t, reader, c.Options.ID)
		return
	}
	if got := f.outcome(t, reader, c.Options.ID); got.String() != c.want.String() {
		t.Errorf("%s reads\n%s, want\n%s", reader, short(got.String()), short(c.want.String()))
	}
}

// pending wants a client to see that no result is there. Over rpc Go says that
// none will come.
func (f *fleet) pending(t *testing.T, reader, id string) {
	t.Helper()
	if reader == python {
		if raw, err := f.ask("peek", map[string]any{"id": id}); err != nil || string(raw) != `"PENDING"` {
			t.Errorf("an ignored result: Python sees %s, %v", raw, err)
		}
		return
	}
	state, err := f.app.Result(id).State(t.Context())
	if f.rpc {
		if !errors.Is(err, rpcbackend.ErrNotOurs) {
			t.Errorf("an ignored result: Go sees %s, %v, want ErrNotOurs", state, err)
		}
		return
	}
	if err != nil || state != "PENDING" {
		t.Errorf("an ignored result: Go sees %s, %v", state, err)
	}
}

// progressed wants a client to see a state of the task's own, with what it says.
func (f *fleet) progressed(t *testing.T, reader, id string, done int) {
	t.Helper()
	want := text(map[string]any{"done": done})
	if reader == python {
		if raw, err := f.ask("progressed", map[string]any{"id": id}); err != nil || !sameJSON(raw, want) {
			t.Errorf("%s: Python sees %s, %v, want %s", id, raw, err, want)
		}
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	m, err := f.app.Result(id).Wait(ctx, func(m *lovage.Meta) bool { return m.Status == "PROGRESS" || m.Status.Ready() })
	if err != nil || m.Status != "PROGRESS" || !sameJSON(m.Result, want) {
		t.Errorf("%s: Go sees %+v, %v, want PROGRESS with %s", id, m, err, want)
	}
}

func sameJSON(raw []byte, want string) bool {
	return strings.ReplaceAll(string(raw), " ", "") == strings.ReplaceAll(want, " ", "")
}
