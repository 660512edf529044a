package lovage_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/lovage-go/lovage"
)

// settingsPage writes docs/settings.md from the table of settings.
func settingsPage() string {
	var honoured, known, refused, ours []lovage.Setting
	for _, s := range (lovage.Config{}).Table(true) {
		switch {
		case s.Refused != "":
			refused = append(refused, s)
		case s.Since == "":
			known = append(known, s)
		default:
			honoured = append(honoured, s)
		}
		if s.Celery != "" {
			ours = append(ours, s)
		}
	}
	var b strings.Builder
	b.WriteString(`# Settings

This page is made from the table of settings in the code (` + "`settings_table.go`" + `) by
` + "`go test -run TestSettingsPage . -update`" + `; do not edit it.

A setting can come from the ` + "`lovage.Config`" + ` literal, from a YAML, JSON or TOML file, from the
environment and from the command line (` + "`name=value`" + ` words). A later one in this list wins over an
earlier one. In the environment a setting is its name in upper case after ` + "`CELERY_`" + ` or, stronger,
` + "`LOVAGE_`" + `: ` + "`LOVAGE_TASK_ACKS_LATE=false`" + `. Times are seconds, or texts such as ` + "`1h30m`" + `; lists may be
words with commas between them; maps are JSON objects. ` + "`none`" + ` is Celery's None; in Go it is
` + "`lovage.NoLimit`" + ` where a limit is what the setting is. Celery's old names (from before version 4) are
read, with a warning; the old and the new name of one setting together are an error. So is a value of the
wrong type, by setting, value, source and what is wanted. An unknown name is a warning that tells the nearest
one there is, and so is a setting that has no effect and asks for something. Each setting of Celery 5.2 to 5.6
is known: a configuration file of Celery's is read as it is. ` + "`report`" + ` masks passwords and secrets as Celery does.

`)
	row := func(cells ...string) {
		for i, c := range cells {
			cells[i] = strings.NewReplacer("|", `\|`, "\n", " ").Replace(c)
		}
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	code := func(s string) string {
		if s == "" {
			return ""
		}
		return "`" + s + "`"
	}
	head := func(title, text string, cells ...string) {
		fmt.Fprintf(&b, "## %s\n\n%s\n\n", title, text)
		row(cells...)
		b.WriteString(strings.Repeat("|---", len(cells)) + "|\n")
	}
	head("Where the default is not Celery's", "`lovage.CeleryDefaults()` has Celery's values for all of these.", "setting", "here", "Celery", "reason")
	for _, s := range ours {
		celery := code(s.Celery)
		if s.Ours {
			celery = "does not know it; " + celery + " behaves like it"
		}
		row(code(s.Name), code(s.Default), celery, s.Why)
	}
	b.WriteByte('\n')
	head("Honoured", "", "setting", "field", "default", "unit", "meaning", "since", "old name")
	for _, s := range honoured {
		doc := s.Doc
		if s.Deprecated != "" {
			doc += ". Deprecated: " + s.Deprecated
		}
		row(code(s.Name), code(s.Field), code(s.Default), cmp.Or(s.Unit, typeWord(s.Type)), doc, s.Since, code(s.Old))
	}
	b.WriteByte('\n')
	for _, part := range []struct {
		name, intro string
		rows        []lovage.TransportOption
	}{
		{"In `broker_transport_options`", "Names are kombu's where the thing is. An option that the driver does not heed is a warning.", lovage.BrokerOptions},
		{"In `result_backend_transport_options`", "Names are kombu's where the thing is. An option that the driver does not heed is a warning.", lovage.ResultOptions},
		{"In the query of a URL", "`redis://host/0?socket_timeout=3`: the options above, which come first here, and these. What the driver does not heed is a warning.", lovage.URLParameters},
	} {
		head(part.name, part.intro, "option", "drivers", "meaning, and default")
		rows := slices.Clone(part.rows)
		slices.SortFunc(rows, func(a, b lovage.TransportOption) int { return cmp.Compare(a.Name, b.Name) })
		for _, r := range rows {
			row(code(r.Name), cmp.Or(strings.ReplaceAll(r.Of, " ", ", "), "none"), cmp.Or(r.Doc, r.Refused))
		}
		b.WriteByte('\n')
	}
	head("Of features to come", "Setting one of these is a warning.", "setting", "needs", "default", "unit", "meaning", "old name")
	for _, s := range known {
		row(code(s.Name), s.Planned, code(s.Default), cmp.Or(s.Unit, typeWord(s.Type)), s.Doc, code(s.Old))
	}
	b.WriteByte('\n')
	head("Without a meaning here", "Setting one of these is a warning that says what to do instead.", "setting", "reason, or what to do instead")
	for _, s := range refused {
		row(code(s.Name), s.Refused)
	}
	return strings.ReplaceAll(b.String(), "\n\n\n\n", "\n\n")
}

func typeWord(celery string) string {
	switch celery {
	case "dict", "any":
		return "map"
	case "tuple":
		return "list"
	case "str", "string", "bytes":
		return "text"
	}
	return celery
}
