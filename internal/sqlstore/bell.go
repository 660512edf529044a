package sqlstore

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"
)

// bellSet is a set of bells, as bits.
type bellSet uint8

// The bells: new work, new results, new broadcasts.
const (
	BellWork bellSet = 1 << iota
	BellResults
	BellFanout

	numBells = 3
)

var bellNames = [numBells]string{"work", "results", "fanout"}

// SafetyPoll is the longest that a lost ring can go unnoticed.
const SafetyPoll = 250 * time.Millisecond

// bells are the doorbells of one store in one process.
type bells struct {
	core  *core
	each  [numBells]bell
	ended chan struct{}
}

// bell is one doorbell. Its remote half, which hears other processes, runs
// while anybody waits and is deaf, at no cost, while nobody does.
type bell struct {
	mu      sync.Mutex
	rung    chan struct{} // closed by the next ring
	waiting int
	remote  *remoteBell // started by the first waiter
	closed  bool
	path    string
	out     *ringer
}

func newBells(c *core, dir string) (*bells, error) {
	b := &bells{core: c, ended: make(chan struct{})}
	for i := range b.each {
		path := filepath.Join(dir, bellNames[i])
		out, err := newRinger(path)
		if err != nil {
			return nil, errors.Join(err, b.close())
		}
		b.each[i].rung, b.each[i].path, b.each[i].out = make(chan struct{}), path, out
	}
	return b, nil
}

// ring rings the bells of the set, here and in other processes.
func (b *bells) ring(set bellSet) {
	for i := range b.each {
		if set&(1<<i) != 0 {
			b.each[i].ringHere()
			b.each[i].out.ring()
		}
	}
}

func (b *bell) ringHere() {
	b.mu.Lock()
	if b.waiting > 0 {
		close(b.rung)
		b.rung = make(chan struct{})
	}
	b.mu.Unlock()
}

func (b *bells) wakeAll() { close(b.ended) }

// Ear hears one bell. It belongs to one goroutine.
type Ear struct {
	core *core
	b    *bell
	rung chan struct{}
	on   bool
}

// Ear gives an ear for a bell. Listen before looking, look, then Wait: a ring
// between the look and the wait is not lost. Close ends it.
func (c *core) Ear(set bellSet) *Ear {
	for i := range c.bells.each {
		if set == 1<<i {
			return &Ear{core: c, b: &c.bells.each[i]}
		}
	}
	panic("sqlstore: an ear hears one bell")
}

// Listen starts to count rings.
func (e *Ear) Listen() {
	e.b.mu.Lock()
	defer e.b.mu.Unlock()
	if !e.on {
		e.on = true
		e.b.waiting++
		if !e.b.closed {
			if e.b.remote == nil {
				e.b.remote = startRemoteBell(e.core, e.b)
			}
			e.b.remote.wanted(true)
		}
	}
	e.rung = e.b.rung
}

// Wait returns nil after a ring since Listen, after at most d, or when also is
// closed (it may be nil); ctx's cause when ctx ends, and ErrClosed when the
// store does. It listens anew.
func (e *Ear) Wait(ctx context.Context, d time.Duration, also <-chan struct{}) error {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-e.rung:
	case <-timer.C:
	case <-also:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-e.core.bells.ended:
		return ErrClosed
	}
	e.Listen()
	return nil
}

// Close stops listening; the Ear can Listen again.
func (e *Ear) Close() {
	e.b.mu.Lock()
	defer e.b.mu.Unlock()
	if e.on {
		e.on = false
		if e.b.waiting--; e.b.waiting == 0 && e.b.remote != nil {
			e.b.remote.wanted(false)
		}
	}
}

// close ends the remote halves. Ears may still be about to leave.
func (b *bells) close() error {
	var errs []error
	for i := range b.each {
		one := &b.each[i]
		one.mu.Lock()
		remote := one.remote
		one.closed, one.remote = true, nil
		one.mu.Unlock()
		if remote != nil {
			errs = append(errs, remote.close())
		}
		if one.out != nil {
			errs = append(errs, one.out.close())
		}
	}
	return errors.Join(errs...)
}

// gate lets a remote bell's goroutine sleep while nobody waits.
type gate struct {
	mu    sync.Mutex
	open  chan struct{} // closed while wanted
	on    bool
	ended bool
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

func (g *gate) set(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended || g.on == on {
		return
	}
	if g.on = on; on {
		close(g.open)
	} else {
		g.open = make(chan struct{})
	}
}

func (g *gate) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.ended {
		g.ended = true
		if !g.on {
			close(g.open)
		}
	}
}

// pass blocks until somebody waits; false: the end.
func (g *gate) pass() bool {
	g.mu.Lock()
	open, ended := g.open, g.ended
	g.mu.Unlock()
	if ended {
		return false
	}
	<-open
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.ended
}
