package worker

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/internal/proc"
)

// Autoscale are the bounds of a pool that follows the load. The zero value is a
// pool of fixed size.
type Autoscale struct {
	Max int // slots at most; 0: off
	Min int // slots when there is little to do; a pool keeps one
}

// ParseAutoscale reads bounds as Celery writes them: MAX,MIN in any order, or MAX
// alone.
func ParseAutoscale(text string) (Autoscale, error) {
	most, least, both := strings.Cut(text, ",")
	high, err := strconv.Atoi(strings.TrimSpace(most))
	low := 0
	if both && err == nil {
		low, err = strconv.Atoi(strings.TrimSpace(least))
	}
	if err != nil || min(high, low) < 0 || max(high, low) < 1 {
		return Autoscale{}, fmt.Errorf("autoscale %q: want MAX,MIN: two numbers, such as 10,3", text)
	}
	return Autoscale{Max: max(high, low), Min: max(min(high, low), 1)}, nil
}

// keepalive is how long a pool has had no use for a slot when it goes; the
// variable of the environment, which is Celery's, changes it.
const (
	keepalive    = 30 * time.Second
	keepaliveKey = "AUTOSCALE_KEEPALIVE"
)

// autoscaler gives a pool as many slots as there are messages for, at once, and
// takes back what nothing has needed for a while. Claims follow its maximum, so
// that there is something to grow for. It is safe for concurrent use.
type autoscaler struct {
	w    *Worker
	keep time.Duration

	mu   sync.Mutex // guards what follows; the size of the pool too
	most int
	min  int
	full time.Time // when all slots were needed last
	peak int       // the most that was needed since
}

// newAutoscaler returns nil for a pool of fixed size.
func newAutoscaler(w *Worker) *autoscaler {
	if w.cfg.Autoscale.Max == 0 {
		return nil
	}
	a := &autoscaler{w: w, keep: keepalive, most: w.cfg.Autoscale.Max, min: w.cfg.Autoscale.Min, full: time.Now()}
	text := proc.Getenv(keepaliveKey)
	switch s, err := strconv.ParseFloat(text, 64); {
	case text == "":
	case err == nil && s > 0:
		a.keep = time.Duration(min(s, 1e9) * float64(time.Second))
	default:
		w.log.Warn(keepaliveKey+" is "+text+", and should be seconds, more than 0: idle slots go after "+keepalive.String(), "value", text)
	}
	return a
}

// slots is the number of slots that claims may be made for.
func (a *autoscaler) slots(size int) int {
	if a == nil {
		return size
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return max(a.most, size)
}

// run looks each second whether slots are idle, until ctx ends.
func (a *autoscaler) run(ctx context.Context) {
	t := time.NewTicker(min(time.Second, a.keep))
	defer t.Stop()
	for {
		select {
		case <-t.C:
			a.look()
		case <-ctx.Done():
			return
		}
	}
}

// look compares what there is to do with the slots that there are.
func (a *autoscaler) look() {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	size, used, waiting := a.w.pool.Counts()
	need := min(max(used+waiting, a.min), a.most)
	switch {
	case need >= size:
		if need > size {
			a.resize(size, need)
		}
		a.full, a.peak = now, 0
	case now.Sub(a.full) >= a.keep:
		a.resize(size, max(a.peak, need))
		a.full, a.peak = now, 0
	default:
		a.peak = max(a.peak, need)
	}
}

// resize changes the pool. The caller holds mu.
func (a *autoscaler) resize(from, to int) {
	switch {
	case to > from:
		a.w.log.Info(fmt.Sprintf("Scaling up %d slots.", to-from), "slots", to)
	case to < from:
		a.w.log.Info(fmt.Sprintf("Scaling down %d slots.", from-to), "slots", to)
	default:
		return
	}
	a.w.resize(to)
}

// update changes the bounds that are given, and the pool where it is outside.
func (a *autoscaler) update(most, least *int) (Autoscale, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	high, low := a.most, a.min
	if most != nil {
		high = *most
	}
	if least != nil {
		low = max(*least, 1)
	}
	if high < low {
		return Autoscale{}, fmt.Errorf("autoscale: max is %d and min is %d: want max to be the larger one, and 1 or more", high, low)
	}
	a.most, a.min, a.full, a.peak = high, low, time.Now(), 0
	size, _, _ := a.w.pool.Counts()
	a.resize(size, min(max(size, low), high))
	ring(a.w.room)
	return Autoscale{high, low}, nil
}

// info is what stats tell, in Celery's words.
func (a *autoscaler) info() map[string]int {
	size, used, waiting := a.w.pool.Counts()
	a.mu.Lock()
	defer a.mu.Unlock()
	return map[string]int{"max": a.most, "min": a.min, "current": size, "qty": used + waiting}
}

func (n remote) Autoscale(most, least *int) (int, int, error) {
	if n.w.scaler == nil {
		return 0, 0, control.ErrNoAutoscaler
	}
	to, err := n.w.scaler.update(most, least)
	if err == nil {
		n.w.log.Info("the autoscaler's bounds have changed by remote control", "max", to.Max, "min", to.Min)
	}
	return to.Max, to.Min, err
}
