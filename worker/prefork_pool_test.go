//go:build linux

package worker_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/redisbackend"
	_ "github.com/lovage-go/lovage/backend/sqlbackend"
	_ "github.com/lovage-go/lovage/broker/redisbroker"
	_ "github.com/lovage-go/lovage/broker/sqlbroker"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/internal/proc"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/worker"
)

func (y *yard) pids() []int { return childrenOf(os.Getpid(), y.ledger) }

// until waits for a condition.
func (y *yard) until(what string, ok func() bool) {
	y.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			y.t.Fatalf("not after %s: %s\n%s", patience, what, tail(y.log.String()))
		}
	}
}

// resize changes the pool by remote control.
func (y *yard) resize(by int) error {
	change := y.app.Control().PoolGrow
	if by < 0 {
		change, by = y.app.Control().PoolShrink, -by
	}
	replies, err := change(y.t.Context(), by, control.Options{Reply: true, Limit: 1, Timeout: patience})
	if err == nil && len(replies) != 1 {
		err = fmt.Errorf("%d replies", len(replies))
	}
	return err
}

func TestPreforkResize(t *testing.T) {
	t.Parallel()
	y := newYard(t, lovage.Config{}, worker.Config{Concurrency: 1}).start()
	busy := y.send(Errand{Do: "sleep", For: 300 * time.Millisecond})
	y.sees("run " + busy.ID())
	beside := y.send(Errand{Do: "sleep", For: 300 * time.Millisecond})
	if err := y.resize(+2); err != nil {
		t.Fatal(err)
	}
	y.sees("run " + beside.ID())
	if n := len(y.noted("cancelled")); n > 0 {
		t.Errorf("the pool's growth touched a run")
	}
	y.until("three children", func() bool { return len(y.pids()) == 3 })
	if err := y.resize(-2); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*lovage.Result[int]{busy, beside} {
		if _, err := y.get(r); err != nil {
			t.Error(err)
		}
	}
	y.until("one child", func() bool { return len(y.pids()) == 1 })
	if n := len(y.noted("close")); n != 2 {
		t.Errorf("Close ran %d times, want it in the two children that went", n)
	}
}

func TestPreforkAutoscale(t *testing.T) {
	t.Parallel()
	y := newYard(t, lovage.Config{}, worker.Config{Autoscale: worker.Autoscale{Max: 3}}).start()
	if n := len(y.pids()); n != 1 {
		t.Errorf("children of an idle pool: got %d, want the one that is kept", n)
	}
	var runs []*lovage.Result[int]
	for range 3 {
		runs = append(runs, y.send(Errand{Do: "wait"}))
	}
	for _, r := range runs {
		y.sees("run " + r.ID())
	}
	if n := len(y.pids()); n != 3 {
		t.Errorf("children of three runs: got %d, want 3", n)
	}
	// A maximum below what runs is reached as the runs end; a new minimum at once.
	bounds := func(most, least int) {
		replies, err := y.app.Control().Autoscale(t.Context(), most, least, control.Options{Reply: true, Limit: 1, Timeout: patience})
		if want := fmt.Sprintf("autoscale now max=%d min=%d", most, least); err != nil || len(replies) != 1 || replies[0].OK() != want {
			t.Errorf("autoscale: got %v, %v, want %q", replies, err, want)
		}
	}
	bounds(1, 1)
	ids := []string{runs[0].ID(), runs[1].ID(), runs[2].ID()}
	if _, err := y.app.Control().Terminate(t.Context(), ids, control.Options{Reply: true, Limit: 1, Timeout: patience}); err != nil {
		t.Error(err)
	}
	y.until("one child", func() bool { return len(y.pids()) == 1 })
	bounds(2, 2)
	y.until("two children", func() bool { return len(y.pids()) == 2 })
}

