package lovage

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/internal/saferepr"
	"github.com/lovage-go/lovage/protocol"
)

// effects turns an outcome into messages to send and results to store.
func (a *App) effects(ctx context.Context, r *Request, out *Outcome) (*Effects, error) {
	e := &Effects{Request: r, Outcome: out}
	var err error
	var result json.RawMessage
	switch out.State {
	case Success:
		if result = out.Stored; result == nil {
			if result, err = jsonCodec.Marshal(out.Result); err != nil {
				return nil, &encodeError{err}
			}
		}
		if err := a.followSuccess(ctx, r, result, e); err != nil {
			return nil, err
		}
		if f, ok := out.Result.(follower); ok {
			if err := f.follow(&application{app: a, ctx: ctx, r: r, e: e}); err != nil {
				return nil, err
			}
		}
	case Failure:
		a.followFailure(ctx, r, out.Info, e)
	case StateRetry:
		if out.Cancelled {
			break
		}
		m, err := a.retryMessage(r, out)
		if err != nil {
			return nil, err
		}
		if err := a.collect(ctx, m, e); err != nil {
			return nil, err
		}
	}
	a.count(r, out, result, e)
	if out.Stored != nil {
		a.unsent(ctx, e)
		return e, nil
	}
	return e, a.record(ctx, r, out, result, e)
}

// unsent leaves out what an earlier run has sent as far as the result store knows
// of it. The rest may be on its way: each copy is marked, so that only one of
// those that are sent again runs, and none whose task has succeeded meanwhile.
func (a *App) unsent(ctx context.Context, e *Effects) {
	ids := make([]string, len(e.full))
	for i, m := range e.full {
		ids[i] = m.Headers.ID
	}
	var known []backend.Record
	if b, err := a.Backend(ctx); err == nil && len(ids) > 0 {
		if known, err = b.Fetch(ctx, ids...); err != nil {
			a.log.Warn("what follows task "+e.Request.Task+"["+e.Request.ID+"] is sent, perhaps a second time: "+err.Error(), "task", e.Request.Task, "id", e.Request.ID, "error", err)
		}
	}
	full, publish := e.full, e.Publish
	e.full, e.Publish = nil, nil
	for i, m := range publish {
		if i < len(known) && known[i].Meta != nil {
			continue
		}
		a.markCopy(m)
		e.full, e.Publish = append(e.full, full[i]), append(e.Publish, m)
	}
}

// collect sends a message through signals and interceptors into the effects.
func (a *App) collect(ctx context.Context, m *protocol.Message, e *Effects) error {
	a.beforePublish(ctx, m.Headers.Task, m)
	return a.publish(context.WithValue(ctx, collectKey, e), m)
}

// followSuccess makes the callbacks and the next step of the chain. They go out
// with or before the result, so that its children are complete. As in Celery a
// group that is a callback is sent as it is, and several other ones are a group.
func (a *App) followSuccess(ctx context.Context, r *Request, result json.RawMessage, e *Effects) error {
	if len(r.embed.Callbacks)+len(r.embed.Chain) == 0 {
		return nil
	}
	p := &application{app: a, ctx: ctx, r: r, e: e, trail: true}
	first, over := []json.RawMessage{result}, r.follows()
	callbacks, err := openList(r.embed.Callbacks)
	if err != nil {
		return fmt.Errorf("link: %w", err)
	}
	if len(callbacks) > 1 {
		callbacks = bundled(callbacks)
	}
	for _, s := range callbacks {
		if err := p.apply(s, first, over); err != nil {
			return fmt.Errorf("link: %w", err)
		}
	}
	if n := len(r.embed.Chain); n > 0 {
		s, err := openSig(&r.embed.Chain[n-1])
		if err == nil {
			rest := make([]byte, 0, 64)
			over["chain"] = protocol.AppendSignatures(rest, r.embed.Chain[:n-1:n-1])
			err = p.apply(s, first, over)
		}
		if err != nil {
			return fmt.Errorf("next step of the chain: %w", err)
		}
	}
	return nil
}

// follows are the options of what follows a run.
func (r *Request) follows() wireOptions {
	o := wireOptions{}
	o.put("root_id", cmp.Or(r.RootID, r.ID))
	o.put("parent_id", r.ID)
	return o
}

