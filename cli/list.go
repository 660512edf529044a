package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/lovage-go/lovage/broker"
)

func (s *session) listCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Get info from broker.",
		Args:  func(cmd *cobra.Command, args []string) error { return s.noCommand(cmd, args) },
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	asJSON := false
	bindings := &cobra.Command{
		Use:   "bindings",
		Short: "Inspect queue bindings.",
		Long: "Inspect queue bindings: those of the exchanges of the configuration, and of all that Go programs have declared. " +
			"Nothing is declared for it. RabbitMQ tells its bindings by rabbitmqctl and its management plugin alone.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return s.bindings(cmd, asJSON) },
	}
	group{bindings.Flags(), "Output Options"}.json(&asJSON)
	cmd.AddCommand(bindings)
	return cmd
}

func (s *session) bindings(cmd *cobra.Command, asJSON bool) error {
	list, err := s.bound(cmd.Context())
	if errors.Is(err, broker.ErrUnsupported) {
		return usagef(cmd, "Your transport cannot list bindings.")
	}
	if err != nil {
		return fmt.Errorf("list the bindings: %w", err)
	}
	slices.SortFunc(list, func(a, b broker.Bound) int {
		return cmp.Or(cmp.Compare(a.Queue, b.Queue), cmp.Compare(a.Exchange, b.Exchange), cmp.Compare(a.RoutingKey, b.RoutingKey))
	})
	if asJSON {
		type bound struct {
			Queue      string `json:"destination"` // kombu's words
			Exchange   string `json:"source"`
			RoutingKey string `json:"routing_key"`
		}
		out := make([]bound, len(list))
		for i, b := range list {
			out[i] = bound(b)
		}
		return s.printJSON(out)
	}
	const line = "----------------"
	rows := [][3]string{{"Queue", "Exchange", "Routing Key"}, {line, line, line}}
	for _, b := range list {
		rows = append(rows, [3]string{oneLine(b.Queue), oneLine(b.Exchange), oneLine(b.RoutingKey)})
	}
	for _, r := range rows {
		if _, err := fmt.Fprintf(s.out, "%-28s %-28s %s\n", r[0], r[1], r[2]); err != nil {
			return err
		}
	}
	return nil
}

// bound are the bindings that the broker can tell of.
func (s *session) bound(ctx context.Context) ([]broker.Bound, error) {
	l, err := ability[broker.BindingLister](ctx, s, "cannot list its bindings")
	if err != nil {
		return nil, err
	}
	queues, err := s.app.Queues()
	if err != nil {
		return nil, err
	}
	var exchanges []string
	for _, q := range queues {
		exchanges = append(exchanges, q.Exchange.Name)
		for _, b := range q.Bindings {
			exchanges = append(exchanges, b.Exchange.Name)
		}
	}
	return l.Bindings(ctx, slices.DeleteFunc(exchanges, func(name string) bool { return name == "" })...)
}
