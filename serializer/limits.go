package serializer

import (
	"errors"
	"fmt"

	"github.com/lovage-go/lovage/internal/pyjson"
)

// Limits bound what is read from the wire. A zero field means its default, a
// negative one no limit (depth stays bounded by 10,000).
type Limits struct {
	MaxBytes int // length of the text; default 16 MiB
	MaxDepth int // arrays and objects inside one another; default 64
	MaxItems int // values in the text; default 1,048,576
}

// The defaults of [Limits].
const (
	DefaultMaxBytes = 16 << 20
	DefaultMaxDepth = 64
	DefaultMaxItems = 1 << 20
)

// LimitError says which limit a text goes over.
type LimitError struct {
	Setting string // the field of [Limits]
	Max     int
	Got     int // 0 where reading stopped at the limit
}

func (e *LimitError) Error() string {
	got := fmt.Sprintf("more than %d", e.Max)
	if e.Got > 0 {
		got = fmt.Sprint(e.Got)
	}
	what := map[string]string{"MaxBytes": "bytes", "MaxDepth": "levels of nesting", "MaxItems": "values"}[e.Setting]
	return fmt.Sprintf("too large: got %s %s, the limit is %d; raise Limits.%s if this is meant", got, what, e.Max, e.Setting)
}

func (l Limits) withDefaults() Limits {
	fill := func(n *int, def int) {
		if *n == 0 {
			*n = def
		}
	}
	fill(&l.MaxBytes, DefaultMaxBytes)
	fill(&l.MaxDepth, DefaultMaxDepth)
	fill(&l.MaxItems, DefaultMaxItems)
	return l
}

// CheckJSON reads data once, building nothing, and checks that it is one JSON
// value (NaN, Infinity and -Infinity included) in UTF-8 within the limits. The
// error is a [*LimitError] or says where the text goes wrong.
func (l Limits) CheckJSON(data []byte) error {
	l = l.withDefaults()
	if l.MaxBytes > 0 && len(data) > l.MaxBytes {
		return &LimitError{Setting: "MaxBytes", Max: l.MaxBytes, Got: len(data)}
	}
	s := pyjson.Scanner{Data: data, LimitDepth: l.MaxDepth, LimitItems: l.MaxItems}
	err := s.ValidUTF8()
	if err == nil {
		err = s.Skip()
	}
	if err == nil {
		err = s.End()
	}
	if le, ok := errors.AsType[*pyjson.LimitError](err); ok {
		setting := map[string]string{"depth": "MaxDepth", "items": "MaxItems"}[le.Limit]
		return &LimitError{Setting: setting, Max: le.Max}
	}
	return err
}
