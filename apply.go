package lovage

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/protocol"
)

// application turns signatures that follow a run into messages, which are kept
// in its effects, so that all of them go out with the end of the run or none.
type application struct {
	app   *App
	ctx   context.Context
	r     *Request
	e     *Effects
	trail bool // what is sent are children of the run
}

// chordStart is a chord that the effects begin: its store must know of it before
// its header is sent.
type chordStart struct {
	group string
	size  int
	doc   []byte // the header's results, where they are not a plain list
}

// apply sends a signature, with values put before its arguments and options laid
// over its own: Celery's apply_async.
func (p *application) apply(s *sig, first []json.RawMessage, over wireOptions) error {
	switch s.kind {
	case kindChain:
		return p.chain(s, first, over)
	case kindGroup:
		return p.group(s, first, over)
	case kindChord:
		return p.chord(s, first, over)
	}
	return p.task(s, first, over)
}

func (p *application) task(s *sig, first []json.RawMessage, over wireOptions) error {
	a := p.app
	own, extra, err := parseWireOptions(s.options.merge(over))
	if err != nil {
		return fmt.Errorf("signature of task %q: %w", s.task, err)
	}
	c := call{name: s.task, def: a.tasks[s.task], args: s.prepend(first), kwargs: s.kwargs, embed: extra.embed,
		groupIndex: extra.groupIndex, stamps: p.r.Stamps, stampedHeaders: p.r.StampedHeaders}
	var o options
	if c.def != nil {
		o = *c.def.callDefaults()
	}
	o.merge(&own)
	m, err := a.message(p.ctx, &c, &o)
	if err != nil {
		return fmt.Errorf("task %q: %w", s.task, err)
	}
	if p.leavesTrail() && or(o.addToParent, true) {
		p.r.addChild(m.Headers.ID)
	}
	return a.collect(p.ctx, m, p.e)
}

func (p *application) leavesTrail() bool {
	return p.trail && (p.r.def == nil || p.r.def.set.Trail)
}

// chain sends the first task, which carries the others.
func (p *application) chain(s *sig, first []json.RawMessage, over wireOptions) error {
	s = s.clone()
	opts := s.options.merge(over)
	if err := s.takeLinks(opts); err != nil {
		return err
	}
	tasks, err := s.opened()
	if err != nil {
		return err
	}
	at := place{id: opts.takeText("task_id"), group: opts.takeText("group_id"), chord: opts.take("chord"), root: opts.text("root_id")}
	if raw := opts.take("group_index"); raw != nil {
		if err := json.Unmarshal(raw, &at.index); err != nil {
			return fmt.Errorf("option group_index: %w", err)
		}
	}
	opts.take("parent_id")
	steps, err := p.app.steps(tasks, first, at)
	if err != nil || len(steps) == 0 {
		return err
	}
	last := len(steps) - 1
	after, err := opts.sigs("chain")
	if err != nil {
		return err
	}
	opts["chain"] = closeSigs(nil, append(after, steps[:last]...))
	return p.apply(steps[last], nil, opts)
}

// group sends its tasks under one id.
func (p *application) group(s *sig, first []json.RawMessage, over wireOptions) error {
	s = s.clone()
	opts := s.options.merge(over)
	if err := s.takeLinks(opts); err != nil {
		return err
	}
	gid := opts.takeText("task_id")
	if gid == "" {
		gid = p.app.rand.uuid()
	}
	chord := opts.take("chord")
	trail := string(opts.take("add_to_parent")) != "false"
	delete(opts, "group_index")
	tasks := flatten(s.tasks)
	if len(tasks) == 0 {
		return nil
	}
	first = s.given(first)
	opts.put("group_id", gid)
	opts["add_to_parent"] = json.RawMessage("false")
	if err := p.app.freezeAll(tasks, place{group: gid, chord: chord, root: opts.text("root_id")}); err != nil {
		return err
	}
	for _, t := range tasks {
		if err := p.apply(t, first, opts); err != nil {
			return err
		}
	}
	if trail && p.leavesTrail() {
		p.r.addGroup(gid, appendResults(nil, tasks))
	}
	return nil
}

