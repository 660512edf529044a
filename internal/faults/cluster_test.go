package faults_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/internal/testenv"
	"github.com/lovage-go/lovage/worker"
)

// TestRabbitMQCluster: quorum queues on three nodes, which two workers know all, by
// either strategy. Leaders move; then the node is killed that both workers consume
// by, which leads the queue of one of them, while runs are under way. Each confirmed
// task has run in the end, with the dead node away, and nothing is claimed any more.
func TestRabbitMQCluster(t *testing.T) {
	t.Parallel()
	c := testenv.PrivateRabbitCluster(t)
	s := &plant{T: t}
	rig := func(strategy string, first *testenv.RabbitServer) *rig {
		urls := strings.Split(c.Vhost(t), ";")
		slices.SortStableFunc(urls, func(a, b string) int { // first is before the others
			if first != nil && strings.Contains(a, first.Addr) && a != b {
				return -1
			}
			return 0
		})
		conf := lovage.Config{BrokerURL: strings.Join(urls, ";"), BrokerFailoverStrategy: strategy, BrokerTransportOptions: map[string]any{"queue_type": "quorum"}}
		server := testenv.Redis(t)
		conf.ResultBackend = server.URL(server.DB(t))
		r := newRig(t, stores{through: conf, direct: conf, resends: true}, worker.Config{})
		r.start()
		s.rigs = append(s.rigs, r)
		return r
	}
	shuffled := rig("shuffle", nil)
	victim := c.Consumes(t, vhostOf(t, shuffled), "q")
	inTurn := rig("round-robin", victim)
	if at := c.Consumes(t, vhostOf(t, inTurn), "q"); at != victim {
		t.Fatalf("the worker consumes by %s, want the first of its list, %s", at.Node, victim.Node)
	}
	s.feed()
	defer s.pause()
	try := func(name string, do func()) {
		before := []tally{s.rigs[0].tally(), s.rigs[1].tally()}
		do()
		for i, r := range s.rigs {
			took := r.consumes(name)
			r.report(fmt.Sprintf("RabbitMQCluster/%s/%s", name, r.direct.BrokerFailoverStrategy), took, before[i])
		}
	}
	for round := range size(1, 3) {
		other := c.Nodes[(slices.Index(c.Nodes, victim)+1)%len(c.Nodes)]
		try(name("LeaderMoved", round), func() {
			c.MoveLeader(t, vhostOf(t, shuffled), "q", other)
			c.MoveLeader(t, vhostOf(t, inTurn), "q", victim)
		})
		try(name("NodeKilled", round), func() {
			for _, r := range s.rigs {
				r.holds(name("held", round))
			}
			victim.Stop(t)
		})
		s.pause()
		for _, r := range s.rigs {
			if r.direct.BrokerFailoverStrategy == "round-robin" && r.log.count("another broker is used") == 0 {
				t.Errorf("the worker did not go to another node: nothing was tested\n%s", r.tail())
			}
			r.settled(fault{repeats: givesBack})
			c.Drained(t, c.Nodes[(slices.Index(c.Nodes, victim)+1)%len(c.Nodes)], vhostOf(t, r), "q")
		}
		if round == size(1, 3)-1 || t.Failed() {
			return
		}
		victim.Start(t)
		for _, r := range s.rigs { // or the next death leaves too few
			c.Quorum(t, victim, vhostOf(t, r), "q")
		}
		victim = c.Consumes(t, vhostOf(t, inTurn), "q")
		s.feed()
	}
}

// holds leaves a worker with runs under way that have filled its slots for more than
// a second: its consumers have been fitted to that.
func (r *rig) holds(id string) {
	r.Helper()
	for i := range 10 {
		id := name(id+".", i)
		for n := range 3 {
			r.must(name(id+".", n), 4*time.Second)
		}
		r.must(id+".last", 1500*time.Millisecond)
		if !r.ledger.wait(60*time.Second, func() bool { return r.ledger.ends[id+".last"] > 0 }) {
			r.Fatalf("%s.last has not ended\n%s", id, r.tail())
		}
		held := func() bool { return r.ledger.starts[id+".2"] > 0 && r.ledger.ends[id+".2"] == 0 }
		if r.ledger.wait(0, held) {
			return
		}
	}
	r.Fatal("nothing is under way after 10 tries")
}
