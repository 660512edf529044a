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
// the span of its rounds, and its ratio to another figure of the same run.
type report struct {
	Date    string    `json:"date"`
	Commit  string    `json:"commit"`
	Go      string    `json:"go"`
	CPUs    int       `json:"cpus"`
	Figures []*figure `json:"figures"`
	only    string
	quiet   bool
}

type figure struct {
	Name   string    `json:"name"`
	Unit   string    `json:"unit"`
	Values []float64 `json:"values"`
	Median float64   `json:"median"`
	Ratio  float64   `json:"ratio,omitempty"` // to the figure named Of
	Of     string    `json:"of,omitempty"`
	Bar    string    `json:"bar,omitempty"` // what is asked for, in words
	Met    *bool     `json:"met,omitempty"`
}

func newReport(o *options) *report {
	commit, _ := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	return &report{
		Date: time.Now().UTC().Format("2006-01-02 15:04"), Commit: strings.TrimSpace(string(commit)),
		Go: runtime.Version(), CPUs: runtime.NumCPU(), only: o.only, quiet: o.json,
	}
}

func (r *report) wanted(part string) bool { return r.only == "" || strings.Contains(part, r.only) }

func (r *report) progress(text string) {
	if !r.quiet {
		fmt.Fprintf(os.Stderr, "%s ...\n", text)
	}
}

func (r *report) add(name, unit string, v float64) *figure {
	for _, f := range r.Figures {
		if f.Name == name {
			f.Values = append(f.Values, v)
			f.Median = median(f.Values)
			return f
		}
	}
	f := &figure{Name: name, Unit: unit, Values: []float64{v}, Median: v}
	r.Figures = append(r.Figures, f)
	return f
}

func (r *report) find(name string) *figure {
	for _, f := range r.Figures {
		if f.Name == name {
			return f
		}
	}
	return nil
}

// atLeast holds figure name against a share of another one.
func (r *report) atLeast(name, of string, share float64) {
	f, base := r.find(name), r.find(of)
	if f == nil || base == nil || base.Median == 0 {
		return
	}
	met := f.Median >= share*base.Median
	f.Ratio, f.Of, f.Met = f.Median/base.Median, of, &met
	f.Bar = fmt.Sprintf("at least %.2f of %s", share, of)
}

// below holds a figure against a bound.
func (r *report) below(name string, bound float64) {
	if f := r.find(name); f != nil {
		met := f.Median < bound
		f.Met, f.Bar = &met, fmt.Sprintf("under %g %s", bound, f.Unit)
	}
}

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "%s UTC, commit %s, %s, %d CPUs\n\n", r.Date, r.Commit, r.Go, r.CPUs)
	width := 10
	for _, f := range r.Figures {
		width = max(width, len(f.Name))
	}
	fmt.Fprintf(w, "%-*s %14s %-9s %-25s %s\n", width, "figure", "median", "unit", "min .. max", "ratio, bar")
	for _, f := range r.Figures {
		span := ""
		if len(f.Values) > 1 {
			span = fmt.Sprintf("%s .. %s", number(slices.Min(f.Values)), number(slices.Max(f.Values)))
		}
		note := ""
		if f.Ratio != 0 {
			note = fmt.Sprintf("%.2fx; ", f.Ratio)
		}
		if f.Met != nil {
			note += map[bool]string{true: "met: ", false: "MISSED: "}[*f.Met] + f.Bar
		}
		fmt.Fprintf(w, "%-*s %14s %-9s %-25s %s\n", width, f.Name, number(f.Median), f.Unit, span, note)
	}
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
