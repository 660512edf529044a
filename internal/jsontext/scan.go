package jsontext

import (
	"bytes"
	"fmt"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may nest. Python's own reader gives up
// near the same depth, at its recursion limit.
const MaxDepth = 1000

// SyntaxError says where a text stops being JSON.
type SyntaxError struct {
	Offset int    // of the byte that is wrong, from the start of the text scanned
	Msg    string // what is wrong there
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("invalid JSON at byte %d: %s", e.Offset, e.Msg)
}

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
// the first error of f, which it returns. key is without quotes and escapes and valid
// only during the call; value is part of raw. A key that occurs twice is handed out
// twice: as in Python, the last one counts.
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
	s := scanner{data: raw}
	s.space()
	if err := s.value(0); err != nil {
		return err
	}
	return s.end()
}

// scanner is a position in a text. Its methods move behind what they name.
type scanner struct {
	data []byte
	pos  int
}

func (s *scanner) fail(format string, args ...any) error {
	return &SyntaxError{Offset: s.pos, Msg: fmt.Sprintf(format, args...)}
}

// unexpected says which byte, or the end, stands where want should.
func (s *scanner) unexpected(want string) error {
	if s.pos >= len(s.data) {
		return s.fail("the text ends, want %s", want)
	}
	return s.fail("got %q, want %s", s.data[s.pos], want)
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// at reports whether the next byte is c.
func (s *scanner) at(c byte) bool { return s.pos < len(s.data) && s.data[s.pos] == c }

// end accepts only white space up to the end of the text.
func (s *scanner) end() error {
	s.space()
	if s.pos < len(s.data) {
		return s.unexpected("the end")
	}
	return nil
}

func (s *scanner) value(depth int) error {
	if s.pos >= len(s.data) {
		return s.unexpected("a value")
	}
	switch c := s.data[s.pos]; {
	case c == '"':
		_, err := s.str()
		return err
	case c == '{' || c == '[':
		return s.nested(depth)
	case c == '-' || '0' <= c && c <= '9':
		return s.number()
	case c == 't':
		return s.word("true")
	case c == 'f':
		return s.word("false")
	case c == 'n':
		return s.word("null")
	case c == 'N':
		return s.word("NaN")
	case c == 'I':
		return s.word("Infinity")
	}
	return s.unexpected("a value")
}

func (s *scanner) word(w string) error {
	if !bytes.HasPrefix(s.data[s.pos:], []byte(w)) {
		return s.unexpected("a value")
	}
	s.pos += len(w)
	return nil
}

// nested walks an array or an object that stands inside depth others.
func (s *scanner) nested(depth int) error {
	if depth >= MaxDepth {
		return s.fail("nested deeper than %d", MaxDepth)
	}
	object := s.data[s.pos] == '{'
	last := byte(']')
	if object {
		last = '}'
	}
	s.pos++
	s.space()
	if s.at(last) {
		s.pos++
		return nil
	}
	for {
		if object {
			if _, err := s.key(); err != nil {
				return err
			}
		}
		if err := s.value(depth + 1); err != nil {
			return err
		}
		s.space()
		switch {
		case s.at(last):
			s.pos++
			return nil
		case s.at(','):
			s.pos++
			s.space()
		case object:
			return s.unexpected("',' or '}'")
		default:
			return s.unexpected("',' or ']'")
		}
	}
}

// key moves behind the colon and returns the key with its quotes.
func (s *scanner) key() ([]byte, error) {
	if !s.at('"') {
		return nil, s.unexpected("a key in double quotes")
	}
	k, err := s.str()
	if err != nil {
		return nil, err
	}
	s.space()
	if !s.at(':') {
		return nil, s.unexpected("':'")
	}
	s.pos++
	s.space()
	return k, nil
}

// str returns the string that starts here, with its quotes.
func (s *scanner) str() ([]byte, error) {
	start, ascii := s.pos, true
	s.pos++
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; {
		case c == '"':
			s.pos++
			text := s.data[start:s.pos]
			if !ascii && !utf8.Valid(text) {
				s.pos = start
				return nil, s.fail("a string that is not UTF-8")
			}
			return text, nil
		case c == '\\':
			if err := s.escape(); err != nil {
				return nil, err
			}
		case c < ' ':
			return nil, s.fail("control character %q in a string", c)
		default:
			ascii = ascii && c < utf8.RuneSelf
			s.pos++
		}
	}
	return nil, s.unexpected("a closing '\"'")
}

func (s *scanner) escape() error {
	s.pos++
	if s.pos >= len(s.data) {
		return s.unexpected("an escape")
	}
	switch s.data[s.pos] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos++
		return nil
	case 'u':
		s.pos++
		for range 4 {
			if s.pos >= len(s.data) || hex(s.data[s.pos]) < 0 {
				return s.unexpected("a hexadecimal digit")
			}
			s.pos++
		}
		return nil
	}
	return s.unexpected("an escape")
}

func (s *scanner) number() error {
	if s.at('-') {
		s.pos++
		if s.at('I') {
			return s.word("Infinity")
		}
	}
	if s.at('0') {
		s.pos++
	} else if err := s.digits(); err != nil {
		return err
	}
	if s.at('.') {
		s.pos++
		if err := s.digits(); err != nil {
			return err
		}
	}
	if s.at('e') || s.at('E') {
		s.pos++
		if s.at('+') || s.at('-') {
			s.pos++
		}
		return s.digits()
	}
	return nil
}

func (s *scanner) digits() error {
	start := s.pos
	for s.pos < len(s.data) && '0' <= s.data[s.pos] && s.data[s.pos] <= '9' {
		s.pos++
	}
	if s.pos == start {
		return s.unexpected("a digit")
	}
	return nil
}
