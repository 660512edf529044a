package saferepr

import (
	"encoding/json"
	"fmt"
)

func Repr(v any, max int) string                               { return fmt.Sprint(v) }
func AppendArgs(b []byte, r json.RawMessage, max int) []byte   { return append(b, r...) }
func AppendKwargs(b []byte, r json.RawMessage, max int) []byte { return append(b, r...) }
