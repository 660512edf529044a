package battery_test

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage/internal/proc"
	"github.com/lovage-go/lovage/internal/testenv"
)

var (
	soak   = flag.Duration("soak", 15*time.Second, "length of TestSoak")
	soakOn = flag.String("soakon", "Redis", "broker of TestSoak: Redis or RabbitMQ")
)

// What TestSoak allows an hour, if it is long enough to tell. At 200 tasks a
// second and a loss of all connections each 20 s, keeping the id of each task
// would be 720,000 times its 36 bytes and a header, 36 MiB; keeping the buffers
// of one connection for each loss, 180 times 128 KiB, 22 MiB; and a connection
// that is not closed leaves two goroutines at least, 360. A quarter of the one and
// half of a goroutine for each loss are beyond what the collector's saw-tooth
// adds in ten minutes.
const (
	longEnough    = 8 * time.Minute
	mostGrowth    = 20.0 // MiB
	mostGoroutine = 90.0
	soakPace      = 5 * time.Millisecond
)

// TestSoak has a worker of each pool at work for a long time, while all their
// connections are dropped again and again: what they take stays the same.
func TestSoak(t *testing.T) {
	t.Parallel()
	p := plan{
		role:  role{Mix: "soak", Pace: soakPace, Tasks: int(*soak / soakPace), Slots: 4, Lease: 30 * time.Second},
		pools: []string{"goroutine", "prefork"}, crowd: 1, seed: *seed,
	}
	proxies := map[string]func() []*testenv.Proxy{
		"Redis": func() []*testenv.Proxy {
			server := testenv.Redis(t)
			proxy := testenv.NewProxy(t, server.Addr)
			p.Broker = server.URL(server.DB(t))
			p.Results = p.Broker
			p.through = strings.NewReplacer(server.Addr, proxy.Addr)
			return []*testenv.Proxy{proxy}
		},
		"RabbitMQ": func() []*testenv.Proxy {
			server, results := testenv.RabbitMQ(t), testenv.Redis(t)
			a, b := testenv.NewProxy(t, server.Addr), testenv.NewProxy(t, results.Addr)
			p.Broker, p.Results, p.resends = server.Vhost(t), results.URL(results.DB(t)), true
			p.through = strings.NewReplacer(server.Addr, a.Addr, results.Addr, b.Addr)
			return []*testenv.Proxy{a, b}
		},
	}[*soakOn]()
	every := min(20*time.Second, *soak/6)
	f := newFleet(t, p)
	s := f.soak(proxies, every)
	f.drain(2 * time.Minute)
	if *soak < longEnough {
		f.rested(s)
	}
	f.stop()
	f.verify()
	for _, l := range s.lines {
		mean, slope := l.fit()
		t.Logf("soak {\"store\": %q, \"what\": %q, \"tasks\": %d, \"minutes\": %.1f, \"drops\": %d, \"mean\": %.1f, \"slope\": %.1f}",
			*soakOn, l.name, f.Confirmed, soak.Minutes(), f.Drops, mean, slope)
		if *soak >= longEnough && slope > l.most {
			t.Errorf("%s: %.1f an hour more, at most %.0f are no leak", l.name, slope, l.most)
		}
	}
}

// sampler is what the workers were seen to take.
type sampler struct {
	lines []*line
	early [][]int // goroutines of each worker before the third loss
}

// line is one thing measured over time.
type line struct {
	name string
	most float64 // of its slope
	x, y []float64
}

// fit is the mean and the slope, per hour, of the least squares line.
func (l *line) fit() (mean, slope float64) {
	n := float64(len(l.x))
	var mx, my, sxy, sxx float64
	for i := range l.x {
		mx, my = mx+l.x[i]/n, my+l.y[i]/n
	}
	for i := range l.x {
		sxy += (l.x[i] - mx) * (l.y[i] - my)
		sxx += (l.x[i] - mx) * (l.x[i] - mx)
	}
	return my, sxy / sxx
}

// soak looks at the workers once a second until the producer is done, and drops
// their connections in between. The first fifth warms up.
func (f *fleet) soak(proxies []*testenv.Proxy, every time.Duration) *sampler {
	f.Helper()
	s := &sampler{early: make([][]int, len(f.workers))}
	for _, w := range f.workers {
		s.lines = append(s.lines,
			&line{name: w.role.Pool + " worker, MiB", most: mostGrowth},
			&line{name: w.role.Pool + " worker, goroutines", most: mostGoroutine})
	}
	children := &line{name: "prefork children together, MiB", most: mostGrowth}
	s.lines = append(s.lines, children)
	look, drop := time.NewTicker(min(time.Second, every/4)), time.NewTicker(every)
	defer look.Stop()
	defer drop.Stop()
	for busy := true; busy; {
		select {
		case <-drop.C:
			f.Drops++
			for _, p := range proxies {
				p.Drop()
			}
			continue
		case <-look.C:
		}
		for _, w := range f.workers {
			if !w.running() {
				f.Fatalf("a %s worker has ended:\n%s", w.role.Pool, tail(f.dir))
			}
		}
		busy = f.mend()
		hours := time.Since(f.began).Hours()
		for i, w := range f.workers {
			now, ok := w.ask(f.T)
			if !ok {
				f.Fatalf("a %s worker has ended:\n%s", w.role.Pool, tail(f.dir))
			}
			if f.Drops <= 2 {
				s.early[i] = append(s.early[i], now.Fixed)
			}
			if hours < soak.Hours()/5 {
				continue
			}
			s.lines[2*i].add(hours, float64(proc.RSSOf(w.cmd.Process.Pid))/1024)
			s.lines[2*i+1].add(hours, float64(now.Goroutines))
			if w.role.Pool == "prefork" {
				sum := 0
				for _, pid := range w.children() {
					sum += proc.RSSOf(pid)
				}
				children.add(hours, float64(sum)/1024)
			}
		}
	}
	return s
}

func (l *line) add(x, y float64) { l.x, l.y = append(l.x, x), append(l.y, y) }

// rested compares workers that have nothing to do with what they were at first:
// a connection that is not closed leaves two goroutines at least.
func (f *fleet) rested(s *sampler) {
	f.Helper()
	for i, w := range f.workers {
		slices.Sort(s.early[i])
		most := s.early[i][len(s.early[i])/2] + f.Drops
		f.until(fmt.Sprintf("a %s worker with at most %d goroutines", w.role.Pool, most), func() bool {
			now, ok := w.ask(f.T)
			return ok && now.Fixed <= most
		})
	}
}
