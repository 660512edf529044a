package endtoend_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/serializer"
)

// bad is a message that no worker can run, and what must be said of it.
type bad struct {
	raw
	id     string   // of the task, if anything tells it
	says   []string // in the log and in the dead letter: thing, reason, mend
	typ    string   // of the exception that a client gets
	signal string   // which signal is sent
}

const (
	refusedLine = "Received and kept as a dead letter an invalid task message"
	mendSender  = "mend its sender"
)

func known(more ...string) map[string]string {
	h := map[string]string{"task": `"t.add"`, "id": `"bad-1"`}
	for i := 0; i < len(more); i += 2 {
		h[more[i]] = more[i+1]
	}
	return h
}

func bomb(t *testing.T, method string) []byte {
	t.Helper()
	b, err := serializer.Compress(method, []byte(`[["`+strings.Repeat("a", 8<<20)+`"], {}, {}]`))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func badMessages(t *testing.T) map[string]bad {
	const body = `[[1], {}, {}]`
	deep := `[[` + strings.Repeat("[", 3000) + strings.Repeat("]", 3000) + `], {}, {}]`
	many := `[[` + strings.Repeat("0,", 1<<20) + `0], {}, {}]`
	refused := func(id string, r raw, parts ...string) bad {
		return bad{raw: r, id: id, says: parts, typ: "InvalidTaskError", signal: "rejected"}
	}
	return map[string]bad{
		"HeadersNoJSON": refused("", raw{headers: map[string]string{"task": `"t.add", {`}, body: []byte(body)},
			"malformed message", "header", "at byte", mendSender),
		"HeadersNoJSONButCorrelated": refused("corr-1", raw{headers: map[string]string{"task": `"t.add", {`}, body: []byte(body), correlation: "corr-1"},
			"malformed message", "header", mendSender),
		"HeadersEmpty":       refused("", raw{body: []byte(`{}`)}, "malformed message", "task", mendSender),
		"NoID":               refused("", raw{headers: map[string]string{"task": `"t.add"`}, body: []byte(body)}, `task "t.add"`, "no id", mendSender),
		"TaskOfAWrongType":   refused("", raw{headers: map[string]string{"task": `["t.add"]`, "id": `"bad-1"`}, body: []byte(body)}, "malformed", `header "task": got`, "want a string", mendSender),
		"IDOfAWrongType":     refused("", raw{headers: known("id", `{"a": 1}`), body: []byte(body)}, `task "t.add"`, `header "id": got`, "want a string", mendSender),
		"RetriesOfWrongType": refused("bad-1", raw{headers: known("retries", `"three"`), body: []byte(body)}, `task "t.add"`, `header "retries": got`, "want a number", mendSender),
		"LimitOfAWrongType":  refused("bad-1", raw{headers: known("timelimit", `"soon"`), body: []byte(body)}, `header "timelimit"`, "[hard, soft]", mendSender),
		"StampsOfWrongType":  refused("bad-1", raw{headers: known("stamps", `[1]`), body: []byte(body)}, `header "stamps"`, mendSender),
		"EtaNoTime":          refused("bad-1", raw{headers: known("eta", `"tomorrow"`), body: []byte(body)}, `header "eta"`, "tomorrow", mendSender),
		"BodyNoJSON":         refused("bad-1", raw{headers: known(), body: []byte(`[[1], {`)}, `task "t.add"`, "the body is not JSON at byte", mendSender),
		"BodyEmpty":          refused("bad-1", raw{headers: known(), body: []byte{}}, `task "t.add"`, "the body is not JSON at byte 0", mendSender),
		"BodyNoText":         refused("bad-1", raw{headers: known(), body: []byte("[[\"\xff\xfe\x00\"], {}, {}]")}, "the body is not JSON", "UTF-8", mendSender),
		"BodyNoList":         refused("bad-1", raw{headers: known(), body: []byte(`{"args": [1]}`)}, "body", "want a list [args, kwargs, embed]", mendSender),
		"BodyTwice":          refused("bad-1", raw{headers: known(), body: []byte(body + body)}, "the body is not JSON at byte", mendSender),
		"ArgsNoList":         refused("bad-1", raw{headers: known(), body: []byte(`["1", {}, {}]`)}, "args", mendSender),
		"CallbacksNoList":    refused("bad-1", raw{headers: known(), body: []byte(`[[1], {}, {"callbacks": 3}]`)}, "callbacks", mendSender),
		"Version1Broken":     refused("corr-1", raw{body: []byte(`{"task": "t.add", "id": "bad-1", "args": 3}`), correlation: "corr-1"}, "version 1", "args", mendSender),
		"Pickle": refused("bad-1", raw{headers: known(), body: []byte("\x80\x02]q\x00."), contentType: "application/x-python-serialize", encoding: "binary"},
			"not accepted message", `task "t.add"`, "application/x-python-serialize", "pickle", "json"),
		"YAML": refused("bad-1", raw{headers: known(), body: []byte("- [1]\n- {}\n- {}\n"), contentType: "application/x-yaml", encoding: "utf-8"},
			"not accepted message", `task "t.add"`, `"application/x-yaml"`, `add "yaml" to accept_content`),
		"NoContentType": refused("bad-1", raw{headers: known(), body: []byte(body), contentType: " "},
			"not accepted message", "accept_content"),
		"ContentEncoding": refused("bad-1", raw{headers: known(), body: []byte(body), contentType: "application/json", encoding: "utf-16"},
			"not accepted message", `"utf-16"`, "utf-8"),
		"TooLarge": refused("bad-1", raw{headers: known(), body: []byte(`[["` + strings.Repeat("a", 5<<20) + `"], {}, {}]`)},
			"too large message", `task "t.add"`, "task_max_message_size (4194304)", "send a reference"),
		"TooDeep":      refused("bad-1", raw{headers: known(), body: []byte(deep)}, "too large message", "nested deeper than 64 levels", "flatter"),
		"TooMany":      refused("bad-1", raw{headers: known(), body: []byte(many)}, "too large message", "more than 1048576 values", "send fewer"),
		"BombZlib":     refused("bad-1", raw{headers: known("compression", `"application/x-gzip"`), body: bomb(t, "zlib")}, "too large message", "application/x-gzip", "grow to more than", "send such data uncompressed"),
		"BombZstd":     refused("bad-1", raw{headers: known("compression", `"application/zstd"`), body: bomb(t, "zstd")}, "too large message", "application/zstd", "send such data uncompressed"),
		"BombBzip2":    refused("bad-1", raw{headers: known("compression", `"application/x-bz2"`), body: bomb(t, "bzip2")}, "too large message", "application/x-bz2", "send such data uncompressed"),
		"NotZlib":      refused("bad-1", raw{headers: known("compression", `"application/x-gzip"`), body: []byte(body)}, "malformed", "decompress application/x-gzip", mendSender),
		"Compression":  refused("bad-1", raw{headers: known("compression", `"application/x-rar"`), body: []byte(body)}, "malformed", `"application/x-rar": unknown; known are gzip`, mendSender),
		"ChordMember":  refused("bad-1", raw{headers: known(), body: []byte(`[[1], {}, {"chord": {"task": "t.b", "args": [], "kwargs": {}, "options": {}, "subtask_type": "star"}}]`)}, "unsupported", "chord", `its type "star" is unknown here`),
		"UnknownTask":  {raw: raw{headers: known("task", `"t.nowhere"`), body: []byte(body)}, id: "bad-1", typ: "NotRegistered", signal: "unknown", says: []string{"nregistered task of type 't.nowhere'", "name"}},
		"ArgMissing":   {raw: raw{headers: known(), body: []byte(`[[], {}, {}]`)}, id: "bad-1", typ: "TypeError", says: []string{"add() missing 1 required positional argument: 'x'", "mend the caller"}},
		"ArgTooMany":   {raw: raw{headers: known(), body: []byte(`[[1, 2, 3], {}, {}]`)}, id: "bad-1", typ: "TypeError", says: []string{"add() takes from 1 to 2 positional arguments but 3 were given", "mend the caller"}},
		"ArgUnknown":   {raw: raw{headers: known(), body: []byte(`[[1], {"z": 1}, {}]`)}, id: "bad-1", typ: "TypeError", says: []string{"add() got an unexpected keyword argument 'z'", "mend the caller"}},
		"ArgTwice":     {raw: raw{headers: known(), body: []byte(`[[1], {"x": 1}, {}]`)}, id: "bad-1", typ: "TypeError", says: []string{"add() got multiple values for argument 'x'", "mend the caller"}},
		"ArgWrongType": {raw: raw{headers: known(), body: []byte(`[["one"], {}, {}]`)}, id: "bad-1", typ: "TypeError", says: []string{`argument "x": got a string, want int`, "mend the caller"}},
	}
}

// TestBadMessages sends each to a real worker on a real store: the error names
// thing, reason and mend in log and dead letter, the bytes are kept, a client
// that waits is told, and the worker runs the next good task.
func TestBadMessages(t *testing.T) {
	t.Parallel()
	for name, c := range badMessages(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for store, url := range map[string]string{"SQLite": file(t), "Memory": "memory://" + filepath.Base(filepath.Dir(t.TempDir()))} {
				t.Run(store, func(t *testing.T) {
					x := newWorld(t, url, lovage.Config{TaskMaxMessageSize: 4 << 20})
					x.meets(c)
				})
			}
		})
	}
}

