package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/memory"
	"github.com/lovage-go/lovage/protocol"
)

// counting is a result store that counts chords: a small working one.
type counting struct {
	*memory.Backend
	mu     *sync.Mutex
	chords map[string]*tally
	fail   *error // of the next EndChord
}

type tally struct {
	size  int
	parts map[string]*backend.ChordPart
	ended bool
}

func newCounting() (wrap func(backend.Backend) backend.Backend, c *counting) {
	c = &counting{mu: new(sync.Mutex), chords: map[string]*tally{}, fail: new(error)}
	return func(b backend.Backend) backend.Backend {
		own := *c
		own.Backend = b.(*memory.Backend)
		return apart{&own, own.Backend, own.Backend, own.Backend}
	}, c
}

type counter interface {
	backend.Backend
	backend.ChordCounter
}

// apart hides that the store is the broker's.
type apart struct {
	counter
	backend.GroupStore
	backend.OnceClaimer
	backend.LossCounter
}

func (c *counting) chord(group string) *tally {
	if c.chords[group] == nil {
		c.chords[group] = &tally{parts: map[string]*backend.ChordPart{}}
	}
	return c.chords[group]
}

func (c *counting) StartChord(_ context.Context, group string, size int, _ time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.chord(group).size = size
	return nil
}

func (c *counting) CountPart(_ context.Context, p *backend.ChordPart) (backend.ChordCount, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.chord(p.Group)
	if g.ended {
		return backend.ChordCount{Ended: true}, nil
	}
	g.parts[p.TaskID] = p
	return backend.ChordCount{Parts: len(g.parts), Size: g.size}, nil
}

func (c *counting) ChordParts(_ context.Context, group string) ([][]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.chord(group)
	out := make([][]byte, len(g.parts))
	for _, p := range g.parts {
		out[*p.Index] = p.AppendJSON(nil)
	}
	return out, nil
}

func (c *counting) EndChord(_ context.Context, group string, _ time.Duration) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := *c.fail; err != nil {
		*c.fail = nil
		return false, err
	}
	g := c.chord(group)
	won := !g.ended
	g.ended = true
	return won, nil
}

// send publishes a task message with what follows it, as Celery's client does.
func (x *world) send(task, id, args, embed string, more ...func(*protocol.Message)) {
	x.t.Helper()
	m := &protocol.Message{Queue: "celery", RoutingKey: "celery", Body: []byte("[" + args + ", {}, " + embed + "]"),
		Headers:    protocol.Headers{Lang: "py", Task: task, ID: id, RootID: id},
		Properties: protocol.Properties{ContentType: "application/json", ContentEncoding: "utf-8", CorrelationID: id, DeliveryMode: 2}}
	for _, f := range more {
		f(m)
	}
	if err := x.app.PublishMessages(context.Background(), m); err != nil {
		x.t.Fatal(err)
	}
}

// inChord makes a message the member of a chord.
func inChord(group string, index int) func(*protocol.Message) {
	return func(m *protocol.Message) { m.Headers.Group, m.Headers.GroupIndex = group, &index }
}

// signature is one of a task; t.part is not given what comes before it.
func signature(task, id, args, options string) string {
	return fmt.Sprintf(`{"task": %q, "args": %s, "kwargs": {}, "options": {"task_id": %q%s}, "subtask_type": null, "immutable": %t}`,
		task, args, id, options, task == "t.part")
}

const bodyChord = `{"chord": {"task": "t.list", "args": [], "kwargs": {}, "options": {"task_id": "body", "link_error": [{"task": "t.errback", "args": []}, {"task": "t.direct", "args": [7]}]}}}`

// chordOf is a chord of t.part tasks as the next step of a chain.
func chordOf(parts ...string) string {
	return fmt.Sprintf(`{"chain": [{"task": "celery.chord", "args": [], "options": {}, "subtask_type": "chord", "kwargs": {"kwargs": {}, "header": {"task": "celery.group", "kwargs": {"tasks": [%s]}, "options": {"task_id": "g"}, "subtask_type": "group"}, "body": %s}}]}`,
		strings.Join(parts, ", "), strings.TrimSuffix(strings.TrimPrefix(bodyChord, `{"chord": `), "}"))
}

