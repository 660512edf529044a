package prefork

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
)

const (
	dieTimeout = 5 * time.Second // for the signal that was asked for; SIGKILL follows
	lastRead   = 5 * time.Second // from the end of the wire to that of the process
)

// Death is the error of a run whose child died.
type Death struct {
	// Status is how it ended: "signal 9 (SIGKILL)", "exitcode 2 (panic: boom)".
	Status string
	// Trace is what the Go runtime said when it died.
	Trace string
}

func (d *Death) Error() string { return "Worker exited prematurely: " + d.Status + "." }

var (
	// ErrGone is the error of a job that its child did not get: it had died before.
	ErrGone = errors.New("the child is gone")
	// ErrNotBegun is the error of a job whose Begin said no.
	ErrNotBegun = errors.New("the job is not to run any more")
)

// Refused is the error of a run that the child could not begin.
type Refused struct{ Reason string }

func (r *Refused) Error() string { return r.Reason }

// Job is what a child is given to run. Finisher keeps the effects; Slot is lent
// while the run waits.
type Job struct {
	Request  *lovage.Request
	Delivery *broker.Delivery
	Losses   int
	Repr     bool // somebody wants the result as text
	Finisher lovage.Finisher
	Slot     lovage.Slot
	Ask      func(*lovage.Outcome) (counts bool, err error) // before a run with this end counts in its chords
	Begin    func() bool                                    // asked, with Kill kept out, whether it is to run; may be nil
	Free     func()                                         // called when the child can be released before the effects are kept; may be nil
}

// Child is one process of a pool, as its parent sees it. It runs one job at a
// time. Kill may be called by anybody, all else by whoever has acquired it.
type Child struct {
	pool   *Pool
	name   string
	pid    int
	cmd    *exec.Cmd
	wire   *wire
	output *output
	frames chan frame    // of the run
	exited chan struct{} // closed when the process is gone, and all that it sent is read
	status string        // this and trace are set before exited is closed
	trace  string
	runs   int
	memory int // KiB, after the last run

	mu     sync.Mutex // guards what follows
	job    *Job
	lent   *Job // the run, while its slot is lent
	doomed bool // killed: it dies, however its run ends
}

type frame struct {
	kind    kind
	payload []byte
}

// PID is the child's process id.
func (c *Child) PID() int { return c.pid }

