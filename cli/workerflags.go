package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/worker"
)

// workerFlags are Celery's flags of worker. Those that have no effect here are
// told of; those whose effect a user would miss are refused.
type workerFlags struct {
	hostname     string
	level        levelFlag
	logFormat    string
	json         bool
	logfile      string
	pidfile      string
	uid, gid     string
	umask        string
	health       string
	stateDB      string
	prefetch     int
	noPrefetch   bool
	concurrency  int
	autoscale    string
	pool         string
	maxTasks     int
	stuck        int
	maxMemory    int
	events       bool
	hard, soft   float64
	purge        bool
	queues       []string
	exclude      []string
	noHeartbeat  bool
	noMingle     bool
	noGossip     bool
	heartbeat    int
	ignoredText  map[string]*string
	ignoredFlags map[string]*bool
}

// without says what flags would do that this version does not; refused ones
// end the command.
var without = map[string]struct {
	text    string
	refused bool
}{
	"detach":            {"a worker runs in the foreground: start it from systemd (docs/systemd.md), or several in the background with multi start", true},
	"optimization":      {"a slot is taken before a message is, so there is no profile to choose", false},
	"include":           {"a Go program has all its tasks linked in", false},
	"beat":              {"there is no scheduler to start", true},
	"schedule-filename": {"there is no scheduler in this version", false},
	"scheduler":         {"there is no scheduler in this version", false},
	"executable":        {"the program is the executable", false},
}

func (f *workerFlags) declare(cmd *cobra.Command) {
	f.level.Level = levels["WARNING"]
	f.ignoredText, f.ignoredFlags = map[string]*string{}, map[string]*bool{}
	g := group{cmd.Flags(), "Worker Options"}
	text := func(name, short, metavar, usage string) {
		p := new(string)
		g.text(p, name, short, metavar, usage)
		f.ignoredText[name] = p
	}
	flag := func(name, short, usage string) {
		p := new(bool)
		g.flag(p, name, short, usage)
		f.ignoredFlags[name] = p
	}
	g.text(&f.hostname, "hostname", "n", "HOSTNAME", "Set custom hostname (e.g., 'w1@%h'). Expands: %h (hostname), %n (name) and %d (domain).")
	flag("detach", "D", "Not in this version: use a supervisor, or multi start.")
	g.text(&f.stateDB, "statedb", "S", "PATH", "Keep what is revoked in this file over restarts; %n, %h and %d as for --hostname.")
	g.value(&f.level, "loglevel", "l", "[DEBUG|INFO|WARNING|ERROR|CRITICAL|FATAL]", "Logging level. Default: WARNING.")
	g.text(&f.logFormat, "log-format", "", "[text|json]", "Celery's lines, or one JSON object a line.")
	g.flag(&f.json, "json", "j", "Same as --log-format json.")
	text("optimization", "O", "[default|fair|fast]", "Accepted; tasks are always dealt out fairly.")
	g.number(&f.prefetch, "prefetch-multiplier", "", "N", "Claim at most that many messages ahead for each slot. Default: as many as short tasks need.")
	g.flag(&f.noPrefetch, "disable-prefetch", "", "Claim a message only when a slot is free.")

	g.title = "Pool Options"
	g.number(&f.concurrency, "concurrency", "c", "N", "Number of tasks that run at once. The default is the number of CPUs available.")
	g.text(&f.pool, "pool", "P", "[goroutine|prefork|solo]", "Pool implementation. threads, gevent and eventlet are taken for goroutine, processes for prefork.")
	g.flag(&f.events, "task-events", "E", "Send task-related events that can be captured by monitors.")
	g.alias("task-events", "events")
	g.float(&f.hard, "time-limit", "", "FLOAT", "Enables a hard time limit (in seconds) for tasks.")
	g.float(&f.soft, "soft-time-limit", "", "FLOAT", "Enables a soft time limit (in seconds) for tasks.")
	g.number(&f.stuck, "stuck-limit", "", "INTEGER", "Stop with exit code 75, for a supervisor to start anew, when so many tasks run on past their hard time limit. Default: ten for each slot.")
	g.number(&f.maxTasks, "max-tasks-per-child", "", "INTEGER", "Replace a child of the prefork pool after so many tasks.")
	g.number(&f.maxMemory, "max-memory-per-child", "", "INTEGER", "Replace a child above so many KiB of memory, when its task has ended.")

	g.title = "Queue Options"
	g.flag(&f.purge, "purge", "", "Erase the messages of the worker's queues first.")
	g.alias("purge", "discard")
	g.list(&f.queues, "queues", "Q", "Queues to consume. Default: task_queues, or the default queue.")
	g.list(&f.exclude, "exclude-queues", "X", "Queues of the default ones to leave out.")
	text("include", "I", "COMMA SEPARATED LIST", "Accepted; a Go program has all its tasks.")

	g.title = "Features"
	g.flag(&f.noGossip, "without-gossip", "", "Do not listen to other workers' events, and take no part in elections.")
	g.flag(&f.noMingle, "without-mingle", "", "Ask no other worker at the start what it has revoked and which tasks it knows.")
	g.flag(&f.noHeartbeat, "without-heartbeat", "", "Send no heartbeats; monitors will not see the worker.")
	g.number(&f.heartbeat, "heartbeat-interval", "", "INTEGER", "Seconds between heartbeats. Default: 2.")
	g.text(&f.autoscale, "autoscale", "", "MAX,MIN", "Let the number of tasks that run at once follow the load between these bounds; --concurrency has no effect then.")

	g.title = "Embedded Beat Options"
	flag("beat", "B", "Not in this version.")
	text("schedule-filename", "s", "TEXT", "Accepted; no effect in this version.")
	g.alias("schedule-filename", "schedule")
	text("scheduler", "", "TEXT", "Accepted; no effect in this version.")

	g.title = "Daemonization Options"
	g.text(&f.logfile, "logfile", "f", "PATH", "Append the log to this file; %n, %h and %d as for --hostname. Default: standard error.")
	g.text(&f.pidfile, "pidfile", "", "PATH", "Hold the process id in this file while the worker runs.")
	g.text(&f.uid, "uid", "", "TEXT", "User to run as, if root starts the program.")
	g.text(&f.gid, "gid", "", "TEXT", "Group to run as, if root starts the program.")
	g.text(&f.umask, "umask", "", "TEXT", "Permissions that new files do not get: 022.")
	g.text(&f.health, "health", "", "ADDRESS", "Serve /livez and /readyz on 127.0.0.1:PORT or unix:/path; public:HOST:PORT for the whole network.")
	text("executable", "", "TEXT", "Accepted; the program is the executable.")
}

