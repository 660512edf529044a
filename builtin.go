package lovage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/protocol"
)

const (
	// chordTask is a chord as one task, as Celery 3 asked for it.
	chordTask = "celery.chord"
	// unlockTask polls the header of a chord where the store does not count it.
	unlockTask = "celery.chord_unlock"
)

// follower is the result of a built-in task that sends something of its own
// with the end of its run. On the wire it is what its MarshalJSON says.
type follower interface {
	follow(p *application) error
}

// addBuiltins registers the tasks that Celery has in every app, unless the
// program has its own under such a name. The caller holds mu.
func (a *App) addBuiltins() error {
	for name, b := range map[string]struct {
		run  func(a *App, ctx context.Context, args, kwargs json.RawMessage) (any, error)
		opts []TaskOption
	}{
		unlockTask:               {(*App).unlockChord, []TaskOption{MaxRetries(NoLimit), IgnoreResult(true), DefaultRetryDelay(a.conf.ResultChordRetryInterval)}},
		"celery.accumulate":      {(*App).accumulate, nil},
		"celery.map":             {(*App).mapTask, nil},
		"celery.starmap":         {(*App).starmapTask, nil},
		"celery.chunks":          {(*App).chunksTask, nil},
		"celery.group":           {(*App).groupTask, nil},
		chordTask:                {(*App).chordTask, nil},
		"celery.chain":           {(*App).chainTask, nil},
		"celery.backend_cleanup": {(*App).cleanupTask, nil},
	} {
		if have, ok := a.tasks[name]; ok && !have.remote {
			continue
		}
		d := &Definition{name: name, app: a, builtin: true, where: "celery"}
		prepare[Args, any](d, b.opts)
		d.run = func(ctx context.Context, _ string, args, kwargs json.RawMessage) (any, error) {
			return b.run(a, ctx, args, kwargs)
		}
		if err := d.finalize(nil); err != nil {
			return err
		}
		a.tasks[name] = d
	}
	return nil
}

// builtinArgs reads the arguments of a built-in task by the names they have in
// Python.
func builtinArgs(args, kwargs json.RawMessage, names ...string) (map[string]json.RawMessage, error) {
	out := map[string]json.RawMessage{}
	err := eachMember(kwargs, func(k string, v []byte) error { out[k] = v; return nil })
	if err == nil {
		err = eachElement(args, func(i int, v []byte) error {
			if i < len(names) {
				out[names[i]] = v
			}
			return nil
		})
	}
	for _, n := range names {
		if err == nil && none(out[n]) {
			err = argumentError(fmt.Errorf("missing argument %q", n))
		}
	}
	return out, err
}

// unlockChord ends a chord when the results of its header are all there, and
// until then comes back every interval.
func (a *App) unlockChord(ctx context.Context, args, kwargs json.RawMessage) (any, error) {
	in, err := builtinArgs(args, kwargs, "group_id", "callback")
	if err != nil {
		return nil, err
	}
	u := &unlocked{}
	if err := json.Unmarshal(in["group_id"], &u.group); err != nil {
		return nil, fmt.Errorf("group_id: %w", err)
	}
	if u.body, err = protocol.ParseSignature(in["callback"]); err != nil {
		return nil, fmt.Errorf("callback: %w", err)
	}
	again := []RetryOption{}
	if !none(in["interval"]) {
		var every *time.Duration
		if err := wireSeconds(in["interval"], &every); err != nil {
			return nil, fmt.Errorf("interval: %w", err)
		}
		again = append(again, Countdown(*every))
	}
	if !none(in["max_retries"]) {
		var most int
		if err := json.Unmarshal(in["max_retries"], &most); err != nil {
			return nil, fmt.Errorf("max_retries: %w", err)
		}
		again = append(again, MaxRetries(most))
	}
	u.tuples = in["result"]
	ids, err := tupleIDs(nil, u.tuples)
	if err != nil {
		return nil, fmt.Errorf("result: %w", err)
	}
	b, err := a.Backend(ctx)
	if err != nil {
		return nil, err
	}
	recs, err := b.Fetch(ctx, ids...)
	if err != nil {
		return nil, Retry(err, again...)
	}
	for i := range recs {
		m, err := decodeRecord(ids[i], &recs[i])
		if err != nil {
			return nil, err
		}
		if !m.Status.Ready() {
			return nil, Retry(nil, again...)
		}
		u.members = append(u.members, protocol.ChordPart{TaskID: ids[i], State: m.Status, Result: m.Result})
	}
	return u, nil
}

