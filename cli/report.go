package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/lovage-go/lovage"
)

func (s *session) reportCommand() *cobra.Command {
	var all, asJSON bool
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Shows information useful to include in bug-reports.",
		Long:  "Shows information useful to include in bug-reports: versions, platform, and the settings that are set, with their source. Secrets are masked.",
		Args:  noArgs,
		RunE:  func(*cobra.Command, []string) error { return s.printReport(all, asJSON) },
	}
	g := group{cmd.Flags(), "Report Options"}
	g.flag(&all, "all", "", "Show every setting, with its default.")
	g.json(&asJSON)
	return cmd
}

// where is the transport and the result store, in words.
func (s *session) where() (transport, results string) {
	transport, results = s.app.URLs()
	return or(transport, "not set"), or(results, "disabled")
}

// printReport opens nothing: it works where a broker does not.
func (s *session) printReport(all, asJSON bool) error {
	conf := s.app.Config()
	rows := conf.Table(all)
	transport, results := s.where()
	if asJSON {
		type setting struct {
			Name   string `json:"name"`
			Value  any    `json:"value"`
			Source string `json:"source"`
		}
		list := []setting{}
		for _, r := range rows {
			if r.Field != "" {
				list = append(list, setting{r.Name, r.Value, r.Source})
			}
		}
		return s.printJSON(map[string]any{
			"lovage": lovage.Version, "revision": revision(), "go": runtime.Version(), "system": runtime.GOOS, "arch": runtime.GOARCH,
			"cpus": runtime.NumCPU(), "app": s.app.Name(), "tasks": s.app.TaskNames(),
			"transport": transport, "results": results, "settings": list,
		})
	}
	_, err := fmt.Fprint(s.out, s.app.Report(all))
	return err
}
