package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/startstop"
)

// Step is a part of a worker's life that a program adds: Celery's bootstep. Its
// functions may be nil, and are called one at a time.
//
// A step of the worker starts before the worker connects and stops after its
// last run has ended. A consumer step starts anew with each connection, before
// the first claim, and stops when the claims do: at a shutdown, or because the
// connection was lost.
type Step struct {
	// Name is unique among the steps of a worker, or of its consumer.
	Name string
	// Requires are the names of steps that start before this one and stop after
	// it: the program's own, or those of the worker (Timer, StateDB, Pool, Autoscaler, Events) or of
	// the consumer (Connection, Tasks, Control, Gossip). Steps that require nothing of
	// each other start in the order of their declaration.
	Requires []string
	// Start begins what the step is for and returns; ctx ends just before Stop is
	// called. An error ends the start of the worker. In a consumer step an error
	// by which the broker is unavailable is that of a lost connection.
	Start func(ctx context.Context, p Parent) error
	// Stop ends it. It has ten seconds, the life of ctx; an error is logged.
	Stop func(ctx context.Context, p Parent) error
	// Terminate is called in place of Stop when the shutdown is cold. The default
	// is Stop.
	Terminate func(ctx context.Context, p Parent) error
}

// Parent is what a step is a part of.
type Parent struct {
	Worker *Worker
	Conn   broker.Conn // the connection of a consumer step, else nil
}

// stopTimeout bounds the stopping of one step.
const stopTimeout = 10 * time.Second

// part is a step with its place in the graph.
type part struct {
	Step
	optional bool // it depends on the configuration
	off      bool // and is not there
}

// blueprint is the ordered steps of the worker, or of its consumer.
type blueprint struct {
	name string
	last string // all others come first
	own  []part
	user []Step
}

// ordered are the steps in their order, without those that are off.
func (b *blueprint) ordered() ([]part, error) {
	parts := b.all()
	names, by := make([]string, len(parts)), make(map[string]part, len(parts))
	for i, p := range parts {
		if p.Name == "" {
			return nil, fmt.Errorf("%s step %d has no name", b.name, i+1)
		}
		names[i], by[p.Name] = p.Name, p
	}
	names, err := startstop.Order(names, func(name string) []string {
		if name != b.last {
			return by[name].Requires
		}
		return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.name, err)
	}
	list := make([]part, 0, len(names))
	for _, name := range names {
		if p := by[name]; !p.off {
			list = append(list, p)
		}
	}
	return list, nil
}

// all are the steps as they were declared, the last one last.
func (b *blueprint) all() []part {
	parts := slices.Clone(b.own)
	for _, s := range b.user {
		parts = append(parts, part{Step: s})
	}
	return append(parts, part{Step: Step{Name: b.last}})
}

// steps are started steps.
type steps struct {
	w       *Worker
	kind    string
	parent  Parent
	started []part
	end     context.CancelCauseFunc
}

// stepError is the error of a step that did not start.
type stepError struct {
	what string
	err  error
}

func (e *stepError) Error() string { return e.what + ": " + e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

// startSteps starts a list of steps under ctx. After an error those that were
// started are stopped again.
func (w *Worker) startSteps(ctx context.Context, kind string, list []part, conn broker.Conn) (*steps, error) {
	s := &steps{w: w, kind: kind, parent: Parent{w, conn}}
	ctx, s.end = context.WithCancelCause(ctx)
	for _, p := range list {
		if ctx.Err() != nil {
			break
		}
		if p.Start != nil {
			w.log.Debug(kind+": starting step "+p.Name, "step", p.Name)
			if err := guard(func() error { return p.Start(ctx, s.parent) }); err != nil {
				s.stop(false)
				return nil, &stepError{fmt.Sprintf("start %s step %q", kind, p.Name), err}
			}
		}
		s.started = append(s.started, p)
	}
	return s, nil
}

// stop stops what was started, the last one first. A step that does not return
// in time is left alone.
func (s *steps) stop(terminate bool) {
	s.end(errors.New("worker: the step is stopped"))
	for _, p := range slices.Backward(s.started) {
		f, what := p.Stop, "stop"
		if terminate && p.Terminate != nil {
			f, what = p.Terminate, "terminate"
		}
		if f == nil {
			continue
		}
		s.w.log.Debug(s.kind+": "+what+" step "+p.Name, "step", p.Name)
		ctx, cancel := context.WithTimeout(s.w.base, stopTimeout)
		done := make(chan error, 1)
		go func() { done <- guard(func() error { return f(ctx, s.parent) }) }()
		var err error
		select {
		case err = <-done:
		case <-ctx.Done():
			err = fmt.Errorf("it did not return within %s and is left alone", stopTimeout)
		}
		cancel()
		if err != nil {
			s.w.log.Error(fmt.Sprintf("%s: %s step %q: %v", s.kind, what, p.Name, err), "step", p.Name, "error", err)
		}
	}
	s.started = nil
}

// life is the blueprint of the worker.
func (w *Worker) life() *blueprint {
	return &blueprint{name: "worker", last: "Consumer", user: w.cfg.Steps, own: []part{
		{Step: Step{Name: "Timer", Start: w.background(w.alarms.run)}},
		{Step: Step{Name: "StateDB", Start: w.startState, Stop: w.stopState}},
		{Step: Step{Name: "Pool", Requires: []string{"Timer"}}},
		{Step: Step{Name: "Autoscaler", Requires: []string{"Pool"}, Start: w.background(w.scaler.run)}, optional: true, off: w.scaler == nil},
		{Step: Step{Name: "Events", Requires: []string{"Timer"}, Start: w.background(w.runEvents)}, optional: true, off: !w.hasEvents()},
	}}
}

// background starts a loop that outlives the steps: it ends with the worker.
func (w *Worker) background(loop func(context.Context)) func(context.Context, Parent) error {
	return func(context.Context, Parent) error {
		w.group.Go(func() { loop(w.work) })
		return nil
	}
}

// connected is the blueprint of the consumer. Its own steps are taken by
// connect, in this order.
func (w *Worker) connected() *blueprint {
	return &blueprint{name: "consumer", last: "claims", user: w.cfg.ConsumerSteps, own: []part{
		{Step: Step{Name: "Connection"}},
		{Step: Step{Name: "Tasks", Requires: []string{"Connection"}}},
		{Step: Step{Name: "Control", Requires: []string{"Tasks"}}, optional: true, off: !*w.conf.WorkerEnableRemoteControl},
		{Step: Step{Name: "Gossip", Requires: []string{"Tasks"}}, optional: true, off: w.cfg.WithoutGossip},
	}}
}
