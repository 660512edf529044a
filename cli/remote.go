package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/internal/term"
	"github.com/lovage-go/lovage/worker"
)

// remoteFlags are those of the commands that ask workers.
type remoteFlags struct {
	timeout     float64
	destination []string
	json, list  bool
}

func (f *remoteFlags) declare(cmd *cobra.Command, list bool) {
	f.timeout = control.DefaultTimeout.Seconds()
	g := group{cmd.Flags(), "Remote Control Options"}
	g.float(&f.timeout, "timeout", "t", "FLOAT", "Timeout in seconds waiting for reply. Default: 1.")
	g.list(&f.destination, "destination", "d", "Comma separated list of destination node names.")
	g.json(&f.json)
	if list {
		g.flag(&f.list, "list", "l", "List the commands.")
	}
}

func (f *remoteFlags) options(cmd *cobra.Command) (control.Options, error) {
	limit, ok := seconds(f.timeout)
	if !ok || limit == 0 {
		return control.Options{}, usagef(cmd, "Invalid value for -t / --timeout: %v: want seconds, more than 0.", f.timeout)
	}
	return control.Options{Reply: true, Timeout: limit, Destination: f.destination}, nil
}

// commands are those of the worker, the program's own among them.
func (s *session) commands() (*control.Registry, error) {
	var cfg worker.Config
	for _, change := range s.worker {
		change(&cfg)
	}
	return control.NewRegistry(cfg.Commands...)
}

// remoteCommand is inspect or control.
func (s *session) remoteCommand(name, short string, inspect bool) *cobra.Command {
	f := &remoteFlags{}
	cmd := &cobra.Command{
		Use:   name + " ACTION [ARGS]...",
		Short: short,
		Long: short + " The workers of the whole fleet are asked, Python's too, or those that --destination names. " +
			"Exits with 69 when none answers.\n\n" + name + " --list lists the actions.",
		RunE: func(cmd *cobra.Command, args []string) error { return s.remote(cmd, f, inspect, args) },
	}
	f.declare(cmd, true)
	return cmd
}

func (s *session) remote(cmd *cobra.Command, f *remoteFlags, inspect bool, args []string) error {
	known, err := s.commands()
	if err != nil {
		return err
	}
	if f.list {
		return s.listCommands(known, inspect, f.json)
	}
	if len(args) == 0 {
		return usagef(cmd, "Missing argument 'ACTION'. --list lists them.")
	}
	action := args[0]
	c, ok := known.Lookup(action)
	if !ok || c.Inspect != inspect || c.Help == "" {
		if ok && c.Help != "" {
			return usagef(cmd, "Invalid value for 'ACTION': '%s' is an action of %s.", action, map[bool]string{true: "inspect", false: "control"}[c.Inspect])
		}
		return usagef(cmd, "Invalid value for 'ACTION': there is no action '%s'.%s", action, meant("", action, listed(known, inspect)))
	}
	arguments, err := compile(cmd, c, args[1:])
	if err != nil {
		return err
	}
	o, err := f.options(cmd)
	if err != nil {
		return err
	}
	if !f.json {
		o.Each = func(r control.Reply) { s.say(&r, true) }
	}
	replies, err := s.ask(cmd.Context(), c.Name, arguments, o)
	switch {
	case err != nil:
		s.noteRevokes(cmd.Context(), arguments["task_id"])
		if c.Name == "shutdown" {
			s.note("no worker answers a shutdown: status shows who is left")
		}
		return err
	case f.json && inspect:
		err = s.printJSON(byNode(replies))
	case f.json:
		list := make([]map[string]json.RawMessage, len(replies))
		for i, r := range replies {
			list[i] = map[string]json.RawMessage{r.Node: r.Value}
		}
		err = s.printJSON(list)
	case inspect:
		s.online(len(replies))
	}
	return errors.Join(err, refused(action, replies))
}

// refused is the error of a command that all nodes have refused; they have said
// why. Celery's exit code is 0 then, which scripts take for done. That some do
// not know a task is the way of a fleet.
func refused(action string, replies []control.Reply) error {
	var nodes []string
	for i := range replies {
		if replies[i].Err() == nil {
			return nil
		}
		nodes = append(nodes, oneLine(replies[i].Node))
	}
	return exitf(ExitFailure, "%s was refused by %s", action, strings.Join(nodes, ", "))
}

// noteRevokes says, when nobody has heard a revoke, that who starts later will.
func (s *session) noteRevokes(ctx context.Context, ids any) {
	list, _ := ids.([]string)
	if len(list) == 0 {
		return
	}
	kept, err := s.app.Revokes(ctx)
	if err != nil {
		return
	}
	for _, id := range list {
		if _, ok := kept[id]; !ok {
			return
		}
	}
	s.note("the revoke is kept in the result store, where workers of Lovage that start later read it")
}

