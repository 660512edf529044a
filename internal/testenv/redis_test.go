package testenv_test

import (
	"net"
	"testing"

	"github.com/lovage-go/lovage/internal/testenv"
)

func TestRedisIsSharedAndRestarts(t *testing.T) {
	t.Parallel()
	a, b := testenv.Redis(t), testenv.Redis(t)
	if a != b {
		t.Errorf("two servers, %s and %s, want one", a.Addr, b.Addr)
	}
	if x, y := a.DB(t), b.DB(t); x == y {
		t.Errorf("both got database %d", x)
	}
	own := testenv.PrivateRedis(t)
	if own.Addr == a.Addr {
		t.Error("the private server is the shared one")
	}
	own.Stop(t)
	if c, err := net.Dial("tcp", own.Addr); err == nil {
		c.Close()
		t.Error("a stopped server takes connections")
	}
	own.Start(t)
	c, err := net.Dial("tcp", own.Addr)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestClusterHasAllSlots(t *testing.T) {
	t.Parallel()
	c := testenv.PrivateCluster(t)
	for i, s := range append(c.Masters, c.Replicas...) {
		s.Wait(t, "CLUSTER INFO", "cluster_slots_ok:16384")
		role := "role:master"
		if i >= len(c.Masters) {
			role = "role:slave"
		}
		s.Wait(t, "INFO replication", role)
	}
	if a, b := c.Prefix(), c.Prefix(); a == b {
		t.Errorf("two stores have the prefix %q", a)
	}
}