func openList(list []protocol.Signature) ([]*sig, error) {
	out := make([]*sig, len(list))
	for i := range list {
		var err error
		if out[i], err = openSig(&list[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// bundled are the groups among several callbacks, and all the others as one.
func bundled(list []*sig) (out []*sig) {
	others := &sig{kind: kindGroup, task: "celery.group"}
	for _, s := range list {
		if s.kind == kindGroup {
			out = append(out, s)
		} else {
			others.tasks = append(others.tasks, s)
		}
	}
	if len(others.tasks) > 0 {
		out = append(out, others)
	}
	return out
}

// prepend puts one value before the elements of a JSON array.
func prepend(first, array json.RawMessage) json.RawMessage {
	inner := trimArray(array)
	out := make([]byte, 0, len(first)+len(inner)+3)
	out = append(append(out, '['), first...)
	if len(inner) > 0 {
		out = append(append(out, ','), inner...)
	}
	return append(out, ']')
}

func trimArray(a json.RawMessage) []byte {
	i, j := 0, len(a)
	for i < j && (isSpace(a[i])) {
		i++
	}
	for i < j && isSpace(a[j-1]) {
		j--
	}
	if j-i < 2 {
		return nil
	}
	a = a[i+1 : j-1]
	for len(a) > 0 && isSpace(a[0]) {
		a = a[1:]
	}
	return a
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// record encodes the results that are to be stored.
func (a *App) record(ctx context.Context, r *Request, out *Outcome, result json.RawMessage, e *Effects) error {
	ignore := r.IgnoreResult || (r.def != nil && r.def.set.IgnoreResult)
	keepErrors := r.def != nil && r.def.set.StoreErrorsEvenIfIgnored && out.State != Success
	if (r.IsEager && !a.conf.TaskStoreEagerResult) || !a.stores() {
		return nil
	}
	state, info := out.State, out.Info
	switch state {
	case Rejected:
		if out.Requeue {
			return nil
		}
		state = Failure // Celery stores a rejected task as failed
	case Success, Failure, StateRetry, Revoked:
	default:
		return nil
	}
	if !ignore || keepErrors {
		if state != Success {
			form := info.Form()
			result = form.AppendJSON(nil)
		}
		tb := ""
		if info != nil {
			tb = info.Traceback
		}
		rec, err := a.encodeRecord(r, state, result, tb)
		if err != nil {
			return err
		}
		e.Store = append(e.Store, rec)
	}
	if (state == Failure || state == Revoked) && len(r.embed.Chain) > 0 {
		return a.failChain(ctx, r, state, info, e)
	}
	return nil
}

// failChain stores the failure for the steps that will now never run, and counts
// those that are members of a chord.
func (a *App) failChain(ctx context.Context, r *Request, state State, info *ErrorInfo, e *Effects) error {
	p := &application{app: a, ctx: ctx, r: r, e: e}
	for i := range r.embed.Chain {
		s, err := openSig(&r.embed.Chain[i])
		if err != nil {
			continue
		}
		if err := p.fail(s, state, info, true); err != nil {
			return err
		}
	}
	return nil
}

// encodeRecord writes a result as Celery stores it.
func (a *App) encodeRecord(r *Request, state State, result json.RawMessage, traceback string) (*protocol.Record, error) {
	meta := protocol.ResultMeta{
		Status: state, Result: result, Traceback: traceback,
		Children: childTuples(r.trail()),
		TaskID:   r.ID, GroupID: r.Group, ParentID: r.ParentID,
	}
	if state.Ready() {
		meta.DateDone = protocol.FormatTime(now())
	}
	if a.conf.ResultExtended {
		meta.Extended = &protocol.ExtendedMeta{
			Name: r.Task, Args: json.RawMessage(r.Args), Kwargs: json.RawMessage(r.Kwargs),
			Worker: r.Hostname, Retries: r.Retries, Queue: r.Delivery.RoutingKey,
			StampedHeaders: r.StampedHeaders, Stamps: r.Stamps,
		}
	}
	return &protocol.Record{
		TaskID: r.ID, State: state, GroupID: r.Group,
		Meta:    meta.AppendJSON(make([]byte, 0, len(result)+220)),
		Expires: a.resultExpires(),
		ReplyTo: r.ReplyTo, CorrelationID: r.CorrelationID,
	}, nil
}

func (a *App) resultExpires() time.Duration { return max(a.conf.ResultExpires, 0) }

var noChildren = json.RawMessage("[]")

// childTuples writes [[id, null], null] for each child, and for a group its
// members in place of the second null.
func childTuples(list []child) json.RawMessage {
	if len(list) == 0 {
		return noChildren
	}
	b := []byte{'['}
	for i, c := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, "[["...)
		b = strconv.AppendQuote(b, c.id)
		b = append(b, ",null],"...)
		if c.members != nil {
			b = append(append(b, c.members...), ']')
		} else {
			b = append(b, "null]"...)
		}
	}
	return append(b, ']')
}

// storeState writes a state of the task's own at once, beside the run.
func (a *App) storeState(ctx context.Context, r *Request, state State, meta any) error {
	if r.IsEager && !a.conf.TaskStoreEagerResult {
		return nil
	}
	b, err := a.Backend(ctx)
	if err != nil {
		return err
	}
	result, err := jsonCodec.Marshal(meta)
	if err != nil {
		return fmt.Errorf("state %s of task %s[%s]: %w", state, r.Task, r.ID, err)
	}
	rec, err := a.encodeRecord(r, state, result, "")
	if err != nil {
		return err
	}
	return b.Store(ctx, rec)
}

// encodeError says that a task's result cannot be written.
type encodeError struct{ error }

func (e *encodeError) Unwrap() error { return e.error }

func (e *encodeError) info() *ErrorInfo {
	info := &ErrorInfo{Err: e.error, Type: "EncodeError", Module: "kombu.exceptions", Args: []any{e.Error()}}
	info.Traceback = traceback(e.error, info, "result")
	return info
}

func reprResult(v any, size int) string {
	if _, ok := v.(None); ok {
		return "None"
	}
	return saferepr.Repr(v, size)
}

// secondsText writes a delay as Python prints a number of seconds.
func secondsText(d time.Duration) string {
	if d%time.Second == 0 {
		return strconv.FormatInt(int64(d/time.Second), 10)
	}
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64)
}
