// Package migrate moves waiting tasks from one broker to another, or from one
// queue to another of the same broker: Celery's celery.contrib.migrate. Messages
// arrive as they were: id, arguments, headers and properties.
//
// Each message is published first and acknowledged then, so that a crash can
// double a message but not lose one. Messages that wait for their time inside a
// broker, and those that workers have claimed, cannot be taken and stay.
package migrate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

// Task is a message on its way.
type Task struct {
	ID      string // "" if it has none
	Name    string // "" for a message that is no task
	Queue   string // that it was taken from
	Message *broker.Message
}

// Route decides about a task: the name of the queue it goes to, and whether it
// goes at all.
type Route func(t *Task) (queue string, move bool)

// ByID moves the tasks with these ids to the queues given for them.
func ByID(queues map[string]string) Route {
	return func(t *Task) (string, bool) { q, ok := queues[t.ID]; return q, ok }
}

// ByName moves tasks by their names to the queues given for them.
func ByName(queues map[string]string) Route {
	return func(t *Task) (string, bool) { q, ok := queues[t.Name]; return q, ok }
}

// Only moves what an accept function wants to the queue of the same name.
func Only(accept func(t *Task) bool) Route {
	return func(t *Task) (string, bool) { return t.Queue, accept(t) }
}

// Options say what is moved and when it is over.
type Options struct {
	// Queues that are taken from.
	Queues []broker.Queue
	// Declare gives a queue's definition by name, for making it where messages go.
	// nil: [broker.Named].
	Declare func(name string) (broker.Queue, error)
	// Route decides about each task. nil: all go, to queues of the same names.
	Route Route
	// Limit is the number of tasks moved; 0: all.
	Limit int
	// Idle is how long to wait for one more message before it is over; 0: 1 s.
	Idle time.Duration
	// Forever waits for more until the context ends, which is then no error.
	Forever bool
	// Keep leaves the messages where they were as well: they are copied.
	Keep bool
	// Moved, if set, is told of each task that has been published, and how many
	// there were.
	Moved func(t *Task, n int)
}

// Stats count messages.
type Stats struct {
	Moved int // published, and acknowledged unless they are kept
	Left  int // handed back: not wanted, unreadable, or not acknowledged
}

// Run moves messages from one connection to another, which may be the same. What
// it has claimed and not moved goes back when it returns. An error tells what
// stopped it; Stats count what was done until then.
func Run(ctx context.Context, from, to broker.Conn, o Options) (stats Stats, err error) {
	if len(o.Queues) == 0 {
		return stats, errors.New("migrate: no queue is named to take from")
	}
	if err := from.Declare(ctx, o.Queues...); err != nil {
		return stats, fmt.Errorf("migrate: %w", err)
	}
	c, err := from.Consume(ctx, broker.ConsumeConfig{Queues: o.Queues, Worker: "migrate"})
	if err != nil {
		return stats, fmt.Errorf("migrate: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }() // hands back what is left
	m := mover{o: o, from: c, to: to, known: map[string]bool{}}
	err = m.run(ctx)
	return m.stats, err
}

// mover is one Run.
type mover struct {
	o     Options
	from  broker.Consumer
	to    broker.Conn
	known map[string]bool // queues that are declared
	held  []*broker.Delivery
	renew time.Time
	stats Stats
}

func (m *mover) run(ctx context.Context) error {
	idle := m.o.Idle
	if idle <= 0 {
		idle = time.Second
	}
	for m.o.Limit == 0 || m.stats.Moved < m.o.Limit {
		wait, cancel := context.WithTimeout(ctx, idle)
		got, err := m.from.Claim(wait, 1)
		over := wait.Err() != nil && ctx.Err() == nil
		cancel()
		if e := m.keep(ctx); e != nil {
			return e
		}
		switch {
		case ctx.Err() != nil && m.o.Forever:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("migrate: %w", context.Cause(ctx))
		case len(got) == 0 && over && m.o.Forever:
			continue
		case len(got) == 0 && over:
			return nil
		case err != nil:
			return fmt.Errorf("migrate: %w", err)
		}
		for i := range got {
			if err := m.one(ctx, &got[i]); err != nil {
				return fmt.Errorf("migrate: %w", err)
			}
		}
	}
	return nil
}

// keep renews the claims that are held until the end.
func (m *mover) keep(ctx context.Context) error {
	r, ok := m.from.(broker.LeaseRenewer)
	if !ok || len(m.held) == 0 || time.Now().Before(m.renew) {
		return nil
	}
	m.renew = time.Now().Add(r.RenewEvery())
	if _, err := r.Renew(ctx, m.held); err != nil && !broker.Retryable(err) {
		return fmt.Errorf("migrate: keep %d messages: %w", len(m.held), err)
	}
	return nil
}

func (m *mover) one(ctx context.Context, d *broker.Delivery) error {
	t, err := read(d)
	if err != nil { // no message of Celery's; it is not ours to judge it
		m.leave(d)
		return nil
	}
	queue, move := d.Queue, true
	if m.o.Route != nil {
		queue, move = m.o.Route(t)
	}
	if !move || queue == "" {
		m.leave(d)
		return nil
	}
	if err := m.declare(ctx, queue); err != nil {
		return err
	}
	t.Message.Queue, t.Message.Exchange, t.Message.RoutingKey = queue, "", queue
	if err := m.to.Publish(ctx, t.Message); err != nil {
		return fmt.Errorf("publish %s[%s] to %q: %w", t.Name, t.ID, queue, err)
	}
	m.stats.Moved++
	if m.o.Moved != nil {
		m.o.Moved(t, m.stats.Moved)
	}
	if m.o.Keep {
		m.leave(d)
		return nil
	}
	if err := m.from.Settle(ctx, broker.Settlement{Delivery: d, Action: broker.Ack}); err != nil {
		return fmt.Errorf("acknowledge %s[%s], which is published: %w", t.Name, t.ID, err)
	}
	return nil
}

// leave holds a claim until the end, so that it does not come again before.
func (m *mover) leave(d *broker.Delivery) {
	m.stats.Left++
	m.held = append(m.held, d)
}

func (m *mover) declare(ctx context.Context, name string) error {
	if m.known[name] {
		return nil
	}
	q := broker.Named(name)
	if m.o.Declare != nil {
		var err error
		if q, err = m.o.Declare(name); err != nil {
			return err
		}
	}
	if err := m.to.Declare(ctx, q); err != nil {
		return err
	}
	m.known[name] = true
	return nil
}

// read makes a message of what was claimed.
func read(d *broker.Delivery) (*Task, error) {
	if d.Malformed != nil {
		return nil, d.Malformed
	}
	t := &Task{Queue: d.Queue, Message: &broker.Message{Properties: d.Properties, Body: d.Body}}
	if len(d.Headers) > 0 {
		h, err := protocol.ParseHeaders(d.Headers)
		if err != nil {
			return nil, err
		}
		t.Message.Headers, t.ID, t.Name = h, h.ID, h.Task
	}
	if t.Name == "" { // version 1 has both in its body
		var v1 struct{ Task, ID string }
		if json.Unmarshal(d.Body, &v1) == nil {
			t.Name, t.ID = v1.Task, v1.ID
		}
	}
	return t, nil
}
