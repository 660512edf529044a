package pyjson

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"unicode/utf8"
)

// Scanner walks over one JSON text without building values. Its limits are
// checked as it goes. The zero limits mean none, but depth is always bounded by
// [MaxDepth], because arrays and objects are walked by recursion.
//
// A Scanner is not safe for concurrent use.
type Scanner struct {
	Data  []byte
	Pos   int
	Depth int // open arrays and objects
	Items int // values met so far

	LimitDepth int
	LimitItems int
}

// MaxDepth is the depth at which a Scanner without a limit of its own gives up.
const MaxDepth = 10_000

// SyntaxError says where a text stops being JSON.
type SyntaxError struct {
	Offset int
	Reason string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("not JSON at byte %d: %s", e.Offset, e.Reason)
}

// LimitError says which limit a text goes over: "depth" or "items".
type LimitError struct {
	Limit string
	Max   int
}

func (e *LimitError) Error() string {
	if e.Limit == "depth" {
		return fmt.Sprintf("JSON is nested deeper than %d levels", e.Max)
	}
	return fmt.Sprintf("JSON holds more than %d values", e.Max)
}

// Kind names the value that begins with c, for messages to people.
func Kind(c byte) string {
	switch c {
	case '"':
		return "a string"
	case '{':
		return "an object"
	case '[':
		return "an array"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	case 0:
		return "nothing"
	}
	if c == '-' || c == 'N' || c == 'I' || isDigit(c) {
		return "a number"
	}
	return "no JSON value"
}

// Peek skips white space and returns the next byte, 0 at the end.
func (s *Scanner) Peek() byte {
	for s.Pos < len(s.Data) {
		switch c := s.Data[s.Pos]; c {
		case ' ', '\t', '\r', '\n':
			s.Pos++
		default:
			return c
		}
	}
	return 0
}

// End checks that only white space is left.
func (s *Scanner) End() error {
	if s.Peek() != 0 || s.Pos < len(s.Data) {
		return s.fail("more text after the value")
	}
	return nil
}

// Enter consumes open, which begins an array or an object, and reports whether
// it has a first element. An empty one is consumed whole.
func (s *Scanner) Enter(open byte) (more bool, err error) {
	if c := s.Peek(); c != open {
		return false, s.fail("got " + Kind(c) + ", want " + Kind(open))
	}
	if err := s.count(); err != nil {
		return false, err
	}
	s.Depth++
	limit := s.LimitDepth
	if limit <= 0 || limit > MaxDepth {
		limit = MaxDepth
	}
	if s.Depth > limit {
		return false, &LimitError{Limit: "depth", Max: limit}
	}
	s.Pos++
	if s.Peek() == open+2 { // ']' is '['+2, '}' is '{'+2
		s.Pos++
		s.Depth--
		return false, nil
	}
	return true, nil
}

// More consumes the comma after an element, or the closing byte of open.
func (s *Scanner) More(open byte) (more bool, err error) {
	switch s.Peek() {
	case ',':
		s.Pos++
		return true, nil
	case open + 2:
		s.Pos++
		s.Depth--
		return false, nil
	}
	return false, s.fail("want a comma or the end of " + Kind(open))
}

// Key consumes an object key and its colon. The result aliases Data if the key
// has no escapes.
func (s *Scanner) Key() ([]byte, error) {
	if c := s.Peek(); c != '"' {
		return nil, s.fail("got " + Kind(c) + ", want a key")
	}
	start := s.Pos
	plain, err := s.skipString()
	if err != nil {
		return nil, err
	}
	end := s.Pos
	if s.Peek() != ':' {
		return nil, s.fail("want a colon after the key")
	}
	s.Pos++
	if plain {
		return s.Data[start+1 : end-1], nil
	}
	return appendUnquoted(nil, s.Data[start+1:end-1]), nil
}

// String consumes a string. Data[start:end] is its inside; if plain is false it
// has escapes, see [Unquote].
func (s *Scanner) String() (start, end int, plain bool, err error) {
	if c := s.Peek(); c != '"' {
		return 0, 0, false, s.fail("got " + Kind(c) + ", want a string")
	}
	if err := s.count(); err != nil {
		return 0, 0, false, err
	}
	start = s.Pos + 1
	plain, err = s.skipString()
	return start, s.Pos - 1, plain, err
}

// Raw consumes one value and returns its text, which aliases Data.
func (s *Scanner) Raw() ([]byte, error) {
	s.Peek()
	start := s.Pos
	if err := s.Skip(); err != nil {
		return nil, err
	}
	return s.Data[start:s.Pos:s.Pos], nil
}

