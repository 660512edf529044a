package proc

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// RSS returns the resident memory of this process in KiB, 0 if it is not known.
func RSS() int { return statm("self") }

// RSSOf returns the resident memory of another process in KiB, 0 if it is not
// known.
func RSSOf(pid int) int { return statm(strconv.Itoa(pid)) }

func statm(process string) int {
	data, err := os.ReadFile("/proc/" + process + "/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return pages * (os.Getpagesize() / 1024)
}

// Shed gives back the pages of program files that this process has touched, at
// its start for the most part: the kernel has them all the same and maps them
// again when they are needed. Mappings that were written to are left alone.
func Shed() {
	data, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return
	}
	var from, to uint64
	for _, line := range strings.Split(string(data), "\n") {
		f := strings.Fields(line)
		switch {
		case len(f) >= 6 && strings.HasPrefix(f[5], "/"): // 55d0-55d8 r-xp 00000000 08:01 1234 /path
			begin, end, _ := strings.Cut(f[0], "-")
			from, _ = strconv.ParseUint(begin, 16, 64)
			if to, err = strconv.ParseUint(end, 16, 64); err != nil || strings.Contains(f[1], "w") {
				from, to = 0, 0
			}
		case len(f) >= 5 && strings.Contains(f[0], "-"): // one without a file
			from, to = 0, 0
		case len(f) == 3 && f[0] == "Anonymous:" && f[1] == "0" && to > from:
			_, _, _ = syscall.RawSyscall(syscall.SYS_MADVISE, uintptr(from), uintptr(to-from), syscall.MADV_DONTNEED)
		}
	}
}
