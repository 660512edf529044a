package memory

// Process stands for an operating system process that uses the store. It is
// safe for concurrent use.
type Process struct {
	store *Store
	name  string

	// Guarded by store.mu.
	dead     bool
	stopped  chan struct{} // closed by Resume; nil while running
	conns    map[*Conn]struct{}
	backends map[*Backend]struct{}
}

// Broker opens a connection of this process.
func (p *Process) Broker() *Conn {
	c := &Conn{store: p.store, proc: p, consumers: map[*consumer]struct{}{}, listeners: map[*Listener]struct{}{}}
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	p.conns[c] = struct{}{}
	return c
}

// Backend opens the result store for this process.
func (p *Process) Backend() *Backend {
	b := &Backend{store: p.store, proc: p, watches: map[*watch]struct{}{}}
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	p.backends[b] = struct{}{}
	return b
}

// Kill ends the process as SIGKILL does. Its claims become orphans, at once or
// by [WithOrphansAfterLease] when their leases end, and nothing that it does
// later has an effect. Blocked calls return. The name is free for a new process.
func (p *Process) Kill() {
	s := p.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.dead {
		return
	}
	p.dead = true
	p.wake()
	if s.processes[p.name] == p {
		delete(s.processes, p.name)
	}
	for c := range p.conns {
		c.end(!s.slowDeath, true)
	}
	for b := range p.backends {
		b.end()
	}
}

// Stop halts the process as SIGSTOP does: every call waits, leases run out.
func (p *Process) Stop() {
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	if !p.dead && p.stopped == nil {
		p.stopped = make(chan struct{})
	}
}

// Resume lets a stopped process go on.
func (p *Process) Resume() {
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	p.wake()
}

// runs reports whether the process lives and is not stopped. The caller holds
// store.mu.
func (p *Process) runs() bool { return !p.dead && p.stopped == nil }

// wake frees the calls that wait. The caller holds store.mu.
func (p *Process) wake() {
	if p.stopped != nil {
		close(p.stopped)
		p.stopped = nil
	}
}
