package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/proc"
	"github.com/lovage-go/lovage/internal/term"
	"github.com/lovage-go/lovage/worker"
)

// Worker changes what the worker command gives to its worker, after the flags.
func Worker(change func(*worker.Config)) Option {
	return func(s *session) { s.worker = append(s.worker, change) }
}

func (s *session) workerCommand() *cobra.Command {
	f := &s.workerFlags
	cmd := &cobra.Command{
		Use:   "worker [NAME=VALUE]...",
		Short: "Start worker instance.",
		Long: "Start worker instance: run this program's tasks until told to stop. The first SIGTERM or SIGINT lets what runs end, " +
			"a second one or SIGQUIT hands it back to the queue, a third exits at once.\n\nExamples:\n\n" +
			"\t$ " + s.name + " worker -l INFO\n\t$ " + s.name + " worker -l INFO -Q hipri,lopri\n\t$ " + s.name + " worker --concurrency=4 task_acks_late=false",
		Args: workerArgs,
		RunE: func(cmd *cobra.Command, tail []string) error { return s.runWorker(cmd, tail) },
	}
	f.declare(cmd)
	s.workerCmd = cmd
	return cmd
}

func (s *session) runWorker(cmd *cobra.Command, tail []string) (err error) {
	f := &s.workerFlags
	ctx := cmd.Context()
	err = s.app.Configure(func(c *lovage.Config) ([]lovage.Warning, error) { return c.LoadArgs(f.settings(cmd, tail)) })
	if err != nil {
		return usagef(cmd, "%v.", err)
	}
	if err := worker.Setup(s.app, f.hostname); err != nil {
		return usagef(cmd, "%v.", err)
	}
	conf := s.app.Settings()
	if !lovage.IsChild() { // whose parent has become it
		if err := s.become(&conf); err != nil {
			return usagef(cmd, "%v.", err)
		}
	}
	cfg, err := f.config(conf)
	if err != nil {
		return usagef(cmd, "Invalid value for -P / --pool: %v.", err)
	}
	for _, change := range s.worker {
		change(&cfg)
	}
	for _, name := range []string{"max-memory-per-child", "max-tasks-per-child"} {
		if cfg.Pool != "prefork" && cmd.Flags().Changed(name) {
			s.note("--%s has no effect but on tasks declared with Isolated: the pool %s has no child processes", name, cfg.Pool)
		}
	}
	worker.TuneProcess()
	if lovage.IsChild() { // its log and its files are its parent's
		return worker.New(s.app, cfg).Run(ctx)
	}
	node := proc.NodeName(or(cfg.Hostname, "celery@%h"), "")
	closeLog, err := s.workerLog(node, &conf)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeLog()) }()
	if len(s.app.TaskNames()) == 0 { // freezes the App, so that its log comes first
		return s.noTasks()
	}
	if err := s.noteExcluded(&cfg); err != nil {
		return err
	}
	quiet := s.global.quiet || f.json
	ready := cfg.Ready
	cfg.Ready = func(i worker.Info) {
		if !quiet && f.level.Level > slog.LevelInfo { // the log does not say so
			fmt.Fprintf(s.out, "%s ready.\n", i.Hostname)
		}
		if ready != nil {
			ready(i)
		}
	}
	cold := false
	disconnect := s.app.Signals.WorkerShuttingDown.Connect(func(_ context.Context, e lovage.WorkerShuttingDown) {
		cold = cold || e.How == string(worker.Cold)
	})
	defer disconnect()
	w := worker.New(s.app, cfg)
	if s.process {
		defer w.HandleSignals()() // before the pid file tells where to send them
	}
	removePid, err := holdPidfile(expand(or(f.pidfile, conf.WorkerPidfile), node))
	if err != nil {
		return err
	}
	defer func() {
		if !s.process || !errors.Is(err, worker.ErrRestart) { // then the process stays
			removePid()
		}
	}()
	if !quiet {
		if err := s.banner(node, cfg, &conf); err != nil {
			return err
		}
	}
	if s.process {
		defer w.NotifySystemd()()
		if ctx.Err() != nil { // a signal that came before
			return nil
		}
		ctx = context.WithoutCancel(ctx)
	}
	if err := w.Run(ctx); errors.Is(err, worker.ErrStuck) {
		return &exitError{ExitStuck, err}
	} else if err != nil {
		return err
	}
	if cold {
		return exitf(ExitFailure, "the worker was stopped cold: what still ran has gone back to its queue, or has failed if it acks early")
	}
	return nil
}

// become makes the process that of the user, the group and the mask that it was
// given, before it opens anything.
func (s *session) become(conf *lovage.Config) error {
	f := &s.workerFlags
	uid, gid, umask := or(f.uid, conf.WorkerUID), or(f.gid, conf.WorkerGID), or(f.umask, conf.WorkerUmask)
	if uid == "" && gid == "" && umask == "" {
		return nil
	}
	if !s.process {
		return errors.New("--uid, --gid and --umask are for a program that is a worker and nothing else: start it by cli.Main")
	}
	if umask != "" {
		if err := proc.Umask(umask); err != nil {
			return fmt.Errorf("invalid value for --umask: %w", err)
		}
	}
	return proc.Become(uid, gid)
}

