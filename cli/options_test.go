package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/cli"
	"github.com/lovage-go/lovage/worker"
)

// setting is a line of report.
func setting(t *testing.T, report, name string) string {
	t.Helper()
	for line := range strings.Lines(report) {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			return strings.TrimSuffix(value, "\n")
		}
	}
	return ""
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "conf.toml")
	if err := os.WriteFile(file, []byte("broker_url = \"memory://file\"\ntask_default_queue = \"file\"\nresult_backend = \"memory://file\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		env  []string
		args []string
		want string
	}{
		"Code":         {nil, nil, "memory://code"},
		"File":         {nil, []string{"--config", file}, "memory://file  (" + file + ")"},
		"FileByEnv":    {[]string{"LOVAGE_CONFIG=" + file}, nil, "memory://file  (" + file + ")"},
		"Env":          {[]string{"CELERY_BROKER_URL=memory://env"}, []string{"--config", file}, "memory://env  (environment)"},
		"BareEnv":      {[]string{"BROKER_URL=memory://bare"}, []string{"--config", file}, "memory://bare  (environment)"},
		"EnvOverBare":  {[]string{"CELERY_BROKER_URL=memory://env", "BROKER_URL=memory://bare"}, nil, "memory://env  (environment)"},
		"Flag":         {[]string{"CELERY_BROKER_URL=memory://env"}, []string{"--config", file, "-b", "memory://flag"}, "memory://flag  (command line)"},
		"FlagAfter":    {nil, []string{"report", "--broker=memory://flag"}, "memory://flag  (command line)"},
		"LastVariable": {[]string{"BROKER_URL=memory://one", "BROKER_URL=memory://two"}, nil, "memory://two  (environment)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := c.args
			if len(args) == 0 || args[0] != "report" {
				args = append(args, "report")
			}
			var out bytes.Buffer
			app := lovage.New("proj", lovage.Config{BrokerURL: "memory://code"})
			if code := cli.Run(t.Context(), app, args, strings.NewReader(""), &out, io.Discard, cli.Environ(c.env)); code != 0 {
				t.Fatalf("exit code %d", code)
			}
			if got := setting(t, out.String(), "broker_url"); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestNotesAndWarnings(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.env = []string{"CELERY_TASK_ACKS_LAET=1", "CELERY_APP=x"}
	var b strings.Builder
	b.WriteString(s.transcript("-A", "proj.celery", "--loader", "x", "--skip-checks", "version"))
	b.WriteString(s.transcript("-A", "proj.celery", "-q", "version"))
	golden(t, "notes", b.String())
	t.Run("TheProgramsOwnLoggerIsKept", func(t *testing.T) {
		var own, errw bytes.Buffer
		app := lovage.New("proj", lovage.Config{}, lovage.WithLogger(slog.New(slog.NewTextHandler(&own, nil))))
		cli.Run(t.Context(), app, []string{"version"}, strings.NewReader(""), io.Discard, &errw, cli.Environ(s.env))
		if errw.Len() > 0 || !strings.Contains(own.String(), "TASK_ACKS_LAET") {
			t.Errorf("stderr %q, own log %q; want the warning in the log alone", errw.String(), own.String())
		}
	})
}

func TestProgramsOwnCommandsAndFlags(t *testing.T) {
	t.Parallel()
	var tenant string
	var seen worker.Config
	s := newShell(t)
	s.opts = []cli.Option{
		cli.Name("acme"),
		cli.Flags(func(fs *pflag.FlagSet) { fs.StringVar(&tenant, "tenant", "", "whose `NAME` data") }),
		cli.Command(&cobra.Command{
			Use: "greet", Short: "Say hello.",
			RunE: func(cmd *cobra.Command, _ []string) error {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "hello", tenant)
				return err
			},
		}),
		cli.Worker(func(c *worker.Config) { c.Concurrency = 7; seen = *c }),
	}
	var told []string
	s.setup = func(app *lovage.App) {
		app.Signals.UserPreloadOptions.Connect(func(_ context.Context, e lovage.UserPreloadOptions) {
			told = append(told, fmt.Sprint(e.App.Name(), " ", e.Options))
		})
	}
	if got := s.ok("greet", "--tenant", "t1"); got != "hello t1\n" {
		t.Errorf("got %q, want hello t1", got)
	}
	if want := []string{"proj map[tenant:t1]"}; !slices.Equal(told, want) {
		t.Errorf("UserPreloadOptions says %q, want %q", told, want)
	}
	s.setup = nil
	help := s.ok("--help")
	for _, want := range []string{"Usage: acme [OPTIONS]", "--tenant NAME", "greet          Say hello."} {
		if !strings.Contains(help, want) {
			t.Errorf("help lacks %q: %s", want, help)
		}
	}
	state := t.TempDir()
	stop := s.startWorker("-Q", "a,b", "-X", "b", "-n", "w2@%h", "-E", "--time-limit", "2.5", "--soft-time-limit", "1", "--without-heartbeat", "--disable-prefetch", "-P", "threads", "-S", filepath.Join(state, "%n.state"))
	code, banner, _ := stop()
	if code != 0 || !strings.Contains(banner, ".> concurrency: 7 (goroutine)") || !strings.Contains(banner, ".> task events: ON") ||
		!strings.Contains(banner, ".> a  ") || strings.Contains(banner, ".> b  ") || !strings.HasSuffix(banner, " ready.\n") {
		t.Errorf("exit code %d, banner %s", code, banner)
	}
	if _, err := os.Stat(filepath.Join(state, "w2.state")); err != nil {
		t.Errorf("--statedb: %v", err)
	}
	if !seen.TaskEvents || !seen.WithoutHeartbeat || seen.TimeLimit.Seconds() != 2.5 || seen.SoftTimeLimit.Seconds() != 1 || seen.LookAhead != -1 || seen.Hostname != "w2@%h" {
		t.Errorf("the worker got %+v", seen)
	}
}

func TestFlagsWithoutEffectAreTold(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	stop := s.startWorker("-O", "fair", "--max-tasks-per-child", "10", "--max-memory-per-child=12000", "-I", "a,b",
		"-s", "sched", "--scheduler", "x", "--executable", "python", "-X", "celry", "--without-gossip", "--without-mingle", "--events", "--discard", "--schedule", "sched", "-P", "gevent", "-l", "fatal")
	code, _, stderr := stop()
	if code != cli.ExitOK {
		t.Errorf("exit code %d, want 0", code)
	}
	golden(t, "without", stderr)
}

func TestBanner(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.url = "memory://u:secret@banner"
	_, banner, _ := s.startWorker("-n", "w1@example.org", "-P", "solo", "-c", "4")()
	golden(t, "banner", banner)
}

func TestPidfile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newShell(t)
	for name, held := range map[string]string{"none": "", "stale": "999999999\n", "garbage": "not a pid"} {
		path := filepath.Join(dir, name)
		if held != "" {
			if err := os.WriteFile(path, []byte(held), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		stop := s.startWorker("-q", "--pidfile", path)
		got, err := os.ReadFile(path)
		if err != nil || string(got) != strconv.Itoa(os.Getpid())+"\n" {
			t.Errorf("%s: got %q, %v; want this process's id", name, got, err)
		}
		stop()
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s: the file is still there: %v", name, err)
		}
	}
	held := filepath.Join(dir, "held")
	if err := os.WriteFile(held, []byte(strconv.Itoa(os.Getppid())), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := s.run("worker", "-q", "--pidfile", held); code != cli.ExitFailure || !strings.Contains(stderr, "is held by process") {
		t.Errorf("held by a living process: exit code %d, stderr %q; want 1 and the reason", code, stderr)
	}
}

func TestAutoscaleFlag(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	stop := s.startWorker("--autoscale", "3,10", "-c", "2")
	if code, banner, _ := stop(); code != 0 || !strings.Contains(banner, ".> concurrency: {min=3, max=10} (goroutine)") {
		t.Errorf("exit code %d, banner %s", code, banner)
	}
	if code, _, stderr := s.run("worker", "--autoscale", "many"); code != 2 || !strings.Contains(stderr, `Invalid value for --autoscale: autoscale "many": want MAX,MIN`) {
		t.Errorf("exit code %d, %s", code, stderr)
	}
	if code, _, stderr := s.run("worker", "--autoscale", "3", "-P", "solo"); code == 0 || !strings.Contains(stderr, "solo has one slot") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}
