package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lovage-go/lovage"
)

// outcomeFlags say how a result is printed.
type outcomeFlags struct{ traceback, json bool }

func (s *session) resultCommand() *cobra.Command {
	var (
		f    outcomeFlags
		wait waitFlag
		task string
	)
	cmd := &cobra.Command{
		Use:   "result TASK_ID",
		Short: "Print the return value for a given task id.",
		Long: "Print the return value for a given task id, as it is stored now; --wait waits for it. " +
			"A task that failed prints its error and exits with 1, one that has not ended with 69.",
		Args: oneArg("TASK_ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			res := s.app.Result(args[0])
			if wait.given {
				return s.await(cmd.Context(), res, wait, f)
			}
			meta, err := res.Meta(cmd.Context())
			if err != nil {
				return err
			}
			return s.printOutcome(meta, f)
		},
	}
	g := group{cmd.Flags(), "Result Options"}
	g.text(&task, "task", "t", "TEXT", "Name of the task. Accepted for Celery's sake: results are found by id alone.")
	g.flag(&f.traceback, "traceback", "", "Show traceback instead.")
	g.waiting(&wait)
	g.json(&f.json)
	return cmd
}

// outcome is a result as JSON: the record's own words.
type outcome struct {
	TaskID    string          `json:"task_id"`
	Status    lovage.State    `json:"status"`
	Result    json.RawMessage `json:"result"`
	Traceback *string         `json:"traceback"`
	DateDone  *string         `json:"date_done"`
}

// printOutcome prints a record; its state decides the exit code.
func (s *session) printOutcome(m *lovage.Meta, f outcomeFlags) error {
	code := exitCode(m)
	if f.json {
		o := outcome{TaskID: m.TaskID, Status: m.Status, Result: m.Result}
		if len(o.Result) == 0 {
			o.Result = json.RawMessage("null")
		}
		if m.Traceback != "" {
			o.Traceback = &m.Traceback
		}
		if m.DateDone != "" {
			o.DateDone = &m.DateDone
		}
		if err := s.printJSON(o); err != nil {
			return err
		}
		if code != ExitOK {
			return exitf(code, "task %s: %s", m.TaskID, m.Status)
		}
		return nil
	}
	if f.traceback {
		if m.Traceback == "" && code == ExitOK {
			s.note("task %s (%s) has no traceback", m.TaskID, m.Status)
			return nil
		}
		if m.Traceback == "" {
			return exitf(code, "task %s (%s) has no traceback", m.TaskID, m.Status)
		}
		_, err := fmt.Fprintln(s.out, strings.TrimRight(m.Traceback, "\n"))
		return err
	}
	if m.Status == lovage.Success {
		_, err := fmt.Fprintln(s.out, resultText(m.Result))
		return err
	}
	if !m.Status.Ready() {
		return s.unready(m)
	}
	_, err := lovage.DecodeResult[any](m)
	var te *lovage.TaskError
	if errors.As(err, &te) {
		return exitf(code, "task %s: %s: %w", m.TaskID, m.Status, te)
	}
	return exitf(code, "task %s: %s", m.TaskID, m.Status)
}

// unready explains a task without a result.
func (s *session) unready(m *lovage.Meta) error {
	switch {
	case m.Status == lovage.Pending:
		return exitf(ExitUnavailable, "task %s is PENDING: it has not started, its result is ignored or expired, or there is no such task", m.TaskID)
	case len(m.Result) > 0 && string(m.Result) != "null":
		return exitf(ExitUnavailable, "task %s is %s: %s", m.TaskID, m.Status, resultText(m.Result))
	}
	return exitf(ExitUnavailable, "task %s is %s", m.TaskID, m.Status)
}

func exitCode(m *lovage.Meta) int {
	switch {
	case m.Status == lovage.Success:
		return ExitOK
	case m.Status.Ready():
		return ExitFailure
	}
	return ExitUnavailable
}

// resultText is a value as a shell wants it: a string bare, the rest as JSON.
func resultText(raw json.RawMessage) string {
	var text string
	if len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &text) == nil {
		return text
	}
	if len(raw) == 0 {
		return "null"
	}
	return string(raw)
}