// Skip consumes one value.
func (s *Scanner) Skip() error {
	switch c := s.Peek(); c {
	case '{':
		more, err := s.Enter('{')
		for more && err == nil {
			if err = s.skipKey(); err != nil {
				break
			}
			if err = s.Skip(); err != nil {
				break
			}
			more, err = s.More('{')
		}
		return err
	case '[':
		more, err := s.Enter('[')
		for more && err == nil {
			if err = s.Skip(); err != nil {
				break
			}
			more, err = s.More('[')
		}
		return err
	case '"':
		if err := s.count(); err != nil {
			return err
		}
		_, err := s.skipString()
		return err
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	case 'N':
		return s.word("NaN")
	case 'I':
		return s.word("Infinity")
	case 0:
		if s.Pos >= len(s.Data) {
			return s.fail("the text ends where a value should be")
		}
		return s.fail("no JSON value")
	default:
		return s.number()
	}
}

func (s *Scanner) skipKey() error {
	if c := s.Peek(); c != '"' {
		return s.fail("got " + Kind(c) + ", want a key")
	}
	if _, err := s.skipString(); err != nil {
		return err
	}
	if s.Peek() != ':' {
		return s.fail("want a colon after the key")
	}
	s.Pos++
	return nil
}

func (s *Scanner) count() error {
	s.Items++
	if s.LimitItems > 0 && s.Items > s.LimitItems {
		return &LimitError{Limit: "items", Max: s.LimitItems}
	}
	return nil
}

func (s *Scanner) word(w string) error {
	if err := s.count(); err != nil {
		return err
	}
	if end := s.Pos + len(w); end <= len(s.Data) && string(s.Data[s.Pos:end]) == w {
		s.Pos = end
		return nil
	}
	return s.fail("want " + w)
}

func (s *Scanner) number() error {
	if err := s.count(); err != nil {
		return err
	}
	d, i := s.Data, s.Pos
	if d[i] == '-' {
		i++
		if i < len(d) && d[i] == 'I' {
			s.Pos++
			s.Items--
			return s.word("Infinity")
		}
	}
	switch {
	case i < len(d) && d[i] == '0':
		i++
	case i < len(d) && isDigit(d[i]):
		i = digits(d, i)
	default:
		return s.fail("no JSON value")
	}
	if i < len(d) && d[i] == '.' {
		if i+1 >= len(d) || !isDigit(d[i+1]) {
			return s.fail("number without digits after its point")
		}
		i = digits(d, i+1)
	}
	if i < len(d) && (d[i] == 'e' || d[i] == 'E') {
		i++
		if i < len(d) && (d[i] == '+' || d[i] == '-') {
			i++
		}
		if i >= len(d) || !isDigit(d[i]) {
			return s.fail("number without digits in its exponent")
		}
		i = digits(d, i)
	}
	s.Pos = i
	return nil
}

// enders marks, by their high bits, bytes among eight that are a quote, a backslash
// or a control character. The lowest mark is exact, those above it may be false.
func enders(w uint64) uint64 {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	quote, backslash := w^ones*'"', w^ones*'\\'
	return ((quote-ones)&^quote | (backslash-ones)&^backslash | (w-ones*' ')&^w) & highs
}

// skipString consumes a string at Pos and reports whether it has no escapes.
func (s *Scanner) skipString() (plain bool, err error) {
	d, i := s.Data, s.Pos+1
	plain = true
	for i < len(d) {
		if i+8 <= len(d) {
			ends := enders(binary.LittleEndian.Uint64(d[i:]))
			if ends == 0 {
				i += 8
				continue
			}
			i += bits.TrailingZeros64(ends) / 8
		}
		switch c := d[i]; {
		case c == '"':
			s.Pos = i + 1
			return plain, nil
		case c == '\\':
			plain = false
			i++
			if i >= len(d) {
				break
			}
			switch d[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				i++
			case 'u':
				if _, ok := hex4(d, i+1); !ok {
					s.Pos = i
					return false, s.fail(`\u without four hexadecimal digits`)
				}
				i += 5
			default:
				s.Pos = i
				return false, s.fail("unknown escape in a string")
			}
		case c < ' ':
			s.Pos = i
			return false, s.fail("control character in a string")
		default:
			i++
		}
	}
	s.Pos = len(d)
	return false, s.fail("string without an end")
}

func (s *Scanner) fail(reason string) error { return &SyntaxError{Offset: s.Pos, Reason: reason} }

// ValidUTF8 checks the whole text: JSON is UTF-8, and Python refuses all else.
func (s *Scanner) ValidUTF8() error {
	if utf8.Valid(s.Data) {
		return nil
	}
	i := 0
	for i < len(s.Data) {
		r, n := utf8.DecodeRune(s.Data[i:])
		if r == utf8.RuneError && n == 1 {
			break
		}
		i += n
	}
	return &SyntaxError{Offset: i, Reason: "invalid UTF-8"}
}

func digits(d []byte, i int) int {
	for i < len(d) && isDigit(d[i]) {
		i++
	}
	return i
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
