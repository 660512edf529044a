package redisbroker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/internal/redisconn"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/worker"
)

// demoTasks are the tasks that the golden canvases are made of.
func demoTasks(app *lovage.App) {
	type two struct{ X, Y int }
	lovage.Func(app, "demo.tasks.add", func(_ context.Context, in two) (int, error) { return in.X + in.Y, nil })
	lovage.Func(app, "demo.tasks.mul", func(_ context.Context, in two) (int, error) { return in.X * in.Y, nil })
	lovage.Func(app, "demo.tasks.ident", func(_ context.Context, in any) (any, error) { return in, nil })
	lovage.Func(app, "demo.tasks.xsum", func(_ context.Context, in []int) (sum int, err error) {
		for _, n := range in {
			sum += n
		}
		return sum, nil
	})
	lovage.Func(app, "demo.tasks.fail", func(_ context.Context, in lovage.Args) (int, error) {
		return 0, &lovage.TaskError{Type: "ValueError", Module: "builtins", Args: append(in.Positional, 42)}
	})
	lovage.Func(app, "demo.tasks.flaky", func(ctx context.Context, times int) (int, error) {
		if n := lovage.RequestFrom(ctx).Retries; n < times {
			return 0, lovage.Retry(nil, lovage.Countdown(10*time.Millisecond))
		}
		return times, nil
	})
	lovage.Func(app, "demo.tasks.on_error_old", func(_ context.Context, id string) (any, error) { return nil, nil })
	lovage.Errback(app, "demo.tasks.on_error", func(context.Context, *lovage.Request, *lovage.ErrorInfo) error { return nil })
}

// published keeps what an App sends.
type published struct {
	mu   sync.Mutex
	list []*protocol.Message
}

func (p *published) Publish(ctx context.Context, m *protocol.Message, next func(context.Context, *protocol.Message) error) error {
	p.mu.Lock()
	p.list = append(p.list, m)
	p.mu.Unlock()
	return next(ctx, m)
}

func (p *published) all() []*protocol.Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.list)
}

// goldenCanvas is one recorded canvas: what the client sent, and then the workers.
type goldenCanvas struct {
	Call     string `json:"python_call"`
	Messages []struct {
		From, Raw string
		Decoded   json.RawMessage `json:"body_decoded"`
	}
}

// sentHop is a message that a worker sends, as far as it is the same each time.
type sentHop struct {
	Task, ID, Root, Parent, Group string
	Index                         any
	Body                          any
}

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// plain removes what differs from run to run and from version to version: ids
// that the client did not choose, reply queues, options that are null.
func plain(v any, known string) any {
	return plainOf(v, known, "reply_to", "replaced_task_nesting")
}

func plainOf(v any, known string, without ...string) any {
	switch v := v.(type) {
	case string:
		if uuidForm.MatchString(v) && !strings.Contains(known, v) {
			return "new"
		}
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = plainOf(v[i], known, without...)
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			if k == "options" {
				for name, o := range e.(map[string]any) {
					if o == nil || slices.Contains(without, name) {
						delete(e.(map[string]any), name)
					}
				}
			}
			out[k] = plainOf(e, known, without...)
		}
		return out
	}
	return v
}

func hop(t *testing.T, h protocol.Headers, body []byte, known string) sentHop {
	t.Helper()
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	text := func(s string) string { return plain(s, known).(string) }
	out := sentHop{Task: h.Task, ID: text(h.ID), Root: text(h.RootID), Parent: text(h.ParentID), Group: text(h.Group), Body: plain(v, known)}
	if h.GroupIndex != nil {
		out.Index = *h.GroupIndex
	}
	return out
}

