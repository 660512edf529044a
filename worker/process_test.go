package worker_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/proc"
	"github.com/lovage-go/lovage/worker"
)

// roles are what the test binary does when it is started again by a test.
const roleKey = "LOVAGE_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleKey) {
	case "":
		if signal.Ignored(syscall.SIGHUP) { // by nohup: the workers started here would leave it alone too
			signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
		}
		os.Exit(m.Run())
	case "child":
		app := lovage.New("child", lovage.Config{BrokerURL: "memory://child"})
		err := worker.New(app, worker.Config{}).Run(context.Background())
		fmt.Printf("child=%t left=%q is=%t\n", lovage.IsChild(), os.Getenv(proc.ChildKey), errors.Is(err, worker.ErrChild))
	case "parent":
		os.Exit(yardParent())
	case "hang": // until its parent kills it
		<-time.After(time.Hour)
	case "quit":
		os.Exit(4)
	case "yard":
		worker.TuneProcess()
		os.Exit(yardChild())
	case "signals":
		os.Exit(signalled())
	}
}

// signalled is a worker whose one task sleeps, heeds its context, or is deaf.
func signalled() int {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil))) // one line each
	app := lovage.New("signals", lovage.Config{BrokerURL: "memory://signals"})
	h := lovage.Func(app, "t.sleep", func(ctx context.Context, in Order) (string, error) {
		fmt.Println("running")
		switch in.Do {
		case "short":
			<-time.After(300 * time.Millisecond)
			fmt.Println("ended by itself")
		case "slow":
			select {
			case <-time.After(2 * time.Second):
				fmt.Println("ended by itself")
			case <-ctx.Done():
				fmt.Println("cancelled:", context.Cause(ctx))
			}
		case "wait":
			<-ctx.Done()
			fmt.Println("cancelled:", context.Cause(ctx))
			return "", context.Cause(ctx)
		case "deaf":
			select {}
		}
		return "", nil
	})
	if _, err := h.Delay(context.Background(), Order{os.Args[1]}); err != nil {
		fmt.Println(err)
		return 3
	}
	if err := worker.Run(context.Background(), app, worker.Config{WithoutHeartbeat: true}); err != nil {
		fmt.Println(err)
		return 2
	}
	fmt.Println("gone")
	return 0
}

func again(t *testing.T, role string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), roleKey+"="+role)
	return cmd
}

func TestPoolChildIsToldApart(t *testing.T) {
	t.Parallel()
	if lovage.IsChild() {
		t.Error("IsChild in a test: got true")
	}
	cmd := again(t, "child")
	cmd.Env = append(cmd.Env, proc.ChildKey+"=2")
	out, err := cmd.Output()
	if want := "child=true left=\"\" is=true\n"; string(out) != want || err != nil {
		t.Errorf("child: got %q, %v, want %q", out, err, want)
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		do      string
		env     string
		signals []os.Signal
		want    string // the last lines
		code    int
	}{
		"RemappedTermIsCold":   {do: "wait", env: "REMAP_SIGTERM=SIGQUIT", signals: []os.Signal{syscall.SIGTERM}, want: "cancelled: worker shutting down (cold) gone"},
		"RemapLeavesIntAlone":  {do: "short", env: "REMAP_SIGTERM=SIGQUIT", signals: []os.Signal{os.Interrupt}, want: "ended by itself gone"},
		"RemapIsForQuitAlone":  {do: "short", env: "REMAP_SIGTERM=SIGUSR1", signals: []os.Signal{syscall.SIGTERM}, want: "ended by itself gone"},
		"TermAfterHupIsWarm":   {do: "slow", signals: []os.Signal{syscall.SIGHUP, syscall.SIGTERM}, want: "ended by itself gone"},
		"HupAfterTermIsNought": {do: "slow", signals: []os.Signal{syscall.SIGTERM, syscall.SIGHUP}, want: "ended by itself gone"},
		"FirstIsWarm":          {do: "short", signals: []os.Signal{syscall.SIGTERM}, want: "ended by itself gone"},
		"SecondIsCold":         {do: "wait", signals: []os.Signal{os.Interrupt, syscall.SIGTERM}, want: "cancelled: worker shutting down (cold) gone"},
		"QuitIsCold":           {do: "wait", signals: []os.Signal{syscall.SIGQUIT}, want: "cancelled: worker shutting down (cold) gone"},
		"ThirdEndsAtOnce":      {do: "deaf", signals: []os.Signal{syscall.SIGTERM, syscall.SIGTERM, syscall.SIGTERM}, want: "", code: 1},
		"QuitThenAnyEnds":      {do: "deaf", signals: []os.Signal{syscall.SIGQUIT, syscall.SIGINT}, want: "", code: 1},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := again(t, "signals", c.do)
			if c.env != "" {
				cmd.Env = append(cmd.Env, c.env)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			logs, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines, log := bufio.NewScanner(out), bufio.NewScanner(logs)
			if !lines.Scan() || lines.Text() != "running" {
				t.Fatalf("first line: got %q", lines.Text())
			}
			for i, s := range c.signals {
				if err := cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
				if i == len(c.signals)-1 {
					break
				}
				for log.Scan() && !strings.Contains(log.Text(), "shutdown") { // until it has been heard
				}
			}
			heard := make(chan bool, 1)
			go func() {
				told := false
				for log.Scan() {
					told = told || strings.Contains(log.Text(), "REMAP_SIGTERM is not heeded")
				}
				heard <- told
			}()
			var got []string
			for lines.Scan() {
				got = append(got, lines.Text())
			}
			told := <-heard
			_ = cmd.Wait()
			if want := c.env == "REMAP_SIGTERM=SIGUSR1"; told != want {
				t.Errorf("told that REMAP_SIGTERM is not heeded: got %t, want %t", told, want)
			}
			if text := strings.Join(got, " "); text != c.want || cmd.ProcessState.ExitCode() != c.code {
				t.Errorf("got %q and exit code %d, want %q and %d", text, cmd.ProcessState.ExitCode(), c.want, c.code)
			}
		})
	}
}

// process is a started role with its lines.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	out *bufio.Scanner
	log *bufio.Scanner
}

func begin(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: cmd, out: bufio.NewScanner(out), log: bufio.NewScanner(log)}
	p.log.Buffer(nil, 8<<20)
	return p
}

func (p *process) says(want string) {
	p.t.Helper()
	if !p.out.Scan() || p.out.Text() != want {
		p.t.Fatalf("got %q, want %q", p.out.Text(), want)
	}
}

// logs waits for a line with a text and returns it.
func (p *process) logs(want string) string {
	p.t.Helper()
	for p.log.Scan() {
		if strings.Contains(p.log.Text(), want) {
			return p.log.Text()
		}
	}
	p.t.Fatalf("the log ended without %q", want)
	return ""
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}
