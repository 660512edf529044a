package rpcbackend_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/testenv"
)

// chordPy sends chords whose members count where this client's results are: in a
// store that counts, and in one where celery.chord_unlock looks.
const chordPy = `
import sys, tempfile
from celery import Celery, chain, chord
for backend in ('cache+memory://', 'file://' + tempfile.mkdtemp()):
    app = Celery('proj', broker=sys.argv[1], backend=backend)
    s = app.signature
    chord([s('go.add', (1, 1)), s('go.add', (2, 2))], s('go.total')).apply_async()
    chain(s('go.add', (1, 1)), chord([s('go.add', (1,))], s('go.total'))).apply_async()
app = Celery('proj', broker=sys.argv[1], backend='rpc://')
try:
    chord([app.signature('go.add', (1, 1))], app.signature('go.total')).apply_async()
except NotImplementedError as e:
    print('refused')
`

// TestChords: with rpc results nobody can count the members of a chord. Celery's
// client refuses it, and so does ours; what comes from a client with another
// result store is a dead letter that says why, before anything of it runs.
func TestChords(t *testing.T) {
	t.Parallel()
	url := testenv.RabbitMQ(t).Vhost(t)
	ctx := limit(t, 60*time.Second)
	app := newApp(url)
	ran := make(chan string, 100)
	lovage.Func(app, "go.add", func(context.Context, lovage.Args) (int, error) { ran <- "go.add"; return 0, nil })
	lovage.Func(app, "go.total", func(context.Context, lovage.Args) (int, error) { ran <- "go.total"; return 0, nil })
	goWorker(t, app)

	t.Run("SentByGo", func(t *testing.T) {
		client := newApp(url)
		defer client.Close(context.Background())
		_, err := client.Send(ctx, "celery.chord", lovage.Args{Keyword: map[string]any{
			"header": []any{map[string]any{"task": "go.add", "args": []int{1, 1}}}, "body": map[string]any{"task": "go.total"}}})
		if err == nil || !strings.Contains(err.Error(), "rpc://") || !strings.Contains(err.Error(), "set result_backend") {
			t.Errorf("got %v, want an error that names rpc:// and the mend", err)
		}
	})
	t.Run("SentByPython", func(t *testing.T) {
		if out := string(testenv.Python(t, ctx, nil, chordPy, url)); !strings.Contains(out, "refused") {
			t.Errorf("Celery with rpc:// does not refuse a chord: %s", out)
		}
		conn, err := broker.Open(ctx, broker.Config{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		// Two members and a chain each, and one celery.chord_unlock.
		const want = 7
		var dead []broker.Dead
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for len(dead) < want {
			if dead, err = conn.(broker.DeadLetterer).DeadLetters(ctx, "", "", 100); err != nil {
				t.Fatal(err)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("%d dead letters, want %d", len(dead), want)
			}
		}
		reasons := map[string]int{}
		for _, d := range dead {
			for _, why := range []string{"a member of a chord", "a chord follows", "celery.chord_unlock"} {
				if strings.Contains(d.Reason, why) {
					reasons[why]++
				}
			}
			if !strings.Contains(d.Reason, "rpc://") || !strings.Contains(d.Reason, "set result_backend") {
				t.Errorf("a dead letter because of %q, want rpc:// and the mend", d.Reason)
			}
		}
		if fmt.Sprint(reasons) != fmt.Sprint(map[string]int{"a member of a chord": 4, "a chord follows": 2, "celery.chord_unlock": 1}) {
			t.Errorf("reasons %v", reasons)
		}
		select {
		case name := <-ran:
			t.Errorf("%s has run", name)
		default:
		}
	})
}
