package control

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/lovage-go/lovage/internal/pyrepr"
)

func revoke(ctx context.Context, n Node, a Args) (any, error) {
	ids, err := a.Texts("task_id")
	if err != nil {
		return nil, err
	}
	end, signal, err := ending(a)
	if err != nil {
		return nil, err
	}
	ids = unique(ids)
	if end {
		return terminated(n.Terminate(ctx, signal, ids...)), nil
	}
	n.Revoke(ctx, ids...)
	if len(ids) == 0 {
		return OK("tasks set() flagged as revoked"), nil
	}
	return OK("tasks %s flagged as revoked", set(ids, repr)), nil
}

// set is a set as Python prints it.
func set(items []string, show func(string) string) string {
	shown := make([]string, len(items))
	for i, item := range items {
		shown[i] = show(item)
	}
	return "{" + strings.Join(shown, ", ") + "}"
}

// unique is the set of ids, in their first order.
func unique(ids []string) []string {
	seen := make(map[string]bool, len(ids))
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		again := seen[id]
		seen[id] = true
		return again
	})
}

// ending reads what the revoking commands have in common.
func ending(a Args) (terminate bool, signal int, err error) {
	if err := a.Decode("terminate", &terminate); err != nil {
		return false, 0, err
	}
	signal, err = signum(a)
	return terminate, signal, err
}

// signals by name are POSIX's; Celery's default is TERM.
var signals = map[string]int{"HUP": 1, "INT": 2, "QUIT": 3, "ABRT": 6, "KILL": 9, "USR1": 10, "USR2": 12, "ALRM": 14, "TERM": 15}

// signum reads a signal, which every command line of Celery's sends. A run in a
// child of a process pool gets it; one in a goroutine is cancelled, and only
// monitors are told.
func signum(a Args) (int, error) {
	names, err := a.Texts("signal")
	if err != nil || len(names) == 0 {
		return signals["TERM"], err
	}
	name := names[0]
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n < 65 {
		return n, nil
	}
	n, ok := signals[strings.TrimPrefix(strings.ToUpper(name), "SIG")]
	if !ok {
		return 0, exception("TypeError", "signal name expected, got %s", repr(name))
	}
	return n, nil
}

func terminate(ctx context.Context, n Node, a Args) (any, error) {
	ids, err := a.Texts("task_id")
	if err != nil {
		return nil, err
	}
	signal, err := signum(a)
	if err != nil {
		return nil, err
	}
	return terminated(n.Terminate(ctx, signal, unique(ids)...)), nil
}

func terminated(ids []string) any {
	if len(ids) == 0 {
		return OK("terminate: tasks unknown")
	}
	return OK("terminate: %s", strings.Join(ids, ", "))
}

// Canonical is the one text of a stamp's value, however its JSON was written.
func Canonical(raw json.RawMessage) (string, error) {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return "", err
	}
	text, err := encode(v)
	return string(text), err
}

// Stamps are the values of a stamped header: one, or a list of them.
func Stamps(raw json.RawMessage) (values []string, err error) {
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil {
		items = []json.RawMessage{raw}
	}
	for _, item := range items {
		text, err := Canonical(item)
		if err != nil {
			return nil, err
		}
		values = append(values, text)
	}
	return values, nil
}

// stampArgs reads headers: a map of values, or texts of the form name=value.
func stampArgs(a Args) (stamps map[string][]string, shown string, err error) {
	raw := a["headers"]
	var headers map[string]json.RawMessage
	if json.Unmarshal(raw, &headers) != nil {
		pairs, err := a.Texts("headers")
		if err != nil {
			return nil, "", exception("TypeError", "argument headers: want an object, or a list of name=value")
		}
		headers = map[string]json.RawMessage{}
		for _, pair := range pairs {
			name, value, ok := strings.Cut(pair, "=")
			if !ok {
				return nil, "", exception("IndexError", "list index out of range")
			}
			if headers[name], err = encode(value); err != nil {
				return nil, "", err
			}
		}
		if raw, err = encode(headers); err != nil {
			return nil, "", err
		}
	}
	stamps = make(map[string][]string, len(headers))
	for name, value := range headers {
		if stamps[name], err = Stamps(value); err != nil {
			return nil, "", exception("TypeError", "argument headers: %s: %v", name, err)
		}
	}
	return stamps, pyrepr.JSON(raw), nil
}

func revokeStamped(_ context.Context, n Node, a Args) (any, error) {
	stamps, shown, err := stampArgs(a)
	if err != nil {
		return nil, err
	}
	end, signal, err := ending(a)
	if err != nil {
		return nil, err
	}
	found := n.RevokeStamped(stamps, end, signal)
	switch {
	case !end:
		return OK("headers %s flagged as revoked, but not terminated", shown), nil
	case len(found) == 0:
		return OK("headers %s were not terminated", shown), nil
	}
	python := func(text string) string { return pyrepr.JSON(json.RawMessage(text)) }
	var items []string
	for name, values := range found {
		slices.Sort(values)
		items = append(items, repr(name)+": "+set(slices.Compact(values), python))
	}
	slices.Sort(items)
	return OK("headers defaultdict(<class 'set'>, {%s}) revoked", strings.Join(items, ", ")), nil
}

func revoked(_ context.Context, n Node, _ Args) (any, error) {
	known := n.Revoked()
	ids := make([]string, 0, len(known))
	for id := range known {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int {
		if c := known[a].Compare(known[b]); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	return ids, nil
}
