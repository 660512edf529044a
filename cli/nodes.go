package cli

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/lovage-go/lovage/internal/proc"
)

// multiOption is an option of multi as it was given.
type multiOption struct{ name, value string }

// multiOptions are in their order; a later one of the same name takes the place
// of the first.
type multiOptions []multiOption

func (o *multiOptions) set(name, value string) {
	if i := o.index(name); i >= 0 {
		(*o)[i].value = value
		return
	}
	*o = append(*o, multiOption{name, value})
}

func (o multiOptions) index(name string) int {
	return slices.IndexFunc(o, func(have multiOption) bool { return have.name == name })
}

// take removes the first of these options that is there.
func (o *multiOptions) take(names ...string) (value string) {
	for _, name := range names {
		if i := o.index(name); i >= 0 {
			if value == "" {
				value = (*o)[i].value
			}
			*o = slices.Delete(*o, i, i+1)
		}
	}
	return value
}

// multiLine is a command line of multi taken apart: node names, options of all
// nodes and of some (-c:1-3), and the rest from -- on.
type multiLine struct {
	names []string
	all   multiOptions
	some  map[string]*multiOptions
	order []string // of the keys of some
	rest  []string // -- and what follows
}

// parseMulti takes words apart as Celery does: a long option has its value after
// =, a short one is followed by it. takes tells of an option of worker whether it
// has a value; so -E does not swallow a node, and --loglevel INFO is no node
// named INFO.
func parseMulti(words []string, takes func(name string) (value, known bool)) *multiLine {
	l := &multiLine{some: map[string]*multiOptions{}}
	for i := 0; i < len(words); i++ {
		word := words[i]
		if word == "--" {
			l.rest = words[i:]
			break
		}
		if len(word) < 2 || word[0] != '-' {
			if word != "" {
				l.names = append(l.names, word)
			}
			continue
		}
		long := word[1] == '-'
		name, value, has := word, "", false
		if long {
			name, value, has = strings.Cut(word, "=")
		}
		name, group, _ := strings.Cut(name, ":")
		wants, known := takes(name)
		if !known {
			wants = !long
		}
		if !has && wants && i+1 < len(words) && words[i+1] != "" && words[i+1][0] != '-' {
			i++
			value = words[i]
		}
		l.add(group, name, value)
	}
	return l
}

func (l *multiLine) add(group, name, value string) {
	if group == "" {
		l.all.set(name, value)
		return
	}
	if l.some[group] == nil {
		l.some[group] = new(multiOptions)
		l.order = append(l.order, group)
	}
	l.some[group].set(name, value)
}

// node is one worker that multi manages.
type node struct {
	name       string // name@host
	short      string
	host       string
	executable string
	argv       []string // without the executable
	pidfile    string
	logfile    string
}

// nodes are those of the line, each with its own options.
func (l *multiLine) nodes(executable string) ([]*node, error) {
	all := slices.Clone(l.all)
	command := strings.Fields(or(all.take("--cmd"), "worker"))
	extra := strings.Fields(all.take("--append"))
	host := or(all.take("--hostname", "-n"), proc.Hostname())
	prefix := all.take("--prefix")
	suffix := or(all.take("--suffix"), host)
	if suffix == `""` || suffix == "''" {
		suffix = ""
	}
	rangePrefix := or(all.take("--range-prefix"), "celery")
	names := l.names
	if len(names) == 1 {
		if n, err := strconv.Atoi(names[0]); err == nil {
			if n < 0 || n > 10_000 {
				return nil, fmt.Errorf("%d nodes: want up to 10000", n)
			}
			names, prefix = make([]string, n), rangePrefix
			for i := range names {
				names[i] = strconv.Itoa(i + 1)
			}
		}
	}
	list := make([]*node, len(names))
	key := make([]string, len(names))
	for i, name := range names {
		list[i] = nameNode(name, prefix, suffix)
		key[i] = name
		if strings.Contains(name, "@") {
			key[i] = list[i].short
		}
		if j := slices.IndexFunc(list[:i], func(n *node) bool { return n.name == list[i].name }); j >= 0 {
			return nil, fmt.Errorf("node %s is named twice", list[i].name)
		}
	}
	own, err := l.assign(key, list)
	if err != nil {
		return nil, err
	}
	for i, n := range list {
		options := slices.Clone(all)
		for _, o := range own[i] {
			options.set(o.name, o.value)
		}
		n.finish(executable, command, options, l.rest, extra)
	}
	return list, nil
}

