package redisbroker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage/internal/testenv"
)

// canvasErrorPy composes what fails, with links across languages, and prints
// results and states by name, and the notes that were taken in Python.
const canvasErrorPy = `
import json, sys, time
import tasks as t
from celery import chain, group, chord, signature

py, go = t.T['py'], t.T['go']
sig = lambda name, *a: signature(name, args=a, app=t.app)
out, ids = {}, {}

def links(name, s, on=(), err=()):
    for l in on: s.link(sig(l))
    for l in err: s.link_error(sig(l))
    r = s.apply_async()
    ids[name] = r.id
    return r

sent = {
  'link_go_py': links('link_go_py', go.add.s(1, 2), on=['py.note']),
  'link_go_both': links('link_go_both', go.add.s(1, 3), on=['py.note', 'go.note']),
  'link_py_go': links('link_py_go', py.add.s(2, 2), on=['go.note']),
  'err_go_py': links('err_go_py', go.fail.s(), err=['py.on_error_old']),
  'err_go_go': links('err_go_go', go.fail.s(), err=['go.on_error', 'go.on_error_old']),
  'err_py_go': links('err_py_go', py.fail.s(), err=['go.on_error', 'go.on_error_old', 'py.on_error', 'py.on_error_old']),
}
for a, b in (('go', 'go'), ('go', 'py'), ('py', 'go')):
    A, B = t.T[a], t.T[b]
    n = a + '_' + b
    sent['chord_' + n] = links('chord_' + n, chord([A.add.s(1, 1), A.fail.s(), B.add.s(2, 2)], B.total.s()), err=['go.on_error' if a == 'go' else 'go.on_error_old', 'py.on_error_old'])
    sent['chain_in_header_' + n] = chord([chain(A.add.s(1, 1), A.fail.s(), B.add.s(1)), A.add.s(2, 2)], B.ident.s()).apply_async()
c = chord([go.add.s(1, 1), go.fail.s()], group(go.ident.s(), py.ident.s()))
r = c.apply_async()
for i, m in enumerate(r): sent['group_body_%d' % i] = m
sent['chain_after_chord'] = chain(go.add.s(1, 1), chord([go.add.s(1), go.fail.s()], go.total.s()), py.add.s(1)).apply_async()
sent['chord_after_failure'] = chain(go.fail.s(), group(go.add.s(1), py.add.s(1)), go.total.s()).apply_async()
sent['inner_chord'] = chord([chord([go.fail.s(), go.add.s(1, 1)], go.total.s()), go.add.s(1, 1)], go.ident.s()).apply_async()
sent['expired'] = chord([go.add.s(1, 1), go.add.s(1, 1).set(expires=-5)], go.ident.s()).apply_async()
sent['unregistered'] = chord([go.add.s(1, 1), sig('go.nothing')], py.ident.s()).apply_async()
sent['wrong_arguments'] = chord([go.add.s(1, 1), sig('go.strict', 1, 2, 3)], py.ident.s()).apply_async()
end = time.time() + 40
for name, r in sent.items():
    while not r.ready() and time.time() < end: time.sleep(0.02)
    e = r.result
    out[name] = '%s: %s %s' % (type(e).__name__, e, r.state) if isinstance(e, Exception) else e
want = int(sys.argv[1])
while time.time() < end and t.app.backend.client.llen('notes') < want: time.sleep(0.05)
notes = sorted(n.decode() for n in t.app.backend.client.lrange('notes', 0, -1))
print(json.dumps({'results': out, 'ids': ids, 'notes': notes}))
`

func TestInteropCanvasErrors(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	module := fmt.Sprintf(canvasTasks, url, "{}")
	testenv.CeleryWorker(t, "tasks", module, "-P", "solo", "-Q", "py", "-n", "py@test")
	app, seen := canvasApp(url, nil)
	goWorker(t, app)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	out := testenv.Python(t, ctx, map[string]string{"tasks": module}, canvasErrorPy, "8")
	var got struct {
		Results, IDs map[string]any
		Notes        []string
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	const boom, chordError = "ValueError: ('boom', 17) FAILURE", "ChordError: Dependency * raised ValueError('boom', 17) FAILURE"
	for name, want := range map[string]any{
		"link_go_py": 3.0, "link_go_both": 4.0, "link_py_go": 4.0, "err_go_py": boom, "err_go_go": boom, "err_py_go": boom,
		"chord_go_go": chordError, "chord_go_py": chordError, "chord_py_go": chordError,
		"chain_in_header_go_go": chordError, "chain_in_header_go_py": chordError, "chain_in_header_py_go": chordError,
		"group_body_0": chordError, "group_body_1": chordError, "chain_after_chord": chordError, "chord_after_failure": boom,
		"inner_chord":     "ChordError: Dependency * raised ChordError(\"Dependency * raised ValueError('boom', 17)\") FAILURE",
		"expired":         "ChordError: Dependency * raised TaskRevokedError('expired') FAILURE",
		"unregistered":    "ChordError: Dependency * raised NotRegistered('go.nothing') FAILURE",
		"wrong_arguments": "ChordError: Dependency * raised TypeError(*) FAILURE",
	} {
		if !like(got.Results[name], want) {
			t.Errorf("%s: Python got %v, want %v", name, got.Results[name], want)
		}
	}
	id := func(name string) string { return fmt.Sprint(got.IDs[name]) }
	want := []string{"py.note 3", "py.note 4", "py.on_error_old " + id("err_go_py"), "py.on_error " + id("err_py_go"), "py.on_error_old " + id("err_py_go"),
		"py.on_error_old " + id("chord_go_go"), "py.on_error_old " + id("chord_go_py"), "py.on_error_old " + id("chord_py_go")}
	slices.Sort(want)
	slices.Sort(got.Notes)
	if !slices.Equal(got.Notes, want) {
		t.Errorf("called in Python\n  %s\nwant\n  %s", strings.Join(got.Notes, "\n  "), strings.Join(want, "\n  "))
	}
	want = []string{"go.note 4", "go.note 4", "go.on_error " + id("err_go_go"), "go.on_error_old " + id("err_go_go"),
		"go.on_error " + id("err_py_go"), "go.on_error_old " + id("err_py_go"),
		"go.on_error " + id("chord_go_go"), "go.on_error " + id("chord_go_py"), "go.on_error_old " + id("chord_py_go")}
	slices.Sort(want)
	deadline := time.Now().Add(10 * time.Second)
	for len(seen.all()) < len(want) && time.Now().Before(deadline) {
		<-time.After(10 * time.Millisecond)
	}
	if all := seen.all(); !slices.Equal(sortedStrings(all), want) {
		t.Errorf("called in Go\n  %s\nwant\n  %s", strings.Join(sortedStrings(all), "\n  "), strings.Join(want, "\n  "))
	}
}

func sortedStrings(s []string) []string { slices.Sort(s); return s }

// like compares texts with * for anything.
func like(got, want any) bool {
	g, isText := got.(string)
	w, wantText := want.(string)
	if !isText || !wantText {
		return got == want
	}
	parts := strings.Split(w, "*")
	if !strings.HasPrefix(g, parts[0]) {
		return false
	}
	for _, p := range parts {
		i := strings.Index(g, p)
		if i < 0 {
			return false
		}
		g = g[i+len(p):]
	}
	return g == ""
}
