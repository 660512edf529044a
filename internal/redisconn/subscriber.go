package redisconn

import (
	"context"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// lineRest is how long a connection without subscriptions is kept for the next
// ones: who waits for one result after another makes no connection for each.
const lineRest = 2 * time.Second

// Subscriber keeps a set of channels, or patterns, subscribed on one connection
// of its own, which exists while the set is not empty and a little longer. When the connection is
// lost a new one is made and all of the set is subscribed again. It is safe for
// concurrent use.
type Subscriber struct {
	client  *Client
	home    string
	pattern bool
	hear    func(key, channel, payload string)
	reset   func()

	mu     sync.Mutex
	refs   map[string]int
	line   *line
	closed bool
	wg     sync.WaitGroup
	done   chan struct{}
}

// line is one connection.
type line struct {
	ded  rueidis.DedicatedClient
	lost <-chan error
	rest *time.Timer // closes it; nil while the set has never been empty
}

// NewSubscriber makes a subscriber. In a cluster its connection is to the master
// of home's slot, or to any if home is "". hear gets each message with the channel or
// pattern it came for, one at a time, and must not block; reset is called when
// a lost connection is back: what was published in between is lost.
func NewSubscriber(c *Client, home string, pattern bool, hear func(key, channel, payload string), reset func()) *Subscriber {
	return &Subscriber{client: c, home: home, pattern: pattern, hear: hear, reset: reset, refs: map[string]int{}, done: make(chan struct{})}
}

// Add subscribes and returns when the server has confirmed it. Each key added
// must be removed as often.
func (s *Subscriber) Add(ctx context.Context, keys ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return rueidis.ErrClosing
	}
	var fresh []string
	for _, k := range keys {
		if s.refs[k]++; s.refs[k] == 1 {
			fresh = append(fresh, k)
		}
	}
	err := s.subscribe(ctx, fresh)
	if err != nil {
		s.drop(keys)
	}
	return err
}

// Remove takes keys out of the set.
func (s *Subscriber) Remove(ctx context.Context, keys ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	stale := s.drop(keys)
	if s.line == nil || len(stale) == 0 {
		return nil
	}
	if len(s.refs) == 0 {
		s.restLine()
	}
	if s.pattern {
		return s.do(ctx, s.line, s.client.B().Punsubscribe().Pattern(stale...).Build())
	}
	return s.do(ctx, s.line, s.client.B().Unsubscribe().Channel(stale...).Build())
}

func (s *Subscriber) do(ctx context.Context, l *line, cmd rueidis.Completed) error {
	if s.home != "" {
		cmd = cmd.SetSlot(s.home)
	}
	ctx, cancel := s.client.Deadline(ctx)
	defer cancel()
	return l.ded.Do(ctx, cmd).Error()
}

// restLine closes the line unless keys are added before lineRest is over. With
// s.mu held.
func (s *Subscriber) restLine() {
	l := s.line
	if l.rest != nil {
		l.rest.Reset(lineRest)
		return
	}
	l.rest = time.AfterFunc(lineRest, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.line == l && len(s.refs) == 0 {
			l.ded.Close() // the keeper sees it and leaves
			s.line = nil
		}
	})
}

// Close ends all subscriptions.
func (s *Subscriber) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.done)
		if s.line != nil {
			s.line.ded.Close()
			s.line = nil
		}
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// drop takes references away and returns the keys that have none left.
func (s *Subscriber) drop(keys []string) (stale []string) {
	for _, k := range keys {
		if s.refs[k]--; s.refs[k] <= 0 {
			delete(s.refs, k)
			stale = append(stale, k)
		}
	}
	return stale
}

// subscribe subscribes keys on the line, which it opens if there is none. With
// s.mu held.
func (s *Subscriber) subscribe(ctx context.Context, keys []string) error {
	if s.line == nil {
		if len(s.refs) == 0 {
			return nil
		}
		keys = keys[:0:0]
		for k := range s.refs {
			keys = append(keys, k)
		}
		s.open()
	}
	if len(keys) == 0 {
		return nil
	}
	l := s.line
	var err error
	if s.pattern {
		err = s.do(ctx, l, s.client.B().Psubscribe().Pattern(keys...).Build())
	} else {
		err = s.do(ctx, l, s.client.B().Subscribe().Channel(keys...).Build())
	}
	if err != nil && s.line == l {
		l.ded.Close()
		s.line = nil
	}
	return err
}

func (s *Subscriber) open() {
	ded, _ := s.client.Dedicate()
	l := &line{ded: ded}
	l.lost = ded.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: func(m rueidis.PubSubMessage) {
		key := m.Channel
		if s.pattern {
			key = m.Pattern
		}
		s.hear(key, m.Channel, m.Message)
	}})
	s.line = l
	s.wg.Go(func() { s.keep(l) })
}

// keep waits for the end of a line and opens the next.
func (s *Subscriber) keep(l *line) {
	select {
	case <-l.lost:
	case <-s.done:
	}
	l.ded.Close()
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		s.mu.Lock()
		if s.line == l {
			s.line = nil
		}
		if s.closed || s.line != nil || len(s.refs) == 0 {
			s.mu.Unlock()
			return
		}
		err := s.subscribe(context.Background(), nil)
		s.mu.Unlock()
		if err == nil {
			s.reset()
			return // the new line has its own keeper
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-s.done:
			t.Stop()
			return
		}
	}
}
