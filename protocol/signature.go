package protocol

import (
	"encoding/json"
	"strconv"

	"github.com/lovage-go/lovage/internal/pyjson"
)

// AppendJSON appends s as Celery's signature dictionary, its options and
// unknown keys by key. Nil args and kwargs are [] and {}.
func (s *Signature) AppendJSON(b []byte) []byte {
	b = pyjson.AppendString(append(b, `{"task": `...), s.Task)
	b = appendRaw(append(b, `, "args": `...), s.Args, "[]")
	b = appendRaw(append(b, `, "kwargs": `...), s.Kwargs, "{}")
	b = appendMap(append(b, `, "options": `...), s.Options)
	b = appendNullable(append(b, `, "subtask_type": `...), s.SubtaskType)
	b = strconv.AppendBool(append(b, `, "immutable": `...), s.Immutable)
	b = appendMembers(b, s.Extra)
	return append(b, '}')
}

// MarshalJSON is [Signature.AppendJSON]. encoding/json refuses its NaN and
// Infinity; whoever must pass those on appends.
func (s Signature) MarshalJSON() ([]byte, error) { return s.AppendJSON(nil), nil }

// UnmarshalJSON reads a signature dictionary. Only its task is required.
func (s *Signature) UnmarshalJSON(raw []byte) error {
	got, err := ParseSignature(raw)
	if err == nil {
		*s = got
	}
	return err
}

// ParseSignature reads a signature dictionary, as UnmarshalJSON does, from text
// that may hold NaN and Infinity. The result shares nothing with raw.
func ParseSignature(raw []byte) (Signature, error) {
	d, err := open("signature", raw, MaxBodyBytes)
	if err != nil {
		return Signature{}, err
	}
	s, err := d.signature("signature")
	if err == nil {
		err = d.End()
	}
	return s, d.at(err)
}

// ParseSignatures reads a list of signatures, or one that stands alone; null is nil.
func ParseSignatures(raw []byte) ([]Signature, error) {
	d, err := open("signatures", raw, MaxBodyBytes)
	if err != nil {
		return nil, err
	}
	list, err := d.signatures("signatures")
	if err == nil {
		err = d.End()
	}
	return list, d.at(err)
}

func (d *document) signature(where string) (s Signature, err error) {
	if d.Peek() != '{' {
		return s, d.wrong(where, "a signature (an object)")
	}
	more, err := d.Enter('{')
	for more && err == nil {
		var key []byte
		if key, err = d.Key(); err != nil {
			break
		}
		switch string(key) {
		case "task":
			err = d.str("task", &s.Task)
		case "args":
			s.Args, err = d.owned("args", '[')
		case "kwargs":
			s.Kwargs, err = d.owned("kwargs", '{')
		case "options":
			err = d.object("options", &s.Options)
		case "subtask_type":
			err = d.str("subtask_type", &s.SubtaskType)
		case "immutable":
			err = d.boolean("immutable", &s.Immutable)
		default:
			var raw []byte
			if raw, err = d.Raw(); err == nil {
				put(&s.Extra, string(key), raw)
			}
		}
		if err != nil {
			break
		}
		more, err = d.More('{')
	}
	if err == nil && s.Task == "" {
		err = &TypeError{What: d.what, Key: where, Got: "a signature without a task", Want: "the task's name"}
	}
	return s, err
}

// owned is list with a copy.
func (d *document) owned(key string, open byte) (json.RawMessage, error) {
	raw, err := d.list(key, open)
	if raw == nil || err != nil {
		return nil, err
	}
	return append(json.RawMessage(nil), raw...), nil
}

// signatures reads a list of signatures. Null is nil and [] is empty, not nil:
// Celery's clients send null, its workers [] at the end of a chain. One that
// stands alone is a list of one, as in Celery.
func (d *document) signatures(key string) ([]Signature, error) {
	switch d.Peek() {
	case 'n':
		return nil, d.Skip()
	case '{':
		s, err := d.signature(key)
		return []Signature{s}, err
	case '[':
	default:
		return nil, d.wrong(key, "a list of signatures or null")
	}
	list := []Signature{}
	more, err := d.Enter('[')
	for more && err == nil {
		var s Signature
		if s, err = d.signature(key); err == nil {
			list = append(list, s)
			more, err = d.More('[')
		}
	}
	return list, err
}

// AppendSignatures appends a list of signatures; a nil one is null.
func AppendSignatures(b []byte, list []Signature) []byte { return appendSignatures(b, list) }

func appendSignatures(b []byte, list []Signature) []byte {
	if list == nil {
		return append(b, "null"...)
	}
	b = append(b, '[')
	for i := range list {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = list[i].AppendJSON(b)
	}
	return append(b, ']')
}

func appendSignature(b []byte, s *Signature) []byte {
	if s == nil {
		return append(b, "null"...)
	}
	return s.AppendJSON(b)
}
