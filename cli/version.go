package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/lovage-go/lovage"
)

const module = "github.com/lovage-go/lovage"

func (s *session) versionCommand() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the version.",
		Args:  noArgs,
		RunE:  func(*cobra.Command, []string) error { return s.printVersion(asJSON) },
	}
	group{cmd.Flags(), ""}.json(&asJSON)
	return cmd
}

// printVersion writes Lovage's version, and in JSON also what it was built with.
func (s *session) printVersion(asJSON bool) error {
	if !asJSON {
		_, err := fmt.Fprintf(s.out, "lovage %s\n", lovage.Version)
		return err
	}
	return s.printJSON(struct {
		Lovage   string `json:"lovage"`
		Revision string `json:"revision,omitempty"`
		Go       string `json:"go"`
		Platform string `json:"platform"`
		App      string `json:"app"`
	}{lovage.Version, revision(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, s.app.Name()})
}

// revision is the commit this program was built from, or the version of the
// module it was linked with; empty if the build did not record either.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	if info.Main.Path != module {
		for _, d := range info.Deps {
			if d.Path == module {
				return d.Version
			}
		}
		return ""
	}
	for _, kv := range info.Settings {
		if kv.Key == "vcs.revision" {
			return kv.Value
		}
	}
	return ""
}
