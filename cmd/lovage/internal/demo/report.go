package demo

import (
	"time"

	"github.com/lovage-go/lovage/internal/proc"
)

// Report is what --json prints: the outcome in numbers. Durations are in
// nanoseconds, sizes in bytes.
type Report struct {
	Store   string         `json:"store"`
	Workers []WorkerReport `json:"workers"`
	Job     JobReport      `json:"job"`
	Cases   []Case         `json:"cases"`
	Latency Latency        `json:"latency"`
	Client  int            `json:"client_rss"`
	Time    time.Duration  `json:"time_ns"`
}

// WorkerReport is one worker process.
type WorkerReport struct {
	Name    string        `json:"name"`
	PID     int           `json:"pid"`
	ReadyIn time.Duration `json:"ready_in_ns"`
	Killed  bool          `json:"killed"`
	RSS     int           `json:"rss"` // at the end; 0: not known, or killed
}

// workers describes the fleet as it is now.
func (f *fleet) report() []WorkerReport {
	var out []WorkerReport
	for _, w := range f.workers() {
		r := WorkerReport{Name: w.name, PID: w.pid, ReadyIn: w.readyIn, Killed: w.killed.Load()}
		if !r.Killed {
			r.RSS = proc.RSSOf(w.pid) * 1024
		}
		out = append(out, r)
	}
	return out
}
