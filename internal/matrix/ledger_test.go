package matrix_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
)

// note is what a process tells the ledger: a step of a task.
type note struct {
	ID, Step string
	From     string // the request, as one process has it
	Retries  int
	Losses   int
}

// The steps that are more than a line of the ledger.
const (
	stepRun  = "Run"  // answered with first or again
	stepHold = "hold" // not answered before the gate is open
)

// tell writes a step to the ledger and waits for its answer, so that the steps of
// all processes have one order.
func tell(ledger string, r *lovage.Request, step string) (string, error) {
	c, err := net.Dial("unix", ledger)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := json.NewEncoder(c).Encode(note{r.ID, step, fmt.Sprintf("%d/%p", os.Getpid(), r), r.Retries, r.Delivery.Losses}); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(answer), err
}

// ledger keeps what happened, outside of the stores and of the processes that die.
type ledger struct {
	path  string
	state func(id string) string // in the result store
	onRun func(id string)        // called at the first run of a task

	mu    sync.Mutex // guards what follows
	tasks map[string]*account
	gate  chan struct{} // closed when those on hold may go on
	news  chan struct{} // closed at each note
}

// account is what is known of one task.
type account struct {
	steps  []string // of the first run
	runs   int
	again  map[string]bool // by request: of a later run
	back   *note           // the first note of the next run
	state  string          // what the store had then
	events []string
	before []string // events until the connection was cut, if it was
}

// later reports whether a note is of a later run. Who first speaks of a message
// that has run begins one; the end of a run may be told by another process.
func (a *account) later(n note) bool {
	if n.Step == "task_received" || n.Step == "task_prerun" {
		a.again[n.From] = a.runs > 0
	}
	return a.again[n.From]
}

// openLedger serves a ledger until the test ends.
func openLedger(t *testing.T, state func(id string) string, onRun func(id string)) *ledger {
	t.Helper()
	l := &ledger{path: filepath.Join(t.TempDir(), "ledger"), state: state, onRun: onRun,
		tasks: map[string]*account{}, gate: make(chan struct{}), news: make(chan struct{})}
	server, err := net.Listen("unix", l.path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { l.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.open()
		server.Close()
		wg.Wait()
	})
	return l
}

func (l *ledger) serve(c net.Conn) {
	defer c.Close()
	var n note
	if json.NewDecoder(c).Decode(&n) != nil {
		return // killed as it spoke
	}
	if n.Step == stepHold {
		<-l.gate
		fmt.Fprintln(c, "go")
		return
	}
	fmt.Fprintln(c, l.enter(n))
}

// enter takes a note. The first of a next run waits until the state that the run
// before it has left is read.
func (l *ledger) enter(n note) string {
	l.mu.Lock()
	a := l.tasks[n.ID]
	if a == nil {
		a = &account{again: map[string]bool{}}
		l.tasks[n.ID] = a
	}
	again := a.later(n)
	if again && a.back == nil {
		a.back, a.state = &n, l.state(n.ID)
	}
	if !again {
		a.steps = append(a.steps, n.Step)
	}
	if n.Step == stepRun {
		a.runs++
		if again {
			a.back.Losses = max(a.back.Losses, n.Losses)
		}
	}
	first := n.Step == stepRun && !again
	close(l.news)
	l.news = make(chan struct{})
	l.mu.Unlock()
	if first && l.onRun != nil {
		l.onRun(n.ID)
	}
	return map[bool]string{false: "first", true: "again"}[again]
}

// cut notes that a connection is about to be lost. An event that is on its way then
// is lost, or sent again.
func (l *ledger) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.tasks {
		a.before = slices.Clone(a.events)
	}
}

// first are the events of the first run.
func (a *account) first() (list []string) {
	switch {
	case a.back != nil && a.before != nil && a.runs == 1: // the end of that run, and what came after it
		rest := a.events[len(a.before):]
		for len(rest) > 0 && slices.Contains(a.before, rest[0]) {
			rest = rest[1:] // sent again
		}
		return slices.Concat(a.before, rest)
	case a.back != nil && a.before != nil:
		return a.before
	case a.back != nil:
		return firstRun(a.events)
	case a.before == nil:
		return a.events
	}
	for _, e := range a.events {
		if !slices.Contains(list, e) {
			list = append(list, e)
		}
	}
	return list
}

// open lets those on hold go on.
func (l *ledger) open() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.gate:
	default:
		close(l.gate)
	}
}

// wait waits until it is so.
func (l *ledger) wait(t *testing.T, what string, is func() bool) {
	t.Helper()
	late := time.After(patience)
	for {
		l.mu.Lock()
		ok, news := is(), l.news
		l.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-news:
		case <-late:
			t.Fatalf("not so after %v: %s", patience, what)
		}
	}
}

// running reports whether all of these have begun.
func (l *ledger) running(cells []cell) func() bool {
	return func() bool {
		for _, c := range cells {
			if a := l.tasks[c.id()]; a == nil || !slices.Contains(a.steps, stepRun) {
				return false
			}
		}
		return true
	}
}

// patience is how long anything may take on a loaded machine.
const patience = time.Minute
