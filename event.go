package lovage

import (
	"context"
	"fmt"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/events"
	"github.com/lovage-go/lovage/internal/proc"
	"github.com/lovage-go/lovage/protocol"
)

// Dispatcher returns the App's event dispatcher, made at first use on the App's
// broker connection.
func (a *App) Dispatcher(ctx context.Context) (*events.Dispatcher, error) {
	return a.events.Get(ctx, func(ctx context.Context) (*events.Dispatcher, error) {
		conn, err := a.Broker(ctx)
		if err != nil {
			return nil, err
		}
		return a.NewDispatcher(conn, a.nodename()), nil
	})
}

// NewDispatcher makes an event dispatcher of its own for a connection, as a
// worker does. The caller runs and closes it.
func (a *App) NewDispatcher(conn broker.Conn, hostname string) *events.Dispatcher {
	return events.NewDispatcher(events.Config{
		Conn: conn, Exchange: a.conf.EventExchange, Hostname: hostname, PID: proc.PID(),
		Clock: &a.clock, Logger: a.log, Enabled: true,
	})
}

// Clock is the App's logical clock.
func (a *App) Clock() *events.Clock { return &a.clock }

// SendEvent publishes a monitoring event of the caller's own, at once, tried
// again under the publishing policy. Nobody listening is no error.
func (a *App) SendEvent(ctx context.Context, kind string, fields map[string]any) error {
	d, err := a.Dispatcher(ctx)
	if err != nil {
		return fmt.Errorf("event %s: %w", kind, err)
	}
	ctx, cancel := a.publishDeadline(ctx)
	defer cancel()
	return d.Send(ctx, kind, fields, events.Retry(a.policy(&options{})))
}

// Events listens to the monitoring events of the whole fleet: those of this
// process and of every other on the same broker, from now on. Close the
// receiver when done.
func (a *App) Events(ctx context.Context) (*events.Receiver, error) {
	if err := a.Freeze(); err != nil {
		return nil, err
	}
	conn, err := a.Broker(ctx)
	if err != nil {
		return nil, err
	}
	return events.Listen(ctx, conn, events.ListenConfig{Exchange: a.conf.EventExchange, Clock: &a.clock, Logger: a.log})
}

func (a *App) nodename() string { return a.name + "@" + proc.Hostname() }

// sentEvent is task-sent, which task_send_sent_event asks for. It is for
// monitors only: a failure is logged and does not touch the call.
func (a *App) sentEvent(ctx context.Context, m *protocol.Message) {
	h := &m.Headers
	info := events.TaskInfo{
		Name: h.Task, Args: h.ArgsRepr, Kwargs: h.KwargsRepr, RootID: h.RootID, ParentID: h.ParentID,
		Retries: h.Retries, ETA: h.ETA, Expires: h.Expires,
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	d, err := a.Dispatcher(ctx)
	if err == nil {
		err = d.Send(ctx, events.TaskSent, events.SentFields(info, m.Queue, m.Exchange, m.RoutingKey), events.UUID(h.ID))
	}
	if err != nil {
		a.log.Warn("task-sent was not published", "task", h.Task, "id", h.ID, "error", err)
	}
}
