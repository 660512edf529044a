package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lovage-go/lovage/internal/probe"
)

func (s *session) workerHealthCommand() *cobra.Command {
	var (
		address string
		live    bool
		timeout = 2.0
		asJSON  bool
	)
	cmd := &cobra.Command{
		Use:   "worker-health",
		Short: "Ask a worker of this machine whether it is well.",
		Long: "Ask a worker of this machine whether it is well, for the probes of containers: whether it takes work or, with --live, " +
			"whether its loops make progress. The worker is asked where its --health says; the broker is not. " +
			"Exits with 0 when it is well, 1 when it is not, 69 when nobody answers.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			limit, ok := seconds(timeout)
			if !ok || limit == 0 {
				return usagef(cmd, "Invalid value for -t / --timeout: %v: want seconds, more than 0.", timeout)
			}
			if address = or(address, s.app.Settings().WorkerHealth); address == "" {
				return usagef(cmd, "Missing option '--health': the address that the worker was given, by flag or by worker_health.")
			}
			return s.workerHealth(cmd.Context(), address, live, limit, asJSON)
		},
	}
	g := group{cmd.Flags(), "Health Options"}
	g.text(&address, "health", "", "ADDRESS", "127.0.0.1:PORT or unix:/path. Default: worker_health.")
	g.flag(&live, "live", "", "Ask for progress alone: /livez in place of /readyz.")
	g.float(&timeout, "timeout", "t", "FLOAT", "Timeout in seconds waiting for the answer. Default: 2.")
	g.json(&asJSON)
	return cmd
}

func (s *session) workerHealth(ctx context.Context, address string, live bool, limit time.Duration, asJSON bool) error {
	path, well := "/readyz", "ready"
	if live {
		path, well = "/livez", "live"
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	a, err := probe.Ask(ctx, address, path)
	if err != nil {
		return exitf(ExitUnavailable, "%w", err)
	}
	if asJSON {
		if err := s.printJSON(a); err != nil {
			return err
		}
	}
	if !a.OK {
		return exitf(ExitFailure, "%s is not %s: %s", a.Node, well, strings.Join(a.Reasons, "; "))
	}
	if !asJSON && !s.global.quiet {
		fmt.Fprintf(s.out, "%s is %s.\n", a.Node, well)
	}
	return nil
}
