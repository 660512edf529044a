// Package bind plans how a Go argument value and the positional and keyword
// arguments of a task message become each other.
//
// A [Plan] is built once for a type. If the type is a struct, its exported fields are
// the parameters, in order; embedded structs without a tag are flattened. A field's
// name on the wire is its Go name in snake case, unless the tag names it:
//
//	type MailArgs struct {
//		To      string
//		Subject string            `lovage:"title"`
//		Retries int               `lovage:",default=3"`
//		Cc      []string          `lovage:"cc,rest"`
//		HTML    bool              `lovage:",optional"`
//		Headers map[string]string `lovage:",extra"`
//		cache   int               // unexported: no parameter; `lovage:"-"` does the same
//	}
//
// The options: default=JSON (the last one, it takes the rest of the tag), optional
// (absent is the zero value), kwonly, rest (Python's *args, a slice) and extra
// (Python's **kwargs, a map with string keys). As in Python, fields after rest are
// keyword-only, and a required positional one may not follow an optional one.
//
// Every other type, and a struct that marshals itself, is one required positional
// parameter named arg. struct{} has no parameters. A type that has the methods of
// [RawArgs] and [RawBinder] takes the call as it is.
//
// Going out, required fields travel by position, the others by keyword and only if
// they differ from what the receiver would assume. Coming in, any mix is bound as
// CPython 3.11 binds it, and what Python refuses is refused in its words.
//
// Plans are immutable and may be used concurrently.
package bind