// TestGoldenCanvases lets a Go worker carry out what Celery's client sent, and
// holds what it sends against what Celery's worker sent.
func TestGoldenCanvases(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	for _, name := range []string{"chain_all_hops", "chain_immutable_hops", "chain_with_failure", "chord", "chord_body_in_chain", "chord_nested", "chord_of_chains",
		"group_chain_group", "group_last_in_chain", "link_error_executed_as_task", "link_error_executed_old_style", "link_error_two_errbacks",
		"link_error_unregistered_errback", "link_executed", "map_executed", "nested_group_in_chain", "retry_in_chain"} {
		for version, dir := range map[string]string{"5.6": recorded[0], "5.2": recorded[1]} {
			raw, err := os.ReadFile(filepath.Join(dir, name+".json"))
			if err != nil && version == "5.2" { // not recorded
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Run(name+"/"+version, func(t *testing.T) {
				t.Parallel()
				var g goldenCanvas
				if err := json.Unmarshal(raw, &g); err != nil {
					t.Fatal(err)
				}
				runGolden(t, server.URL(server.DB(t)), &g, version == "5.2")
			})
		}
	}
}

func runGolden(t *testing.T, url string, g *goldenCanvas, old bool) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	sink := &published{}
	app := lovage.New("golden", lovage.Config{BrokerURL: url, ResultBackend: url}, lovage.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))))
	demoTasks(app)
	app.Use(sink)
	b, err := app.Backend(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var fromClient []string
	known := ""
	var want []sentHop
	groups := map[string]string{}         // task -> its group
	sizes := map[string]map[string]bool{} // group -> tasks that count
	for _, m := range g.Messages {
		var env struct {
			Headers json.RawMessage
			Body    []byte
		}
		if err := json.Unmarshal([]byte(m.Raw), &env); err != nil {
			t.Fatal(err)
		}
		h, err := protocol.ParseHeaders(env.Headers)
		if err != nil {
			t.Fatal(err)
		}
		groups[h.ID] = h.Group
		if m.From == "client" {
			fromClient = append(fromClient, m.Raw)
			known += m.Raw + string(m.Decoded)
			body, err := protocol.ParseBody(m.Decoded)
			if err != nil {
				t.Fatal(err)
			}
			if body.Embed.Chord != nil {
				countIn(sizes, h.Group, h.ID)
				members(sizes, *body.Embed.Chord)
			}
			for _, s := range body.Embed.Chain {
				members(sizes, s)
			}
			continue
		}
		want = append(want, hop(t, h, m.Decoded, known))
	}
	for group, tasks := range sizes {
		if err := b.(backend.ChordCounter).StartChord(ctx, group, len(tasks), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	opt, _, err := redisconn.ParseURL(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	opt.DisableCache = true
	rdb, err := rueidis.NewClient(opt)
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	for _, raw := range fromClient {
		if err := rdb.Do(ctx, rdb.B().Lpush().Key("celery").Element(raw).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	w := worker.New(app, worker.Config{Concurrency: 1})
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(running) }()
	for len(sink.all()) < len(want) && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
	for settled := false; !settled && ctx.Err() == nil; { // and no more
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
		s := w.Stats()
		settled = s.Active+s.Reserved+s.Finishing == 0
	}
	stop()
	if err := testenv.End(t, ended, func() { w.Stop(worker.Cold) }); err != nil {
		t.Error(err)
	}
	if err := app.Close(context.Background()); err != nil {
		t.Error(err)
	}
	var got []sentHop
	for _, m := range sink.all() {
		h := hop(t, m.Headers, m.Body, known)
		groups[h.ID] = h.Group
		got = append(got, h)
	}
	// Runs end in an order of their own, in Celery as here: what one of them sends
	// is compared, not whose came first.
	left := slices.Clone(want)
	for _, h := range got {
		at := slices.IndexFunc(left, func(w sentHop) bool { return alike(h, w, known, groups, old) })
		if at < 0 {
			t.Errorf("%s\nsent %s\nwant one of %s", g.Call, show(h), show(left...))
			continue
		}
		left = slices.Delete(left, at, at+1)
	}
	if len(left) > 0 {
		t.Errorf("%s\nnot sent: %s", g.Call, show(left...))
	}
}

// alike compares what was sent with what Celery sent.
func alike(h, w sentHop, known string, groups map[string]string, old bool) bool {
	if old { // 5.2 gives bodies no group, groups of a worker no index and chords of a worker an id of their own
		h.Body, w.Body = plainOf(h.Body, known, "group_id"), plainOf(w.Body, known, "group_id")
		if w.Index == nil {
			h.Index = nil
		}
		if w.Group == "" || w.Group == "new" {
			h.Group = w.Group
		}
	}
	// A body's parent is the member that ended last, of several at once.
	if of := groups[h.Parent]; of != "" && of == groups[w.Parent] {
		h.Root, h.Parent = w.Root, w.Parent
	}
	return reflect.DeepEqual(h, w)
}

func show(hops ...sentHop) string {
	var b strings.Builder
	for _, h := range hops {
		text, err := json.Marshal(h)
		if err != nil {
			return err.Error()
		}
		fmt.Fprintf(&b, "\n%s", text)
	}
	return b.String()
}

func countIn(sizes map[string]map[string]bool, group, id string) {
	if sizes[group] == nil {
		sizes[group] = map[string]bool{}
	}
	sizes[group][id] = true
}

// members finds the tasks of a frozen signature that count in chords.
func members(sizes map[string]map[string]bool, s protocol.Signature) {
	var group, id string
	_ = json.Unmarshal(s.Options["group_id"], &group)
	_ = json.Unmarshal(s.Options["task_id"], &id)
	if chord := s.Options["chord"]; len(chord) > 0 && group != "" {
		countIn(sizes, group, id)
		if body, err := protocol.ParseSignature(chord); err == nil {
			members(sizes, body)
		}
	}
}
