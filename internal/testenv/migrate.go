package testenv

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Owner is the position of the master that has the slot of a key, and the slot.
func (c *RedisCluster) Owner(t testing.TB, key string) (owner, slot int) {
	t.Helper()
	slot, err := strconv.Atoi(c.Masters[0].Do(t, "CLUSTER", "KEYSLOT", key))
	if err != nil {
		t.Fatal(err)
	}
	for owner = 2; slot < owner*slots/3; {
		owner--
	}
	return owner, slot
}

// Migrate moves a slot from one master to another as redis-cli does, its keys a
// few at a time. between runs after each step.
func (c *RedisCluster) Migrate(t testing.TB, slot int, from, to *RedisServer, between func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	n := strconv.Itoa(slot)
	host, port, _ := net.SplitHostPort(to.Addr)
	source, target := from.Do(t, "CLUSTER", "MYID"), to.Do(t, "CLUSTER", "MYID")
	to.Do(t, "CLUSTER", "SETSLOT", n, "IMPORTING", source)
	from.Do(t, "CLUSTER", "SETSLOT", n, "MIGRATING", target)
	between()
	for {
		keys := strings.Fields(from.Do(t, "CLUSTER", "GETKEYSINSLOT", n, "2"))
		if len(keys) == 0 {
			break
		}
		words := append([]string{"MIGRATE", host, port, "", "0", "5000", "KEYS"}, keys...)
		if _, err := from.Command(ctx, words...); err != nil {
			t.Fatal(fmt.Errorf("migrate %v: %w", keys, err))
		}
		between()
	}
	for _, s := range append([]*RedisServer{to, from}, c.Masters...) {
		s.Do(t, "CLUSTER", "SETSLOT", n, "NODE", target)
	}
}
