package saferepr

import (
	"fmt"
	"strings"
	"time"

	"github.com/lovage-go/lovage/internal/isotime"
)

// datetime writes t as Python's repr does. Raw tells whether it has a zone.
func datetime(t time.Time, raw string) string {
	var tz string
	if text := raw[:strings.LastIndexByte(raw, '"')]; isotime.HasZone(text[strings.LastIndexByte(text, '"')+1:]) {
		_, offset := t.Zone()
		tz = ", tzinfo=" + timezone(offset)
	}
	return fmt.Sprintf("datetime.datetime(%d, %d, %d, %s%s)", t.Year(), int(t.Month()), t.Day(),
		clock(t.Hour(), t.Minute(), t.Second(), t.Nanosecond()), tz)
}

// clock leaves out seconds and microseconds that are zero.
func clock(hour, minute, second, nano int) string {
	s := fmt.Sprintf("%d, %d", hour, minute)
	us := nano / 1000
	if second != 0 || us != 0 {
		s += fmt.Sprintf(", %d", second)
	}
	if us != 0 {
		s += fmt.Sprintf(", %d", us)
	}
	return s
}

// zone writes the zone of a time of day, if it has one.
func zone(text string) string {
	if text == "" {
		return ""
	}
	t, err := isotime.Parse("2000-01-01T00:00:00"+text, nil)
	if err != nil {
		return ""
	}
	_, offset := t.Zone()
	return ", tzinfo=" + timezone(offset)
}

// timezone writes an offset in seconds; Python's timedelta has whole days apart.
func timezone(offset int) string {
	switch {
	case offset == 0:
		return "datetime.timezone.utc"
	case offset < 0:
		return fmt.Sprintf("datetime.timezone(datetime.timedelta(days=-1, seconds=%d))", offset+86400)
	}
	return fmt.Sprintf("datetime.timezone(datetime.timedelta(seconds=%d))", offset)
}
