package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
)

// profile writes the profiles of a worker process, CPU and allocations, to the
// directory that BENCH_PROFILE names, if it does.
func profile() (stop func()) {
	dir := os.Getenv("BENCH_PROFILE")
	if dir == "" {
		return func() {}
	}
	cpu, err := os.CreateTemp(dir, "cpu-*.pprof")
	mem, err2 := os.CreateTemp(dir, "mem-*.pprof")
	if err = errors.Join(err, err2); err == nil {
		err = pprof.StartCPUProfile(cpu)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "profile:", err)
		return func() {}
	}
	return func() {
		pprof.StopCPUProfile()
		cpu.Close()
		_ = pprof.Lookup("allocs").WriteTo(mem, 0)
		mem.Close()
	}
}
