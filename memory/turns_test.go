package memory_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/memory"
)

// crew are consumers that claim one message after the other.
type crew struct {
	*testing.T
	store *memory.Store
	conn  broker.Conn

	mu  sync.Mutex // guards what follows
	got []string   // who took what, in order
}

// join has another one claim, in a process of its own, until ctx ends.
func (c *crew) join(ctx context.Context, name string, queues ...string) broker.Consumer {
	cs := consume(c.T, c.store.Process(name).Broker(), queues...)
	go func() {
		for {
			ds, err := cs.Claim(ctx, 1)
			if err != nil {
				return
			}
			c.mu.Lock()
			c.got = append(c.got, name+" "+string(ds[0].Body))
			c.mu.Unlock()
			if err := cs.Settle(c.Context(), broker.Settlement{Delivery: &ds[0]}); err != nil {
				c.Error(err)
			}
		}
	}()
	synctest.Wait()
	return cs
}

func (c *crew) send(queue string, ids ...string) {
	c.Helper()
	for _, id := range ids {
		if err := c.conn.Publish(c.Context(), message(id, queue)); err != nil {
			c.Fatal(err)
		}
		synctest.Wait()
	}
}

func (c *crew) want(list ...string) {
	c.Helper()
	synctest.Wait()
	if !slices.Equal(c.got, list) {
		c.Errorf("got %v, want %v", c.got, list)
	}
	c.got = nil
}

// TestWaitingConsumersTakeTurns: who has waited longest is next, and nobody keeps a
// message from the others that he does not take.
func TestWaitingConsumersTakeTurns(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(c *crew){
		"OneByOne": func(c *crew) {
			for _, name := range []string{"a", "b", "c"} {
				c.join(c.Context(), name, "q")
			}
			c.send("q", "1", "2", "3", "4", "5", "6", "7")
			c.want("a 1", "b 2", "c 3", "a 4", "b 5", "c 6", "a 7")
		},
		"SeveralQueues": func(c *crew) {
			c.join(c.Context(), "a", "q", "r")
			c.join(c.Context(), "b", "r")
			c.send("r", "1", "2")
			c.send("q", "3")
			c.send("r", "4", "5")
			c.want("a 1", "b 2", "a 3", "b 4", "a 5")
		},
		"AllAtOnce": func(c *crew) {
			c.join(c.Context(), "a", "q")
			c.join(c.Context(), "b", "q")
			var msgs []*broker.Message
			for i := range 6 {
				msgs = append(msgs, message(fmt.Sprint(i), "q"))
			}
			if err := c.conn.Publish(c.Context(), msgs...); err != nil {
				c.Fatal(err)
			}
			synctest.Wait()
			if len(c.got) != 6 {
				c.Errorf("got %v, want all six taken", c.got)
			}
			c.got = nil
		},
		"Stopped": func(c *crew) {
			c.join(c.Context(), "a", "q")
			c.join(c.Context(), "b", "q")
			c.store.Process("a").Stop()
			c.send("q", "1", "2")
			c.want("b 1", "b 2")
			c.store.Process("a").Resume()
			synctest.Wait()
			c.send("q", "3", "4")
			c.want("b 3", "a 4")
		},
		"Killed": func(c *crew) {
			c.join(c.Context(), "a", "q")
			c.join(c.Context(), "b", "q")
			c.store.Process("a").Kill()
			c.send("q", "1", "2")
			c.want("b 1", "b 2")
		},
		"GivesUp": func(c *crew) {
			ctx, cancel := context.WithCancel(c.Context())
			c.join(ctx, "a", "q")
			c.join(c.Context(), "b", "q")
			// Between the message and the waking of a.
			if err := c.conn.Publish(c.Context(), message("1", "q")); err != nil {
				c.Fatal(err)
			}
			cancel()
			synctest.Wait()
			c.send("q", "2")
			if len(c.got) != 2 {
				c.Errorf("got %v, want both taken", c.got)
			}
			c.got = nil
		},
		"GoesElsewhere": func(c *crew) {
			a := c.join(c.Context(), "a", "q")
			c.join(c.Context(), "b", "q")
			if err := c.conn.Publish(c.Context(), message("1", "q")); err != nil {
				c.Fatal(err)
			}
			if err := a.Update(c.Context(), broker.Named("r")); err != nil {
				c.Fatal(err)
			}
			synctest.Wait()
			if len(c.got) != 1 {
				c.Errorf("got %v, want the message taken", c.got)
			}
			c.got = nil
		},
		"Paused": func(c *crew) {
			pauser := c.conn.(broker.Pauser)
			c.join(c.Context(), "a", "q")
			c.join(c.Context(), "b", "q")
			if err := pauser.Pause(c.Context(), "q"); err != nil {
				c.Fatal(err)
			}
			c.send("q", "1", "2", "3")
			c.want()
			if err := pauser.Resume(c.Context(), "q"); err != nil {
				c.Fatal(err)
			}
			synctest.Wait()
			if len(c.got) != 3 {
				c.Errorf("got %v, want all taken", c.got)
			}
			c.got = nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := memory.New()
				test(&crew{T: t, store: store, conn: store.Broker()})
			})
		})
	}
}
