package cli

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func (s *session) logtoolCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "logtool COMMAND [FILES]...",
		Short: "Read what workers have logged.",
		Long:  "Read what workers, of this program or of Celery, have logged in the default format. Without files, or for -, standard input is read.",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return usagef(cmd, "No such command '%s'.%s", args[0], meant("", args[0], []string{"debug", "errors", "incomplete", "stats", "traces"}))
		},
	}
	add := func(name, short string, do func(a *audit) (end func())) {
		cmd.AddCommand(&cobra.Command{
			Use: name + " [FILES]...", Short: short,
			// The settings are of no concern here, and a wrong one keeps nobody from a log.
			PersistentPreRunE: func(*cobra.Command, []string) error { return nil },
			RunE: func(_ *cobra.Command, files []string) error {
				a := newAudit()
				end := do(a)
				err := a.files(s.in, files)
				if end != nil {
					end()
				}
				return err
			},
		})
	}
	line := func(text string) { fmt.Fprintln(s.out, text) }
	add("debug", "Show the lines that are not about tasks.", func(a *audit) func() { a.onOther = line; return nil })
	add("errors", "Show the lines of tasks that did not succeed.", func(a *audit) func() { a.onError = line; return nil })
	add("incomplete", "Show the tasks that were received and have no end.", func(a *audit) func() {
		return func() {
			for _, id := range a.incomplete() {
				line("Did not complete: " + id)
			}
		}
	})
	add("stats", "Count tasks.", func(a *audit) func() { return func() { line(a.report()) } })
	add("traces", "Show tracebacks, each with the line that it belongs to.", func(a *audit) func() { a.onTrace = line; return nil })
	return cmd
}

// What a worker logs, here and in Celery 4 and 5.
var (
	logStart    = regexp.MustCompile(`^\[\d{4}-\d\d-\d\d `)
	logReceived = regexp.MustCompile(`\] (?:Received task: ([^\s\[]+)\[([^\]]+)\]|Task ([^\s\[]+)\[([^\]]+)\] received)`)
	logEnd      = regexp.MustCompile(`\] (?:Task |Discarding (?:revoked|expired) task: )([^\s\[]+)\[([^\]]+)\](.*)`)
)

// audit follows the tasks of a log.
type audit struct {
	onError, onTrace, onOther func(line string)

	received map[string]int // ids, in the order of their first line
	ended    map[string]bool
	failed   map[string]bool
	names    map[string]int // how many tasks of each name
	previous string         // the line that a traceback belongs to
}

func newAudit() *audit {
	ignore := func(string) {}
	return &audit{onError: ignore, onTrace: ignore, onOther: ignore, received: map[string]int{}, ended: map[string]bool{}, failed: map[string]bool{}, names: map[string]int{}}
}

// files reads all of them, also after one that cannot be read.
func (a *audit) files(stdin io.Reader, names []string) error {
	if len(names) == 0 {
		names = []string{"-"}
	}
	var errs []error
	for _, name := range names {
		if name == "-" {
			errs = append(errs, a.read("standard input", stdin))
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, a.read(name, f), f.Close())
	}
	return errors.Join(errs...)
}

func (a *audit) read(name string, r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		a.line(lines.Text())
	}
	a.previous = ""
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

func (a *audit) line(text string) {
	if !logStart.MatchString(text) {
		if a.previous != "" {
			a.onTrace(a.previous)
			a.previous = ""
		}
		a.onTrace(text)
		return
	}
	a.previous = text
	if m := logReceived.FindStringSubmatch(text); m != nil {
		name, id := cmp.Or(m[1], m[3]), cmp.Or(m[2], m[4])
		if _, again := a.received[id]; !again { // a retry is received once more
			a.received[id] = len(a.received)
			a.names[name]++
		}
		delete(a.ended, id)
		return
	}
	m := logEnd.FindStringSubmatch(text)
	if m == nil {
		a.onOther(text)
		return
	}
	id, rest := m[2], m[3]
	if strings.HasPrefix(rest, " retry") {
		return // the task goes on
	}
	a.ended[id] = true
	delete(a.failed, id)
	if !strings.HasPrefix(rest, " succeeded") {
		a.failed[id] = true
		a.onError(text)
	}
}

func (a *audit) incomplete() []string {
	ids := slices.SortedFunc(maps.Keys(a.received), func(x, y string) int { return cmp.Compare(a.received[x], a.received[y]) })
	return slices.DeleteFunc(ids, func(id string) bool { return a.ended[id] })
}

// report has Celery's form.
func (a *audit) report() string {
	types := slices.SortedFunc(maps.Keys(a.names), func(x, y string) int {
		return cmp.Or(cmp.Compare(a.names[y], a.names[x]), cmp.Compare(x, y))
	})
	for i, name := range types {
		types[i] = fmt.Sprint(name, ": ", a.names[name])
	}
	return fmt.Sprintf("\nReport\n======\nTask total: %d\nTask errors: %d\nTask success: %d\nTask completed: %d\nTasks\n=====\n%s\n",
		len(a.received), len(a.failed), len(a.ended)-len(a.failed), len(a.ended), strings.Join(types, "\n"))
}
