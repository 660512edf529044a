package pyjson_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/lovage-go/lovage/internal/pyjson"
)

// TestStrings puts each byte at each place of strings around the width by which
// they are read, with what looks like another byte's high bit beside it.
func TestStrings(t *testing.T) {
	t.Parallel()
	for n := range 20 {
		for at := range n {
			for c := range 128 {
				for _, fill := range []string{"a", "!", "#", "[", "]", "\u00ff", "\x7f"} {
					text := `"` + strings.Repeat(fill, at) + string(rune(c)) + strings.Repeat(fill, n-at-1) + `"`
					s := pyjson.Scanner{Data: []byte(text)}
					_, end, plain, err := s.String()
					if err == nil {
						err = s.End()
					}
					if valid := json.Valid([]byte(text)); valid != (err == nil) {
						t.Fatalf("%q: got error %v, want one: %t", text, err, !valid)
					}
					if err == nil && (end != len(text)-1 || plain != !strings.Contains(text, `\`)) {
						t.Fatalf("%q: got end %d, plain %t", text, end, plain)
					}
				}
			}
		}
	}
}