// chord sends its header, whose members carry the body. The body takes the
// options that the chord was given: the rest of a chain, a chord around it.
func (p *application) chord(s *sig, first []json.RawMessage, over wireOptions) error {
	a := p.app
	s = s.clone()
	first = s.given(first)
	opts := s.options.merge(over)
	if err := s.takeLinks(opts); err != nil {
		return err
	}
	id := opts.takeText("task_id")
	interval, retries, countdown := opts.take("interval"), opts.take("max_retries"), opts.take("countdown")
	delete(opts, "add_to_parent")
	body := s.body
	body.options = body.options.merge(opts)
	tasks := flatten(s.tasks)
	gid := s.header.text("task_id")
	if len(tasks) > 0 && tasks[0].options.text("group_id") != "" {
		gid = tasks[0].options.text("group_id")
	}
	if gid == "" {
		gid = a.rand.uuid()
	}
	if err := a.freeze(body, place{id: id, group: gid, root: body.options.text("root_id")}); err != nil {
		return err
	}
	for _, k := range []string{"chain", "chord", "group_id", "group_index"} {
		delete(opts, k)
	}
	size := 0
	for _, t := range tasks {
		size += t.size()
	}
	if size == 0 { // nothing would ever count
		return p.apply(body, []json.RawMessage{json.RawMessage("[]")}, nil)
	}
	if err := a.noChords(); err != nil {
		return fmt.Errorf("a chord: %w", err)
	}
	b, err := a.Backend(p.ctx)
	if err != nil {
		return fmt.Errorf("a chord needs a result store: %w", err)
	}
	at := place{group: gid, chord: body.json(), root: opts.text("root_id")}
	if err := a.freezeAll(tasks, at); err != nil {
		return err
	}
	if _, ok := b.(backend.ChordCounter); !ok {
		if err := p.unlock(gid, tasks, body, interval, retries, countdown); err != nil {
			return err
		}
	} else {
		// Only here: a group that is the last of a chain in a header, or a body,
		// counts in the chord around it, which has its size.
		p.e.starts = append(p.e.starts, chordStart{group: gid, size: size, doc: headerResults(gid, tasks)})
	}
	opts.put("task_id", gid)
	opts["chord"] = at.chord
	return p.group(&sig{kind: kindGroup, task: "celery.group", args: json.RawMessage("[]"), tasks: tasks}, first, opts)
}

// headerResults is the document of a saved group, needed where a member's result
// is that of a group itself.
func headerResults(gid string, tasks []*sig) []byte {
	nested := false
	for _, t := range tasks {
		_, group := t.result(nil)
		nested = nested || group
	}
	if !nested {
		return nil
	}
	doc := append(appendTuple([]byte(`{"result": `), gid), ", "...)
	return append(appendResults(doc, tasks), "]}"...)
}

// unlock sends the task that polls the header where the store does not count.
func (p *application) unlock(gid string, tasks []*sig, body *sig, interval, retries, countdown json.RawMessage) error {
	kw := []byte(`{"interval": `)
	kw = append(appendOrNull(kw, interval), `, "max_retries": `...)
	kw = append(appendOrNull(kw, retries), `, "result": `...)
	kw = append(appendResults(kw, tasks), '}')
	args := append(strconv.AppendQuote([]byte{'['}, gid), ", "...)
	args = append(append(args, body.json()...), ']')
	if countdown == nil {
		countdown = json.RawMessage("1")
	}
	opts := wireOptions{"countdown": countdown, "add_to_parent": json.RawMessage("false")}
	opts = opts.merge(wireOptions{"queue": body.options["queue"], "priority": body.options["priority"]})
	if opts["queue"] == nil {
		var o options
		if err := p.app.router.route(&call{name: body.firstTask()}, &o); err != nil {
			return err
		}
		if o.queue != nil {
			opts.put("queue", *o.queue)
		}
	}
	return p.task(&sig{task: unlockTask, args: args, kwargs: kw, options: opts}, nil, nil)
}

func (s *sig) firstTask() string {
	if s.kind != "" && len(s.tasks) > 0 {
		return s.tasks[0].firstTask()
	}
	return s.task
}

func appendOrNull(b []byte, raw json.RawMessage) []byte {
	if raw == nil {
		return append(b, "null"...)
	}
	return append(b, raw...)
}

// supported refuses what could be half run only: workflows that are not what
// they should be, and chords where nothing counts their members.
func (a *App) supported(task string, e *protocol.Embed) error {
	if task == chordTask || task == unlockTask {
		return a.noChords()
	}
	if e.Chord != nil {
		if err := a.noChords(); err != nil {
			return fmt.Errorf("it is a member of a chord, and %w", err)
		}
		if _, err := openSig(e.Chord); err != nil {
			return fmt.Errorf("the body of its chord: %w", err)
		}
	}
	for _, list := range [][]protocol.Signature{e.Callbacks, e.Errbacks, e.Chain} {
		for i := range list {
			if list[i].SubtaskType == "" {
				continue
			}
			s, err := openSig(&list[i])
			if err != nil {
				return fmt.Errorf("a %s follows it: %w", list[i].SubtaskType, err)
			}
			if s.hasChord() {
				if err := a.noChords(); err != nil {
					return fmt.Errorf("a chord follows it, and %w", err)
				}
			}
		}
	}
	return nil
}

func (s *sig) hasChord() bool {
	if s.kind == kindChord {
		return true
	}
	for i, t := range s.tasks {
		if t.hasChord() || s.kind == kindChain && t.kind == kindGroup && i < len(s.tasks)-1 {
			return true
		}
	}
	return false
}
