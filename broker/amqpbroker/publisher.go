package amqpbroker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/lovage-go/lovage/broker"
	amqp "github.com/rabbitmq/amqp091-go"
)

// window is how many messages may wait for their confirms.
const window = 4096

// errRefused: the message is in no queue.
var errRefused = fmt.Errorf("%w: RabbitMQ refuses the message (basic.nack): the queue may be full", broker.ErrUnavailable)

// outgoing is one message on its way to the server.
type outgoing struct {
	exchange, key string
	mandatory     bool
	delayed       bool // by the delay queues
	msg           amqp.Publishing

	batch    *batch
	answer   *amqp.DeferredConfirmation // once it is written
	answered bool
	returned bool
	err      error
}

// batch is what one call publishes; done closes when all have their outcome.
type batch struct {
	ctx  context.Context
	outs []*outgoing
	left int // with publisher.mu
	done chan struct{}
}

// publisher sends on a channel of its own. One goroutine writes, since a write
// blocks as long as the server does not read and nobody may hang in it; another
// takes confirms and returns. A publisher dies with its channel.
type publisher struct {
	s    *session
	ch   *amqp.Channel
	work chan *batch
	room chan struct{} // a token for each unconfirmed message
	dead chan struct{} // closed at the end

	mu      sync.Mutex // guards what follows
	sent    uint64
	low     uint64 // everything below is confirmed
	pending map[uint64]*outgoing
	cause   error
}

// publisher gives the living publisher, opening one if there is none.
func (c *Conn) publisher(ctx context.Context) (*publisher, error) {
	s, err := c.out.get(ctx)
	if err != nil {
		return nil, err
	}
	c.press.Lock()
	defer c.press.Unlock()
	if c.pub != nil && c.pub.s == s && c.pub.alive() {
		return c.pub, nil
	}
	p := &publisher{s: s, work: make(chan *batch), room: make(chan struct{}, window), dead: make(chan struct{}),
		low: 1, pending: map[uint64]*outgoing{}}
	err = s.call(ctx, func() error {
		ch, err := s.conn.Channel()
		if err == nil {
			p.ch = ch
			err = ch.Confirm(false)
		}
		return err
	})
	if err != nil {
		return nil, fault(ctx, err)
	}
	returns := p.ch.NotifyReturn(make(chan amqp.Return)) // unbuffered: a return is here before its confirm
	confirms := p.ch.NotifyPublish(make(chan amqp.Confirmation, window))
	closed := p.ch.NotifyClose(make(chan *amqp.Error, 1))
	c.group.Go(p.write)
	c.group.Go(func() {
		cause := p.listen(returns, confirms, closed)
		if name, ok := missingExchange(cause); ok {
			c.mu.Lock()
			delete(c.exchanges, name)
			c.mu.Unlock()
		}
		if isChannelError(cause) && !c.closed.Load() {
			c.log.Warn("RabbitMQ closed the channel for publishing; a new one is opened", "broker", c.at.id(), "error", cause)
		}
		p.end(cause)
	})
	c.pub = p
	return p, nil
}

func (p *publisher) alive() bool {
	select {
	case <-p.dead:
		return false
	default:
		return p.s.alive()
	}
}

// send publishes and waits for the confirms; the outcome is in each outgoing. An
// error is that of ctx: the outcome is not known then, and the outs are not the
// caller's any more.
func (p *publisher) send(ctx context.Context, outs []*outgoing) error {
	b := &batch{ctx: ctx, outs: outs, left: len(outs), done: make(chan struct{})}
	for _, o := range outs {
		o.batch, o.answer, o.answered, o.returned, o.err = b, nil, false, false, nil
	}
	select {
	case p.work <- b:
	case <-p.dead:
		return p.why()
	case <-ctx.Done():
		if err := p.s.waitUnblocked(ctx); err != nil {
			return err
		}
		return context.Cause(ctx)
	}
	select {
	case <-b.done:
		return nil
	case <-ctx.Done():
		if err := p.s.waitUnblocked(ctx); err != nil {
			return err
		}
		return context.Cause(ctx)
	}
}

func (p *publisher) write() {
	for {
		select {
		case b := <-p.work:
			p.s.wire.hold()
			for b != nil {
				p.writeAll(b)
				select {
				case b = <-p.work: // of those who call at the same time
				default:
					b = nil
				}
			}
			p.s.wire.release()
		case <-p.dead:
			return
		}
	}
}

func (p *publisher) writeAll(b *batch) {
	for i, o := range b.outs {
		if err := o.fits(p.s.conn.Config.FrameSize); err != nil {
			p.mu.Lock()
			p.outcome(o, err)
			p.mu.Unlock()
			continue
		}
		if err := p.writeOne(b.ctx, o); err != nil {
			p.mu.Lock()
			for _, o := range b.outs[i:] {
				p.outcome(o, err)
			}
			p.mu.Unlock()
			return
		}
	}
}

