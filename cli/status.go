package cli

import (
	"github.com/spf13/cobra"

	"github.com/lovage-go/lovage/control"
)

func (s *session) statusCommand() *cobra.Command {
	f := &remoteFlags{}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show list of workers that are online.",
		Long:  "Show list of workers that are online: those that answer a ping within the timeout. Exits with 69 when there is none.",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return s.status(cmd, f) },
	}
	f.declare(cmd, false)
	return cmd
}

func (s *session) status(cmd *cobra.Command, f *remoteFlags) error {
	o, err := f.options(cmd)
	if err != nil {
		return err
	}
	if !f.json {
		o.Each = func(r control.Reply) { s.say(&r, false) }
	}
	replies, err := s.ask(cmd.Context(), "ping", nil, o)
	if err != nil {
		return err
	}
	if f.json {
		return s.printJSON(byNode(replies))
	}
	s.online(len(replies))
	return nil
}
