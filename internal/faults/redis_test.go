package faults_test

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	_ "github.com/lovage-go/lovage/backend/redisbackend"
	_ "github.com/lovage-go/lovage/broker/redisbroker"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// lease is the driver's own in the full form: whatever ends before it costs no
// task a second run.
func lease() worker.Config { return worker.Config{Lease: size(7*time.Second, 30*time.Second)} }

// redis are stores on one database, or on two servers.
func redis(t *testing.T, servers ...*testenv.RedisServer) stores {
	t.Helper()
	var s stores
	url := func(i int) (through, direct string, p *testenv.Proxy) {
		db := servers[i].DB(t)
		p = testenv.NewProxy(t, servers[i].Addr)
		return fmt.Sprintf("redis://%s/%d", p.Addr, db), servers[i].URL(db), p
	}
	s.through.BrokerURL, s.direct.BrokerURL, s.broker = url(0)
	s.through.ResultBackend, s.direct.ResultBackend, s.results = s.through.BrokerURL, s.direct.BrokerURL, s.broker
	if len(servers) > 1 {
		s.through.ResultBackend, s.direct.ResultBackend, s.results = url(1)
	}
	return s
}

// durable is a server of one's own whose data survives its death.
func durable(t *testing.T, more ...string) *testenv.RedisServer {
	return testenv.PrivateRedis(t, append([]string{"--appendonly", "yes", "--appendfsync", "always"}, more...)...)
}

func TestRedis(t *testing.T) {
	t.Parallel()
	for _, f := range network() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			try(t, redis(t, testenv.Redis(t)), lease(), f)
		})
	}
}

func TestRedisApart(t *testing.T) {
	t.Parallel()
	for _, f := range network() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			try(t, redis(t, testenv.Redis(t), testenv.PrivateRedis(t)), lease(), f)
		})
	}
}

// loading asks a server what it does, every 20 ms, and counts how often it says
// that it is loading its data.
func loading(addr string, stop <-chan struct{}) (n int) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-stop:
			return n
		}
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			continue
		}
		_ = c.SetDeadline(time.Now().Add(time.Second))
		_, _ = c.Write([]byte("PING\r\n"))
		if line, _ := bufio.NewReader(c).ReadString('\n'); strings.HasPrefix(line, "-LOADING") {
			n++
		}
		c.Close()
	}
}

// state puts a server into a state for a while.
func state(s *testenv.RedisServer, t *testing.T, d time.Duration, on, off []string) func(r *rig) {
	return func(r *rig) {
		for range size(1, 5) {
			s.Must(t, on...)
			<-time.After(d)
			s.Must(t, off...)
			// Long enough for a lease to be renewed, or what runs is given to
			// another after the third time.
			<-time.After(size(200*time.Millisecond, 3*time.Second))
		}
	}
}

func TestRedisServer(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(t *testing.T){
		"Restart": func(t *testing.T) {
			s := durable(t)
			try(t, redis(t, s), lease(), fault{name: "Restart", do: func(r *rig) {
				for range size(2, 10) {
					s.Stop(t)
					<-time.After(size(500*time.Millisecond, 3*time.Second))
					s.Start(t)
					<-time.After(300 * time.Millisecond)
				}
			}})
		},
		"Loading": func(t *testing.T) {
			// Each command of the log takes its time to load; between a thousand of
			// them the server answers.
			s := durable(t, "--key-load-delay", "150", "--loading-process-events-interval-bytes", "1024")
			s.Must(t, "EVAL", `for i=1,10000 do redis.call('SET', 'ballast:'..i, string.rep('x', 100)) end return 1`, "0")
			try(t, redis(t, s), lease(), fault{name: "Loading", do: func(r *rig) {
				s.Stop(t)
				stop, seen := make(chan struct{}), make(chan int)
				go func() { seen <- loading(s.Addr, stop) }()
				s.Start(t)
				close(stop)
				if n := <-seen; n < 4 {
					t.Errorf("the server said LOADING %d times: nothing was tested", n)
				}
			}})
		},
		"ReadOnly": func(t *testing.T) {
			s := testenv.PrivateRedis(t)
			r := try(t, redis(t, s), lease(), fault{name: "ReadOnly", do: state(s, t, size(1500*time.Millisecond, 10*time.Second), []string{"REPLICAOF", "127.0.0.1", "1"}, []string{"REPLICAOF", "NO", "ONE"})})
			if r.log.count("READONLY") == 0 {
				t.Errorf("the server was not seen as a replica: nothing was tested\n%s", r.tail())
			}
		},
		"OutOfMemory": func(t *testing.T) {
			// For longer than the lease: what runs must be renewed all the same.
			s := testenv.PrivateRedis(t, "--maxmemory-policy", "noeviction")
			cfg := worker.Config{Lease: 3 * time.Second}
			r := try(t, redis(t, s), cfg, fault{name: "OutOfMemory", do: func(r *rig) {
				r.must("long", size[time.Duration](3, 5)*cfg.Lease)
				r.ledger.wait(patience, r.started("long"))
				state(s, t, size[time.Duration](2, 4)*cfg.Lease, []string{"CONFIG", "SET", "maxmemory", "1"}, []string{"CONFIG", "SET", "maxmemory", "0"})(r)
			}})
			if n := r.refused.Load(); n == 0 {
				t.Error("no task was refused: nothing was tested")
			}
		},
		"NoScript": func(t *testing.T) {
			s := testenv.PrivateRedis(t)
			try(t, redis(t, s), lease(), fault{name: "NoScript", do: func(r *rig) {
				for range size(30, 1000) {
					s.Must(t, "SCRIPT", "FLUSH")
					<-time.After(10 * time.Millisecond)
				}
			}})
		},
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); do(t) })
	}
}
