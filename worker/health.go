package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lovage-go/lovage/internal/probe"
)

// Live reports whether the loops of the worker make progress: the one that
// connects, the one that claims, the one that reads what is claimed, the one that
// keeps time, and those that keep the ends of runs. It asks nobody, so that a broker that is away or slow is no
// reason to kill a worker. An error says what is stuck, and that the process
// should be replaced.
func (w *Worker) Live() error { return failing(w.stuck(time.Now())) }

// Ready reports whether the worker takes work: it has initialised its tasks, it
// is connected, its broker answers, and it is not stopping. An error says what
// keeps it.
func (w *Worker) Ready() error { return failing(w.unready(time.Now())) }

func failing(reasons []string) error {
	if len(reasons) == 0 {
		return nil
	}
	return errors.New("worker: " + strings.Join(reasons, "; "))
}

// stuck says which loops are at one turn for longer than any call may take.
func (w *Worker) stuck(now time.Time) (reasons []string) {
	limit := w.cfg.StallTimeout + commitTimeout
	look := func(name string, p *progress, limit time.Duration) {
		if d := p.lasts(now); d > limit {
			reasons = append(reasons, fmt.Sprintf("%s has been stuck for %s", name, d.Round(time.Second)))
		}
	}
	look("the connecting loop", &w.dialing, limit+w.conf.BrokerConnectionTimeout)
	look("the claim loop", &w.claims, limit)
	look("the reading loop", &w.reading, limit)
	look("the timer", &w.alarms.turn, limit)
	w.mu.Lock()
	defer w.mu.Unlock()
	for l := range w.links {
		look("the committer", &l.commit.turn, limit)
		look("the second committer", &l.commit.side, limit)
	}
	return reasons
}

// unready says why no work is taken.
func (w *Worker) unready(now time.Time) []string {
	w.mu.Lock()
	l := w.link
	w.mu.Unlock()
	switch {
	case w.halting.Load():
		return []string{"it is stopping"}
	case !w.prepared.Load():
		return []string{"it is starting"}
	case l == nil || l.isRetired():
		return []string{"it is not connected to the broker"}
	}
	select {
	case <-l.answered:
	default:
		return []string{"the broker has not answered the first claim"}
	}
	if at := l.asked.Load(); at > 0 {
		if d := now.Sub(time.Unix(0, at)); d > 2*claimWait {
			return []string{fmt.Sprintf("the broker has not answered a claim for %s", d.Round(time.Second))}
		}
	}
	return nil
}

// openHealth begins to answer, before anything of the start may take long.
func (w *Worker) openHealth() error {
	if w.cfg.Health == "" {
		return nil
	}
	l, err := probe.Listen(w.cfg.Health)
	if err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	w.health = probe.Serve(l, w.cfg.Hostname, map[string]func() []string{
		"/livez":  func() []string { return w.stuck(time.Now()) },
		"/readyz": func() []string { return w.unready(time.Now()) },
	})
	w.log.Info("health checks are answered on "+l.Addr().String(), "address", l.Addr().String())
	return nil
}

func (w *Worker) closeHealth() {
	if w.health == nil {
		return
	}
	ctx, cancel := context.WithTimeout(w.base, time.Second)
	defer cancel()
	if err := w.health.Shutdown(ctx); err != nil {
		_ = w.health.Close() // somebody still reads his answer
	}
}
