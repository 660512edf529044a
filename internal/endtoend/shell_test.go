package endtoend_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/cli"
	"github.com/lovage-go/lovage/internal/testenv"
)

// TestAMQPShell: Celery's commands, one at a time and from a script.
func TestAMQPShell(t *testing.T) {
	t.Parallel()
	server := testenv.RabbitMQ(t)
	url := server.Vhost(t)
	for _, c := range []struct{ line, want string }{
		{"exchange.declare shop topic false true", "OK\n"},
		{"queue.declare orders false true", "queue:orders messages:0 consumers:0\nOK\n"},
		{"queue.bind orders shop order.#", "OK\n"},
		{"basic.publish hello shop order.new", "OK\n"},
		{"queue.declare orders true", "queue:orders messages:1 consumers:0\nOK\n"},
	} {
		if code, out, errs := command(t, url, append([]string{"amqp"}, strings.Fields(c.line)...)...); code != 0 || out != c.want {
			t.Errorf("%s: exit code %d, %q, %s; want %q", c.line, code, out, errs, c.want)
		}
	}
	script := func(lines ...string) (code int, out, errs string) {
		app := lovage.New("proj", lovage.Config{BrokerURL: url}, lovage.WithLogger(slog.New(slog.DiscardHandler)))
		var o, e bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		code = cli.Run(ctx, app, []string{"amqp"}, strings.NewReader(strings.Join(lines, "\n")), &o, &e, cli.Environ(nil))
		return code, o.String(), e.String()
	}
	code, out, errs := script("basic.get orders", "queue.declare nowhere true", "", `basic.publish "two words" '' orders`, "basic.get orders", "exit", "never")
	if code != 0 || strings.Count(out, `"body": "hello"`) != 2 || !strings.Contains(out, `"delivery_tag": 1`) || !strings.Contains(errs, "NOT_FOUND - no queue 'nowhere'") {
		t.Errorf("a mistake in between: exit code %d, %s%s", code, out, errs)
	}
	if code, out, errs = script("basic.get orders", "basic.ack 1", "basic.get orders true", "basic.get orders true"); code != 0 ||
		!strings.Contains(out, `"body": "two words"`) || !strings.HasSuffix(out, "No messages in queue. basic.publish something.\nOK\n") {
		t.Errorf("get and ack: exit code %d, %s%s", code, out, errs)
	}
	if code, out, errs = script("basic.publish x '' orders", "queue.purge orders", "queue.delete orders", "exchange.delete shop", "help"); code != 0 ||
		!strings.HasPrefix(out, "OK\n1 messages deleted.\nOK\n0 messages deleted.\nOK\nOK\n") || !strings.Contains(out, "queue.bind queue exchange routing_key\n") {
		t.Errorf("purge and delete: exit code %d, %s%s", code, out, errs)
	}
	for line, says := range map[string]string{
		"queue.declar x":                 `there is no command "queue.declar". Did you mean queue.declare?`,
		"queue.bind x":                   "queue.bind takes queue exchange routing_key: got 1 arguments",
		"queue.declare x maybe":          `got "maybe", want true or false`,
		"basic.publish x '' nobody true": "NO_ROUTE",
		"basic.ack first":                "want the number that basic.get told",
		`basic.get "x`:                   "a quote is not closed",
	} {
		if code, _, errs := script(line); code == 0 || !strings.Contains(errs, says) {
			t.Errorf("%s: exit code %d, %s; want %q", line, code, errs, says)
		}
	}
	if code, _, errs := command(t, file(t), "amqp", "basic.get", "x"); code == 0 || !strings.Contains(errs, "which is for RabbitMQ") {
		t.Errorf("on SQLite: exit code %d, %s", code, errs)
	}
}
