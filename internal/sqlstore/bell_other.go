//go:build !linux

package sqlstore

import (
	"sync"
	"time"
)

// ringer does nothing here: others poll the file's data version.
type ringer struct{}

func newRinger(string) (*ringer, error) { return &ringer{}, nil }
func (*ringer) ring()                   {}
func (*ringer) close() error            { return nil }

// remoteBell polls the data version of the file, every 1 ms after news and
// slower, up to 50 ms, without.
type remoteBell struct {
	gate *gate
	quit chan struct{}
	once sync.Once
	done chan struct{}
}

func startRemoteBell(c *core, b *bell) *remoteBell {
	r := &remoteBell{gate: newGate(), quit: make(chan struct{}), done: make(chan struct{})}
	go r.run(c, b)
	return r
}

func (r *remoteBell) run(c *core, b *bell) {
	defer close(r.done)
	watch, err := dial(c.cfg.Path, sqliteDialect)
	if err != nil {
		c.cfg.Logger.Warn("news of other processes is looked for every 250 ms", "file", c.cfg.Path, "reason", err)
		return
	}
	defer watch.close()
	last, wait := int64(-1), time.Millisecond
	for r.gate.pass() {
		v, err := watch.ask("PRAGMA data_version")
		if n := integer(v); err == nil && n != last {
			last, wait = n, time.Millisecond
			b.ringHere()
		} else {
			wait = min(wait*2, 50*time.Millisecond)
		}
		select {
		case <-r.quit:
			return
		case <-time.After(wait):
		}
	}
}

func (r *remoteBell) wanted(on bool) { r.gate.set(on) }

func (r *remoteBell) close() error {
	r.once.Do(func() { close(r.quit) })
	r.gate.end()
	<-r.done
	return nil
}
