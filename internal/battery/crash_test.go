package battery_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// TestCrash kills and stops processes at random that work on one SQLite file.
func TestCrash(t *testing.T) {
	p := plan{
		role: role{Mix: "crash", Tasks: 2000, Slots: 4}, crowd: 2, pools: make([]string, 3),
		every: 300 * time.Millisecond, killFor: 12 * time.Second, refill: true,
	}
	rounds := 1
	if *full {
		p.Tasks, p.Slots, p.crowd, p.pools = 20_000, 8, 3, make([]string, 4)
		p.every, p.killFor, p.stops = time.Second, 2*time.Minute, true
		rounds = 5
	}
	for i := range rounds {
		p.seed = *seed + uint64(i)
		t.Run(fmt.Sprintf("seed%d", p.seed), func(t *testing.T) {
			p := p
			p.Lease = 5 * time.Second
			p.Broker = fmt.Sprintf("sqlite://%s?lease=%s", filepath.Join(t.TempDir(), "battery.db"), p.Lease)
			p.Results = p.Broker
			f := newFleet(t, p)
			f.run()
			f.stop()
			f.verify()
			line, _ := json.Marshal(f.report)
			t.Logf("report %s", line)
		})
	}
}