// spawn starts a child and waits until it has run Init.
func (p *Pool) spawn(ctx context.Context, index int) (*Child, error) {
	p.cfg.App.Signals.WorkerBeforeCreateProcess.Send(ctx, lovage.WorkerBeforeCreateProcess{Hostname: p.cfg.Hostname})
	cmd, conn, out, err := p.nursery.start(p.cfg.Env)
	if err != nil {
		return nil, err
	}
	c := &Child{
		pool: p, cmd: cmd, pid: cmd.Process.Pid, wire: newWire(conn), name: fmt.Sprintf("ForkPoolWorker-%d", index),
		frames: make(chan frame, 4), exited: make(chan struct{}),
	}
	if c.output, err = newOutput(out, c.log); err != nil {
		c.end()
		return nil, errors.Join(err, cmd.Wait())
	}
	p.group.Go(c.output.run)
	first := make(chan error, 4) // a greeting, Init, and an end
	p.group.Go(func() { c.listen(first) })
	hello := time.AfterFunc(p.cfg.Alive, func() {
		c.fail(first, fmt.Errorf("it did not answer within %s (worker_proc_alive_timeout): main must come to the worker's Run in the children of its pool too", p.cfg.Alive))
	})
	defer hello.Stop()
	for step := 0; ; step++ {
		select {
		case err = <-first:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil {
			c.end()
			<-c.exited
			return nil, err
		}
		hello.Stop()
		if step == 1 { // greeted, and ready
			return c, nil
		}
	}
}

func (c *Child) fail(first chan<- error, err error) {
	select {
	case first <- err:
	default:
	}
}

// log is the parent's log, with the child's name and its run.
func (c *Child) log() *slog.Logger {
	log := c.pool.cfg.Log.With("process", c.name, "pid", c.pid)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.job != nil {
		log = log.With("task", c.job.Request.Task, "id", c.job.Request.ID)
	}
	return log
}

// listen reads what the child says until it is gone. first gets the outcome of
// the greeting, and then that of Init.
func (c *Child) listen(first chan<- error) {
	greeted := false
	for {
		k, payload, err := c.wire.receive()
		if err != nil {
			break
		}
		switch k {
		case hello:
			err := c.greet(payload)
			greeted = err == nil
			c.fail(first, err)
		case ready:
			c.fail(first, errorOf(payload))
		case line:
			if r, err := readFlat[record](payload); err == nil {
				r.write(c.pool.cfg.Log.With("process", c.name, "pid", c.pid))
			}
		case lend, want:
			c.lending(k, payload)
		case closed:
			if err := errorOf(payload); err != nil {
				c.log().Error("a child did not close well: "+err.Error(), "error", err)
			}
		case finish, ask, done:
			c.frames <- frame{k, payload}
		}
	}
	kill := time.AfterFunc(lastRead, func() { c.end() })
	_ = c.cmd.Wait()
	kill.Stop()
	c.trace = c.output.last()
	c.status = status(c.cmd.ProcessState) + cause(c.trace)
	close(c.exited)
	c.wire.conn.Close()
	c.output.file.Close()
	if greeted {
		c.fail(first, &Death{Status: c.status, Trace: c.trace})
	} else {
		c.fail(first, fmt.Errorf("a child ended before it came to the worker's Run (%s): %s", c.status, c.trace))
	}
	c.pool.gone(c)
}

// greet compares a child with its parent and tells it what to do.
func (c *Child) greet(payload []byte) error {
	g, err := readFlat[greeting](payload)
	if err != nil {
		return err
	}
	if err := c.pool.me.compare(&g); err != nil {
		return err
	}
	s := c.pool.cfg.settings()
	s.Name = c.name
	return c.wire.send(setup, appendFlat(nil, &s))
}

// lending gives the slot of the run to others, or takes it back.
func (c *Child) lending(k kind, payload []byte) {
	c.mu.Lock()
	j := c.job
	if k == lend && j != nil && c.lent == nil {
		c.lent = j
	}
	c.mu.Unlock()
	switch {
	case j == nil || j.Slot == nil:
		if k == want {
			_ = c.wire.send(slot, payload)
		}
	case k == lend:
		c.pool.lend(1)
		j.Slot.Release()
	default:
		c.pool.group.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			c.pool.group.Go(func() {
				select {
				case <-c.exited:
					cancel()
				case <-ctx.Done():
				}
			})
			_ = j.Slot.Reacquire(ctx)
			c.unlend(j)
			_ = c.wire.send(slot, payload)
		})
	}
}

// unlend notes that a run goes on, or has ended, if its slot was lent.
func (c *Child) unlend(j *Job) {
	c.mu.Lock()
	was := c.lent == j && j != nil
	if was {
		c.lent = nil
	}
	c.mu.Unlock()
	if was {
		c.pool.lend(-1)
	}
}

// Run runs a job. The error is a *Death or *Refused: then the run has no
// outcome.
func (c *Child) Run(ctx context.Context, j *Job) (lovage.Outcome, error) {
	d := deliveryOf(j)
	return c.do(ctx, j, run, appendFlat(nil, &d))
}

// Conclude ends a run that cannot speak for itself.
func (c *Child) Conclude(ctx context.Context, j *Job, out *lovage.Outcome) (lovage.Outcome, error) {
	m := conclusion{deliveryOf(j), outcomeOf(out, false)}
	return c.do(ctx, j, conclude, appendFlat(nil, &m))
}

func (c *Child) do(ctx context.Context, j *Job, k kind, payload []byte) (lovage.Outcome, error) {
	if c.dead() {
		return lovage.Outcome{}, ErrGone
	}
	c.mu.Lock()
	if j.Begin != nil && !j.Begin() {
		c.mu.Unlock()
		return lovage.Outcome{}, ErrNotBegun
	}
	c.job = j
	c.mu.Unlock()
	defer c.unset(j)
	c.runs++
	if err := c.wire.send(k, payload); errors.Is(err, errFrameTooLarge) {
		return lovage.Outcome{}, &Refused{err.Error()}
	} else if err != nil {
		c.end()
		<-c.exited
		return lovage.Outcome{}, ErrGone
	}
	t := stint{child: c, job: j, run: c.runs}
	t.still = context.AfterFunc(ctx, func() {
		why := cancelled{t.run, faultOf(context.Cause(ctx))}
		_ = c.wire.send(cancel, appendFlat(nil, &why))
	})
	defer t.still()
	for {
		var f frame
		select {
		case f = <-c.frames:
		case <-c.exited:
			select {
			case f = <-c.frames: // sent before it died
			default:
				return t.died()
			}
		}
		if over, err := t.take(ctx, f); over {
			return t.out, err
		}
	}
}

