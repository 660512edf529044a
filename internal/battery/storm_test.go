package battery_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/lovage-go/lovage/internal/testenv"
)

// stores are the brokers that processes can share, each with a result store.
var stores = map[string]func(t *testing.T, p *plan){
	"SQLite": func(t *testing.T, p *plan) {
		p.Broker = fmt.Sprintf("sqlite://%s?lease=%s", filepath.Join(t.TempDir(), "battery.db"), p.Lease)
		p.Results = p.Broker
	},
	"Redis": func(t *testing.T, p *plan) {
		server := testenv.Redis(t)
		p.Broker = server.URL(server.DB(t))
		p.Results = p.Broker
	},
	"RabbitMQ": func(t *testing.T, p *plan) {
		results := testenv.Redis(t)
		p.Broker, p.Results, p.resends = testenv.RabbitMQ(t).Vhost(t), results.URL(results.DB(t)), true
	},
}

// TestStorm sends tasks that come to every end there is, killers among them, to
// goroutine and prefork workers, while one of these or one of their children is
// killed each second. Each task comes to the one end that it is meant to.
func TestStorm(t *testing.T) {
	p := plan{
		role:  role{Mix: "storm", Tasks: 500, Pace: 14 * time.Millisecond, Slots: 4, Lease: 3 * time.Second},
		pools: []string{"goroutine", "prefork"}, crowd: 1, seed: *seed, every: 700 * time.Millisecond, killFor: 7 * time.Second,
	}
	if *full {
		p.Tasks, p.Pace, p.Lease, p.every, p.killFor = 10_000, 12*time.Millisecond, 10*time.Second, time.Second, 2*time.Minute
		p.pools = []string{"goroutine", "prefork", "goroutine", "prefork"}
	}
	for name, on := range stores {
		t.Run(name, func(t *testing.T) {
			if !*full {
				t.Parallel()
			}
			p := p
			on(t, &p)
			f := newFleet(t, p)
			f.run()
			f.stop()
			f.verify()
			t.Logf("storm {%q: %q, \"seed\": %d, \"tasks\": %d, \"killers\": %d, \"kills\": %d, \"children\": %d, \"again\": %d, \"orphaned\": %q, \"seconds\": %.0f}",
				"store", name, f.seed, f.Confirmed, f.Poisoned, f.Kills, f.Children, f.Restarts, f.report.Orphaned, f.Took.Seconds())
		})
	}
}
