package brokertest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage/broker"
)

// Harness is how the suite gets at a driver.
type Harness struct {
	// Open opens a connection onto a fresh, empty store. The suite closes it;
	// the harness removes the store by t.Cleanup.
	Open func(t *testing.T) broker.Conn
	// Reopen opens one more connection onto the same store, as another process
	// would. The connection given may have been closed or killed.
	Reopen func(t *testing.T, c broker.Conn) broker.Conn
	// Kill cuts a connection off as kill -9 would do to its process: nothing is
	// handed back and nothing it does later has an effect. Nil: the driver
	// cannot be cut off in a test, and Lacks names [Killable].
	Kill func(t *testing.T, c broker.Conn)
	// Lease is the lease that lease cases ask for; short, but long enough for a
	// slow machine to renew in. 0 is 1 s.
	Lease time.Duration
	// TakeOver bounds how long after its holder's death an orphan may take to
	// be delivered again. 0 is twice the lease and 30 s.
	TakeOver time.Duration
	// Lacks names the abilities that the driver does not have.
	Lacks []Ability
	// Around runs the body of a case, in a synctest bubble for example. Nil
	// runs it under the real clock, in parallel with the other cases.
	Around func(t *testing.T, body func(t *testing.T))
}

// Ability is what a case may need of a driver.
type Ability string

// The abilities.
const (
	Delay       Ability = "delay"        // Features.Delay
	Park        Ability = "park"         // Features.Park
	Priority    Ability = "priority"     // Features.Priority
	Ordered     Ability = "order"        // Features.Ordered
	Bounded     Ability = "body limit"   // Features.MaxBody > 0
	Fanout      Ability = "fanout"       // broker.Fanouter
	Purge       Ability = "purge"        // broker.Purger
	Lengths     Ability = "lengths"      // broker.Lengther
	Bindings    Ability = "bindings"     // broker.BindingLister
	Peek        Ability = "peek"         // broker.Peeker
	Pause       Ability = "pause"        // broker.Pauser
	PeekDelayed Ability = "peek delayed" // broker.DelayPeeker
	Dead        Ability = "dead letter"  // Features.DeadLetter and broker.DeadLetterer
	Leases      Ability = "leases"       // broker.LeaseRenewer, on the consumer
	Losses      Ability = "losses"       // broker.LossCounter or broker.LossMarker, on the consumer
	Atomic      Ability = "atomic"       // broker.AtomicFinisher, on the consumer
	Identity    Ability = "identity"     // broker.StoreIdentity
	Killable    Ability = "kill"         // Harness.Kill

	// Those that a probe finds out by trying.
	Places   Ability = "hand-backs to the consuming end"
	Orphans  Ability = "orphans told from hand-backs"
	Claims   Ability = "claimed messages counted"
	Delays   Ability = "delayed messages counted and purged"
	Listing  Ability = "queues listed"
	Zero     Ability = "priority 0 told from none"
	Unexpiry Ability = "expiration left to the worker"
)

// testCase is one rule of the contract.
type testCase struct {
	name  string
	needs []Ability
	run   func(w *world)
}

// Run judges a driver.
func Run(t *testing.T, h Harness) {
	if h.Lease <= 0 {
		h.Lease = time.Second
	}
	if h.TakeOver <= 0 {
		h.TakeOver = 2*h.Lease + 30*time.Second // of a slow machine
	}
	if h.Around == nil {
		h.Around = func(t *testing.T, body func(t *testing.T)) { body(t) }
	}
	var has []Ability
	h.Around(t, func(t *testing.T) { has = probe(t, &h) })
	for _, a := range h.Lacks {
		if slices.Contains(has, a) {
			t.Errorf("the harness says that the driver lacks %q, but it is there: remove it from Lacks", a)
		}
	}
	for _, a := range everyAbility {
		if !slices.Contains(has, a) && !slices.Contains(h.Lacks, a) {
			t.Errorf("the driver does not show %q and the harness does not name it in Lacks", a)
		}
	}
	for _, c := range slices.Concat(deliveryCases, settleCases, orderCases, routeCases, operatorCases, fanoutCases, lossCases, finishCases, fidelityCases, loadCases) {
		if missing := without(c.needs, has); len(missing) > 0 {
			t.Logf("left out: %s needs %s", c.name, strings.Join(missing, ", "))
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h.Around(t, func(t *testing.T) {
				w := newWorld(t, &h, has)
				c.run(w)
				w.end()
			})
		})
	}
}