// stint is one run of a child, as its parent sees it.
type stint struct {
	child *Child
	job   *Job
	run   int         // its number
	still func() bool // keeps the child from being told of the context's end
	out   lovage.Outcome
	kept  bool // its end was told
}

// died is the end of a run with its process.
func (t *stint) died() (lovage.Outcome, error) {
	c := t.child
	death := &Death{Status: c.status, Trace: c.trace}
	if !t.kept {
		return lovage.Outcome{}, death
	}
	c.log().Error("the process of the task died after the task's end; its late hooks may not have run: "+death.Status, "traceback", death.Trace)
	return t.out, nil
}

// unset ends a job's time in the child, if it has not ended before.
func (c *Child) unset(j *Job) {
	c.mu.Lock()
	if c.job == j {
		c.job = nil
	}
	c.mu.Unlock()
	c.unlend(j)
}

// take takes what a run says; over says that it has ended.
func (t *stint) take(ctx context.Context, f frame) (over bool, err error) {
	c := t.child
	if f.kind == finish {
		e, err := readFlat[ended](f.payload)
		if err != nil {
			return true, &Refused{err.Error()}
		}
		return e.Free, t.keep(ctx, &e)
	}
	if f.kind == ask {
		o, err := readFlat[outcome](f.payload)
		if err != nil {
			return true, &Refused{err.Error()}
		}
		return false, t.ask(&o)
	}
	u, err := readFlat[usage](f.payload)
	c.memory = u.Memory
	c.output.end()
	switch {
	case err != nil:
		return true, &Refused{err.Error()}
	case t.kept:
		return true, nil
	}
	return true, &Refused{or(u.Refused, "the child ended the run without a word")}
}

// ask answers a run that has a part in chords.
func (t *stint) ask(o *outcome) error {
	out, m := o.outcome(), reply{Run: t.run}
	var err error
	if m.Counts, err = t.job.Ask(&out); err != nil {
		f := faultOf(err)
		m.Why = &f
	}
	if t.child.wire.send(answer, appendFlat(nil, &m)) != nil {
		t.child.end()
	}
	return nil
}

// keep has the effects of a run kept, and tells the child. A child that is free
// is released before, and its answer has time.
func (t *stint) keep(ctx context.Context, e *ended) error {
	c, j := t.child, t.job
	say := c.wire.send
	if e.Free && j.Free != nil {
		c.memory = e.Usage.Memory
		c.output.end()
		t.still()
		c.unset(j)
		j.Free()
		say = c.wire.hold
	}
	t.out, t.kept = e.Outcome.outcome(), true
	e.Effects.Request, e.Effects.Outcome = j.Request, &t.out
	m := reply{Run: t.run}
	if err := j.Finisher.Finish(context.WithoutCancel(ctx), &e.Effects); err != nil {
		f := faultOf(err)
		m.Why = &f
		if t.out.Fenced == nil {
			t.out.Fenced = err
		}
	}
	if e.Quiet {
		return nil
	}
	for _, end := range e.Effects.Ends {
		m.Won = append(m.Won, end.Won)
	}
	if err := say(answer, appendFlat(nil, &m)); err != nil {
		c.end()
	}
	return nil
}

func or(text, def string) string {
	if text == "" {
		return def
	}
	return text
}

// Kill ends the process if it still runs the job: with a signal, and with
// SIGKILL if it does not die of that in time. It does not wait, and reports
// whether the job was running. The child runs nothing more, though the run may
// come to its own end before the signal arrives.
func (c *Child) Kill(j *Job, sig syscall.Signal) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.job != j {
		return false
	}
	c.doomed = true
	// A child heeds no signals but the words of its parent: a supervisor may
	// signal all processes of a service.
	n := int(sig)
	if sig == syscall.SIGKILL || c.wire.send(die, appendFlat(nil, &n)) != nil {
		c.end()
	} else {
		time.AfterFunc(dieTimeout, c.end)
	}
	return true
}

func (c *Child) dead() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

// dies reports whether the process was killed, and may not have noticed yet.
func (c *Child) dies() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.doomed
}

// end kills the process.
func (c *Child) end() { _ = c.cmd.Process.Kill() }

// Release gives the child back to its pool.
func (c *Child) Release() { c.pool.release(c) }
