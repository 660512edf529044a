package cli_test

import (
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/cli"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/worker"
)

// withGreeting gives the worker, and so the command line, a command of its own.
func withGreeting(s *shell) {
	s.opts = append(s.opts, cli.Worker(func(c *worker.Config) {
		c.Commands = append(c.Commands, control.Command{Name: "greet", Help: "Say hello.", Inspect: true, Args: []string{"name"},
			Params: []control.Param{{Name: "name", Must: true}, {Name: "times", Type: "int"}, {Name: "loud", Type: "bool"}},
			Run:    func(_ context.Context, _ control.Node, a control.Args) (any, error) { return a, nil }})
	}))
}

func TestInspectAndControl(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	withGreeting(s)
	s.setup = func(app *lovage.App) {
		withFailures(app)
		lovage.Func(app, "proj.slow", func(context.Context, lovage.Args) (any, error) { return nil, nil }, lovage.RateLimit("10/m"))
	}
	var b strings.Builder
	say := func(args ...string) { b.WriteString(s.transcript(args...) + "\n") }
	say("inspect", "--list")
	say("control", "--list")
	say("control", "--list", "-j")
	for _, wrong := range [][]string{
		{"inspect"}, {"inspect", "pign"}, {"inspect", "revoke"}, {"inspect", "ping", "x"}, {"inspect", "ping", "-t", "0"}, {"control", "hello"},
		{"control", "rate_limit", "proj.slow"}, {"control", "pool_grow", "many"}, {"control", "revoke"}, {"control", "terminate", "KILL"}, {"inspect", "greet", "you", "1", "maybe"},
	} {
		say(wrong...)
	}
	say("inspect", "ping", "-t", "0.01")
	stop := s.startWorker("-q", "-n", "w1@example.org", "--without-mingle", "-c", "2")
	one := []string{"-t", "20", "-d", "w1@example.org"}
	for _, line := range []string{
		"inspect ping", "inspect ping -j", "inspect ping -q", "inspect active", "inspect reserved", "inspect scheduled", "inspect registered",
		"inspect registered max_retries", "inspect active_queues", "inspect revoked", "inspect query_task a b",
		"control rate_limit proj.slow 5/s", "control rate_limit proj.none 5/s", "control rate_limit proj.slow 5/q",
		"control time_limit proj.slow 1.5 3", "control pool_grow 2", "control pool_shrink", "control pool_restart", "control autoscale 5 2",
		"control revoke one two", "control revoke one -j", "control terminate KILL one", "control terminate NONE one",
		"control revoke_by_stamped_headers tenant=acme order=7", "inspect revoked", "control enable_events", "control enable_events",
		"control disable_events", "control heartbeat", "control add_consumer other", "control cancel_consumer other", "inspect active_queues -j",
		"control election e1 task", "inspect objgraph", "inspect greet you 3 yes",
	} {
		say(append(strings.Fields(line), one...)...)
	}
	text := b.String()
	for name, check := range map[string]func(json.RawMessage) bool{
		"stats":     func(raw json.RawMessage) bool { return strings.Contains(string(raw), `"max-concurrency":3`) },
		"conf":      func(raw json.RawMessage) bool { return strings.Contains(string(raw), `"broker_url":"memory://`) },
		"report":    func(raw json.RawMessage) bool { return strings.Contains(string(raw), "software -> lovage:") },
		"memsample": func(raw json.RawMessage) bool { return regexp.MustCompile(`^"\d+\.\d{3}MB"$`).Match(raw) },
		"clock":     func(raw json.RawMessage) bool { return strings.Contains(string(raw), `{"clock":`) },
	} {
		var got map[string]json.RawMessage
		out := s.ok(append([]string{"inspect", name, "-j"}, one...)...)
		if err := json.Unmarshal([]byte(out), &got); err != nil || !check(got["w1@example.org"]) {
			t.Errorf("inspect %s -j: got %s (%v)", name, out, err)
		}
	}
	stop()
	golden(t, "remote", text)
}

// A revoke that no worker hears holds all the same, for those that start later.
func TestRevokeWhenNobodyIsThere(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	var ids []string
	for range 3 {
		ids = append(ids, strings.TrimSpace(s.ok("call", "proj.add", "-a", "[1, 2]")))
	}
	for _, line := range [][]string{{"revoke", ids[0]}, {"terminate", "TERM", ids[1]}} {
		code, _, stderr := s.run(append([]string{"control", "-t", "0.01"}, line...)...)
		if code != cli.ExitUnavailable || !strings.Contains(stderr, "kept in the result store") {
			t.Errorf("%s: exit code %d, stderr %q; want 69, and that it is kept", line, code, stderr)
		}
	}
	if _, _, stderr := s.run("control", "-t", "0.01", "revoke", "-d", "w9@example.org", ids[2]); strings.Contains(stderr, "kept") {
		t.Errorf("to one worker: stderr %q, want nothing of the others", stderr)
	}
	stop := s.startWorker("-q", "-n", "w1@example.org")
	if got := s.ok("result", ids[2], "--wait=20"); got != "3\n" {
		t.Errorf("the one that is not revoked: got %q, want 3", got)
	}
	for _, id := range ids[:2] {
		if _, _, stderr := s.run("result", id, "--wait=20"); !strings.Contains(stderr, "REVOKED") {
			t.Errorf("result of %s: got %q, want REVOKED", id, stderr)
		}
	}
	stop()
}

func TestControlShutdown(t *testing.T) {
	t.Parallel()
	s, told := newShell(t), make(chan struct{})
	s.setup = func(app *lovage.App) {
		app.Signals.WorkerShuttingDown.Connect(func(context.Context, lovage.WorkerShuttingDown) { close(told) })
	}
	stop := s.startWorker("-q", "-n", "w1@example.org")
	if code, _, stderr := s.run("control", "shutdown", "-t", "0.05"); code != cli.ExitUnavailable || !strings.Contains(stderr, "no worker answers a shutdown") {
		t.Errorf("exit code %d, %s; want 69: the worker does not answer, as none does", code, stderr)
	}
	select {
	case <-told:
	case <-time.After(patience):
		t.Error("the worker is not told to shut down")
	}
	if code, _, stderr := stop(); code != cli.ExitOK || !strings.Contains(stderr, "Got shutdown from remote") {
		t.Errorf("the worker: exit code %d, %s", code, stderr)
	}
}
