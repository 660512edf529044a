package prefork

import (
	"strings"
	"testing"
)

func TestCompare(t *testing.T) {
	t.Parallel()
	parent := greeting{Version: "1.2.3", Build: "a", App: "proj", Tasks: []string{"t.a", "t.b"}}
	for name, c := range map[string]struct {
		child greeting
		want  string // "": it is one of ours
	}{
		"TheSame":      {parent, ""},
		"OtherVersion": {greeting{Version: "1.2.4", Build: "a", App: "proj", Tasks: parent.Tasks}, "another build of the program (Lovage 1.2.4, this is 1.2.3): restart the worker"},
		"OtherBuild":   {greeting{Version: "1.2.3", Build: "b", App: "proj", Tasks: parent.Tasks}, "another build of the program"},
		"OtherApp":     {greeting{Version: "1.2.3", Build: "a", App: "else", Tasks: parent.Tasks}, `app "else", its parent one of "proj"`},
		"OtherTasks":   {greeting{Version: "1.2.3", Build: "a", App: "proj", Tasks: []string{"t.b", "t.c"}}, "t.a (parent only), t.c (child only)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := parent.compare(&c.child)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