// assign gives the options of some nodes to each of them. They are named, or
// numbered from 1, in lists and ranges: -c:1,4-6 or -c:images,video.
func (l *multiLine) assign(key []string, list []*node) ([]multiOptions, error) {
	own := make([]multiOptions, len(key))
	for _, group := range l.order {
		for word := range strings.SplitSeq(group, ",") {
			from, to, err := find(word, key, list)
			if err != nil {
				return nil, err
			}
			for i := from; i <= to; i++ {
				for _, o := range *l.some[group] {
					own[i].set(o.name, o.value)
				}
			}
		}
	}
	return own, nil
}

// find is the range of nodes that a word of an option means.
func find(word string, key []string, list []*node) (from, to int, err error) {
	if i := slices.IndexFunc(list, func(n *node) bool { return n.name == word }); i >= 0 {
		return i, i, nil
	}
	if i := slices.Index(key, word); i >= 0 {
		return i, i, nil
	}
	first, last, isRange := strings.Cut(word, "-")
	if !isRange {
		last = first
	}
	from, err1 := strconv.Atoi(first)
	to, err2 := strconv.Atoi(last)
	if err1 != nil || err2 != nil {
		return 0, 0, fmt.Errorf("no node %q: options are for nodes by name, or by number from 1 to %d", word, len(key))
	}
	if from < 1 || to > len(key) || from > to {
		return 0, 0, fmt.Errorf("no node at index %q: they go from 1 to %d", word, len(key))
	}
	return from - 1, to - 1, nil
}

func nameNode(name, prefix, suffix string) *node {
	full := prefix + name + "@" + suffix
	if strings.Contains(name, "@") {
		full = name
	}
	n := &node{name: proc.NodeName(full, "")}
	n.short, n.host, _ = strings.Cut(n.name, "@")
	return n
}

// expand replaces the specifiers of multi, which are not those of a worker: %h
// and %p are the whole name, %d the host. %i, %I and %% are left for the worker.
func (n *node) expand(text string) string {
	return strings.NewReplacer("%%", "%%", "%p", n.name, "%h", n.name, "%n", n.short, "%N", n.short, "%d", n.host).Replace(text)
}

// globalOptions stand before the command in what multi runs.
var globalOptions = []string{"-A", "--app", "-b", "--broker", "--result-backend", "--loader", "--config", "--workdir", "-C", "--no-color", "-q", "--quiet"}

// finish builds the command line of the node.
func (n *node) finish(executable string, command []string, options multiOptions, rest, extra []string) {
	options.set("-n", n.name)
	pidfile := or(options.take("-p"), "/var/run/celery/%n.pid")
	if options.index("--pidfile") < 0 {
		options.set("--pidfile", pidfile)
	}
	if options.index("-f") < 0 && options.index("--logfile") < 0 {
		options.set("--logfile", "/var/log/celery/%n%I.log")
	}
	n.executable = or(options.take("--executable"), executable)
	var global, own []string
	for _, o := range options {
		words := optionWords(o.name, n.expand(o.value))
		if slices.Contains(globalOptions, o.name) {
			global = append(words, global...) // in Celery's order
		} else {
			own = append(own, words...)
		}
		switch o.name {
		case "--pidfile":
			n.pidfile = expand(n.expand(o.value), n.name)
		case "-f", "--logfile":
			n.logfile = expand(n.expand(o.value), n.name)
		}
	}
	n.argv = append(append(global, command...), own...)
	n.argv = append(n.argv, rest...)
	for _, word := range extra {
		n.argv = append(n.argv, n.expand(word))
	}
}

func optionWords(name, value string) []string {
	switch {
	case value == "":
		return []string{name}
	case strings.HasPrefix(name, "--"):
		return []string{name + "=" + value}
	}
	return []string{name, value}
}

// commandLine is what starts the node, as a shell would read it.
func (n *node) commandLine() string {
	words := append([]string{n.executable}, n.argv...)
	for i, w := range words {
		if w == "" || strings.ContainsAny(w, " \t\n\"'\\$`*?;&|<>()") {
			words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

// files are the directories that the node writes to.
func (n *node) directories() []string {
	return []string{filepath.Dir(n.pidfile), filepath.Dir(n.logfile)}
}