// unlocked is a chord whose header is complete.
type unlocked struct {
	group   string
	body    protocol.Signature
	members []protocol.ChordPart
	tuples  json.RawMessage
}

// MarshalJSON writes null: the task returns nothing.
func (u *unlocked) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

func (u *unlocked) follow(p *application) error {
	for i := range u.members {
		if m := &u.members[i]; m.State.Propagate() {
			return p.failBody(&u.body, u.group, dependency(m))
		}
	}
	whole := append(appendTuple(nil, u.group), ", "...)
	results, err := nest(append(append(whole, u.tuples...), ']'), u.members)
	if err != nil {
		return p.failBody(&u.body, u.group, "Join error: "+newErrorInfo(err, "").Repr())
	}
	return p.applyBody(&u.body, u.group, results)
}

// accumulate gives back its arguments, or the one at an index.
func (a *App) accumulate(_ context.Context, args, kwargs json.RawMessage) (any, error) {
	var index *int
	if raw := member(kwargs, "index"); !none(raw) {
		if err := json.Unmarshal(raw, &index); err != nil {
			return nil, fmt.Errorf("index: %w", err)
		}
	}
	if index == nil {
		return args, nil
	}
	at := *index
	if at < 0 {
		at += RawArgs(args).Len()
	}
	var out json.RawMessage
	err := eachElement(args, func(i int, v []byte) error {
		if i == at {
			out = v
		}
		return nil
	})
	if err == nil && out == nil {
		err = &TaskError{Type: "IndexError", Module: "builtins", Args: []any{"tuple index out of range"}}
	}
	return out, err
}

func (a *App) mapTask(ctx context.Context, args, kwargs json.RawMessage) (any, error) {
	return a.eachItem(ctx, args, kwargs, func(item []byte) json.RawMessage {
		return append(append([]byte{'['}, item...), ']')
	})
}

func (a *App) starmapTask(ctx context.Context, args, kwargs json.RawMessage) (any, error) {
	return a.eachItem(ctx, args, kwargs, func(item []byte) json.RawMessage { return item })
}

