package jsontext

import "bytes"

// Walker hands out the elements of an array or the members of an object, one with
// each call of Next. It belongs to one goroutine.
type Walker struct {
	s       scanner
	last    byte // what closes it
	started bool
	done    bool
	key     []byte
	value   []byte
	err     error
}

// Array walks the JSON array raw.
func Array(raw []byte) Walker { return Walker{s: scanner{data: raw}, last: ']'} }

// Object walks the JSON object raw.
func Object(raw []byte) Walker { return Walker{s: scanner{data: raw}, last: '}'} }

// Next moves to the next element. After false, Err tells the end from an error.
func (w *Walker) Next() bool {
	if w.done {
		return false
	}
	more, err := w.step()
	if err != nil {
		w.err = err
	}
	w.done = !more
	return more
}

// Key is the name of the member at hand, without quotes and escapes. It is part of
// the text walked unless the key has an escape.
func (w *Walker) Key() []byte {
	inner := w.key[1 : len(w.key)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner
	}
	return AppendUnquoted(nil, w.key)
}

// Value is the text of the element at hand, white space around it left out. It is
// part of the text walked.
func (w *Walker) Value() []byte { return w.value }

// Err is what is wrong with the text walked, nil if nothing is.
func (w *Walker) Err() error { return w.err }

func (w *Walker) step() (bool, error) {
	if !w.started {
		w.started = true
		if err := w.open(); err != nil {
			return false, err
		}
		if w.s.at(w.last) {
			return false, w.close()
		}
	} else {
		w.s.space()
		if w.s.at(w.last) {
			return false, w.close()
		}
		if !w.s.at(',') {
			return false, w.s.unexpected("',' or '" + string(w.last) + "'")
		}
		w.s.pos++
		w.s.space()
	}
	if w.last == '}' {
		key, err := w.s.key()
		if err != nil {
			return false, err
		}
		w.key = key
	}
	start := w.s.pos
	if err := w.s.value(1); err != nil {
		return false, err
	}
	w.value = w.s.data[start:w.s.pos:w.s.pos]
	return true, nil
}

func (w *Walker) open() error {
	w.s.space()
	first, want := byte('['), "an array"
	if w.last == '}' {
		first, want = '{', "an object"
	}
	if !w.s.at(first) {
		return w.s.unexpected(want)
	}
	w.s.pos++
	w.s.space()
	return nil
}

func (w *Walker) close() error {
	w.s.pos++
	return w.s.end()
}
