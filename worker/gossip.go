package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/events"
	"github.com/lovage-go/lovage/internal/proc"
)

// Gossip is what a worker does with what it hears of the others: Celery's gossip
// step. Its functions may be nil, and are called one at a time.
type Gossip struct {
	// Joined is called when another worker is heard of, or says that it is online;
	// Left when it says that it goes, Lost when it has not been heard for twice the
	// time between its heartbeats.
	Joined, Left, Lost func(Peer)
	// Topics are elections by topic. The winner calls the function, once, with the
	// action that the election was called with. Celery's topic task is there
	// without it: the winner sends the signature that is the action.
	Topics map[string]func(ctx context.Context, action json.RawMessage) error
}

// Peer is another worker, as it was heard.
type Peer struct {
	Hostname string
	PID      int
	Heard    time.Time
	expires  time.Time
}

const (
	lookForLost    = 5 * time.Second // Celery's
	maxBallots     = 1000            // elections that are under way
	maxCandidates  = 1000            // of one
	ackAlone       = time.Second     // after which the only vote is acknowledged
	ballotFor      = time.Minute     // an election that is not decided by then is forgotten
	electionTime   = 10 * time.Second
	defaultFreq    = 60.0 // seconds between heartbeats of who does not say
	heartbeatsGone = 2    // Celery's heartbeat window, 200 %
)

// gossip is what a worker has heard.
type gossip struct {
	telling sync.Mutex // held while a function of the program's is called

	mu      sync.Mutex // guards what follows
	peers   map[string]Peer
	ballots map[string]*ballot
}

// ballot is an election under way.
type ballot struct {
	began      time.Time
	called     bool // this worker was told of it, and decides when it has the acks
	acks       int
	owed       int // acknowledgements of this worker's that are held back
	candidates []candidate
}

// candidate is a vote: each worker stands for itself, at the time of its clock.
type candidate struct {
	clock   int64
	process string // host name and process id
	topic   string
	action  json.RawMessage
}

// gossips reports whether this worker listens to the others.
func (w *Worker) gossips() bool { return !w.cfg.WithoutGossip }

