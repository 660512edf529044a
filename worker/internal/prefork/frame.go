package prefork

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Protocol is the version of what parent and child say to each other. It is in
// the mark of the child, and each other version is refused.
const Protocol = 2

// kind says what a frame is.
type kind uint8

const (
	// From the child.
	hello  kind = iota + 1 // greeting: who it is
	ready                  // Init has ended: nothing, or a fault
	finish                 // ended: the end of the run, to be kept; answered
	ask                    // outcome: may the run count in its chords; answered
	done                   // usage: the run is over
	lend                   // the run waits for other tasks and needs no slot
	want                   // a number: it needs its slot again; answered by slot
	line                   // record: a line of the log
	closed                 // Close has ended: nothing, or a fault

	// From the parent.
	setup    // settings
	run      // delivery
	conclude // conclusion
	cancel   // cancelled: which run, and why
	answer   // reply: to finish and ask
	slot     // to want: its number
	leave    // end: close and exit
	die      // the number of the signal to die of
)

const (
	headLen  = 5
	maxFrame = 1 << 30
	// sendTimeout is how long the other side may leave a frame unread, and at
	// least half of it before it is given up.
	sendTimeout = 30 * time.Second
)

var errFrameTooLarge = errors.New("more than 1 GiB in one piece cannot be sent between parent and child of a process pool")

// wire is one end of the connection between a parent and a child. Frames may be
// sent by many goroutines; one receives.
type wire struct {
	conn stream
	in   *bufio.Reader

	mu    sync.Mutex // guards what follows
	out   []byte     // what is not sent yet
	timer *time.Timer
	armed bool

	limited time.Time // when the deadline for writing was set
}

// stream is a connection. The child's knows no deadline: its parent reads, or is
// gone.
type stream interface {
	io.ReadWriteCloser
	SetWriteDeadline(time.Time) error
}

func newWire(conn stream) *wire { return &wire{conn: conn, in: bufio.NewReaderSize(conn, 8<<10)} }

// keepOut is the largest buffer that is kept for the next frame.
const keepOut = 64 << 10

// send sends a frame, and before it those that were held back.
func (w *wire) send(k kind, payload []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.add(k, payload); err != nil {
		return err
	}
	return w.flush()
}

// holdTime is how long a frame that can wait does, for others to go with.
const holdTime = 2 * time.Millisecond

// hold keeps a frame for a moment, so that it goes with the next one.
func (w *wire) hold(k kind, payload []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.add(k, payload); err != nil {
		return err
	}
	switch {
	case len(w.out) >= keepOut:
		return w.flush()
	case w.armed:
	case w.timer == nil:
		w.timer, w.armed = time.AfterFunc(holdTime, w.release), true
	default:
		w.timer.Reset(holdTime)
		w.armed = true
	}
	return nil
}

// release sends what was held.
func (w *wire) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = false
	_ = w.flush()
}

func (w *wire) add(k kind, payload []byte) error {
	if len(payload) > maxFrame {
		return errFrameTooLarge
	}
	w.out = binary.LittleEndian.AppendUint32(w.out, uint32(len(payload)))
	w.out = append(append(w.out, byte(k)), payload...)
	return nil
}

// flush writes what waits. The caller holds mu.
func (w *wire) flush() error {
	if len(w.out) == 0 {
		return nil
	}
	if now := time.Now(); now.Sub(w.limited) > sendTimeout/2 { // setting it costs more than writing
		w.limited = now
		_ = w.conn.SetWriteDeadline(now.Add(sendTimeout))
	}
	_, err := w.conn.Write(w.out)
	if w.out = w.out[:0]; cap(w.out) > keepOut {
		w.out = nil
	}
	return err
}

// receive waits for the next frame. The payload belongs to the caller.
func (w *wire) receive() (kind, []byte, error) {
	var head [headLen]byte
	if _, err := io.ReadFull(w.in, head[:]); err != nil {
		return 0, nil, err
	}
	size := binary.LittleEndian.Uint32(head[:])
	if size > maxFrame {
		return 0, nil, fmt.Errorf("a frame of %d bytes: %w", size, errFrameTooLarge)
	}
	if size == 0 {
		return kind(head[4]), nil, nil
	}
	payload := make([]byte, size)
	_, err := io.ReadFull(w.in, payload)
	return kind(head[4]), payload, err
}

// greeting is how a child introduces itself.
type greeting struct {
	PID     int
	Version string   // of Lovage
	Build   string   // of the program
	App     string   // its name
	Tasks   []string // that it has, sorted
}

// settings are what a child is told before anything else.
type settings struct {
	Hostname string   // of the worker
	Name     string   // of the child
	Level    int      // of the log
	Tasks    []string // to initialise; nil: all
	Memory   bool     // its memory is wanted after each run
}

// conclusion is a run that cannot speak for itself.
type conclusion struct {
	Delivery delivery
	Outcome  outcome
}

// reply tells whether the end of a run was kept, or may be.
type reply struct {
	Run    int
	Why    *fault // nil: it was
	Counts bool   // to ask: the message does not come again
	Won    []bool // to finish: which ends of chords were its own
}

// cancelled tells that a run is to end. Runs are counted by both sides.
type cancelled struct {
	Run int
	Why fault
}

// usage is what a child tells at the end of a run.
type usage struct {
	Memory  int    // KiB
	Refused string // why the message could not be run at all
}
