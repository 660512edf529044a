package sqlbroker

import (
	"context"
	"fmt"
	"strconv"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/sqlstore"
	"github.com/lovage-go/lovage/protocol"
)

// DeadLetters lists newest first, after the id given, of one queue or, for "",
// of all.
func (c *Conn) DeadLetters(ctx context.Context, queue, after string, limit int) ([]broker.Dead, error) {
	before := int64(0)
	if after != "" {
		var err error
		if before, err = deadID(after); err != nil {
			return nil, err
		}
	}
	var out []broker.Dead
	err := c.db.View(ctx, func(tx *sqlstore.Tx) error {
		rows, err := tx.DeadLetters(queue, before, max(limit, 0))
		out = make([]broker.Dead, len(rows))
		for i := range rows {
			out[i] = deadOf(&rows[i])
		}
		return err
	})
	return out, fault(err)
}

// DeadLetter gives one; an unknown id is an error.
func (c *Conn) DeadLetter(ctx context.Context, id string) (broker.Dead, error) {
	n, err := deadID(id)
	if err != nil {
		return broker.Dead{}, err
	}
	var out broker.Dead
	err = c.db.View(ctx, func(tx *sqlstore.Tx) error {
		row, ok, err := tx.DeadLetter(n)
		if err == nil && !ok {
			err = fmt.Errorf("sqlite %s: there is no dead letter %s: list them to see the ids", c.db.Path(), id)
		}
		out = deadOf(&row)
		return err
	})
	return out, fault(err)
}

// RequeueDead sends letters back to their queues as they were, losses forgotten.
func (c *Conn) RequeueDead(ctx context.Context, ids ...string) (int, error) {
	return c.eachDead(ctx, ids, func(tx *sqlstore.Tx, id int64) (bool, error) {
		row, ok, err := tx.DeadLetter(id)
		if err != nil || !ok {
			return false, err
		}
		return tx.RequeueDead(id, taskIDOf(&sqlstore.Delivery{ID: id, Headers: row.Headers, Envelope: row.Envelope}))
	})
}

// DropDead deletes letters.
func (c *Conn) DropDead(ctx context.Context, ids ...string) (int, error) {
	return c.eachDead(ctx, ids, func(tx *sqlstore.Tx, id int64) (bool, error) { return tx.DropDead(id) })
}

func (c *Conn) eachDead(ctx context.Context, ids []string, do func(*sqlstore.Tx, int64) (bool, error)) (int, error) {
	numbers := make([]int64, 0, len(ids))
	for _, id := range ids {
		n, err := deadID(id)
		if err != nil {
			return 0, err
		}
		numbers = append(numbers, n)
	}
	count := 0
	err := c.db.Update(ctx, func(tx *sqlstore.Tx) error {
		count = 0
		for _, n := range numbers {
			ok, err := do(tx, n)
			if err != nil {
				return err
			}
			if ok {
				count++
			}
		}
		return nil
	})
	if err != nil {
		return 0, fault(err)
	}
	return count, nil
}

func deadID(id string) (int64, error) {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%q is not the id of a dead letter: list them to see the ids", id)
	}
	return n, nil
}

func deadOf(row *sqlstore.Dead) broker.Dead {
	d := broker.Dead{
		ID: strconv.FormatInt(row.ID, 10), Queue: row.Queue, Reason: row.Reason, At: row.At, Losses: row.Losses,
		Headers: row.Headers, Body: row.Body,
	}
	// What cannot be read is what made some of them dead: it is shown as it is.
	if e, err := sqlstore.ParseEnvelope(row.Envelope); err == nil {
		d.Properties = e.Properties
		d.TaskID = e.Properties.CorrelationID
	}
	if h, err := protocol.ParseHeaders(row.Headers); err == nil {
		d.Task = h.Task
		if h.ID != "" {
			d.TaskID = h.ID
		}
	}
	return d
}
