package cli_test

import (
	"strings"
	"testing"

	"github.com/lovage-go/lovage/cli"
)

func TestHelp(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	commands := []string{"call", "dead", "dead list", "dead show", "dead requeue", "dead drop", "list", "list bindings", "purge", "queue", "queue pause", "queue resume", "queue unpark", "queues", "report", "result", "status", "tasks", "version", "worker"}
	golden(t, "help", s.ok("--help"))
	for _, c := range commands {
		golden(t, "help_"+strings.ReplaceAll(c, " ", "_"), s.ok(append(strings.Fields(c), "--help")...))
	}
	t.Run("NoCommandIsHelp", func(t *testing.T) {
		if got, want := s.ok(), s.ok("--help"); got != want {
			t.Errorf("got %q, want the text of --help", got)
		}
	})
	t.Run("HelpCommandIsHelp", func(t *testing.T) {
		if got, want := s.ok("help", "dead", "list")+s.ok("help"), s.ok("dead", "list", "-h")+s.ok("-h"); got != want {
			t.Errorf("got %q, want the text of dead list -h and of -h", got)
		}
	})
	t.Run("NothingIsWiderThanATerminal", func(t *testing.T) {
		for _, c := range commands {
			for line := range strings.Lines(s.ok(append(strings.Fields(c), "-h")...)) {
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
		{"resutl"}, {"flower"}, {"list", "queues"}, {"list", "bindings", "x"}, {"nothinglikeit"}, {"help", "resutl"}, {"help", "flower"},
		{"call"}, {"call", "a", "b"}, {"call", "--quee", "x", "a"}, {"call", "-z", "a"}, {"call", "a", "--countdown"},
		{"call", "a", "--countdown", "soon"}, {"call", "a", "--countdown=-1"}, {"call", "a", "--eta", "tomorrow"},
		{"call", "a", "--expires", "later"}, {"call", "a", "-a", "{}"}, {"call", "a", "-a", "[1"}, {"call", "a", "-k", "[]"},
		{"call", "a", "--eta", "2026-12-31T00:00:00Z", "--countdown", "1"}, {"call", "a", "--wait=long"},
		{"dead", "lst"}, {"dead", "show"}, {"dead", "drop"}, {"dead", "requeue", "1", "--all"}, {"dead", "drop", "1", "-Q", "a"}, {"dead", "list", "-n", "0"},
		{"queue", "pase"}, {"queue", "pause"}, {"status", "-t", "0"}, {"purge", "now"},
		{"worker", "now"}, {"worker", "--max-tasks-per-child", "0"}, {"worker", "-P", "gorutine"}, {"worker", "-B"}, {"worker", "-D"}, {"worker", "--uid", "1"},
		{"worker", "-c", "0"}, {"worker", "-l", "loud"}, {"worker", "--time-limit", "1", "--soft-time-limit", "2"}, {"worker", "--log-format", "xml"},
		{"worker", "worker_concurrency=many"}, {"worker", "--concurency", "2"},
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
