package testenv

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// slots is how many slots a cluster has.
const slots = 16384

// RedisCluster is a running cluster of three masters, each with a third of the
// slots. It is safe for concurrent use.
type RedisCluster struct {
	Masters  []*RedisServer
	Replicas []*RedisServer // of the master of the same position; none if shared
	stores   atomic.Int64
}

var sharedCluster shared[*RedisCluster]

// Cluster gives the cluster that the tests of one binary share, without
// replicas; each takes a key prefix of its own by [RedisCluster.Prefix].
func Cluster(t testing.TB) *RedisCluster {
	t.Helper()
	return sharedCluster.use(t, func() (*RedisCluster, error) { return startCluster(t, false) }, (*RedisCluster).kill)
}

// PrivateCluster starts a cluster for one test, each master with a replica.
func PrivateCluster(t testing.TB) *RedisCluster {
	t.Helper()
	c, err := startCluster(t, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	return c
}

// URL names the cluster.
func (c *RedisCluster) URL() string {
	return "rediscluster://" + c.Masters[0].Addr + ";" + c.Masters[1].Addr + ";" + c.Masters[2].Addr
}

// Prefix takes a prefix for keys that nobody else uses: a cluster has one
// database.
func (c *RedisCluster) Prefix() string { return "t" + strconv.FormatInt(c.stores.Add(1), 10) + ":" }

func (c *RedisCluster) kill() {
	for _, s := range append(c.Masters, c.Replicas...) {
		s.proc.kill()
	}
}

func startCluster(t testing.TB, replicas bool) (*RedisCluster, error) {
	c := &RedisCluster{}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := func() error {
		n, nodeTimeout := 3, "15000" // Redis's default: nobody is to be taken for dead
		if replicas {
			n, nodeTimeout = 6, "2000" // soon, but not for a moment in which a node stands still
		}
		for i := range n {
			bus := FreePort(t)
			s, err := startRedis(t.TempDir(), "--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", nodeTimeout,
				"--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0")
			if err != nil {
				return err
			}
			if i < 3 {
				c.Masters = append(c.Masters, s)
				first, last := i*slots/3, (i+1)*slots/3-1
				if _, err := s.Command(ctx, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(first), strconv.Itoa(last)); err != nil {
					return err
				}
			} else {
				c.Replicas = append(c.Replicas, s)
			}
			if i > 0 {
				host, port, _ := net.SplitHostPort(s.Addr)
				if _, err := c.Masters[0].Command(ctx, "CLUSTER", "MEET", host, port, bus); err != nil {
					return err
				}
			}
		}
		all := append(append([]*RedisServer(nil), c.Masters...), c.Replicas...)
		for _, s := range all {
			if err := s.until(ctx, "CLUSTER INFO", "cluster_state:ok", "cluster_known_nodes:"+strconv.Itoa(n), "cluster_size:3"); err != nil {
				return err
			}
		}
		for i, s := range c.Replicas {
			id, err := c.Masters[i].Command(ctx, "CLUSTER", "MYID")
			if err == nil {
				_, err = s.Command(ctx, "CLUSTER", "REPLICATE", id)
			}
			if err == nil {
				err = s.until(ctx, "INFO replication", "master_link_status:up")
			}
			if err != nil {
				return err
			}
		}
		for _, s := range all { // each must know of all replicas, to elect one
			for i := range c.Replicas {
				id, err := c.Replicas[i].Command(ctx, "CLUSTER", "MYID")
				if err == nil {
					err = s.untilLine(ctx, id, "slave")
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	}()
	if err != nil {
		c.kill()
		return nil, fmt.Errorf("start a Redis cluster: %w", err)
	}
	return c, nil
}

// Command sends one command and gives its answer, the items of an array in
// lines.
func (s *RedisServer) Command(ctx context.Context, words ...string) (string, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.Addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if end, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(end); err != nil {
			return "", err
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	if _, err := io.WriteString(c, b.String()); err != nil {
		return "", err
	}
	text, err := answer(bufio.NewReader(c))
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(words, " "), err)
	}
	return text, nil
}

func answer(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimSpace(line)
	n, _ := strconv.Atoi(line[1:])
	switch line[0] {
	case '-':
		return "", errors.New(line[1:])
	case '$':
		text := make([]byte, max(n, 0)+2)
		if n < 0 {
			return "", nil
		}
		_, err = io.ReadFull(r, text)
		return string(text[:n]), err
	case '*':
		items := make([]string, n)
		for i := range items {
			if items[i], err = answer(r); err != nil {
				return "", err
			}
		}
		return strings.Join(items, "\n"), nil
	}
	return line[1:], nil
}

// Do is [RedisServer.Command] for a command that must succeed.
func (s *RedisServer) Do(t testing.TB, words ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	text, err := s.Command(ctx, words...)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Keys lists the keys of a server by a pattern.
func (s *RedisServer) Keys(t testing.TB, pattern string) []string {
	t.Helper()
	return strings.Fields(s.Do(t, "KEYS", pattern))
}

// untilLine asks until the line of a node has a word.
func (s *RedisServer) untilLine(ctx context.Context, node, word string) error {
	return s.ask(ctx, "CLUSTER NODES", func(text string) bool {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, node) && strings.Contains(line, word) {
				return true
			}
		}
		return false
	})
}

// until asks until the answer has all the words.
func (s *RedisServer) until(ctx context.Context, command string, words ...string) error {
	return s.ask(ctx, command, func(text string) bool {
		for _, w := range words {
			if !strings.Contains(text, w) {
				return false
			}
		}
		return true
	})
}

func (s *RedisServer) ask(ctx context.Context, command string, well func(string) bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := s.Command(ctx, strings.Fields(command)...)
		if err == nil && well(text) {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.proc.done:
			return fmt.Errorf("redis-server on %s ended: %s", s.Addr, s.proc.output())
		case <-ctx.Done():
			return fmt.Errorf("%s on %s: %w; it says: %s", command, s.Addr, ctx.Err(), text)
		}
	}
}

// Wait asks until the answer to a command has all the words.
func (s *RedisServer) Wait(t testing.TB, command string, words ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.until(ctx, command, words...); err != nil {
		t.Fatal(err)
	}
}

// Replicated waits until a replica has told that it has all that is written by now.
func (s *RedisServer) Replicated(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	number := func(text, name string) (n int) {
		_, rest, _ := strings.Cut(text, name)
		_, _ = fmt.Sscan(rest, &n)
		return n
	}
	want := number(s.Do(t, "INFO", "replication"), "master_repl_offset:")
	err := s.ask(ctx, "INFO replication", func(text string) bool { return number(text, ",offset=") >= want })
	if err != nil {
		t.Fatal(err)
	}
}
