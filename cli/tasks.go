package cli

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/bind"
)

func (s *session) tasksCommand() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "tasks",
		Short: "List the tasks of this program.",
		Args:  noArgs,
		RunE:  func(*cobra.Command, []string) error { return s.tasks(asJSON) },
	}
	group{cmd.Flags(), "Output Options"}.json(&asJSON)
	return cmd
}

func (s *session) tasks(asJSON bool) error {
	if err := s.app.Freeze(); err != nil {
		return err
	}
	list := s.app.Tasks()
	if asJSON {
		type param struct {
			Name     string          `json:"name"`
			Kind     string          `json:"kind"`
			Required bool            `json:"required"`
			Default  json.RawMessage `json:"default,omitempty"`
		}
		type task struct {
			Name   string  `json:"name"`
			Params []param `json:"params"`
		}
		out := make([]task, len(list))
		for i, d := range list {
			out[i] = task{Name: d.Name(), Params: []param{}}
			for _, p := range d.Params() {
				out[i].Params = append(out[i].Params, param{p.Name, p.Kind.String(), p.Required, json.RawMessage(p.Default)})
			}
		}
		return s.printJSON(out)
	}
	if len(list) == 0 {
		s.note("this program has no tasks: it calls those of others")
	}
	for _, d := range list {
		if _, err := fmt.Fprintln(s.out, taskSignature(d)); err != nil {
			return err
		}
	}
	return nil
}

// taskSignature is a task as a call in Python: proj.add(x, y=0, *rest).
func taskSignature(d *lovage.Definition) string {
	var parts []string
	starred := false
	for _, p := range d.Params() {
		text := p.Name
		switch p.Kind {
		case bind.Rest:
			text, starred = "*"+text, true
		case bind.Extra:
			text = "**" + text
		case bind.KeywordOnly:
			if !starred {
				parts, starred = append(parts, "*"), true
			}
		}
		if p.Kind == bind.Positional || p.Kind == bind.KeywordOnly {
			switch {
			case p.Default != "":
				text += "=" + p.Default
			case !p.Required:
				text += "=..."
			}
		}
		parts = append(parts, text)
	}
	return d.Name() + "(" + strings.Join(parts, ", ") + ")"
}