// eachItem calls a task for each item, one after the other, in this run.
func (a *App) eachItem(ctx context.Context, args, kwargs json.RawMessage, call func([]byte) json.RawMessage) (any, error) {
	in, err := builtinArgs(args, kwargs, "task", "it")
	if err != nil {
		return nil, err
	}
	s, err := protocol.ParseSignature(in["task"])
	if err != nil {
		return nil, fmt.Errorf("task: %w", err)
	}
	d, ok := a.Lookup(s.Task)
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrNotRegistered, s.Task)
	}
	if err := d.life.start(ctx); err != nil {
		return nil, err
	}
	results := []any{}
	err = eachElement(in["it"], func(_ int, item []byte) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r := &Request{ID: a.rand.uuid(), Task: d.name, Args: RawArgs(call(item)), Kwargs: RawKwargs("{}"), def: d, app: a,
			direct: true, caller: runFrom(ctx)}
		v, err := d.run(context.WithValue(ctx, requestKey, r), d.name, json.RawMessage(r.Args), json.RawMessage(r.Kwargs))
		results = append(results, v)
		return err
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// sent is a signature that a built-in task sends; its result is where the
// results will be.
type sent struct {
	s     *sig
	first []json.RawMessage
	over  wireOptions
	trail bool
	tuple json.RawMessage
}

// MarshalJSON writes the result tuple.
func (s *sent) MarshalJSON() ([]byte, error) { return s.tuple, nil }

func (s *sent) follow(p *application) error {
	p.trail = s.trail
	over := p.r.follows().merge(s.over)
	return p.apply(s.s, s.first, over)
}

// sendLater freezes a signature, to be sent with the end of the run.
func (a *App) sendLater(s *sig, first []json.RawMessage, trail bool) (any, error) {
	if err := a.freeze(s, place{}); err != nil {
		return nil, err
	}
	tuple, _ := s.result(nil)
	return &sent{s: s, first: first, trail: trail, tuple: tuple}, nil
}

// chunksTask sends the items in groups of n, each to be called in sequence.
func (a *App) chunksTask(_ context.Context, args, kwargs json.RawMessage) (any, error) {
	in, err := builtinArgs(args, kwargs, "task", "it", "n")
	if err != nil {
		return nil, err
	}
	var n int
	if err := json.Unmarshal(in["n"], &n); err != nil || n < 1 {
		return nil, argumentError(fmt.Errorf("n = %s: want a whole number above zero", in["n"]))
	}
	g := &sig{kind: kindGroup, task: "celery.group", args: json.RawMessage("[]"), options: wireOptions{}}
	var chunk []byte
	flush := func() {
		if len(chunk) > 0 {
			kw := append(append([]byte(`{"task": `), in["task"]...), `, "it": `...)
			g.tasks = append(g.tasks, &sig{task: "celery.starmap", args: json.RawMessage("[]"), kwargs: append(append(kw, chunk...), "]}"...), options: wireOptions{}, immutable: true})
			chunk = nil
		}
	}
	err = eachElement(in["it"], func(i int, item []byte) error {
		if i%n == 0 {
			flush()
			chunk = append(chunk, '[')
		} else {
			chunk = append(chunk, ", "...)
		}
		chunk = append(chunk, item...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	flush()
	return a.sendLater(g, nil, true)
}

// groupTask sends the tasks of a group, as Celery 3 asked for it.
func (a *App) groupTask(_ context.Context, args, kwargs json.RawMessage) (any, error) {
	in, err := builtinArgs(args, kwargs, "tasks", "result", "group_id", "partial_args")
	if err != nil {
		return nil, err
	}
	g := &sig{kind: kindGroup, task: "celery.group", args: json.RawMessage("[]"), options: wireOptions{"task_id": in["group_id"]}}
	if g.tasks, err = openSigs(in["tasks"]); err != nil {
		return nil, err
	}
	return a.sendLater(g, elements(in["partial_args"]), string(in["add_to_parent"]) != "false")
}

// chordTask sends a chord, as Celery 3 asked for it.
func (a *App) chordTask(_ context.Context, args, kwargs json.RawMessage) (any, error) {
	in, err := builtinArgs(args, kwargs, "header", "body")
	if err != nil {
		return nil, err
	}
	s := &sig{kind: kindChord, task: chordTask, args: json.RawMessage("[]"), options: wireOptions{}}
	for _, k := range []string{"interval", "countdown", "max_retries"} {
		if !none(in[k]) {
			s.options[k] = in[k]
		}
	}
	text := append(append([]byte(`{"header": `), in["header"]...), `, "body": `...)
	if err := s.openChord(append(append(text, in["body"]...), '}')); err != nil {
		return nil, err
	}
	return a.sendLater(s, elements(in["partial_args"]), true)
}

func elements(raw json.RawMessage) (list []json.RawMessage) {
	if none(raw) {
		return nil
	}
	_ = eachElement(raw, func(_ int, v []byte) error { list = append(list, v); return nil })
	return list
}

func (a *App) chainTask(context.Context, json.RawMessage, json.RawMessage) (any, error) {
	return nil, &TaskError{Type: "NotImplementedError", Module: "builtins", Args: []any{"chain is not a real task"}}
}

// cleanupTask deletes expired results where the store does not by itself.
func (a *App) cleanupTask(ctx context.Context, _, _ json.RawMessage) (any, error) {
	b, err := a.Backend(ctx)
	if errors.Is(err, ErrNoBackend) {
		return None{}, nil
	}
	if c, ok := b.(backend.Cleaner); err == nil && ok {
		_, err = c.Cleanup(ctx)
	}
	return None{}, err
}
