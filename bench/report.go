package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// report collects figures and prints them as a table: for each, the median and
// the span of its rounds. Bars hold figures of the same run against each other.
type report struct {
	Date    string    `json:"date"`
	Commit  string    `json:"commit"`
	Go      string    `json:"go"`
	CPUs    int       `json:"cpus"`
	Machine string    `json:"machine"`
	Load    string    `json:"load"` // average before and after, which a quiet machine has below 1 before
	Args    string    `json:"args"`
	Figures []*figure `json:"figures"`
	Bars    []bar     `json:"bars"`
	Notes   []string  `json:"notes,omitempty"`
	now     string
	only    string
	quiet   bool
}

// figure is one quantity that was measured, in each round.
type figure struct {
	Part   string    `json:"part"`
	Name   string    `json:"name"`
	Unit   string    `json:"unit"`
	Values []float64 `json:"values"`
	Median float64   `json:"median"`
	Ratio  float64   `json:"ratio,omitempty"` // to the figure named Of
	Of     string    `json:"of,omitempty"`
}

// bar is something that is asked for, and what came of it.
type bar struct {
	Store  string `json:"store"`
	Figure string `json:"figure"`
	Asked  string `json:"asked"`
	Got    string `json:"got"`
	Met    bool   `json:"met"`
}

func newReport(o *options) *report {
	commit, _ := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	return &report{
		Date: time.Now().UTC().Format("2006-01-02 15:04"), Commit: strings.TrimSpace(string(commit)),
		Machine: machine(), Load: load(), Args: strings.Join(os.Args[1:], " "),
		Go: runtime.Version(), CPUs: runtime.NumCPU(), only: o.only, quiet: o.json,
	}
}

func (r *report) wanted(part string) bool { return contains(part, r.only) }

// contains reports whether a name contains one of some words with commas between.
func contains(name, words string) bool {
	return slices.ContainsFunc(strings.Split(words, ","), func(w string) bool { return strings.Contains(name, w) })
}

func (r *report) progress(text string) {
	if !r.quiet {
		fmt.Fprintf(os.Stderr, "%s ...\n", text)
	}
}

func (r *report) add(name, unit string, v float64) *figure {
	if f := r.find(name); f != nil {
		f.Values = append(f.Values, v)
		f.Median = median(f.Values)
		return f
	}
	f := &figure{Part: r.now, Name: name, Unit: unit, Values: []float64{v}, Median: v}
	r.Figures = append(r.Figures, f)
	return f
}

// find looks among the figures on the store that is measured now.
func (r *report) find(name string) *figure {
	for _, f := range r.Figures {
		if f.Name == name && store(f.Part) == store(r.now) {
			return f
		}
	}
	return nil
}

// store is what a part measures on: sqlite, redis, rabbitmq.
func store(part string) string {
	name, _, _ := strings.Cut(part, "/")
	return name
}

// compare notes the ratio of a figure to another one.
func (r *report) compare(name, to string) {
	if f, base := r.find(name), r.find(to); f != nil && base != nil && base.Median != 0 {
		f.Ratio, f.Of = f.Median/base.Median, to
	}
}

// atLeast holds figure name against a multiple of another one.
func (r *report) atLeast(name, of string, times float64) {
	r.hold(name, of, fmt.Sprintf("at least %.3gx %s", times, of), func(ratio float64) bool { return ratio >= times })
}

// atLeastMost is atLeast for the largest of several.
func (r *report) atLeastMost(name string, of []string, times float64) {
	best := of[0]
	for _, o := range of {
		if f := r.find(o); f != nil && (r.find(best) == nil || f.Median > r.find(best).Median) {
			best = o
		}
	}
	r.atLeast(name, best, times)
}

// atMost holds figure name against a share of another one.
func (r *report) atMost(name, of string, times float64) {
	r.hold(name, of, fmt.Sprintf("at most %.3gx %s", times, of), func(ratio float64) bool { return ratio <= times })
}

func (r *report) hold(name, of, asked string, met func(ratio float64) bool) {
	f, base := r.find(name), r.find(of)
	if f == nil || base == nil || base.Median == 0 {
		return
	}
	ratio := f.Median / base.Median
	r.Bars = append(r.Bars, bar{store(r.now), name, asked, fmt.Sprintf("%.2fx (%s to %s %s)", ratio, number(f.Median), number(base.Median), f.Unit), met(ratio)})
}

// below holds a figure against a bound.
func (r *report) below(name string, bound float64) {
	if f := r.find(name); f != nil {
		r.Bars = append(r.Bars, bar{store(r.now), name, fmt.Sprintf("under %g %s", bound, f.Unit), number(f.Median) + " " + f.Unit, f.Median < bound})
	}
}

// drained adds the figures of an emptied backlog.
func (r *report) drained(name string, d drained) {
	r.progress(fmt.Sprintf("  %s: %s tasks/s; worker %s, server %s us/task", name, number(d.rate()), number(d.worker), number(d.server)))
	r.add(name, "tasks/s", d.rate())
	r.add(name+", worker CPU", "us/task", d.worker)
	r.add(name+", server CPU", "us/task", d.server)
}

func (r *report) note(text string) { r.Notes = append(r.Notes, text) }

func (r *report) part(name string) { r.now = name }

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "%s UTC, commit %s, %s, %d CPUs, %s; load average %s\n\n", r.Date, r.Commit, r.Go, r.CPUs, r.Machine, r.Load)
	width := 10
	for _, f := range r.Figures {
		width = max(width, len(f.Name))
	}
	fmt.Fprintf(w, "%-*s %12s %-11s %s\n", width, "figure", "median", "unit", "min .. max")
	for _, f := range r.Figures {
		fmt.Fprintf(w, "%-*s %12s %-11s %s\n", width, f.Name, number(f.Median), f.Unit, f.span())
	}
	if len(r.Bars) > 0 {
		fmt.Fprintln(w)
	}
	for _, b := range r.Bars {
		fmt.Fprintf(w, "%-6s  %s: %s: %s, asked %s\n", b.word(), b.Store, b.Figure, b.Got, b.Asked)
	}
	for _, n := range r.Notes {
		fmt.Fprintln(w, n)
	}
}

func (b bar) word() string {
	if b.Met {
		return "met"
	}
	return "MISSED"
}

func (f *figure) span() string {
	if len(f.Values) < 2 {
		return ""
	}
	return number(slices.Min(f.Values)) + " .. " + number(slices.Max(f.Values))
}

func number(v float64) string {
	switch {
	case v >= 1000:
		s := fmt.Sprintf("%.0f", v)
		for i := len(s) - 3; i > 0; i -= 3 {
			s = s[:i] + "," + s[i:]
		}
		return s
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	n := len(s)
	if n%2 == 1 {
		return s[n/2]
	}
	return (s[n/2-1] + s[n/2]) / 2
}

func percentile(d []time.Duration, p float64) time.Duration {
	s := slices.Sorted(slices.Values(d))
	return s[min(int(p*float64(len(s))), len(s)-1)]
}
