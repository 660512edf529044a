package testenv

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Sentinel starts a master, a replica that has all of it, and a sentinel that
// knows both by a name. It fails over when the master is away for half a second.
// The URL names the sentinel.
func Sentinel(t testing.TB, name string) (url string, master *RedisServer) {
	t.Helper()
	master = PrivateRedis(t)
	host, masterPort, _ := net.SplitHostPort(master.Addr)
	replica := PrivateRedis(t, "--replicaof", host+" "+masterPort, "--repl-diskless-sync-delay", "0")
	replica.Wait(t, "INFO replication", "master_link_status:up")
	master.Wait(t, "INFO replication", "state=online")
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("this test needs redis-server, which `make test` installs (scripts/deps.sh redis): %v", err)
	}
	port := FreePort(t)
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	conf := fmt.Sprintf("port %s\nbind 127.0.0.1\nsentinel monitor %s %s %s 1\nsentinel down-after-milliseconds %s 2000\nsentinel failover-timeout %s 5000\n",
		port, name, host, masterPort, name, name)
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &RedisServer{Addr: net.JoinHostPort("127.0.0.1", port)}
	if s.proc, err = startProcess(exec.Command(path, file, "--sentinel")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.proc.kill)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.answers(ctx); err != nil {
		t.Fatalf("the sentinel on %s does not answer: %v", s.Addr, err)
	}
	s.Wait(t, "INFO sentinel", "slaves=1") // it asks the master every ten seconds
	return "sentinel://" + s.Addr, master
}
