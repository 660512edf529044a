package worker

import (
	"fmt"
	"io"

	"github.com/lovage-go/lovage/internal/dot"
)

// What a graph shows.
const (
	GraphWorker   = "worker"
	GraphConsumer = "consumer"
)

// last is the style of a step that ends its blueprint, and of its edges.
var (
	lastNode = dot.Style{{Name: "shape", Value: "parallelogram"}, {Name: "color", Value: "slategray4"}, {Name: "fillcolor", Value: "slategray3"}}
	lastEdge = dot.Style{{Name: "arrowhead", Value: "none"}, {Name: "color", Value: "darkseagreen3"}}
)

// WriteGraph writes the steps of the worker and of its consumer and what they
// require in Graphviz's language, as Celery's graph bootsteps does: what ends
// the others' start has the mark ⧉, what is there only if it is configured ∘.
// include says what is shown, GraphWorker and GraphConsumer; the default is
// both. It starts nothing.
func (w *Worker) WriteGraph(out io.Writer, include ...string) error {
	var list []*blueprint
	for _, name := range include {
		switch name {
		case GraphWorker:
			list = append(list, w.life())
		case GraphConsumer:
			list = append(list, w.connected())
		default:
			return fmt.Errorf("worker: there is no graph of %q: %s or %s", name, GraphWorker, GraphConsumer)
		}
	}
	if len(include) == 0 {
		list = []*blueprint{w.life(), w.connected()}
	}
	var g dot.Graph
	for i, b := range list {
		if _, err := b.ordered(); err != nil {
			return err
		}
		after := ""
		if i > 0 { // the consumer's first step follows the worker's last
			after = mark + list[i-1].last
		}
		b.draw(&g, after)
	}
	_, err := io.WriteString(out, g.Text(mark+list[0].last))
	return err
}

// mark is before the name of the last step.
const mark = "⧉"

func (b *blueprint) draw(g *dot.Graph, after string) {
	label := map[string]string{}
	for _, p := range b.all() {
		label[p.Name] = p.Name
		if p.optional {
			label[p.Name] = "∘" + p.Name
		}
	}
	label[b.last] = mark + b.last
	for i, p := range b.all() {
		name := label[p.Name]
		switch {
		case p.Name == b.last:
			g.Node(name, lastNode)
		case len(p.Requires) == 0 && (i > 0 || after == ""):
			g.Node(name, dot.Leaf)
		default:
			g.Node(name, dot.Node)
		}
		for _, need := range p.Requires {
			g.Edge(name, label[need])
		}
		if i == 0 && after != "" {
			g.Edge(name, after)
		}
		if p.Name == b.last {
			for _, other := range b.all()[:i] {
				g.Edge(name, label[other.Name], lastEdge)
			}
		}
	}
}
