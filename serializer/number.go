package serializer

import (
	"fmt"
	"math"
	"math/big"
	"strconv"

	"github.com/lovage-go/lovage/internal/pyjson"
)

// Number is a JSON number met where the Go type leaves it open. It keeps its
// text, so that 1 and 1.0, and integers of any size, pass through unchanged. It
// may be NaN, Infinity or -Infinity. The empty Number is 0.
type Number string

func (n Number) String() string {
	if n == "" {
		return "0"
	}
	return string(n)
}

// Int64 gives the number as an integer. A float, and one out of range, is an error.
func (n Number) Int64() (int64, error) {
	i, err := strconv.ParseInt(n.String(), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("number %s is no int64", n)
	}
	return i, nil
}

// Float64 gives the nearest float.
func (n Number) Float64() (float64, error) {
	switch n {
	case "NaN":
		return math.NaN(), nil
	case "Infinity":
		return math.Inf(1), nil
	case "-Infinity":
		return math.Inf(-1), nil
	}
	f, err := strconv.ParseFloat(n.String(), 64)
	if err != nil {
		return f, fmt.Errorf("number %s is no float64", n)
	}
	return f, nil
}

// BigInt gives the number as an integer of any size. A float is an error.
func (n Number) BigInt() (*big.Int, error) {
	i, ok := new(big.Int).SetString(n.String(), 10)
	if !ok {
		return nil, fmt.Errorf("number %s is no integer", n)
	}
	return i, nil
}

// MarshalJSON writes the text as it is. encoding/json refuses NaN and Infinity.
func (n Number) MarshalJSON() ([]byte, error) { return n.append(nil) }

// UnmarshalJSON takes any JSON number.
func (n *Number) UnmarshalJSON(raw []byte) error {
	if string(raw) == "null" {
		return nil
	}
	if !isNumber(string(raw)) {
		return fmt.Errorf("got %s, want a number", pyjson.Kind(first(raw)))
	}
	*n = Number(raw)
	return nil
}

func (n Number) append(dst []byte) ([]byte, error) {
	if !isNumber(n.String()) {
		return nil, fmt.Errorf("serializer.Number %q is no number", string(n))
	}
	return append(dst, n.String()...), nil
}

func isNumber(s string) bool {
	if s == "" || pyjson.Kind(s[0]) != "a number" {
		return false
	}
	sc := pyjson.Scanner{Data: []byte(s)}
	return sc.Skip() == nil && sc.Pos == len(s)
}

func first(raw []byte) byte {
	if len(raw) == 0 {
		return 0
	}
	return raw[0]
}

// appendFloat writes f as Python's repr does, so that a float stays one: 1.0.
func appendFloat(dst []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, "NaN"...)
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...)
	}
	return pyjson.AppendFloat(dst, f, bits)
}
