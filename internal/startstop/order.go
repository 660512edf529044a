package startstop

import (
	"fmt"
	"slices"
	"strings"
)

// Order sorts names so that each comes after all that it requires. Where that
// leaves a choice, the given order is kept. A name that is given twice, one that
// is required and not given, and a circle are errors that name them.
func Order(names []string, requires func(name string) []string) ([]string, error) {
	waits := make(map[string][]string, len(names))
	for _, name := range names {
		if _, twice := waits[name]; twice {
			return nil, fmt.Errorf("step %q is given twice: the names of steps are unique", name)
		}
		waits[name] = requires(name)
	}
	for _, name := range names {
		for _, need := range waits[name] {
			if _, known := waits[need]; !known {
				return nil, fmt.Errorf("step %q requires %q, which is none of the steps: %s", name, need, strings.Join(names, ", "))
			}
		}
	}
	left := slices.Clone(names)
	out := make([]string, 0, len(names))
	for len(left) > 0 {
		next := slices.IndexFunc(left, func(name string) bool {
			return !slices.ContainsFunc(waits[name], func(need string) bool { return slices.Contains(left, need) })
		})
		if next < 0 {
			return nil, fmt.Errorf("steps require each other in a circle: %s", strings.Join(circle(left, waits), " -> "))
		}
		out = append(out, left[next])
		left = slices.Delete(left, next, next+1)
	}
	return out, nil
}

// circle follows what names of left require, all of which has no beginning,
// until one comes again.
func circle(left []string, waits map[string][]string) []string {
	var path []string
	for name := left[0]; ; {
		if i := slices.Index(path, name); i >= 0 {
			return append(path[i:], name)
		}
		path = append(path, name)
		i := slices.IndexFunc(waits[name], func(need string) bool { return slices.Contains(left, need) })
		name = waits[name][i]
	}
}
