package lovage

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/lovage-go/lovage/internal/pyjson"
	"github.com/lovage-go/lovage/protocol"
)

// The types of signatures that are made of others.
const (
	kindChain = "chain"
	kindGroup = "group"
	kindChord = "chord"
)

// sig is a signature as data with its parts opened: a task, or a chain, a group
// or a chord of signatures.
type sig struct {
	kind      string // "" for a task
	task      string
	args      json.RawMessage
	kwargs    json.RawMessage // of a task; others have their parts
	options   wireOptions
	immutable bool
	subtype   string // of a task that Celery has a class for: xmap ...

	tasks  []*sig      // of a chain or group; the header of a chord
	header wireOptions // of the group that is a chord's header
	body   *sig        // of a chord
}

// wireOptions are options under Celery's names. Null is none.
type wireOptions map[string]json.RawMessage

// openSig opens a signature; what cannot be applied is an error.
func openSig(s *protocol.Signature) (*sig, error) {
	out := &sig{task: s.Task, args: s.Args, kwargs: s.Kwargs, options: wireOptions(s.Options).clone(), immutable: s.Immutable}
	if len(out.args) == 0 {
		out.args = json.RawMessage("[]")
	}
	var err error
	switch s.SubtaskType {
	case kindChain, kindGroup:
		out.kind = s.SubtaskType
		out.tasks, err = openSigs(member(s.Kwargs, "tasks"))
	case kindChord:
		out.kind = kindChord
		err = out.openChord(s.Kwargs)
	case "", "xmap", "xstarmap", "chunks":
		out.subtype = s.SubtaskType
	default:
		err = fmt.Errorf("its type %q is unknown here", s.SubtaskType)
	}
	if err != nil {
		return nil, fmt.Errorf("signature of %s: %w", s.Task, err)
	}
	return out, nil
}

func (s *sig) openChord(kwargs json.RawMessage) error {
	header, body := member(kwargs, "header"), member(kwargs, "body")
	if none(body) {
		return fmt.Errorf("it is a chord without a body")
	}
	b, err := protocol.ParseSignature(body)
	if err == nil {
		s.body, err = openSig(&b)
	}
	if err != nil {
		return fmt.Errorf("body: %w", err)
	}
	if kind(header) == '{' {
		h, err := protocol.ParseSignature(header)
		if err != nil {
			return fmt.Errorf("header: %w", err)
		}
		g, err := openSig(&h)
		if err != nil {
			return fmt.Errorf("header: %w", err)
		}
		if s.header = g.options; g.kind == kindGroup {
			s.tasks = g.tasks
		} else {
			s.header, s.tasks = nil, []*sig{g}
		}
		return nil
	}
	if s.tasks, err = openSigs(header); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	return nil
}

func openSigs(raw json.RawMessage) ([]*sig, error) {
	if none(raw) {
		return nil, nil
	}
	var list []protocol.Signature
	if err := wireSignatures(raw, &list); err != nil {
		return nil, err
	}
	out := make([]*sig, len(list))
	for i := range list {
		var err error
		if out[i], err = openSig(&list[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// closed is the signature as it is sent.
func (s *sig) closed() protocol.Signature {
	out := protocol.Signature{Task: s.task, Args: s.args, Kwargs: s.kwargs, Options: s.options, SubtaskType: s.subtype, Immutable: s.immutable}
	if s.kind == "" {
		return out
	}
	out.SubtaskType = s.kind
	tasks := append(closeSigs([]byte(`{"tasks": `), s.tasks), '}')
	if out.Kwargs = tasks; s.kind == kindChord {
		header := protocol.Signature{Task: "celery.group", Kwargs: tasks, Options: s.header, SubtaskType: kindGroup}
		kw := header.AppendJSON([]byte(`{"kwargs": {}, "header": `))
		body := s.body.closed()
		out.Kwargs = append(body.AppendJSON(append(kw, `, "body": `...)), '}')
	}
	return out
}

func (s *sig) json() json.RawMessage {
	c := s.closed()
	return c.AppendJSON(nil)
}

func closeSigs(b []byte, list []*sig) []byte {
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ", "...)
		}
		c := s.closed()
		b = c.AppendJSON(b)
	}
	return append(b, ']')
}

// clone is a copy whose options and parts can be changed.
func (s *sig) clone() *sig {
	if s == nil {
		return nil
	}
	c := *s
	c.options, c.header, c.body = s.options.clone(), s.header.clone(), s.body.clone()
	c.tasks = make([]*sig, len(s.tasks))
	for i, t := range s.tasks {
		c.tasks[i] = t.clone()
	}
	return &c
}

// prepend puts values before the arguments, unless the signature is immutable.
func (s *sig) prepend(first []json.RawMessage) json.RawMessage {
	args := s.args
	if s.immutable {
		return args
	}
	for i := len(first) - 1; i >= 0; i-- {
		args = prepend(first[i], args)
	}
	return args
}

// given are the values that a group or chord gives to each of its tasks: those
// of the call, then its own.
func (s *sig) given(first []json.RawMessage) []json.RawMessage {
	if s.immutable {
		return first
	}
	out := first[:len(first):len(first)]
	_ = eachElement(s.args, func(_ int, raw []byte) error { out = append(out, raw); return nil })
	return out
}

// size is for how many a signature counts in a chord.
func (s *sig) size() (n int) {
	switch s.kind {
	case kindGroup:
		for _, t := range s.tasks {
			n += t.size()
		}
	case kindChain: // its last task that counts at all
		for i := len(s.tasks) - 1; i >= 0 && n == 0; i-- {
			n = s.tasks[i].size()
		}
	case kindChord:
		n = s.body.size()
	default:
		n = 1
	}
	return n
}

// result is where the result of a frozen signature will be, as Celery's nested
// tuples. It reports whether that is a group.
func (s *sig) result(b []byte) (_ []byte, group bool) {
	switch s.kind {
	case kindGroup:
		b = appendTuple(b, s.options.text("task_id"))
		b = append(b, ", "...)
		return append(appendResults(b, s.tasks), ']'), true
	case kindChain:
		if n := len(s.tasks); n > 0 {
			return s.tasks[n-1].result(b)
		}
	case kindChord:
		return s.body.result(b)
	}
	return append(appendTuple(b, s.options.text("task_id")), ", null]"...), false
}

func appendTuple(b []byte, id string) []byte {
	return append(pyjson.AppendString(append(b, "[["...), id), ", null]"...)
}

func appendResults(b []byte, list []*sig) []byte {
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ", "...)
		}
		b, _ = s.result(b)
	}
	return append(b, ']')
}

