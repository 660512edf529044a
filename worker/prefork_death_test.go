//go:build linux

package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/worker"
)

func TestPreforkDeaths(t *testing.T) {
	t.Parallel()
	off := false
	y := newYard(t, lovage.Config{TaskRejectOnWorkerLost: &off}, worker.Config{}).start()
	for do, want := range map[string]string{
		"goroutine": "exitcode 2 (panic: alone)", "exit": "exitcode 7", "segv": "exitcode 2 (SIGSEGV: segmentation violation)",
		"kill": "signal 9 (SIGKILL)", "overflow": "exitcode 2 (fatal error: stack overflow)",
	} {
		r := y.send(Errand{Do: do})
		_, err := y.get(r)
		var te *lovage.TaskError
		if !errors.As(err, &te) || te.Type != "WorkerLostError" || !errors.Is(err, lovage.ErrWorkerLost) || te.Message() != "Worker exited prematurely: "+want+"." {
			t.Errorf("%s: got %v, want a WorkerLostError that says %s", do, err, want)
		}
		if runs := y.noted("run " + r.ID()); len(runs) != 1 {
			t.Errorf("%s: runs %q, want one", do, runs)
		}
		hook := y.sees("failed " + r.ID() + " WorkerLostError")
		if pid := strings.Fields(hook)[0]; pid == strconv.Itoa(os.Getpid()) || strings.HasPrefix(y.noted("run " + r.ID())[0], pid+" ") {
			t.Errorf("%s: OnFailure ran in the parent or in the dead process %s", do, pid)
		}
	}
	if n := y.lengths().Claimed; n != 0 {
		t.Errorf("claimed messages: got %d, want none", n)
	}
	for _, want := range []string{"traceback=\"panic: alone", "goroutine stack exceeds"} {
		y.logs(want)
	}
	if _, err := y.get(y.send(Errand{Do: "ok"})); err != nil {
		t.Errorf("after the deaths: got %v, want success", err)
	}
}

// TestPreforkLosses shows that a death is counted when it is seen: the task
// runs again, and no more often than task_max_worker_losses allows.
func TestPreforkLosses(t *testing.T) {
	t.Parallel()
	y := newYard(t, lovage.Config{}, worker.Config{}).start()
	r := y.send(Errand{Do: "exit"})
	if _, err := y.get(r); !errors.Is(err, lovage.ErrWorkerLost) || !strings.Contains(err.Error(), "3 workers died") {
		t.Errorf("got %v, want a WorkerLostError after three deaths", err)
	}
	if runs := y.noted("run " + r.ID()); len(runs) != 3 {
		t.Errorf("runs: got %q, want three", runs)
	}
	y.sees("failed " + r.ID() + " WorkerLostError")
	conn := y.store.Broker()
	defer conn.Close()
	dead, err := conn.DeadLetters(t.Context(), "", "", 10)
	if err != nil || len(dead) != 1 || dead[0].TaskID != r.ID() {
		t.Errorf("dead letters: got %v, %v, want the task's message", dead, err)
	}
	if s := y.w.Stats(); s.Losses != 3 || s.Dead != 1 {
		t.Errorf("stats: got %+v, want 3 losses and 1 dead", s)
	}
}

// TestPreforkLossesAdd shows that the loss of a whole worker and those of
// children add up.
func TestPreforkLossesAdd(t *testing.T) {
	t.Parallel()
	y := newYard(t, lovage.Config{}, worker.Config{})
	r := y.send(Errand{Do: "exit"})
	dead := y.store.Process("dead")
	cs, err := dead.Broker().Consume(t.Context(), broker.ConsumeConfig{Queues: []broker.Queue{broker.Named("celery")}})
	if err != nil {
		t.Fatal(err)
	}
	if ds, err := cs.Claim(t.Context(), 1); err != nil || len(ds) != 1 {
		t.Fatalf("claim: %v, %v", ds, err)
	}
	dead.Kill()
	y.start()
	if _, err := y.get(r); !errors.Is(err, lovage.ErrWorkerLost) || !strings.Contains(err.Error(), "3 workers died") {
		t.Errorf("got %v, want a WorkerLostError after three deaths", err)
	}
	if runs := y.noted("run " + r.ID()); len(runs) != 2 {
		t.Errorf("runs: got %q, want two: the first worker counts", runs)
	}
}

