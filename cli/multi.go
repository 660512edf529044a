package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/term"
)

// multiPoll is the time between looks at a node.
const multiPoll = 100 * time.Millisecond

// multi manages several workers of one machine.
type multi struct {
	s       *session
	ctx     context.Context
	nodes   []*node
	signal  os.Signal
	verbose bool
	quiet   bool
	splash  bool
}

const multiHelp = `Start, stop and show several workers of this machine: each is this program's worker, in the background, with its own name, pid file and log file.

	{p} multi start <node1 node2 nodeN|range> [worker options]
	{p} multi stop|stopwait <n1 n2 nN|range> [-SIG (default: -TERM)]
	{p} multi restart <n1 n2 nN|range> [-SIG] [worker options]
	{p} multi kill <n1 n2 nN|range>
	{p} multi show <n1 n2 nN|range> [worker options]
	{p} multi get name@host <n1 n2 nN|range> [worker options]
	{p} multi names <n1 n2 nN|range>
	{p} multi expand TEMPLATE <n1 n2 nN|range>

Nodes are names, name@host, or a number of them: 3 are celery1, celery2 and celery3. Options of the worker are for all nodes, or for some by name or number: -c 3 -c:1 10 -Q:4-5,images data. In values %n is the node's name, %h the whole name@host and %d its host.

	$ {p} multi start 10 -l INFO -Q:1-3 images,video -Q:4,5 data
	$ {p} multi restart leslie --pidfile=/run/proj/%n.pid --logfile=/var/log/proj/%n%I.log

--pidfile and --logfile are by default /var/run/celery/%n.pid and /var/log/celery/%n%I.log; what stops a node needs the same pid file that started it. stop returns at once, stopwait when the nodes are gone, start when they hold their pid files. --prefix, --suffix, --range-prefix and --hostname shape the names; --executable, --cmd and --append what is started; --nosplash, --quiet, --verbose and --no-color what is told.`

func (s *session) multiCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "multi COMMAND [NODES]...",
		Short:              "Start multiple worker instances.",
		Long:               strings.ReplaceAll(multiHelp, "{p}", s.name),
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			global, args := s.leading(cmd, args)
			if len(args) == 0 || slices.Contains([]string{"-h", "--help", "help"}, args[0]) {
				return cmd.Help()
			}
			return s.runMulti(cmd, args[0], append(args[1:], global...))
		},
	}
}

// leading are the options before the first word, with their values: those that
// were given to the program and not to multi.
func (s *session) leading(cmd *cobra.Command, args []string) (global, rest []string) {
	for i := 0; i < len(args); i++ {
		if args[i] == "-h" || args[i] == "--help" || !strings.HasPrefix(args[i], "-") {
			return args[:i], args[i:]
		}
		if value, _ := s.takesValue(args[i]); value && !strings.Contains(args[i], "=") {
			i++
		}
	}
	return nil, args
}

// takesValue reports whether an option of worker, or of all commands, has a
// value.
func (s *session) takesValue(word string) (value, known bool) {
	for _, fs := range []*pflag.FlagSet{s.workerCmd.Flags(), s.workerCmd.Root().PersistentFlags()} {
		var f *pflag.Flag
		if name, long := strings.CutPrefix(word, "--"); long {
			f = fs.Lookup(name)
		} else if len(word) == 2 {
			f = fs.ShorthandLookup(word[1:])
		} else if f = fs.ShorthandLookup(word[1:2]); f != nil {
			return false, true // -c3
		}
		if f != nil {
			return f.NoOptDefVal == "", true
		}
	}
	return false, false
}

func (s *session) runMulti(cmd *cobra.Command, command string, args []string) error {
	m := &multi{s: s, ctx: cmd.Context(), signal: syscall.SIGTERM, splash: true, quiet: s.global.quiet}
	args = slices.DeleteFunc(slices.Clone(args), m.own)
	var first string
	if command == "get" || command == "expand" {
		if len(args) == 0 {
			return usagef(cmd, "Missing argument 'TEMPLATE' of %s.", command)
		}
		first, args = args[0], args[1:]
	}
	line := parseMulti(m.takeSignal(command, args), s.takesValue)
	if len(line.names) == 0 {
		return usagef(cmd, "Missing nodes: names, or a number of them.")
	}
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if m.nodes, err = line.nodes(executable); err != nil {
		return usagef(cmd, "%v.", err)
	}
	run := map[string]func() error{
		"start": m.start, "stop": func() error { return m.stop(false) }, "stopwait": func() error { return m.stop(true) },
		"stop_verify": func() error { return m.stop(true) }, "restart": m.restart, "kill": m.kill,
		"show":   func() error { return m.each(func(n *node) string { return n.commandLine() }) },
		"names":  func() error { return m.each(func(n *node) string { return n.name }) },
		"expand": func() error { return m.each(func(n *node) string { return n.expand(first) }) },
		"get":    func() error { return m.get(first) },
	}[command]
	if run == nil {
		return usagef(cmd, "Invalid command: %s.%s", command, meant("", command,
			[]string{"start", "stop", "stopwait", "restart", "kill", "show", "names", "expand", "get", "help"}))
	}
	return run()
}