// link adds what follows success, where Celery adds it: to the last task of a
// chain, the body of a chord, the first task of a group, there immutable.
func (s *sig) link(next *sig) {
	switch {
	case s.kind == kindChord:
		s.body.link(next)
	case s.kind == kindChain && len(s.tasks) > 0:
		s.tasks[len(s.tasks)-1].link(next)
	case s.kind == kindGroup && len(s.tasks) > 0:
		next = next.clone()
		next.immutable = true
		s.tasks[0].link(next)
	default:
		s.options.add("link", next)
	}
}

// linkError adds what follows failure: to the body of a chord, to every task of
// a group or chain.
func (s *sig) linkError(next *sig) {
	switch s.kind {
	case kindChord:
		s.body.linkError(next)
	case kindGroup, kindChain:
		for _, t := range s.tasks {
			t.linkError(next)
		}
	default:
		s.options.add("link_error", next)
	}
}

// takeLinks moves the links among options to where they belong.
func (s *sig) takeLinks(opts wireOptions) error {
	links, err := opts.sigs("link")
	if err != nil {
		return err
	}
	errbacks, err := opts.sigs("link_error")
	if err != nil {
		return err
	}
	for _, l := range links {
		s.link(l)
	}
	for _, l := range errbacks {
		s.linkError(l)
	}
	delete(opts, "link")
	delete(opts, "link_error")
	return nil
}

func (o wireOptions) clone() wireOptions {
	if o == nil {
		return wireOptions{}
	}
	return maps.Clone(o)
}

// merge lays options over o. The group that a task was frozen into stays: it is
// counted there.
func (o wireOptions) merge(over wireOptions) wireOptions {
	out := o.clone()
	for k, v := range over {
		if none(v) || k == "group_id" && !none(o[k]) {
			continue
		}
		out[k] = v
	}
	return out
}

func (o wireOptions) text(key string) (v string) {
	if !none(o[key]) {
		_ = json.Unmarshal(o[key], &v)
	}
	return v
}

func (o wireOptions) put(key, v string) { o[key] = pyjson.AppendString(nil, v) }

// take removes an option and returns it, nil for none.
func (o wireOptions) take(key string) json.RawMessage {
	v := o[key]
	delete(o, key)
	if none(v) {
		return nil
	}
	return v
}

func (o wireOptions) takeText(key string) string {
	v := o.text(key)
	delete(o, key)
	return v
}

// sigs reads the signatures that an option holds.
func (o wireOptions) sigs(key string) ([]*sig, error) {
	list, err := openSigs(o[key])
	if err != nil {
		return nil, fmt.Errorf("option %s: %w", key, err)
	}
	return list, nil
}

// add appends a signature to an option, unless it is there already.
func (o wireOptions) add(key string, s *sig) {
	var list []json.RawMessage
	if have := o[key]; kind(have) == '{' {
		list = append(list, have)
	} else if !none(have) {
		_ = eachElement(have, func(_ int, raw []byte) error { list = append(list, raw); return nil })
	}
	text := s.json()
	b := []byte{'['}
	for _, have := range list {
		if string(have) == string(text) {
			return
		}
		b = append(append(b, have...), ", "...)
	}
	o[key] = append(append(b, text...), ']')
}

// none reports whether a value is missing or null.
func none(raw json.RawMessage) bool { k := kind(raw); return k == 0 || k == 'n' }

// kind is the first character of a JSON value, 0 of none.
func kind(raw json.RawMessage) byte {
	for _, c := range raw {
		if !isSpace(c) {
			return c
		}
	}
	return 0
}

// member is a member of a JSON object.
func member(raw json.RawMessage, key string) (v json.RawMessage) {
	_ = eachMember(raw, func(k string, elem []byte) error {
		if k == key {
			v = elem
		}
		return nil
	})
	return v
}
