// Package dot writes graphs in Graphviz's language, in the colours that Celery
// gives them.
package dot

import (
	"slices"
	"strings"
)

// Attr is an attribute of a graph, a node or an edge.
type Attr struct{ Name, Value string }

// Style is a list of attributes; of two with one name the later one counts, in
// the place of the first.
type Style []Attr

// The styles of Celery's graphs.
var (
	base = Style{{"shape", "box"}, {"arrowhead", "vee"}, {"style", "filled"}, {"fontname", "HelveticaNeue"}}
	Node = Style{{"fillcolor", "palegreen3"}, {"color", "palegreen4"}}
	// Leaf is a node that needs no other.
	Leaf = Style{{"fillcolor", "palegreen1"}, {"color", "palegreen2"}}
	Edge = Style{{"color", "darkseagreen4"}, {"arrowcolor", "black"}, {"arrowsize", "0.7"}}
)

// Graph is a directed graph. Its zero value is empty and ready for use by one
// goroutine.
type Graph struct{ b strings.Builder }

// Node adds a node.
func (g *Graph) Node(name string, styles ...Style) {
	g.line(quote(name), append([]Style{base}, styles...))
}

// Edge adds an edge between two nodes.
func (g *Graph) Edge(from, to string, styles ...Style) {
	g.line(quote(from)+" -> "+quote(to), append([]Style{base, Edge}, styles...))
}

// Text is the graph, whose last node is root; "" if there is none.
func (g *Graph) Text(root string) string {
	head := Graph{}
	head.line("graph", []Style{base, {{"bgcolor", "mintcream"}, {"root", root}}})
	return "digraph dependencies {\n" + head.b.String() + g.b.String() + "}\n"
}

func (g *Graph) line(subject string, styles []Style) {
	var all Style
	for _, s := range styles {
		for _, a := range s {
			if i := slices.IndexFunc(all, func(have Attr) bool { return have.Name == a.Name }); i >= 0 {
				all[i] = a
			} else {
				all = append(all, a)
			}
		}
	}
	words := make([]string, len(all))
	for i, a := range all {
		words[i] = a.Name + "=" + quote(a.Value)
	}
	g.b.WriteString("    " + subject + " [" + strings.Join(words, ", ") + "]\n")
}

// quote writes a text of Graphviz's.
func quote(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(text) + `"`
}
