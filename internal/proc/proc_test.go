package proc_test

import (
	"os"
	"testing"
	"time"

	"github.com/lovage-go/lovage/internal/proc"
)

func TestNodeName(t *testing.T) {
	t.Parallel()
	const host = "web1.example.com"
	for _, c := range []struct{ given, want string }{
		{"", "celery@web1.example.com"},
		{"w1@%h", "w1@web1.example.com"},
		{"w1@", "w1@web1.example.com"},
		{"@box", "celery@box"},
		{"box", "celery@box"}, // Celery reads a name without @ as a host
		{"%n.work@%d", "web1.work@example.com"},
		{"100%%@%h", "100%@web1.example.com"},
		{"a@b@c", "a@b@c"},
	} {
		if got := proc.NodeName(c.given, host); got != c.want {
			t.Errorf("NodeName(%q) = %q, want %q", c.given, got, c.want)
		}
	}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	parent := proc.Node{Name: "w1", Host: "web1.example.com"}
	child := parent
	child.Index = 3
	for _, c := range []struct {
		node       proc.Node
		text, want string
	}{
		{parent, "/var/log/%n%I.log", "/var/log/w1.log"},
		{child, "/var/log/%n%I.log", "/var/log/w1-3.log"},
		{child, "%p %h %d %i", "w1@web1.example.com web1.example.com example.com 3"},
		{parent, "%i %z %%n", "0 %z %n"},
		{proc.Node{Host: "h"}, "%p", "celery@h"},
	} {
		if got := c.node.Expand(c.text); got != c.want {
			t.Errorf("Expand(%q) = %q, want %q", c.text, got, c.want)
		}
	}
}

func TestThisProcess(t *testing.T) {
	t.Parallel()
	if got, want := proc.PID(), os.Getpid(); got != want {
		t.Errorf("PID() = %d, want %d", got, want)
	}
	if proc.Hostname() == "" {
		t.Error("Hostname() is empty")
	}
	if got := proc.CPUs(); got < 1 {
		t.Errorf("CPUs() = %d, want at least 1", got)
	}
	// A Go test binary needs some MiB; a value in bytes or pages would be far off.
	if got := proc.RSS(); got < 1<<10 || got > 16<<20 {
		t.Errorf("RSS() = %d KiB, want between 1 MiB and 16 GiB", got)
	}
	if age := time.Since(proc.Started()); age < 0 || age > time.Hour {
		t.Errorf("the process started %v ago, want less than an hour", age)
	}
}
