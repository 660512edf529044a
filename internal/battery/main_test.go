package battery_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"
)

var (
	full = flag.Bool("battery", false, "run the full battery: minutes, several seeds")
	seed = flag.Uint64("seed", 1, "seed of the first round")
	keep = flag.String("keeplog", "", "append what the processes log to this file")
)

const roleKey = "BATTERY_ROLE"

// role is what a process of the battery is.
type role struct {
	Kind    string // worker, producer, or chords: a worker for Python's chords
	Broker  string
	Results string
	Ledger  string
	Mix     string // what tasks are meant to come to
	Pool    string
	Slots   int
	Lease   time.Duration
	Memory  int // in KiB, above which a child is replaced
	Losses  int // deaths that a killer has until it is given up; 0: the default

	Prefix string        // of the ids that a producer sends
	Tasks  int           // that it sends
	Pace   time.Duration // between two of them
}

func (r role) String() string {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestMain(m *testing.M) {
	text := os.Getenv(roleKey)
	if text == "" {
		os.Exit(m.Run())
	}
	var r role
	err := json.Unmarshal([]byte(text), &r)
	if err == nil {
		err = map[string]func(role) error{"worker": runWorker, "producer": runProducer, "chords": runChordWorker}[r.Kind](r)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, r.Kind+":", err)
		os.Exit(1)
	}
}
