package redisbroker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/golden"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/serializer"
)

const judgeScript = "../../internal/tools/judge/judge.py"

// judge lets Python decide, and counts.
func judge(t *testing.T, cases []golden.Case) (fields int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	verdicts, err := golden.Judge(ctx, judgeScript, cases)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range verdicts {
		fields += v.Compared
		for _, d := range v.Differences {
			t.Errorf("%s: %s", v.File, d)
		}
		if v.Compared == 0 {
			t.Errorf("%s: nothing was compared", v.File)
		}
	}
	return fields
}

// TestInteropGoldenJudged takes each message of Celery 5.6 and 5.2 through the
// driver, re-encodes all of it, body and headers, and has kombu and Celery load
// both and compare the requests.
func TestInteropGoldenJudged(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	c := open(t, url, nil)
	defer c.Close()
	cs := consume(t, c, "q")
	stranger := client(t, url)
	for _, dir := range recorded {
		var cases []golden.Case
		files := map[string]bool{}
		for name, raw := range rawMessages(t, dir) {
			e := object(t, raw)
			m := rewritten(t, stranger, cs, raw, bodyOf(t, e))
			if m == nil {
				continue
			}
			m.Body = reencoded(t, name, m.Headers, e, m.Body)
			cases = append(cases, golden.Case{File: name, Kind: "envelope", Original: raw, Ours: c.WriteEnvelope(m)})
			files[name[:strings.LastIndex(name, "#")]] = true
		}
		fields := judge(t, cases)
		present, err := golden.Count(dir)
		none := withoutMessage(t, dir)
		t.Logf("%s: %d files compared and %d in which the client sent nothing, of %d present; %d messages, %d fields", dir, len(files), none, present, len(cases), fields)
		if err != nil || len(files)+none != present {
			t.Errorf("%s: %d files were compared of %d, %v", dir, len(files), present, err)
		}
	}
}

// TestInteropJudgeSaysNo: a judge that finds nothing must be one that can.
func TestInteropJudgeSaysNo(t *testing.T) {
	t.Parallel()
	raw := rawMessages(t, recorded[0])["plain_args.json#0"]
	var cases []golden.Case
	for _, change := range [][2]string{
		{`"retries": 0`, `"retries": 0.0`}, {`"expires": null, `, ``}, {`"priority": 0`, `"priority": "0"`}, {`"root_id": `, `"root_id": null, "was": `},
		{`"timelimit": [null, null]`, `"timelimit": [null, 1]`},
	} {
		ours := strings.Replace(raw, change[0], change[1], 1)
		if ours == raw {
			t.Fatalf("%s is not in the message", change[0])
		}
		cases = append(cases, golden.Case{File: change[1], Kind: "envelope", Original: raw, Ours: ours})
	}
	verdicts, err := golden.Judge(t.Context(), judgeScript, cases)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range verdicts {
		if len(v.Differences) == 0 {
			t.Errorf("the change to %s was not seen", v.File)
		}
	}
}

// withoutMessage counts the files of calls that sent nothing: most because
// Celery's client refuses them.
func withoutMessage(t *testing.T, dir string) (n int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if f := object(t, string(text)); len(f["messages"].([]any)) == 0 {
			n++
		}
	}
	return n
}

func bodyOf(t *testing.T, e map[string]any) []byte {
	t.Helper()
	raw, _ := json.Marshal(e["body"])
	var b []byte
	if err := json.Unmarshal(raw, &b); err != nil {
		t.Fatal(err)
	}
	return b
}

