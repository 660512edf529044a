// Package isotime reads and writes ISO 8601 times as Python does.
package isotime

import (
	"fmt"
	"strings"
	"time"
)

// MaxText is the length beyond which a text is no time.
const MaxText = 64

// Parse reads an ISO 8601 time as Python and Celery write it: a date, or a
// date and a time with or without seconds and their fraction, parted by T or a
// space, with the zone Z, +00:00, +0530, +05 or none. A time without a zone is
// in local; nil is UTC. Digits past the nanosecond are cut.
func Parse(s string, local *time.Location) (time.Time, error) {
	if local == nil {
		local = time.UTC
	}
	bad := func(why string) (time.Time, error) {
		if len(s) > MaxText {
			s = s[:MaxText] + "..."
		}
		return time.Time{}, fmt.Errorf("time %q: %s; want ISO 8601, such as 2026-11-21T10:30:00+00:00", s, why)
	}
	if len(s) > MaxText {
		return bad("too long")
	}
	if len(s) < 10 || s[4] != '-' || s[7] != '-' {
		return bad("no date")
	}
	year, ok1 := number(s[:4])
	month, ok2 := number(s[5:7])
	day, ok3 := number(s[8:10])
	if !ok1 || !ok2 || !ok3 || year < 1 {
		return bad("no date")
	}
	if month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return bad("no such day")
	}
	date := func(c Clock, loc *time.Location) time.Time {
		return time.Date(year, time.Month(month), day, c.Hour, c.Minute, c.Second, c.Nanosecond, loc)
	}
	if len(s) == 10 {
		return date(Clock{}, local), nil
	}
	if s[10] != 'T' && s[10] != ' ' {
		return bad("no T between date and time")
	}
	c, zone, why := ParseClock(s[11:])
	if why != "" {
		return bad(why)
	}
	if zone == "" {
		return date(c, local), nil
	}
	offset, ok := parseZone(zone)
	if !ok {
		return bad("unknown zone " + zone)
	}
	if offset == 0 {
		return date(c, time.UTC), nil
	}
	return date(c, time.FixedZone("", offset)), nil
}

// Format writes t as Python's isoformat does: microseconds only if there
// are any, and the offset as +00:00, with seconds only if there are any.
func Format(t time.Time) string {
	micro := t.Nanosecond() / 1000
	if y, _, _ := t.Date(); t.Location() == time.UTC && micro != 0 && y >= 0 && y < 10000 { // the usual case
		return string(appendUTC(make([]byte, 0, 32), t, micro))
	}
	layout := "2006-01-02T15:04:05"
	if micro != 0 {
		layout = "2006-01-02T15:04:05.000000"
	}
	if _, offset := t.Zone(); offset%60 != 0 {
		return t.Format(layout + "-07:00:00")
	}
	return t.Format(layout + "-07:00")
}

func appendUTC(b []byte, t time.Time, micro int) []byte {
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	b = append(digits(b, year, 4), '-')
	b = append(digits(b, int(month), 2), '-')
	b = append(digits(b, day, 2), 'T')
	b = append(digits(b, hour, 2), ':')
	b = append(digits(b, minute, 2), ':')
	b = append(digits(b, second, 2), '.')
	return append(digits(b, micro, 6), "+00:00"...)
}

// digits appends the last digits of n.
func digits(b []byte, n, width int) []byte {
	at := len(b) + width
	b = append(b, "000000"[:width]...)
	for i := at - 1; n > 0 && i >= at-width; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
	return b
}

// A Clock is a time of day.
type Clock struct{ Hour, Minute, Second, Nanosecond int }

// ParseClock reads a time of day, HH:MM, HH:MM:SS or HH:MM:SS.fraction, and the
// text of its zone, or says what is wrong.
func ParseClock(s string) (c Clock, zone, why string) {
	s, zone = cutZone(s)
	c, why = parseClock(s)
	return c, zone, why
}

func parseClock(s string) (c Clock, why string) {
	const shape = "the time of day is not HH:MM:SS"
	if len(s) < 5 || s[2] != ':' {
		return c, shape
	}
	var ok1, ok2 bool
	c.Hour, ok1 = number(s[:2])
	c.Minute, ok2 = number(s[3:5])
	if !ok1 || !ok2 {
		return c, shape
	}
	if rest := s[5:]; rest != "" {
		if len(rest) < 3 || rest[0] != ':' {
			return c, shape
		}
		var ok bool
		if c.Second, ok = number(rest[1:3]); !ok {
			return c, shape
		}
		if c.Nanosecond, ok = fraction(rest[3:]); !ok {
			return c, "bad fraction of a second"
		}
	}
	if c.Hour > 23 || c.Minute > 59 || c.Second > 59 {
		return c, "no such time of day"
	}
	return c, ""
}

// fraction reads "" or ".123456" (or with a comma) as nanoseconds.
func fraction(s string) (nano int, ok bool) {
	if s == "" {
		return 0, true
	}
	if len(s) < 2 || (s[0] != '.' && s[0] != ',') {
		return 0, false
	}
	scale := 100_000_000
	for _, c := range []byte(s[1:]) {
		if c < '0' || c > '9' {
			return 0, false
		}
		nano += int(c-'0') * scale
		scale /= 10
	}
	return nano, true
}

// cutZone parts a time of day from its zone.
func cutZone(s string) (text, zone string) {
	if i := strings.IndexAny(s, "Zz+-"); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

// parseZone reads Z, +HH, +HHMM, +HH:MM or +HH:MM:SS as seconds east of UTC.
func parseZone(s string) (offset int, ok bool) {
	if s == "Z" || s == "z" {
		return 0, true
	}
	digits := s[1:]
	if len(digits) == 4 && digits[2] != ':' {
		digits = digits[:2] + ":" + digits[2:]
	}
	for i, scale := 0, 3600; ; i, scale = i+3, scale/60 {
		if scale == 0 || len(digits) < i+2 {
			return 0, false
		}
		n, ok := number(digits[i : i+2])
		if !ok || (i > 0 && n > 59) || n > 23 && i == 0 {
			return 0, false
		}
		offset += n * scale
		if len(digits) == i+2 {
			break
		}
		if digits[i+2] != ':' {
			return 0, false
		}
	}
	if s[0] == '-' {
		offset = -offset
	}
	return offset, true
}

// HasZone reports whether the time s names its zone.
func HasZone(s string) bool {
	if len(s) < 11 {
		return false
	}
	_, zone := cutZone(s[11:])
	return zone != ""
}

func number(s string) (n int, ok bool) {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

func daysIn(year, month int) int {
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}
