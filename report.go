package lovage

import (
	"cmp"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
)

// Report is what a bug report should say: versions, platform, and the settings
// that are set, or all, with their source. Secrets are masked. It opens nothing.
func (a *App) Report(all bool) string {
	transport, results := a.URLs()
	var b strings.Builder
	fmt.Fprintf(&b, "\nsoftware -> lovage:%s go:%s\n", Version, strings.TrimPrefix(runtime.Version(), "go"))
	fmt.Fprintf(&b, "platform -> system:%s arch:%s cpus:%d\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	fmt.Fprintf(&b, "app      -> %s tasks:%d\n", a.Name(), len(a.TaskNames()))
	fmt.Fprintf(&b, "settings -> transport:%s results:%s\n\n", cmp.Or(transport, "not set"), cmp.Or(results, "disabled"))
	conf := a.Config()
	for _, row := range conf.Table(all) {
		if row.Field != "" {
			fmt.Fprintf(&b, "%s: %s%s\n", row.Name, row.valueText(), row.sourceText())
		}
	}
	return b.String()
}

func (row *Setting) valueText() string {
	switch v := row.Value.(type) {
	case string:
		return v
	case fmt.Stringer:
		return v.String()
	}
	if text, err := json.Marshal(row.Value); err == nil {
		return string(text)
	}
	return fmt.Sprint(row.Value)
}

func (row *Setting) sourceText() string {
	if row.Source == "default" || row.Source == "code" {
		return ""
	}
	return "  (" + row.Source + ")"
}
