package lovage

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

// chordPart is a member of a chord that has ended with a run: the task itself,
// or a step that will not run because of it.
type chordPart struct {
	backend.ChordPart
	body protocol.Signature
}

// chordEnd is the end of a chord with what the root does when it has happened.
type chordEnd struct {
	*broker.ChordEnd
	full     []*protocol.Message
	errbacks []errbackCall
}

// Counts reports whether the effects begin chords or count in some, so that
// CountChords has something to do.
func (e *Effects) Counts() bool { return len(e.starts)+len(e.parts) > 0 }

// Uncounted takes the run out of its chords, for a message that goes back to its
// queue: the next run counts.
func (e *Effects) Uncounted() { e.parts = nil }

// count notes how the run counts in its chord. Whatever ends a member for good
// counts, so that no chord waits for ever; a retry does not.
func (a *App) count(r *Request, out *Outcome, result json.RawMessage, e *Effects) {
	if r.embed.Chord == nil || r.Group == "" || r.IsEager {
		return
	}
	p := chordPart{body: *r.embed.Chord}
	p.Group, p.Index, p.TaskID, p.State, p.Result = r.Group, r.GroupIndex, r.ID, out.State, result
	p.Again, p.Keep = r.Delivery.Redelivered, a.resultExpires()
	info := out.Info
	switch out.State {
	case Success:
	case StateIgnored:
		info = &ErrorInfo{Type: "Ignore", Module: moduleCelery}
		p.State = Failure
	case Rejected:
		if out.Requeue {
			return
		}
		p.State = Failure
	case Failure, Revoked:
	default:
		return
	}
	if out.State != Success {
		form := info.Form()
		p.Result = form.AppendJSON(nil)
	}
	e.parts = append(e.parts, p)
}

// CountChords tells the result store of the chords that the effects begin, counts
// the run in its own, and prepares the ends of those that it completes, as
// e.Ends. It comes before the effects are kept: the message of the last member is
// acknowledged together with the end of its chord, so that a crash between the
// two repeats the member and loses nothing. It may be called again after an error.
func (a *App) CountChords(ctx context.Context, e *Effects) error {
	e.Ends, e.ends = nil, nil
	if !e.Counts() {
		return nil
	}
	b, err := a.Backend(ctx)
	if err != nil {
		return err
	}
	counter, ok := b.(backend.ChordCounter)
	if !ok {
		return nil // celery.chord_unlock looks at the results
	}
	ctx = context.WithValue(ctx, requestKey, e.Request)
	if err := a.startChords(ctx, b, counter, e.starts); err != nil {
		return err
	}
	for parts := e.parts; len(parts) > 0; parts = parts[1:] {
		part := &parts[0]
		n, err := counter.CountPart(ctx, &part.ChordPart)
		if err != nil {
			return err
		}
		if !n.Complete() {
			continue
		}
		raw, err := counter.ChordParts(ctx, part.Group)
		if err != nil {
			return err
		}
		members, err := distinct(raw)
		if err == nil && len(members) < n.Size {
			continue // some were counted twice, or another worker has ended it
		}
		then := &Effects{Request: e.Request}
		p := &application{app: a, ctx: ctx, r: e.Request, e: then}
		if err == nil {
			err = p.endChord(part, members, b)
		} else {
			err = p.failBody(&part.body, part.Group, "Join error: "+newErrorInfo(err, "").Repr())
		}
		if err != nil {
			return err
		}
		if err := a.startChords(ctx, b, counter, then.starts); err != nil {
			return err
		}
		for _, m := range then.Publish {
			m.Once = true
		}
		end := &broker.ChordEnd{Group: part.Group, Keep: part.Keep, Publish: then.Publish, Store: then.Store}
		e.Ends = append(e.Ends, end)
		e.ends = append(e.ends, chordEnd{ChordEnd: end, full: then.full, errbacks: then.errbacks})
		parts = append(parts[:len(parts):len(parts)], then.parts...)
	}
	return nil
}

func (a *App) startChords(ctx context.Context, b backend.Backend, counter backend.ChordCounter, starts []chordStart) error {
	for _, s := range starts {
		if s.doc != nil {
			groups, ok := b.(backend.GroupStore)
			if !ok {
				return fmt.Errorf("save group %s: %w", s.group, backend.ErrUnsupported)
			}
			if err := groups.SaveGroup(ctx, s.group, s.doc, a.resultExpires()); err != nil {
				return err
			}
		}
		if err := counter.StartChord(ctx, s.group, s.size, a.resultExpires()); err != nil {
			return err
		}
	}
	return nil
}

