package endtoend_test

import (
	"bytes"
	"context"
	"database/sql/driver"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"modernc.org/sqlite"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/cli"
)

// alter changes the store's file behind everybody's back.
func (x *world) alter(statement string) {
	x.t.Helper()
	c, err := (&sqlite.Driver{}).Open("file:" + strings.TrimPrefix(x.url, "sqlite://") + "?_pragma=busy_timeout(10000)")
	if err != nil {
		x.t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.(driver.ExecerContext).ExecContext(x.ctx(), statement, nil); err != nil {
		x.t.Fatal(err)
	}
}

// TestBadRows are messages that no client can publish: what a broken program,
// or a broken disk, leaves in the tables.
func TestBadRows(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		statement string
		id        string
		headers   []byte
		says      []string
	}{
		"EnvelopeNoJSON":    {`UPDATE lovage_message SET envelope = CAST('{"content_type": ' AS BLOB)`, "bad-1", nil, []string{"malformed message", "envelope", mendSender}},
		"EnvelopeWrongType": {`UPDATE lovage_message SET envelope = CAST('{"content_type": 3}' AS BLOB)`, "bad-1", nil, []string{"malformed message", "envelope", "content_type", mendSender}},
		"EnvelopeEmpty":     {`UPDATE lovage_message SET envelope = x''`, "bad-1", nil, []string{"malformed message", "envelope", mendSender}},
		"HeadersNoText":     {`UPDATE lovage_message SET headers = x'fffe007b'`, "", []byte("\xff\xfe\x00{"), []string{"malformed message", "header", "UTF-8", mendSender}},
		"HeadersEmpty":      {`UPDATE lovage_message SET headers = x''`, "", []byte{}, []string{"malformed message", "header", mendSender}},
		"HeadersAList":      {`UPDATE lovage_message SET headers = CAST('[1]' AS BLOB)`, "", []byte("[1]"), []string{"malformed message", "header", mendSender}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newWorld(t, file(t), lovage.Config{})
			m := raw{headers: known(), body: []byte(`[[1], {}, {}]`)}
			x.inject(m)
			x.alter(c.statement)
			r := x.start()
			if c.id != "" {
				_, err := lovage.ResultOf[int](x.client, c.id).Get(x.ctx())
				if te, ok := errors.AsType[*lovage.TaskError](err); !ok || te.Type != "InvalidTaskError" {
					t.Fatalf("the waiting client got %v, want an InvalidTaskError\n%s", err, x.log)
				}
			}
			if e := receive(t, r.rejected); !bytes.Equal(e.Body, m.body) {
				t.Errorf("TaskRejected: got %q, want the raw body", e.Body)
			}
			x.good()
			r.stop()
			dead := x.dead()
			if len(dead) != 1 || !bytes.Equal(dead[0].Body, m.body) || c.headers != nil && !bytes.Equal(dead[0].Headers, c.headers) {
				t.Fatalf("dead letters: got %+v, want the one message as it was", dead)
			}
			says(t, "the dead letter", dead[0].Reason, c.says...)
			says(t, "the log", strings.Join(x.log.find(refusedLine), "\n"), c.says...)
			says(t, "dead show", x.ok("dead", "show", dead[0].ID), c.says...)
			var l struct {
				Headers json.RawMessage
				Bytes   string `json:"headers_base64"`
			}
			if err := json.Unmarshal([]byte(x.ok("dead", "show", dead[0].ID, "-j")), &l); err != nil {
				t.Fatal(err)
			}
			if name == "HeadersNoText" {
				if got, err := base64.StdEncoding.DecodeString(l.Bytes); err != nil || !bytes.Equal(got, c.headers) {
					t.Errorf("dead show --json: headers_base64 %q, %v, want the bytes", got, err)
				}
			}
		})
	}
}

