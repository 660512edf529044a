package amqpbroker

import (
	"context"
	"errors"

	"github.com/lovage-go/lovage/broker"
)

// lacks is what an account that declares nothing did not find when it connected.
type lacks struct {
	delays bool // celery_delayed_27 to 0 are not all there: workers hold what is early
	fine   bool // nor lovage_delayed_9 to 0: a delay is a second at least
	dead   bool // the queue of dead letters
}

// lookAround looks for the queues of delays and dead letters. Half a row of delay
// queues is none: whoever publishes does not know how long a delay a worker needs.
func (c *Conn) lookAround(ctx context.Context) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	for _, find := range []struct {
		lacks *bool
		look  func() error
		then  string
	}{
		{&c.lacks.delays, func() error { return c.ensureDelays(ctx, slow, slow.levels-1) }, "workers hold the messages whose time has not come"},
		{&c.lacks.fine, func() error { return c.ensureDelays(ctx, fine, fine.levels-1) }, "a delay lasts a second at least"},
		{&c.lacks.dead, func() error { return c.ensureDead(ctx) }, "there are no dead letters, what would be one is rejected"},
	} {
		err := find.look()
		if *find.lacks = errors.Is(err, broker.ErrNoQueue); *find.lacks {
			c.log.Info("not all queues are there that a passive account could use: "+find.then, "error", err)
		} else if err != nil {
			return err
		}
	}
	return nil
}
