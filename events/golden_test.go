package events_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage/events"
)

type golden struct {
	RecordedAs      string            `json:"recorded_as"`
	RoutingKey      string            `json:"routing_key"`
	Headers         map[string]string `json:"headers"`
	ContentType     string            `json:"content_type"`
	ContentEncoding string            `json:"content_encoding"`
	DeliveryMode    int               `json:"delivery_mode"`
	Body            string            `json:"body"`
}

func readGolden(t testing.TB) []golden {
	t.Helper()
	var all []golden
	for _, name := range []string{"redis.json", "amqp.json"} {
		text, err := os.ReadFile(filepath.Join("testdata", "golden", name))
		if err != nil {
			t.Fatal(err)
		}
		var list []golden
		if err := json.Unmarshal(text, &list); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, list...)
	}
	return all
}

// plain decodes JSON with numbers as floats, so that 2 and 2.0 are equal.
func plain(t testing.TB, text []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

func TestGoldenEventsSurviveARoundTrip(t *testing.T) {
	t.Parallel()
	if n := len(readGolden(t)); n != 74 {
		t.Fatalf("got %d messages, want the 74 that were recorded", n)
	}
	seen := map[string]int{}
	for _, g := range readGolden(t) {
		list, err := events.Parse([]byte(g.Body))
		if err != nil {
			t.Fatalf("%s: %v", g.RecordedAs, err)
		}
		batch := strings.HasPrefix(g.Body, "[")
		var out []byte
		for i, e := range list {
			seen[e.Type]++
			if i > 0 {
				out = append(out, ',')
			}
			if out, err = e.AppendJSON(out); err != nil {
				t.Fatalf("%s: %v", g.RecordedAs, err)
			}
			if e.Hostname != g.Headers["hostname"] || e.PID == 0 || e.Clock == 0 {
				t.Errorf("%s: common fields are %q pid %d clock %d", g.RecordedAs, e.Hostname, e.PID, e.Clock)
			}
			if at := e.Time(); at.Format("2006-01-02") != "2026-11-21" {
				t.Errorf("%s: time is %v", g.RecordedAs, at)
			}
			want := events.RoutingKey(e.Type)
			if batch {
				want = events.MultiKey(events.Group(e.Type))
			}
			if g.RoutingKey != want {
				t.Errorf("%s: routing key is %q, Celery's was %q", e.Type, want, g.RoutingKey)
			}
		}
		if batch {
			out = append(append([]byte{'['}, out...), ']')
		}
		if got, want := plain(t, out), plain(t, []byte(g.Body)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %s\nwant %s", g.RecordedAs, out, g.Body)
		}
	}
	for _, typ := range []string{
		events.TaskSent, events.TaskReceived, events.TaskStarted, events.TaskSucceeded, events.TaskFailed,
		events.TaskRejected, events.TaskRevoked, events.TaskRetried,
		events.WorkerOnline, events.WorkerHeartbeat, events.WorkerOffline, events.WorkerElect, events.WorkerElectAck,
		"my-custom-event", "task-progress-step",
	} {
		if seen[typ] == 0 {
			t.Errorf("no golden event of type %s was seen", typ)
		}
	}
}

// keys of the fields that are an event's own.
func keys(fields map[string]any) map[string]bool {
	m := map[string]bool{}
	for k := range fields {
		m[k] = true
	}
	return m
}

func TestFieldSetsAreCelerys(t *testing.T) {
	t.Parallel()
	info := events.TaskInfo{Name: "demo.tasks.add", Args: "(2, 3)", Kwargs: "{}", RootID: "r"}
	ours := map[string]map[string]any{
		events.TaskSent:        events.SentFields(info, "celery", "", "celery"),
		events.TaskReceived:    events.ReceivedFields(info),
		events.TaskStarted:     nil,
		events.TaskSucceeded:   events.SucceededFields("5", time.Second),
		events.TaskFailed:      events.FailedFields("ValueError('boom')", "Traceback"),
		events.TaskRetried:     events.FailedFields("AppError('not yet')", "Traceback"),
		events.TaskRevoked:     events.RevokedFields(true, 15, false),
		events.TaskRejected:    events.RejectedFields(false),
		events.WorkerOnline:    events.WorkerInfo{}.Fields(),
		events.WorkerHeartbeat: events.WorkerInfo{}.Fields(),
		events.WorkerOffline:   events.WorkerInfo{}.Fields(),
	}
	compared := map[string]bool{}
	for _, g := range readGolden(t) {
		list, err := events.Parse([]byte(g.Body))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			fields, known := ours[e.Type]
			_, traced := e.Fields["traceback"]
			if !known || e.Type == events.TaskFailed && !traced {
				continue // Celery sends no traceback for a task it does not know
			}
			compared[e.Type] = true
			if got, want := keys(fields), keys(e.Fields); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: fields are %v, Celery's %v", e.Type, got, want)
			}
		}
	}
	if len(compared) != len(ours) {
		t.Errorf("compared %d types, want %d: %v", len(compared), len(ours), compared)
	}
}
