package prefork

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/proc"
)

// ErrMark: the process is marked as a child that this program does not know.
var ErrMark = errors.New("the mark of a pool's child is not one of this version")

// Serve is the life of a child. It returns an error if there is no parent to
// talk to; otherwise it ends the process, when the parent says so or is gone.
func Serve(ctx context.Context, app *lovage.App) error {
	var fd, version int
	if _, err := fmt.Sscanf(proc.Child(), "%d:%d", &fd, &version); err != nil || version != Protocol {
		return fmt.Errorf("%w: %q", ErrMark, proc.Child())
	}
	conn, err := attach(fd)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMark, err)
	}
	// A supervisor may signal all processes of a service: what a child does is
	// for its parent to say. A handler, unlike ignoring, is not inherited by the
	// programs that tasks start.
	signal.Reset(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	signal.Notify(make(chan os.Signal, 1), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	s := &server{
		ctx: context.WithoutCancel(ctx), app: app, wire: newWire(conn),
		told: make(chan settings, 1), work: make(chan frame, 1), answers: make(chan []byte, 1),
	}
	g := self(app)
	if err := s.wire.send(hello, appendFlat(nil, &g)); err != nil {
		os.Exit(1)
	}
	go s.listen()
	s.begin(<-s.told)
	go s.loop()
	select {}
}

// server is the child's side.
type server struct {
	ctx  context.Context
	app  *lovage.App
	wire *wire
	set  settings

	told    chan settings
	work    chan frame
	answers chan []byte
	late    atomic.Bool // the run's end is kept: its last words may wait for each other

	mu      sync.Mutex // guards what follows
	runs    int
	cancel  context.CancelCauseFunc
	stopped map[int]error // runs that were cancelled before they began
	lender  *lender
}

// begin makes the process a worker's child and runs Init.
func (s *server) begin(set settings) {
	s.set = set
	log := slog.New(&forward{level: slog.Level(set.Level), send: s.record})
	s.app.UseLogger(log)
	slog.SetDefault(log)
	err := s.app.Freeze()
	if err == nil {
		err = s.app.Init(s.ctx, s.served()...)
	}
	debug.FreeOSMemory() // what the start needed is not needed again
	if err != nil {
		f := faultOf(err)
		_ = s.wire.send(ready, appendFlat(nil, &f))
		s.exit(s.app.Close(s.ctx), 1)
	}
	if s.wire.send(ready, nil) != nil {
		os.Exit(1)
	}
}

func (s *server) served() (list []*lovage.Definition) {
	for _, name := range s.set.Tasks {
		if d, ok := s.app.Lookup(name); ok {
			list = append(list, d)
		}
	}
	return list
}

func (s *server) record(r record) {
	payload := appendFlat(nil, &r)
	if s.late.Load() {
		_ = s.wire.hold(line, payload)
	} else {
		_ = s.wire.send(line, payload)
	}
}

// listen does what the parent says. Its end is the end of this process: nothing
// that it could still do would count.
func (s *server) listen() {
	for {
		k, payload, err := s.wire.receive()
		if err != nil {
			os.Exit(1)
		}
		switch k {
		case setup:
			if set, err := readFlat[settings](payload); err == nil {
				s.told <- set
			}
		case run, conclude:
			s.work <- frame{k, payload}
		case answer:
			s.answers <- payload
		case cancel:
			if c, err := readFlat[cancelled](payload); err == nil {
				s.stop(c)
			}
		case slot:
			if n, err := readFlat[int](payload); err == nil {
				s.mu.Lock()
				l := s.lender
				s.mu.Unlock()
				l.given(n)
			}
		case leave:
			close(s.work)
		case die:
			if n, err := readFlat[int](payload); err == nil {
				signal.Reset(syscall.Signal(n))
				raise(n)
			}
		}
	}
}

// stop cancels a run. It may have ended already, or not have begun.
func (s *server) stop(c cancelled) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case c.Run == s.runs && s.cancel != nil:
		s.cancel(c.Why.error())
	case c.Run > s.runs:
		s.stopped = map[int]error{c.Run: c.Why.error()}
	}
}

