package faults_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	_ "github.com/lovage-go/lovage/broker/amqpbroker"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// rabbitmq is a broker with results in Redis, each behind a proxy of its own, as
// messages ("rpc://"), or with none ("").
func rabbitmq(t *testing.T, server *testenv.RabbitServer, results string) stores {
	t.Helper()
	s := stores{resends: true}
	if results == "redis" {
		s = redis(t, testenv.Redis(t))
		s.resends = true
	}
	vhost := server.Vhost(t)
	s.broker = testenv.NewProxy(t, server.Addr)
	s.direct.BrokerURL, s.through.BrokerURL = vhost, strings.Replace(vhost, server.Addr, s.broker.Addr, 1)
	if results != "redis" {
		s.results = s.broker
		s.direct.ResultBackend, s.through.ResultBackend = results, results
		s.forgets, s.asks = results == "", results == "rpc://"
	}
	s.through.BrokerTransportOptions = map[string]any{"heartbeat": 1}
	return s
}

// TestRabbitMQCaller: it is the caller's network that misbehaves, with which its
// reply queue goes. Whoever waits gets the result, or is told that it may be lost.
func TestRabbitMQCaller(t *testing.T) {
	t.Parallel()
	for _, f := range network() {
		f.repeats = "a call whose answer is lost may have been sent"
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			s := rabbitmq(t, testenv.RabbitMQ(t), "rpc://")
			s.direct, s.through = s.through, s.direct
			s.forgets = true
			try(t, s, worker.Config{}, f)
		})
	}
}

const (
	givesBack   = "RabbitMQ gives back what a lost connection has claimed"
	redelivered = "after a crash RabbitMQ calls redelivered what comes for the first time"
)

// TestRabbitMQ: the server takes back what a lost connection had claimed, at once,
// and it runs a second time. Nobody's death is counted for it.
func TestRabbitMQ(t *testing.T) {
	t.Parallel()
	for name, results := range map[string]string{"Redis": "redis", "RPC": "rpc://", "Alone": ""} {
		for _, f := range network() {
			f.repeats = givesBack
			t.Run(name+"/"+f.name, func(t *testing.T) {
				t.Parallel()
				try(t, rabbitmq(t, testenv.RabbitMQ(t), results), worker.Config{}, f)
			})
		}
	}
}

// plant is a node of its own with three workers: results in Redis, as messages and
// none.
type plant struct {
	*testing.T
	*testenv.RabbitServer
	rigs []*rig
	rest []func() // stops who sends tasks
}

func (s *plant) feed() {
	for _, r := range s.rigs {
		s.rest = append(s.rest, r.feed())
	}
}

func (s *plant) pause() {
	for _, stop := range s.rest {
		stop()
	}
	s.rest = nil
}

func (s *plant) each(do func(r *rig, vhost string)) {
	for _, r := range s.rigs {
		do(r, vhostOf(s.T, r))
	}
}

// logged waits until each worker has told of something.
func (s *plant) logged(text string) {
	s.Helper()
	for _, r := range s.rigs {
		r.until(patience, "the log says "+text, func() bool { return r.log.count(text) > 0 })
	}
}

// loses deletes messages, and takes what has not ended out of the ledgers.
func (s *plant) loses(deletes func(r *rig, vhost string)) {
	s.pause()
	s.each(deletes)
	for _, r := range s.rigs {
		r.ledger.note(func() {
			for id := range r.ledger.sent {
				if calls, linked := r.ledger.linked[id]; r.ledger.ends[id] == 0 || linked && len(calls) == 0 {
					delete(r.ledger.sent, id)
				}
			}
		})
	}
	s.feed()
}

// grant gives or takes the rights of the workers' account.
func (s *plant) grant(configure, rest string) {
	s.each(func(_ *rig, vhost string) {
		s.Manage(s.T, http.MethodPut, "/api/permissions/"+vhost+"/guest", map[string]string{"configure": configure, "write": rest, "read": rest})
	})
}

func (s *plant) deleteQueue(_ *rig, vhost string) {
	s.Manage(s.T, http.MethodDelete, "/api/queues/"+vhost+"/q", nil)
}

// closeAll lets the server close all connections.
func (s *plant) closeAll(why string) { s.Control(s.T, "close_all_connections", "--global", why) }

