package lovage

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/lovage-go/lovage/protocol"
)

// Causes of a run's context, and other errors of the runtime. Match with errors.Is.
var (
	// ErrSoftTimeLimit is the cause of a run's context at its soft time limit.
	ErrSoftTimeLimit = errors.New("soft time limit exceeded")
	// ErrTimeLimit is the cause of a run's context at its hard time limit.
	ErrTimeLimit = errors.New("hard time limit exceeded")
	// ErrRevoked is the cause of a run's context when the task is terminated.
	ErrRevoked = errors.New("task revoked")
	// ErrShutdown is the cause of a run's context when the worker stops and
	// will not wait longer. A task that returns an error then, and acks late,
	// goes back to its queue.
	ErrShutdown = errors.New("worker shutting down")
	// ErrLeaseLost is the cause of a run's context when its message has gone to
	// another worker: this one was out of touch for too long.
	ErrLeaseLost = errors.New("message lease lost")

	// ErrIgnore, returned by Run, ends the task without storing any state.
	ErrIgnore = errors.New("ignore")
	// ErrGetInTask is returned by Get inside a run: waiting there for other
	// tasks can deadlock the pool. Use AllowJoin where it cannot.
	ErrGetInTask = errors.New("lovage: Get inside a task blocks a worker slot: use a link or a chord, or AllowJoin(ctx)")
	// ErrNoBackend is returned where a result is wanted and no store is configured.
	ErrNoBackend = errors.New("lovage: no result backend: set result_backend (for example sqlite:///path/to/file.db)")
	// ErrNotRegistered is the error for a task name that this App does not know.
	ErrNotRegistered = errors.New("task is not registered")
	// ErrClosed is returned by an App after Close.
	ErrClosed = errors.New("lovage: the app is closed")
	// ErrMaxRetries matches the error of a task that was retried too often.
	ErrMaxRetries = errors.New("max retries exceeded")
	// ErrWorkerLost matches the error of a task whose worker died.
	ErrWorkerLost = errors.New("worker lost")
	// ErrChord matches the error of a chord's body when a member of its header
	// failed, so that the body never ran.
	ErrChord = errors.New("chord failed")
)

// TaskError is an error with the name it has on the wire. Return one to choose
// the exception that Python sees; Get returns one for a task that failed.
// A TaskError matches another by errors.Is if the target's Type, and Module if
// it names one, are equal.
type TaskError struct {
	Type      string // the exception class: "ValueError"
	Module    string // "builtins"; empty is null, which Python turns into a class made on the spot
	Args      []any  // the exception's arguments, usually one message
	Traceback string // as the worker stored it
	TaskID    string
	Cause     error // not on the wire

	unboundTo *Definition // the task that does not take its message's arguments
}

func (e *TaskError) Error() string {
	msg := e.Message()
	if msg == "" {
		return e.Type
	}
	return e.Type + ": " + msg
}