func (x *world) meets(c bad) {
	t := x.t
	t.Helper()
	x.inject(c.raw)
	r := x.start()
	if c.id != "" {
		_, err := lovage.ResultOf[int](x.client, c.id).Get(x.ctx())
		te, ok := errors.AsType[*lovage.TaskError](err)
		if !ok || te.Type != c.typ {
			t.Fatalf("the waiting client got %v, want a %s\n%s", err, c.typ, x.log)
		}
		if c.typ != "NotRegistered" && c.typ != "TypeError" {
			says(t, "the client's error", te.Message(), c.says...)
		}
	}
	switch c.signal {
	case "rejected":
		if e := receive(t, r.rejected); !bytes.Equal(e.Body, c.body) || e.Queue != "celery" || e.Err == nil || e.Hostname != r.w.Hostname() || !bytes.Equal(e.Message.Body, c.body) {
			t.Errorf("TaskRejected: got queue %q, %d bytes, %v; want the raw message", e.Queue, len(e.Body), e.Err)
		}
	case "unknown":
		if e := receive(t, r.unknown); e.Name != "t.nowhere" || e.ID != c.id || e.Hostname != r.w.Hostname() || !bytes.Equal(e.Message.Body, c.body) {
			t.Errorf("TaskUnknown: got %+v", e)
		}
	}
	x.good()
	r.stop()
	dead := x.dead()
	if len(dead) != 1 {
		t.Fatalf("dead letters: got %+v, want the one bad message\n%s", dead, x.log)
	}
	d := dead[0]
	if !bytes.Equal(d.Body, c.body) {
		t.Errorf("the dead letter has %d bytes %.80q, want the %d of the message", len(d.Body), d.Body, len(c.body))
	}
	for k, v := range c.headers {
		says(t, "the dead letter's headers", string(d.Headers), `"`+k+`": `+v)
	}
	says(t, "the dead letter", d.Reason, c.says...)
	if c.signal == "rejected" {
		line := x.log.find(refusedLine)
		if len(line) != 1 {
			t.Fatalf("log lines about the message: got %q, want one", line)
		}
		says(t, "the log", line[0], append(c.says, "ERROR", "queue=celery")...)
	} else {
		says(t, "the log", strings.Join(x.log.find("dead letter"), "\n"), "ERROR", "t.", "bad-1", c.says[len(c.says)-1])
		says(t, "the log", strings.ReplaceAll(x.log.String(), `\'`, "'"), c.says...) // it holds Python's repr
	}
	x.shows(d.ID, c)
}