// listenToPeers takes what other workers say on a link until ctx ends. A
// connection that is lost is the claim loop's to notice.
func (w *Worker) listenToPeers(ctx context.Context, l *link) {
	defer w.rescue("gossip", func(error) {})
	for wait := firstBackoff; ctx.Err() == nil; wait = w.longer(wait) {
		r, err := events.Listen(ctx, l.conn, events.ListenConfig{
			Exchange: w.conf.EventExchange, Pattern: "worker.#", Clock: w.app.Clock(), Logger: w.log})
		if errors.Is(err, broker.ErrUnsupported) {
			return
		}
		if err == nil {
			err = w.hearPeers(ctx, r)
		}
		if ctx.Err() == nil {
			w.log.Debug("gossip is not heard: "+err.Error(), "error", err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

func (w *Worker) hearPeers(ctx context.Context, r *events.Receiver) error {
	defer func() { _ = r.Close() }()
	next := time.Now().Add(lookForLost)
	for {
		bounded, cancel := context.WithDeadline(ctx, next)
		e, err := r.Next(bounded)
		cancel()
		if !time.Now().Before(next) {
			next = time.Now().Add(lookForLost)
			w.missPeers()
		}
		switch {
		case err == nil:
		case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
			continue
		default:
			return err
		}
		if err := guard(func() error { w.hear(ctx, &e); return nil }); err != nil {
			w.log.Error("gossip: "+err.Error(), "event", e.Type, "error", err)
		}
	}
}

// hear takes one event.
func (w *Worker) hear(ctx context.Context, e *events.Event) {
	switch {
	case e.Type == events.WorkerElect:
		w.nominated(ctx, e)
	case e.Type == events.WorkerElectAck:
		w.acknowledged(ctx, e.Text("id"))
	case e.Hostname == w.cfg.Hostname || e.Hostname == "":
	case e.Type == events.WorkerOffline:
		w.gossip.mu.Lock()
		p, known := w.gossip.peers[e.Hostname]
		delete(w.gossip.peers, e.Hostname)
		w.gossip.mu.Unlock()
		if !known {
			p = peerOf(e)
		}
		w.log.Debug(p.Hostname+" left", "node", p.Hostname)
		w.tellOf("left", w.cfg.Gossip.Left, p)
	case e.Type == events.WorkerOnline || e.Type == events.WorkerHeartbeat:
		p := peerOf(e)
		w.gossip.mu.Lock()
		_, known := w.gossip.peers[p.Hostname]
		if known || len(w.gossip.peers) < maxPeers {
			w.gossip.peers[p.Hostname] = p
		}
		w.gossip.mu.Unlock()
		if !known || e.Type == events.WorkerOnline {
			w.log.Debug(p.Hostname+" joined the party", "node", p.Hostname)
			w.tellOf("joined", w.cfg.Gossip.Joined, p)
		}
	}
}

func peerOf(e *events.Event) Peer {
	freq := defaultFreq
	if n, ok := e.Fields["freq"].(json.Number); ok {
		if f, err := n.Float64(); err == nil && f > 0 && f < 86400 {
			freq = f
		}
	}
	return Peer{Hostname: e.Hostname, PID: e.PID, Heard: e.LocalReceived,
		expires: e.LocalReceived.Add(time.Duration(heartbeatsGone * freq * float64(time.Second)))}
}

// missPeers forgets the workers that are not heard any more.
func (w *Worker) missPeers() {
	now := time.Now()
	var lost []Peer
	w.gossip.mu.Lock()
	for name, p := range w.gossip.peers {
		if now.After(p.expires) {
			lost = append(lost, p)
			delete(w.gossip.peers, name)
		}
	}
	maps.DeleteFunc(w.gossip.ballots, func(_ string, b *ballot) bool { return now.Sub(b.began) > ballotFor })
	w.gossip.mu.Unlock()
	for _, p := range lost {
		w.log.Info("missed heartbeat from "+p.Hostname, "node", p.Hostname)
		w.tellOf("lost", w.cfg.Gossip.Lost, p)
	}
}

func (w *Worker) tellOf(what string, tell func(Peer), p Peer) {
	if tell == nil {
		return
	}
	w.gossip.telling.Lock()
	defer w.gossip.telling.Unlock()
	if err := guard(func() error { tell(p); return nil }); err != nil {
		w.log.Error("gossip: the program's "+what+" panicked", "node", p.Hostname, "error", err)
	}
}

// stand is this worker's part in an election that it was told of.
func (w *Worker) stand(ctx context.Context, id, topic string, action json.RawMessage) error {
	if !w.gossips() || w.events == nil {
		return nil
	}
	w.gossip.mu.Lock()
	if b := w.gossip.ballot(id); b != nil {
		b.called, b.acks = true, 0
	}
	w.gossip.mu.Unlock()
	if len(action) == 0 {
		action = json.RawMessage("null")
	}
	return w.events.Send(ctx, events.WorkerElect, map[string]any{"id": id, "topic": topic, "action": action, "cver": 1})
}

// ballot is the election of an id, nil if there are too many. The caller holds mu.
func (g *gossip) ballot(id string) *ballot {
	b := g.ballots[id]
	if b == nil && len(g.ballots) < maxBallots {
		b = &ballot{began: time.Now()}
		g.ballots[id] = b
	}
	return b
}

// nominated takes a vote, and says so to all.
func (w *Worker) nominated(ctx context.Context, e *events.Event) {
	id, topic := e.Text("id"), e.Text("topic")
	action, err := json.Marshal(e.Fields["action"])
	if id == "" || err != nil {
		w.log.Warn("gossip: an election of "+e.Hostname+" cannot be read", "node", e.Hostname, "error", err)
		return
	}
	w.gossip.mu.Lock()
	b := w.gossip.ballot(id)
	if b == nil {
		w.gossip.mu.Unlock()
		return
	}
	if len(b.candidates) < maxCandidates {
		b.candidates = append(b.candidates, candidate{e.Clock, e.Hostname + "." + strconv.Itoa(e.PID), topic, action})
	}
	b.owed++
	now := len(b.candidates) > 1 || len(w.gossip.peers) == 0
	w.gossip.mu.Unlock()
	if now {
		w.acknowledge(ctx, id, b)
		return
	}
	w.alarms.add(time.Now().Add(ackAlone), func() {
		w.group.Go(func() {
			defer w.rescue("election", func(error) {})
			w.acknowledge(ctx, id, b)
		})
	})
}

// acknowledge sends what is owed. The only vote so far is not acknowledged at
// once: a worker of Celery's that has enough acknowledgements of one vote dies of
// an IndexError.
func (w *Worker) acknowledge(ctx context.Context, id string, b *ballot) {
	w.gossip.mu.Lock()
	owed := b.owed
	b.owed = 0
	w.gossip.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, electionTime)
	defer cancel()
	for range owed {
		if err := w.events.Send(ctx, events.WorkerElectAck, map[string]any{"id": id}); err != nil && ctx.Err() == nil {
			w.log.Warn("gossip: an election was not acknowledged: "+err.Error(), "election", id, "error", err)
		}
	}
}

// acknowledged counts an acknowledgement, and decides the election when there are as
// many as workers are known: Celery's rule, so that all decide by the same votes.
func (w *Worker) acknowledged(ctx context.Context, id string) {
	now := time.Now()
	w.gossip.mu.Lock()
	b := w.gossip.ballots[id]
	if b == nil || !b.called {
		w.gossip.mu.Unlock()
		return
	}
	b.acks++
	alive := 0
	for _, p := range w.gossip.peers {
		if now.Before(p.expires) {
			alive++
		}
	}
	decided := b.acks >= alive && len(b.candidates) > 0
	if decided {
		delete(w.gossip.ballots, id)
	}
	w.gossip.mu.Unlock()
	if !decided {
		return
	}
	first := slices.MinFunc(b.candidates, func(x, y candidate) int {
		return cmp.Or(cmp.Compare(x.clock, y.clock), cmp.Compare(x.process, y.process))
	})
	if first.process != w.cfg.Hostname+"."+strconv.Itoa(proc.PID()) {
		w.log.Info("node "+first.process+" elected for "+id, "election", id, "node", first.process)
		return
	}
	w.log.Info("I won the election "+id, "election", id, "topic", first.topic)
	w.group.Go(func() {
		defer w.rescue("election", func(error) {})
		w.elected(context.WithoutCancel(ctx), id, &first)
	})
}

// elected does what the election was for.
func (w *Worker) elected(ctx context.Context, id string, won *candidate) {
	do := w.cfg.Gossip.Topics[won.topic]
	if do == nil && won.topic == "task" {
		do = w.app.SendSignature
	}
	ctx, cancel := context.WithTimeout(ctx, electionTime)
	defer cancel()
	err := errors.New("unknown topic: give worker.Config.Gossip.Topics a function for it")
	if do != nil {
		err = guard(func() error { return do(ctx, won.action) })
	}
	if err != nil {
		w.log.Error("the election "+id+" was won, and its topic "+won.topic+" could not be carried out: "+err.Error(),
			"election", id, "topic", won.topic, "error", err)
	}
}
