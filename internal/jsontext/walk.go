package jsontext

import "github.com/lovage-go/lovage/internal/pyjson"

// ScanArray calls f for each element of the JSON array raw, in order, and stops at
// the first error of f, which it returns. elem is part of raw.
func ScanArray(raw []byte, f func(i int, elem []byte) error) error {
	w := Array(raw)
	for i := 0; w.Next(); i++ {
		if err := f(i, w.Value()); err != nil {
			return err
		}
	}
	return w.Err()
}

// ScanObject calls f for each member of the JSON object raw, in order, and stops at
// the first error of f, which it returns. key is without quotes and escapes; value is
// part of raw. A key that occurs twice is handed out twice: as in Python, the last one
// counts.
func ScanObject(raw []byte, f func(key, value []byte) error) error {
	w := Object(raw)
	for w.Next() {
		if err := f(w.Key(), w.Value()); err != nil {
			return err
		}
	}
	return w.Err()
}

// Valid reports what is wrong with raw as one JSON value, nil if nothing is.
func Valid(raw []byte) error {
	s := pyjson.Scanner{Data: raw}
	if err := s.ValidUTF8(); err != nil {
		return err
	}
	if err := s.Skip(); err != nil {
		return err
	}
	return s.End()
}

// Walker hands out the elements of an array or the members of an object, one with
// each call of Next. It belongs to one goroutine.
type Walker struct {
	s       pyjson.Scanner
	open    byte
	started bool
	done    bool
	key     []byte
	value   []byte
	err     error
}

// Array walks the JSON array raw.
func Array(raw []byte) Walker { return Walker{s: pyjson.Scanner{Data: raw}, open: '['} }

// Object walks the JSON object raw.
func Object(raw []byte) Walker { return Walker{s: pyjson.Scanner{Data: raw}, open: '{'} }

// Next moves to the next element. After false, Err tells the end from an error.
func (w *Walker) Next() bool {
	if w.done {
		return false
	}
	more, err := w.step()
	w.done, w.err = !more || err != nil, err
	return !w.done
}

// Key is the name of the member at hand, without quotes and escapes. It is part of
// the text walked unless the key has an escape.
func (w *Walker) Key() []byte { return w.key }

// Value is the text of the element at hand, white space around it left out. It is
// part of the text walked.
func (w *Walker) Value() []byte { return w.value }

// Err is what is wrong with the text walked, nil if nothing is.
func (w *Walker) Err() error { return w.err }

func (w *Walker) step() (more bool, err error) {
	if w.started {
		more, err = w.s.More(w.open)
	} else {
		w.started = true
		if err := w.s.ValidUTF8(); err != nil {
			return false, err
		}
		more, err = w.s.Enter(w.open)
	}
	if err != nil {
		return false, err
	}
	if !more {
		return false, w.s.End()
	}
	if w.open == '{' {
		if w.key, err = w.s.Key(); err != nil {
			return false, err
		}
	}
	w.value, err = w.s.Raw()
	return true, err
}
