// Package pool holds the slots of a worker: a fixed number of runs that go on
// at once, the runs that wait for a slot, and those that lent theirs and want
// it back. It knows nothing of tasks or messages.
package pool

import (
	"context"
	"slices"
	"sync"
)

// Pool gives slots to items of type T. Start is called for each item that gets
// one, in a goroutine of its own; that goroutine, or whoever it told, gives the
// slot back with Release, or start reports that it is still taken. A Pool is safe
// for concurrent use.
type Pool[T any] struct {
	start   func(T) (keeps bool)
	changed chan struct{} // a slot came back, or the queue got shorter

	mu      sync.Mutex // guards what follows
	size    int
	used    int
	waiting queue[T]
	back    []chan struct{} // runs that want the slot back that they lent
	closed  bool            // nothing is started any more
	idle    []chan T        // goroutines that wait for their next item, the first one longest
	spare   int             // of them, that were not needed since the last look
	rests   int             // since the last look
}

// New returns a pool of size slots. The goroutines that it starts end with Close
// and the items they are busy with.
func New[T any](size int, start func(T) (keeps bool)) *Pool[T] {
	return &Pool[T]{size: size, start: start, changed: make(chan struct{}, 1)}
}

// Changed rings after a slot or a place in the queue has become free.
func (p *Pool[T]) Changed() <-chan struct{} { return p.changed }

// Put starts an item if there is a slot; otherwise it waits. After Close it
// does neither and reports false.
func (p *Pool[T]) Put(it T) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return false
	case p.used < p.size && p.waiting.len() == 0:
		p.used++
		p.launch(it)
	default:
		p.waiting.push(it)
	}
	return true
}

// Release gives a slot back: to a run that wants its own again, else to the
// first item that waits.
func (p *Pool[T]) Release() {
	p.mu.Lock()
	p.used--
	p.fill()
	p.mu.Unlock()
	p.ring()
}

// fill hands out free slots. The caller holds mu.
func (p *Pool[T]) fill() {
	for p.used < p.size {
		switch {
		case len(p.back) > 0:
			close(p.back[0])
			p.back = p.back[1:]
		case p.waiting.len() > 0:
			p.launch(p.waiting.pop())
		default:
			return
		}
		p.used++
	}
}

// launch starts an item, in a goroutine that is at hand or in a new one. A used
// goroutine has grown its stack already. The caller holds mu.
func (p *Pool[T]) launch(it T) {
	if n := len(p.idle); n > 0 {
		p.idle[n-1] <- it
		p.idle = p.idle[:n-1]
		p.spare = min(p.spare, n-1)
		return
	}
	go p.serve(it)
}

// keep is the number of goroutines that wait beyond two for each slot: about as
// many as have their finishes in one commit.
const keep = 256

// look is the number of items after which it is looked for goroutines that none
// of them needed: a burst leaves some, as when a store has been away.
const look = 1024

// trim ends the spare goroutines. The caller holds mu.
func (p *Pool[T]) trim() {
	for _, ch := range p.idle[:p.spare] {
		close(ch)
	}
	p.idle = slices.Delete(p.idle, 0, p.spare)
	p.spare, p.rests = len(p.idle), 0
}

// serve starts one item after the other. More goroutines are kept than there
// are slots, since a run may go on without its slot.
func (p *Pool[T]) serve(it T) {
	next := make(chan T, 1)
	for {
		keeps := p.start(it)
		p.mu.Lock()
		if keeps {
			p.used--
			if p.used < p.size && len(p.back) == 0 && p.waiting.len() > 0 {
				it = p.waiting.pop() // no other goroutine need be woken for it
				p.used++
				p.mu.Unlock()
				p.ring()
				continue
			}
			p.fill()
			p.ring()
		}
		if p.closed || len(p.idle) >= 2*p.size+keep {
			p.mu.Unlock()
			return
		}
		p.idle = append(p.idle, next)
		if p.rests++; p.rests >= look {
			p.trim()
		}
		p.mu.Unlock()
		var ok bool
		if it, ok = <-next; !ok {
			return
		}
	}
}

// Acquire waits for a slot, before all items that wait in the queue.
func (p *Pool[T]) Acquire(ctx context.Context) error {
	p.mu.Lock()
	if p.used < p.size {
		p.used++
		p.mu.Unlock()
		return nil
	}
	got := make(chan struct{})
	p.back = append(p.back, got)
	p.mu.Unlock()
	select {
	case <-got:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	for i, ch := range p.back {
		if ch == got {
			p.back = append(p.back[:i], p.back[i+1:]...)
			p.mu.Unlock()
			return context.Cause(ctx)
		}
	}
	p.mu.Unlock()
	p.Release() // it was given just now
	return context.Cause(ctx)
}

// Withdraw takes back the items that wait and for which take is true.
func (p *Pool[T]) Withdraw(take func(T) bool) []T {
	p.mu.Lock()
	out := p.withdraw(take)
	p.mu.Unlock()
	if len(out) > 0 {
		p.ring()
	}
	return out
}

func (p *Pool[T]) withdraw(take func(T) bool) (out []T) {
	for n := p.waiting.len(); n > 0; n-- {
		it := p.waiting.pop()
		if take(it) {
			out = append(out, it)
		} else {
			p.waiting.push(it)
		}
	}
	return out
}

// Close lets no item start any more and returns those that wait.
func (p *Pool[T]) Close() []T {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, ch := range p.idle {
		close(ch)
	}
	p.idle, p.spare = nil, 0
	return p.withdraw(func(T) bool { return true })
}

// Oldest returns the item that has waited longest.
func (p *Pool[T]) Oldest() (item T, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting.len() == 0 {
		return item, false
	}
	return p.waiting.first(), true
}

// Resize changes the number of slots. Runs above a smaller number go on.
func (p *Pool[T]) Resize(size int) {
	p.mu.Lock()
	p.size = size
	p.fill()
	p.mu.Unlock()
	p.ring()
}

// Counts are the slots, those in use, and what waits for one: items, and runs
// that want theirs back.
func (p *Pool[T]) Counts() (size, used, waiting int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.size, p.used, p.waiting.len() + len(p.back)
}

func (p *Pool[T]) ring() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}
