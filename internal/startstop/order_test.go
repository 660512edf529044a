package startstop_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/lovage-go/lovage/internal/startstop"
)

func TestOrder(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		names string
		needs map[string]string
		want  string // or part of the error
		fails bool
	}{
		"KeepsTheGivenOrder":  {names: "c a b", want: "c a b"},
		"RequiredComesFirst":  {names: "c a b", needs: map[string]string{"c": "b"}, want: "a b c"},
		"Chains":              {names: "a b c d", needs: map[string]string{"a": "b", "b": "c", "c": "d"}, want: "d c b a"},
		"Diamond":             {names: "top left right root", needs: map[string]string{"top": "left right", "left": "root", "right": "root"}, want: "root left right top"},
		"Nothing":             {},
		"TwiceIsAnError":      {names: "a b a", want: `step "a" is given twice`, fails: true},
		"UnknownIsNamed":      {names: "a b", needs: map[string]string{"b": "x"}, want: `step "b" requires "x", which is none of the steps: a, b`, fails: true},
		"CircleIsNamed":       {names: "z a b c", needs: map[string]string{"z": "a", "a": "b", "b": "c", "c": "a"}, want: "circle: a -> b -> c -> a", fails: true},
		"ItselfIsACircleToo":  {names: "a", needs: map[string]string{"a": "a"}, want: "circle: a -> a", fails: true},
		"BehindWhatIsOrdered": {names: "a b c", needs: map[string]string{"b": "a c", "c": "b"}, want: "circle: b -> c -> b", fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := startstop.Order(strings.Fields(c.names), func(name string) []string { return strings.Fields(c.needs[name]) })
			switch {
			case c.fails && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, %v; want an error with %q", got, err, c.want)
			case !c.fails && (err != nil || !slices.Equal(got, strings.Fields(c.want))):
				t.Errorf("got %v, %v; want %s", got, err, c.want)
			}
		})
	}
}
