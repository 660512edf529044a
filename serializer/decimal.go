package serializer

import (
	"fmt"
	"strings"
)

// Decimal is Python's decimal.Decimal as its text, digits kept: "12.3400". The
// empty Decimal is 0.
type Decimal string

// ParseDecimal checks s by Python's grammar: digits with a point and an
// exponent, Infinity or NaN.
func ParseDecimal(s string) (Decimal, error) {
	body := strings.TrimLeft(s, "+-")
	if len(s)-len(body) <= 1 {
		switch strings.ToLower(body) {
		case "nan", "snan", "inf", "infinity":
			return Decimal(s), nil
		}
		mantissa, exponent, hasExponent := strings.Cut(strings.ToLower(body), "e")
		whole, part, _ := strings.Cut(mantissa, ".")
		if isDigits(whole+part) && (!hasExponent || isDigits(strings.TrimLeft(exponent, "+-"))) && len(exponent) < 20 {
			return Decimal(s), nil
		}
	}
	if len(s) > 40 {
		s = s[:40] + "..."
	}
	return "", fmt.Errorf("decimal %q: want digits, such as 12.34", s)
}

func (d Decimal) String() string {
	if d == "" {
		return "0"
	}
	return string(d)
}

// MarshalJSON writes kombu's tagged form.
func (d Decimal) MarshalJSON() ([]byte, error) {
	if _, err := ParseDecimal(d.String()); err != nil {
		return nil, err
	}
	return appendTagged(nil, "decimal", d.String()), nil
}

// UnmarshalJSON reads the tagged form, a plain string or a number.
func (d *Decimal) UnmarshalJSON(raw []byte) error {
	if isNumber(string(raw)) {
		*d = Decimal(raw)
		return nil
	}
	return unmarshalText(raw, d, ParseDecimal, "decimal")
}

func isDigits(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}
