package events_test

import (
	"testing"
	"time"

	"github.com/lovage-go/lovage/events"
)

// BenchmarkPublish is what one task-succeeded costs the worker, its share of the
// flush included.
func BenchmarkPublish(b *testing.B) {
	h := new(hub)
	d := events.NewDispatcher(events.Config{Conn: h, Hostname: "celery@host", PID: 1, Enabled: true})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		d.Publish(events.TaskSucceeded, "bedf3932-fb3c-4765-a442-193e4e606bd9", events.SucceededFields("5", time.Millisecond))
		if i%240 == 239 {
			if err := d.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
			h.accepted = nil
		}
	}
}

// BenchmarkParse reads the longest batch that was recorded from Celery.
func BenchmarkParse(b *testing.B) {
	var body []byte
	for _, g := range readGolden(b) {
		if g.RoutingKey == "task.multi" && len(g.Body) > len(body) {
			body = []byte(g.Body)
		}
	}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := events.Parse(body); err != nil {
			b.Fatal(err)
		}
	}
}
