package saferepr_test

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/lovage-go/lovage/internal/saferepr"
)

// FuzzRepr demands that any text gives a bounded notation, never a panic.
func FuzzRepr(f *testing.F) {
	for _, c := range cuts {
		f.Add(c.args, c.max)
	}
	f.Add(`[{"__type__": "datetime", "__value__": "2024-02-29T12:30:45-03:00"}, {"__type__": "base64", "__value__": "/wA="}]`, 50)
	f.Fuzz(func(t *testing.T, raw string, max int) {
		got := saferepr.AppendArgs(nil, json.RawMessage(raw), max%2000)
		if n, most := utf8.RuneCount(got), 4*saferepr.Max*4+100; n > most {
			t.Fatalf("got %d characters, want at most %d", n, most)
		}
		saferepr.AppendKwargs(nil, json.RawMessage(raw), max%2000)
	})
}
