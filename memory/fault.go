package memory

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Op is a kind of operation that a fault can meet.
type Op string

// The operations. OpOperate is what operators do: purge, count, peek, pause,
// dead letters.
const (
	OpDeclare   Op = "declare"
	OpPublish   Op = "publish"
	OpConsume   Op = "consume"
	OpClaim     Op = "claim"
	OpSettle    Op = "settle"
	OpFinish    Op = "finish"
	OpRenew     Op = "renew"
	OpLoss      Op = "loss"
	OpBroadcast Op = "broadcast"
	OpListen    Op = "listen"
	OpOperate   Op = "operate"
	OpStore     Op = "store"
	OpFetch     Op = "fetch"
	OpForget    Op = "forget"
	OpWatch     Op = "watch"
	OpGroup     Op = "group"
	OpOnce      Op = "once"
)

// Kind is what a fault does.
type Kind uint8

// The kinds of fault.
const (
	// Fail does nothing and returns the error.
	Fail Kind = iota + 1
	// Delay waits for Fault.Delay, or until ctx ends, and goes on.
	Delay
	// Duplicate publishes or broadcasts twice, or leaves a second copy of the
	// first claimed message; it means nothing to other operations.
	Duplicate
	// DropReply takes effect and returns the error all the same. Messages
	// claimed that way stay claimed until their lease ends.
	DropReply
)

// Fault is one fault: what happens to the Nth operation, from 1, of a kind.
type Fault struct {
	Op    Op
	Nth   int
	Kind  Kind
	Err   error         // nil: the unavailable error of the broker or backend
	Delay time.Duration // Delay
}

// Plan says which operations meet a fault: those listed, and, with a Rate, a
// share of all operations of Ops chosen by Seed. The zero Plan has no faults.
type Plan struct {
	Faults []Fault
	Seed   uint64
	Rate   float64 // 0 to 1
	Ops    []Op    // nil: publish, claim, settle, finish, renew, store, fetch
	Kinds  []Kind  // nil: all four
	// MaxDelay bounds the seeded delays; 0 is 100 ms.
	MaxDelay time.Duration
}

type injector struct {
	plan  Plan
	mu    sync.Mutex
	count map[Op]int
	met   []Fault
}

const maxMet = 4096

func newInjector(p Plan) *injector {
	if p.Ops == nil {
		p.Ops = []Op{OpPublish, OpClaim, OpSettle, OpFinish, OpRenew, OpStore, OpFetch}
	}
	if p.Kinds == nil {
		p.Kinds = []Kind{Fail, Delay, Duplicate, DropReply}
	}
	if p.MaxDelay <= 0 {
		p.MaxDelay = 100 * time.Millisecond
	}
	return &injector{plan: p, count: map[Op]int{}}
}

// Met lists the faults that operations met so far, at most the first 4096.
func (s *Store) Met() []Fault {
	if s.faults == nil {
		return nil
	}
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	return slices.Clone(s.faults.met)
}

// at decides about the nth operation of a kind, from nothing but the plan.
func (p *Plan) at(op Op, n int) Fault {
	for _, f := range p.Faults {
		if f.Op == op && f.Nth == n {
			return f
		}
	}
	if p.Rate <= 0 || !slices.Contains(p.Ops, op) {
		return Fault{}
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %d", op, n)
	r := rand.New(rand.NewPCG(p.Seed, h.Sum64()))
	if r.Float64() >= p.Rate {
		return Fault{}
	}
	f := Fault{Op: op, Nth: n, Kind: p.Kinds[r.IntN(len(p.Kinds))]}
	if f.Kind == Delay {
		f.Delay = time.Duration(r.Int64N(int64(p.MaxDelay))) + 1
	}
	return f
}

// before counts an operation and applies what its fault does beforehand.
func (in *injector) before(ctx context.Context, op Op, unavailable error) (Fault, error) {
	if in == nil {
		return Fault{}, nil
	}
	in.mu.Lock()
	in.count[op]++
	f := in.plan.at(op, in.count[op])
	if f.Kind != 0 && len(in.met) < maxMet {
		in.met = append(in.met, f)
	}
	in.mu.Unlock()
	if f.Err == nil {
		f.Err = fmt.Errorf("memory: fault at %s %d: %w", op, f.Nth, unavailable)
	}
	switch f.Kind {
	case Fail:
		return f, f.Err
	case Delay:
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return f, context.Cause(ctx)
		}
	}
	return f, nil
}

// reply is the error of an operation that took effect.
func (f Fault) reply() error {
	if f.Kind == DropReply {
		return f.Err
	}
	return nil
}
