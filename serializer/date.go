package serializer

import (
	"fmt"
	"time"

	"github.com/lovage-go/lovage/internal/isotime"
)

// Date is a day of the calendar: Python's datetime.date.
type Date struct {
	Year  int
	Month time.Month
	Day   int
}

// ParseDate reads 2026-11-21. The date of a whole time is taken too.
func ParseDate(s string) (Date, error) {
	t, err := isotime.Parse(s, time.UTC)
	if err != nil {
		return Date{}, err
	}
	return DateOf(t), nil
}

// DateOf is the day of t in t's zone.
func DateOf(t time.Time) Date {
	var d Date
	d.Year, d.Month, d.Day = t.Date()
	return d
}

// String is 2026-11-21.
func (d Date) String() string { return fmt.Sprintf("%04d-%02d-%02d", d.Year, int(d.Month), d.Day) }

// In is the first moment of d in loc.
func (d Date) In(loc *time.Location) time.Time {
	return time.Date(d.Year, d.Month, d.Day, 0, 0, 0, 0, loc)
}

// MarshalJSON writes kombu's tagged form.
func (d Date) MarshalJSON() ([]byte, error) { return appendTagged(nil, "date", d.String()), nil }

// UnmarshalJSON reads the tagged form or a plain string.
func (d *Date) UnmarshalJSON(raw []byte) error {
	return unmarshalText(raw, d, ParseDate, "date", "datetime")
}

// Time is a time of day: Python's datetime.time.
type Time struct {
	Hour, Minute, Second, Nanosecond int
	Zone                             string // "", or as Python wrote it: +00:00
}

// ParseTime reads 23:59, 23:59:58 or 23:59:58.000007, with or without a zone.
func ParseTime(s string) (Time, error) {
	if len(s) > isotime.MaxText {
		return Time{}, fmt.Errorf("time of day: got %d bytes, want HH:MM:SS", len(s))
	}
	c, zone, why := isotime.ParseClock(s)
	if why != "" {
		return Time{}, fmt.Errorf("time of day %q: %s; want HH:MM:SS, such as 23:59:58", s, why)
	}
	return Time{c.Hour, c.Minute, c.Second, c.Nanosecond, zone}, nil
}

// String is 23:59:58, with microseconds if there are any.
func (t Time) String() string {
	s := fmt.Sprintf("%02d:%02d:%02d", t.Hour, t.Minute, t.Second)
	if us := t.Nanosecond / 1000; us != 0 {
		s += fmt.Sprintf(".%06d", us)
	}
	return s + t.Zone
}

// MarshalJSON writes kombu's tagged form.
func (t Time) MarshalJSON() ([]byte, error) { return appendTagged(nil, "time", t.String()), nil }

// UnmarshalJSON reads the tagged form or a plain string.
func (t *Time) UnmarshalJSON(raw []byte) error { return unmarshalText(raw, t, ParseTime, "time") }
