package cli_test

import (
	"strings"
	"testing"

	_ "github.com/lovage-go/lovage/backend/redisbackend"
	_ "github.com/lovage-go/lovage/broker/redisbroker"
	"github.com/lovage-go/lovage/internal/testenv"
)

func TestQueuePauseAndResume(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	var b strings.Builder
	for _, args := range [][]string{
		{"queue", "pause", "celery", "other"}, {"queue", "pause", "celery"}, {"queue", "resume", "celery"}, {"queue", "unpark", "celery"},
	} {
		b.WriteString(s.transcript(args...) + "\n")
	}
	golden(t, "queue", b.String())
}

// TestQueueUnpark leaves a message that waits in the server, because a Go worker
// took it in, to Python workers.
func TestQueueUnpark(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	server := testenv.Redis(t)
	s.url = server.URL(server.DB(t))
	stop := s.startWorker()
	s.ok("-q", "call", "proj.add", "-a", "[1, 1]", "--wait") // so the worker has claimed
	s.ok("call", "proj.add", "-a", "[1, 1]", "--countdown", "3600")
	stop()
	var b strings.Builder
	for _, args := range [][]string{{"queues"}, {"queue", "unpark", "celery"}, {"queues"}, {"queue", "unpark", "celery"}} {
		b.WriteString(s.transcript(args...) + "\n")
	}
	golden(t, "queue_unpark", b.String())
}
