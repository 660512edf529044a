package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// writePage writes the report as a page of the documentation.
func (r *report) writePage(file string) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# The last measurement\n\n")
	fmt.Fprintf(&b, "%s UTC, commit %s, %s, %d CPUs, %s.\n", r.Date, r.Commit, r.Go, r.CPUs, r.Machine)
	fmt.Fprintf(&b, "Written by `cd bench && go run . %s`. Client, worker and server share the CPUs. Each\n", r.Args)
	fmt.Fprintf(&b, "figure is the median of the rounds, which take turns; the span is beside it. On a busy machine the ratios and\n")
	fmt.Fprintf(&b, "the CPU per task say more than the rates; the load average was %s.\n", r.Load)
	if len(r.Bars) > 0 {
		fmt.Fprintf(&b, "\n## Bars\n\n| on | figure | asked | got | |\n|---|---|---|---|---|\n")
		for _, x := range r.Bars {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", x.Store, x.Figure, x.Asked, x.Got, x.word())
		}
	}
	last := ""
	for _, f := range r.Figures {
		if f.Part != last {
			last = f.Part
			fmt.Fprintf(&b, "\n## %s\n\n| figure | median | unit | min .. max |\n|---|---:|---|---|\n", last)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", f.Name, number(f.Median), f.Unit, f.span())
	}
	if len(r.Notes) > 0 {
		fmt.Fprintf(&b, "\n## Notes\n\n")
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "- %s\n", n)
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}

// load is the machine's load average over a minute.
func load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// machine says what was measured on.
func machine() string {
	parts := []string{runtime.GOOS + "/" + runtime.GOARCH}
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			parts = append(parts, strings.TrimSpace(strings.TrimLeft(name, "\t :")))
			break
		}
	}
	if out, err := exec.Command("redis-server", "--version").Output(); err == nil {
		if _, v, ok := strings.Cut(string(out), "v="); ok {
			parts = append(parts, "Redis "+strings.Fields(v)[0])
		}
	}
	if dirs, _ := filepath.Glob("/usr/lib/rabbitmq/lib/rabbitmq_server-*"); len(dirs) > 0 {
		_, v, _ := strings.Cut(filepath.Base(dirs[0]), "-")
		parts = append(parts, "RabbitMQ "+v)
	}
	return strings.Join(parts, ", ")
}
