package lovage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/protocol"
)

// Result is the future of a task's result: Celery's AsyncResult. It is safe for
// concurrent use.
type Result[Out any] struct{ core resultCore }

// resultCore is a result without its type.
type resultCore struct {
	app     *App
	id      string
	ignored bool
	meta    *protocol.ResultMeta // set for an eager result
}

// Meta is the stored record of a task.
type Meta = protocol.ResultMeta

// ResultOf returns the result of a task id, of a type that the caller knows.
func ResultOf[Out any](app *App, id string) *Result[Out] {
	return &Result[Out]{core: resultCore{app: app, id: id}}
}

// Result returns the untyped result of a task id.
func (a *App) Result(id string) *Result[any] { return ResultOf[any](a, id) }

// ID is the task's id.
func (r *Result[Out]) ID() string { return r.core.id }

// Ignored reports that the result is not stored, because the call said so.
func (r *Result[Out]) Ignored() bool { return r.core.ignored }

// Get waits until the task has ended and returns its result. A task that
// failed gives a *TaskError. Get waits as long as ctx allows: give it a
// deadline. An ignored result is the zero value at once.
func (r *Result[Out]) Get(ctx context.Context) (Out, error) {
	var out Out
	if r.core.ignored {
		return out, nil
	}
	meta, err := r.core.wait(ctx)
	if err != nil {
		return out, err
	}
	if meta.Status.Propagate() {
		return out, taskError(meta)
	}
	if len(meta.Result) == 0 || string(meta.Result) == "null" {
		return out, nil
	}
	if err := jsonCodec.Unmarshal(meta.Result, &out); err != nil {
		return out, fmt.Errorf("decode the result of task %s: %w", r.core.id, err)
	}
	return out, nil
}

// Meta reads the record as it is now; an unknown id is PENDING.
func (r *Result[Out]) Meta(ctx context.Context) (*Meta, error) { return r.core.fetch(ctx) }

// State reads the state as it is now; an unknown id is PENDING.
func (r *Result[Out]) State(ctx context.Context) (State, error) {
	m, err := r.core.fetch(ctx)
	if err != nil {
		return "", err
	}
	return m.Status, nil
}

// Ready reports whether the task has ended.
func (r *Result[Out]) Ready(ctx context.Context) (bool, error) {
	s, err := r.State(ctx)
	return s.Ready(), err
}

// Info decodes what is stored now into v: the result, or the meta of a state
// of the task's own. It returns the state.
func (r *Result[Out]) Info(ctx context.Context, v any) (State, error) {
	m, err := r.core.fetch(ctx)
	if err != nil {
		return "", err
	}
	if len(m.Result) == 0 || m.Status.Exception() {
		return m.Status, nil
	}
	return m.Status, jsonCodec.Unmarshal(m.Result, v)
}

// Wait blocks until until returns true for the record, and returns it. It sees
// each change that the store keeps, not each that was made.
func (r *Result[Out]) Wait(ctx context.Context, until func(*Meta) bool) (*Meta, error) {
	return r.core.await(ctx, until)
}

// Traceback is the traceback of a failed or retried task, empty otherwise.
func (r *Result[Out]) Traceback(ctx context.Context) (string, error) {
	m, err := r.core.fetch(ctx)
	if err != nil {
		return "", err
	}
	return m.Traceback, nil
}

// Children are the ids of the tasks that this one called, alone or in groups.
func (r *Result[Out]) Children(ctx context.Context) ([]string, error) {
	m, err := r.core.fetch(ctx)
	if err != nil || none(m.Children) {
		return nil, err
	}
	ids, err := tupleIDs(nil, m.Children)
	if err != nil {
		return nil, fmt.Errorf("children of task %s: %w", r.core.id, err)
	}
	return ids, nil
}

// Forget deletes the record.
func (r *Result[Out]) Forget(ctx context.Context) error {
	b, err := r.core.app.Backend(ctx)
	if err != nil {
		return err
	}
	return b.Forget(ctx, r.core.id)
}

