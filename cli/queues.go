package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/lovage-go/lovage/broker"
)

func (s *session) queuesCommand() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "queues [NAME]...",
		Short: "Count the messages of the queues.",
		Long: "Count the messages of the queues that the broker has, or of those named: ready to be taken, claimed by workers, " +
			"waiting for their time, and dead. RabbitMQ does not list its queues: there they are those of the configuration and of dead letters.",
		RunE: func(cmd *cobra.Command, names []string) error { return s.queues(cmd.Context(), names, asJSON) },
	}
	group{cmd.Flags(), "Output Options"}.json(&asJSON)
	return cmd
}

func (s *session) queues(ctx context.Context, names []string, asJSON bool) error {
	l, err := ability[broker.Lengther](ctx, s, "does not count its queues")
	if err != nil {
		return err
	}
	lengths, err := l.Lengths(ctx, names...)
	if err == nil && len(names) == 0 {
		lengths, err = s.ofConfiguration(ctx, l, lengths)
	}
	if err != nil {
		return fmt.Errorf("count the queues: %w", err)
	}
	if asJSON {
		type length struct {
			Ready   int `json:"ready"`
			Claimed int `json:"claimed"` // -1: the broker does not tell, as with those below
			Delayed int `json:"delayed"`
			Dead    int `json:"dead"`
		}
		out := make(map[string]length, len(lengths))
		for name, n := range lengths {
			out[name] = length(n)
		}
		return s.printJSON(out)
	}
	if len(lengths) == 0 {
		s.note("the broker has no queues yet: the first call makes one")
		return nil
	}
	rows := [][]string{{"QUEUE", ">READY", ">CLAIMED", ">DELAYED", ">DEAD"}}
	for _, name := range slices.Sorted(maps.Keys(lengths)) {
		n := lengths[name]
		rows = append(rows, []string{oneLine(name), count(n.Ready), count(n.Claimed), count(n.Delayed), count(n.Dead)})
	}
	return s.table(rows)
}

// ofConfiguration adds the queues of the configuration to what a broker tells that
// cannot list its queues, as RabbitMQ; others have named them all.
func (s *session) ofConfiguration(ctx context.Context, l broker.Lengther, known map[string]broker.Length) (map[string]broker.Length, error) {
	own, err := l.Lengths(ctx, s.queueNames()...)
	for name, n := range own {
		if n.Claimed == broker.Unknown {
			known[name] = n
		}
	}
	return known, err
}

// count is a number of messages, or a dash where the broker does not tell.
func count(n int) string {
	if n == broker.Unknown {
		return "-"
	}
	return strconv.Itoa(n)
}
