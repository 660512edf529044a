package proc

import (
	"os"
	"strconv"
	"strings"
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
