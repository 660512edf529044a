package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Help is laid out as Celery's (click's) is: 80 columns, options under headings
// in the order of their declaration, the plain Options last.
const (
	helpWidth   = 80
	helpMaxTerm = 30
)

// entry is a line of a definition list.
type entry struct{ term, text string }

func usageLine(cmd *cobra.Command) string {
	if !cmd.HasParent() {
		return cmd.Use
	}
	words := strings.TrimPrefix(cmd.Use, cmd.Name())
	if cmd.HasAvailableSubCommands() && words == "" {
		words = " COMMAND [ARGS]..."
	}
	return cmd.CommandPath() + " [OPTIONS]" + words
}

func helpText(cmd *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s\n\n", usageLine(cmd))
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	for _, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if strings.HasPrefix(paragraph, "\t") { // as it is
			b.WriteString("    " + strings.ReplaceAll(strings.TrimSpace(paragraph), "\n\t", "\n    ") + "\n\n")
			continue
		}
		b.WriteString("  " + strings.Join(wrap(paragraph, helpWidth-2), "\n  ") + "\n\n")
	}
	var sections []string
	lists := map[string][]entry{}
	add := func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		title := "Options"
		if t := f.Annotations[titleKey]; len(t) > 0 && t[0] != "" {
			title = t[0]
		}
		if _, seen := lists[title]; !seen && title != "Options" {
			sections = append(sections, title)
		}
		lists[title] = append(lists[title], entry{flagTerm(f), f.Usage})
	}
	cmd.PersistentFlags().VisitAll(add)
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if cmd.PersistentFlags().Lookup(f.Name) == nil {
			add(f)
		}
	})
	if f := cmd.Flags().Lookup("help"); f != nil {
		lists["Options"] = append(lists["Options"], entry{flagTerm(f), f.Usage})
	}
	for _, title := range append(sections, "Options") {
		if len(lists[title]) > 0 {
			fmt.Fprintf(&b, "%s:\n%s\n", title, definitions(lists[title]))
		}
	}
	var commands []entry
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() && c.Name() != "help" {
			commands = append(commands, entry{c.Name(), c.Short})
		}
	}
	if len(commands) > 0 {
		fmt.Fprintf(&b, "Commands:\n%s\n", definitions(commands))
	}
	if cmd.HasParent() {
		fmt.Fprintf(&b, "Options of every command, such as --broker and --config: %s --help\n", cmd.Root().Name())
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// flagTerm is how a flag is written: -c, --concurrency N.
func flagTerm(f *pflag.Flag) string {
	term := "--" + f.Name
	if f.Shorthand != "" {
		term = "-" + f.Shorthand + ", " + term
	}
	for _, a := range f.Annotations[aliasKey] {
		term += ", --" + a
	}
	metavar, _ := pflag.UnquoteUsage(f)
	if m := f.Annotations[metavarKey]; len(m) > 0 {
		metavar = m[0]
	}
	switch {
	case metavar == "":
	case f.NoOptDefVal != "" && f.Value.Type() != "bool":
		term += "[=" + metavar + "]"
	default:
		term += " " + metavar
	}
	return term
}

// definitions lays terms and texts out in two columns.
func definitions(list []entry) string {
	width := 0
	for _, e := range list {
		width = max(width, len(e.term))
	}
	width = min(width, helpMaxTerm) + 2
	var b strings.Builder
	for _, e := range list {
		b.WriteString("  " + e.term)
		lines := wrap(e.text, helpWidth-2-width)
		if len(lines) == 0 {
			b.WriteByte('\n')
			continue
		}
		pad := width - len(e.term)
		if pad < 2 {
			b.WriteByte('\n')
			pad = 2 + width
		}
		b.WriteString(strings.Repeat(" ", pad) + lines[0] + "\n")
		for _, l := range lines[1:] {
			b.WriteString(strings.Repeat(" ", 2+width) + l + "\n")
		}
	}
	return b.String()
}

// wrap breaks text into lines of at most width columns, at its spaces.
func wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
