package lovage

import (
	"encoding/json"
	"errors"
	"strconv"

	"github.com/lovage-go/lovage/internal/bind"
	"github.com/lovage-go/lovage/internal/jsontext"
	"github.com/lovage-go/lovage/internal/saferepr"
	"github.com/lovage-go/lovage/internal/settings"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/serializer"
)

// State is the state of a task; see the constants.
type State = protocol.State

// Number is a number met where the type is open: it keeps its text, so that 1
// and 1.0 stay apart.
type Number = serializer.Number

// The states that Celery knows.
const (
	Pending      = protocol.Pending
	Received     = protocol.Received
	Started      = protocol.Started
	Success      = protocol.Success
	Failure      = protocol.Failure
	Revoked      = protocol.Revoked
	Rejected     = protocol.Rejected
	StateRetry   = protocol.Retry
	StateIgnored = protocol.Ignored
)

// jsonCodec has no limit of bytes: what it reads has passed task_max_message_size
// or lies in the result store, and in memory already.
var jsonCodec = serializer.NewJSON(serializer.Limits{MaxBytes: -1})

func eachElement(raw json.RawMessage, f func(int, []byte) error) error {
	if len(raw) == 0 {
		return nil
	}
	return jsontext.ScanArray(raw, f)
}

func eachMember(raw json.RawMessage, f func(string, []byte) error) error {
	if len(raw) == 0 {
		return nil
	}
	return jsontext.ScanObject(raw, func(key, value []byte) error { return f(string(key), value) })
}

// argumentError gives a binding error the type that Python raises for it.
func argumentError(err error) error {
	return &TaskError{Type: "TypeError", Module: "builtins", Args: []any{err.Error()}, Cause: err}
}

// unbound is argumentError for the arguments of a message that its own task does
// not take, as against those of a call that the task's body makes.
func (d *Definition) unbound(err error) error {
	return &TaskError{Type: "TypeError", Module: "builtins", Args: []any{err.Error()}, Cause: err, unboundTo: d}
}

// refused reports whether a run ended because its arguments did not fit.
func (d *Definition) refused(err error) bool {
	var te *TaskError
	return errors.As(err, &te) && te.unboundTo == d
}

var _ error = (*bind.Error)(nil)

func pyRepr(v any) string { return saferepr.Repr(v, defaultReprSize) }

// suggest ends an error text with the known name that is closest.
func suggest(name string, known []string) string {
	if near := settings.Closest(name, known); near != "" {
		return ": did you mean " + strconv.Quote(near) + "?"
	}
	return ""
}