// TestPreforkSurvivors kills a child beside others: theirs is not touched.
func TestPreforkSurvivors(t *testing.T) {
	t.Parallel()
	y := newYard(t, lovage.Config{}, worker.Config{}).start()
	calm, doomed := y.send(Errand{Do: "held"}), y.send(Errand{Do: "once wait"})
	y.sees("run " + calm.ID())
	first, _ := strconv.Atoi(strings.Fields(y.sees("run " + doomed.ID()))[0])
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second, err := y.get(doomed)
	if err != nil || second == first {
		t.Errorf("the task that was killed: got %d, %v, want success in another process", second, err)
	}
	y.goOn()
	if _, err := y.get(calm); err != nil {
		t.Errorf("the task beside: got %v, want success", err)
	}
	if runs := y.noted("run " + calm.ID()); len(runs) != 1 {
		t.Errorf("runs of the task beside: %q, want one", runs)
	}
	// A signal to all processes of a service is for the parent alone.
	y.until("two children again", func() bool { return len(y.pids()) == 2 && len(y.noted("init yard.errand")) == 3 })
	for _, pid := range childrenOf(os.Getpid(), y.ledger) {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
			if err := syscall.Kill(pid, sig); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := childrenOf(os.Getpid(), y.ledger)
	if _, err := y.get(y.send(Errand{Do: "ok"})); err != nil {
		t.Error(err)
	}
	if after := childrenOf(os.Getpid(), y.ledger); !slices.Equal(before, after) {
		t.Errorf("children: %v before and %v after SIGTERM, want the same", before, after)
	}
}

func TestPreforkInitFails(t *testing.T) {
	t.Parallel()
	y := newYard(t, lovage.Config{}, worker.Config{}, "LOVAGE_TEST_INIT=fail")
	err := y.w.Run(context.Background())
	if err == nil || !strings.Contains(err.Error(), `task "yard.errand": Init of`) || !strings.Contains(err.Error(), "boom") {
		t.Errorf("Run: got %v, want the error of Init with the task's name", err)
	}
	select {
	case <-y.ready:
		t.Error("the worker was ready")
	default:
	}
	if left := childrenOf(os.Getpid(), y.ledger); len(left) > 0 {
		t.Errorf("children left: %v", left)
	}
}

func TestPreforkStrangers(t *testing.T) {
	t.Parallel()
	for env, want := range map[string]string{
		"LOVAGE_TEST_EXTRA=1":  "other tasks than its parent: yard.extra (child only)",
		"LOVAGE_TEST_APP=else": `a child runs a worker of app "else", its parent one of "yard"`,
		roleKey + "=quit":      "a child ended before it came to the worker's Run (exitcode 4)",
	} {
		y := newYard(t, lovage.Config{}, worker.Config{}, env)
		if err := y.w.Run(context.Background()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: Run: got %v, want an error with %q", env, err, want)
		}
	}
}

// TestPreforkSilence has a child whose main never comes to the worker's Run.
func TestPreforkSilence(t *testing.T) {
	t.Parallel()
	y := newYard(t, lovage.Config{WorkerProcAliveTimeout: 200 * time.Millisecond}, worker.Config{}, roleKey+"=hang")
	if err := y.w.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "did not answer within 200ms (worker_proc_alive_timeout)") {
		t.Errorf("Run: got %v, want an error that tells the timeout", err)
	}
	if left := childrenOf(os.Getpid(), y.ledger); len(left) > 0 {
		t.Errorf("children left: %v", left)
	}
}

// TestPreforkCrashLoop has children that die as soon as they are ready.
func TestPreforkCrashLoop(t *testing.T) {
	t.Parallel()
	y := newYard(t, lovage.Config{TaskMaxWorkerLosses: lovage.NoLimit}, worker.Config{Concurrency: 1}).start()
	began := time.Now()
	y.send(Errand{Do: "exit"})
	y.until("a back-off", func() bool { return strings.Contains(y.log.String(), "the next one starts in 400ms") })
	if d := time.Since(began); d < 350*time.Millisecond {
		t.Errorf("the fifth death came after %s, want the pauses before it", d)
	}
}

// TestPreforkParentDies kills a parent: its children are gone, whether the kernel
// tells them or the end of their connection does.
func TestPreforkParentDies(t *testing.T) {
	t.Parallel()
	y := newYard(t, lovage.Config{}, worker.Config{}) // for its ledger
	cmd := again(t, "parent")
	cmd.Env = append(cmd.Env, ledgerKey+"="+y.ledger)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	y.sees("run ") // a task that heeds nothing
	kids := childrenOf(cmd.Process.Pid, y.ledger)
	if len(kids) != 2 {
		t.Fatalf("children: %v, want two\n%s", kids, &out)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	y.until("no child of a dead parent", func() bool { return len(childrenOf(0, y.ledger)) == 0 })
}

// yardParent is a worker with two children in a process of its own, and a task
// that does not end.
func yardParent() int {
	app, do := yardApp(lovage.Config{BrokerURL: "memory://parent", ResultBackend: "memory://parent"})
	if _, err := do.Delay(context.Background(), Errand{Do: "deaf", For: time.Hour}); err != nil {
		fmt.Println(err)
		return 3
	}
	fmt.Println(worker.Run(context.Background(), app, worker.Config{Pool: "prefork", Concurrency: 2, WithoutHeartbeat: true}))
	return 1
}

// TestPreforkReplaced puts another file in the place of the running program: new
// children are of the image that runs, and the log says so.
func TestPreforkReplaced(t *testing.T) {
	t.Parallel()
	y := newYard(t, lovage.Config{}, worker.Config{})
	program := filepath.Join(t.TempDir(), "program")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	syscall.ForkLock.RLock() // a child that is being forked would have it open, and nobody could run it
	err = os.WriteFile(program, self, 0o700)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	cmd := again(t, "parent")
	cmd.Path, cmd.Args = program, []string{program}
	cmd.Env = append(cmd.Env, ledgerKey+"="+y.ledger)
	cmd.Stdout, cmd.Stderr = y.log, y.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	y.sees("run ")
	kids := childrenOf(cmd.Process.Pid, y.ledger)
	if err := os.WriteFile(program+".new", []byte("#!/bin/false\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(program+".new", program); err != nil {
		t.Fatal(err)
	}
	for _, pid := range kids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	y.until("two children anew", func() bool {
		now := childrenOf(cmd.Process.Pid, y.ledger)
		return len(now) == 2 && !slices.Contains(now, kids[0]) && !slices.Contains(now, kids[1])
	})
	y.until("a log that says so", func() bool { return strings.Contains(y.log.String(), "the program's file was replaced") })
}
