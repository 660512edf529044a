package lovagetest

import (
	"encoding/json"
	"reflect"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/protocol"
)

// Sent is a task message that was sent: by a call, or as a follow-up of a run.
type Sent struct {
	ID      string
	Task    string
	Queue   string          // or the routing key, where no queue was named
	Args    json.RawMessage // positional arguments, a JSON array
	Kwargs  json.RawMessage // keyword arguments, a JSON object
	ETA     time.Time       // zero: at once
	Retries int
	Message *protocol.Message
}

func (x *App) record(e lovage.AfterTaskPublish) {
	m := e.Message
	s := Sent{ID: m.Headers.ID, Task: e.Task, Queue: m.Queue, ETA: m.NotBefore, Retries: m.Headers.Retries, Message: m}
	if s.Queue == "" {
		s.Queue = m.RoutingKey
	}
	if body, err := protocol.ParseBody(m.Body); err == nil { // a compressed body stays closed
		s.Args, s.Kwargs = body.Args, body.Kwargs
	}
	x.mu.Lock()
	x.sent = append(x.sent, s)
	x.mu.Unlock()
}

// Sent lists what was sent under a task's name so far, in order; "" lists all.
func (x *App) Sent(task string) []Sent {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []Sent
	for _, s := range x.sent {
		if task == "" || s.Task == task {
			out = append(out, s)
		}
	}
	return out
}

// WantSent fails the test unless exactly times messages of a task were sent, and
// returns them.
func (x *App) WantSent(task string, times int) []Sent {
	x.t.Helper()
	got := x.Sent(task)
	if len(got) != times {
		x.t.Errorf("messages sent for task %q: got %d, want %d; all that was sent: %v", task, len(got), times, x.names())
	}
	return got
}

// WantSentWith fails the test unless a message of a task was sent with these
// positional arguments, compared as JSON, and returns the first such message.
func (x *App) WantSentWith(task string, args ...any) Sent {
	x.t.Helper()
	text, err := json.Marshal(append([]any{}, args...))
	if err != nil {
		x.t.Fatalf("lovagetest: the wanted arguments are no JSON: %v", err)
	}
	list := x.Sent(task)
	for _, s := range list {
		if sameJSON(s.Args, text) {
			return s
		}
	}
	got := make([]string, len(list))
	for i, s := range list {
		got[i] = string(s.Args)
	}
	x.t.Errorf("message for task %q: got args %v, want %s", task, got, text)
	return Sent{}
}

// Forget empties the record of what was sent.
func (x *App) Forget() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.sent = nil
}

func (x *App) names() []string {
	var names []string
	for _, s := range x.Sent("") {
		names = append(names, s.Task)
	}
	return names
}

func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}
