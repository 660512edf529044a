package prefork

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/proc"
)

// ErrMark: the process is marked as a child that this program does not know.
var ErrMark = errors.New("the mark of a pool's child is not one of this version")

// Serve is the life of a child. It returns an error if there is no parent to
// talk to; otherwise it ends the process, when the parent says so or is gone.
func Serve(ctx context.Context, app *lovage.App) error {
	if mark := proc.Child(); mark != strconv.Itoa(Protocol) {
		return fmt.Errorf("%w: %q", ErrMark, mark)
	}
	conn, err := attach()
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
		told:    make(chan settings, 1),
		answers: map[int]chan reply{}, late: map[*lovage.Request]bool{},
	}
	g := self(app)
	if err := s.wire.send(hello, appendFlat(nil, &g)); err != nil {
		os.Exit(1)
	}
	go s.listen()
	s.begin(<-s.told)
	select {}
}

// server is the child's side.
type server struct {
	ctx  context.Context
	app  *lovage.App
	wire *wire
	set  settings

	told  chan settings
	turns sync.WaitGroup // runs that have not ended

	mu      sync.Mutex // guards what follows
	answers map[int]chan reply
	late    map[*lovage.Request]bool // runs whose end is kept: their last words have time
	runs    int
	current *turn         // the last one
	stopped map[int]error // runs that were cancelled before they began
}

// begin makes the process a worker's child and runs Init.
func (s *server) begin(set settings) {
	s.set = set
	log := slog.New(&forward{level: slog.Level(set.Level), send: s.record})
	s.app.UseLogger(log)
	slog.SetDefault(log)
	err := s.app.Freeze()
	if err == nil {
		s.app.Signals.WorkerProcessInit.Send(s.ctx, lovage.WorkerProcessInit{Hostname: set.Hostname, PID: proc.PID()})
		err = s.app.Init(s.ctx, s.served()...)
	}
	debug.FreeOSMemory() // what the start needed is not needed again
	proc.Shed()
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

func (s *server) record(ctx context.Context, r record) {
	payload := appendFlat(nil, &r)
	s.mu.Lock()
	late := s.late[lovage.RequestFrom(ctx)]
	s.mu.Unlock()
	if late {
		_ = s.wire.hold(line, payload)
	} else {
		_ = s.wire.send(line, payload)
	}
}

// passTime is how long a run has the goroutine that reads what the parent says.
// Most runs end before, and no other goroutine needs to be woken for them.
const passTime = time.Millisecond

// listen does what the parent says, and runs what it sends. Its end is the end
// of this process: nothing that it could still do would count.
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
			if !s.turn(k, payload) {
				return // another goroutine listens
			}
		case answer:
			if m, err := readFlat[reply](payload); err == nil {
				s.answer(m)
			}
		case cancel:
			if c, err := readFlat[cancelled](payload); err == nil {
				s.stop(c)
			}
		case slot:
			if n, err := readFlat[int](payload); err == nil {
				s.given(n)
			}
		case leave:
			go s.end()
		case die:
			if n, err := readFlat[int](payload); err == nil {
				signal.Reset(syscall.Signal(n))
				raise(n)
			}
		}
	}
}

// turn carries out one run and reports whether this goroutine is still the one
// that listens. A task may also end the goroutine (runtime.Goexit).
func (s *server) turn(k kind, payload []byte) (mine bool) {
	ctx, cancel := context.WithCancelCause(s.ctx)
	t := &turn{server: s, cancel: cancel, over: make(chan struct{})}
	s.turns.Add(1)
	pass := time.AfterFunc(passTime, t.pass)
	u, returned := usage{Refused: "the task ended its goroutine (runtime.Goexit)"}, false
	defer func() {
		pass.Stop()
		cancel(nil)
		s.over(t, u)
		s.turns.Done()
		if mine = t.passed.CompareAndSwap(false, true); mine && !returned {
			go s.listen()
		}
	}()
	u = s.perform(ctx, t, k, payload)
	returned = true
	return mine
}

// quiet reports whether nothing here depends on how the effects of a success
// are kept.
func (s *server) quiet(e *lovage.Effects) bool {
	sig := &s.app.Signals
	return e.Outcome.State == lovage.Success && slog.Level(s.set.Level) > slog.LevelInfo && len(e.Publish)+len(e.Ends) == 0 &&
		!sig.TaskSuccess.Connected() && !sig.TaskPostrun.Connected()
}

// stop cancels a run. It may have ended already, or not have begun.
func (s *server) stop(c cancelled) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case c.Run == s.runs && s.current != nil:
		s.current.cancel(c.Why.error())
	case c.Run > s.runs:
		s.stopped = map[int]error{c.Run: c.Why.error()}
	}
}

func (s *server) given(n int) {
	s.mu.Lock()
	t := s.current
	s.mu.Unlock()
	if t != nil {
		t.given(n)
	}
}

func (s *server) answer(m reply) {
	s.mu.Lock()
	got := s.answers[m.Run]
	delete(s.answers, m.Run)
	s.mu.Unlock()
	if got != nil {
		got <- m
	}
}

// end closes the tasks when the last run has ended, and then the process.
func (s *server) end() {
	s.turns.Wait()
	s.app.Signals.WorkerProcessShutdown.Send(s.ctx, lovage.WorkerProcessShutdown{Hostname: s.set.Hostname, PID: proc.PID()})
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

// perform runs what a frame says.
func (s *server) perform(ctx context.Context, t *turn, k kind, payload []byte) (u usage) {
	s.mu.Lock()
	s.runs++
	t.run = s.runs
	if why, ok := s.stopped[s.runs]; ok {
		t.cancel(why)
	}
	s.current, s.stopped = t, nil
	s.mu.Unlock()

	var d delivery
	var end outcome
	var err error
	if k == run {
		d, err = readFlat[delivery](payload)
	} else {
		var m conclusion
		m, err = readFlat[conclusion](payload)
		d, end = m.Delivery, m.Outcome
	}
	if err != nil {
		return usage{Refused: err.Error()}
	}
	r, err := s.app.Receive(d.received())
	if err != nil {
		return usage{Refused: "the child does not read the message as its parent does: " + err.Error()}
	}
	r.Hostname, t.repr = s.set.Hostname, d.Repr
	r.SetSlot(t)
	var out lovage.Outcome
	if k == run {
		out = s.app.Execute(ctx, r, t)
	} else {
		out = s.app.Conclude(ctx, r, end.outcome(), t)
	}
	if out.Fenced != nil {
		u.Refused = out.Fenced.Error() // of use if the end was not told
	}
	return u
}

// over ends a run, and tells it if that was not done with its effects.
func (s *server) over(t *turn, u usage) {
	s.mu.Lock()
	delete(s.late, t.told)
	s.mu.Unlock()
	t.end()
	if t.free && t.told != nil {
		return
	}
	u.Memory = s.memory()
	_ = s.wire.send(done, appendFlat(nil, &u))
}

func (s *server) memory() int {
	if s.set.Memory {
		return proc.RSS()
	}
	return 0
}
