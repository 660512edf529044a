package worker

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/internal/proc"
)

const (
	mingleTime = time.Second      // Celery's
	heardFor   = 2 * time.Minute  // a peer that does not answer still counts
	askEvery   = 30 * time.Second // what is known of the peers is asked anew
	askAgain   = 5 * time.Second  // at most
	maxPeers   = 1000
	maxNames   = 10_000 // of tasks or queues, by peer
)

// peer is another worker, as it answered.
type peer struct {
	heard         time.Time
	tasks, queues map[string]bool // nil: it has not said
}

// fleet is what a worker knows of the others.
type fleet struct {
	mu     sync.Mutex // guards what follows
	peers  map[string]*peer
	asked  time.Time // when the last round of answers was asked for
	tried  time.Time // when the last round was begun
	asking bool
}

// knows reports whether another worker of the queue knows a task, and when the
// answers were asked for.
func (f *fleet) knows(task, queue string) (known bool, asked time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.peers {
		if p.tasks[task] && (p.queues == nil || p.queues[queue]) {
			return true, f.asked
		}
	}
	return false, f.asked
}

// begin reports whether it is time to ask, and then takes the turn.
func (f *fleet) begin(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asking || !f.tried.IsZero() && now.Sub(f.tried) < askAgain {
		return false
	}
	f.asking, f.tried = true, now
	return true
}

// end takes the answers of a round; nil is none for want of a broker.
func (f *fleet) end(began time.Time, answers map[string]*peer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asking = false
	if answers == nil {
		return
	}
	f.asked = began
	if f.peers == nil {
		f.peers = map[string]*peer{}
	}
	for name, p := range answers {
		if old := f.peers[name]; old != nil {
			if p.tasks == nil {
				p.tasks = old.tasks
			}
			if p.queues == nil {
				p.queues = old.queues
			}
		}
		if len(f.peers) < maxPeers || f.peers[name] != nil {
			f.peers[name] = p
		}
	}
	maps.DeleteFunc(f.peers, func(_ string, p *peer) bool { return began.Sub(p.heard) > heardFor })
}

// mingle asks the other workers, in the background of a start, what they have
// revoked, and what they know of the queues that they share with this one.
func (w *Worker) mingle(ctx context.Context) {
	defer w.rescue("mingle", func(error) {})
	select {
	case <-w.met:
	case <-ctx.Done():
		return
	}
	w.recall(ctx, mingleTime)
	var both sync.WaitGroup
	both.Go(func() {
		defer w.rescue("mingle", func(error) {})
		w.greet(ctx)
	})
	if began := time.Now(); w.fleet.begin(began) {
		w.survey(ctx, began)
		w.warnOfSharedQueues()
	}
	both.Wait()
}

// greet is Celery's mingle.
func (w *Worker) greet(ctx context.Context) {
	replies, err := w.app.Control().Inspect(ctx, "hello", map[string]any{
		"from_node": w.cfg.Hostname, "revoked": control.Revokes(w.revokes.all(time.Now())),
	}, control.Options{Timeout: mingleTime})
	if err != nil {
		w.notAsked(ctx, err)
		return
	}
	var names []string
	for _, r := range replies {
		var hello *struct{ Revoked map[string]json.RawMessage }
		if r.Node == w.cfg.Hostname || r.Decode(&hello) != nil || hello == nil {
			continue
		}
		names = append(names, r.Node)
		for id, raw := range hello.Revoked {
			if !w.revokes.has(time.Now(), id) {
				w.revokes.add(w.revokedAt(raw), id)
			}
		}
	}
	if len(names) > 0 {
		slices.Sort(names)
		w.log.Info("mingle: synced with "+strings.Join(names, ", "), "nodes", names)
	}
}

// revokedAt reads the time of a revoke: seconds of a machine's monotonic clock,
// alone or in a pair with the id. From another machine it says nothing, and the
// revoke counts from now.
func (w *Worker) revokedAt(raw json.RawMessage) time.Time {
	now := time.Now()
	var pair []json.RawMessage
	if json.Unmarshal(raw, &pair) == nil && len(pair) > 0 {
		raw = pair[0]
	}
	var seconds float64
	if json.Unmarshal(raw, &seconds) != nil {
		return now
	}
	if age := proc.Monotonic() - time.Duration(seconds*float64(time.Second)); age > 0 && age < w.revokes.keep {
		return now.Add(-age)
	}
	return now
}

