package protocol_test

import (
	"testing"
	"time"

	"github.com/lovage-go/lovage/protocol"
)

func TestParseTime(t *testing.T) {
	t.Parallel()
	local := time.FixedZone("", 2*3600)
	for text, want := range map[string]string{
		"2026-11-21T10:30:00.000123+00:00": "2026-11-21T10:30:00.000123+00:00",
		"2026-11-21T10:30:00Z":             "2026-11-21T10:30:00+00:00",
		"2026-11-21 10:30:00+0530":         "2026-11-21T10:30:00+05:30",
		"2026-11-21T10:30:00-03":           "2026-11-21T10:30:00-03:00",
		"2026-11-21T10:30:00+00:19:32":     "2026-11-21T10:30:00+00:19:32",
		"2026-11-21T10:30:00.5":            "2026-11-21T10:30:00.500000+02:00",
		"2026-11-21T10:30":                 "2026-11-21T10:30:00+02:00",
		"2026-11-21":                       "2026-11-21T00:00:00+02:00",
		"2024-02-29":                       "2024-02-29T00:00:00+02:00",
	} {
		got, err := protocol.ParseTime(text, local)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if s := protocol.FormatTime(got); s != want {
			t.Errorf("%s: got %s, want %s", text, s, want)
		}
	}
	for _, text := range []string{
		"", "now", "2026-02-29", "2026-13-01", "2026-11-21T", "2026-11-21T25:00:00", "2026-11-21T10:30:00.",
		"2026-11-21T10:30:00+1", "2026-11-21T10:30:00+00:", "2026-11-21T10:30:00 UTC", "0000-01-01", "2026-11-21x10:30:00",
		"2026-11-21T10:30:00+25:00", "２０２６-11-21",
	} {
		if got, err := protocol.ParseTime(text, local); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}
