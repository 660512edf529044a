package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/cli"
	"github.com/lovage-go/lovage/worker"
)

// startWorker runs the worker command in this process until what it returns is
// called, which gives its exit code and all that it printed.
func (s *shell) startWorker(args ...string) (stop func() (code int, stdout, stderr string)) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	ready, ended := make(chan struct{}), make(chan int, 1)
	var out, errw bytes.Buffer
	opts := append([]cli.Option{cli.Environ(s.env), cli.Worker(func(c *worker.Config) {
		c.Ready = func(worker.Info) { close(ready) }
	})}, s.opts...)
	app := s.app()
	go func() {
		ended <- cli.Run(ctx, app, append([]string{"worker"}, args...), strings.NewReader(""), &out, &errw, opts...)
	}()
	select {
	case <-ready:
	case code := <-ended:
		s.t.Fatalf("the worker ended with %d before it was ready: %s%s", code, out.String(), errw.String())
	case <-time.After(patience):
		s.t.Fatalf("the worker is not ready after %s", patience)
	}
	s.t.Cleanup(cancel)
	return func() (int, string, string) {
		cancel()
		select {
		case code := <-ended:
			return code, out.String(), errw.String()
		case <-time.After(patience):
			s.t.Fatalf("the worker has not ended after %s", patience)
		}
		return -1, "", ""
	}
}

func withFailures(app *lovage.App) {
	lovage.Func(app, "proj.fail", func(_ context.Context, in struct{ Why string }) (int, error) {
		return 0, &lovage.TaskError{Type: "ValueError", Module: "builtins", Args: []any{in.Why}}
	})
	lovage.Func(app, "proj.greet", func(_ context.Context, in struct {
		Name string `lovage:"name,default=\"you\""`
	}) (string, error) {
		return "hello " + in.Name, nil
	})
	lovage.Func(app, "proj.raw", func(_ context.Context, in lovage.Args) (any, error) { return in.Positional, nil })
}

func TestCallAndResult(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.setup = withFailures
	var b strings.Builder
	line := func(args ...string) { b.WriteString(s.transcript(args...) + "\n") }

	line("call", "proj.add", "-a", "[2, 3]")
	line("call", "proj.add", "-j", "-a", "[2, 3]")
	line("call", "proj.ad", "-a", "[2, 3]", "--expires", "60", "--queue", "other")
	line("call", "proj.add", "-a", "[2, 3, 4]")
	id := strings.TrimSpace(s.ok("call", "proj.add", "-a", "[20, 3]"))
	line("result", id)
	line("result", id, "--json")
	line("result", id, "--wait=0.01")
	stop := s.startWorker("-q")
	if code, stdout, stderr := s.run("result", id, "--wait=20"); code != 0 || stdout != "23\n" || stderr != "" {
		t.Errorf("result --wait: exit code %d, stdout %q, stderr %q; want 0 and 23", code, stdout, stderr)
	}
	line("result", id, "-t", "proj.add")
	line("result", id, "-j")
	line("result", id, "--traceback")
	line("call", "proj.greet", "--wait", "-k", `{"name": "Zoë"}`)
	line("call", "proj.greet", "--wait", "-q")
	line("call", "proj.raw", "--wait", "-q", "-a", `[1.50, {"b": 1, "a": [null, true]}, "x"]`)
	line("call", "proj.fail", "--wait=20", "-a", `["no such luck"]`)
	line("call", "proj.fail", "--wait=20", "-j", "-a", `["no such luck"]`)
	failed := strings.TrimSpace(s.ok("call", "proj.fail", "-a", `["again"]`))
	s.run("result", failed, "--wait=20")
	line("result", failed, "--traceback")
	golden(t, "call", b.String())

	if code, stdout, stderr := stop(); code != cli.ExitOK || stdout != "" || strings.Count(stderr, "raised unexpected: ValueError(") != 3 {
		t.Errorf("worker -q: exit code %d, stdout %q, stderr %q; want 0, none and three failures", code, stdout, stderr)
	}
}

