package demo

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lovage-go/lovage/internal/proc"
)

// latencyCalls is how many calls the latency is measured with.
const latencyCalls = 300

// count is the main job.
func (d *demo) count(ctx context.Context) error {
	s, r := d.screen, &d.report.Job
	paths := d.paths
	s.section(fmt.Sprintf("Count the %s .go files below %s, one task for each", number(len(paths)), d.opts.Dir))
	victim := d.fleet.workers()[0]
	begun := time.Now()
	s.progress = s.Progress("   counting", len(paths))
	j := &job{
		app: d.app, tasks: d.tasks, paths: paths,
		onCount: func(done int) { s.progress.Set(done, rate(done, time.Since(begun))+"/s") },
		onKill: func(done int) error {
			defer s.line("kill -9", "%s (pid %d) after %s results", victim.name, victim.pid, number(done))
			return victim.kill()
		},
	}
	r.Dir, r.Victim = d.opts.Dir, victim.name
	var err error
	r.SendTime, err = j.run(ctx)
	r.Time = time.Since(begun)
	s.progress.End()
	s.progress = nil
	if err != nil {
		return err
	}
	d.counted, r.KilledAt, r.TakenOver = j.counted, j.killDone, len(j.late)
	if len(j.late) > 0 {
		r.FirstTakeover, r.LastTakeover = slices.Min(j.late), slices.Max(j.late)
		s.line("taken over", "messages that the dead worker held: %s; results %s to %s after the kill",
			number(r.TakenOver), span(r.FirstTakeover), span(r.LastTakeover))
	} else {
		s.line("taken over", "nothing: the dead worker held no message")
	}
	merging := time.Now()
	if r.Total, err = j.merge(ctx); err != nil {
		return err
	}
	r.MergeTime = time.Since(merging)
	s.line("merged", "by one more task in %s; identifiers (by each file's first %d):\n%s", span(r.MergeTime), topWords, listed(r.Total.Words, 6))
	return d.prove(ctx, j)
}

// prove holds the outcome against a count made here.
func (d *demo) prove(ctx context.Context, j *job) error {
	s, r := d.screen, &d.report.Job
	begun := time.Now()
	var err error
	if r.Witness, err = recount(ctx, d.opts.Dir); err != nil {
		return err
	}
	r.WitnessTime = time.Since(begun)
	for _, row := range []struct {
		label string
		t     Total
	}{{"the workers", r.Total}, {"this process", r.Witness}} {
		s.line(row.label, "%9s files %12s lines %10s   sha256 %.16s", number(row.t.Files), number(row.t.Lines), size(row.t.Bytes), row.t.Digest)
	}
	if err := j.once(); err != nil {
		return err
	}
	if err := compare(r.Total, r.Witness); err != nil {
		return err
	}
	r.ExactlyOnce = true
	s.line("proven", "%s", s.good("every file was counted exactly once"))
	s.line("by hand", "cd %s\nfind . -type f -name '*.go' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum", d.opts.Dir)
	return nil
}

// classes shows task classes.
func (d *demo) classes(ctx context.Context) error {
	s := &shower{app: d.app, tasks: d.tasks}
	d.screen.section("Task classes: one object per task and process")
	if err := d.startWorker(ctx, []string{queue}); err != nil { // in the dead one's place
		return err
	}
	return d.show(ctx,
		s.logins,
		func(context.Context) (*Case, error) { return s.resource(d.counted) },
		s.handlers,
		func(ctx context.Context) (*Case, error) {
			if !d.screen.Terminal() {
				return s.progress(ctx, func(int) {})
			}
			bar := d.screen.Progress("   training", trainSteps)
			defer bar.End()
			return s.progress(ctx, func(done int) { bar.Set(done, "") })
		})
}

// failures shows what happens when things go wrong.
func (d *demo) failures(ctx context.Context) error {
	s := &shower{app: d.app, tasks: d.tasks}
	d.screen.section("Failures and retries")
	return d.show(ctx, s.failure, s.retries)
}

// show runs cases and prints what they tell.
func (d *demo) show(ctx context.Context, cases ...func(context.Context) (*Case, error)) error {
	for _, show := range cases {
		c, err := d.showOne(ctx, show)
		if err != nil {
			return err
		}
		for i, l := range c.Lines {
			label := c.Name
			if i > 0 {
				label = ""
			}
			d.screen.line(label, "%s", l)
		}
		d.report.Cases = append(d.report.Cases, *c)
	}
	return nil
}

func (d *demo) showOne(ctx context.Context, show func(context.Context) (*Case, error)) (*Case, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, fmt.Errorf("no answer within %s", askTimeout))
	defer cancel()
	return show(ctx)
}

// measure prints the numbers.
func (d *demo) measure(ctx context.Context) error {
	s, r := d.screen, &d.report
	s.section("Numbers")
	j := &r.Job
	files := j.Total.Files
	s.line("sent", "%9s tasks/s   %s calls in %s by %d goroutines", rate(files, j.SendTime), number(files), span(j.SendTime), senders)
	s.line("done", "%9s tasks/s   %s results in %s, the kill included (%s/s of source)",
		rate(files, j.Time), number(files), span(j.Time), size(int(float64(j.Total.Bytes)/j.Time.Seconds())))
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, fmt.Errorf("the latency was not measured within %s", askTimeout))
	defer cancel()
	var err error
	shower := &shower{app: d.app, tasks: d.tasks}
	if r.Latency, err = shower.latency(ctx, latencyCalls); err != nil {
		return err
	}
	s.line("latency", "p50 %s, p99 %s   from call to result, %d one after the other", millis(r.Latency.P50), millis(r.Latency.P99), r.Latency.Calls)
	r.Workers, r.Client = d.fleet.report(), proc.RSS()*1024
	for _, w := range r.Workers {
		switch {
		case w.Killed:
		case w.RSS == 0:
			s.line(w.Name, "memory not known on this system")
		default:
			s.line(w.Name, "%9s resident", size(w.RSS))
		}
	}
	s.line("this process", "%9s resident, with all results in hand", size(r.Client))
	return nil
}

// next says what to try now.
func (d *demo) next() {
	s := d.screen
	s.section(fmt.Sprintf("Done in %s. Try next", span(d.report.Time)))
	s.say("   go run ./examples/taskclasses/auth    task classes, one idea in each directory there")
	s.say("   go doc . Task                         what a task class may have")
	s.say("   bin/lovage demo --keep DIR            your own sources; store and logs stay to look into")
}