type called struct {
	mu   sync.Mutex
	list []string
}

func (c *called) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, fmt.Sprintf(format, args...))
}

// all are the calls, sorted: those of different tasks have no order.
func (c *called) all() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(slices.Sorted(slices.Values(c.list)), "; ")
}

// canvasSetup is a worker with the tasks that these tests compose.
func canvasSetup(log *called) setup {
	return setup{tasks: func(app *lovage.App) {
		lovage.Func(app, "t.add", add)
		lovage.Func(app, "t.part", func(ctx context.Context, in struct {
			N  int
			In int `lovage:"in,default=0"` // seconds
		}) (int, error) {
			select {
			case <-time.After(time.Duration(in.In) * time.Second):
			case <-ctx.Done():
				return 0, context.Cause(ctx)
			}
			switch r := lovage.RequestFrom(ctx); {
			case in.N == 13:
				return 0, errBoom
			case in.N == 14:
				return 0, lovage.ErrIgnore
			case in.N == 15 && r.Retries == 0:
				return 0, lovage.Retry(errBoom, lovage.Countdown(time.Minute))
			}
			return in.N, nil
		})
		lovage.Func(app, "t.list", func(ctx context.Context, in []any) (string, error) {
			log.note("body %v", in)
			return fmt.Sprint(in), nil
		})
		lovage.Proc(app, "t.errback", func(_ context.Context, id string) error { log.note("errback %s", id); return nil })
		lovage.Errback(app, "t.direct", func(ctx context.Context, r *lovage.Request, info *lovage.ErrorInfo) error {
			log.note("direct %s %s %s", r.ID, info.Type, lovage.RequestFrom(ctx).Args)
			return nil
		})
	}}
}

func (x *world) result(id string) string {
	x.t.Helper()
	v, err := x.app.Result(id).Get(context.Background())
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(v)
}

// TestPolledChords: a store that does not count has its chords polled by
// celery.chord_unlock.
func TestPolledChords(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		parts  []string
		want   string
		calls  string
		within time.Duration
	}{
		"Order": {[]string{signature("t.part", "a", "[1, 5]", ""), signature("t.part", "b", "[2]", ""), signature("t.part", "c", "[3, 2]", "")},
			"[1 2 3]", "body [1 2 3]", 7 * time.Second},
		"Nested": {[]string{signature("t.part", "a", "[1]", ""), `{"task": "celery.chain", "args": [], "options": {}, "subtask_type": "chain", "kwargs": {"tasks": [` +
			signature("t.part", "b", "[2]", "") + `, {"task": "celery.group", "args": [], "options": {"task_id": "g2"}, "subtask_type": "group", "kwargs": {"tasks": [` +
			signature("t.add", "c", "[1]", "") + ", " + signature("t.add", "d", "[2]", "") + `]}}]}}`}, "[1 [3 4]]", "body [1 [3 4]]", 3 * time.Second},
		"Failure": {[]string{signature("t.part", "a", "[1, 3]", ""), signature("t.part", "b", "[13]", "")},
			"ChordError: Dependency b raised Error('boom')", "direct body ChordError [7]; errback body", 5 * time.Second},
		"Empty": {nil, "[]", "body []", time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := &called{}
			in(t, canvasSetup(log), func(x *world) {
				x.send("t.add", "first", "[0]", chordOf(c.parts...))
				start := time.Now()
				if got := x.result("body"); got != c.want {
					x.t.Errorf("got %s, want %s\n%s", got, c.want, x.log)
				}
				if took := time.Since(start); took > c.within {
					x.t.Errorf("took %v, want at most %v", took, c.within)
				}
				pause(time.Minute)
				if got := log.all(); got != c.calls {
					x.t.Errorf("called %q, want %q\n%s", got, c.calls, x.log)
				}
			})
		})
	}
}

