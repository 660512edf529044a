package lovage_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	celerydata "github.com/lovage-go/lovage/internal/golden"
	"github.com/lovage-go/lovage/memory"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/serializer"
)

const fuzzLimit = 1 << 16

// FuzzReceive sends headers and body of any bytes along the whole way that a
// worker sends them: read, bound, run, its effects built. Nothing may panic,
// nothing may be accepted that is no request of an accepted type, and what is
// accepted can be sent again as it came.
func FuzzReceive(f *testing.F) {
	for _, dir := range []string{"protocol/testdata/golden/messages", "protocol/testdata/golden/v5.2/messages"} {
		list, n, err := celerydata.Messages(dir)
		if err != nil || n == 0 {
			f.Fatalf("%s: %d files, %v", dir, n, err)
		}
		for _, m := range list {
			f.Add([]byte(m.Headers), m.Body, m.ContentType)
		}
	}
	for _, b := range []string{`[["a", 1.5, null], {"k": [NaN]}, {"chord": null}]`, `[[], {}]`, `[[`, "\x80\x02."} {
		f.Add([]byte(goodHeaders), []byte(b), "application/json")
	}
	var ran bool
	store := memory.New()
	app := lovage.New("fuzz", lovage.Config{TaskMaxMessageSize: fuzzLimit}, lovage.WithLogger(slog.New(slog.DiscardHandler)),
		lovage.WithBroker(func(context.Context) (broker.Conn, error) { return store.Broker(), nil }),
		lovage.WithBackend(func(context.Context) (backend.Backend, error) { return store.Backend(), nil }))
	lovage.Func(app, "t.add", func(_ context.Context, in lovage.Args) (int, error) {
		ran = true
		return len(in.Positional), nil
	})
	f.Fuzz(func(t *testing.T, headers, body []byte, contentType string) {
		d := &broker.Delivery{Headers: headers, Body: body, Queue: "celery",
			Properties: protocol.Properties{ContentType: contentType, ContentEncoding: "utf-8"}}
		r, err := app.Receive(d)
		if err != nil {
			me, ok := errors.AsType[*lovage.MessageError](err)
			if !ok || r != nil || me.Err == nil || !known(me.Kind) || len(me.Error()) > fuzzLimit {
				t.Fatalf("a refusal must be a *MessageError of a known kind, got %T %v", err, err)
			}
			return
		}
		if r.ID == "" || r.Task == "" || len(body) > fuzzLimit || !strings.HasPrefix(strings.ToLower(strings.TrimSpace(contentType)), "application/json") {
			t.Fatalf("accepted %q of type %q as task %q, id %q", body, contentType, r.Task, r.ID)
		}
		limits := serializer.Limits{MaxBytes: fuzzLimit}
		for _, raw := range [][]byte{r.Args, r.Kwargs} {
			if err := limits.CheckJSON(raw); err != nil {
				t.Fatalf("accepted arguments %q: %v", raw, err)
			}
		}
		if args := strings.TrimSpace(string(r.Args)); args[0] != '[' {
			t.Fatalf("accepted %q as a list of arguments", args)
		}
		if kwargs := strings.TrimSpace(string(r.Kwargs)); kwargs[0] != '{' {
			t.Fatalf("accepted %q as keyword arguments", kwargs)
		}
		r.Describe()
		run(t, app, r, &ran)
	})
}

func known(kind string) bool {
	switch kind {
	case lovage.Malformed, lovage.NotAccepted, lovage.TooLarge, lovage.Unsupported:
		return true
	}
	return false
}

// run executes a request that was accepted: it runs if it is for a task of ours,
// and its effects can be stored and sent.
func run(t *testing.T, app *lovage.App, r *lovage.Request, ran *bool) {
	*ran = false
	finished := false
	out := app.Execute(t.Context(), r, lovage.FinisherFunc(func(_ context.Context, e *lovage.Effects) error {
		finished = true
		for _, m := range e.Publish {
			h := m.Headers.AppendJSON(nil)
			if _, err := protocol.ParseHeaders(h); err != nil {
				t.Fatalf("a follow-up has headers %q: %v", h, err)
			}
		}
		for _, rec := range e.Store {
			if !json.Valid(rec.Meta) {
				t.Fatalf("a record that is no JSON: %q", rec.Meta)
			}
		}
		return nil
	}))
	if out.Info != nil && out.Info.Type == "Panic" || !finished {
		t.Fatalf("%s ended with %+v, finished %t", r.Task, out, finished)
	}
	if *ran != (r.Task == "t.add") {
		t.Fatalf("%s: ran %t", r.Task, *ran)
	}
	switch out.State {
	case lovage.Success:
	case lovage.Failure: // of a task unknown here, or by what follows it
	case lovage.StateRetry: // celery.chord_unlock
		if r.Task == "t.add" {
			t.Fatalf("%s ended as %q", r.Task, out.State)
		}
	default:
		t.Fatalf("%s ended as %q with %+v", r.Task, out.State, out.Info)
	}
}
