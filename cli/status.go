package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/lovage-go/lovage/events"
	"github.com/lovage-go/lovage/internal/term"
)

func (s *session) statusCommand() *cobra.Command {
	var (
		timeout     = 3.0
		destination []string
		asJSON      bool
	)
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show list of workers that are online.",
		Long: "Show list of workers that are online: those whose heartbeat is heard within the timeout. A worker sends one every 2 s " +
			"unless told otherwise. Exits with 69 when there is none.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			limit, ok := seconds(timeout)
			if !ok || limit == 0 {
				return usagef(cmd, "Invalid value for -t / --timeout: %v: want seconds, more than 0.", timeout)
			}
			return s.status(cmd.Context(), limit, destination, asJSON)
		},
	}
	g := group{cmd.Flags(), "Remote Control Options"}
	g.float(&timeout, "timeout", "t", "FLOAT", "Timeout in seconds waiting for reply. Default: 3.")
	g.list(&destination, "destination", "d", "Comma separated list of destination node names.")
	g.json(&asJSON)
	return cmd
}

// status listens for the heartbeats of workers. It can end early only if it was
// told whom to expect.
func (s *session) status(ctx context.Context, limit time.Duration, destination []string, asJSON bool) error {
	nodes, err := s.heartbeats(ctx, limit, destination)
	if err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(nodes))
	if asJSON {
		out := map[string]map[string]string{}
		for _, name := range names {
			out[name] = map[string]string{"ok": "pong"}
		}
		if err := s.printJSON(out); err != nil {
			return err
		}
	} else {
		for _, name := range names {
			fmt.Fprintf(s.out, "%s  %s: %s\n", s.out.Paint("->", term.Bold), oneLine(name), s.out.Paint("OK", term.Green, term.Bold))
		}
	}
	if len(names) == 0 {
		return exitf(ExitUnavailable, "No nodes replied within time constraint (%s)", limit)
	}
	if !asJSON && !s.global.quiet {
		fmt.Fprintf(s.out, "\n%s online.\n", plural(len(names), "node"))
	}
	return nil
}

// heartbeats collects the names of the workers that are heard within limit.
func (s *session) heartbeats(ctx context.Context, limit time.Duration, destination []string) (map[string]bool, error) {
	rec, err := s.app.Events(ctx)
	if err != nil {
		return nil, fmt.Errorf("listen for heartbeats: %w", err)
	}
	defer rec.Close()
	listen, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	nodes := map[string]bool{}
	for len(destination) == 0 || len(nodes) < len(destination) {
		e, err := rec.Next(listen)
		switch {
		case err == nil:
		case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
			return nodes, nil
		default:
			return nil, err
		}
		if len(destination) > 0 && !slices.Contains(destination, e.Hostname) {
			continue
		}
		switch e.Type {
		case events.WorkerHeartbeat, events.WorkerOnline:
			nodes[e.Hostname] = true
		case events.WorkerOffline:
			delete(nodes, e.Hostname)
		}
	}
	return nodes, nil
}
