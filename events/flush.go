package events

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/backoff"
)

const (
	maxBufferBytes  = 16 << 20
	batchesPerFlush = 64 // messages in one Broadcast
	closeTimeout    = 5 * time.Second
)

// closeTries are those of the last flush: the connection may just be lost, and
// the next one be well.
var closeTries = backoff.Policy{MaxRetries: 4, IntervalStart: 50 * time.Millisecond, IntervalStep: 100 * time.Millisecond, IntervalMax: 350 * time.Millisecond}

// entry is one encoded event that waits.
type entry struct {
	group string
	alone string // routing key of an event that goes by itself
	text  []byte
}

// buffer is a queue of events with a bound; the oldest make room.
type buffer struct {
	maxEvents int
	list      []entry
	bytes     int
}

func (b *buffer) len() int { return len(b.list) }

func (b *buffer) push(e entry) (lost int) {
	b.list = append(b.list, e)
	b.bytes += len(e.text)
	return b.trim()
}

// trim drops from the front until the bounds hold.
func (b *buffer) trim() (lost int) {
	for lost < len(b.list) && (len(b.list)-lost > b.maxEvents || b.bytes > maxBufferBytes) {
		b.bytes -= len(b.list[lost].text)
		b.list[lost].text = nil
		lost++
	}
	b.list = b.list[lost:]
	return lost
}

// take removes up to n events from the front.
func (b *buffer) take(n int) []entry {
	n = min(n, len(b.list))
	taken := b.list[:n:n]
	b.list = b.list[n:]
	for _, e := range taken {
		b.bytes -= len(e.text)
	}
	if len(b.list) == 0 {
		b.list = nil
	}
	return taken
}

// putBack returns events to the front.
func (b *buffer) putBack(es []entry) (lost int) {
	if len(es) == 0 {
		return 0
	}
	for _, e := range es {
		b.bytes += len(e.text)
	}
	b.list = append(es[:len(es):len(es)], b.list...)
	return b.trim()
}

// batch is the events of one message.
type batch struct {
	group  string
	events []entry
}

// key is the routing key: that of the group, or of the one event.
func (b batch) key() string {
	if alone := b.events[0].alone; alone != "" {
		return alone
	}
	return MultiKey(b.group)
}

func (b batch) body() []byte {
	if b.events[0].alone != "" {
		return b.events[0].text
	}
	n := 2
	for _, e := range b.events {
		n += len(e.text) + 1
	}
	body := append(make([]byte, 0, n), '[')
	for i, e := range b.events {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, e.text...)
	}
	return append(body, ']')
}

// batches parts events by group, each batch at most limit long.
func batches(es []entry, limit int) []batch {
	var list []batch
	open := map[string]int{} // group to its unfilled batch
	for _, e := range es {
		if e.alone != "" {
			list = append(list, batch{group: e.group, events: []entry{e}})
			continue
		}
		i, ok := open[e.group]
		if !ok || len(list[i].events) == limit {
			i = len(list)
			open[e.group] = i
			list = append(list, batch{group: e.group})
		}
		list[i].events = append(list[i].events, e)
	}
	return list
}