// Message is the text of the exception: its only argument, or all of them.
func (e *TaskError) Message() string {
	switch len(e.Args) {
	case 0:
		return ""
	case 1:
		return fmt.Sprint(e.Args[0])
	}
	parts := make([]string, len(e.Args))
	for i, a := range e.Args {
		if s, ok := a.(string); ok {
			parts[i] = strconv.Quote(s)
		} else {
			parts[i] = fmt.Sprint(a)
		}
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// Unwrap returns Cause.
func (e *TaskError) Unwrap() error { return e.Cause }

// Is matches by type name.
func (e *TaskError) Is(target error) bool {
	if t, ok := target.(*TaskError); ok {
		return t.Type == e.Type && (t.Module == "" || t.Module == e.Module)
	}
	s, ok := wireSentinels[e.Type]
	return ok && (e.Module == moduleCelery || e.Module == moduleBilliard) && s == target
}

const (
	moduleCelery   = "celery.exceptions"
	moduleBilliard = "billiard.exceptions"
)

// wireSentinels maps Celery's own exceptions back to errors of this package.
var wireSentinels = map[string]error{
	"SoftTimeLimitExceeded":   ErrSoftTimeLimit,
	"TimeLimitExceeded":       ErrTimeLimit,
	"TaskRevokedError":        ErrRevoked,
	"NotRegistered":           ErrNotRegistered,
	"MaxRetriesExceededError": ErrMaxRetries,
	"WorkerLostError":         ErrWorkerLost,
	"ChordError":              ErrChord,
}

// PanicError is a panic of user code, as an error.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the value if the panic was an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// RetryError is what Retry returns. Run returns it, bare or wrapped.
type RetryError struct {
	Cause error
	opts  options
	// When is the delay that was chosen. It is set in the copy that hooks and
	// signals see as ErrorInfo.Err.
	When time.Duration
}

func (e *RetryError) Error() string {
	if e.Cause != nil {
		return "retry: " + e.Cause.Error()
	}
	return "retry"
}

// Unwrap returns the cause.
func (e *RetryError) Unwrap() error { return e.Cause }

// Retry builds the error that makes Run's task run again later, with the same
// id, one retry more, and everything it carries. cause, which may be nil, is
// what fails the task once MaxRetries is exceeded.
func Retry(cause error, opts ...RetryOption) error {
	e := &RetryError{Cause: cause}
	for _, o := range opts {
		o.retry(&e.opts)
	}
	return e
}

// RejectError is what Reject returns.
type RejectError struct {
	Reason  error
	Requeue bool
}

func (e *RejectError) Error() string {
	if e.Reason != nil {
		return "reject: " + e.Reason.Error()
	}
	return "reject"
}

// Unwrap returns the reason.
func (e *RejectError) Unwrap() error { return e.Reason }

// Reject builds the error that refuses the message. With requeue it goes back
// to its queue and no state is stored; without, the task is FAILURE and the
// message a dead letter. It needs late acks: an acknowledged message is gone.
func Reject(reason error, requeue bool) error { return &RejectError{Reason: reason, Requeue: requeue} }

// ErrorInfo tells hooks, signals and logs how a run failed (Celery's einfo).
type ErrorInfo struct {
	Err       error
	Type      string // exception class on the wire
	Module    string // its module, empty for null
	Args      []any  // its arguments
	Traceback string
	Expected  bool // named by Throws
}

// Form is the error as it is stored.
func (i *ErrorInfo) Form() protocol.ErrorForm {
	f := protocol.ErrorForm{Type: i.Type}
	if i.Module != "" {
		f.Module = &i.Module
	}
	msg, err := json.Marshal(i.Args)
	if err != nil || i.Args == nil {
		texts := make([]string, len(i.Args))
		for n, a := range i.Args {
			texts[n] = fmt.Sprint(a)
		}
		msg, _ = json.Marshal(texts)
	}
	f.Message = msg
	return f
}

// Repr is the error as Python would print it: ValueError('boom').
func (i *ErrorInfo) Repr() string {
	parts := make([]string, len(i.Args))
	for n, a := range i.Args {
		parts[n] = pyRepr(a)
	}
	return i.Type + "(" + strings.Join(parts, ", ") + ")"
}

// newErrorInfo names an error for the wire. A TaskError anywhere in the tree
// names itself; the runtime's own errors have Celery's names; any other error
// has the name of its Go type.
func newErrorInfo(err error, where string) *ErrorInfo {
	info := &ErrorInfo{Err: err, Args: []any{err.Error()}}
	var te *TaskError
	var pe *PanicError
	switch {
	case errors.As(err, &te):
		info.Type, info.Module, info.Args, info.Traceback = cmp.Or(te.Type, "Error"), te.Module, te.Args, te.Traceback
	case errors.As(err, &pe):
		info.Type = "Panic"
		info.Traceback = "panic: " + fmt.Sprint(pe.Value) + "\n\n" + string(pe.Stack)
	case errors.Is(err, ErrSoftTimeLimit):
		info.Type, info.Module, info.Args = "SoftTimeLimitExceeded", moduleBilliard, []any{}
	case errors.Is(err, ErrNotRegistered):
		info.Type, info.Module = "NotRegistered", moduleCelery
	default:
		info.Type = errorTypeName(err)
	}
	if info.Traceback == "" {
		info.Traceback = traceback(err, info, where)
	}
	return info
}

// errorTypeName is the Go type name of the first error in the chain that has one
// worth showing; the anonymous wrappers of fmt and errors are looked through.
func errorTypeName(err error) string {
	name := ""
	walkErrors(err, func(e error) bool {
		t := reflect.TypeOf(e)
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		if name == "" || (t.PkgPath() != "fmt" && t.PkgPath() != "errors") {
			name = t.Name()
		}
		return t.PkgPath() != "fmt" && t.PkgPath() != "errors"
	})
	switch name {
	case "", "errorString", "wrapError", "wrapErrors", "joinError":
		return "Error"
	}
	return name
}

// traceback is the text stored beside the error. Go errors carry no stack, so
// it names the source of the body and the errors as they wrap each other, the
// outermost first.
func traceback(err error, info *ErrorInfo, where string) string {
	var b strings.Builder
	b.WriteString("Traceback (most recent call last):\n")
	fmt.Fprintf(&b, "  File \"%s\", in Run\n", where)
	last := ""
	walkErrors(err, func(e error) bool {
		if text := e.Error(); text != last {
			fmt.Fprintf(&b, "  %T: %s\n", e, text)
			last = text
		}
		return false
	})
	msg := (&TaskError{Args: info.Args}).Message()
	b.WriteString(info.Type)
	if msg != "" {
		b.WriteString(": " + msg)
	}
	b.WriteByte('\n')
	return b.String()
}

// funcWhere names the source of a function for tracebacks.
func funcWhere(v reflect.Value) string {
	if v.Kind() != reflect.Func || v.IsNil() {
		return ""
	}
	return sourceOf(v.Pointer())
}

// methodWhere names the source of a class's body, or the class where the body
// is that of an embedded type.
func methodWhere(class reflect.Type) string {
	if m, ok := class.MethodByName("Run"); ok {
		if where := sourceOf(m.Func.Pointer()); where != "" && !strings.HasPrefix(where, "<autogenerated>") {
			return where
		}
	}
	return class.String()
}

func sourceOf(pc uintptr) string {
	f := runtime.FuncForPC(pc)
	if f == nil {
		return ""
	}
	file, line := f.FileLine(pc)
	return fmt.Sprintf("%s:%d %s", file[strings.LastIndexByte(file, '/')+1:], line, f.Name())
}
