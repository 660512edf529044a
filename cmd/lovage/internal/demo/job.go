package demo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lovage-go/lovage"
)

// How the client goes about the job.
const (
	senders      = 32 // calls under way at once: the store commits them together
	collectors   = 4
	batch        = 100 // files that are sent and waited for together
	killPercent  = 40
	stallTimeout = time.Minute // without any result
	askTimeout   = 30 * time.Second
)

// JobReport is what the main job came to.
type JobReport struct {
	Dir           string        `json:"dir"`
	Total         Total         `json:"total"`
	Witness       Total         `json:"witness"`
	ExactlyOnce   bool          `json:"exactly_once"`
	SendTime      time.Duration `json:"send_ns"`
	Time          time.Duration `json:"time_ns"`
	MergeTime     time.Duration `json:"merge_ns"`
	WitnessTime   time.Duration `json:"witness_ns"`
	Victim        string        `json:"victim"`
	KilledAt      int           `json:"killed_at"` // results that had come by then
	TakenOver     int           `json:"taken_over"`
	FirstTakeover time.Duration `json:"first_takeover_ns"` // from the kill to the first result
	LastTakeover  time.Duration `json:"last_takeover_ns"`
}

// job is the client of the main job: it sends a task for each file, collects the
// results, and has one worker killed on the way.
type job struct {
	app   *lovage.App
	tasks *Tasks
	paths []string
	// onCount is told of progress, onKill kills; both may be nil.
	onCount func(done int)
	onKill  func(done int) error

	mu       sync.Mutex // guards what follows
	counted  []Counted
	killing  bool
	killedAt time.Time
	late     []time.Duration // from the kill to the results of messages that changed hands
	killDone int
}

// run sends and collects. It returns when every file has its result.
func (j *job) run(ctx context.Context) (sent time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(stallTimeout, func() {
		cancel(fmt.Errorf("no result came for %s", stallTimeout))
	})
	defer stall.Stop()

	fail := func(err error) {
		if err != nil {
			cancel(err)
		}
	}
	begun := time.Now()
	out := newOutbox(j.paths)
	var sending, collecting sync.WaitGroup
	for range senders {
		sending.Go(func() { fail(out.send(ctx, j.tasks)) })
	}
	for range collectors {
		collecting.Go(func() {
			for ids := range out.sent {
				fail(j.collect(ctx, ids, func() { stall.Reset(stallTimeout) }))
			}
		})
	}
	sending.Wait()
	sent = time.Since(begun)
	close(out.sent)
	collecting.Wait()
	if ctx.Err() != nil {
		return sent, context.Cause(ctx)
	}
	return sent, nil
}

// outbox is the calls that are to be made, in the order of the paths. Its
// senders share it; a batch is in sent once all of its calls are made.
type outbox struct {
	paths []string
	ids   []string
	next  atomic.Int64
	left  []atomic.Int64 // calls of each batch that are not made
	sent  chan []string  // has room for all
}

func newOutbox(paths []string) *outbox {
	n := (len(paths) + batch - 1) / batch
	o := &outbox{paths: paths, ids: make([]string, len(paths)), left: make([]atomic.Int64, n), sent: make(chan []string, n)}
	for i := range o.left {
		o.left[i].Store(int64(min(batch, len(paths)-i*batch)))
	}
	return o
}

// send makes calls until none is left.
func (o *outbox) send(ctx context.Context, tasks *Tasks) error {
	for ctx.Err() == nil {
		i := int(o.next.Add(1)) - 1
		if i >= len(o.paths) {
			break
		}
		res, err := tasks.Count.Delay(ctx, FileArgs{Path: o.paths[i]})
		if err != nil {
			return fmt.Errorf("send %s: %w", o.paths[i], err)
		}
		o.ids[i] = res.ID()
		if b := i / batch; o.left[b].Add(-1) == 0 {
			o.sent <- o.ids[b*batch : min((b+1)*batch, len(o.ids))]
		}
	}
	return nil
}

func (j *job) collect(ctx context.Context, ids []string, progress func()) error {
	return j.app.Results(ctx, ids, func(m *lovage.Meta) error {
		c, err := lovage.DecodeResult[Counted](m)
		if err != nil {
			return fmt.Errorf("count a file: %w", err)
		}
		progress()
		return j.note(c)
	})
}

// note takes one result, and kills at the right one.
func (j *job) note(c Counted) error {
	j.mu.Lock()
	j.counted = append(j.counted, c)
	done := len(j.counted)
	kill := !j.killing && j.onKill != nil && done*100 >= killPercent*len(j.paths)
	if kill {
		j.killing, j.killDone, j.killedAt = true, done, time.Now()
	}
	if c.Losses > 0 && j.killing {
		j.late = append(j.late, time.Since(j.killedAt))
	}
	j.mu.Unlock()
	if j.onCount != nil {
		j.onCount(done)
	}
	if kill {
		return j.onKill(done)
	}
	return nil
}

// merge sends the parts to be merged, and waits for the whole.
func (j *job) merge(ctx context.Context) (Total, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, fmt.Errorf("the merge took longer than %s", askTimeout))
	defer cancel()
	parts := make([]File, len(j.counted))
	for i, c := range j.counted {
		parts[i] = c.File
	}
	res, err := j.tasks.Merge.Delay(ctx, MergeArgs{Files: parts})
	if err != nil {
		return Total{}, fmt.Errorf("send the parts to be merged: %w", err)
	}
	return res.Get(ctx)
}

// once checks that each path has one result and none is missing.
func (j *job) once() error {
	seen := make(map[string]int, len(j.paths))
	for _, c := range j.counted {
		seen[c.Path]++
	}
	var errs []error
	for _, path := range j.paths {
		if n := seen[path]; n != 1 && len(errs) < 3 {
			errs = append(errs, fmt.Errorf("%s was counted %d times", path, n))
		}
	}
	return errors.Join(errs...)
}