// distinct reads parts, one for each task: a Python worker may have counted a
// member twice.
func distinct(raw [][]byte) ([]protocol.ChordPart, error) {
	at := make(map[string]int, len(raw))
	out := make([]protocol.ChordPart, 0, len(raw))
	for _, text := range raw {
		p, err := protocol.ParseChordPart(text)
		if err != nil {
			return nil, err
		}
		if i, ok := at[p.TaskID]; ok {
			out[i] = p
			continue
		}
		at[p.TaskID] = len(out)
		out = append(out, p)
	}
	return out, nil
}

// endChord makes what follows a complete header: the body with the results in
// order, or its failure by the first member that failed.
func (p *application) endChord(part *chordPart, members []protocol.ChordPart, b backend.Backend) error {
	for i := range members {
		if m := &members[i]; m.State.Propagate() {
			return p.failBody(&part.body, part.Group, dependency(m))
		}
	}
	var results json.RawMessage
	if groups, ok := b.(backend.GroupStore); ok {
		doc, err := groups.RestoreGroup(p.ctx, part.Group)
		if err != nil {
			return err
		}
		if doc != nil { // some members are groups: their results are lists
			if results, err = nest(member(doc, "result"), members); err != nil {
				return p.failBody(&part.body, part.Group, "Join error: "+newErrorInfo(err, "").Repr())
			}
		}
	}
	if results == nil {
		results = listOf(members)
	}
	return p.applyBody(&part.body, part.Group, results)
}

// applyBody sends a chord's body. What cannot be sent is the body's failure.
func (p *application) applyBody(body *protocol.Signature, group string, results json.RawMessage) error {
	s, err := openSig(body)
	if err == nil {
		if err = p.apply(s, []json.RawMessage{results}, nil); err == nil {
			for _, m := range p.e.Publish {
				m.Once = true
			}
			return nil
		}
	}
	*p.e = Effects{Request: p.r}
	return p.failBody(body, group, "Callback error: "+newErrorInfo(err, "").Repr())
}

// dependency is Celery's text for the member that fails a chord.
func dependency(m *protocol.ChordPart) string {
	meta := Meta{Status: m.State, Result: m.Result}
	info := newErrorInfo(taskError(&meta), "")
	args := make([]string, len(info.Args))
	for i, v := range info.Args {
		args[i] = pyRepr(v)
		// Celery's short forms keep one quote; Python, which made this text there,
		// takes the one that needs no escape.
		if s, ok := v.(string); ok && strings.Contains(s, "'") && !strings.Contains(s, `"`) {
			args[i] = `"` + strings.ReplaceAll(args[i][1:len(args[i])-1], `\'`, `'`) + `"`
		}
	}
	return "Dependency " + m.TaskID + " raised " + info.Type + "(" + strings.Join(args, ", ") + ")"
}

func listOf(members []protocol.ChordPart) json.RawMessage {
	b := []byte{'['}
	for i := range members {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(b, members[i].Result...)
	}
	return append(b, ']')
}

// nest gives results the form of a saved group, [[id, parent], [results]].
func nest(tuple json.RawMessage, members []protocol.ChordPart) (json.RawMessage, error) {
	byID := make(map[string]json.RawMessage, len(members))
	for i := range members {
		byID[members[i].TaskID] = members[i].Result
	}
	return nestTuple(nil, tuple, byID)
}

func nestTuple(b []byte, tuple json.RawMessage, byID map[string]json.RawMessage) ([]byte, error) {
	id, members, err := openTuple(tuple)
	if err != nil {
		return nil, err
	}
	if none(members) {
		v, ok := byID[id]
		if !ok {
			return nil, fmt.Errorf("the result of %s is not among the parts of the chord", id)
		}
		return append(b, v...), nil
	}
	b = append(b, '[')
	err = eachElement(members, func(i int, raw []byte) (err error) {
		if i > 0 {
			b = append(b, ", "...)
		}
		b, err = nestTuple(b, raw, byID)
		return err
	})
	return append(b, ']'), err
}

