package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/events"
	"github.com/lovage-go/lovage/internal/ratelimit"
)

// openMailbox starts to listen to remote control on a new link. A worker whose
// broker cannot broadcast works without.
func (w *Worker) openMailbox(ctx context.Context, l *link) error {
	if w.commands == nil {
		return nil
	}
	box, err := control.Open(ctx, l.conn, control.Config{
		Node: remote{w}, Commands: w.commands, Namespace: w.conf.ControlExchange, Logger: w.log,
	})
	if err != nil {
		if !w.deaf.Swap(true) {
			w.log.Warn("remote control is not heard: "+err.Error(), "error", err)
		}
		return err
	}
	if w.deaf.Swap(false) {
		w.log.Info("remote control is heard again")
	}
	l.mailbox = box
	return nil
}

// obey runs the commands that come by a link until ctx ends, with a new mailbox
// after a loss. Only the link that claims has one.
func (w *Worker) obey(ctx context.Context, l *link) {
	for wait := firstBackoff; ctx.Err() == nil; wait = w.longer(wait) {
		if l.mailbox == nil {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return
			}
			if err := w.openMailbox(ctx, l); errors.Is(err, broker.ErrUnsupported) {
				return
			}
			continue
		}
		box := l.mailbox
		l.mailbox = nil
		err := guard(func() error { return box.Run(ctx) })
		if e := guard(box.Close); e != nil && !gone(e) {
			w.log.Debug("remote control did not close well", "error", e)
		}
		if ctx.Err() == nil && !w.deaf.Swap(true) {
			w.log.Warn("remote control is not heard: "+err.Error(), "error", err)
		}
	}
}

// remote is the worker as commands see it.
type remote struct{ w *Worker }

func (n remote) Hostname() string     { return n.w.cfg.Hostname }
func (n remote) Clock() control.Clock { return n.w.app.Clock() }

// storeWait is how long a command waits for the result store to have a revoke.
const storeWait = time.Second

func (n remote) Revoke(ctx context.Context, ids ...string) {
	n.w.revokes.add(time.Now(), ids...)
	n.w.log.Info("Tasks flagged as revoked: "+strings.Join(ids, ", "), "ids", ids)
	n.stored(ctx, n.w.keeper.put(ids), n.w.db.kept())
}

