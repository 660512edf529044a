package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lovage-go/lovage/broker"
)

func (s *session) purgeCommand() *cobra.Command {
	var (
		force, asJSON   bool
		queues, exclude []string
	)
	cmd := &cobra.Command{
		Use:   "purge",
		Short: "Erase all messages from all known task queues.",
		Long:  "Erase all messages from all known task queues: those of task_queues, or the default queue. Messages that a worker has claimed stay.\n\nWarning: There's no undo operation for this command.",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.purge(cmd.Context(), s.purgeNames(queues, exclude), force, asJSON)
		},
	}
	g := group{cmd.Flags(), "Purging Options"}
	g.flag(&force, "force", "f", "Don't prompt for verification.")
	g.list(&queues, "queues", "Q", "Comma separated list of queue names to purge.")
	g.list(&exclude, "exclude-queues", "X", "Comma separated list of queues names not to purge.")
	g.json(&asJSON)
	return cmd
}

// purgeNames are the queues given, or those that the App knows, without those
// that are excluded, each once.
func (s *session) purgeNames(given, exclude []string) []string {
	names := slices.Clone(given)
	if len(names) == 0 {
		names = s.queueNames()
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return slices.DeleteFunc(names, func(n string) bool { return n == "" || slices.Contains(exclude, n) })
}

// queueNames are the queues of the configuration.
func (s *session) queueNames() (names []string) {
	conf := s.app.Config()
	for _, q := range conf.TaskQueues {
		names = append(names, q.Name)
	}
	if len(names) == 0 {
		names = []string{or(conf.TaskDefaultQueue, "celery")}
	}
	return names
}

func (s *session) purge(ctx context.Context, names []string, force, asJSON bool) error {
	p, err := ability[broker.Purger](ctx, s, "cannot purge a queue")
	if err != nil {
		return err
	}
	word := "queue"
	if len(names) != 1 {
		word = "queues"
	}
	if !force && len(names) > 0 {
		err := s.confirm(fmt.Sprintf("This will remove all tasks from %s: %s.\n         There is no undo for this operation!", word, strings.Join(names, ", ")))
		if err != nil {
			return err
		}
	}
	total, purged, errs := 0, map[string]int{}, []error(nil)
	for _, name := range names {
		n, err := p.Purge(ctx, name)
		if err != nil {
			errs = append(errs, fmt.Errorf("purge queue %q: %w", name, err))
			continue
		}
		purged[name] = n
		total += n
	}
	switch {
	case asJSON:
		errs = append(errs, s.printJSON(purged))
	case total > 0:
		fmt.Fprintf(s.out, "Purged %s from %d known task %s.\n", plural(total, "message"), len(names), word)
	case len(errs) == 0:
		fmt.Fprintf(s.out, "No messages purged from %d %s.\n", len(names), word)
	}
	return errors.Join(errs...)
}