// openTuple reads [[id, parent], members] or a bare id.
func openTuple(tuple json.RawMessage) (id string, members json.RawMessage, err error) {
	if kind(tuple) == '"' {
		return id, nil, json.Unmarshal(tuple, &id)
	}
	err = eachElement(tuple, func(i int, raw []byte) error {
		switch i {
		case 0:
			if kind(raw) == '"' {
				return json.Unmarshal(raw, &id)
			}
			return eachElement(raw, func(i int, raw []byte) error {
				if i == 0 {
					return json.Unmarshal(raw, &id)
				}
				return nil
			})
		case 1:
			members = bytes.Clone(raw)
		}
		return nil
	})
	if err == nil && id == "" {
		err = fmt.Errorf("%.60s is no result tuple", tuple)
	}
	return id, members, err
}

// tupleIDs appends the ids of the tasks in a list of result tuples.
func tupleIDs(ids []string, list json.RawMessage) ([]string, error) {
	err := eachElement(list, func(_ int, raw []byte) error {
		id, members, err := openTuple(raw)
		switch {
		case err != nil:
			return err
		case none(members):
			ids = append(ids, id)
			return nil
		}
		ids, err = tupleIDs(ids, members)
		return err
	})
	return ids, err
}

// failBody stores the failure of a chord's body, wherever its tasks are, counts
// it in the chord around it, and calls its errbacks, each once.
func (p *application) failBody(body *protocol.Signature, group, why string) error {
	info := &ErrorInfo{Err: fmt.Errorf("%w: %s", ErrChord, why), Type: "ChordError", Module: moduleCelery, Args: []any{why}}
	info.Traceback = traceback(info.Err, info, "chord "+group)
	p.app.log.Error("Chord "+group+" failed: "+why, "group", group, "task", body.Task)
	s, err := openSig(body)
	if err != nil { // nothing in it has an id that could be told
		p.app.internalError(p.ctx, p.r, "chord", err)
		return nil
	}
	if err := p.fail(s, Failure, info, true); err != nil {
		return err
	}
	p.failed(s, group, info)
	return nil
}

// fail stores the failure of every task in a signature that will now never run.
// What counts in a chord counts as failed.
func (p *application) fail(s *sig, state State, info *ErrorInfo, counts bool) error {
	switch s.kind {
	case kindChord:
		// Its header counts in nothing any more: the body fails here.
		for _, t := range s.tasks {
			if err := p.fail(t, state, info, false); err != nil {
				return err
			}
		}
		return p.fail(s.body, state, info, counts)
	case kindChain, kindGroup:
		for _, t := range s.tasks {
			if err := p.fail(t, state, info, counts); err != nil {
				return err
			}
		}
	}
	o := s.options
	if id := o.text("task_id"); id != "" && s.kind == "" {
		form := info.Form()
		text := form.AppendJSON(nil)
		step := &Request{ID: id, Task: s.task, ParentID: p.r.ID, RootID: p.r.RootID, Group: o.text("group_id"), app: p.app,
			Args: RawArgs(s.args), Kwargs: RawKwargs(s.kwargs), Hostname: p.r.Hostname, Delivery: p.r.Delivery,
			ReplyTo: cmp.Or(o.text("reply_to"), p.r.ReplyTo), CorrelationID: id}
		rec, err := p.app.encodeRecord(step, state, text, info.Traceback)
		if err != nil {
			return err
		}
		p.e.Store = append(p.e.Store, rec)
		if chord := o["chord"]; counts && !none(chord) && step.Group != "" {
			body, err := protocol.ParseSignature(chord)
			if err != nil {
				return fmt.Errorf("option chord: %w", err)
			}
			part := chordPart{body: body}
			part.Group, part.TaskID, part.State, part.Result, part.Keep = step.Group, id, state, text, p.app.resultExpires()
			if raw := o["group_index"]; !none(raw) {
				if err := json.Unmarshal(raw, &part.Index); err != nil {
					return fmt.Errorf("option group_index: %w", err)
				}
			}
			part.Again = true
			p.e.parts = append(p.e.parts, part)
		}
	}
	after, err := o.sigs("chain")
	if err != nil {
		return err
	}
	for _, t := range after {
		if err := p.fail(t, state, info, counts); err != nil {
			return err
		}
	}
	return nil
}