// own takes the options of multi itself.
func (m *multi) own(word string) bool {
	switch word {
	case "--nosplash":
		m.splash = false
	case "--quiet", "-q":
		m.quiet = true
	case "--verbose":
		m.verbose = true
	case "--no-color", "-C":
	default:
		return false
	}
	return true
}

// takeSignal takes the last option that is a signal, -9 or -KILL, where there is
// one to send.
func (m *multi) takeSignal(command string, args []string) []string {
	if command != "stop" && command != "stopwait" && command != "stop_verify" && command != "restart" {
		return args
	}
	for i := len(args) - 1; i >= 0; i-- {
		text, option := strings.CutPrefix(args[i], "-")
		if !option || strings.HasPrefix(text, "-") {
			continue
		}
		if sig, ok := signalOf(text); ok {
			m.signal = sig
			return slices.Delete(slices.Clone(args), i, i+1)
		}
	}
	return args
}

// note tells a person what goes on.
func (m *multi) note(format string, a ...any) {
	if !m.quiet {
		fmt.Fprintf(m.s.out, format, a...)
	}
}

func (m *multi) title(text string) {
	if m.splash {
		m.note("%s\n", m.s.out.Paint(m.s.name+" multi v"+lovage.Version+" (lovage)", term.Cyan))
	}
	if text != "" {
		m.note("> %s...\n", text)
	}
}

func (m *multi) verdict(ok bool) string {
	if ok {
		return m.s.out.Paint("OK", term.Green)
	}
	return m.s.out.Paint("FAILED", term.Red)
}

// each prints a line for each node.
func (m *multi) each(line func(*node) string) error {
	for _, n := range m.nodes {
		if _, err := fmt.Fprintln(m.s.out, line(n)); err != nil {
			return err
		}
	}
	return nil
}

func (m *multi) get(name string) error {
	i := slices.IndexFunc(m.nodes, func(n *node) bool { return n.name == name })
	if i < 0 {
		return exitf(ExitFailure, "no node %q: the names are those that multi names prints", name)
	}
	_, err := fmt.Fprintln(m.s.out, strings.TrimPrefix(m.nodes[i].commandLine(), m.nodes[i].executable+" "))
	return err
}

func (m *multi) start() error {
	m.title("Starting nodes")
	failed := 0
	for _, n := range m.nodes {
		m.note("\t> %s: ", n.name)
		failed += m.launch(n)
	}
	return m.failures(failed)
}

func (m *multi) failures(n int) error {
	if n == 0 {
		return nil
	}
	return exitf(ExitFailure, "%s did not start: their log files say why", plural(n, "node"))
}

// running are the nodes that live, by process id; the others are told as down.
func (m *multi) running(down func(*node)) (list []*node, pids []int) {
	for _, n := range m.nodes {
		if pid := readPid(n.pidfile); pid > 0 && alive(pid) {
			list, pids = append(list, n), append(pids, pid)
		} else {
			down(n)
		}
	}
	return list, pids
}

func (m *multi) down(n *node) {
	m.note("> %s: %s\n", n.name, m.s.out.Paint("DOWN", term.Magenta))
}

func (m *multi) stop(wait bool) error {
	m.title("")
	return m.end(wait, m.down)
}

// restart starts each node again as soon as it is gone.
func (m *multi) restart() error {
	m.title("")
	failed := 0
	err := m.end(true, func(n *node) {
		m.note("> Restarting node %s: ", n.name)
		failed += m.launch(n)
	})
	if err != nil {
		return err
	}
	return m.failures(failed)
}

// end signals the nodes that run and, if told to, waits until they are gone,
// however long that takes; an interrupt ends the waiting.
func (m *multi) end(wait bool, gone func(*node)) error {
	nodes, pids := m.running(gone)
	if len(nodes) == 0 {
		return nil
	}
	m.note("> Stopping nodes...\n")
	for i, n := range nodes {
		m.note("\t> %s: %s -> %d\n", n.name, signalText(m.signal), pids[i])
		if err := signalPid(pids[i], m.signal); err != nil {
			fmt.Fprintf(m.s.err, "* could not signal %s (%d): %v\n", n.name, pids[i], err)
		}
	}
	if !wait {
		return nil
	}
	poll := time.NewTicker(multiPoll)
	defer poll.Stop()
	for left := 0; len(nodes) > 0; {
		if left != len(nodes) {
			left = len(nodes)
			m.note("> Waiting for %s...\n", plural(left, "node"))
		}
		select {
		case <-poll.C:
		case <-m.ctx.Done():
			return context.Cause(m.ctx)
		}
		for i := 0; i < len(nodes); {
			if alive(pids[i]) {
				i++
				continue
			}
			n := nodes[i]
			nodes, pids = slices.Delete(nodes, i, i+1), slices.Delete(pids, i, i+1)
			m.note("\t> %s: %s\n", n.name, m.verdict(true))
			gone(n)
		}
	}
	return nil
}

func (m *multi) kill() error {
	m.title("")
	nodes, pids := m.running(m.down)
	for i, n := range nodes {
		m.note("Sending KILL to node %s (%d)\n", n.name, pids[i])
		if err := signalPid(pids[i], os.Kill); err != nil {
			return fmt.Errorf("kill %s (%d): %w", n.name, pids[i], err)
		}
	}
	return nil
}
