//go:build unix

package sqlbroker_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/broker/sqlbroker"
	"github.com/lovage-go/lovage/internal/sqlstore"
	"github.com/lovage-go/lovage/protocol"
)

// The test binary is its own set of child processes: with roleEnv set it plays
// that role against the store in storeEnv and tells on standard output what it
// knows to be done.
const (
	roleEnv  = "LOVAGE_TEST_ROLE"
	storeEnv = "LOVAGE_TEST_STORE"
	nameEnv  = "LOVAGE_TEST_NAME"
	countEnv = "LOVAGE_TEST_COUNT"
	batchEnv = "LOVAGE_TEST_BATCH"
	stepEnv  = "LOVAGE_TEST_STEP"
	leaseEnv = "LOVAGE_TEST_LEASE"
)

var roles = map[string]func(ctx context.Context, c *sqlbroker.Conn) error{
	"publish": rolePublish,
	"work":    roleWork,
	"hold":    roleHold,
}

func TestMain(m *testing.M) {
	role := os.Getenv(roleEnv)
	if role == "" {
		os.Exit(m.Run())
	}
	ctx := context.Background()
	c, err := sqlbroker.OpenApart(ctx, broker.Config{URL: os.Getenv(storeEnv), Logger: slog.New(slog.DiscardHandler)}, killAtStep)
	if err == nil {
		err = errors.Join(roles[role](ctx, c), c.Close())
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// killAtStep makes the process end, as kill -9 ends it, before the step of that
// number, counted from the first step of the first finish to its last.
func killAtStep(cfg *sqlstore.Config) {
	cfg.Lease = time.Duration(number(leaseEnv, 30_000)) * time.Millisecond
	at := number(stepEnv, 0)
	if at == 0 {
		return
	}
	n, over := 0, false
	cfg.StepHook = func(step string) {
		if over || n == 0 && step != "claim" {
			return
		}
		over = step == "committed"
		if n++; n == at {
			fmt.Println("step", step)
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				panic(err)
			}
			select {} // the signal comes
		}
	}
}

func number(env string, or int) int {
	if n, err := strconv.Atoi(os.Getenv(env)); err == nil {
		return n
	}
	return or
}

// rolePublish publishes NAME-0, NAME-1 ... in batches.
func rolePublish(ctx context.Context, c *sqlbroker.Conn) error {
	name, count, size := os.Getenv(nameEnv), number(countEnv, 1<<30), number(batchEnv, 1)
	for i := 0; i < count; i += size {
		var msgs []*broker.Message
		var ids []string
		for j := i; j < min(i+size, count); j++ {
			ids = append(ids, fmt.Sprintf("%s-%d", name, j))
			msgs = append(msgs, message("celery", ids[len(ids)-1]))
		}
		if err := c.Publish(ctx, msgs...); err != nil {
			return err
		}
		fmt.Println("published", strings.Join(ids, " "))
	}
	return nil
}

// roleWork finishes messages of celery: a result, and a follow-up to next. It
// ends when its input is closed and nothing is left in the queue.
func roleWork(ctx context.Context, c *sqlbroker.Conn) error {
	told := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(told)
	}()
	cs, err := c.Consume(ctx, broker.ConsumeConfig{Worker: os.Getenv(nameEnv), Queues: []broker.Queue{broker.Named("celery")}})
	if err != nil {
		return err
	}
	for {
		idle, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		ds, err := cs.Claim(idle, number(batchEnv, 1))
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			select {
			case <-told:
			default:
				continue
			}
			if ls, err := c.Lengths(ctx, "celery"); err != nil || ls["celery"] == (broker.Length{}) {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		fins := make([]broker.Finish, len(ds))
		ids := make([]string, len(ds))
		for i := range ds {
			h, err := protocol.ParseHeaders(ds[i].Headers)
			if err != nil {
				return err
			}
			ids[i] = h.ID
			fins[i] = broker.Finish{
				Publish: []*broker.Message{message("next", h.ID)},
				Store:   []*protocol.Record{{TaskID: h.ID, State: protocol.Success, Meta: []byte(os.Getenv(nameEnv)), Expires: time.Hour}},
				Settle:  broker.Settlement{Delivery: &ds[i]},
			}
		}
		fmt.Println("claimed", strings.Join(ids, " "))
		if err := cs.(broker.AtomicFinisher).FinishAll(ctx, fins...); err != nil {
			return err
		}
		fmt.Println("finished", strings.Join(ids, " "))
	}
}

// roleHold claims one message, and settles it when it is told to.
func roleHold(ctx context.Context, c *sqlbroker.Conn) error {
	cs, err := c.Consume(ctx, broker.ConsumeConfig{Worker: os.Getenv(nameEnv), Queues: []broker.Queue{broker.Named("celery")}})
	if err != nil {
		return err
	}
	ds, err := cs.Claim(ctx, 1)
	if err != nil {
		return err
	}
	fmt.Println("claimed", string(ds[0].Queue))
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	gone, err := cs.(broker.LeaseRenewer).Renew(ctx, []*broker.Delivery{&ds[0]})
	if err != nil {
		return err
	}
	err = cs.(broker.AtomicFinisher).FinishAll(ctx, broker.Finish{
		Publish: []*broker.Message{message("next", "late")},
		Store:   []*protocol.Record{{TaskID: "a", State: protocol.Failure, Meta: []byte("late")}},
		Settle:  broker.Settlement{Delivery: &ds[0]},
	})
	fmt.Println("settled", len(gone), errors.Is(err, broker.ErrLeaseLost))
	return nil
}

// child is a process in a role.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	ended chan struct{}
}

func start(t *testing.T, role, url string, env ...string) *child {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ch := &child{t: t, cmd: exec.Command(exe), lines: make(chan string, 1024), ended: make(chan struct{})}
	ch.cmd.Env = append(append(os.Environ(), roleEnv+"="+role, storeEnv+"="+url), env...)
	ch.cmd.Stderr = os.Stderr
	out, err := ch.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if ch.in, err = ch.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := ch.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(ch.ended)
		defer close(ch.lines)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			ch.lines <- sc.Text()
		}
		_ = ch.cmd.Wait() // how it ended is the test's to know by its lines
	}()
	t.Cleanup(func() {
		ch.kill()
		for range ch.lines {
		}
		<-ch.ended
	})
	return ch
}

func (ch *child) kill() { _ = ch.cmd.Process.Kill() } // it may have ended by itself

func (ch *child) signal(s os.Signal) {
	ch.t.Helper()
	if err := ch.cmd.Process.Signal(s); err != nil {
		ch.t.Fatal(err)
	}
}

// done closes the child's input.
func (ch *child) done() *child {
	_ = ch.in.Close() // it may have ended by itself
	return ch
}

// line gives the words of the next line; nil at the end.
func (ch *child) line() []string {
	ch.t.Helper()
	select {
	case l, ok := <-ch.lines:
		if !ok {
			return nil
		}
		words := strings.Fields(l)
		if len(words) > 0 && words[0] == "error" {
			ch.t.Fatalf("child: %s", l)
		}
		return words
	case <-time.After(time.Minute):
		ch.t.Fatal("the child says nothing for a minute")
		return nil
	}
}

// rest reads the lines to the end, by their first word.
func (ch *child) rest(into map[string][]string) {
	ch.t.Helper()
	for words := ch.line(); words != nil; words = ch.line() {
		into[words[0]] = append(into[words[0]], words[1:]...)
	}
}
