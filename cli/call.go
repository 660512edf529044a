package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/settings"
)

// callFlags are the flags of call.
type callFlags struct {
	args, kwargs                string
	eta, expires                string
	countdown                   float64
	serializer                  string
	queue, exchange, routingKey string
	wait                        waitFlag
	json                        bool
}

func (s *session) callCommand() *cobra.Command {
	var f callFlags
	cmd := &cobra.Command{
		Use:   "call NAME",
		Short: "Call a task by name.",
		Long: "Call a task by name and print its id. The task need not be known to this program: a worker runs it, " +
			"written in Go or in Python. With --wait, print its result instead.",
		Args: oneArg("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error { return s.call(cmd, args[0], &f) },
	}
	g := group{cmd.Flags(), "Calling Options"}
	g.text(&f.args, "args", "a", "JSON ARRAY", "Positional arguments.")
	g.text(&f.kwargs, "kwargs", "k", "JSON OBJECT", "Keyword arguments.")
	g.text(&f.eta, "eta", "", "ISO-8601", "scheduled time.")
	g.float(&f.countdown, "countdown", "", "FLOAT", "eta in seconds from now.")
	g.text(&f.expires, "expires", "", "ISO-8601 OR FLOAT", "expiry time.")
	g.text(&f.serializer, "serializer", "", "TEXT", "task serializer.")
	g.title = "Routing Options"
	g.text(&f.queue, "queue", "", "TEXT", "custom queue name.")
	g.text(&f.exchange, "exchange", "", "TEXT", "custom exchange name.")
	g.text(&f.routingKey, "routing-key", "", "TEXT", "custom routing key.")
	g.title = "Result Options"
	g.waiting(&f.wait)
	g.json(&f.json)
	return cmd
}

func (s *session) call(cmd *cobra.Command, name string, f *callFlags) error {
	in, err := callArgs(cmd, f)
	if err != nil {
		return err
	}
	opts, err := callOptions(cmd, f)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	known := s.app.TaskNames()
	if near := settings.Closest(name, known); near != "" && near != name {
		s.note("%s is not a task of this program; its closest is %s", name, near)
	}
	if f.wait.given {
		if _, err := s.app.Backend(ctx); err != nil {
			return fmt.Errorf("--wait: %w", err)
		}
	}
	res, err := s.app.Send(ctx, name, in, opts...)
	if err != nil {
		return err
	}
	if f.wait.given {
		if !f.json {
			s.note("task id %s", res.ID())
		}
		return s.await(ctx, res, f.wait, outcomeFlags{json: f.json})
	}
	if f.json {
		return s.printJSON(struct {
			TaskID string `json:"task_id"`
			Task   string `json:"task"`
		}{res.ID(), name})
	}
	_, err = fmt.Fprintln(s.out, res.ID())
	return err
}

// callArgs reads -a and -k. The values stay the text they were given as.
func callArgs(cmd *cobra.Command, f *callFlags) (in lovage.Args, err error) {
	if f.args != "" {
		var list []json.RawMessage
		if err := json.Unmarshal([]byte(f.args), &list); err != nil {
			return in, usagef(cmd, "Invalid value for -a / --args: %s: want a JSON array such as '[2, 2]'.", jsonMistake(err))
		}
		for _, v := range list {
			in.Positional = append(in.Positional, v)
		}
	}
	if f.kwargs != "" {
		var object map[string]json.RawMessage
		if err := json.Unmarshal([]byte(f.kwargs), &object); err != nil {
			return in, usagef(cmd, "Invalid value for -k / --kwargs: %s: want a JSON object such as '{\"x\": 2}'.", jsonMistake(err))
		}
		in.Keyword = make(map[string]any, len(object))
		for k, v := range object {
			in.Keyword[k] = v
		}
	}
	return in, nil
}

// jsonMistake says in words what json says in Go's.
func jsonMistake(err error) string {
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		return "it is a JSON " + kind.Value
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

func callOptions(cmd *cobra.Command, f *callFlags) ([]lovage.CallOption, error) {
	var opts []lovage.CallOption
	if cmd.Flags().Changed("eta") && cmd.Flags().Changed("countdown") {
		return nil, usagef(cmd, "Give --eta or --countdown, not both.")
	}
	if f.eta != "" {
		at, err := parseTime(f.eta)
		if err != nil {
			return nil, usagef(cmd, "Invalid value for --eta: %v.", err)
		}
		opts = append(opts, lovage.ETA(at))
	}
	if cmd.Flags().Changed("countdown") {
		d, ok := seconds(f.countdown)
		if !ok {
			return nil, usagef(cmd, "Invalid value for --countdown: %v: want seconds, 0 or more.", f.countdown)
		}
		opts = append(opts, lovage.Countdown(d))
	}
	if f.expires != "" {
		if n, err := strconv.ParseFloat(f.expires, 64); err == nil {
			d, ok := seconds(n)
			if !ok {
				return nil, usagef(cmd, "Invalid value for --expires: %v: want seconds, 0 or more.", f.expires)
			}
			opts = append(opts, lovage.Expires(d))
		} else {
			at, err := parseTime(f.expires)
			if err != nil {
				return nil, usagef(cmd, "Invalid value for --expires: %v, or seconds from now.", err)
			}
			opts = append(opts, lovage.ExpiresAt(at))
		}
	}
	for _, o := range []struct {
		value string
		make  func(string) lovage.Option
	}{{f.serializer, lovage.Serializer}, {f.queue, lovage.Queue}, {f.exchange, lovage.Exchange}, {f.routingKey, lovage.RoutingKey}} {
		if o.value != "" {
			opts = append(opts, o.make(o.value))
		}
	}
	return opts, nil
}

// parseTime reads ISO 8601 as Celery does; without a zone it is local time.
func parseTime(text string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q: want a time such as %s", text, "2026-12-31T23:59:59Z")
}

// seconds is a duration of n seconds; ok is false for what is none.
func seconds(n float64) (d time.Duration, ok bool) {
	const most = float64(1<<63-1) / 2 / float64(time.Second)
	if !(n >= 0 && n <= most) {
		return 0, false
	}
	return time.Duration(n * float64(time.Second)), true
}

// await waits for a result and prints it.
func (s *session) await(ctx context.Context, res *lovage.Result[any], w waitFlag, f outcomeFlags) error {
	if w.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, w.limit, errWaited)
		defer cancel()
	}
	meta, err := res.Wait(ctx, func(m *lovage.Meta) bool { return m.Status.Ready() })
	switch {
	case err == nil:
		return s.printOutcome(meta, f)
	case errors.Is(context.Cause(ctx), errWaited):
		return exitf(ExitUnavailable, "task %s has not ended within %s: ask again with '%s result %s'", res.ID(), w.limit, s.name, res.ID())
	}
	return err
}

var errWaited = errors.New("waited long enough")
