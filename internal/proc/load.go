package proc

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// System is the name of the operating system as uname -s writes it.
func System() string {
	switch runtime.GOOS {
	case "linux":
		return "Linux"
	case "darwin":
		return "Darwin"
	case "windows":
		return "Windows"
	case "freebsd":
		return "FreeBSD"
	}
	return runtime.GOOS
}

// LoadAvg is the load of the machine over 1, 5 and 15 minutes, zero where the
// system does not tell it in /proc/loadavg.
func LoadAvg() (load [3]float64) {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return load
	}
	for i, f := range strings.Fields(string(text)) {
		if i == len(load) {
			break
		}
		load[i], _ = strconv.ParseFloat(f, 64)
	}
	return load
}

// Zombie reports whether a process has ended and its parent has not yet asked
// how, as in a container whose first process asks for nobody. It is false where
// the system does not tell it in /proc.
func Zombie(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(text[bytes.LastIndexByte(text, ')')+1:]), " ")
	return strings.HasPrefix(state, "Z")
}
