package protocol

import (
	"time"

	"github.com/lovage-go/lovage/internal/isotime"
)

// ParseTime reads an ISO 8601 time as Python and Celery write it: a date, or a
// date and a time with or without seconds and their fraction, with the zone Z,
// +00:00, +0530, +05 or none. A time without a zone is in local; nil is UTC.
func ParseTime(s string, local *time.Location) (time.Time, error) { return isotime.Parse(s, local) }

// FormatTime writes t as Python's isoformat does: microseconds only if there
// are any, and the offset as +00:00.
func FormatTime(t time.Time) string { return isotime.Format(t) }

// withZone adds +00:00 to a time without a zone.
func withZone(s string) string {
	switch {
	case s == "" || isotime.HasZone(s):
		return s
	case len(s) == 10:
		return s + "T00:00:00+00:00"
	}
	return s + "+00:00"
}