// stored waits, not for long: a command answers when the store and the state file
// have a revoke, and does not hang on a store that is away.
func (n remote) stored(ctx context.Context, all ...<-chan struct{}) {
	limit := time.After(storeWait)
	for _, done := range all {
		select {
		case <-done:
		case <-limit:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (n remote) Terminate(ctx context.Context, signal int, ids ...string) (found []string) {
	n.w.revokes.add(time.Now(), ids...)
	done := n.w.keeper.put(ids)
	for _, r := range n.w.terminate(signal, func(r *lovage.Request) bool { return slices.Contains(ids, r.ID) }) {
		found = append(found, r.ID)
	}
	if len(found) > 0 {
		n.w.log.Info("Terminating "+strings.Join(found, ", "), "ids", found, "signal", signal)
	}
	n.stored(ctx, done, n.w.db.kept())
	return found
}

func (n remote) RevokeStamped(stamps map[string][]string, terminate bool, signal int) map[string][]string {
	now := time.Now()
	var keys []string
	for header, values := range stamps {
		for _, v := range values {
			keys = append(keys, stampKey(header, v))
		}
	}
	n.w.stamps.add(now, keys...)
	n.w.log.Info("Tasks flagged as revoked by stamps: "+strings.Join(keys, ", "), "stamps", keys)
	if !terminate {
		return nil
	}
	found := map[string][]string{}
	n.w.terminate(signal, func(r *lovage.Request) bool {
		mine, meant := stampKeys(r), false
		for header, values := range stamps {
			for _, v := range values {
				if slices.Contains(mine, stampKey(header, v)) {
					found[header], meant = append(found[header], v), true
				}
			}
		}
		return meant
	})
	return found
}

func (n remote) Heard(ids ...string) {
	n.w.revokes.add(time.Now(), ids...)
	n.w.log.Info("took over revokes from another worker", "revokes", len(ids))
}

func (n remote) Revoked() map[string]time.Time { return n.w.revokes.all(time.Now()) }

func (n remote) SendTaskEvents(on bool) bool {
	if n.w.taskEvents.Swap(on) == on {
		return false
	}
	n.w.log.Info(map[bool]string{true: "Events of group {task} enabled by remote.", false: "Events of group {task} disabled by remote."}[on])
	return true
}

func (n remote) Heartbeat() {
	if n.w.ready.Load() {
		n.w.events.Publish(events.WorkerHeartbeat, "", n.w.vitals())
	}
}

func (n remote) SetRate(task, rate string, every time.Duration) error {
	s := n.w.strategies[task]
	if s == nil {
		return n.unknown(task)
	}
	var bucket *ratelimit.Bucket
	if every > 0 && !*n.w.conf.WorkerDisableRateLimits {
		bucket = ratelimit.NewBucket(every)
	}
	s.bucket.Store(bucket)
	if every <= 0 {
		rate = ""
	}
	s.rate.Store(&rate)
	n.w.log.Info("New rate limit for tasks of type "+task+": "+or(rate, "none"), "task", task, "every", every)
	return nil
}

func (n remote) unknown(task string) error {
	n.w.log.Error("Remote control named an unknown task: "+task, "task", task)
	return fmt.Errorf("%w: %q", control.ErrUnknownTask, task)
}

func (n remote) SetTimeLimits(task string, soft, hard *time.Duration) error {
	w := n.w
	s := w.strategies[task]
	if s == nil {
		return n.unknown(task)
	}
	pick := func(given *time.Duration, own, app time.Duration) int64 {
		if given != nil {
			return int64(*given)
		}
		return int64(or(own, max(app, 0)))
	}
	s.soft.Store(pick(soft, w.cfg.SoftTimeLimit, w.conf.TaskSoftTimeLimit))
	s.hard.Store(pick(hard, w.cfg.TimeLimit, w.conf.TaskTimeLimit))
	w.log.Info("New time limits for tasks of type "+task, "task", task,
		"soft", time.Duration(s.soft.Load()), "hard", time.Duration(s.hard.Load()))
	return nil
}

func (n remote) ResizePool(by int) error {
	w := n.w
	if w.scaler != nil {
		return control.ErrAutoscaled
	}
	if w.cfg.Pool == poolSolo {
		return errors.New("the pool solo has one slot: start the worker with another pool")
	}
	w.tuning.Lock()
	defer w.tuning.Unlock()
	size, _, _ := w.pool.Counts()
	if size+by < 1 {
		return fmt.Errorf("the pool keeps one slot of its %d: shut the worker down instead", size)
	}
	w.resize(size + by)
	w.log.Info("the pool has changed by remote control", "slots", size+by, "before", size)
	return nil
}

// consumed are the queues that the worker claims from.
func (w *Worker) consumed() []broker.Queue {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.queues)
}

func (n remote) AddConsumer(ctx context.Context, q broker.Queue) error {
	w := n.w
	if q.Exchange.Name == "" {
		known, err := w.app.Queues(q.Name)
		var missing *lovage.QueueNotFoundError
		switch {
		case err == nil:
			q = known[0]
		case errors.As(err, &missing): // Celery adds it, whatever task_create_missing_queues says
			q = broker.Named(q.Name)
		default:
			return err
		}
	}
	w.log.Info("consuming from queue "+q.Name+" by remote control", "queue", q.Name)
	return w.consumeFrom(ctx, func(qs []broker.Queue) []broker.Queue {
		if slices.ContainsFunc(qs, func(have broker.Queue) bool { return have.Name == q.Name }) {
			return qs
		}
		return append(qs, q)
	})
}

func (n remote) CancelConsumer(ctx context.Context, queue string) error {
	n.w.log.Info("no longer consuming from queue "+queue+" by remote control", "queue", queue)
	return n.w.consumeFrom(ctx, func(qs []broker.Queue) []broker.Queue {
		return slices.DeleteFunc(qs, func(have broker.Queue) bool { return have.Name == queue })
	})
}

// consumeFrom changes the queues, for the connection there is and for those to come.
func (w *Worker) consumeFrom(ctx context.Context, change func([]broker.Queue) []broker.Queue) error {
	w.tuning.Lock()
	defer w.tuning.Unlock()
	before := w.consumed()
	after := change(slices.Clone(before))
	w.mu.Lock()
	l := w.link
	w.mu.Unlock()
	if l == nil {
		return fmt.Errorf("change the queues: %w", broker.ErrUnavailable)
	}
	if err := l.consumer.Update(ctx, w.ordered(after)...); err != nil {
		return fmt.Errorf("change the queues: %w", err)
	}
	w.mu.Lock()
	w.queues = after
	w.mu.Unlock()
	return nil
}

func (n remote) Elect(ctx context.Context, id, topic string, action json.RawMessage) error {
	return n.w.stand(ctx, id, topic, action)
}

func (n remote) Shutdown(reason string) {
	n.w.log.Warn(reason)
	n.w.Stop(Warm)
}

func (n remote) Queues() []broker.Queue { return n.w.consumed() }
