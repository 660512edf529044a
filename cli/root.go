package cli

import (
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lovage-go/lovage"
)

// globals are the flags of every command.
type globals struct {
	app, loader         string
	broker, backend     string
	config, workdir     string
	noColor, quiet      bool
	skipChecks, version bool
}

// later are Celery's commands that this program does not have, with what to do
// instead.
var later = map[string]string{
	"beat": "", "events": "",
	"shell": "use a Go test or go run", "upgrade": "settings keep their old names too; a warning tells the new one", "flower": "",
}

// root builds the whole tree of commands.
func (s *session) root() *cobra.Command {
	root := &cobra.Command{
		Use:           s.name + " [OPTIONS] COMMAND [ARGS]...",
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: s.name},
		Long:          fmt.Sprintf("Command line of %s, a Lovage app: a task queue that speaks Celery's protocol.", s.app.Name()),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          s.noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if s.global.version {
				return s.printVersion(false)
			}
			return cmd.Help()
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return s.configure(cmd) },
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	fs := group{root.PersistentFlags(), ""}
	fs.text(&s.global.app, "app", "A", "APPLICATION", "Accepted for Celery's sake: this program is the app.")
	fs.text(&s.global.broker, "broker", "b", "URL", "Where messages travel; instead of broker_url.")
	fs.text(&s.global.backend, "result-backend", "", "URL", "Where results are stored; instead of result_backend.")
	fs.text(&s.global.loader, "loader", "", "NAME", "Accepted for Celery's sake: there are no loaders.")
	fs.text(&s.global.config, "config", "", "FILE", "Settings from a .yaml, .json or .toml file.")
	fs.text(&s.global.workdir, "workdir", "", "PATH", "Change to this directory first.")
	fs.flag(&s.global.noColor, "no-color", "C", "No colours. Also: NO_COLOR in the environment.")
	fs.flag(&s.global.quiet, "quiet", "q", "No banner, no notes.")
	fs.flag(&s.global.skipChecks, "skip-checks", "", "Accepted for Celery's sake: there are no checks to skip.")
	group{root.Flags(), ""}.flag(&s.global.version, "version", "", "Show the version and exit.")
	s.own = pflag.NewFlagSet("", pflag.ContinueOnError)
	for _, add := range s.flags {
		add(s.own)
	}
	root.PersistentFlags().AddFlagSet(s.own)
	root.AddCommand(s.amqpCommand(), s.callCommand(), s.controlCommand(), s.deadCommand(), s.graphCommand(), s.inspectCommand(), s.listCommand(), s.logtoolCommand(), s.migrateCommand(), s.multiCommand(),
		s.purgeCommand(), s.queueCommand(), s.queuesCommand(), s.reportCommand(), s.resultCommand(), s.statusCommand(),
		s.tasksCommand(), s.versionCommand(), s.workerCommand(), s.workerHealthCommand())
	root.AddCommand(s.extra...)
	root.SetFlagErrorFunc(flagError)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { _, _ = io.WriteString(s.out, helpText(cmd)) })
	root.SetHelpCommand(s.helpCommand())
	root.InitDefaultHelpCmd()
	finish(root)
	return root
}

// helpCommand is help COMMAND, which is COMMAND --help.
func (s *session) helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "help [COMMAND]...",
		Short:             "Show the help text of a command.",
		PersistentPreRunE: func(*cobra.Command, []string) error { return nil }, // a wrong setting keeps nobody from help
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return s.noCommand(cmd.Root(), args)
			}
			return found.Help()
		},
	}
}

// finish gives every command what cobra would word otherwise.
func finish(cmd *cobra.Command) {
	cmd.Flags().SortFlags = false
	cmd.PersistentFlags().SortFlags = false
	cmd.DisableFlagsInUseLine = true
	if cmd.Flags().Lookup("help") == nil {
		cmd.Flags().BoolP("help", "h", false, "Show this message and exit.")
	}
	for _, c := range cmd.Commands() {
		finish(c)
	}
}

// noCommand is reached with words that name no command.
func (s *session) noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	name := args[0]
	if hint, known := later[name]; known {
		if hint != "" {
			hint = ": " + hint
		}
		return usagef(cmd, "Celery's command '%s' is not in this version%s.", name, hint)
	}
	var names []string
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			names = append(names, c.Name())
		}
	}
	return usagef(cmd, "No such command '%s'.%s", name, meant("", name, names))
}

