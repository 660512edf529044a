package memory

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

const (
	defaultLease    = 30 * time.Second
	defaultMaxBody  = 64 << 20
	defaultCapacity = 1 << 20
	defaultListen   = 1024
	lossKeep        = 24 * time.Hour
)

// Option changes a store at [New].
type Option func(*Store)

// WithLogger sets the logger; slog.Default otherwise.
func WithLogger(l *slog.Logger) Option { return func(s *Store) { s.log = l } }

// WithLease sets the lease of consumers that name none; 30 s otherwise.
func WithLease(d time.Duration) Option { return func(s *Store) { s.lease = d } }

// WithMaxBody sets the largest body that is accepted, in bytes; 64 MiB otherwise.
func WithMaxBody(n int) Option { return func(s *Store) { s.maxBody = n } }

// WithCapacity bounds the messages in the store, dead letters included; 1 Mi
// otherwise. A publish beyond it is refused with broker.ErrUnavailable.
func WithCapacity(n int) Option { return func(s *Store) { s.capacity = n } }

// WithListenBuffer bounds what a listener that does not keep up may hold back;
// 1024 messages otherwise.
func WithListenBuffer(n int) Option { return func(s *Store) { s.listenBuffer = n } }

// WithOrphansAfterLease makes the claims of a killed process last until their
// lease ends, as on a broker that cannot see the death. Otherwise they are
// orphaned at once.
func WithOrphansAfterLease() Option { return func(s *Store) { s.slowDeath = true } }

// WithFaults injects the faults of a plan.
func WithFaults(p Plan) Option { return func(s *Store) { s.faults = newInjector(p) } }

// Store holds queues and results. It is safe for concurrent use.
type Store struct {
	log          *slog.Logger
	lease        time.Duration
	maxBody      int
	capacity     int
	listenBuffer int
	slowDeath    bool
	faults       *injector

	mu         sync.Mutex
	processes  map[string]*Process // the named ones that live
	queues     map[string]*queue
	exchanges  map[string]*exchange
	listeners  map[string]map[*Listener]struct{}
	paused     map[string]bool
	dead       []*item // oldest first
	losses     map[string]loss
	held       int // messages in the store
	seq        uint64
	unroutable int64

	results results
}

type loss struct {
	n     int
	until time.Time
}

// New makes an empty store.
func New(opts ...Option) *Store {
	s := &Store{
		lease:        defaultLease,
		maxBody:      defaultMaxBody,
		capacity:     defaultCapacity,
		listenBuffer: defaultListen,
		processes:    map[string]*Process{},
		queues:       map[string]*queue{},
		exchanges:    map[string]*exchange{},
		listeners:    map[string]map[*Listener]struct{}{},
		paused:       map[string]bool{},
		losses:       map[string]loss{},
		results:      newResults(),
	}
	for _, o := range opts {
		o(s)
	}
	return s
}

// Broker opens a connection, in a process of its own.
func (s *Store) Broker() *Conn { return s.newProcess("").Broker() }

// Backend opens the result store, in a process of its own.
func (s *Store) Backend() *Backend { return s.newProcess("").Backend() }

// Process returns the living process of that name, started if there is none.
func (s *Store) Process(name string) *Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.processes[name]; p != nil {
		return p
	}
	p := s.newProcess(name)
	s.processes[name] = p
	return p
}

// Unroutable counts the messages that were dropped because no queue took them.
func (s *Store) Unroutable() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unroutable
}

// StoreID tells two stores of this process apart.
func (s *Store) StoreID() string { return fmt.Sprintf("memory:%p", s) }

func (s *Store) newProcess(name string) *Process {
	return &Process{store: s, name: name, conns: map[*Conn]struct{}{}, backends: map[*Backend]struct{}{}}
}

func (s *Store) logger() *slog.Logger {
	if s.log != nil {
		return s.log
	}
	return slog.Default()
}

// lock takes the store for an operation of a process: it waits while the
// process is stopped and refuses it once it is dead. On nil the caller unlocks.
func (s *Store) lock(ctx context.Context, p *Process, closed error) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.mu.Lock()
		if p.dead {
			s.mu.Unlock()
			return fmt.Errorf("memory: process %q was killed: %w", p.name, closed)
		}
		if p.stopped == nil {
			return nil
		}
		resumed := p.stopped
		s.mu.Unlock()
		select {
		case <-resumed:
		case <-ctx.Done():
		}
	}
}

func (s *Store) nextSeq() uint64 {
	s.seq++
	return s.seq
}

// lossesOf returns the losses counted under a key. The caller holds s.mu.
func (s *Store) lossesOf(key string, now time.Time) int {
	if l, ok := s.losses[key]; ok && now.Before(l.until) {
		return l.n
	}
	return 0
}

func cloneProperties(p protocol.Properties) protocol.Properties {
	if p.Priority != nil {
		n := *p.Priority
		p.Priority = &n
	}
	p.Extra = maps.Clone(p.Extra)
	return p
}

var _ broker.StoreIdentity = (*Store)(nil)
