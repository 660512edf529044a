package cli

import "github.com/spf13/cobra"

func (s *session) inspectCommand() *cobra.Command {
	return s.remoteCommand("inspect", "Inspect the worker at runtime.", true)
}
