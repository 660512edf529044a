// Package prefork runs tasks in children: processes that are the same program,
// started once more. The parent hands each of them one message at a time and
// keeps what its run causes; what a run does to its process, it does to a child.
package prefork

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/proc"
)

const (
	firstPause = 50 * time.Millisecond
	lastPause  = 5 * time.Second
	surplus    = 30 * time.Second // that a child above the number is kept idle
)

// ErrClosed is returned by a pool that has been closed.
var ErrClosed = errors.New("the pool of child processes is closed")

// Config is what a Pool is given.
type Config struct {
	App      *lovage.App
	Log      *slog.Logger
	Size     int
	Hostname string
	Tasks    []string // that the children run; nil: all
	Env      []string // of the children, beside the parent's
	MaxTasks int      // runs of one child; 0: no limit
	// MaxMemory is the resident memory, in KiB, above which a child is replaced
	// when its run has ended; 0: no limit.
	MaxMemory int
	Alive     time.Duration // from the start of a child to its greeting
	Close     time.Duration // that a child has for Close
}

func (c *Config) settings() settings {
	return settings{Hostname: c.Hostname, Level: int(levelOf(c.Log)), Tasks: c.Tasks, Memory: c.MaxMemory > 0}
}

// Pool is a number of children. It is safe for concurrent use.
type Pool struct {
	cfg     Config
	me      greeting
	nursery *nursery
	group   sync.WaitGroup
	ctx     context.Context // ends when the pool is closed
	cancel  context.CancelFunc
	told    atomic.Bool // that the program's file was replaced

	mu       sync.Mutex // guards what follows
	size     int
	lent     int       // runs that wait in a child, without a slot
	back     time.Time // when the last of them went on
	index    int
	starting int
	all      map[*Child]struct{}
	free     []*Child // the last one ran last
	waiting  []chan *Child
	failures int // starts that failed and children that died, since one did well
	ending   bool
	closed   bool
}

// New returns a pool. Start starts its children.
func New(cfg Config) *Pool {
	p := &Pool{cfg: cfg, me: self(cfg.App), nursery: newNursery(), size: cfg.Size, all: map[*Child]struct{}{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// self is the greeting of this process.
func self(app *lovage.App) greeting {
	g := greeting{PID: proc.PID(), Version: lovage.Version, App: app.Name(), Tasks: app.TaskNames()}
	if info, ok := debug.ReadBuildInfo(); ok {
		g.Build = info.String()
	}
	slices.Sort(g.Tasks)
	return g
}

// compare tells how a child differs from its parent.
func (g *greeting) compare(child *greeting) error {
	switch {
	case g.Version != child.Version || g.Build != child.Build:
		return fmt.Errorf("a child is another build of the program (Lovage %s, this is %s): restart the worker", child.Version, g.Version)
	case g.App != child.App:
		return fmt.Errorf("a child runs a worker of app %q, its parent one of %q: main must come to the same worker in both", child.App, g.App)
	}
	var odd []string
	for _, name := range g.Tasks {
		if !slices.Contains(child.Tasks, name) {
			odd = append(odd, name+" (parent only)")
		}
	}
	for _, name := range child.Tasks {
		if !slices.Contains(g.Tasks, name) {
			odd = append(odd, name+" (child only)")
		}
	}
	if len(odd) > 0 {
		return fmt.Errorf("a child has other tasks than its parent: %s: declare the same in every process of the program", strings.Join(odd, ", "))
	}
	return nil
}

// Start starts the children and waits until all are ready. The first error
// ends those that have started.
func (p *Pool) Start(ctx context.Context) error {
	p.mu.Lock()
	n := p.size
	p.starting += n
	p.mu.Unlock()
	errs := make(chan error, n)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for range n {
		p.group.Go(func() {
			c, err := p.spawn(ctx, p.next())
			p.born(c)
			errs <- err
		})
	}
	for range n {
		if err := <-errs; err != nil {
			cancel()
			return err
		}
	}
	return nil
}

func (p *Pool) next() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.index++
	return p.index
}

// born takes a child that was being started; nil for one that did not come.
func (p *Pool) born(c *Child) {
	p.mu.Lock()
	p.starting--
	if c == nil {
		p.mu.Unlock()
		return
	}
	p.all[c] = struct{}{}
	if c.dead() {
		p.bury(c)
	} else {
		p.hand(c)
	}
	p.mu.Unlock()
	p.trim() // the pool may have shrunk meanwhile
}

// hand gives a child to who waits longest, or keeps it. The caller holds mu.
func (p *Pool) hand(c *Child) {
	switch {
	case p.closed:
		p.retire(c)
	case len(p.waiting) > 0:
		p.waiting[0] <- c
		p.waiting = p.waiting[1:]
	default:
		p.free = append(p.free, c)
	}
}

// target is the number of children that there should be. The caller holds mu.
func (p *Pool) target() int { return p.size + min(p.lent, max(64, 4*p.size)) }

// fill starts children that are missing. The caller holds mu.
func (p *Pool) fill() {
	for !p.closed && p.missing() {
		p.starting++
		p.group.Go(p.replace)
	}
}

func (p *Pool) missing() bool {
	if p.ending { // as many as the machine can start at once, or the first takes as long as all
		return len(p.free)+p.starting < min(len(p.waiting), max(proc.CPUs(), 2))
	}
	return len(p.all)+p.starting < p.target()
}

// WindDown starts no more children but for who waits for one: the worker stops, and
// those that die, or are killed, need not be replaced.
func (p *Pool) WindDown() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ending = true
}

// replace starts a child, after a pause if others have just failed.
func (p *Pool) replace() {
	for {
		if pause := p.pause(); pause > 0 {
			select {
			case <-time.After(pause):
			case <-p.ctx.Done():
				p.born(nil)
				return
			}
		}
		if path := replaced(); path != "" && !p.told.Swap(true) {
			p.cfg.Log.Warn("the program's file was replaced; children go on with the image that runs: restart the worker to take the new one", "file", path)
		}
		c, err := p.spawn(p.ctx, p.next())
		if err == nil || p.ctx.Err() != nil {
			p.born(c)
			return
		}
		p.mu.Lock()
		p.failures++
		p.mu.Unlock()
		p.cfg.Log.Error("a child could not be started: "+err.Error(), "error", err)
	}
}

// pause is how long to wait before the next start: not at all as long as no
// more children died than there are, one after the other without a run that
// ended well.
func (p *Pool) pause() time.Duration {
	p.mu.Lock()
	over := p.failures - p.size
	p.mu.Unlock()
	if over <= 0 {
		return 0
	}
	pause := min(firstPause<<min(over-1, 10), lastPause)
	p.cfg.Log.Error(fmt.Sprintf("children die one after the other; the next one starts in %s", pause), "deaths", over+p.size)
	return pause
}

// Acquire waits for a free child.
func (p *Pool) Acquire(ctx context.Context) (*Child, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, ErrClosed
	}
	for n := len(p.free); n > 0; n-- {
		c := p.free[n-1]
		p.free = p.free[:n-1]
		if c.dead() { // just now: it will be replaced
			continue
		}
		p.mu.Unlock()
		return c, nil
	}
	got := make(chan *Child, 1)
	p.waiting = append(p.waiting, got)
	p.fill()
	p.mu.Unlock()
	select {
	case c := <-got:
		return c, nil
	case <-ctx.Done():
	case <-p.ctx.Done():
	}
	p.mu.Lock()
	i := slices.Index(p.waiting, got)
	if i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
	}
	p.mu.Unlock()
	if i < 0 { // it was given just now
		(<-got).Release()
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, ErrClosed
}