func TestPreforkRecycles(t *testing.T) {
	t.Parallel()
	y := newYard(t, lovage.Config{}, worker.Config{Concurrency: 1, MaxTasksPerChild: 2, MaxMemoryPerChild: 200 << 10}).start()
	var pids []int
	for range 5 {
		pid, err := y.get(y.send(Errand{Do: "ok"}))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	if pids[0] != pids[1] || pids[1] == pids[2] || pids[2] != pids[3] || pids[3] == pids[4] {
		t.Errorf("processes of five runs: %v, want a new one after each two", pids)
	}
	r := y.send(Errand{Do: "alloc", For: 300 << 20})
	big, err := y.get(r)
	if err != nil || big != pids[4] {
		t.Errorf("alloc: got %d, %v, want success in %d", big, err, pids[4])
	}
	y = newYard(t, lovage.Config{}, worker.Config{Concurrency: 1, MaxMemoryPerChild: 200 << 10}).start()
	first, err := y.get(y.send(Errand{Do: "ok"}))
	if err != nil {
		t.Fatal(err)
	}
	if big, err = y.get(y.send(Errand{Do: "alloc", For: 300 << 20})); err != nil || big != first {
		t.Errorf("alloc: got %d, %v, want success in %d: a run may end above the limit", big, err, first)
	}
	if last, err := y.get(y.send(Errand{Do: "ok"})); err != nil || last == first {
		t.Errorf("after a run above the limit: got process %d, %v, want another than %d", last, err, first)
	}
	y.until("the old child closes", func() bool { return len(y.noted("close")) == 1 })
	y.logs("worker_max_memory_per_child is 204800")
}

func TestPreforkOutput(t *testing.T) {
	t.Parallel()
	y := newYard(t, lovage.Config{}, worker.Config{}).start()
	r := y.send(Errand{Do: "print"})
	if _, err := y.get(r); err != nil {
		t.Fatal(err)
	}
	y.stop()
	task := " task=yard.errand id=" + r.ID()
	for _, want := range []string{
		"level=WARN msg=\"said aloud\" process=ForkPoolWorker-", "level=WARN msg=\"without an end\" process=ForkPoolWorker-",
		"level=INFO msg=\"by slog\" process=ForkPoolWorker-", "level=WARN msg=\"by its log\" process=ForkPoolWorker-", "n=3", "d=1s",
	} {
		y.logs(want)
	}
	for _, line := range strings.Split(y.log.String(), "\n") {
		if (strings.Contains(line, "said aloud") || strings.Contains(line, "without an end") || strings.Contains(line, "by its log")) && !strings.Contains(line, task) {
			t.Errorf("a line of the task lacks its name and id: %s", line)
		}
	}
}

// TestPreforkGoexit ends the goroutine of a run.
func TestPreforkGoexit(t *testing.T) {
	t.Parallel()
	y := newYard(t, lovage.Config{}, worker.Config{Concurrency: 1}).start()
	r := y.send(Errand{Do: "goexit"})
	if _, err := y.get(r); err == nil || !strings.Contains(err.Error(), "runtime.Goexit") {
		t.Errorf("got %v, want the reason", err)
	}
	if _, err := y.get(y.send(Errand{Do: "ok"})); err != nil {
		t.Errorf("after it: got %v, want success", err)
	}
}

// TestPreforkJoin has a run in the only child wait for another task.
func TestPreforkJoin(t *testing.T) {
	t.Parallel()
	url := "sqlite://" + filepath.Join(t.TempDir(), "join.db")
	y := newYard(t, lovage.Config{BrokerURL: url, ResultBackend: url}, worker.Config{Concurrency: 1}, "LOVAGE_TEST_URL="+url).start()
	r := y.send(Errand{Do: "join"})
	if _, err := y.get(r); err != nil {
		t.Errorf("a run that waits for another: %v\n%s", err, tail(y.log.String()))
	}
	lines := y.noted("run ")
	if len(lines) != 2 || strings.Fields(lines[0])[0] == strings.Fields(lines[1])[0] {
		t.Errorf("runs: %q, want two, in two processes", lines)
	}
}

// TestPreforkCold shows that a cold shutdown kills what does not end.
func TestPreforkCold(t *testing.T) {
	t.Parallel()
	y := newYard(t, lovage.Config{}, worker.Config{Grace: 5 * time.Second}).start() // a busy machine lets a child wait
	deaf, good := y.send(Errand{Do: "sleep", For: time.Hour}), y.send(Errand{Do: "wait"})
	y.sees("run " + deaf.ID())
	y.sees("run " + good.ID())
	y.w.Stop(worker.Cold)
	y.stop()
	if l := y.lengths(); l.Ready != 2 || l.Claimed != 0 {
		t.Errorf("queue: got %+v, want both messages back", l)
	}
	if got := y.sees("cancelled " + good.ID()); !strings.HasSuffix(got, "worker shutting down (cold)") {
		t.Errorf("the task that heeds its context: %q, want the shutdown as the cause", got)
	}
}

// TestIsolated runs one class in children beside a pool of goroutines.
func TestIsolated(t *testing.T) {
	t.Parallel()
	y := newYard(t, lovage.Config{}, worker.Config{Pool: "goroutine", Concurrency: 4, Isolated: 1}).start()
	if pid, err := y.get(y.send(Errand{Do: "ok"})); err != nil || pid == os.Getpid() || !slices.Contains(y.pids(), pid) {
		t.Errorf("the isolated task: got process %d, %v, want a child", pid, err)
	}
	here, err := y.app.Send(t.Context(), "yard.pid", lovage.Args{})
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := here.Get(t.Context()); err != nil || fmt.Sprint(pid) != strconv.Itoa(os.Getpid()) {
		t.Errorf("the other task: got process %v, %v, want this one", pid, err)
	}
	if _, err := y.get(y.send(Errand{Do: "deaf", For: time.Hour}, lovage.TimeLimit(200*time.Millisecond))); !errors.Is(err, lovage.ErrTimeLimit) {
		t.Errorf("hard limit: got %v, want ErrTimeLimit", err)
	}
	if s := y.w.Stats(); s.Stuck != 0 {
		t.Errorf("stuck runs: got %d, want none: the child was killed", s.Stuck)
	}
}

// TestChildWithoutParent shows that the end of the connection is enough to end
// a child, whatever the kernel does for it.
func TestChildWithoutParent(t *testing.T) {
	t.Parallel()
	hears, says := pipe(t), pipe(t)
	cmd := again(t, "yard")
	cmd.Env = append(cmd.Env, proc.ChildKey+"=2")
	cmd.ExtraFiles = []*os.File{hears.r, says.w}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	says.w.Close()
	_ = says.r.SetReadDeadline(time.Now().Add(patience))
	if _, err := says.r.Read(make([]byte, 1)); err != nil { // it greets
		t.Fatal(err)
	}
	hears.w.Close()
	late := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait()
	if !late.Stop() {
		t.Errorf("the child lives %s after its parent's end of the connection", patience)
	}
}

type pipeEnds struct{ r, w *os.File }

func pipe(t *testing.T) pipeEnds {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return pipeEnds{r, w}
}

// TestPreforkIdle holds eight idle children against what they may take.
func TestPreforkIdle(t *testing.T) {
	t.Parallel()
	y := newYard(t, lovage.Config{}, worker.Config{Concurrency: 8}).start()
	rss := 0
	for _, pid := range y.pids() {
		rss += proc.RSSOf(pid)
	}
	if n := len(y.pids()); n != 8 || rss == 0 || rss > raced*120<<10 {
		t.Errorf("%d idle children have %d MiB, want 8 and at most 120", n, rss>>10)
	}
}

// TestPreforkChords ends chords whose members run in children: one with all
// results, one by a member whose process dies and whose errback is code.
// TestPreforkAbort: a run in a child, with a connection of its own to the result
// store, sees that a client wants it to end.
func TestPreforkAbort(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	for name, url := range map[string]string{"SQLite": "sqlite://" + filepath.Join(t.TempDir(), "abort.db"), "Redis": server.URL(server.DB(t))} {
		for _, pool := range []string{"prefork", "goroutine"} { // where the task asks for isolation
			t.Run(name+"/"+pool, func(t *testing.T) {
				t.Parallel()
				y := newYard(t, lovage.Config{BrokerURL: url, ResultBackend: url, TaskDefaultQueue: pool}, worker.Config{Pool: pool, Isolated: 1}, "LOVAGE_TEST_URL="+url).start()
				r := y.send(Errand{Do: "abort"})
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				if _, err := r.Wait(ctx, func(m *lovage.Meta) bool { return m.Status == "PROGRESS" }); err != nil {
					t.Fatal(err)
				}
				if err := r.Abort(ctx); err != nil {
					t.Fatal(err)
				}
				if pid, err := y.get(r); err != nil || pid == os.Getpid() {
					t.Errorf("got %d, %v; want the run to end in a child", pid, err)
				}
			})
		}
	}
}

func TestPreforkChords(t *testing.T) {
	t.Parallel()
	t.Run("Looked", func(t *testing.T) { // for by celery.chord_unlock
		t.Parallel()
		preforkChords(t, "sqlite://"+filepath.Join(t.TempDir(), "chord.db"))
	})
	t.Run("Counted", func(t *testing.T) {
		t.Parallel()
		server := testenv.Redis(t)
		preforkChords(t, server.URL(server.DB(t)))
	})
}

func preforkChords(t *testing.T, url string) {
	off := false
	conf := lovage.Config{BrokerURL: url, ResultBackend: url, TaskRejectOnWorkerLost: &off}
	y := newYard(t, conf, worker.Config{}, "LOVAGE_TEST_URL="+url).start()
	chord := func(name, last string) {
		t.Helper()
		sig := func(task, id, args string) string {
			return fmt.Sprintf(`{"task": %q, "args": %s, "kwargs": {}, "options": {"task_id": %q}, "subtask_type": null, "immutable": true}`, task, args, name+id)
		}
		embed := fmt.Sprintf(`{"chain": [{"task": "celery.chord", "args": [], "options": {}, "subtask_type": "chord", "kwargs": {"kwargs": {}, "header": {"task": "celery.group", "kwargs": {"tasks": [%s, %s, %s]}, "options": {"task_id": %q}, "subtask_type": "group"}, "body": {"task": "yard.list", "args": [], "kwargs": {}, "options": {"task_id": %q, "link_error": [{"task": "yard.direct", "args": []}]}}}}]}`,
			sig("yard.add", "1", "[1, 2]"), sig("yard.add", "2", "[3, 4]"), last, name+"g", name+"body")
		m := &protocol.Message{
			Queue: "celery", RoutingKey: "celery", Body: []byte("[[0], {}, " + embed + "]"),
			Headers:    protocol.Headers{Lang: "py", Task: "yard.add", ID: name, RootID: name},
			Properties: protocol.Properties{ContentType: "application/json", ContentEncoding: "utf-8", CorrelationID: name, DeliveryMode: 2},
		}
		if err := y.app.PublishMessages(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	chord("good", `{"task": "yard.add", "args": [5, 6], "kwargs": {}, "options": {"task_id": "good3"}, "subtask_type": null, "immutable": true}`)
	y.sees("body [3 7 11]")
	chord("bad", `{"task": "yard.errand", "args": ["exit"], "kwargs": {}, "options": {"task_id": "bad3"}, "subtask_type": null, "immutable": true}`)
	line := y.sees("direct badbody ChordError")
	if strings.HasPrefix(line, strconv.Itoa(os.Getpid())+" ") {
		t.Errorf("an errback ran in the parent: %s", line)
	}
	if bodies := y.noted("body ["); len(bodies) != 1 {
		t.Errorf("bodies: %q, want one", bodies)
	}
}
