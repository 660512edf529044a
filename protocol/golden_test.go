package protocol_test

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/lovage-go/lovage/internal/golden"
	"github.com/lovage-go/lovage/protocol"
	"github.com/lovage-go/lovage/serializer"
)

var messageFolders = []string{"testdata/golden/messages", "testdata/golden/v5.2/messages"}

var resultFolders = []string{"testdata/golden/results", "testdata/golden/v5.2/results"}

// parse gives the value of a JSON text, its numbers as text.
func parse(t testing.TB, raw []byte) any {
	t.Helper()
	var v any
	if err := serializer.JSON.Unmarshal(raw, &v); err != nil {
		t.Fatalf("%v in %.200s", err, raw)
	}
	return v
}

func same(t testing.TB, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

// plainBody is the body of a JSON message without its compression.
func plainBody(t testing.TB, m golden.Message) []byte {
	t.Helper()
	if m.Compression == "" {
		return m.Body
	}
	b, err := serializer.Decompress(m.Compression, m.Body, 0)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func loadMessages(t testing.TB) []golden.Message {
	t.Helper()
	var all []golden.Message
	files := 0
	for _, dir := range messageFolders {
		list, n, err := golden.Messages(dir)
		if err != nil {
			t.Fatal(err)
		}
		want, err := golden.Count(dir)
		if err != nil {
			t.Fatal(err)
		}
		if n != want || n == 0 {
			t.Fatalf("%s: got %d files, want the %d there are", dir, n, want)
		}
		files += n
		all = append(all, list...)
	}
	t.Logf("%d files, %d messages", files, len(all))
	return all
}

func TestGoldenHeaders(t *testing.T) {
	t.Parallel()
	for _, m := range loadMessages(t) {
		h, err := protocol.ParseHeaders(m.Headers)
		if err != nil {
			t.Errorf("%s: %v", m.File, err)
			continue
		}
		want := parse(t, m.Headers).(map[string]any)
		checkHeaders(t, m.File, &h, want)
		if h.Task != "" { // older versions do not send these
			defaults := map[string]any{"replaced_task_nesting": serializer.Number("0"), "stamped_headers": nil, "stamps": map[string]any{}}
			for k, v := range defaults {
				if _, ok := want[k]; !ok {
					want[k] = v
				}
			}
		}
		same(t, m.File, parse(t, h.AppendJSON(nil)), any(want))
	}
}

// checkHeaders compares the struct with the recorded values field by field.
func checkHeaders(t *testing.T, file string, h *protocol.Headers, want map[string]any) {
	t.Helper()
	texts := map[string]string{
		"lang": h.Lang, "task": h.Task, "id": h.ID, "shadow": h.Shadow, "eta": h.ETA, "expires": h.Expires,
		"group": h.Group, "root_id": h.RootID, "parent_id": h.ParentID, "argsrepr": h.ArgsRepr,
		"kwargsrepr": h.KwargsRepr, "origin": h.Origin, "compression": h.Compression,
	}
	for k, got := range texts {
		w, _ := want[k].(string)
		if got != w {
			t.Errorf("%s: %s: got %q, want %q", file, k, got, w)
		}
	}
	if got, ok := want["ignore_result"].(bool); ok && got != h.IgnoreResult {
		t.Errorf("%s: ignore_result: got %v, want %v", file, h.IgnoreResult, got)
	}
	if n, ok := want["retries"].(serializer.Number); ok {
		if i, err := n.Int64(); err != nil || int(i) != h.Retries {
			t.Errorf("%s: retries: got %d, want %s", file, h.Retries, n)
		}
	}
	n, ok := want["group_index"].(serializer.Number)
	if ok != (h.GroupIndex != nil) {
		t.Errorf("%s: group_index: got %v, want %v", file, h.GroupIndex, want["group_index"])
	} else if i, _ := n.Int64(); ok && int(i) != *h.GroupIndex {
		t.Errorf("%s: group_index: got %d, want %s", file, *h.GroupIndex, n)
	}
}

func TestGoldenBodies(t *testing.T) {
	t.Parallel()
	json, v1 := 0, 0
	for _, m := range loadMessages(t) {
		if !m.JSON() {
			continue
		}
		json++
		raw := plainBody(t, m)
		h, err := protocol.ParseHeaders(m.Headers)
		if err != nil {
			t.Fatalf("%s: %v", m.File, err)
		}
		original := parse(t, raw)
		same(t, m.File+" as Python read it", original, parse(t, m.Decoded))
		if h.Task == "" {
			v1++
			h, b, err := protocol.ParseV1(raw)
			if err != nil {
				t.Errorf("%s: %v", m.File, err)
				continue
			}
			same(t, m.File, parse(t, protocol.AppendV1(nil, &h, &b)), original)
			continue
		}
		b, err := protocol.ParseBody(raw)
		if err != nil {
			t.Errorf("%s: %v", m.File, err)
			continue
		}
		if parts := original.([]any); len(parts) == 3 {
			same(t, m.File+" args", parse(t, b.Args), parts[0])
			same(t, m.File+" kwargs", parse(t, b.Kwargs), parts[1])
		}
		again := b.AppendJSON(nil)
		same(t, m.File, parse(t, again), original)
		if b.Embed.Empty() && !bytes.Equal(again, raw) {
			t.Errorf("%s: got %s, want the same bytes %s", m.File, again, raw)
		}
	}
	t.Logf("%d JSON bodies, %d of them version 1", json, v1)
	if json == 0 || v1 == 0 {
		t.Error("want bodies of both versions")
	}
}

func loadResults(t testing.TB) []golden.Result {
	t.Helper()
	var all []golden.Result
	files := 0
	for _, dir := range resultFolders {
		list, n, err := golden.Results(dir)
		if err != nil {
			t.Fatal(err)
		}
		want, err := golden.Count(dir)
		if err != nil {
			t.Fatal(err)
		}
		if n != want || len(list) < n/2 {
			t.Fatalf("%s: got %d files with %d results, want the %d there are", dir, n, len(list), want)
		}
		files += n
		all = append(all, list...)
	}
	t.Logf("%d files, %d results", files, len(all))
	return all
}

func TestGoldenResults(t *testing.T) {
	t.Parallel()
	failures := 0
	for _, r := range loadResults(t) {
		m, err := protocol.ParseResultMeta(r.Meta)
		if err != nil {
			t.Errorf("%s: %v", r.File, err)
			continue
		}
		want := parse(t, r.Meta).(map[string]any)
		again := m.AppendJSON(nil)
		same(t, r.File, parse(t, again), any(want))
		if !bytes.Equal(again, r.Meta) {
			t.Errorf("%s: bytes differ:\n got %s\nwant %s", r.File, again, r.Meta)
		}
		e, isError := m.Error()
		result, _ := want["result"].(map[string]any)
		if _, ok := result["exc_type"]; ok != isError {
			t.Errorf("%s: error form: got %v, want %v", r.File, isError, ok)
		}
		if isError {
			failures++
			same(t, r.File+" error", parse(t, e.AppendJSON(nil)), any(result))
		}
	}
	if failures == 0 {
		t.Error("want some failures among the results")
	}
}
