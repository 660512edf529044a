package prefork

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
)

const (
	maxLine  = 64 << 10
	maxTrace = 256 << 10
)

// output is what a child writes to its standard output and error. Each line
// goes to the log with the run that wrote it; what the Go runtime says when it
// dies is kept together, and told with the death.
type output struct {
	file *os.File
	raw  syscall.RawConn     // of file
	log  func() *slog.Logger // with the run that goes on

	mu    sync.Mutex // guards what follows; held from read to log
	part  []byte     // a line without its end
	trace []byte     // since the first line of a crash
	buf   [4 << 10]byte
}

func newOutput(file *os.File, log func() *slog.Logger) (*output, error) {
	raw, err := file.SyscallConn()
	return &output{file: file, raw: raw, log: log}, err
}

// run reads until the child's end, and all that it has started, is gone, or
// the file is closed.
func (o *output) run() {
	var err error
	for over := false; !over && err == nil; {
		err = o.raw.Read(func(fd uintptr) bool {
			// Read here, under the lock: what there is is then either unread or in
			// the log when drain looks.
			o.mu.Lock()
			defer o.mu.Unlock()
			var more bool
			more, over = o.read(fd)
			return more || over
		})
	}
}

// read takes one piece; over says that there will be none any more. The caller
// holds mu.
func (o *output) read(fd uintptr) (more, over bool) {
	n, over := readNow(int(fd), o.buf[:])
	if n > 0 {
		o.take(o.buf[:n])
	}
	return n > 0, over
}

// drain takes what was written so far. The caller holds mu.
func (o *output) drain() {
	_ = o.raw.Control(func(fd uintptr) {
		for more := true; more; {
			more, _ = o.read(fd)
		}
	})
}

// end tells what a run has written and not ended with a line.
func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drain()
	if len(o.trace) > 0 { // it looked like a crash and was none
		o.tell(o.trace)
		o.trace = nil
	}
	if len(o.part) > 0 {
		o.tell(o.part)
		o.part = o.part[:0]
	}
}

// last is the end of a dead child's output: what the runtime said of its death.
func (o *output) last() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drain()
	if len(o.part) > 0 {
		o.line(o.part)
		o.part = nil
	}
	t := string(o.trace)
	o.trace = nil
	return t
}

// take cuts what was read into lines. The caller holds mu.
func (o *output) take(b []byte) {
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			break
		}
		o.part = append(o.part, b[:i]...)
		o.line(o.part)
		o.part, b = o.part[:0], b[i+1:]
	}
	o.part = append(o.part, b...)
	if len(o.part) > maxLine {
		o.line(o.part)
		o.part = o.part[:0]
	}
}

// dying are how the runtime begins its last words.
var dying = [][]byte{[]byte("panic: "), []byte("fatal error: "), []byte("runtime: "), []byte("SIG"), []byte("unexpected fault address ")}

// maxCause is how much of it is told with the status.
const maxCause = 200

// cause is what the runtime called the death, in brackets; nothing without a trace.
func cause(trace string) string {
	if trace == "" {
		return ""
	}
	first, _, _ := strings.Cut(trace, "\n")
	for line := range strings.Lines(trace) {
		// "runtime: goroutine stack exceeds ..." comes before "fatal error: stack overflow".
		if !strings.HasPrefix(line, "runtime: ") {
			first = strings.TrimSpace(line)
			break
		}
	}
	if len(first) > maxCause {
		first = strings.ToValidUTF8(first[:maxCause], "") + "..."
	}
	return " (" + first + ")"
}

func (o *output) line(b []byte) {
	begins := len(o.trace) > 0
	for _, d := range dying {
		begins = begins || bytes.HasPrefix(b, d)
	}
	switch {
	case !begins:
		o.tell(b)
	case len(o.trace)+len(b) < maxTrace:
		o.trace = append(append(o.trace, b...), '\n')
	}
}

func (o *output) tell(b []byte) {
	if text := string(bytes.TrimRight(b, "\r\n")); text != "" {
		o.log().Warn(text)
	}
}
