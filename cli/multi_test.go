package cli_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lovage-go/lovage/internal/testenv"
)

// multiLines are command lines of multi on which Celery and Lovage agree.
var multiLines = [][]string{
	{"show", "3", "-c", "3"},
	{"show", "3", "-c", "3", "-c:1", "10"},
	{"show", "image", "video", "data", "-c", "3", "-c:image", "10"},
	{"show", "image", "video", "data", "-c", "3", "-c:2", "10"},
	{"show", "5", "-c", "3", "-c:1-3", "10"},
	{"show", "5", "-c", "3", "-c:1,4,5", "10", "--time-limit:2=5.5"},
	{"show", "foo", "bar", "baz", "xuzzy", "-c", "3", "-c:foo,bar,baz", "10"},
	{"show", "10", "-l", "INFO", "-Q:1-3", "images,video", "-Q:4,5", "data", "-Q", "default", "-l:4,5", "DEBUG"},
	{"show", "2", "--hostname=worker.example.com", "-c", "3"},
	{"show", "2", "-n", "worker.example.com"},
	{"show", "3", "--range-prefix=worker", "-E"},
	{"show", "foo@worker.example.com", "bar@worker.example.com", "-c", "3", "-l:bar", "INFO"},
	{"show", "foo@%h", "bar@%h"},
	{"show", "a", "b", "--prefix=x-", "--suffix=example.org"},
	{"show", "2", "-A", "proj", "-b", "redis://localhost/1", "--result-backend=redis://localhost/2", "-l", "INFO"},
	{"show", "w1", "--statedb=/data/%n/%d-%p-%N.db", "-S:1", "other%i%I"},
	{"show", "2", "-c", "1", "--append=task_acks_late=1"},
	{"show", "2", "-l", "INFO", "--", "worker_send_task_events=1", "x=2"},
	{"show", "w1", "-q", "-l", "INFO", "--quiet"},
	{"names", "3"},
	{"names", "foo", "bar@box", "%n@%h"},
	{"expand", "%n|%h|%d|%p|%N|%i|%I|%%", "2", "foo@box.example.org"},
	{"expand", "/var/%n.log", "3", "-c", "3"},
	{"get", "celery2@box", "3", "--suffix=box", "-c:2", "7"},
}

// celeryMulti prints what Celery's multi prints, for each line.
const celeryMulti = `
import io, json, sys
from celery.bin.multi import MultiTool
out = []
for argv in json.loads(sys.argv[1]):
    text = io.StringIO()
    MultiTool(stdout=text, stderr=text).execute_from_commandline(['multi'] + argv, cmd='-m celery worker --detach')
    out.append(text.getvalue())
print(json.dumps(out))
`

var celerysOwn = regexp.MustCompile(` --(executable|pidfile|logfile)=\S+`)

// TestMultiIsCelerys compares names, ranges and options with Celery's.
func TestMultiIsCelerys(t *testing.T) {
	t.Parallel()
	lines := make([][]string, len(multiLines))
	for i, l := range multiLines { // Celery makes the default directories
		at := slices.Index(l, "--")
		if at < 0 {
			at = len(l)
		}
		lines[i] = slices.Concat(l[:at], []string{"--pidfile=%n.pid", "--logfile=%n%I.log"}, l[at:])
	}
	text, err := json.Marshal(lines)
	if err != nil {
		t.Fatal(err)
	}
	var celery []string
	if err := json.Unmarshal(testenv.Python(t, t.Context(), nil, celeryMulti, string(text)), &celery); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	plain := func(text string) string {
		var out []string
		for line := range strings.Lines(text) {
			line = celerysOwn.ReplaceAllString(strings.TrimSpace(line), "")
			line = strings.NewReplacer("/usr/bin/python3 -m celery", "PROG", "-m celery ", "", " --detach", "", self, "PROG").Replace(line)
			out = append(out, strings.Join(strings.Fields(line), " "))
		}
		return strings.Join(out, "\n")
	}
	s := newShell(t)
	for i, line := range lines {
		code, got, stderr := s.run(append([]string{"multi"}, line...)...)
		if code != 0 || stderr != "" || plain(got) != plain(celery[i]) {
			t.Errorf("multi %q: exit code %d, stderr %q, got\n%s\nwant Celery's\n%s", multiLines[i], code, stderr, plain(got), plain(celery[i]))
		}
	}
}

func TestMultiShow(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := newShell(t)
	var b strings.Builder
	for _, line := range [][]string{
		{"multi", "show", "2", "--suffix=box", "-l", "INFO", "-c:2", "3"},
		{"-b", "redis://localhost/1", "-q", "multi", "show", "w1@box", "--pidfile=/run/proj/%n.pid", "-f", "/var/log/proj/%n%I.log"},
		{"multi", "show", "-E", "w1@box", "--loglevel", "INFO", "-c4", "-Q", "a b"},
		{"multi", "show", "w1@box", "w2@box", "-c:1-2", "3", "--executable=/opt/proj", "--cmd=worker --without-gossip"},
		{"multi", "get", "w3@box", "w1@box"},
		{"multi", "show", "w1@box", "w2@box", "-c:3", "1"},
		{"multi", "show", "w1@box", "-c:w2", "1"},
		{"multi", "show", "w1@box", "w1@box"},
		{"multi", "show"},
		{"multi", "expand"},
		{"multi", "strat", "w1"},
	} {
		b.WriteString(strings.ReplaceAll(s.transcript(line...), self, "/bin/proj") + "\n")
	}
	golden(t, "multi_show", b.String())
}
