package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/events"
)

// Case is one thing that was shown, in words.
type Case struct {
	Name  string   `json:"name"`
	Lines []string `json:"lines"`
}

// shower runs the cases of task classes, failures and retries. Each checks what
// it shows and fails if it is not so.
type shower struct {
	app   *lovage.App
	tasks *Tasks
}

// logins: a task is an actor, which keeps what it was told.
func (s *shower) logins(ctx context.Context) (*Case, error) {
	c := &Case{Name: "an actor"}
	calls := []struct {
		what string
		in   Credentials
		want bool
	}{
		{"right", Credentials{User: "alice", Password: "wonder"}, true},
		{"wrong", Credentials{User: "alice", Password: "guess"}, false},
		{"unknown", Credentials{User: "bob", Password: "builder"}, false},
		{"bob added", Credentials{User: "bob", Password: "builder", Add: true}, true},
		{"bob again", Credentials{User: "bob", Password: "builder"}, true},
	}
	var said []string
	for _, call := range calls {
		res, err := s.tasks.Login.Delay(ctx, call.in)
		if err != nil {
			return nil, err
		}
		got, err := res.Get(ctx)
		if err != nil {
			return nil, err
		}
		if got != call.want {
			return nil, fmt.Errorf("login of %s (%s) is %t, want %t", call.in.User, call.what, got, call.want)
		}
		said = append(said, fmt.Sprintf("%s %t", call.what, got))
	}
	c.Lines = []string{"demo.login  " + strings.Join(said, ", "), "its users are made by Init once per process and kept between calls"}
	return c, nil
}

// resource: a base opens once per process what all its runs use. The main job
// has shown it already.
func (s *shower) resource(counted []Counted) (*Case, error) {
	runs, opened := map[string]int{}, map[string]int64{}
	for _, r := range counted {
		runs[r.Worker]++
		opened[r.Worker] = max(opened[r.Worker], r.Opened)
	}
	c := &Case{Name: "a base"}
	total := int64(0)
	for name, n := range opened {
		if total += n; n != 1 {
			return nil, fmt.Errorf("%s opened the directory %d times, want once", name, n)
		}
	}
	c.Lines = []string{fmt.Sprintf("demo.count embeds Tree: %s runs in %d processes, the directory opened %d times, once in each",
		number(len(counted)), len(runs), total)}
	return c, nil
}

// handlers: what each hook was called with, as its events tell it here.
func (s *shower) handlers(ctx context.Context) (*Case, error) {
	c := &Case{Name: "handlers"}
	for _, call := range []struct {
		in   OrderArgs
		want string
	}{
		{OrderArgs{Item: "tea", Pieces: 2}, "BeforeStart, OnSuccess, AfterReturn"},
		{OrderArgs{Item: "unicorn", Pieces: 1}, "BeforeStart, OnFailure, AfterReturn"},
		{OrderArgs{Item: "parcel", Pieces: 1}, "BeforeStart, OnRetry, BeforeStart, OnSuccess, AfterReturn"},
	} {
		watch, err := s.app.Events(ctx)
		if err != nil {
			return nil, err
		}
		line, err := s.order(ctx, watch, call.in, call.want)
		if err = errors.Join(err, watch.Close()); err != nil {
			return nil, fmt.Errorf("order %s: %w", call.in.Item, err)
		}
		c.Lines = append(c.Lines, line...)
	}
	return c, nil
}

func (s *shower) order(ctx context.Context, watch *events.Receiver, in OrderArgs, want string) ([]string, error) {
	res, err := s.tasks.Order.Delay(ctx, in)
	if err != nil {
		return nil, err
	}
	var names, said []string
	args, kwargs := "", ""
	for !slices.Contains(names, "AfterReturn") {
		e, err := watch.Next(ctx)
		if err != nil {
			return nil, fmt.Errorf("after %q: %w", names, err)
		}
		if e.Type != HookEvent || e.UUID != res.ID() {
			continue
		}
		hook := e.Text("hook")
		names = append(names, hook)
		if saw := e.Text("saw"); saw != "" {
			hook += "(" + saw + ")"
		}
		said, args, kwargs = append(said, hook), e.Text("args"), e.Text("kwargs")
	}
	if got := strings.Join(names, ", "); got != want {
		return nil, fmt.Errorf("the handlers were %s, want %s", got, want)
	}
	if _, err := res.Get(ctx); err != nil {
		if _, failed := errors.AsType[*lovage.TaskError](err); !failed {
			return nil, err
		}
	}
	return []string{"demo.order  args " + args + " kwargs " + kwargs, "            " + strings.Join(said, ", ")}, nil
}

// trainSteps and trainStep are how train is called.
const (
	trainSteps = 5
	trainStep  = 150 * time.Millisecond
)