func (c *resultCore) fetch(ctx context.Context) (*Meta, error) {
	if c.meta != nil {
		return c.meta, nil
	}
	b, err := c.app.Backend(ctx)
	if err != nil {
		return nil, err
	}
	recs, err := b.Fetch(ctx, c.id)
	if err != nil {
		return nil, fmt.Errorf("fetch the result of task %s: %w", c.id, err)
	}
	return decodeRecord(c.id, &recs[0])
}

func decodeRecord(id string, rec *backend.Record) (*Meta, error) {
	if len(rec.Meta) == 0 {
		return &Meta{Status: Pending, TaskID: id}, nil
	}
	m, err := protocol.ParseResultMeta(rec.Meta)
	if err != nil {
		return nil, fmt.Errorf("the stored result of task %s: %w", id, err)
	}
	if m.TaskID == "" {
		m.TaskID = id
	}
	return &m, nil
}

func (c *resultCore) wait(ctx context.Context) (*Meta, error) {
	return c.await(ctx, func(m *Meta) bool { return m.Status.Ready() })
}

// await waits for a record. Inside a run it needs AllowJoin, and lends the
// run's slot to others meanwhile.
func (c *resultCore) await(ctx context.Context, until func(*Meta) bool) (*Meta, error) {
	if c.meta != nil {
		return c.meta, nil
	}
	if r := runFrom(ctx); r != nil && !r.IsEager {
		if allowed, _ := ctx.Value(joinKey).(bool); !allowed {
			return nil, ErrGetInTask
		}
		defer r.lend(ctx)()
	}
	b, err := c.app.Backend(ctx)
	if err != nil {
		return nil, err
	}
	var meta *Meta
	var bad error
	_, err = backend.Await(ctx, b, c.id, func(rec backend.Record) bool {
		meta, bad = decodeRecord(c.id, &rec)
		return bad != nil || until(meta)
	})
	if err = errors.Join(bad, err); err != nil {
		return nil, fmt.Errorf("wait for task %s: %w", c.id, err)
	}
	return meta, nil
}

// taskError makes the error of a record that has failed.
func taskError(m *Meta) error {
	form, ok := m.Error()
	if !ok {
		return &TaskError{Type: string(m.Status), Args: []any{string(m.Result)}, Traceback: m.Traceback, TaskID: m.TaskID}
	}
	e := &TaskError{Type: form.Type, Traceback: m.Traceback, TaskID: m.TaskID}
	if form.Module != nil {
		e.Module = *form.Module
	}
	for _, raw := range form.Arguments() {
		var v any
		if err := jsonCodec.Unmarshal(raw, &v); err != nil {
			v = string(raw)
		}
		e.Args = append(e.Args, v)
	}
	return e
}

// Results waits for several tasks at once and yields each as it ends, until
// all have ended or ctx does.
func (a *App) Results(ctx context.Context, ids []string, each func(m *Meta) error) error {
	b, err := a.Backend(ctx)
	if err != nil {
		return err
	}
	return backend.AwaitMany(ctx, b, ids, func(rec backend.Record) (done bool, err error) {
		if !rec.State.Ready() {
			return false, nil
		}
		m, err := decodeRecord(rec.TaskID, &rec)
		if err != nil {
			return false, err
		}
		return true, each(m)
	})
}

// DecodeResult reads the value of a record that has ended: the result, or the
// *TaskError of a task that failed.
func DecodeResult[Out any](m *Meta) (Out, error) {
	var out Out
	if m.Status.Propagate() {
		return out, taskError(m)
	}
	if len(m.Result) == 0 {
		return out, nil
	}
	err := jsonCodec.Unmarshal(m.Result, &out)
	return out, err
}

// eagerMeta is the record of a run that took place here.
func eagerMeta(r *Request, out *Outcome) (*Meta, error) {
	m := &Meta{Status: out.State, TaskID: r.ID, Children: childTuples(r.trail())}
	if out.State == Rejected {
		m.Status = Failure
	}
	if m.Status.Ready() {
		m.DateDone = protocol.FormatTime(time.Now().UTC())
	}
	if out.State == Success {
		text, err := jsonCodec.Marshal(out.Result)
		if err != nil {
			return nil, err
		}
		m.Result = text
		return m, nil
	}
	if out.Info != nil {
		form := out.Info.Form()
		m.Result, m.Traceback = form.AppendJSON(nil), out.Info.Traceback
	}
	return m, nil
}
