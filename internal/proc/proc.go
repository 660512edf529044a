// Package proc is the one place that asks the operating system who this process
// is: host name, process id, environment, memory, start. Everything else is
// given these values, so that two "machines" can live in one test process.
package proc

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// started is taken at package initialisation, which is as near to the start of
// the process as a library can see.
var started = time.Now()

// Hostname returns the name of this machine, or "localhost" if it has none.
func Hostname() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "localhost"
	}
	return name
}

// PID returns the id of this process.
func PID() int { return os.Getpid() }

// Environ returns the environment, name=value.
func Environ() []string { return os.Environ() }

// Getenv returns a variable of the environment, "" if it is not set.
func Getenv(name string) string { return os.Getenv(name) }

// Started returns when this process started.
func Started() time.Time { return started }

// CPUs returns the number of runs that can make progress at once: GOMAXPROCS,
// which follows the CPU quota of a container.
func CPUs() int { return runtime.GOMAXPROCS(0) }

// Node is what a node name is expanded from.
type Node struct {
	Name  string // before the @; "celery" if empty
	Host  string // after it; Hostname() if empty
	Index int    // of the pool's process: 0 in the parent
}

// Expand replaces Celery's specifiers in a node name, a log file or a pid file:
//
//	%p  name@host        %n  name            %h  host
//	%d  domain of host   %i  index, 0 in the parent
//	%I  "-index" for a child, nothing for the parent
//	%%  a percent sign
//
// Other specifiers are left as they are.
func (n Node) Expand(text string) string {
	name, host := n.Name, n.Host
	if name == "" {
		name = "celery"
	}
	if host == "" {
		host = Hostname()
	}
	_, domain, _ := strings.Cut(host, ".")
	index, dashed := strconv.Itoa(n.Index), ""
	if n.Index > 0 {
		dashed = "-" + index
	}
	return strings.NewReplacer("%%", "%", "%p", name+"@"+host, "%n", name, "%h", host,
		"%d", domain, "%i", index, "%I", dashed).Replace(text)
}

// NodeName completes and expands the name that a worker was given, as Celery
// does: what has no @ is a host, a missing name is celery, a missing host is
// this one (or host, if that is not empty). In it %h is the host, %n its part
// before the first dot and %d the rest.
func NodeName(given, host string) string {
	if host == "" {
		host = Hostname()
	}
	name, at, has := strings.Cut(given, "@")
	if !has {
		name, at = "", given
	}
	if name == "" {
		name = "celery"
	}
	if at == "" {
		at = host
	}
	short, _, _ := strings.Cut(host, ".")
	return Node{Name: short, Host: host}.Expand(name + "@" + at)
}
