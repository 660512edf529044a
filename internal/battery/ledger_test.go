package battery_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

// ledger is an append-only file: one line a write, which the kernel keeps
// whatever becomes of the process.
type ledger struct {
	mu sync.Mutex
	f  *os.File
}

func openLedger(path string) (*ledger, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return &ledger{f: f}, err
}

func (l *ledger) write(words ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := fmt.Fprintln(l.f, words...); err != nil {
		panic(err)
	}
}

// account is what a ledger says.
type account struct {
	sent      []string                   // confirmed
	starts    map[string]int             // by id and number of the try
	ends      map[string]bool            // that ran to their end
	callbacks map[string]map[string]bool // of a task, by their ids
	early     []string                   // that ran before their time
}

func readLedger(t testing.TB, path string) account {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	a := account{starts: map[string]int{}, ends: map[string]bool{}, callbacks: map[string]map[string]bool{}}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		switch f[0] {
		case "sent":
			a.sent = append(a.sent, f[1])
		case "start":
			a.starts[f[1]+" "+f[2]]++
		case "end":
			a.ends[f[1]] = true
		case "early":
			a.early = append(a.early, f[1])
		case "after":
			if a.callbacks[f[1]] == nil {
				a.callbacks[f[1]] = map[string]bool{}
			}
			a.callbacks[f[1]][f[2]] = true
		}
	}
	return a
}