// progress: states and events of a task's own, watched while it runs.
func (s *shower) progress(ctx context.Context, live func(done int)) (*Case, error) {
	watch, err := s.app.Events(ctx)
	if err != nil {
		return nil, err
	}
	defer watch.Close()
	res, err := s.tasks.Train.Delay(ctx, TrainArgs{Steps: trainSteps, Step: trainStep})
	if err != nil {
		return nil, err
	}
	type seen struct {
		states []string
		err    error
	}
	states := make(chan seen, 1)
	go func() { // waited for below
		list, err := statesOf(ctx, res)
		states <- seen{list, err}
	}()
	var shares []string
	for len(shares) < trainSteps && err == nil {
		var e events.Event
		if e, err = watch.Next(ctx); err != nil || e.Type != ProgressEvent || e.UUID != res.ID() {
			continue
		}
		shares = append(shares, fmt.Sprintf("%d/%d", len(shares)+1, trainSteps))
		live(len(shares))
	}
	got := <-states
	if err = errors.Join(err, got.err); err != nil {
		return nil, err
	}
	if len(got.states) == 0 || got.states[len(got.states)-1] != string(lovage.Success) {
		return nil, fmt.Errorf("the states of train were %q", got.states)
	}
	return &Case{Name: "progress", Lines: []string{
		"demo.train  events watched live: " + strings.Join(shares, " "),
		"            states read meanwhile: " + shorten(got.states),
	}}, nil
}

// shorten names PROGRESS once.
func shorten(states []string) string {
	out := ""
	for i, s := range states {
		if meta, ok := strings.CutPrefix(s, stateProgress); ok && i > 0 {
			s = strings.TrimSpace(meta)
		}
		out += ", " + strings.NewReplacer(`{"done":`, "", `,"of":`, "/", "}", "").Replace(s)
	}
	return strings.TrimPrefix(out, ", ")
}

// statesOf waits for a task and returns the states that were read meanwhile: a
// slow reader misses some, never the last.
func statesOf(ctx context.Context, res *lovage.Result[string]) (list []string, err error) {
	add := func(text string) {
		if len(list) == 0 || list[len(list)-1] != text {
			list = append(list, text)
		}
	}
	_, err = res.Wait(ctx, func(m *lovage.Meta) bool {
		text := string(m.Status)
		switch form, failed := m.Error(); {
		case m.Status == lovage.Pending:
			return false
		case m.Status == stateProgress:
			text += fmt.Sprintf(" %s", m.Result)
		case failed:
			for _, arg := range form.Arguments() {
				text += fmt.Sprintf("  %s: %s", form.Type, arg)
			}
		}
		add(text)
		return m.Status.Ready()
	})
	return list, err
}

// failure: the error of a task as the caller gets it.
func (s *shower) failure(ctx context.Context) (*Case, error) {
	res, err := s.tasks.Parse.Delay(ctx, "mcmxy")
	if err != nil {
		return nil, err
	}
	_, err = res.Get(ctx)
	failed, ok := errors.AsType[*lovage.TaskError](err)
	if !ok || failed.Type != "NumeralError" {
		return nil, fmt.Errorf("parse of mcmxy gave %v, want a NumeralError", err)
	}
	lines := []string{fmt.Sprintf("demo.parse(%q) is FAILURE: %s", "mcmxy", failed)}
	lines = append(lines, strings.Split(indent(failed.Traceback, "  "), "\n")...)
	return &Case{Name: "a failure", Lines: lines}, nil
}

// flakyFailures is how often flaky fails.
const flakyFailures = 2

// retries: a task that is tried again until it succeeds.
func (s *shower) retries(ctx context.Context) (*Case, error) {
	begun := time.Now()
	res, err := s.tasks.Flaky.Delay(ctx, flakyFailures)
	if err != nil {
		return nil, err
	}
	states, err := statesOf(ctx, res)
	if err != nil {
		return nil, err
	}
	text, err := res.Get(ctx)
	if err != nil {
		return nil, err
	}
	if want := fmt.Sprintf("done at try %d", flakyFailures+1); text != want {
		return nil, fmt.Errorf("flaky gave %q, want %q", text, want)
	}
	states[len(states)-1] += "  " + text
	return &Case{Name: "retries", Lines: append([]string{
		fmt.Sprintf("demo.flaky  RetryOn(errBusy), backoff from 200 ms; %s from call to result", span(time.Since(begun))),
	}, indentAll(states, "            ")...)}, nil
}

func indentAll(lines []string, margin string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = margin + l
	}
	return out
}

// Latency is the time from a call to its result in the caller's hands.
type Latency struct {
	Calls int           `json:"calls"`
	P50   time.Duration `json:"p50_ns"`
	P99   time.Duration `json:"p99_ns"`
}

// latency makes one call after the other.
func (s *shower) latency(ctx context.Context, calls int) (Latency, error) {
	times := make([]time.Duration, 0, calls)
	for i := range calls {
		begun := time.Now()
		res, err := s.tasks.Add.Delay(ctx, AddArgs{X: i, Y: i})
		if err != nil {
			return Latency{}, err
		}
		sum, err := res.Get(ctx)
		if err != nil {
			return Latency{}, err
		}
		times = append(times, time.Since(begun))
		if sum != 2*i {
			return Latency{}, fmt.Errorf("%d + %d gave %d", i, i, sum)
		}
	}
	slices.Sort(times)
	return Latency{Calls: calls, P50: times[calls/2], P99: times[calls*99/100]}, nil
}