// reencoded takes a body apart and writes it anew, where we can read it.
func reencoded(t *testing.T, name string, h protocol.Headers, e map[string]any, body []byte) []byte {
	t.Helper()
	if e["content-type"] != "application/json" {
		return body
	}
	method, _ := e["headers"].(map[string]any)["compression"].(string)
	if method == "application/zstd" { // the distribution's Python has none, so the bytes must stay
		return body
	}
	if method != "" {
		var err error
		if body, err = serializer.Decompress(method, body, 0); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	var out []byte
	if h.Task == "" {
		v1, b, err := protocol.ParseV1(body)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out = protocol.AppendV1(nil, &v1, &b)
	} else {
		b, err := protocol.ParseBody(body)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out = b.AppendJSON(nil)
	}
	if method != "" {
		var err error
		if out, err = serializer.Compress(method, out); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return out
}

// TestInteropGoldenExecuted has a Go worker run each recorded message that can
// be run by itself, as a task that returns its arguments; Python compares them
// with what it reads itself.
func TestInteropGoldenExecuted(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	app := lovage.New("golden", lovage.Config{BrokerURL: url, ResultBackend: url}, lovage.WithLogger(slog.New(slog.DiscardHandler)))
	raws := map[string]string{}
	names := map[string]bool{}
	skipped := map[string]int{}
	for _, dir := range recorded {
		for file, raw := range rawMessages(t, dir) {
			e := object(t, raw)
			if why := unrunnable(t, e); why != "" {
				skipped[why]++
				continue
			}
			raws[filepath.Base(filepath.Dir(filepath.Dir(dir)))+" "+file] = raw
			names[e["headers"].(map[string]any)["task"].(string)] = true
		}
	}
	for name := range names {
		lovage.Func(app, name, func(_ context.Context, in lovage.Args) ([]any, error) {
			if in.Positional == nil {
				in.Positional = []any{}
			}
			if in.Keyword == nil {
				in.Keyword = map[string]any{}
			}
			return []any{in.Positional, in.Keyword}, nil
		})
	}
	goWorker(t, app)
	rdb := client(t, url)
	c := open(t, url, nil)
	defer c.Close()
	var cases []golden.Case
	for name, raw := range raws {
		id := object(t, raw)["headers"].(map[string]any)["id"].(string)
		key := "celery-task-meta-" + id
		rdb.DoMulti(t.Context(), rdb.B().Del().Key(key).Build(), rdb.B().Lpush().Key("celery").Element(raw).Build())
		_, err := app.Result(id).Get(limit(t))
		if _, ended := errors.AsType[*lovage.TaskError](err); err != nil && !ended {
			t.Errorf("%s: %v", name, err)
			continue
		}
		meta, err := rdb.Do(t.Context(), rdb.B().Get().Key(key).Build()).ToString()
		if err != nil && !rueidis.IsRedisNil(err) {
			t.Fatal(err)
		}
		cases = append(cases, golden.Case{File: name, Kind: "executed", Original: raw, Ours: meta})
		for { // what it links to may have the id of another file's message
			ls, err := c.Lengths(t.Context(), "celery")
			if err != nil {
				t.Fatal(err)
			}
			if ls["celery"].Ready+ls["celery"].Claimed == 0 {
				break
			}
		}
	}
	fields := judge(t, cases)
	var reasons []string
	for why, n := range skipped {
		reasons = append(reasons, fmt.Sprintf("%d %s", n, why))
	}
	slices.Sort(reasons)
	t.Logf("%d messages run, %d fields compared; not run: %s", len(cases), fields, strings.Join(reasons, ", "))
	if len(cases) < 300 {
		t.Errorf("only %d messages were run", len(cases))
	}
}

// unrunnable says why a message cannot be run by itself.
func unrunnable(t *testing.T, e map[string]any) string {
	t.Helper()
	h := e["headers"].(map[string]any)
	name, _ := h["task"].(string)
	switch {
	case e["content-type"] != "application/json":
		return "not JSON"
	case h["compression"] == "application/zstd":
		return "zstd, which this Python cannot read"
	case name == "":
		return "version 1, which has no headers to run by"
	case strings.HasPrefix(name, "celery."):
		return "built-in tasks"
	case h["ignore_result"] == true:
		return "without a result"
	}
	if text, _ := h["eta"].(string); text != "" {
		if at, err := time.Parse(time.RFC3339Nano, text); err != nil || at.After(time.Now()) {
			return "for a later time"
		}
	}
	body := bodyOf(t, e)
	if method, _ := h["compression"].(string); method != "" {
		var err error
		if body, err = serializer.Decompress(method, body, 0); err != nil {
			t.Fatal(err)
		}
	}
	b, err := protocol.ParseBody(body)
	if err != nil {
		t.Fatal(err)
	}
	if b.Embed.Chord != nil {
		return "parts of chords"
	}
	for _, next := range b.Embed.Chain {
		if next.SubtaskType == "group" || next.SubtaskType == "chord" {
			return "before a group or chord"
		}
	}
	return ""
}
