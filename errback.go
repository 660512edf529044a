package lovage

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
)

// ErrbackFunc is called where a task failed that names it by link_error. r is
// the failed task: its Args, Kwargs and ids are those of its message. ctx has a
// request of the call itself, with the errback's own arguments.
type ErrbackFunc func(ctx context.Context, r *Request, info *ErrorInfo) error

// Errback declares an errback of Celery's new convention: one that takes the
// failed request and the error. A worker that has it calls it directly, without
// a message, once the failure is stored; a crash in between loses the call, as it
// loses OnFailure. An error is logged and signalled and changes nothing. For what
// must not be lost link a task, which gets the id of the failed one.
//
// Workers that do not have it, in Python too, send it as such a task: then it
// runs with what the result store has of the failed one.
func Errback(app *App, name string, f ErrbackFunc) {
	Proc(app, name, func(ctx context.Context, id string) error {
		meta, err := app.Result(id).Meta(ctx)
		if err != nil {
			return err
		}
		failed := &Request{ID: id, app: app, Group: meta.GroupID, ParentID: meta.ParentID}
		if x := meta.Extended; x != nil {
			failed.Task, failed.Args, failed.Kwargs, failed.Retries, failed.Hostname = x.Name, RawArgs(x.Args), RawKwargs(x.Kwargs), x.Retries, x.Worker
		}
		return f(ctx, failed, newErrorInfo(taskError(meta), ""))
	})
	app.mu.Lock()
	defer app.mu.Unlock()
	app.errbacks[name] = f
}

// errbackCall is an errback that this worker calls itself.
type errbackCall struct {
	f    ErrbackFunc
	own  *Request // the call
	r    *Request // the failed task
	info *ErrorInfo
}

func (a *App) callErrbacks(ctx context.Context, calls []errbackCall) {
	for _, c := range calls {
		ctx, cancel := context.WithTimeout(context.WithValue(ctx, requestKey, c.own), hookTimeout)
		if err := guard(func() error { return c.f(ctx, c.r, c.info) }); err != nil {
			a.internalError(ctx, c.r, "link_error "+c.own.Task, err)
		}
		cancel()
	}
}

// followFailure makes the errbacks of a run.
func (a *App) followFailure(ctx context.Context, r *Request, info *ErrorInfo, e *Effects) {
	if len(r.embed.Errbacks) == 0 {
		return
	}
	p := &application{app: a, ctx: ctx, r: r, e: e}
	list, err := openList(r.embed.Errbacks)
	if err != nil {
		a.internalError(ctx, r, "link_error", err)
		return
	}
	p.errbacks(list, r, info, "")
}

// errbacks calls what is registered here for that, after the effects are kept,
// and sends the others as a group that gets the id of the failed task. seed makes
// the ids the same however often they are sent. An errback that cannot be made
// is reported: the task has failed all the same.
func (p *application) errbacks(list []*sig, failed *Request, info *ErrorInfo, seed string) {
	bundle := &sig{kind: kindGroup, task: "celery.group"}
	for i, s := range list {
		if f := p.app.errbacks[s.task]; f != nil && s.kind == "" {
			own := &Request{Task: s.task, ParentID: failed.ID, RootID: failed.RootID, app: p.app, direct: true, caller: p.r,
				Args: RawArgs(s.args), Kwargs: RawKwargs(s.kwargs)}
			p.e.errbacks = append(p.e.errbacks, errbackCall{f, own, failed, info})
			continue
		}
		if s = s.clone(); seed != "" && s.options.text("task_id") == "" {
			s.options.put("task_id", derived(fmt.Sprint(seed, failed.ID, i)))
		}
		bundle.tasks = append(bundle.tasks, s)
	}
	if len(bundle.tasks) == 0 {
		return
	}
	id, err := json.Marshal(failed.ID)
	published, full, starts := len(p.e.Publish), len(p.e.full), len(p.e.starts)
	if err == nil {
		over := wireOptions{}
		over.put("root_id", cmp.Or(failed.RootID, failed.ID))
		over.put("parent_id", failed.ID)
		err = p.apply(bundle, []json.RawMessage{id}, over)
	}
	if err != nil {
		p.e.Publish, p.e.full, p.e.starts = p.e.Publish[:published], p.e.full[:full], p.e.starts[:starts]
		p.app.internalError(p.ctx, failed, "link_error", err)
	}
}

// failed calls the errbacks of a body that will not run, each once, with the id
// of the task in it that has them.
func (p *application) failed(s *sig, seed string, info *ErrorInfo) {
	seen := map[string]bool{}
	s.eachErrback(func(t *sig, list []*sig) {
		var todo []*sig
		for _, e := range list {
			if text := string(e.json()); !seen[text] {
				seen[text] = true
				todo = append(todo, e)
			}
		}
		r := &Request{ID: t.options.text("task_id"), Task: t.task, Args: RawArgs(t.args), Kwargs: RawKwargs(t.kwargs),
			Group: t.options.text("group_id"), Hostname: p.r.Hostname, app: p.app}
		r.RootID = r.ID
		p.errbacks(todo, r, info, seed)
	})
}

// eachErrback finds the errbacks of a signature: those of a chain's last task
// stand for the chain, those of a chord's body for the chord.
func (s *sig) eachErrback(f func(t *sig, list []*sig)) {
	own, _ := s.options.sigs("link_error")
	switch {
	case s.kind == kindChord:
		s.body.adopt(own)
		s.body.eachErrback(f)
	case s.kind == kindChain && len(s.tasks) > 0:
		last := s.tasks[len(s.tasks)-1]
		last.adopt(own)
		last.eachErrback(f)
	case s.kind == kindGroup:
		for _, t := range s.tasks {
			t.adopt(own)
			t.eachErrback(f)
		}
	default:
		f(s, own)
	}
}

func (s *sig) adopt(errbacks []*sig) {
	for _, e := range errbacks {
		s.options.add("link_error", e)
	}
}

// derived is an id that the same seed gives again.
func derived(seed string) string {
	sum := sha256.Sum256([]byte(seed))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}
