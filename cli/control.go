package cli

import "github.com/spf13/cobra"

func (s *session) controlCommand() *cobra.Command {
	return s.remoteCommand("control", "Workers remote control.", false)
}
