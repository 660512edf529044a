package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/migrate"
)

func (s *session) migrateCommand() *cobra.Command {
	var (
		limit         int
		timeout       float64
		ack, forever  bool
		tasks, queues []string
	)
	cmd := &cobra.Command{
		Use:   "migrate SOURCE DESTINATION",
		Short: "Migrate tasks from one broker to another.",
		Long: "Migrate tasks from one broker to another, each named by its URL. Without --ack-messages they are copied. " +
			"What waits for its time inside the source, and what workers have claimed, stays there.\n\n" +
			"Warning: make sure you have a backup of the tasks before you continue.",
		Args: exactArgs("SOURCE", "DESTINATION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			wait, ok := seconds(timeout)
			if !ok || limit < 0 {
				return usagef(cmd, "Invalid value: --timeout and --limit cannot be negative.")
			}
			return s.migrate(cmd.Context(), args[0], args[1], tasks, queues, migrate.Options{Limit: limit, Idle: wait, Forever: forever, Keep: !ack})
		},
	}
	g := group{cmd.Flags(), "Migration Options"}
	g.number(&limit, "limit", "n", "INTEGER", "Number of tasks to consume.")
	g.float(&timeout, "timeout", "t", "FLOAT", "Timeout in seconds waiting for tasks. The default is 1.")
	g.flag(&ack, "ack-messages", "a", "Ack messages from source broker.")
	g.list(&tasks, "tasks", "T", "List of task names to filter on.")
	g.list(&queues, "queues", "Q", "List of queues to migrate.")
	g.flag(&forever, "forever", "F", "Continually migrate tasks until killed.")
	return cmd
}

func (s *session) migrate(ctx context.Context, source, destination string, tasks, queues []string, o migrate.Options) (err error) {
	if o.Queues, err = s.app.Queues(queues...); err != nil {
		return err
	}
	from, err := broker.Open(ctx, broker.Config{URL: source, Logger: s.app.Logger()})
	if err != nil {
		return err
	}
	defer func() { err = firstOf(err, from.Close()) }()
	to, err := broker.Open(ctx, broker.Config{URL: destination, Logger: s.app.Logger()})
	if err != nil {
		return err
	}
	defer func() { err = firstOf(err, to.Close()) }()
	o.Declare = func(name string) (broker.Queue, error) {
		qs, err := s.app.Queues(name)
		if err != nil {
			return broker.Queue{}, err
		}
		return qs[0], nil
	}
	if len(tasks) > 0 {
		o.Route = migrate.Only(func(t *migrate.Task) bool { return slices.Contains(tasks, t.Name) })
	}
	total := s.waiting(ctx, from, o.Queues)
	o.Moved = func(t *migrate.Task, n int) {
		fmt.Fprintf(s.out, "Migrating task %d/%s: %s[%s]\n", n, total, oneLine(t.Name), oneLine(t.ID))
	}
	stats, err := migrate.Run(ctx, from, to, o)
	if stats.Left > 0 && !o.Keep {
		s.note("%s stay at the source", plural(stats.Left, "other message"))
	}
	if n := s.delayed(ctx, from, o.Queues); n > 0 {
		s.note("%s wait for their time at the source and stay there", plural(n, "message"))
	}
	return err
}

// waiting is how many messages there are about, "?" if the broker does not count.
func (s *session) waiting(ctx context.Context, conn broker.Conn, queues []broker.Queue) string {
	n := 0
	for _, l := range lengthsOf(ctx, conn, queues) {
		n += max(l.Ready, 0)
	}
	if n == 0 {
		return "?"
	}
	return fmt.Sprint(n)
}

func (s *session) delayed(ctx context.Context, conn broker.Conn, queues []broker.Queue) (n int) {
	for _, l := range lengthsOf(ctx, conn, queues) {
		n += max(l.Delayed, 0)
	}
	return n
}

func lengthsOf(ctx context.Context, conn broker.Conn, queues []broker.Queue) map[string]broker.Length {
	l, ok := conn.(broker.Lengther)
	if !ok {
		return nil
	}
	names := make([]string, len(queues))
	for i, q := range queues {
		names[i] = q.Name
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	lengths, err := l.Lengths(ctx, names...)
	if err != nil {
		return nil // it is for show
	}
	return lengths
}

func firstOf(err, then error) error {
	if err != nil {
		return err
	}
	return then
}

// exactArgs wants one word for each of the names.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usagef(cmd, "Missing argument '%s'.", names[len(args)])
		case len(args) > len(names):
			return usagef(cmd, "Got unexpected extra argument (%s)", strings.Join(args[len(names):], " "))
		}
		return nil
	}
}
