package pyjson

import (
	"math"
	"strconv"
)

// AppendFloat appends a finite float as Python's repr does: 1.0, 0.1, 1e+16.
// Bits is 32 or 64 and decides how many digits are needed.
func AppendFloat(dst []byte, f float64, bits int) []byte {
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.AppendFloat(dst, f, 'e', -1, bits)
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'f', -1, bits)
	for _, c := range dst[start:] {
		if c == '.' {
			return dst
		}
	}
	return append(dst, ".0"...)
}
