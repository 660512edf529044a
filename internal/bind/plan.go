package bind

import (
	"encoding/json"
	"fmt"
	"reflect"
	"sync"

	"github.com/lovage-go/lovage/internal/jsontext"
	"github.com/lovage-go/lovage/serializer"
)

// Kind says how a parameter takes its value.
type Kind int

// The kinds of parameters, in the order of a Python signature.
const (
	Positional  Kind = iota // by position or by keyword
	Rest                    // *args
	KeywordOnly             // by keyword
	Extra                   // **kwargs
)

// String is the option word of the kind.
func (k Kind) String() string {
	return [...]string{"positional", "rest", "kwonly", "extra"}[k]
}

// Param describes one parameter.
type Param struct {
	Name     string
	Kind     Kind
	Required bool
	Default  string // JSON text of the declared default; empty if there is none
}

// Codec writes and reads the JSON of values that are not plain scalars.
type Codec interface {
	Marshal(v any) ([]byte, error)
	Unmarshal(data []byte, v any) error
}

// RawBinder is the half of a raw argument type that receives: its pointer takes args
// and kwargs, a checked array and a checked object, as the message carries them. They
// are not copied.
type RawBinder interface {
	BindRaw(args, kwargs json.RawMessage) error
}

// RawArgs is the half of a raw argument type that sends. Empty texts stand for no
// arguments.
type RawArgs interface {
	RawArgs() (args, kwargs json.RawMessage, err error)
}

// Plan maps values of one type to calls and back.
type Plan struct {
	typ    reflect.Type // the struct or single value, without the pointer
	ptr    bool         // the argument type is *typ
	raw    bool
	npos   int     // fields[:npos] are positional, the others keyword-only
	nreq   int     // fields[:nreq] are positional and required
	fields []field // in the order of a Python signature
	rest   *field
	extra  *field
	slots  map[string]int // name to index in fields
}

// field is a parameter and where its value lives.
type field struct {
	Param
	index   []int // nil: the argument value itself
	val     value
	def     reflect.Value // the decoded default
	defText []byte
	isZero  bool // has a method IsZero() bool
}

// plans holds the plan of each argument type that For saw: as many as the program has
// such types, each written once.
var plans sync.Map // reflect.Type -> *Plan

// For is [ForCodec] with the project's JSON. Plans are kept, one for each type.
func For(t reflect.Type) (*Plan, error) {
	if p, ok := plans.Load(t); ok {
		return p.(*Plan), nil
	}
	p, err := ForCodec(t, serializer.JSON)
	if err != nil {
		return nil, err
	}
	kept, _ := plans.LoadOrStore(t, p)
	return kept.(*Plan), nil
}

// ForCodec builds the plan of argument type t. What t cannot express is a *[TypeError].
func ForCodec(t reflect.Type, c Codec) (*Plan, error) {
	if t == nil {
		return nil, &TypeError{Type: "nil", Reason: "no argument type"}
	}
	if isRaw(t) {
		return &Plan{typ: t, raw: true}, nil
	}
	p := &Plan{typ: t}
	if t.Kind() == reflect.Pointer && isStruct(t.Elem()) && !isRaw(t.Elem()) {
		p.typ, p.ptr = t.Elem(), true
	}
	var err error
	if isStruct(p.typ) {
		err = p.addStruct(c)
	} else {
		err = p.addSingle(c)
	}
	if err != nil {
		return nil, err
	}
	p.slots = make(map[string]int, len(p.fields))
	for i := range p.fields {
		p.slots[p.fields[i].Name] = i
	}
	return p, nil
}

// Params lists the parameters in the order of a Python signature. A raw plan has rest
// and extra.
func (p *Plan) Params() []Param {
	if p.raw {
		return []Param{{Name: "args", Kind: Rest}, {Name: "kwargs", Kind: Extra}}
	}
	var out []Param
	for i := range p.fields {
		if i == p.npos && p.rest != nil {
			out = append(out, p.rest.Param)
		}
		out = append(out, p.fields[i].Param)
	}
	if p.rest != nil && len(p.fields) == p.npos {
		out = append(out, p.rest.Param)
	}
	if p.extra != nil {
		out = append(out, p.extra.Param)
	}
	return out
}

// TakesPositional reports whether a call may have a positional argument at all, so
// that the result of a previous task can be put before the others.
func (p *Plan) TakesPositional() bool { return p.raw || p.npos > 0 || p.rest != nil }

// isRaw reports whether t takes and gives calls as they are.
func isRaw(t reflect.Type) bool {
	pt := reflect.PointerTo(t)
	return pt.Implements(reflect.TypeFor[RawBinder]()) && pt.Implements(reflect.TypeFor[RawArgs]())
}

// isStruct reports whether the fields of t are parameters.
func isStruct(t reflect.Type) bool { return t.Kind() == reflect.Struct && !marshalsItself(t) }

// orEmpty is text, or none if it is absent or null, which Celery reads alike.
func orEmpty(text json.RawMessage, none string) json.RawMessage {
	if len(text) == 0 || string(text) == "null" {
		return json.RawMessage(none)
	}
	return text
}

// checkRaw checks args and kwargs as texts only.
func checkRaw(task string, args, kwargs json.RawMessage) error {
	if err := jsontext.ScanArray(args, func(int, []byte) error { return nil }); err != nil {
		return &ArgumentError{Task: task, Part: "args", Err: err}
	}
	if err := jsontext.ScanObject(kwargs, func(_, _ []byte) error { return nil }); err != nil {
		return &ArgumentError{Task: task, Part: "kwargs", Err: err}
	}
	return nil
}

// typeName is how error texts call a type.
func typeName(t reflect.Type) string { return fmt.Sprint(t) }