// check refuses what cannot be honoured and tells what has no effect.
func (s *session) checkWorker(cmd *cobra.Command, f *workerFlags) error {
	for name, w := range without {
		if w.refused && cmd.Flags().Changed(name) {
			return usagef(cmd, "%s is not in this version: %s.", flagName(cmd.Flags().Lookup(name)), w.text)
		}
	}
	names := make([]string, 0, len(without))
	for name := range without {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if cmd.Flags().Changed(name) {
			s.note("--%s has no effect: %s", name, without[name].text)
		}
	}
	switch f.logFormat {
	case "", "text", "json":
	default:
		return usagef(cmd, "Invalid value for --log-format: %q: want text or json.", f.logFormat)
	}
	f.json = f.json || f.logFormat == "json"
	for name, n := range map[string]int{"concurrency": f.concurrency, "heartbeat-interval": f.heartbeat, "max-tasks-per-child": f.maxTasks, "max-memory-per-child": f.maxMemory} {
		if n < 1 && cmd.Flags().Changed(name) {
			return usagef(cmd, "Invalid value for %s: %d: want 1 or more.", flagName(cmd.Flags().Lookup(name)), n)
		}
	}
	if _, err := worker.ParseAutoscale(f.autoscale); err != nil && f.autoscale != "" {
		return usagef(cmd, "Invalid value for --autoscale: %v.", err)
	}
	if f.prefetch < 0 {
		return usagef(cmd, "Invalid value for --prefetch-multiplier: %d: want 0 or more.", f.prefetch)
	}
	for name, n := range map[string]float64{"time-limit": f.hard, "soft-time-limit": f.soft} {
		if d, ok := seconds(n); cmd.Flags().Changed(name) && (!ok || d == 0) {
			return usagef(cmd, "Invalid value for --%s: %v: want seconds, more than 0.", name, n)
		}
	}
	if f.hard > 0 && f.soft > f.hard {
		return usagef(cmd, "The soft time limit (%gs) is above the hard one (%gs).", f.soft, f.hard)
	}
	return nil
}

// settings are the words that change the configuration: Celery's tail of
// name=value, where a leading dot stands for worker_, and flags that are
// settings.
func (f *workerFlags) settings(cmd *cobra.Command, tail []string) []string {
	words := make([]string, 0, len(tail)+1)
	if cmd.Flags().Changed("prefetch-multiplier") {
		words = append(words, fmt.Sprintf("worker_prefetch_multiplier=%d", f.prefetch))
	}
	for _, w := range tail {
		name, value, _ := strings.Cut(w, "=")
		name = strings.ToLower(name)
		if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
			name = "worker_" + name[1:]
		}
		words = append(words, name+"="+value)
	}
	return words
}

// workerArgs takes name=value words.
func workerArgs(cmd *cobra.Command, args []string) error {
	for _, a := range args {
		if name, _, ok := strings.Cut(a, "="); !ok || name == "" {
			return usagef(cmd, "Got unexpected extra argument (%s): only settings as name=value may follow the options.", a)
		}
	}
	return nil
}

// config is the worker's configuration from the flags.
func (f *workerFlags) config(conf lovage.Config) (worker.Config, error) {
	pool, err := worker.PoolName(or(f.pool, conf.WorkerPool))
	if err != nil {
		return worker.Config{}, err
	}
	c := worker.Config{
		Pool: pool, MaxTasksPerChild: f.maxTasks, StuckLimit: f.stuck, MaxMemoryPerChild: f.maxMemory,
		Hostname: f.hostname, Concurrency: f.concurrency, Queues: f.queues, ExcludeQueues: f.exclude,
		TaskEvents: f.events, WithoutHeartbeat: f.noHeartbeat, WithoutMingle: f.noMingle, WithoutGossip: f.noGossip, HeartbeatInterval: time.Duration(f.heartbeat) * time.Second,
		Purge: f.purge, Health: f.health, StateDB: f.stateDB,
	}
	if f.autoscale != "" { // it was checked
		c.Autoscale, _ = worker.ParseAutoscale(f.autoscale)
	}
	c.TimeLimit, _ = seconds(f.hard)
	c.SoftTimeLimit, _ = seconds(f.soft)
	if f.noPrefetch {
		c.LookAhead = -1
	}
	return c, nil
}