func (w *Worker) notAsked(ctx context.Context, err error) {
	if ctx.Err() == nil {
		w.log.Debug("mingle: the other workers could not be asked", "error", err)
	}
}

// survey asks which tasks the others know and which queues they consume.
func (w *Worker) survey(ctx context.Context, began time.Time) {
	var answers map[string]*peer
	defer func() { w.fleet.end(began, answers) }()
	var tasks, queues []control.Reply
	var errs [2]error
	var both sync.WaitGroup
	ask := func(method string, into *[]control.Reply, err *error) {
		both.Go(func() {
			*err = guard(func() (e error) {
				*into, e = w.app.Control().Inspect(ctx, method, nil, control.Options{Timeout: mingleTime})
				return e
			})
		})
	}
	ask("registered", &tasks, &errs[0])
	ask("active_queues", &queues, &errs[1])
	both.Wait()
	if errs[0] != nil || ctx.Err() != nil {
		w.notAsked(ctx, errs[0])
		return
	}
	found := map[string]*peer{}
	of := func(r *control.Reply) *peer {
		if found[r.Node] == nil {
			found[r.Node] = &peer{heard: began}
		}
		return found[r.Node]
	}
	for i := range tasks {
		var names []string
		if tasks[i].Node == w.cfg.Hostname || tasks[i].Decode(&names) != nil {
			continue
		}
		set := map[string]bool{}
		for _, name := range names[:min(len(names), maxNames)] {
			name, _, _ = strings.Cut(name, " [") // what follows are attributes
			set[name] = true
		}
		of(&tasks[i]).tasks = set
	}
	for i := range queues {
		var list []struct{ Name string }
		if queues[i].Node == w.cfg.Hostname || queues[i].Decode(&list) != nil {
			continue
		}
		set := map[string]bool{}
		for _, q := range list[:min(len(list), maxNames)] {
			set[q.Name] = true
		}
		of(&queues[i]).queues = set
	}
	answers = found
}

// warnOfSharedQueues tells, once, which queues have workers that do not know the
// same tasks: each gets messages that it can only refuse.
func (w *Worker) warnOfSharedQueues() {
	mine := map[string]bool{}
	for name := range w.strategies {
		if !builtinTask(name) {
			mine[name] = true
		}
	}
	w.fleet.mu.Lock()
	peers := maps.Clone(w.fleet.peers)
	w.fleet.mu.Unlock()
	for _, q := range w.consumed() {
		var nodes []string
		lacking, foreign := map[string]bool{}, map[string]bool{}
		for name, p := range peers {
			if p.tasks == nil || !p.queues[q.Name] {
				continue
			}
			before := len(lacking) + len(foreign)
			less(lacking, mine, p.tasks)
			less(foreign, p.tasks, mine)
			if len(lacking)+len(foreign) > before || len(nodes) == 0 && before > 0 {
				nodes = append(nodes, name)
			}
		}
		if len(nodes) == 0 {
			continue
		}
		slices.Sort(nodes)
		text := "Queue " + q.Name + " is shared with " + some(nodes) + ", but the workers do not know the same tasks:"
		if len(lacking) > 0 {
			text += " " + some(slices.Sorted(maps.Keys(lacking))) + " only this one;"
		}
		if len(foreign) > 0 {
			text += " " + some(slices.Sorted(maps.Keys(foreign))) + " only the others;"
		}
		w.log.Warn(text+" give each language or program a queue of its own, or set worker_unknown_task to return here (it is "+
			w.conf.WorkerUnknownTask+")", "queue", q.Name, "nodes", nodes)
	}
}

// less adds to out what is in a and not in b.
func less(out, a, b map[string]bool) {
	for name := range a {
		if !b[name] && !builtinTask(name) {
			out[name] = true
		}
	}
}

// builtinTask reports whether a task is the framework's own.
func builtinTask(name string) bool { return strings.HasPrefix(name, "celery.") }

// some lists the first names.
func some(names []string) string {
	const most = 10
	if len(names) > most {
		names = append(slices.Clone(names[:most]), "...")
	}
	return strings.Join(names, ", ")
}