// TestRabbitMQServer: one fault after the other.
func TestRabbitMQServer(t *testing.T) {
	t.Parallel()
	s := &plant{T: t, RabbitServer: testenv.PrivateRabbitMQ(t)}
	if *full { // channels look at rights and at what is claimed for too long on this tick
		s.Control(t, "eval", "application:set_env(rabbit, channel_tick_interval, 300).")
	}
	for _, results := range []string{"redis", "rpc://", ""} {
		conf := rabbitmq(t, s.RabbitServer, results)
		conf.forgets = results != "redis"
		r := newRig(t, conf, worker.Config{})
		r.start()
		s.rigs = append(s.rigs, r)
	}
	s.feed()
	defer s.pause()
	for _, f := range []struct {
		name string
		do   func()
		logs []string
		long bool // for the full form only
	}{
		{"ConnectionClosed", func() { s.closeAll("by the operator") }, []string{"by the operator"}, false},
		{"MemoryAlarm", func() {
			s.Control(t, "set_vm_memory_high_watermark", "0.00001")
			s.logged("low on memory")
			s.Control(t, "set_vm_memory_high_watermark", "0.9")
		}, []string{"RabbitMQ takes messages again"}, true},
		{"DiskAlarm", func() {
			s.Control(t, "set_disk_free_limit", "1000000GB")
			s.logged("low on disk")
			s.Control(t, "set_disk_free_limit", "1000000")
		}, nil, true},
		{"QueueDeleted", func() { s.loses(s.deleteQueue) }, nil, false},
		{"QueueMissing", func() { // 404, and 403 for who declares it
			s.grant("^$", ".*") // the HTTP API has the same account
			s.loses(func(_ *rig, vhost string) { s.Control(t, "delete_queue", "q", "--vhost", vhost) })
			s.logged("a queue cannot be consumed")
			s.grant(".*", ".*")
		}, nil, true},
		{"NoPermission", func() { // 403
			s.grant("^$", "^$")
			s.logged("ACCESS_REFUSED")
			s.grant(".*", ".*")
		}, nil, true},
		{"ConsumerTimeout", func() { // 406
			s.Control(t, "eval", "application:set_env(rabbit, consumer_timeout, 500).")
			s.closeAll("for new channels")
			s.logged("PRECONDITION_FAILED - delivery acknowledgement on channel")
			s.Control(t, "eval", "application:set_env(rabbit, consumer_timeout, 1800000).")
			s.closeAll("for new channels")
		}, nil, true},
		{"VhostDeleted", func() { // 530
			s.loses(func(_ *rig, vhost string) { s.Manage(t, http.MethodDelete, "/api/vhosts/"+vhost, nil) })
			s.logged("RabbitMQ refuses this virtual host")
			s.each(func(_ *rig, vhost string) { s.Manage(t, http.MethodPut, "/api/vhosts/"+vhost, nil) })
			s.grant(".*", ".*")
		}, nil, true},
		{"NodeStopped", func() {
			s.Control(t, "stop_app")
			s.Control(t, "start_app")
		}, nil, true},
		{"NodeKilled", func() {
			s.Stop(t)
			s.Start(t)
		}, nil, false},
	} {
		if f.long && !*full {
			continue
		}
		t.Log("now", f.name)
		var before []tally
		for _, r := range s.rigs {
			before = append(before, r.tally())
		}
		f.do()
		for i, r := range s.rigs {
			took := r.consumes(f.name)
			r.report(fmt.Sprintf("RabbitMQServer/%s/%s", f.name, []string{"Redis", "RPC", "Alone"}[i]), took, before[i])
		}
		for _, text := range f.logs {
			s.logged(text)
		}
		for _, r := range s.rigs {
			if n := r.w.Stats().Losses; n > 0 && f.name != "NodeKilled" {
				t.Errorf("%s: %d deaths are counted, and nobody died\n%s", f.name, n, r.tail())
			}
		}
	}
	s.pause()
	for _, r := range s.rigs {
		r.settled(fault{repeats: givesBack, deaths: redelivered})
	}
}

func vhostOf(t *testing.T, r *rig) string {
	t.Helper()
	first, _, _ := strings.Cut(r.direct.BrokerURL, ";")
	u, err := url.Parse(first)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(u.Path, "/")
}
