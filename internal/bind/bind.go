package bind

import (
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/lovage-go/lovage/internal/jsontext"
)

// call is a call with its texts sorted to the parameters.
type call struct {
	slots [][]byte // one for each field; nil: not given
	rest  [][]byte
	extra []member
}

type member struct {
	key   string
	value []byte
}

// Bind fills into, a pointer to a value of the plan's type, from the texts of a call,
// as Python binds a call to a function. Empty and null texts stand for no arguments.
// Parameters that the call does not give get their default or zero. The error is an
// *[Error] if the call does not fit the parameters and an *[ArgumentError] if a value
// does not fit its field; then into may be filled in part.
func (p *Plan) Bind(task string, args, kwargs json.RawMessage, into any) error {
	args, kwargs = orEmpty(args, "[]"), orEmpty(kwargs, "{}")
	if p.raw {
		if err := checkRaw(task, args, kwargs); err != nil {
			return err
		}
		if raw, ok := into.(RawBinder); ok {
			return raw.BindRaw(args, kwargs)
		}
		return fmt.Errorf("%s: cannot bind arguments to %T, want *%s", task, into, p.typ)
	}
	v, err := p.target(task, into)
	if err != nil {
		return err
	}
	var buf [8][]byte
	var c call
	if c.slots = buf[:]; len(p.fields) > len(buf) {
		c.slots = make([][]byte, len(p.fields))
	}
	if err := p.assign(&c, task, args, kwargs); err != nil {
		return err
	}
	for i := range p.fields {
		if err := p.fields[i].set(v, c.slots[i]); err != nil {
			return &ArgumentError{Task: task, Param: p.fields[i].Name, Err: err}
		}
	}
	if p.rest != nil {
		if err := p.setRest(task, v, c.rest); err != nil {
			return err
		}
	}
	if p.extra != nil {
		return p.setExtra(task, v, c.extra)
	}
	return nil
}

// Check verifies that a call fits the parameters, without reading the values: an
// *[Error] in Python's words, or an *[ArgumentError] if the texts are not an array and
// an object.
func (p *Plan) Check(task string, args, kwargs json.RawMessage) error {
	args, kwargs = orEmpty(args, "[]"), orEmpty(kwargs, "{}")
	if p.raw {
		return checkRaw(task, args, kwargs)
	}
	return p.assign(&call{slots: make([][]byte, len(p.fields))}, task, args, kwargs)
}

// target is the value that into points to.
func (p *Plan) target(task string, into any) (reflect.Value, error) {
	v := reflect.ValueOf(into)
	if v.Kind() == reflect.Pointer && !v.IsNil() {
		e := v.Elem()
		if e.Type() == p.typ {
			return e, nil
		}
		if p.ptr && e.Type() == reflect.PointerTo(p.typ) {
			e.Set(reflect.New(p.typ))
			return e.Elem(), nil
		}
	}
	return v, fmt.Errorf("%s: cannot bind arguments to %T, want a pointer to %s", task, into, p.typ)
}

// assign sorts the texts of a call to the parameters, in the order and with the
// refusals of CPython's initialize_locals.
func (p *Plan) assign(c *call, task string, args, kwargs json.RawMessage) error {
	given := 0
	list := jsontext.Array(args)
	for list.Next() {
		if given < p.npos {
			c.slots[given] = list.Value()
		} else if p.rest != nil {
			c.rest = append(c.rest, list.Value())
		}
		given++
	}
	if err := list.Err(); err != nil {
		return &ArgumentError{Task: task, Part: "args", Err: err}
	}
	dict := jsontext.Object(kwargs)
	for dict.Next() {
		i, ok := p.slots[string(dict.Key())]
		switch {
		case ok && i < min(given, p.npos):
			return multiple(task, p.fields[i].Name)
		case ok:
			c.slots[i] = dict.Value()
		case p.extra == nil:
			return unexpected(task, string(dict.Key()))
		default:
			c.extra = append(c.extra, member{string(dict.Key()), dict.Value()})
		}
	}
	if err := dict.Err(); err != nil {
		return &ArgumentError{Task: task, Part: "kwargs", Err: err}
	}
	if given > p.npos && p.rest == nil {
		kw := 0
		for _, text := range c.slots[p.npos:len(p.fields)] {
			if text != nil {
				kw++
			}
		}
		return tooMany(task, p.nreq, p.npos, given, kw)
	}
	if err := p.absent(c, task, "positional", 0, p.nreq); err != nil {
		return err
	}
	return p.absent(c, task, "keyword-only", p.npos, len(p.fields))
}

// absent refuses required parameters among fields[from:to] that got no value.
func (p *Plan) absent(c *call, task, kind string, from, to int) error {
	var names []string
	for i := from; i < to; i++ {
		if c.slots[i] == nil && p.fields[i].Required {
			names = append(names, p.fields[i].Name)
		}
	}
	if names == nil {
		return nil
	}
	return missing(task, kind, names)
}

// set gives the field in v its value: text, or what an absent one stands for.
func (f *field) set(v reflect.Value, text []byte) error {
	dst := f.in(v)
	switch {
	case text != nil:
		return f.val.decode(dst, text)
	case !f.def.IsValid():
		dst.SetZero()
		return nil
	case f.val.plain:
		dst.Set(f.def)
		return nil
	}
	dst.SetZero()
	return f.val.decode(dst, f.defText) // anew: what it refers to belongs to this call
}

func (p *Plan) setRest(task string, v reflect.Value, texts [][]byte) error {
	dst := v.FieldByIndex(p.rest.index)
	if len(texts) == 0 {
		dst.SetZero()
		return nil
	}
	s := reflect.MakeSlice(dst.Type(), len(texts), len(texts))
	for i, text := range texts {
		if err := p.rest.val.decode(s.Index(i), text); err != nil {
			return &ArgumentError{Task: task, Param: fmt.Sprintf("*%s[%d]", p.rest.Name, i), Err: err}
		}
	}
	dst.Set(s)
	return nil
}

func (p *Plan) setExtra(task string, v reflect.Value, members []member) error {
	dst := v.FieldByIndex(p.extra.index)
	if len(members) == 0 {
		dst.SetZero()
		return nil
	}
	m := reflect.MakeMapWithSize(dst.Type(), len(members))
	for _, e := range members {
		elem := reflect.New(dst.Type().Elem()).Elem()
		if err := p.extra.val.decode(elem, e.value); err != nil {
			return &ArgumentError{Task: task, Param: e.key, Err: err}
		}
		m.SetMapIndex(reflect.ValueOf(e.key).Convert(dst.Type().Key()), elem)
	}
	dst.Set(m)
	return nil
}
