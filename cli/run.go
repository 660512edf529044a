package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/proc"
	"github.com/lovage-go/lovage/internal/term"
	"github.com/lovage-go/lovage/worker"
)

// closeTimeout bounds the closing of the App at the end of a command.
const closeTimeout = 10 * time.Second

// Option adds to the command line.
type Option func(*session)

// Command adds a command. Its Context ends at an interrupt. A command with a
// PersistentPreRun of its own replaces the reading of the configuration.
func Command(c *cobra.Command) Option {
	return func(s *session) { s.extra = append(s.extra, c) }
}

// Flags adds flags to every command; what they set can be read once a command
// runs.
func Flags(add func(*pflag.FlagSet)) Option {
	return func(s *session) { s.flags = append(s.flags, add) }
}

// Name is what the program calls itself in help and errors. The default is the
// file's name for Main and the App's name for Run.
func Name(name string) Option { return func(s *session) { s.name = name } }

// Environ replaces the environment, name=value.
func Environ(environ []string) Option { return func(s *session) { s.environ = environ } }

// Main runs the program's command line and exits. In a child of a process pool,
// which has its parent's command line, the worker command serves that pool.
func Main(app *lovage.App, opts ...Option) {
	opts = append([]Option{Name(filepath.Base(os.Args[0])), process}, opts...)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends a command that does not heed the first
	code := Run(ctx, app, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, opts...)
	stop()
	os.Exit(code)
}

// process marks the session that owns its process: its signals, and slog's
// default logger.
func process(s *session) { s.process = true }

// Run is one command line, args without the program's name. It returns the exit
// code, and closes the App before it does.
func Run(ctx context.Context, app *lovage.App, args []string, stdin io.Reader, stdout, stderr io.Writer, opts ...Option) int {
	s := &session{app: app, name: app.Name(), in: stdin, environ: proc.Environ()}
	place := proc.Here() // before --workdir
	for _, o := range opts {
		o(s)
	}
	plain := wantsPlain(args)
	s.out = term.New(stdout, s.getenv, plain)
	s.err = term.New(stderr, s.getenv, plain)
	root := s.root()
	root.SetArgs(append([]string{}, args...)) // nil would mean os.Args
	root.SetIn(stdin)
	root.SetOut(s.out)
	root.SetErr(s.err)

	err := root.ExecuteContext(ctx)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if closeErr := app.Close(closing); closeErr != nil && err == nil {
		err = closeErr
	}
	if s.process && errors.Is(err, worker.ErrRestart) {
		if err = nil; ctx.Err() == nil { // else a word to stop came when nobody else heard it any more
			err = place.Restart()
		}
	}
	return s.report(ctx, err)
}

// session is one command line.
type session struct {
	app     *lovage.App
	name    string
	in      io.Reader
	out     *term.Out
	err     *term.Out
	environ []string
	process bool
	extra   []*cobra.Command
	flags   []func(*pflag.FlagSet)
	own     *pflag.FlagSet // that the program has added
	global  globals
	worker  []func(*worker.Config)

	workerCmd   *cobra.Command
	workerFlags workerFlags
}

// getenv is the last value of a variable, as a shell has it.
func (s *session) getenv(name string) string {
	for i := len(s.environ) - 1; i >= 0; i-- {
		if v := s.environ[i]; len(v) > len(name) && v[len(name)] == '=' && v[:len(name)] == name {
			return v[len(name)+1:]
		}
	}
	return ""
}

// wantsPlain looks for --no-color before anything is parsed, since mistakes of
// the command line itself are printed too.
func wantsPlain(args []string) bool {
	for _, a := range args {
		switch a {
		case "--":
			return false
		case "-C", "--no-color", "--no-color=true":
			return true
		}
	}
	return false
}

// interrupted reports that the command ended because its context did.
func interrupted(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx)))
}
