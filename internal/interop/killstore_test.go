package interop_test

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lovage-go/lovage/internal/testenv"
)

// killStore is where a fleet that is killed at keeps its messages and results.
type killStore struct {
	open    func(t *testing.T) killed
	tasks   int  // of the short form
	leases  bool // what a dead worker held comes back after a time, and not with the end of its connection
	forgets bool // who has a message that comes again cannot know that its task has ended
}

// killed is the store of one fleet.
type killed struct {
	urls
	left func() string // says what messages nobody has ended: "" if there are none
	// unseen, if not nil, counts the tasks of the first so many that the store knows
	// nothing of: -1 while nothing waits.
	unseen func(sent int) int
}

var killStores = map[string]killStore{
	"Redis": {tasks: 900, leases: true, open: func(t *testing.T) killed {
		server := testenv.PrivateRedis(t)
		url := server.URL(0)
		return killed{urls: urls{url, url}, unseen: func(sent int) int {
			n, err := strconv.Atoi(server.Must(t, "EVAL", unseen, "0", strconv.Itoa(sent)))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}, left: func() string {
			unacked, index, waiting := server.Must(t, "HLEN", "unacked"), server.Must(t, "ZCARD", "unacked_index"), server.Must(t, "LLEN", "q")
			if unacked == "0" && index == "0" && waiting == "0" {
				return ""
			}
			return fmt.Sprintf("unacked %s, in the index %s, waiting %s", unacked, index, waiting)
		}}
	}},
	"RabbitMQ": {tasks: 900, open: func(t *testing.T) killed {
		redis := testenv.Redis(t)
		return openRabbitMQ(t, redis.URL(redis.DB(t)))
	}},
	"RPC": {tasks: 400, forgets: true, open: func(t *testing.T) killed { return openRabbitMQ(t, "rpc://") }},
}

// openRabbitMQ is a virtual host, none of whose queues may have messages at the end.
func openRabbitMQ(t *testing.T, results string) killed {
	server := testenv.RabbitMQ(t)
	url := server.Vhost(t)
	return killed{urls: urls{url, results}, left: func() string {
		var left []string
		for line := range strings.Lines(server.Control(t, "list_queues", "--silent", "--no-table-headers",
			"--vhost", url[strings.LastIndex(url, "/")+1:], "name", "messages_ready", "messages_unacknowledged")) {
			if f := strings.Fields(line); len(f) != 3 || f[1] != "0" || f[2] != "0" {
				left = append(left, strings.TrimSpace(line))
			}
		}
		return strings.Join(left, "; ")
	}}
}

// unseen counts the tasks k0 to k(n-1) that are neither waiting nor claimed nor done.
const unseen = `
local waiting = redis.call('LRANGE', 'q', 0, -1)
if #waiting == 0 then return -1 end
local seen = {}
for _, texts in ipairs({waiting, redis.call('HVALS', 'unacked')}) do
  for _, text in ipairs(texts) do
    local id = string.match(text, 'correlation_id[^%w]+(k%d+)')
    if id then seen[id] = true end
  end
end
local n = 0
for i = 0, ARGV[1] - 1 do
  if not seen['k' .. i] and redis.call('EXISTS', 'celery-task-meta-k' .. i) == 0 then n = n + 1 end
end
return n`

// killPython kills a worker of Celery, but on Redis not in the moment in which
// Celery itself loses a message: BRPOP has taken it from the queue, and the worker
// has not yet put it to "unacked" in a second command. So the worker is stopped
// first, and goes on if a task stays unseen, or if nothing waits, since it may sit
// in BRPOP then. It reports what was unseen: 0 if the worker was killed.
func (k killed) killPython(t *testing.T, ctx context.Context, w *testenv.CeleryProcess, sent int) int {
	t.Helper()
	if k.unseen == nil {
		w.Kill()
		return 0
	}
	w.Signal(syscall.SIGSTOP)
	n, none := 0, 0
	reached(ctx, time.Second, func() bool { // the others put down what they have just taken
		if n = k.unseen(sent); n != 0 {
			none = 0
			return n < 0
		}
		none++
		return none == 2 // a BRPOP that was on its way at first has been answered by then
	})
	if none == 2 {
		w.Kill()
		return 0
	}
	w.Signal(syscall.SIGCONT)
	return cmp.Or(n, -1)
}