// configure applies file, environment and flags to the App, in that order, and
// gives it a log.
func (s *session) configure(cmd *cobra.Command) error {
	g := &s.global
	if g.workdir != "" {
		if err := os.Chdir(g.workdir); err != nil {
			return usagef(cmd, "Invalid value for --workdir: %v.", err)
		}
	}
	if g.app != "" {
		s.note("-A %s has no meaning here: this program is the app %s", g.app, s.app.Name())
	}
	if g.loader != "" {
		s.note("--loader has no meaning here: settings come from code, --config, the environment and the command line")
	}
	s.defaultLog()
	options := map[string]string{}
	s.own.VisitAll(func(f *pflag.Flag) { options[f.Name] = f.Value.String() })
	s.app.Signals.UserPreloadOptions.Send(cmd.Context(), lovage.UserPreloadOptions{App: s.app, Options: options})
	if cmd == s.workerCmd {
		if err := s.checkWorker(cmd, &s.workerFlags); err != nil {
			return err
		}
	}
	file := g.config
	if file == "" {
		file = s.getenv("LOVAGE_CONFIG")
	}
	return s.app.Configure(func(c *lovage.Config) (all []lovage.Warning, err error) {
		add := func(w []lovage.Warning, err error) error { all = append(all, w...); return err }
		if file != "" {
			if err := add(c.LoadFile(file)); err != nil {
				return all, err
			}
		}
		if err := add(c.LoadEnv(s.celeryEnviron())); err != nil {
			return all, err
		}
		var words []string
		if g.broker != "" {
			words = append(words, "broker_url="+g.broker)
		}
		if g.backend != "" {
			words = append(words, "result_backend="+g.backend)
		}
		return all, add(c.LoadArgs(words))
	})
}

// celeryEnviron is the environment with the two variables that Celery's command
// line reads without a prefix, unless the prefixed ones are there.
func (s *session) celeryEnviron() []string {
	env := slices.Clone(s.environ)
	for _, name := range []string{"BROKER_URL", "RESULT_BACKEND"} {
		if v := s.getenv(name); v != "" && s.getenv("CELERY_"+name) == "" {
			env = append(env, "CELERY_"+name+"="+v)
		}
	}
	return env
}

// note tells a person something that changes nothing.
func (s *session) note(format string, a ...any) {
	if !s.global.quiet && !lovage.IsChild() {
		fmt.Fprintf(s.err, "note: "+format+"\n", a...)
	}
}

// group declares flags under a heading of the help text.
type group struct {
	*pflag.FlagSet
	title string
}

// Annotations of a flag: its heading, the word for its value, other names.
const (
	titleKey   = "lovage_title"
	metavarKey = "lovage_metavar"
	aliasKey   = "lovage_alias"
)

func (g group) mark(name, metavar string) {
	f := g.Lookup(name)
	f.Annotations = map[string][]string{titleKey: {g.title}, metavarKey: {metavar}}
}

func (g group) text(p *string, name, short, metavar, usage string) {
	g.StringVarP(p, name, short, *p, usage)
	g.mark(name, metavar)
}

func (g group) flag(p *bool, name, short, usage string) {
	g.BoolVarP(p, name, short, *p, usage)
	g.mark(name, "")
}

func (g group) number(p *int, name, short, metavar, usage string) {
	g.IntVarP(p, name, short, *p, usage)
	g.mark(name, metavar)
}

func (g group) float(p *float64, name, short, metavar, usage string) {
	g.Float64VarP(p, name, short, *p, usage)
	g.mark(name, metavar)
}

func (g group) list(p *[]string, name, short, usage string) {
	g.StringSliceVarP(p, name, short, *p, usage)
	g.mark(name, "COMMA SEPARATED LIST")
}

func (g group) value(v pflag.Value, name, short, metavar, usage string) {
	g.VarP(v, name, short, usage)
	g.mark(name, metavar)
}

// alias adds another name for a flag.
func (g group) alias(name, other string) {
	f := g.Lookup(name)
	g.AddFlag(&pflag.Flag{Name: other, Usage: f.Usage, Value: f.Value, DefValue: f.DefValue, NoOptDefVal: f.NoOptDefVal, Hidden: true})
	f.Annotations[aliasKey] = append(f.Annotations[aliasKey], other)
}
