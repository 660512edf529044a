package control_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/lovage-go/lovage/control"
	"github.com/lovage-go/lovage/protocol"
)

// recorded is one exchange of real Celery processes on Redis.
type recorded struct {
	Name              string
	Requests, Replies []wire
}

type wire struct{ Headers, Body json.RawMessage }

// recordings loads all golden files.
func recordings(t testing.TB) (list []recorded) {
	t.Helper()
	files, err := filepath.Glob("testdata/golden/*.json")
	if err != nil || len(files) != 63 {
		t.Fatalf("golden files: got %d (%v), want 63", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var f struct{ Requests, Replies []struct{ Raw string } }
		if err := json.Unmarshal(text, &f); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		r := recorded{Name: strings.TrimSuffix(filepath.Base(file), ".json")}
		for i, raw := range append(f.Requests, f.Replies...) {
			var e struct {
				Body    string
				Headers json.RawMessage
			}
			if err := json.Unmarshal([]byte(raw.Raw), &e); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			body, err := base64.StdEncoding.DecodeString(e.Body)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if i < len(f.Requests) {
				r.Requests = append(r.Requests, wire{e.Headers, body})
			} else {
				r.Replies = append(r.Replies, wire{e.Headers, body})
			}
		}
		list = append(list, r)
	}
	return list
}

func TestGoldenRequestsAndReplies(t *testing.T) {
	t.Parallel()
	requests, replies := 0, 0
	for _, r := range recordings(t) {
		for _, w := range r.Requests {
			requests++
			q, err := control.ParseRequest(w.Headers, w.Body)
			if err != nil {
				t.Errorf("%s: %v", r.Name, err)
				continue
			}
			m, err := q.Message()
			same(t, r.Name+" request", w, m, err, 2)
		}
		for _, w := range r.Replies {
			replies++
			p, err := control.ParseReply(w.Headers, w.Body)
			if err != nil {
				t.Errorf("%s: %v", r.Name, err)
				continue
			}
			m, err := p.Message()
			same(t, r.Name+" reply", w, m, err, 1)
		}
	}
	if requests < 63 || replies < 90 {
		t.Errorf("compared %d requests and %d replies, want at least 63 and 90", requests, replies)
	}
}

// same holds an encoded message against the recorded one, as decoded JSON.
func same(t *testing.T, name string, want wire, got *protocol.Message, err error, mode int) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if g, w := decoded(t, got.Body), decoded(t, want.Body); !reflect.DeepEqual(g, w) {
		t.Errorf("%s: body: got %s, want %s", name, got.Body, want.Body)
	}
	g, _ := decoded(t, got.Headers.AppendJSON(nil)).(map[string]any)
	w, _ := decoded(t, want.Headers).(map[string]any)
	ge, _ := g["expires"].(float64)
	we, _ := w["expires"].(float64)
	if math.Abs(ge-we) > 2e-6 {
		t.Errorf("%s: expires: got %f, want %f", name, ge, we)
	}
	delete(g, "expires")
	delete(w, "expires")
	if !reflect.DeepEqual(g, w) {
		t.Errorf("%s: headers: got %v, want %v", name, g, w)
	}
	p := got.Properties
	if p.DeliveryMode != mode || p.ContentType != "application/json" || p.ContentEncoding != "utf-8" {
		t.Errorf("%s: properties: got %+v, want JSON in utf-8 with delivery mode %d", name, p, mode)
	}
}

func decoded(t testing.TB, raw []byte) (v any) {
	t.Helper()
	raw = bytes.ReplaceAll(raw, []byte(`: Infinity`), []byte(`: null`)) // Python's, and no JSON
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return v
}

func TestBadMessages(t *testing.T) {
	t.Parallel()
	for _, body := range []string{``, `{`, `[]`, `null`, `{"method": ""}`, `{"method": 3}`, `{"method": "ping", "destination": "a"}`,
		`{"method": "ping", "reply_to": []}`, strings.Repeat("[", 100_000)} {
		if q, err := control.ParseRequest([]byte(`{}`), []byte(body)); err == nil {
			t.Errorf("request %.40q: got %+v, want an error", body, q)
		}
	}
	for _, body := range []string{``, `[]`, `null`, `{}`, `{"a": 1, "b": 2}`} {
		if r, err := control.ParseReply([]byte(`{}`), []byte(body)); err == nil {
			t.Errorf("reply %.40q: got %+v, want an error", body, r)
		}
	}
	q, err := control.ParseRequest([]byte(`{"clock": "x", "expires": null}`), []byte(`{"method": "ping"}`))
	if err != nil || q.Clock != 0 || !q.Expires.IsZero() {
		t.Errorf("headers of other types: got %+v, %v; want them as if absent", q, err)
	}
}

func FuzzParseRequest(f *testing.F) {
	for _, r := range recordings(f) {
		for _, w := range r.Requests {
			f.Add([]byte(w.Headers), []byte(w.Body))
		}
	}
	f.Fuzz(func(t *testing.T, headers, body []byte) {
		q, err := control.ParseRequest(headers, body)
		if err != nil {
			return
		}
		m, err := q.Message()
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if _, err := control.ParseRequest(m.Headers.AppendJSON(nil), m.Body); err != nil {
			t.Fatalf("%s became %s: %v", body, m.Body, err)
		}
	})
}
