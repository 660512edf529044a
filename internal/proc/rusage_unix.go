//go:build unix

package proc

import "syscall"

// Rusage is what the process has used, under the names of getrusage(2) that
// Python gives it: seconds, KiB (bytes on Darwin), counts. Empty if not known.
func Rusage() map[string]any {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return map[string]any{}
	}
	seconds := func(t syscall.Timeval) float64 { return float64(t.Nano()) / 1e9 }
	return map[string]any{
		"utime": seconds(u.Utime), "stime": seconds(u.Stime), "maxrss": u.Maxrss,
		"ixrss": u.Ixrss, "idrss": u.Idrss, "isrss": u.Isrss, "minflt": u.Minflt, "majflt": u.Majflt,
		"nswap": u.Nswap, "inblock": u.Inblock, "oublock": u.Oublock, "msgsnd": u.Msgsnd, "msgrcv": u.Msgrcv,
		"nsignals": u.Nsignals, "nvcsw": u.Nvcsw, "nivcsw": u.Nivcsw,
	}
}