// Run flushes the buffer whenever a batch is full and otherwise at the flush
// interval, until ctx ends or Close is called. A broker that is away is told to
// the log once, and once when it is back. Run makes no last flush: Close does.
// It returns ctx's cause, nil after Close, or at once an error if the broker
// has no fan-out.
func (d *Dispatcher) Run(ctx context.Context) error {
	if _, err := d.fanouter(); errors.Is(err, broker.ErrUnsupported) {
		return err
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	away := false
	for {
		select {
		case <-d.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-d.done:
			return nil
		}
		timer.Reset(d.cfg.FlushInterval)
		full := d.full
		if away {
			full = nil // while the broker is away only the clock calls
		}
		select {
		case <-full:
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-d.done:
			return nil
		}
		err := d.Flush(ctx)
		switch {
		case err == nil && away:
			d.cfg.Logger.Info("Events are sent again", "dropped_so_far", d.dropped.Load())
		case err != nil && !away && ctx.Err() == nil:
			d.cfg.Logger.Warn("Events cannot be sent and are kept", "kept", d.Stats().Buffered, "error", err)
		}
		if away = err != nil; away {
			signal(d.wake)
		}
	}
}

// Flush sends all that was buffered when it was called. Events that the broker
// could not take now stay in the buffer; those that it refuses for good are
// dropped, counted and logged.
func (d *Dispatcher) Flush(ctx context.Context) error {
	select {
	case d.flushing <- struct{}{}:
		defer func() { <-d.flushing }()
	case <-ctx.Done():
		return fmt.Errorf("flush events: %w", context.Cause(ctx))
	}
	d.mu.Lock()
	todo := d.buf.len()
	d.mu.Unlock()
	for todo > 0 {
		n := min(todo, batchesPerFlush*d.cfg.BufferLimit)
		d.mu.Lock()
		es := d.buf.take(n)
		d.mu.Unlock()
		if len(es) == 0 {
			return nil
		}
		if err := d.flushSome(ctx, es); err != nil {
			return fmt.Errorf("flush events: %w", err)
		}
		todo -= n
	}
	return nil
}

// flushSome sends events and puts back those that can be tried again. Its error
// is that of the events put back.
func (d *Dispatcher) flushSome(ctx context.Context, es []entry) error {
	list := batches(es, d.cfg.BufferLimit)
	keep, failed := []entry(nil), error(nil)
	for len(list) > 0 {
		now := list[:min(len(list), batchesPerFlush)]
		list = list[len(now):]
		if failed != nil { // the broker is away: do not ask for each
			for _, b := range now {
				keep = append(keep, b.events...)
			}
			continue
		}
		errs := d.broadcast(ctx, now)
		for i, err := range errs {
			b := now[i]
			switch {
			case err == nil:
				d.sent.Add(int64(len(b.events)))
			case errors.Is(err, broker.ErrTooLarge) && len(b.events) > 1:
				for _, e := range b.events { // one of them is the large one
					list = append(list, batch{b.group, []entry{e}})
				}
			case errors.Is(err, broker.ErrTooLarge) || errors.Is(err, broker.ErrUnsupported):
				d.lose(len(b.events), err)
			default:
				keep = append(keep, b.events...)
				failed = err
			}
		}
	}
	d.mu.Lock()
	lost := d.buf.putBack(keep)
	if failed == nil {
		d.lossy = false
	}
	d.mu.Unlock()
	d.lose(lost, errors.New("the buffer is full"))
	return failed
}

// broadcast sends batches and returns an error for each. A broker may refuse
// several messages as a whole because one is too large: then each goes alone.
func (d *Dispatcher) broadcast(ctx context.Context, list []batch) []error {
	fan, err := d.fanouter()
	if err != nil {
		return broker.EachError(err, len(list))
	}
	msgs := make([]*broker.Message, len(list))
	for i, b := range list {
		msgs[i] = d.message(b.key(), b.body())
	}
	err = fan.Broadcast(ctx, d.cfg.Exchange, msgs...)
	errs := broker.EachError(err, len(list))
	if _, each := errors.AsType[*broker.BatchError](err); !each && len(msgs) > 1 && errors.Is(err, broker.ErrTooLarge) {
		for i, m := range msgs {
			errs[i] = fan.Broadcast(ctx, d.cfg.Exchange, m)
		}
	}
	return errs
}

// Close ends Run, takes no more events, and flushes what is buffered within
// five seconds or ctx, whichever ends first. A broker that is away is tried again
// for a second. What could not be sent is dropped, counted and returned as an
// error. The connection stays open: it is not the dispatcher's.
func (d *Dispatcher) Close(ctx context.Context) error {
	d.mu.Lock()
	again := d.closed
	d.closed = true
	d.mu.Unlock()
	if again {
		return nil
	}
	close(d.done)
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	err := closeTries.Do(ctx, broker.Retryable, d.Flush)
	d.mu.Lock()
	left := len(d.buf.take(d.buf.len()))
	d.mu.Unlock()
	d.lose(left, err)
	if err != nil {
		return fmt.Errorf("close event dispatcher: %d events lost: %w", left, err)
	}
	return nil
}
