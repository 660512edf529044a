package cli_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/rpcbackend"
	_ "github.com/lovage-go/lovage/broker/amqpbroker"
	"github.com/lovage-go/lovage/cli"
	"github.com/lovage-go/lovage/internal/testenv"
)

// TestRabbitMQ is a session on RabbitMQ with rpc:// results: what it cannot do is
// said, and the rest is as elsewhere.
func TestRabbitMQ(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.url, s.back = testenv.RabbitMQ(t).Vhost(t), "rpc://"
	s.setup = func(app *lovage.App) {
		lovage.Func(app, "proj.refuse", func(context.Context, struct{}) (int, error) {
			return 0, lovage.Reject(errors.New("not this"), false)
		})
	}
	var b strings.Builder
	line := func(args ...string) { b.WriteString(s.transcript(args...) + "\n") }
	line("queues")
	stop := s.startWorker("-q", "-n", "go@here")
	line("status")
	line("inspect", "ping")
	line("-q", "call", "proj.add", "-a", "[2, 3]", "--wait")
	line("-q", "call", "proj.add", "-a", "[2, 4]", "--countdown", "0.2", "--wait")
	line("-q", "call", "proj.refuse", "--wait")
	line("control", "revoke", "nobody") // which no store of results can keep
	if code, _, stderr := stop(); code != 0 || strings.Contains(stderr, "not in the result store") {
		t.Errorf("the worker exits with %d and says %q; want 0, and no word of a store", code, stderr)
	}
	id := strings.TrimSpace(s.ok("call", "proj.add", "-a", "[2, 3]"))
	line("-q", "result", id)
	line("queues")
	list := s.ok("dead", "list")
	letter, _, _ := strings.Cut(strings.Split(list, "\n")[1], " ")
	if !strings.Contains(list, "rejected: Reject('not this', False)") {
		t.Errorf("dead letters: got\n%s", list)
	}
	if code, _, stderr := s.run("dead", "requeue", strings.Fields(list[strings.Index(list, letter):])[5]); code != cli.ExitFailure || !strings.Contains(stderr, "is the id of a task, whose dead letter is "+letter) {
		t.Errorf("dead requeue by the task's id: exit code %d, stderr %q; want 1 and the letter's id", code, stderr)
	}
	line("dead", "requeue", letter)
	line("queues")
	line("purge", "-f")
	line("queues", "celery", "nosuch")
	line("queue", "pause", "celery")
	line("list", "bindings")
	golden(t, "rabbitmq", strings.ReplaceAll(strings.ReplaceAll(b.String(), letter, "<letter>"), s.url[strings.Index(s.url, "@"):], "@<server>"))
}