func TestCountedChords(t *testing.T) {
	t.Parallel()
	members := func(x *world, counts ...string) {
		for i, args := range counts {
			x.send("t.part", fmt.Sprint("m", i), args, bodyChord, inChord("g", i))
		}
	}
	for name, c := range map[string]struct {
		members []string
		want    string
		calls   string
	}{
		"InOrder":               {members: []string{"[1, 3]", "[2]", "[3, 1]"}, want: "[1 2 3]", calls: "body [1 2 3]"},
		"ARetryDoesNotCount":    {members: []string{"[15]", "[2]"}, want: "[15 2]", calls: "body [15 2]"},
		"AFailureFailsTheBody":  {members: []string{"[1]", "[13, 1]"}, want: "ChordError: Dependency m1 raised Error('boom')", calls: "direct body ChordError [7]; errback body"},
		"IgnoredIsNoSuccess":    {members: []string{"[1]", "[14]"}, want: "ChordError: Dependency m1 raised Ignore()", calls: "direct body ChordError [7]; errback body"},
		"WrongArgumentsAreToo":  {members: []string{`["x"]`, "[1]"}, calls: "direct body ChordError [7]; errback body"},
		"TheFirstFailureCounts": {members: []string{"[1]", "[13, 3]", "[13]"}, want: "ChordError: Dependency m1 raised Error('boom')", calls: "direct body ChordError [7]; errback body"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := &called{}
			s := canvasSetup(log)
			var store *counting
			s.backend, store = newCounting()
			in(t, s, func(x *world) {
				_ = store.StartChord(context.Background(), "g", len(c.members), 0)
				members(x, c.members...)
				if got := x.result("body"); got != c.want && c.want != "" {
					x.t.Errorf("got %s, want %s\n%s", got, c.want, x.log)
				}
				// What comes after the end changes nothing.
				x.send("t.part", "m0", "[13]", bodyChord, inChord("g", 0))
				pause(time.Minute)
				got := strings.Split(log.all(), "; ")
				if strings.Join(got, "; ") != c.calls {
					x.t.Errorf("called %q, want %q\n%s", log.all(), c.calls, x.log)
				}
			})
		})
	}
	for name, c := range map[string]struct {
		spoil func(x *world, m *protocol.Message)
		want  string
		dead  int
	}{
		"Revoked":      {func(x *world, m *protocol.Message) { x.w.Revoke(false, m.Headers.ID) }, "raised TaskRevokedError('revoked')", 0},
		"Expired":      {func(_ *world, m *protocol.Message) { m.Headers.Expires = "1999-01-01T00:00:00" }, "raised TaskRevokedError('expired')", 0},
		"Unreadable":   {func(_ *world, m *protocol.Message) { m.Headers.ETA = "tomorrow" }, "raised InvalidTaskError(", 1},
		"Unregistered": {func(_ *world, m *protocol.Message) { m.Headers.Task = "t.none" }, "raised NotRegistered('t.none')", 1},
	} {
		t.Run(name+"CountsAsFailed", func(t *testing.T) {
			t.Parallel()
			log := &called{}
			s := canvasSetup(log)
			var store *counting
			s.backend, store = newCounting()
			in(t, s, func(x *world) {
				_ = store.StartChord(context.Background(), "g", 2, 0)
				members(x, "[1]")
				x.send("t.part", "m1", "[2]", bodyChord, inChord("g", 1), func(m *protocol.Message) { c.spoil(x, m) })
				if got := x.result("body"); !strings.HasPrefix(got, "ChordError: Dependency m1 "+c.want) {
					x.t.Errorf("got %s\n%s", got, x.log)
				}
				pause(time.Second)
				if n := len(x.dead()); n != c.dead || log.all() != "direct body ChordError [7]; errback body" {
					x.t.Errorf("%d dead letters, want %d; called %q", n, c.dead, log.all())
				}
			})
		})
	}
	t.Run("StoresThatAreAwayAreWaitedFor", func(t *testing.T) {
		t.Parallel()
		log := &called{}
		s := canvasSetup(log)
		var store *counting
		s.backend, store = newCounting()
		in(t, s, func(x *world) {
			*store.fail = backend.ErrUnavailable
			_ = store.StartChord(context.Background(), "g", 1, 0)
			members(x, "[1]")
			if got := x.result("body"); got != "[1]" {
				x.t.Errorf("got %s\n%s", got, x.log)
			}
			pause(time.Minute)
			if log.all() != "body [1]" {
				x.t.Errorf("called %q", log.all())
			}
		})
	})
	t.Run("ChainsInAHeaderCountByTheirLastTask", func(t *testing.T) {
		t.Parallel()
		log := &called{}
		s := canvasSetup(log)
		var store *counting
		s.backend, store = newCounting()
		in(t, s, func(x *world) {
			_ = store.StartChord(context.Background(), "g", 2, 0)
			last := func(id string, index int) string {
				body := strings.TrimSuffix(strings.TrimPrefix(bodyChord, `{"chord": `), "}")
				return `{"chain": [` + signature("t.add", id, "[100]", fmt.Sprintf(`, "group_id": "g", "group_index": %d, "chord": %s`, index, body)) + `]}`
			}
			x.send("t.part", "a", "[1]", last("a2", 0))
			x.send("t.part", "b", "[13]", last("b2", 1)) // its last task never runs
			if got, want := x.result("body"), "ChordError: Dependency b2 raised Error('boom')"; got != want {
				x.t.Errorf("got %s, want %s\n%s", got, want, x.log)
			}
			x.wantState("b2", lovage.Failure)
			x.wantState("a2", lovage.Success)
		})
	})
}