// release takes a child back, or replaces it.
func (p *Pool) release(c *Child) {
	why := ""
	switch {
	case p.cfg.MaxTasks > 0 && c.runs >= p.cfg.MaxTasks:
		why = fmt.Sprintf("it has run %d tasks (worker_max_tasks_per_child)", c.runs)
	case p.cfg.MaxMemory > 0 && c.memory > p.cfg.MaxMemory:
		why = fmt.Sprintf("it has %d KiB, worker_max_memory_per_child is %d", c.memory, p.cfg.MaxMemory)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.all[c]; !known {
		return
	}
	if c.dead() {
		p.bury(c)
		return
	}
	if c.dies() { // gone buries it
		return
	}
	p.failures = 0
	if why != "" {
		p.cfg.Log.Info("child process "+c.name+" is replaced: "+why, "pid", c.pid)
		p.retire(c)
		p.fill()
		return
	}
	if len(p.all)+p.starting > p.target() && len(p.waiting) == 0 && time.Since(p.back) > surplus {
		p.retire(c)
		return
	}
	p.hand(c)
}

// retire lets an idle child end. The caller holds mu.
func (p *Pool) retire(c *Child) {
	delete(p.all, c)
	p.group.Go(func() {
		limit := p.cfg.Close
		if c.wire.send(leave, nil) != nil {
			limit = 0
		}
		select {
		case <-c.exited:
		case <-time.After(limit):
			p.cfg.Log.Error("child process "+c.name+" did not end in time and is killed", "pid", c.pid, "after", limit)
			_ = c.cmd.Process.Kill()
			<-c.exited
		}
	})
}

// gone notes the end of a child.
func (p *Pool) gone(c *Child) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.all[c]; known {
		p.bury(c)
	}
}

// bury replaces a child that died. The caller holds mu.
func (p *Pool) bury(c *Child) {
	delete(p.all, c)
	p.free = slices.DeleteFunc(p.free, func(f *Child) bool { return f == c })
	if !c.dies() { // by itself
		p.failures++
	}
	p.fill()
}

// lend notes that a run waits and its child is of no use to others, or that it
// goes on.
func (p *Pool) lend(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lent += n
	p.fill()
	if n < 0 {
		p.back = time.Now()
		if len(p.all)+p.starting > p.target() {
			time.AfterFunc(surplus+time.Second, p.trim)
		}
	}
}

// trim ends children above the number that are idle.
func (p *Pool) trim() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.free) > 0 && len(p.all)+p.starting > p.target() && !p.closed {
		c := p.free[0]
		p.free = p.free[1:]
		p.retire(c)
	}
}

// Resize changes the number of children; those that are busy end their runs.
func (p *Pool) Resize(size int) {
	p.mu.Lock()
	p.size = size
	p.fill()
	p.mu.Unlock()
	p.trim()
}

// PIDs are the processes.
func (p *Pool) PIDs() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]int, 0, len(p.all))
	for c := range p.all {
		list = append(list, c.pid)
	}
	slices.Sort(list)
	return list
}

// Close ends the children: idle ones close their tasks first, busy ones are
// killed. It waits until all are gone.
func (p *Pool) Close() {
	p.mu.Lock()
	again := p.closed
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	if again {
		return
	}
	p.mu.Lock()
	free := p.free
	p.free = nil
	for _, c := range free {
		p.retire(c)
	}
	for c := range p.all {
		_ = c.cmd.Process.Kill()
	}
	p.mu.Unlock()
	p.group.Wait()
	p.nursery.close()
}
