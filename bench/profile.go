package main

import (
	"fmt"
	"os"
	"runtime/pprof"
)

// profile writes the CPU profile of a worker process to the directory that
// BENCH_PROFILE names, if it does.
func profile() (stop func()) {
	dir := os.Getenv("BENCH_PROFILE")
	if dir == "" {
		return func() {}
	}
	f, err := os.CreateTemp(dir, "cpu-*.pprof")
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "profile:", err)
		return func() {}
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}
}
