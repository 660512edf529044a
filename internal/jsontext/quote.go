package jsontext

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// Kind is what a JSON value is, told by its first byte.
type Kind byte

// The kinds of JSON values. NaN and the infinities are numbers.
const (
	Invalid Kind = iota
	Null
	Bool
	Number
	String
	List
	Dict
)

// KindOf looks at the first byte of a text that a walker handed out.
func KindOf(text []byte) Kind {
	if len(text) == 0 {
		return Invalid
	}
	switch text[0] {
	case 'n':
		return Null
	case 't', 'f':
		return Bool
	case '"':
		return String
	case '[':
		return List
	case '{':
		return Dict
	case '-', 'N', 'I', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return Number
	}
	return Invalid
}

// String is the kind with its article, as error texts say it.
func (k Kind) String() string {
	switch k {
	case Null:
		return "null"
	case Bool:
		return "a boolean"
	case Number:
		return "a number"
	case String:
		return "a string"
	case List:
		return "a list"
	case Dict:
		return "an object"
	}
	return "no JSON value"
}

// Unquote is the string that text, a checked JSON string with its quotes, stands for.
// Half of a surrogate pair, which Python can send, becomes U+FFFD.
func Unquote(text []byte) string {
	inner := text[1 : len(text)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner)
	}
	return string(AppendUnquoted(make([]byte, 0, len(inner)), text))
}

// AppendUnquoted appends to dst what [Unquote] returns.
func AppendUnquoted(dst, text []byte) []byte {
	in := text[1 : len(text)-1]
	for i := 0; i < len(in); i++ {
		c := in[i]
		if c != '\\' {
			dst = append(dst, c)
			continue
		}
		i++
		switch in[i] {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r := unit(in[i+1:])
			i += 4
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if rest := in[i+1:]; len(rest) >= 6 && rest[0] == '\\' && rest[1] == 'u' {
					low = unit(rest[2:])
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					i += 6
				}
			}
			dst = utf8.AppendRune(dst, r)
		default:
			dst = append(dst, in[i])
		}
	}
	return dst
}

// AppendQuoted appends s as a JSON string. Bytes of s that are not UTF-8 become
// U+FFFD; ask utf8.ValidString first where that must not happen.
func AppendQuoted(dst []byte, s string) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			dst = utf8.AppendRune(dst, r)
			i += n
			continue
		}
		i++
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c < ' ' || c == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}

// unit reads the four hexadecimal digits of a \u escape.
func unit(b []byte) rune {
	return rune(hex(b[0])<<12 | hex(b[1])<<8 | hex(b[2])<<4 | hex(b[3]))
}

// hex is the value of a hexadecimal digit, -1 if c is none.
func hex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
