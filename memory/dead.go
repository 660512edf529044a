package memory

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lovage-go/lovage/broker"
)

// bury keeps an item aside. The caller holds s.mu.
func (s *Store) bury(it *item, reason string, now time.Time) {
	it.reason, it.deadAt, it.deadID = reason, now, itoa(s.nextSeq())
	s.dead = append(s.dead, it)
}

func (s *Store) deadLetter(it *item, now time.Time) broker.Dead {
	return broker.Dead{
		ID:         it.deadID,
		Queue:      it.queue.name,
		Reason:     it.reason,
		At:         it.deadAt,
		TaskID:     it.taskID,
		Task:       it.task,
		Losses:     s.lossesOf(it.lossKey(), now),
		Headers:    bytes.Clone(it.headers),
		Properties: cloneProperties(it.props),
		Body:       bytes.Clone(it.body),
	}
}

// DeadLetters lists the dead letters of a queue, or of all for "", newest first.
func (c *Conn) DeadLetters(ctx context.Context, name, after string, limit int) ([]broker.Dead, error) {
	_, unlock, err := c.enter(ctx, OpOperate)
	if err != nil {
		return nil, err
	}
	defer unlock()
	now, s := time.Now(), c.store
	start := len(s.dead)
	if after != "" {
		start = slices.IndexFunc(s.dead, func(it *item) bool { return it.deadID == after })
		if start < 0 {
			return nil, fmt.Errorf("memory: dead letter %q is not there: list from the start", after)
		}
	}
	var out []broker.Dead
	for i := start - 1; i >= 0 && len(out) < limit; i-- {
		if it := s.dead[i]; name == "" || it.queue.name == name {
			out = append(out, s.deadLetter(it, now))
		}
	}
	return out, nil
}

// DeadLetter returns one dead letter.
func (c *Conn) DeadLetter(ctx context.Context, id string) (broker.Dead, error) {
	_, unlock, err := c.enter(ctx, OpOperate)
	if err != nil {
		return broker.Dead{}, err
	}
	defer unlock()
	for _, it := range c.store.dead {
		if it.deadID == id {
			return c.store.deadLetter(it, time.Now()), nil
		}
	}
	return broker.Dead{}, fmt.Errorf("memory: there is no dead letter %q", id)
}

// RequeueDead sends dead letters back to their queues; their losses are forgotten.
func (c *Conn) RequeueDead(ctx context.Context, ids ...string) (int, error) {
	return c.exhume(ctx, ids, func(it *item, now time.Time) {
		delete(c.store.losses, it.lossKey())
		it.orphaned, it.due, it.seq = false, time.Time{}, c.store.nextSeq()
		it.queue.advance(now)
		it.queue.add(it, now)
	})
}

// DropDead deletes dead letters.
func (c *Conn) DropDead(ctx context.Context, ids ...string) (int, error) {
	return c.exhume(ctx, ids, func(*item, time.Time) { c.store.held-- })
}

func (c *Conn) exhume(ctx context.Context, ids []string, each func(*item, time.Time)) (int, error) {
	_, unlock, err := c.enter(ctx, OpOperate)
	if err != nil {
		return 0, err
	}
	defer unlock()
	now, n := time.Now(), 0
	for _, id := range ids {
		i := slices.IndexFunc(c.store.dead, func(it *item) bool { return it.deadID == id })
		if i < 0 {
			continue
		}
		it := c.store.dead[i]
		c.store.dead = slices.Delete(c.store.dead, i, i+1)
		each(it, now)
		n++
	}
	return n, nil
}

var _ broker.DeadLetterer = (*Conn)(nil)