// noteExcluded tells of names that exclude nothing: one that is misspelt leaves its
// queue in.
func (s *session) noteExcluded(cfg *worker.Config) error {
	queues, err := s.app.Queues(cfg.Queues...)
	if err != nil || len(cfg.ExcludeQueues) == 0 {
		return err
	}
	names := make([]string, len(queues))
	for i := range queues {
		names[i] = queues[i].Name
	}
	for _, x := range cfg.ExcludeQueues {
		if !slices.Contains(names, x) {
			s.note("--exclude-queues: %s is none of the worker's queues: %s", x, strings.Join(names, ", "))
		}
	}
	return nil
}

// noTasks explains why this program is no worker.
func (s *session) noTasks() error {
	return exitf(ExitFailure, `a worker runs the tasks of its own program, and this one has none.
Tasks are Go code: declare them in a main of yours, which is then the worker:

	app := lovage.New("proj", lovage.Config{})
	lovage.Func(app, "proj.add", add) // func add(ctx context.Context, in AddArgs) (int, error)
	cli.Main(app)                     // then: go run . worker -l INFO

with the imports github.com/lovage-go/lovage and github.com/lovage-go/lovage/cli, and
_ "github.com/lovage-go/lovage/embedded" for the store that needs no server`)
}

// banner is what Celery shows at the start of a worker.
func (s *session) banner(node string, cfg worker.Config, conf *lovage.Config) error {
	transport, results := s.where()
	queues, err := s.app.Queues(cfg.Queues...)
	if err != nil {
		return err
	}
	concurrency := cfg.Concurrency
	if concurrency <= 0 {
		concurrency = conf.WorkerConcurrency
	}
	pool, err := worker.PoolName(or(cfg.Pool, conf.WorkerPool))
	if err != nil {
		return err
	}
	if pool == "solo" {
		concurrency = 1
	}
	slots := fmt.Sprint(concurrency)
	if a := cfg.Autoscale; a.Max > 0 {
		slots = fmt.Sprintf("{min=%d, max=%d}", a.Min, a.Max)
	}
	taskEvents := "OFF (enable -E to monitor tasks in this worker)"
	if cfg.TaskEvents || conf.WorkerSendTaskEvents != nil && *conf.WorkerSendTaskEvents {
		taskEvents = "ON"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s v%s (lovage)\n\n", s.out.Paint(node, term.Bold), lovage.Version)
	fmt.Fprintf(&b, "%s/%s %s %s\n\n", runtime.GOOS, runtime.GOARCH, runtime.Version(), time.Now().Format("2006-01-02 15:04:05"))
	fmt.Fprintf(&b, "%s\n.> app:         %s\n.> transport:   %s\n.> results:     %s\n.> concurrency: %s (%s)\n.> task events: %s\n\n",
		s.out.Paint("[config]", term.Cyan), s.app.Name(), transport, results, slots, pool, taskEvents)
	fmt.Fprintf(&b, "%s\n", s.out.Paint("[queues]", term.Cyan))
	for _, q := range queues {
		if !slices.Contains(cfg.ExcludeQueues, q.Name) {
			fmt.Fprintf(&b, ".> %-16s exchange=%s(%s) key=%s\n", q.Name, q.Exchange.Name, or(q.Exchange.Type, "direct"), q.RoutingKey)
		}
	}
	fmt.Fprintf(&b, "\n%s\n", s.out.Paint("[tasks]", term.Cyan))
	for _, name := range s.app.TaskNames() {
		fmt.Fprintf(&b, "  . %s\n", name)
	}
	b.WriteByte('\n')
	_, err = io.WriteString(s.out, b.String())
	return err
}

// workerLog makes the worker's log, and slog's default one where the process is
// ours and worker_hijack_root_logger is on. What comes back closes the file.
func (s *session) workerLog(node string, conf *lovage.Config) (closeLog func() error, err error) {
	f := &s.workerFlags
	w, closeLog := io.Writer(s.err), func() error { return nil }
	colour := s.err.Colour()
	if conf.WorkerLogColor != nil {
		colour = *conf.WorkerLogColor && !s.global.noColor
	}
	logfile := expand(or(f.logfile, conf.WorkerLogfile), node)
	if signals := &s.app.Signals; signals.SetupLogging.Connected() {
		signals.SetupLogging.Send(context.Background(), lovage.SetupLogging{
			Level: f.level.Level, LogFile: logfile, Format: conf.WorkerLogFormat, Colorize: colour})
		return closeLog, nil
	}
	if logfile != "" {
		file, err := os.OpenFile(logfile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			return nil, fmt.Errorf("open the log file: %w", err)
		}
		w, closeLog, colour = file, file.Close, false
	}
	var h slog.Handler
	if f.json {
		h = jsonHandler(w, f.level.Level)
	} else {
		c := handlerConfig{level: f.level.Level, format: conf.WorkerLogFormat, taskFormat: conf.WorkerTaskLogFormat}
		if colour {
			c.paint = term.Fixed(w, 80, true).Paint
		}
		h = newHandler(w, c)
	}
	s.app.Signals.AfterSetupLogger.Send(context.Background(), lovage.AfterSetupLogger{
		Handler: &h, Level: f.level.Level, LogFile: logfile, Format: conf.WorkerLogFormat, TaskFormat: conf.WorkerTaskLogFormat, Colorize: colour})
	log := slog.New(h)
	s.app.SetDefaultLogger(log)
	if s.process && (conf.WorkerHijackRootLogger == nil || *conf.WorkerHijackRootLogger) {
		slog.SetDefault(log)
	}
	return closeLog, nil
}

// expand replaces Celery's specifiers in a path.
func expand(path, node string) string {
	name, host, _ := strings.Cut(node, "@")
	return proc.Node{Name: name, Host: host}.Expand(path)
}