// shows wants dead show to print a letter to the last byte, in both forms.
func (x *world) shows(id string, c bad) {
	x.t.Helper()
	var l struct {
		Queue, Reason, Body string
		Bytes               string `json:"body_base64"`
		ContentType         string `json:"content_type"`
	}
	if err := json.Unmarshal([]byte(x.ok("dead", "show", id, "--json")), &l); err != nil {
		x.t.Fatal(err)
	}
	body := []byte(l.Body)
	if l.Bytes != "" {
		var err error
		if body, err = base64.StdEncoding.DecodeString(l.Bytes); err != nil {
			x.t.Fatal(err)
		}
	}
	if !bytes.Equal(body, c.body) || l.Queue != "celery" || c.contentType != "" && l.ContentType != c.contentType {
		x.t.Errorf("dead show --json has %d bytes of %q in queue %q, want the %d of the message", len(body), l.ContentType, l.Queue, len(c.body))
	}
	says(x.t, "dead show --json", l.Reason, c.says...)
	text := x.ok("dead", "show", id)
	says(x.t, "dead show", text, c.says...)
	if len(c.body) < 100 && json.Valid(c.body) {
		says(x.t, "dead show", text, "body:     "+string(c.body)+"\n")
	}
	says(x.t, "dead list", x.ok("dead", "list"), id, "celery", c.says[0])
}
