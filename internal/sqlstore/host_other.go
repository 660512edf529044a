//go:build !linux

package sqlstore

import "time"

// leaseNow is the clock of leases, in microseconds.
func leaseNow() int64 { return time.Now().UnixMicro() }

// bootID is not known here.
func bootID() string { return "" }

func nap(d time.Duration) { time.Sleep(d) }

// networkFS cannot tell here.
func networkFS(string) string { return "" }
