//go:build linux

package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/memory"
	"github.com/lovage-go/lovage/worker"
)

// ledgerKey names the file that tasks in children write to.
const ledgerKey = "LOVAGE_TEST_LEDGER"

// patience is how long anything is waited for.
const patience = time.Minute

// note writes a line to the ledger, with the process that did.
func note(format string, args ...any) {
	path := os.Getenv(ledgerKey)
	if path == "" { // a worker without children
		return
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	fmt.Fprintf(f, "%d "+format+"\n", append([]any{os.Getpid()}, args...)...)
}

// Errand says what a task in a child does.
type Errand struct {
	Do  string
	For time.Duration `lovage:"for,default=0"`
}

// errand is a class whose runs may do anything to their process.
type errand struct {
	lovage.Task
	again *lovage.Handle[Errand, int]
}

func (t *errand) Init(context.Context) error {
	if os.Getenv("LOVAGE_TEST_INIT") == "fail" {
		return errBoom
	}
	note("init %s", t.Name())
	return nil
}

func (t *errand) Close() error { note("close %s", t.Name()); return nil }

func (t *errand) OnFailure(_ context.Context, r *lovage.Request, info *lovage.ErrorInfo) {
	note("failed %s %s", r.ID, info.Type)
}

func (t *errand) Run(ctx context.Context, in Errand) (int, error) {
	r := lovage.RequestFrom(ctx)
	note("run %s %s", r.ID, in.Do)
	pid := os.Getpid()
	if do, once := strings.CutPrefix(in.Do, "once "); once {
		if in.Do = "ok"; r.Delivery.Losses == 0 {
			in.Do = do
		}
	}
	switch in.Do {
	case "join":
		other, err := t.again.Delay(ctx, Errand{Do: "ok"})
		if err != nil {
			return pid, err
		}
		if _, err := other.Get(lovage.AllowJoin(ctx)); err != nil {
			return pid, err
		}
	case "abort":
		for n := 0; !r.Aborted(); n++ { // which the wish outlasts
			if err := r.UpdateState(ctx, "PROGRESS", map[string]any{"n": n}); err != nil {
				return pid, err
			}
			select {
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
				return pid, context.Cause(ctx)
			}
		}
	case "reject":
		return pid, lovage.Reject(errBoom, false)
	case "ignore":
		return pid, lovage.ErrIgnore
	case "wait":
		<-ctx.Done()
		note("cancelled %s %v", r.ID, context.Cause(ctx))
		return pid, context.Cause(ctx)
	case "deaf":
		for end := time.Now().Add(in.For); time.Now().Before(end); {
		}
	case "sleep":
		time.Sleep(in.For)
	case "held": // until the test says so
		for _, err := os.Stat(os.Getenv(ledgerKey) + ".go"); err != nil; _, err = os.Stat(os.Getenv(ledgerKey) + ".go") {
			<-time.After(5 * time.Millisecond)
		}
	case "fail":
		return pid, errBoom
	case "panic":
		panic("boom")
	case "retry":
		if r.Retries < 1 {
			return pid, lovage.Retry(errBoom, lovage.Countdown(0))
		}
	case "goroutine":
		go func() { panic("alone") }()
		<-ctx.Done()
	case "exit":
		os.Exit(7)
	case "segv":
		_ = syscall.Kill(pid, syscall.SIGSEGV)
		<-ctx.Done()
	case "kill":
		_ = syscall.Kill(pid, syscall.SIGKILL)
		<-ctx.Done()
	case "overflow":
		debug.SetMaxStack(1 << 20)
		return deeper(0), nil
	case "alloc":
		b := make([]byte, in.For)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		hoard = b
	case "print":
		fmt.Println("said aloud")
		fmt.Fprint(os.Stderr, "without an end")
		slog.Info("by slog", "n", 3)
		t.Log(ctx).Warn("by its log", "d", time.Second)
	case "goexit":
		note("goexit %s", r.ID)
		runtime.Goexit()
	}
	return pid, nil
}

var hoard []byte

func deeper(n int) int {
	var pad [1024]byte
	pad[n%1024] = 1
	if n < 0 { // never
		return 0
	}
	return deeper(n+1) + int(pad[0])
}

// yardApp is the app of parents and of their children.
func yardApp(conf lovage.Config, opts ...lovage.AppOption) (*lovage.App, *lovage.Handle[Errand, int]) {
	app := lovage.New(or(os.Getenv("LOVAGE_TEST_APP"), "yard"), conf, opts...)
	class := &errand{}
	c := lovage.Register(app, "yard.errand", class, lovage.DefaultRetryDelay(0), lovage.Isolated())
	class.again = c.Handle
	lovage.Func(app, "yard.pid", func(context.Context, struct{}) (int, error) { return os.Getpid(), nil })
	lovage.Func(app, "yard.add", add)
	lovage.Func(app, "yard.echo", func(ctx context.Context, text string) (string, error) {
		slog.Info("heard", "text", text)
		return text, nil
	})
	lovage.Func(app, "yard.list", func(_ context.Context, in []int) (string, error) {
		note("body %v", in)
		return fmt.Sprint(in), nil
	})
	lovage.Errback(app, "yard.direct", func(_ context.Context, r *lovage.Request, info *lovage.ErrorInfo) error {
		note("direct %s %s", r.ID, info.Type)
		return nil
	})
	app.Signals.WorkerProcessInit.Connect(func(_ context.Context, e lovage.WorkerProcessInit) { note("process init %s", e.Hostname) })
	app.Signals.WorkerProcessShutdown.Connect(func(_ context.Context, e lovage.WorkerProcessShutdown) { note("process shutdown %s", e.Hostname) })
	if os.Getenv("LOVAGE_TEST_SIGNALS") != "" {
		noteSignals(app)
	}
	if os.Getenv("LOVAGE_TEST_EXTRA") != "" {
		lovage.Func(app, "yard.extra", add)
	}
	return app, c.Handle
}

// yardChild is what this test binary does as a child of a yard.
func yardChild() int {
	app, _ := yardApp(lovage.Config{BrokerURL: or(os.Getenv("LOVAGE_TEST_URL"), "memory://none"), ResultBackend: or(os.Getenv("LOVAGE_TEST_URL"), "memory://none")})
	fmt.Println(worker.Run(context.Background(), app, worker.Config{}))
	return 1
}

// yard is a worker with children, in this process.
type yard struct {
	t      testing.TB
	store  *memory.Store
	app    *lovage.App
	do     *lovage.Handle[Errand, int]
	w      *worker.Worker
	log    *logbook
	ledger string
	ready  chan struct{}
	cancel context.CancelFunc
	ended  chan error
}

func newYard(t testing.TB, conf lovage.Config, cfg worker.Config, env ...string) *yard {
	t.Helper()
	y := &yard{t: t, store: memory.New(), log: &logbook{}, ledger: filepath.Join(t.TempDir(), "ledger"), ready: make(chan struct{}), ended: make(chan error, 1)}
	opts := []lovage.AppOption{lovage.WithLogger(slog.New(slog.NewTextHandler(y.log, &slog.HandlerOptions{Level: slog.LevelDebug})))}
	if conf.BrokerURL == "" {
		opts = append(opts,
			lovage.WithBroker(func(context.Context) (broker.Conn, error) { return y.store.Broker(), nil }),
			lovage.WithBackend(func(context.Context) (backend.Backend, error) { return y.store.Backend(), nil }))
	}
	y.app, y.do = yardApp(conf, opts...)
	cfg.Pool, cfg.Concurrency = or(cfg.Pool, "prefork"), or(cfg.Concurrency, 2)
	cfg.ChildEnv = append([]string{ledgerKey + "=" + y.ledger, roleKey + "=yard"}, env...)
	cfg.Ready = func(worker.Info) { close(y.ready) }
	y.w = worker.New(y.app, cfg)
	return y
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// start runs the worker until the test ends, and then wants nothing to be left.
func (y *yard) start() *yard {
	y.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	y.cancel = cancel
	go func() { y.ended <- y.w.Run(ctx) }()
	select {
	case <-y.ready:
	case err := <-y.ended:
		y.t.Fatalf("Run: %v\n%s", err, y.log)
	case <-time.After(patience):
		y.t.Fatalf("the worker is not ready after %s\n%s", patience, y.log)
	}
	y.t.Cleanup(func() { y.stop() })
	return y
}

func (y *yard) stop() {
	y.t.Helper()
	if y.cancel == nil {
		return
	}
	y.cancel()
	y.cancel = nil
	select {
	case err := <-y.ended:
		if err != nil {
			y.t.Errorf("Run: got %v, want nil", err)
		}
	case <-time.After(patience):
		y.t.Fatalf("the worker has not stopped after %s\n%s", patience, y.log)
	}
	if s := y.w.Stats(); s.SlotsUsed != 0 || s.Active != 0 || s.Reserved != 0 || s.Finishing != 0 || s.Stuck != 0 {
		y.t.Errorf("at the end: got %+v, want no slot used and nothing under way", s)
	}
	if left := childrenOf(os.Getpid(), y.ledger); len(left) > 0 {
		y.t.Errorf("children left: %v", left)
	}
}

// childrenOf are the processes with a parent whose environment names the ledger.
func childrenOf(parent int, ledger string) (list []int) {
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range all {
		stat, _ := os.ReadFile(dir + "/stat")
		var pid, ppid int
		var state string
		if i := bytes.LastIndexByte(stat, ')'); i > 0 {
			fmt.Sscanf(string(stat[i+1:]), " %s %d", &state, &ppid)
			fmt.Sscanf(string(stat), "%d", &pid)
		}
		env, _ := os.ReadFile(dir + "/environ")
		if (parent == 0 || ppid == parent) && pid != os.Getpid() && state != "Z" && bytes.Contains(env, []byte(ledgerKey+"="+ledger+"\x00")) {
			list = append(list, pid)
		}
	}
	return list
}

func (y *yard) send(in Errand, opts ...lovage.CallOption) *lovage.Result[int] {
	y.t.Helper()
	r, err := y.do.Delay(context.Background(), in, opts...)
	if err != nil {
		y.t.Fatal(err)
	}
	return r
}

// get waits for a result.
func (y *yard) get(r *lovage.Result[int]) (int, error) {
	y.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	n, err := r.Get(ctx)
	if ctx.Err() != nil {
		y.t.Fatalf("no result of %s after %s\n%s", r.ID(), patience, y.log)
	}
	return n, err
}

// goOn ends the runs that are held.
func (y *yard) goOn() {
	y.t.Helper()
	if err := os.WriteFile(y.ledger+".go", nil, 0o600); err != nil {
		y.t.Fatal(err)
	}
}

// noted are the lines of the ledger with a text.
func (y *yard) noted(text string) (lines []string) {
	data, _ := os.ReadFile(y.ledger)
	for _, l := range strings.Split(string(data), "\n") {
		if strings.Contains(l, text) {
			lines = append(lines, l)
		}
	}
	return lines
}

// sees waits until the ledger has a line.
func (y *yard) sees(text string) string {
	y.t.Helper()
	for deadline := time.Now().Add(patience); ; <-time.After(5 * time.Millisecond) {
		if lines := y.noted(text); len(lines) > 0 {
			return lines[0]
		}
		if time.Now().After(deadline) {
			data, _ := os.ReadFile(y.ledger)
			y.t.Fatalf("no %q after %s\n%s\n%s", text, patience, data, y.log)
		}
	}
}

func (y *yard) lengths() broker.Length {
	y.t.Helper()
	conn := y.store.Broker()
	defer conn.Close()
	all, err := conn.Lengths(y.t.Context(), "celery")
	if err != nil {
		y.t.Fatal(err)
	}
	return all["celery"]
}

func (y *yard) logs(text string) {
	y.t.Helper()
	if !strings.Contains(y.log.String(), text) {
		y.t.Errorf("the log lacks %q:\n%s", text, y.log)
	}
}

func TestPrefork(t *testing.T) {
	t.Parallel()
	y := newYard(t, lovage.Config{}, worker.Config{}).start()
	if got := y.noted(" init yard.errand"); len(got) != 2 || strings.Fields(got[0])[0] == strings.Fields(got[1])[0] {
		t.Errorf("Init before the worker is ready: got %q, want one in each of two children", got)
	}
	pids := map[int]bool{}
	for range 4 {
		pid, err := y.get(y.send(Errand{Do: "ok"}))
		if err != nil {
			t.Fatal(err)
		}
		pids[pid] = true
	}
	if pids[os.Getpid()] {
		t.Error("a task ran in the parent")
	}
	if _, err := y.get(y.send(Errand{Do: "fail"})); err == nil || !strings.Contains(err.Error(), "boom") {
		t.Errorf("fail: got %v, want boom", err)
	}
	r := y.send(Errand{Do: "panic"})
	var te *lovage.TaskError
	if _, err := y.get(r); !errors.As(err, &te) || te.Type != "Panic" || !strings.Contains(te.Traceback, "prefork_test.go") {
		t.Errorf("panic: got %v, want a Panic with its stack", err)
	}
	y.sees("failed " + r.ID())
	if _, err := y.get(y.send(Errand{Do: "retry"})); err != nil {
		t.Errorf("retry: got %v, want success the second time", err)
	}
	y.stop()
	if n := len(y.noted("process init " + y.w.Hostname())); n != 2 {
		t.Errorf("WorkerProcessInit: %d times, want one in each child", n)
	}
	if n := len(y.noted("process shutdown " + y.w.Hostname())); n != 2 {
		t.Errorf("WorkerProcessShutdown: %d times, want one in each child", n)
	}
	if got := y.noted("close"); len(got) != 2 {
		t.Errorf("Close: got %q, want one in each of two children", got)
	}
	if parent := fmt.Sprint(os.Getpid(), " "); slices.ContainsFunc(y.noted(""), func(l string) bool { return strings.HasPrefix(l, parent) }) {
		t.Errorf("a hook ran in the parent: %q", y.noted(parent))
	}
}

// TestPreforkLarge passes more than a pipe holds, both ways and at the same time.
func TestPreforkLarge(t *testing.T) {
	t.Parallel()
	y := newYard(t, lovage.Config{}, worker.Config{}).start()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var sent []*lovage.Result[any]
	for i := range 6 {
		r, err := y.app.Send(ctx, "yard.echo", lovage.Args{Positional: []any{strings.Repeat(fmt.Sprint(i), 3<<20)}})
		if err != nil {
			t.Fatal(err)
		}
		sent = append(sent, r)
	}
	for i, r := range sent {
		got, err := r.Get(ctx)
		if text, _ := got.(string); err != nil || text != strings.Repeat(fmt.Sprint(i), 3<<20) {
			t.Errorf("call %d: got %d bytes, %v, want what was sent", i, len(text), err)
		}
	}
}

func TestPreforkKills(t *testing.T) {
	t.Parallel()
	y := newYard(t, lovage.Config{}, worker.Config{}).start()
	r := y.send(Errand{Do: "deaf", For: time.Hour}, lovage.TimeLimit(300*time.Millisecond))
	if _, err := y.get(r); !errors.Is(err, lovage.ErrTimeLimit) {
		t.Errorf("hard limit: got %v, want ErrTimeLimit", err)
	}
	run, hook := strings.Fields(y.sees("run " + r.ID()))[0], strings.Fields(y.sees("failed " + r.ID() + " TimeLimitExceeded"))[0]
	if run == hook {
		t.Error("OnFailure ran in the process that was killed")
	}
	if _, err := os.Stat("/proc/" + run); err == nil {
		t.Error("the process of the run is still there")
	}
	r = y.send(Errand{Do: "wait"}, lovage.SoftTimeLimit(100*time.Millisecond))
	if _, err := y.get(r); !errors.Is(err, lovage.ErrSoftTimeLimit) {
		t.Errorf("soft limit: got %v, want ErrSoftTimeLimit", err)
	}
	r = y.send(Errand{Do: "deaf", For: time.Hour})
	y.sees("run " + r.ID())
	y.w.Revoke(true, r.ID())
	if _, err := y.get(r); !errors.Is(err, lovage.ErrRevoked) {
		t.Errorf("terminate: got %v, want ErrRevoked", err)
	}
	if _, err := y.get(y.send(Errand{Do: "ok"})); err != nil {
		t.Errorf("after the kills: got %v, want success", err)
	}
}

// noteSignals notes those of runs, as they come.
func noteSignals(app *lovage.App) {
	s := &app.Signals
	s.TaskPrerun.Connect(func(_ context.Context, e lovage.TaskPrerun) { note("signal prerun %s %s", e.Task.Name(), e.Request.ID) })
	s.TaskSuccess.Connect(func(_ context.Context, e lovage.TaskSuccess) {
		note("signal success %s %t", e.Request.ID, e.Result == os.Getpid())
	})
	s.TaskFailure.Connect(func(_ context.Context, e lovage.TaskFailure) { note("signal failure %s %s", e.Request.ID, e.Info.Type) })
	s.TaskRetry.Connect(func(_ context.Context, e lovage.TaskRetry) { note("signal retry %s %v", e.Request.ID, e.Info != nil) })
	s.TaskPostrun.Connect(func(_ context.Context, e lovage.TaskPostrun) { note("signal postrun %s %s", e.Request.ID, e.State) })
	s.TaskReceived.Connect(func(_ context.Context, e lovage.TaskReceived) { note("signal received") })
}

// TestSignalsOfProcesses: those of a run are sent in the child, in Celery's order,
// and those of its message in the worker.
func TestSignalsOfProcesses(t *testing.T) {
	t.Parallel()
	y := newYard(t, lovage.Config{}, worker.Config{Concurrency: 1}, "LOVAGE_TEST_SIGNALS=1")
	var created atomic.Int32
	received := make(chan string, 16)
	y.app.Signals.WorkerBeforeCreateProcess.Connect(func(_ context.Context, e lovage.WorkerBeforeCreateProcess) { created.Add(1) }, y.w.Hostname())
	y.app.Signals.TaskReceived.Connect(func(_ context.Context, e lovage.TaskReceived) { received <- e.Request.ID }, y.w.Hostname())
	y.app.Signals.TaskPrerun.Connect(func(context.Context, lovage.TaskPrerun) { t.Error("TaskPrerun is sent in the worker") })
	y.start()
	for _, c := range [][2]string{{"good", "ok"}, {"bad", "fail"}, {"again", "retry"}} {
		_, _ = y.get(y.send(Errand{Do: c[1]}, lovage.TaskID(c[0])))
	}
	y.stop()
	close(received)
	var ids []string
	for id := range received {
		ids = append(ids, id)
	}
	if want := []string{"good", "bad", "again", "again"}; !slices.Equal(ids, want) {
		t.Errorf("TaskReceived of %q, want %q", ids, want)
	}
	for id, want := range map[string][]string{
		"good":  {"prerun yard.errand good", "success good true", "postrun good SUCCESS"},
		"bad":   {"prerun yard.errand bad", "failure bad", "postrun bad FAILURE"},
		"again": {"prerun yard.errand again", "retry again", "postrun again RETRY", "prerun yard.errand again", "success again", "postrun again SUCCESS"},
	} {
		var got []string
		for _, line := range y.noted("signal ") {
			if strings.Contains(line+" ", " "+id+" ") {
				_, text, _ := strings.Cut(line, "signal ")
				got = append(got, text)
			}
		}
		if id == "again" { // its second run may begin before the first one's last words
			slices.Sort(got)
			slices.Sort(want)
		}
		if !slices.EqualFunc(got, want, strings.HasPrefix) {
			t.Errorf("%s: the child says %q, want %q", id, got, want)
		}
	}
	if created.Load() != 1 || len(y.noted("signal received")) > 0 {
		t.Errorf("WorkerBeforeCreateProcess: %d times, want once; TaskReceived in the child: %q", created.Load(), y.noted("signal received"))
	}
}
