package lovage

import (
	"encoding/json"
	"strconv"
)

// place is what a signature is frozen into: the ids that it will have, and the
// chord that it counts in.
type place struct {
	id    string // of its last task, or of the group
	group string
	chord json.RawMessage // the body
	index *int
	root  string
}

// freeze gives ids to all that has none, as Celery does before it sends: a chain
// stands in its group and chord by its last task, a chord by its body, a group
// by each of its tasks.
func (a *App) freeze(s *sig, p place) error {
	o := s.options
	switch s.kind {
	case kindChain:
		steps, err := a.steps(s.tasks, nil, p)
		if err != nil {
			return err
		}
		s.tasks = reversed(steps)
		return nil
	case kindChord:
		if err := a.freeze(s.body, p); err != nil {
			return err
		}
		if s.header == nil {
			s.header = wireOptions{}
		}
		if s.header.text("task_id") == "" {
			s.header.put("task_id", a.rand.uuid())
		}
		s.tasks = flatten(s.tasks)
		return a.freezeAll(s.tasks, place{chord: s.body.json(), root: p.root})
	case kindGroup:
		if o.text("task_id") == "" {
			id := p.id
			if id == "" {
				id = a.rand.uuid()
			}
			o.put("task_id", id)
		}
		p.settle(o)
		s.tasks = flatten(s.tasks)
		return a.freezeAll(s.tasks, place{group: p.group, chord: p.chord, root: p.root})
	}
	if o.text("task_id") == "" {
		id := p.id
		if id == "" {
			id = a.rand.uuid()
		}
		o.put("task_id", id)
	}
	p.settle(o)
	return nil
}

// settle writes the place into options.
func (p *place) settle(o wireOptions) {
	if p.root != "" {
		o.put("root_id", p.root)
	}
	if p.group != "" && o.text("group_id") == "" {
		o.put("group_id", p.group)
	}
	if p.chord != nil {
		o["chord"] = p.chord
	}
	if p.index != nil && none(o["group_index"]) {
		o["group_index"] = strconv.AppendInt(nil, int64(*p.index), 10)
	}
}

// freezeAll freezes the members of a group, by their index.
func (a *App) freezeAll(list []*sig, p place) error {
	for i, t := range list {
		p.index = &i
		if err := a.freeze(t, p); err != nil {
			return err
		}
	}
	return nil
}

// flatten opens groups within a group: all their tasks run side by side.
func flatten(list []*sig) (out []*sig) {
	for _, t := range list {
		if t.kind == kindGroup {
			out = append(out, flatten(t.tasks)...)
		} else {
			out = append(out, t)
		}
	}
	return out
}

func reversed(list []*sig) []*sig {
	out := make([]*sig, len(list))
	for i, s := range list {
		out[len(list)-1-i] = s
	}
	return out
}

// steps freezes the tasks of a chain and returns them last one first, as they
// travel. Chains within are opened, groups of one are their task, and a group
// that something follows becomes a chord. first goes to the first task.
func (a *App) steps(tasks []*sig, first []json.RawMessage, p place) (out []*sig, err error) {
	rest := make([]*sig, len(tasks))
	for i, t := range tasks {
		rest[i] = t.clone()
	}
	frozen := 0
	for len(rest) > 0 {
		t := rest[len(rest)-1]
		rest = rest[:len(rest)-1]
		if t.kind == kindGroup {
			if t.tasks = flatten(t.tasks); len(t.tasks) == 1 {
				t = t.tasks[0]
			}
		}
		switch {
		case t.kind == kindChain:
			inner, err := t.opened()
			if err != nil {
				return nil, err
			}
			rest = append(rest, inner...)
			continue
		case t.kind == kindGroup && len(t.tasks) == 0:
			continue
		}
		if len(rest) == 0 {
			t.args = t.prepend(first)
		}
		if n := len(out); t.kind == kindGroup && n > 0 {
			t = &sig{kind: kindChord, task: chordTask, args: t.args, options: wireOptions{}, tasks: t.tasks, header: t.options, body: out[n-1]}
			out = out[:n-1]
		}
		at := place{root: p.root}
		if frozen == 0 {
			at = p
		}
		if err := a.freeze(t, at); err != nil {
			return nil, err
		}
		frozen++
		out = append(out, t)
	}
	return out, nil
}

// opened are the tasks of a chain with what the chain gives to each: its own
// arguments to the first, its errbacks to all.
func (s *sig) opened() ([]*sig, error) {
	errbacks, err := s.options.sigs("link_error")
	if err != nil {
		return nil, err
	}
	for i, t := range s.tasks {
		if i == 0 {
			t.args = t.prepend(s.given(nil))
		}
		for _, e := range errbacks {
			t.linkError(e)
		}
	}
	return s.tasks, nil
}
