package control

import (
	"encoding/json"
	"fmt"
)

// Args are the arguments of a request, as sent. The methods give a default where
// an argument is absent or null.
type Args map[string]json.RawMessage

func (a Args) has(name string) bool {
	raw, ok := a[name]
	return ok && string(raw) != "null"
}

// Decode reads an argument into v, which stays as it is if the argument is
// absent or null.
func (a Args) Decode(name string, v any) error {
	if !a.has(name) {
		return nil
	}
	if err := json.Unmarshal(a[name], v); err != nil {
		return exception("TypeError", "argument %s: %v", name, err)
	}
	return nil
}

// Text reads a string.
func (a Args) Text(name string) (s string, err error) { return s, a.Decode(name, &s) }

// Texts reads a list of strings, or one string alone. Other scalars are taken
// by their JSON text, since Python's clients send ids of any type.
func (a Args) Texts(name string) ([]string, error) {
	if !a.has(name) {
		return nil, nil
	}
	var items []json.RawMessage
	if json.Unmarshal(a[name], &items) != nil {
		items = []json.RawMessage{a[name]}
	}
	out := make([]string, len(items))
	for i, raw := range items {
		if json.Unmarshal(raw, &out[i]) != nil {
			if raw[0] == '{' || raw[0] == '[' {
				return nil, exception("TypeError", "argument %s: want a string or a list of strings", name)
			}
			out[i] = string(raw)
		}
	}
	return out, nil
}

// argsOf encodes what a caller gives.
func argsOf(m map[string]any) (Args, error) {
	a := make(Args, len(m))
	for name, v := range m {
		raw, err := encode(v)
		if err != nil {
			return nil, fmt.Errorf("argument %s: %w", name, err)
		}
		a[name] = raw
	}
	return a, nil
}
