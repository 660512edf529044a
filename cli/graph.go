package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/internal/dot"
	"github.com/lovage-go/lovage/worker"
)

func (s *session) graphCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "graph COMMAND [ARGS]...",
		Short: "Show how the worker is made and who is there, in Graphviz's language.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef(cmd, "No such command '%s'.%s", args[0], meant("", args[0], []string{"bootsteps", "workers"}))
			}
			return cmd.Help()
		},
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "bootsteps [worker] [consumer]",
		Short: "Display bootsteps graph.",
		Long: "Display the steps of the worker, of its consumer, or of both, and what they require. What ends the others' start " +
			"has the mark ⧉, what is there only if it is configured ∘.\n\n\t$ " + s.name + " graph bootsteps | dot -Tsvg > steps.svg",
		RunE: func(cmd *cobra.Command, args []string) error {
			var cfg worker.Config
			for _, change := range s.worker {
				change(&cfg)
			}
			include := make([]string, len(args))
			for i, a := range args {
				include[i] = strings.ToLower(a)
			}
			slices.SortFunc(include, func(a, b string) int { return strings.Compare(b, a) }) // worker first
			if err := worker.New(s.app, cfg).WriteGraph(s.out, slices.Compact(include)...); err != nil {
				return usagef(cmd, "%v.", err)
			}
			return nil
		},
	})
	cmd.AddCommand(&cobra.Command{
		Use:   "workers [NAME:VALUE]...",
		Short: "Display workers graph.",
		Long: "Display the workers that answer, with their slots, broker and result store. nodes:w1,w2 and threads:2,3 are shown " +
			"in place of those that answer; broker:URL and backend:URL in place of the configured ones; wmax:N and tmax:N " +
			"bound the workers and slots shown (4 and 3; 0: all); generic shows schemes alone, enumerate numbers for names.",
		RunE: func(cmd *cobra.Command, args []string) error { return s.graphWorkers(cmd, args) },
	})
	return cmd
}

// The styles of the nodes that are no workers.
var (
	brokerStyle  = dot.Style{{Name: "shape", Value: "circle"}, {Name: "fillcolor", Value: "cadetblue3"}, {Name: "color", Value: "cadetblue4"}, {Name: "height", Value: "1"}}
	backendStyle = dot.Style{{Name: "shape", Value: "folder"}, {Name: "width", Value: "2"}, {Name: "height", Value: "1"}, {Name: "color", Value: "black"}, {Name: "fillcolor", Value: "peachpuff3"}}
	threadStyle  = dot.Style{{Name: "shape", Value: "oval"}, {Name: "fillcolor", Value: "lightcyan4"}, {Name: "color", Value: "black"}, {Name: "fontcolor", Value: "yellow"}, {Name: "fontsize", Value: "10"}, {Name: "width", Value: "0.3"}}
	threadEdge   = dot.Style{{Name: "arrowhead", Value: "none"}, {Name: "arrowtail", Value: "tee"}}
)

