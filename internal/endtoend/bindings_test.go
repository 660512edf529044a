package endtoend_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/cli"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

const boundPy = `
from celery import Celery
from kombu import Exchange, Queue
app = Celery('proj', broker='URL', backend='URL')
app.conf.task_queues = [
    Queue('celery', routing_key='celery'), Queue('parcels.far', Exchange('parcels', 'direct'), 'far'),
    Queue('press', Exchange('news', 'topic'), 'news.#'), Queue('bells', Exchange('alarm', 'fanout'))]
`

// TestInteropBindings: list bindings prints what Celery's does of the queues that
// Celery has declared, and what Go workers have declared beside.
func TestInteropBindings(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	url := server.URL(server.DB(t))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	celerys := string(testenv.Python(t, ctx, map[string]string{"proj": strings.ReplaceAll(boundPy, "URL", url)},
		"import sys; sys.argv = ['celery', '-A', 'proj', 'list', 'bindings']; from celery.bin.celery import main; main()"))
	list := func() []string {
		t.Helper()
		var out, errs bytes.Buffer
		app := lovage.New("ops", lovage.Config{BrokerURL: url, ResultBackend: url, TaskQueues: []broker.Queue{
			broker.Named("celery"),
			{Name: "parcels.far", Exchange: broker.Exchange{Name: "parcels", Type: "direct"}, RoutingKey: "far"},
			{Name: "press", Exchange: broker.Exchange{Name: "news", Type: "topic"}, RoutingKey: "news.#"},
			{Name: "bells", Exchange: broker.Exchange{Name: "alarm", Type: "fanout"}},
		}})
		if code := cli.Run(ctx, app, []string{"list", "bindings"}, strings.NewReader(""), &out, &errs, cli.Environ(nil)); code != 0 || errs.Len() > 0 {
			t.Fatalf("exit code %d: %s", code, &errs)
		}
		return lines(out.String())
	}
	want := lines(celerys)
	if got := list(); !slices.Equal(got, want) || len(got) != 6 {
		t.Errorf("got\n%q, Celery prints\n%q", got, want)
	}
	startMember(t, lovage.Config{BrokerURL: url, ResultBackend: url}, newLogbook(), worker.Config{Hostname: "go@host", Queues: []string{"only.go"}}, withAdd)
	want = append(want, "only.go                      only.go                      only.go")
	slices.Sort(want)
	if got := list(); !slices.Equal(got, want) {
		t.Errorf("beside a Go worker: got\n%q, want\n%q", got, want)
	}
}

func lines(text string) []string {
	list := strings.Split(strings.TrimSpace(text), "\n")
	for i, l := range list {
		list[i] = strings.TrimRight(l, " ")
	}
	slices.Sort(list)
	return list
}