// TestRequeueAfterTheMend: each letter runs once its reason is gone, and the
// client that asks again has the result.
func TestRequeueAfterTheMend(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		raw
		mend func(*world)
		want int
	}{
		"TheTaskIsRegistered": {
			raw: raw{headers: known("task", `"t.new"`), body: []byte(`[[2], {"y": 3}, {}]`)}, want: 6,
			mend: func(x *world) {
				x.tasks = func(app *lovage.App) {
					withAdd(app)
					lovage.Func(app, "t.new", func(_ context.Context, in addArgs) (int, error) { return in.X * in.Y, nil })
				}
			},
		},
		"TheParametersFit": {
			raw: raw{headers: known(), body: []byte(`[[2, 3, 4], {}, {}]`)}, want: 9,
			mend: func(x *world) {
				x.tasks = func(app *lovage.App) {
					lovage.Func(app, "t.add", func(_ context.Context, in struct {
						X, Y int
						Z    int `lovage:"z,default=0"`
					}) (int, error) {
						return in.X + in.Y + in.Z, nil
					})
				}
			},
		},
		"TheLimitIsRaised": {
			raw: raw{headers: known(), body: []byte(`[[2], {"y": 3}, {"note": "` + strings.Repeat("a", 2000) + `"}]`)}, want: 5,
			mend: func(x *world) { x.conf.TaskMaxMessageSize = 4000 },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newWorld(t, file(t), lovage.Config{TaskMaxMessageSize: 1000})
			x.inject(c.raw)
			res := lovage.ResultOf[int](x.client, "bad-1")
			r := x.start()
			if _, err := res.Get(x.ctx()); err == nil {
				t.Fatal("the bad message ran")
			}
			r.stop()
			dead := x.dead()
			if len(dead) != 1 {
				t.Fatalf("dead letters: got %+v, want one", dead)
			}
			id := dead[0].ID
			c.mend(x)
			if out := x.ok("dead", "requeue", id); out != "Requeued 1 dead letter.\n" {
				t.Errorf("dead requeue prints %q", out)
			}
			r = x.start()
			meta, err := res.Wait(x.ctx(), func(m *lovage.Meta) bool { return m.Status == lovage.Success })
			if err != nil {
				t.Fatalf("waiting for the mended task: %v (%+v)\n%s", err, meta, x.log)
			}
			if n, err := res.Get(x.ctx()); err != nil || n != c.want {
				t.Errorf("got %d, %v, want %d", n, err, c.want)
			}
			if out := x.ok("result", "bad-1"); strings.TrimSpace(out) != string(meta.Result) {
				t.Errorf("lovage result prints %q, want %s", out, meta.Result)
			}
			r.stop()
			if out := x.ok("dead", "list", "-j"); out != "[]\n" {
				t.Errorf("dead letters are left: %s", out)
			}
		})
	}
}

// TestRequeueWithoutTheMend: the letter comes back with its reason, once for
// each try, and the bytes are still those that were sent.
func TestRequeueWithoutTheMend(t *testing.T) {
	t.Parallel()
	x := newWorld(t, file(t), lovage.Config{})
	m := raw{headers: known(), body: []byte("\x80\x02]q\x00."), contentType: "application/x-python-serialize", encoding: "binary"}
	x.inject(m)
	r := x.start()
	receive(t, r.rejected)
	x.good()
	r.stop()
	for range 3 {
		x.ok("dead", "requeue", "--all")
		r = x.start()
		receive(t, r.rejected)
		x.good()
		r.stop()
		dead := x.dead()
		if len(dead) != 1 || !bytes.Equal(dead[0].Body, m.body) || dead[0].Properties.ContentType != m.contentType || dead[0].Losses != 0 {
			t.Fatalf("dead letters: got %+v, want the one message as it was", dead)
		}
		says(t, "the dead letter", dead[0].Reason, "not accepted", "pickle")
	}
	id := x.dead()[0].ID
	if out := x.ok("dead", "drop", id); out != "Dropped 1 dead letter.\n" {
		t.Errorf("dead drop prints %q", out)
	}
	code, _, stderr := x.run("dead", "show", id)
	if code != cli.ExitFailure {
		t.Errorf("dead show of a dropped letter exits with %d, want 1", code)
	}
	says(t, "dead show of a dropped letter", stderr, "no dead letter "+id, "list them")
}