func (s *session) graphWorkers(cmd *cobra.Command, args []string) error {
	given := map[string]string{}
	for _, a := range args {
		name, value, _ := strings.Cut(a, ":")
		given[name] = value
	}
	most := map[string]int{"wmax": 4, "tmax": 3}
	for name := range most {
		if text, ok := given[name]; ok {
			n, err := strconv.Atoi(text)
			if err != nil || n < 0 {
				return usagef(cmd, "Invalid value for %s: %q: want 0 or more.", name, text)
			}
			most[name] = n
		}
	}
	nodes, slots, err := s.nodesAndSlots(cmd, given)
	if err != nil {
		return err
	}
	transport, results := s.app.URLs()
	transport, results = or(given["broker"], transport), or(given["backend"], results)
	if _, generic := given["generic"]; generic {
		transport, results = genericName("Broker", transport), genericName("Backend", results)
	}
	var g dot.Graph
	g.Node(transport, dot.Leaf, brokerStyle)
	if results != "" {
		g.Node(results, dot.Leaf, backendStyle)
	}
	_, enumerate := given["enumerate"]
	labels := abbreviate(nodes, "Worker", most["wmax"], enumerate)
	if most["wmax"] > 0 && len(nodes) > most["wmax"] {
		slots = append(slots[:most["wmax"]-1:most["wmax"]-1], slots[len(slots)-1])
	}
	thread := 0
	for i, label := range labels {
		g.Node(label, dot.Node)
		g.Edge(label, transport)
		if results != "" {
			g.Edge(label, results)
		}
		numbers := make([]string, slots[i])
		for n := range numbers {
			numbers[n] = strconv.Itoa(n)
		}
		for _, number := range abbreviate(numbers, "P", most["tmax"], enumerate) {
			thread++
			name := "thr-" + strconv.Itoa(thread)
			g.Node(name, dot.Node, threadStyle, dot.Style{{Name: "label", Value: number}})
			g.Edge(name, label, threadEdge)
		}
	}
	_, err = fmt.Fprint(s.out, g.Text("None"))
	return err
}

// nodesAndSlots are those given, or those of the workers that answer.
func (s *session) nodesAndSlots(cmd *cobra.Command, given map[string]string) (nodes []string, slots []int, err error) {
	if text, ok := given["nodes"]; ok {
		nodes, slots = strings.Split(text, ","), make([]int, 0, 8)
		for _, n := range strings.FieldsFunc(given["threads"], func(r rune) bool { return r == ',' }) {
			count, err := strconv.Atoi(n)
			if err != nil || count < 0 || count > 10_000 {
				return nil, nil, usagef(cmd, "Invalid value for threads: %q: want numbers.", given["threads"])
			}
			slots = append(slots, count)
		}
		for len(slots) < len(nodes) {
			slots = append(slots, 0)
		}
		return nodes, slots[:len(nodes)], nil
	}
	found, err := s.slotsOf(cmd.Context(), 2*time.Second)
	if err != nil {
		return nil, nil, err
	}
	if len(found) == 0 {
		return nil, nil, exitf(ExitUnavailable, "No nodes replied within time constraint")
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		nodes, slots = append(nodes, name), append(slots, found[name])
	}
	return nodes, slots, nil
}

// genericName is a kind and the scheme of a URL.
func genericName(kind, url string) string {
	if url == "" {
		return ""
	}
	scheme, _, _ := strings.Cut(url, "://")
	return kind + " (" + scheme + "://)"
}

// abbreviate leaves out the middle of a list that is longer than most, as
// Celery does.
func abbreviate(list []string, name string, most int, enumerate bool) []string {
	size := len(list)
	out := slices.Clone(list)
	if enumerate {
		for i := range out {
			out[i] = name + subscript(i+1)
		}
	}
	if most < 2 || size <= most {
		return out
	}
	out = append(out[:most-1], out[size-1])
	out[most-2] = name[:1] + "⎨…" + subscript(size-(most-1)) + "⎬"
	return out
}

func subscript(n int) string {
	return strings.Map(func(r rune) rune { return r - '0' + '₀' }, strconv.Itoa(n))
}

// slotsOf asks all workers how many slots they have.
func (s *session) slotsOf(ctx context.Context, limit time.Duration) (map[string]int, error) {
	replies, err := s.app.Control().Inspect(ctx, "stats", nil, control.Options{Timeout: limit})
	if err != nil {
		return nil, err
	}
	found := map[string]int{}
	for i := range replies {
		var stats struct {
			Pool struct {
				Slots int `json:"max-concurrency"`
			} `json:"pool"`
		}
		if err := replies[i].Decode(&stats); err != nil {
			s.note("%v", err)
			continue
		}
		found[replies[i].Node] = stats.Pool.Slots
	}
	return found, nil
}