// writeOne sends one message; after an error it was not sent.
func (p *publisher) writeOne(ctx context.Context, o *outgoing) error {
	if len(p.room) == cap(p.room) || p.s.isBlocked() { // it has to wait
		p.s.wire.release()
		defer p.s.wire.hold()
	}
	if err := p.s.waitUnblocked(ctx); err != nil {
		return err
	}
	select {
	case p.room <- struct{}{}:
	case <-p.dead:
		return p.why()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	p.mu.Lock()
	if p.cause != nil {
		err := p.cause
		p.mu.Unlock()
		<-p.room
		return err
	}
	p.sent++
	tag := p.sent
	p.pending[tag] = o
	p.mu.Unlock()
	answer, err := p.ch.PublishWithDeferredConfirm(o.exchange, o.key, o.mandatory, false, o.msg)
	if err != nil {
		return nil // it is that of the channel: the listener ends all that is pending
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pending[tag] == o {
		if o.answer = answer; o.answered {
			p.settled(tag, o)
		}
	}
	return nil
}

// listen takes what the server says about messages, until the channel ends and all
// that came before is taken: the confirms are closed then, the returns maybe not.
func (p *publisher) listen(returns <-chan amqp.Return, confirms <-chan amqp.Confirmation, closed <-chan *amqp.Error) error {
	for confirms != nil {
		select {
		case r, ok := <-returns:
			if !ok {
				returns = nil
				continue
			}
			p.returned(r)
		case conf, ok := <-confirms:
			if !ok {
				confirms = nil
				continue
			}
			p.confirmed(conf)
		case <-p.s.lost: // the library may be in the middle of a return, and closes nothing then
			for len(confirms) > 0 {
				if conf, ok := <-confirms; ok {
					p.confirmed(conf)
				}
			}
			confirms = nil
		}
	}
	select {
	case e := <-closed:
		if e != nil {
			return e
		}
	case <-p.s.lost:
	}
	return p.s.why()
}

func (p *publisher) confirmed(conf amqp.Confirmation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.pending[conf.DeliveryTag]
	if o == nil {
		return
	}
	if o.answered = true; o.answer != nil { // or the writer is about to tell which it is
		p.settled(conf.DeliveryTag, o)
	}
}

// settled ends a message that the server has answered. What the library notifies
// of is not to be trusted: of a message that was refused, and whose turn to be
// notified of had not come, an ack of many that comes then makes one that was
// accepted. The message's own answer is right. The caller holds p.mu.
func (p *publisher) settled(tag uint64, o *outgoing) {
	delete(p.pending, tag)
	<-p.room
	var err error
	switch {
	case !o.answer.Acked():
		err = errRefused
	case o.returned:
		err = fmt.Errorf("%w: no queue is bound to exchange %q by %q", broker.ErrNoQueue, o.exchange, o.key)
	}
	p.outcome(o, err)
}

// returned finds whose message comes back: the first of those that look like it.
func (p *publisher) returned(r amqp.Return) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ; p.low <= p.sent && p.pending[p.low] == nil; p.low++ {
	}
	id, _ := r.Headers["id"].(string)
	for tag := p.low; tag <= p.sent; tag++ {
		o := p.pending[tag]
		if o == nil || o.returned || o.exchange != r.Exchange || o.key != r.RoutingKey || o.msg.CorrelationId != r.CorrelationId || len(o.msg.Body) != len(r.Body) {
			continue
		}
		if mine, _ := o.msg.Headers["id"].(string); mine == id {
			o.returned = true
			return
		}
	}
}

// outcome ends one message. The caller holds p.mu.
func (p *publisher) outcome(o *outgoing, err error) {
	o.err = err
	if o.batch.left--; o.batch.left == 0 {
		close(o.batch.done)
	}
}

// end gives all that is pending its error: it is not known whether those messages
// arrived, but for those whose exchange was missing.
func (p *publisher) end(cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	missing, ok := missingExchange(cause)
	p.cause = fmt.Errorf("%w: %w", broker.ErrUnavailable, cause)
	for tag, o := range p.pending {
		delete(p.pending, tag)
		if ok && o.exchange == missing {
			p.outcome(o, fmt.Errorf("%w: %w", broker.ErrNoQueue, cause))
			continue
		}
		p.outcome(o, p.cause)
	}
	close(p.dead)
}

func (p *publisher) why() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cause
}

// missingExchange reads the server's "no exchange 'name' in vhost".
func missingExchange(err error) (name string, ok bool) {
	e, is := errors.AsType[*amqp.Error](err)
	if !is || e.Code != amqp.NotFound {
		return "", false
	}
	_, rest, found := strings.Cut(e.Reason, "no exchange '")
	name, _, ended := strings.Cut(rest, "' in vhost")
	return name, found && ended
}