func TestDelayedCalls(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.ok("call", "proj.add", "-a", "[1, 1]", "--countdown", "3600")
	s.ok("call", "proj.add", "-a", "[1, 1]", "--eta", time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	s.ok("call", "proj.add", "-a", "[1, 1]", "--eta", time.Now().Add(time.Hour).Format("2006-01-02T15:04:05"))
	s.ok("call", "proj.add", "-a", "[1, 1]", "--countdown", "0")
	if got, want := s.ok("queues", "-j"), `{"celery":{"ready":1,"claimed":0,"delayed":3,"dead":0}}`+"\n"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestQueuesAndPurge(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	var b strings.Builder
	line := func(stdin string, args ...string) {
		s.stdin = stdin
		b.WriteString(s.transcript(args...) + "\n")
	}
	line("", "queues")
	line("", "list", "bindings")
	line("", "purge", "-f")
	s.ok("call", "proj.add", "-a", "[1, 1]")
	s.ok("call", "proj.add", "-a", "[1, 1]", "--queue", "hipri")
	s.ok("call", "proj.add", "-a", "[1, 1]", "--queue", "hipri", "--countdown", "60")
	line("", "queues")
	line("", "queues", "hipri", "nothere", "-j")
	line("", "list", "bindings")
	line("", "list", "bindings", "-j")
	line("", "purge")
	line("n\n", "purge")
	line("\n", "purge", "-Q", "celery,hipri")
	line("yes\n", "purge", "-Q", "celery,hipri,celery", "-X", "celery")
	line("", "purge", "-f", "-j")
	line("", "purge", "-X", "celery")
	line("", "queues")
	golden(t, "queues", b.String())
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	var b strings.Builder
	line := func(stdin string, args ...string) {
		s.stdin = stdin
		b.WriteString(s.transcript(args...) + "\n")
	}
	line("", "dead", "list")
	stop := s.startWorker("-q", "-Q", "celery,hipri")
	var first string
	for i, queue := range []string{"celery", "hipri", "celery"} {
		id := strings.TrimSpace(s.ok("call", fmt.Sprintf("other.task%d", i), "-a", "[1]", "-k", `{"x": "line\nbreak"}`, "--queue", queue))
		if first == "" {
			first = id
		}
		if code, _, stderr := s.run("result", id, "--wait=20"); code != cli.ExitFailure {
			t.Fatalf("an unknown task: exit code %d, stderr %q; want 1", code, stderr)
		}
	}
	stop()
	ids := regexp.MustCompile(`(?m)^(\d+) `).FindAllString(s.ok("dead", "list"), -1)
	if len(ids) != 3 {
		t.Fatalf("got %d dead letters, want 3", len(ids))
	}
	oldest := strings.TrimSpace(ids[2])
	line("", "dead", "list")
	line("", "dead", "list", "--limit=2", "-j")
	line("", "dead", "list", "-Q", "hipri")
	line("", "dead", "show", oldest)
	line("", "dead", "show", oldest, "-j")
	line("", "dead", "show", "99999")
	line("", "dead", "requeue", oldest)
	line("", "queues")
	line("", "dead", "requeue", oldest)
	line("", "dead", "drop", "99998", "99999", "--json")
	line("n\n", "dead", "drop", "--all")
	line("", "dead", "drop", "--all", "-Q", "hipri", "-f")
	line("y\n", "dead", "drop", "--all")
	line("", "dead", "drop", "--all")
	line("", "dead", "list", "-j")
	text := b.String()
	// Which numbers the letters have depends on what else the store counted.
	for i, id := range ids {
		id = strings.TrimSpace(id)
		text = regexp.MustCompile(`(?m)^`+id+` +`).ReplaceAllString(text, fmt.Sprintf("<%d> ", 3-i))
		text = strings.NewReplacer(`"id":"`+id+`",`, fmt.Sprintf(`"id":"<%d>",`, 3-i), " "+id+"\n", fmt.Sprintf(" <%d>\n", 3-i), " "+id+" -j", fmt.Sprintf(" <%d> -j", 3-i)).Replace(text)
	}
	text = regexp.MustCompile(`gen\d+@[^"\\]+`).ReplaceAllString(text, "<origin>")
	golden(t, "dead", regexp.MustCompile(`(?m)^ID +QUEUE`).ReplaceAllString(text, "ID QUEUE"))
}

func TestStatus(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	var b strings.Builder
	b.WriteString(s.transcript("status", "-t", "0.01") + "\n")
	b.WriteString(s.transcript("status", "-t", "0.01", "--json") + "\n")
	stop := s.startWorker("-q", "-n", "w1@example.org", "--without-mingle")
	b.WriteString(s.transcript("status", "-t", "20", "-d", "w1@example.org") + "\n")
	b.WriteString(s.transcript("status", "-t", "20", "-d", "w1@example.org", "-j") + "\n")
	b.WriteString(s.transcript("status", "-t", "20", "-d", "w1@example.org", "-q") + "\n")
	stop()
	golden(t, "status", b.String())
}

func TestTasksVersionReport(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.url = "memory://u:secret@reports"
	s.env = []string{"CELERY_TASK_ACKS_LATE=false"}
	s.setup = func(app *lovage.App) {
		withFailures(app)
		lovage.Func(app, "proj.many", func(_ context.Context, in struct {
			A int
			B []string       `lovage:"b,optional"`
			C []int          `lovage:"c,rest"`
			D string         `lovage:"d,kwonly"`
			E map[string]any `lovage:"e,extra"`
		}) (int, error) {
			return 0, nil
		})
	}
	var b strings.Builder
	for _, args := range [][]string{{"tasks"}, {"tasks", "-j"}, {"--version"}, {"version"}, {"version", "--json"}, {"report"}, {"report", "--json"}} {
		b.WriteString(s.transcript(args...) + "\n")
	}
	golden(t, "tasks", b.String())
	if strings.Contains(b.String(), "secret") {
		t.Error("the password is shown")
	}
	if all := s.ok("report", "--all"); !strings.Contains(all, "\ntask_default_queue: celery\n") {
		t.Errorf("report --all lacks task_default_queue: %s", all)
	}
}

func TestNoTasksNoWorker(t *testing.T) {
	t.Parallel()
	var out, errw bytes.Buffer
	app := lovage.New("empty", lovage.Config{BrokerURL: "memory://empty"})
	code := cli.Run(t.Context(), app, []string{"worker"}, strings.NewReader(""), &out, &errw, cli.Environ(nil))
	if code != cli.ExitFailure || out.Len() > 0 {
		t.Errorf("exit code %d, stdout %q; want 1 and none", code, out.String())
	}
	golden(t, "notasks", errw.String())
}

func TestUnavailable(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config lovage.Config
		args   []string
		code   int
		want   string
	}{
		"NoBroker":      {lovage.Config{}, []string{"call", "a"}, cli.ExitFailure, "broker_url is not set"},
		"NoBackend":     {lovage.Config{BrokerURL: "memory://nb"}, []string{"result", "a"}, cli.ExitFailure, "no result backend"},
		"WaitNoBackend": {lovage.Config{BrokerURL: "memory://nb"}, []string{"call", "a", "--wait"}, cli.ExitFailure, "--wait: lovage: no result backend"},
		"NoDriver":      {lovage.Config{BrokerURL: "carrier-pigeon://"}, []string{"queues"}, cli.ExitFailure, "is not known"},
		"NoConfigFile":  {lovage.Config{}, []string{"--config", "nowhere.yaml", "report"}, cli.ExitFailure, "nowhere.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out, errw bytes.Buffer
			code := cli.Run(t.Context(), lovage.New("proj", c.config), c.args, strings.NewReader(""), &out, &errw, cli.Environ(nil))
			if code != c.code || out.Len() > 0 || !strings.Contains(errw.String(), c.want) {
				t.Errorf("exit code %d, stdout %q, stderr %q; want %d, none and %q", code, out.String(), errw.String(), c.code, c.want)
			}
		})
	}
	t.Run("BrokerAway", func(t *testing.T) {
		t.Parallel()
		app := lovage.New("proj", lovage.Config{}, lovage.WithBroker(brokerAway))
		var errw bytes.Buffer
		if code := cli.Run(t.Context(), app, []string{"queues"}, strings.NewReader(""), io.Discard, &errw, cli.Environ(nil)); code != cli.ExitUnavailable {
			t.Errorf("exit code %d, stderr %q; want 69", code, errw.String())
		}
	})
	t.Run("Interrupted", func(t *testing.T) {
		t.Parallel()
		s := newShell(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("interrupt"))
		var errw bytes.Buffer
		code := cli.Run(ctx, s.app(), []string{"result", "a", "--wait"}, strings.NewReader(""), io.Discard, &errw, cli.Environ(nil))
		if code != cli.ExitInterrupted || errw.String() != "Aborted!\n" {
			t.Errorf("exit code %d, stderr %q; want 130 and Aborted!", code, errw.String())
		}
	})
}
