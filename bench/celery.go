package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// celeryPeer is Python's Celery, as apt has it.
type celeryPeer struct {
	title  string
	best   bool
	rabbit bool   // on RabbitMQ with results by rpc, else on Redis
	dir    string // where its module is put
}

//go:embed celery_app.py
var celeryApp []byte

// python is where apt puts Celery; another interpreter may come first on the PATH.
const python = "/usr/bin/python3"

func newCelery(dir, title string, best bool) (celeryPeer, error) {
	c := celeryPeer{title: title, best: best, dir: dir}
	if err := exec.Command(python, "-c", "import celery, redis").Run(); err != nil {
		return c, fmt.Errorf("apt install python3-celery python3-redis: %w", err)
	}
	return c, os.WriteFile(filepath.Join(dir, "celery_app.py"), celeryApp, 0o600)
}

func (c celeryPeer) name() string { return c.title }

func (c celeryPeer) command(b *bed, results bool, args ...string) *exec.Cmd {
	cmd := exec.Command(python, args...)
	cmd.Dir = c.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8", "PYTHONPATH=" + c.dir, "C_FORCE_ROOT=1", "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1",
		"BENCH_URL=" + c.server(b).url, "BENCH_BACKEND=" + c.backend(b), "BENCH_RESULTS=" + flagText(results), "BENCH_BEST=" + flagText(c.best)}
	return cmd
}

func flagText(on bool) string {
	if on {
		return "1"
	}
	return ""
}

func (c celeryPeer) server(b *bed) *server {
	if c.rabbit {
		return b.rabbit
	}
	return b.redis
}

func (c celeryPeer) backend(b *bed) string {
	if c.rabbit {
		return "rpc://"
	}
	return b.redis.url
}

func (c celeryPeer) worker(ctx context.Context, b *bed, results bool) (*process, error) {
	args := []string{"-m", "celery", "-A", "celery_app", "worker", "-l", "ERROR"}
	if c.best {
		args = append(args, "-c", "2", "-P", "prefork", "--prefetch-multiplier", "64", "--without-gossip", "--without-mingle", "--without-heartbeat")
	}
	return start(ctx, c.command(b, results, args...), "ready")
}

// open has Lovage's client fill the queue, with the same messages and faster.
func (c celeryPeer) open(ctx context.Context, b *bed, results bool) (queue, error) {
	var own peer = lovagePeer{}
	if c.rabbit {
		own = lovageRabbit{}
	}
	q, err := own.open(ctx, b, results)
	if err != nil {
		return nil, err
	}
	return &celeryQueue{queue: q, peer: c, bed: b, results: results}, nil
}

// celeryQueue measures calls with Celery's own client, in its process.
type celeryQueue struct {
	queue
	peer    celeryPeer
	bed     *bed
	results bool
}

func (q *celeryQueue) python(ctx context.Context, args ...string) ([]float64, error) {
	cmd := q.peer.command(q.bed, q.results, append([]string{"celery_app.py"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("celery client: %w", err)
	}
	s := bufio.NewScanner(bytes.NewReader(out))
	s.Buffer(nil, 1<<22)
	s.Scan()
	var v []float64
	return v, json.Unmarshal(s.Bytes(), &v)
}

// enqueue uses as many threads as there are callers.
func (q *celeryQueue) enqueue(ctx context.Context, n, callers int) (time.Duration, error) {
	v, err := q.python(ctx, "enqueue", strconv.Itoa(n), strconv.Itoa(callers))
	if err != nil {
		return 0, err
	}
	return time.Duration(v[0] * float64(time.Second)), nil
}

func (q *celeryQueue) roundTrips(ctx context.Context, n int) ([]time.Duration, error) {
	v, err := q.python(ctx, "roundtrips", strconv.Itoa(n))
	out := make([]time.Duration, len(v))
	for i := range v {
		out[i] = time.Duration(v[i] * float64(time.Second))
	}
	return out, err
}