// TestOnceRule: of a message that was sent twice with one id one copy runs, and
// that copy runs again when it is redelivered.
func TestOnceRule(t *testing.T) {
	t.Parallel()
	log := &called{}
	mark := func(copy string) func(*protocol.Message) {
		return func(m *protocol.Message) {
			m.Headers.Extra = map[string]json.RawMessage{protocol.OnceHeader: json.RawMessage(`"` + copy + `"`)}
		}
	}
	s := canvasSetup(log)
	s.conf.WorkerDeduplicateSuccessfulTasks = new(false) // else it has succeeded, and does not
	in(t, s, func(x *world) {
		x.send("t.list", "id", "[[1]]", "{}", mark("one"))
		pause(time.Second)
		x.send("t.list", "id", "[[2]]", "{}", mark("two"))
		x.send("t.list", "other", "[[3]]", "{}", mark("two"))
		pause(time.Second)
		x.send("t.list", "id", "[[4]]", "{}", mark("one")) // redelivered
		pause(time.Second)
		if got, want := log.all(), "body [1]; body [3]; body [4]"; got != want {
			x.t.Errorf("ran %q, want %q", got, want)
		}
		if n := x.w.Stats().Duplicates; n != 1 {
			x.t.Errorf("%d duplicates counted, want 1", n)
		}
		x.wantLog(1, "was sent twice; this copy is dropped")
	})
}

func TestCanvasThatCannotBeHonoured(t *testing.T) {
	t.Parallel()
	for name, embed := range map[string]string{
		"Member":      bodyChord,
		"NextIsChord": chordOf(),
		"UnknownType": `{"callbacks": [{"task": "a", "subtask_type": "star"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := &called{}
			s := canvasSetup(log)
			s.conf.ResultBackend = "disabled"
			s.nowhere = true
			in(t, s, func(x *world) {
				x.send("t.list", "id", "[[1]]", embed, inChord("g", 0))
				pause(time.Second)
				dead := x.dead()
				if len(dead) != 1 || !strings.Contains(dead[0].Reason, "unsupported") || log.all() != "" {
					x.t.Errorf("dead letters %+v, ran %q, want one and nothing run", dead, log.all())
				}
			})
		})
	}
}
