package bind

import (
	"fmt"
	"strings"
)

// Error is a call that does not fit the parameters, told as CPython 3.11 tells it in
// a TypeError.
type Error struct {
	Task string // the task's full name
	Msg  string // what follows the parentheses: missing 1 required positional argument: 'y'
}

// Error puts the function's name first, which is the last part of the task's name.
func (e *Error) Error() string {
	return e.Task[strings.LastIndexByte(e.Task, '.')+1:] + "() " + e.Msg
}

// ArgumentError is an argument whose value does not fit, or arguments that cannot be
// read at all.
type ArgumentError struct {
	Task  string // empty where no task is known: Encode
	Param string // the parameter, or empty
	Part  string // "args" or "kwargs" if the call as a whole cannot be read
	Err   error  // got and want
}

func (e *ArgumentError) Error() string {
	var b strings.Builder
	if e.Task != "" {
		b.WriteString(e.Task + ": ")
	}
	if e.Part != "" {
		b.WriteString(e.Part + ": ")
	}
	if e.Param != "" {
		fmt.Fprintf(&b, "argument %q: ", e.Param)
	}
	return b.String() + e.Err.Error()
}

func (e *ArgumentError) Unwrap() error { return e.Err }

// TypeError is an argument type that no plan can be made of: a mistake of the program,
// known when the task is declared.
type TypeError struct {
	Type   string
	Field  string // Go name, or empty if it is about the whole type
	Tag    string // the content of the field's lovage tag
	Reason string
}

func (e *TypeError) Error() string {
	var b strings.Builder
	b.WriteString("argument type " + e.Type)
	if e.Field != "" {
		b.WriteString(", field " + e.Field)
	}
	if e.Tag != "" {
		fmt.Fprintf(&b, ", tag %q", e.Tag)
	}
	return b.String() + ": " + e.Reason
}

// tooMany is CPython's too_many_positional: want is the number of positional
// parameters of which need are required, kw the number of keyword-only ones given.
func tooMany(task string, need, want, given, kw int) error {
	sig := fmt.Sprint(want)
	many := want != 1
	if need < want {
		sig, many = fmt.Sprintf("from %d to %d", need, want), true
	}
	var only string
	if kw > 0 {
		only = fmt.Sprintf(" positional argument%s (and %d keyword-only argument%s)", plural(given != 1), kw, plural(kw != 1))
	}
	were := "were"
	if given == 1 && kw == 0 {
		were = "was"
	}
	return &Error{Task: task, Msg: fmt.Sprintf("takes %s positional argument%s but %d%s %s given", sig, plural(many), given, only, were)}
}

// missing is CPython's format_missing; kind is "positional" or "keyword-only".
func missing(task, kind string, names []string) error {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = "'" + n + "'"
	}
	list := quoted[0]
	switch n := len(quoted); {
	case n == 2:
		list = quoted[0] + " and " + quoted[1]
	case n > 2:
		list = strings.Join(quoted[:n-1], ", ") + ", and " + quoted[n-1]
	}
	return &Error{Task: task, Msg: fmt.Sprintf("missing %d required %s argument%s: %s", len(names), kind, plural(len(names) != 1), list)}
}

func unexpected(task, name string) error {
	return &Error{Task: task, Msg: "got an unexpected keyword argument '" + name + "'"}
}

func multiple(task, name string) error {
	return &Error{Task: task, Msg: "got multiple values for argument '" + name + "'"}
}

func plural(many bool) string {
	if many {
		return "s"
	}
	return ""
}