// loop runs one job after the other. A task that ends its goroutine takes this
// one with it, and another goes on.
func (s *server) loop() {
	over := false
	defer func() {
		if !over {
			s.over(usage{Refused: "the task ended its goroutine (runtime.Goexit)"})
			go s.loop()
		}
	}()
	for f := range s.work {
		s.over(s.perform(f))
	}
	over = true
	s.exit(s.app.Close(s.ctx), 0)
}

// exit tells how the tasks closed and ends the process.
func (s *server) exit(err error, code int) {
	var payload []byte
	if err != nil {
		f := faultOf(err)
		payload = appendFlat(nil, &f)
	}
	_ = s.wire.send(closed, payload)
	os.Exit(code)
}

// perform is one run.
func (s *server) perform(f frame) (u usage) {
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	l := &lender{server: s, over: make(chan struct{})}
	s.mu.Lock()
	s.runs++
	if why, ok := s.stopped[s.runs]; ok {
		cancel(why)
	}
	s.cancel, s.stopped, s.lender = cancel, nil, l
	s.mu.Unlock()

	var d delivery
	var end outcome
	var err error
	if f.kind == run {
		d, err = readFlat[delivery](f.payload)
	} else {
		var m conclusion
		m, err = readFlat[conclusion](f.payload)
		d, end = m.Delivery, m.Outcome
	}
	if err != nil {
		return usage{Refused: err.Error()}
	}
	r, err := s.app.Receive(d.received())
	if err != nil {
		return usage{Refused: "the child does not read the message as its parent does: " + err.Error()}
	}
	r.Hostname = s.set.Hostname
	r.SetSlot(l)
	var out lovage.Outcome
	if f.kind == run {
		out = s.app.Execute(ctx, r, s)
	} else {
		out = s.app.Conclude(ctx, r, end.outcome(), s)
	}
	if out.Fenced != nil {
		u.Refused = out.Fenced.Error() // of use if the end was not told
	}
	return u
}

// over tells the end of a run.
func (s *server) over(u usage) {
	s.mu.Lock()
	s.cancel = nil
	l := s.lender
	s.mu.Unlock()
	l.end()
	if s.set.Memory {
		u.Memory = proc.RSS()
	}
	_ = s.wire.send(done, appendFlat(nil, &u))
	s.late.Store(false)
}

// Finish implements lovage.Finisher: the parent makes the effects happen.
func (s *server) Finish(_ context.Context, e *lovage.Effects) error {
	m := ended{Outcome: outcomeOf(e.Outcome, s.set.Repr), Effects: *e}
	if err := s.wire.send(finish, appendFlat(nil, &m)); err != nil {
		return err
	}
	err := errorOf(<-s.answers)
	s.late.Store(true)
	return err
}

// lender is the slot of a run, which is the parent's to give. A child has one
// run at a time, so there is nothing to give up before its end.
type lender struct {
	server *server
	over   chan struct{}

	mu     sync.Mutex // guards what follows
	wanted int
	got    chan struct{}
	ended  bool
}

// Release implements lovage.Slot.
func (l *lender) Release() { l.say(lend, nil) }

// GiveUp implements lovage.Slot.
func (l *lender) GiveUp() {}

// Reacquire implements lovage.Slot.
func (l *lender) Reacquire(ctx context.Context) error {
	l.mu.Lock()
	l.wanted++
	n, got := l.wanted, make(chan struct{})
	l.got = got
	l.mu.Unlock()
	if !l.say(want, appendFlat(nil, &n)) {
		return nil
	}
	select {
	case <-got:
		return nil
	case <-l.over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// say speaks for the run, as long as it goes on.
func (l *lender) say(k kind, payload []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.ended && l.server.wire.send(k, payload) == nil
}

func (l *lender) given(n int) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if n == l.wanted && l.got != nil {
		close(l.got)
		l.got = nil
	}
}

func (l *lender) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.ended = true
		close(l.over)
	}
}