func without(needs, has []Ability) []string {
	var missing []string
	for _, n := range needs {
		if !slices.Contains(has, n) {
			missing = append(missing, string(n))
		}
	}
	return missing
}

var everyAbility = [...]Ability{Delay, Park, Priority, Ordered, Bounded, Fanout, Purge, Lengths, Bindings, Peek, PeekDelayed, Pause, Dead, Leases, Losses, Atomic, Identity, Killable,
	Places, Orphans, Claims, Delays, Listing, Zero, Unexpiry}

// probe looks at what a connection and a consumer can do.
func probe(t *testing.T, h *Harness) (has []Ability) {
	w := newWorld(t, h, nil)
	cs := w.consumer(w.conn, "probe")
	f := w.conn.Features()
	add := func(a Ability, ok bool) {
		if ok {
			has = append(has, a)
		}
	}
	add(Delay, f.Delay)
	add(Park, f.Park)
	add(Priority, f.Priority)
	add(Ordered, f.Ordered)
	add(Bounded, f.MaxBody > 0)
	add(Fanout, is[broker.Fanouter](w.conn))
	add(Purge, is[broker.Purger](w.conn))
	add(Lengths, is[broker.Lengther](w.conn))
	add(Bindings, is[broker.BindingLister](w.conn))
	add(Peek, is[broker.Peeker](w.conn))
	add(PeekDelayed, is[broker.DelayPeeker](w.conn))
	add(Pause, is[broker.Pauser](w.conn))
	add(Dead, f.DeadLetter && is[broker.DeadLetterer](w.conn))
	add(Leases, is[broker.LeaseRenewer](cs))
	add(Losses, is[broker.LossCounter](cs) || is[broker.LossMarker](cs))
	add(Atomic, is[broker.AtomicFinisher](cs))
	add(Identity, is[broker.StoreIdentity](w.conn))
	add(Killable, h.Kill != nil)
	w.try(cs, add)
	w.end()
	return has
}

// try finds out what only a message tells.
func (w *world) try(cs broker.Consumer, add func(Ability, bool)) {
	w.must(w.conn.Declare(w.ctx, broker.Named("probe")))
	w.must(cs.Update(w.ctx, broker.Named("probe")))
	if _, ok := w.conn.(broker.Lengther); ok {
		l, all := w.lengths(w.conn, "probe")["probe"], w.lengths(w.other())
		_, listed := all["probe"]
		add(Claims, l.Claimed != broker.Unknown)
		add(Delays, l.Delayed != broker.Unknown)
		add(Listing, listed)
	}
	w.publish(prioritised("probe", "a", 0))
	d := w.claimOne(cs)
	add(Zero, d.Properties.Priority != nil)
	w.ack(cs, d)
	w.must(cs.Close())
	expired := message("probe", "b")
	expired.Properties.HasExpiration = true
	w.publish(expired, message("probe", "c"))
	c := w.other()
	cs = w.consumer(c, "probe")
	d = w.claimOne(cs)
	add(Unexpiry, string(d.Body) == "b")
	if string(d.Body) == "b" {
		w.ack(cs, d)
		w.claimOne(cs)
	}
	w.must(c.Close()) // hands back
	cs = w.consumer(w.conn, "probe")
	d = w.claimOne(cs)
	add(Orphans, !d.Orphaned)
	w.send("probe", "d")
	w.settle(cs, broker.HandBack, d)
	ds := w.claim(cs, 2)
	add(Places, string(ds[0].Body) == string(d.Body))
	w.ack(cs, ds...)
}

func is[T any](x any) bool {
	_, ok := x.(T)
	return ok
}
