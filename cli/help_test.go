package cli_test

import (
	"strings"
	"testing"

	"github.com/lovage-go/lovage/cli"
)

func TestHelp(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	commands := []string{"call", "report", "result", "version"}
	golden(t, "help", s.ok("--help"))
	for _, c := range commands {
		golden(t, "help_"+c, s.ok(c, "--help"))
	}
	t.Run("NoCommandIsHelp", func(t *testing.T) {
		if got, want := s.ok(), s.ok("--help"); got != want {
			t.Errorf("got %q, want the text of --help", got)
		}
	})
	t.Run("HelpCommandIsHelp", func(t *testing.T) {
		if got, want := s.ok("help", "call"), s.ok("call", "-h"); got != want {
			t.Errorf("got %q, want the text of call -h", got)
		}
	})
	t.Run("NothingIsWiderThanATerminal", func(t *testing.T) {
		for _, c := range commands {
			for line := range strings.Lines(s.ok(c, "-h")) {
				if len(strings.TrimSuffix(line, "\n")) > 80 {
					t.Errorf("%s: line of %d columns, want at most 80: %q", c, len(line), line)
				}
			}
		}
	})
}

func TestWrongUsage(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	var b strings.Builder
	for _, args := range [][]string{
		{"resutl"}, {"flower"}, {"list", "bindings"}, {"nothinglikeit"},
		{"call"}, {"call", "a", "b"}, {"call", "--quee", "x", "a"}, {"call", "-z", "a"}, {"call", "a", "--countdown"},
		{"call", "a", "--countdown", "soon"}, {"call", "a", "--countdown=-1"}, {"call", "a", "--eta", "tomorrow"},
		{"call", "a", "--expires", "later"}, {"call", "a", "-a", "{}"}, {"call", "a", "-a", "[1"}, {"call", "a", "-k", "[]"},
		{"call", "a", "--eta", "2026-12-31T00:00:00Z", "--countdown", "1"}, {"call", "a", "--wait=long"},
		{"result"}, {"version", "now"}, {"--workdir", "/nowhere/at/all", "report"},
	} {
		code, stdout, _ := s.run(args...)
		if code != cli.ExitUsage || stdout != "" {
			t.Errorf("%q: exit code %d, stdout %q; want 2 and none", args, code, stdout)
		}
		b.WriteString(s.transcript(args...) + "\n")
	}
	golden(t, "usage", b.String())
}