// ask broadcasts and wants a reply.
func (s *session) ask(ctx context.Context, method string, arguments map[string]any, o control.Options) ([]control.Reply, error) {
	replies, err := s.app.Control().Broadcast(ctx, method, arguments, o)
	if err != nil {
		return nil, err
	}
	if len(replies) == 0 {
		return nil, exitf(ExitUnavailable, "No nodes replied within time constraint (%s)", o.Timeout.Round(time.Millisecond))
	}
	return replies, nil
}

func byNode(replies []control.Reply) map[string]json.RawMessage {
	out := make(map[string]json.RawMessage, len(replies))
	for _, r := range replies {
		out[r.Node] = r.Value
	}
	return out
}

func (s *session) online(n int) {
	if !s.global.quiet {
		fmt.Fprintf(s.out, "\n%s online.\n", plural(n, "node"))
	}
}

// say prints a reply as Celery does.
func (s *session) say(r *control.Reply, body bool) {
	word, text, failed := pretty(r.Value)
	status := s.out.Paint(word, term.Green, term.Bold)
	if failed {
		status = s.out.Paint(word, term.Red, term.Bold)
	}
	arrow := ""
	if !s.global.quiet {
		arrow = s.out.Paint("->", term.Bold) + " "
	}
	fmt.Fprintf(s.out, "%s %s: %s\n", arrow, oneLine(r.Node), status)
	if body && text != "" {
		fmt.Fprintln(s.out, indent(text, 4))
	}
}

// listed are the names of the actions, in order.
func listed(known *control.Registry, inspect bool) (names []string) {
	for _, name := range known.Names() {
		if c, ok := known.Lookup(name); ok && c.Name == name && c.Inspect == inspect && c.Help != "" {
			names = append(names, name)
		}
	}
	return names
}

func (s *session) listCommands(known *control.Registry, inspect, asJSON bool) error {
	names := listed(known, inspect)
	if asJSON {
		return s.printJSON(names)
	}
	rows := [][]string{{"ACTION", "MEANING"}}
	for _, name := range names {
		c, _ := known.Lookup(name)
		rows = append(rows, []string{strings.TrimSpace(name + " " + signature(&c)), c.Help})
	}
	return s.table(rows)
}

// signature shows what an action takes.
func signature(c *control.Command) string {
	var words []string
	for _, p := range c.Params {
		if p.Must {
			words = append(words, "<"+p.Name+">")
		} else {
			words = append(words, "["+p.Name+"]")
		}
	}
	switch {
	case c.Rest == "":
	case slices.Contains(c.Args, c.Rest):
		words = append(words, "<"+c.Rest+" ...>")
	default:
		words = append(words, "["+c.Rest+" ...]")
	}
	return strings.Join(words, " ")
}

// compile makes the arguments of a command from words.
func compile(cmd *cobra.Command, c control.Command, words []string) (map[string]any, error) {
	takes := func(what string) error {
		return usagef(cmd, "%s: '%s' takes: %s.", what, c.Name, or(signature(&c), "nothing"))
	}
	out := map[string]any{}
	for _, p := range c.Params {
		if len(words) == 0 {
			if p.Must {
				return nil, takes("Missing argument '" + p.Name + "'")
			}
			continue
		}
		v, err := typed(p.Type, words[0])
		if err != nil {
			return nil, usagef(cmd, "Invalid value for '%s': %v.", p.Name, err)
		}
		out[p.Name] = v
		words = words[1:]
	}
	if len(words) == 0 && c.Rest != "" && slices.Contains(c.Args, c.Rest) {
		return nil, takes("Missing argument '" + c.Rest + "'")
	}
	if c.Rest != "" {
		out[c.Rest] = append([]string{}, words...)
	} else if len(words) > 0 {
		return nil, takes("Got unexpected extra argument (" + strings.Join(words, " ") + ")")
	}
	return out, nil
}

func typed(kind, word string) (any, error) {
	switch kind {
	case "int":
		n, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("%q is not a whole number", word)
		}
		return n, nil
	case "float":
		f, err := strconv.ParseFloat(word, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number", word)
		}
		return f, nil
	case "bool":
		switch w := strings.ToLower(word); {
		case slices.Contains([]string{"true", "yes", "1", "on"}, w):
			return true, nil
		case slices.Contains([]string{"false", "no", "0", "off"}, w):
			return false, nil
		}
		return nil, fmt.Errorf("%q is neither true nor false", word)
	}
	return word, nil
}
