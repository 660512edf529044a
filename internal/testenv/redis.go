package testenv

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long a server or a process is waited for.
const patience = time.Minute

// databases is how many database numbers a server has, one for each store that
// a test opens.
const databases = 4096

// RedisServer is a running Redis server. It is safe for concurrent use.
type RedisServer struct {
	Addr string // host:port
	dir  string
	args []string
	proc *process

	mu   sync.Mutex
	next int
}

var sharedRedis shared[*RedisServer]

// Redis gives the server that the tests of one binary share; each takes
// database numbers of its own by [RedisServer.DB]. It persists nothing.
func Redis(t testing.TB) *RedisServer {
	t.Helper()
	return sharedRedis.use(t, func() (*RedisServer, error) { return startRedis("") }, func(s *RedisServer) { s.proc.kill() })
}

// PrivateRedis starts a server for one test, with more configuration in the
// form of command line arguments ("--maxmemory", "4mb"). Its directory is the
// test's.
func PrivateRedis(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	s, err := startRedis(t.TempDir(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.proc.kill() })
	return s
}

// DB takes a database number that nobody else uses.
func (s *RedisServer) DB(t testing.TB) int {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next >= databases {
		t.Fatalf("the test server has %d databases and all are taken", databases)
	}
	s.next++
	return s.next - 1
}

// URL names a database of the server.
func (s *RedisServer) URL(db int) string { return "redis://" + s.Addr + "/" + strconv.Itoa(db) }

// Stop kills the server, as a crash would.
func (s *RedisServer) Stop(t testing.TB) {
	t.Helper()
	s.proc.kill()
}

// Start starts a stopped server again on the same port and directory.
func (s *RedisServer) Start(t testing.TB) {
	t.Helper()
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
}

// FreePort is a port on loopback that nobody listens on now.
func FreePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func startRedis(dir string, args ...string) (*RedisServer, error) {
	var last error
	for range 5 { // somebody else may take the port in between
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		s := &RedisServer{Addr: l.Addr().String(), dir: dir, args: args}
		if err := l.Close(); err != nil {
			return nil, err
		}
		if last = s.start(); last == nil {
			return s, nil
		}
		if errors.Is(last, exec.ErrNotFound) {
			break
		}
	}
	return nil, last
}

func (s *RedisServer) start() error {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return fmt.Errorf("this test needs redis-server, which `make test` installs (scripts/deps.sh redis): %w", err)
	}
	_, port, _ := net.SplitHostPort(s.Addr)
	dir := s.dir
	if dir == "" {
		dir = os.TempDir() // nothing is written there
	}
	args := append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "no",
		"--databases", strconv.Itoa(databases)}, s.args...)
	if s.proc, err = startProcess(exec.Command(path, args...)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.answers(ctx); err != nil {
		s.proc.kill()
		return fmt.Errorf("redis-server on %s does not answer: %w: %s", s.Addr, err, s.proc.output())
	}
	return nil
}

// answers waits until the server says PONG, or asks who it is that asks.
func (s *RedisServer) answers(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.Addr)
		if err == nil {
			_, err = c.Write([]byte("PING\r\n"))
			var line string
			if err == nil {
				line, err = bufio.NewReader(c).ReadString('\n')
			}
			c.Close()
			if err == nil && (strings.HasPrefix(line, "+PONG") || strings.HasPrefix(line, "-NOAUTH")) {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-s.proc.done:
			return errors.New("it ended at once")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Must sends one command and gives its answer, which must be no error.
func (s *RedisServer) Must(t testing.TB, words ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	answer, err := s.Command(ctx, words...)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}
