package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/lovage-go/lovage/broker"
)

func (s *session) queueCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "Pause, resume and unpark queues.",
		Long: "Pause, resume and unpark queues. How full they are is told by queues, how they are emptied by purge, " +
			"and which a worker consumes by its -Q.",
		Args: func(cmd *cobra.Command, args []string) error { return s.noCommand(cmd, args) },
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		s.queueEach("pause", "Let no worker take from queues.", "Let no Go worker take from queues, whatever restarts, until they are resumed. Producers and runs go on.",
			pausing("paused", broker.Pauser.Pause)),
		s.queueEach("resume", "End the pause of queues.", "", pausing("resumed", broker.Pauser.Resume)),
		s.queueEach("unpark", "Give delayed messages back for Python to wait with.", "Give messages that wait for their time back to their queues, as plain messages with their ETA, for Python workers to wait with. "+
			"Stop the Go workers of a queue first: one that lives takes them in again.", unpark))
	return cmd
}

// queueEach is a command that does something to each queue it is given.
func (s *session) queueEach(use, short, long string, do func(ctx context.Context, s *session, queue string) (told string, err error)) *cobra.Command {
	return &cobra.Command{
		Use:   use + " NAME...",
		Short: short,
		Long:  or(long, short),
		Args:  someArgs("NAME..."),
		RunE: func(cmd *cobra.Command, names []string) error {
			var errs []error
			for _, name := range names {
				told, err := do(cmd.Context(), s, name)
				if err != nil {
					errs = append(errs, fmt.Errorf("%s queue %q: %w", use, name, err))
					continue
				}
				fmt.Fprintf(s.out, "%s: %s\n", oneLine(name), told)
			}
			return errors.Join(errs...)
		},
	}
}

func pausing(told string, do func(broker.Pauser, context.Context, string) error) func(context.Context, *session, string) (string, error) {
	return func(ctx context.Context, s *session, queue string) (string, error) {
		p, err := ability[broker.Pauser](ctx, s, "cannot pause a queue")
		if err != nil {
			return "", err
		}
		return told, do(p, ctx, queue)
	}
}

func unpark(ctx context.Context, s *session, queue string) (string, error) {
	u, err := ability[broker.Unparker](ctx, s, "shares no queue with Python workers that could wait with the messages")
	if err != nil {
		return "", err
	}
	n, err := u.Unpark(ctx, queue)
	return "unparked " + plural(n, "message"), err
}
