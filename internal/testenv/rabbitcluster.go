package testenv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// RabbitCluster is a running cluster of three RabbitMQ nodes with one port mapper
// of their own, about 120 MB each. It is safe for concurrent use.
type RabbitCluster struct{ Nodes []*RabbitServer }

// PrivateRabbitCluster starts a cluster for one test, in ten to thirty seconds.
func PrivateRabbitCluster(t testing.TB) *RabbitCluster {
	t.Helper()
	first, err := startRabbit("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(first.remove)
	c := &RabbitCluster{Nodes: []*RabbitServer{first}}
	for range 2 { // two that join at once may block each other
		s, err := first.neighbour()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.remove)
		c.Nodes = append(c.Nodes, s)
	}
	return c
}

// neighbour starts another node, which joins the cluster of s.
func (s *RabbitServer) neighbour() (*RabbitServer, error) {
	dir, err := os.MkdirTemp("", "lovage-rabbit")
	if err != nil {
		return nil, err
	}
	n := &RabbitServer{dir: dir, epmd: s.epmd, Node: strings.ToLower(filepath.Base(dir)) + "@localhost",
		conf: "cluster_formation.peer_discovery_backend = classic_config\ncluster_formation.classic_config.nodes.1 = " + s.Node}
	secret, err := os.ReadFile(filepath.Join(s.dir, ".erlang.cookie"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, ".erlang.cookie"), secret, 0o400)
	}
	for range 3 { // somebody else may take a port in between
		if err != nil {
			break
		}
		var ports [4]string
		if ports, err = freePorts(); err != nil {
			break
		}
		n.Addr, n.http, n.dist = "127.0.0.1:"+ports[0], "127.0.0.1:"+ports[1], ports[2]
		if err = n.start(); err == nil {
			return n, nil
		}
		_ = os.RemoveAll(filepath.Join(dir, "data"))
	}
	return nil, errors.Join(err, os.RemoveAll(dir))
}

// Vhost makes a virtual host that nobody else uses and gives its URLs, one of each
// node, parted by semicolons.
func (c *RabbitCluster) Vhost(t testing.TB) string {
	t.Helper()
	first := c.Nodes[0].Vhost(t)
	urls := make([]string, len(c.Nodes))
	for i, n := range c.Nodes {
		urls[i] = strings.Replace(first, c.Nodes[0].Addr, n.Addr, 1)
		u, err := url.Parse(urls[i])
		if err != nil {
			t.Fatal(err)
		}
		until(t, n, "the virtual host is there", func() (bool, error) {
			err := n.manage(http.MethodGet, "/api/aliveness-test"+u.Path, nil)
			if err != nil { // a busy node may have given it up
				err = errors.Join(err, n.manage(http.MethodPost, "/api/vhosts"+u.Path+"/start/"+n.Node, nil))
			}
			return err == nil, err
		})
	}
	return strings.Join(urls, ";")
}

// QuorumQueue is what a node knows of a quorum queue.
type QuorumQueue struct {
	Leader  string   `json:"leader"`
	Members []string `json:"members"`
	Online  []string `json:"online"`
}

// Quorum asks a node for a quorum queue until all of its members are online.
func (c *RabbitCluster) Quorum(t testing.TB, node *RabbitServer, vhost, queue string) (q QuorumQueue) {
	t.Helper()
	until(t, node, "all members of queue "+queue+" are online", func() (bool, error) {
		q = QuorumQueue{}
		text, err := node.ask("/api/queues/" + url.PathEscape(vhost) + "/" + url.PathEscape(queue))
		if err == nil {
			err = json.Unmarshal(text, &q)
		}
		return err == nil && q.Leader != "" && len(q.Members) == len(c.Nodes) && len(q.Online) == len(c.Nodes), err
	})
	return q
}

// Drained asks a node for a queue until it has no messages, also none that are claimed.
func (c *RabbitCluster) Drained(t testing.TB, node *RabbitServer, vhost, queue string) {
	t.Helper()
	until(t, node, "queue "+queue+" is empty", func() (bool, error) {
		var q struct{ Messages *int }
		text, err := node.ask("/api/queues/" + url.PathEscape(vhost) + "/" + url.PathEscape(queue))
		if err == nil {
			err = json.Unmarshal(text, &q)
		}
		if err != nil || q.Messages == nil || *q.Messages > 0 {
			return false, errors.Join(err, fmt.Errorf("%.600s", text))
		}
		return true, nil
	})
}

// MoveLeader gives a quorum queue another leader, which is a running node, and
// returns when it leads.
func (c *RabbitCluster) MoveLeader(t testing.TB, vhost, queue string, to *RabbitServer) {
	t.Helper()
	var err error
	until(t, to, "it leads queue "+queue, func() (bool, error) {
		q := c.Quorum(t, to, vhost, queue)
		if q.Leader == to.Node {
			return true, nil
		}
		name := fmt.Sprintf("'%s_%s'", vhost, queue)
		if _, e := to.control(t.Context(), "eval", fmt.Sprintf("ra:transfer_leadership({%s,'%s'}, {%s,'%s'}).", name, q.Leader, name, to.Node)); e != nil {
			err = e
		}
		return false, err
	})
}

// Consumes gives the node whose connection consumes from a queue.
func (c *RabbitCluster) Consumes(t testing.TB, vhost, queue string) (at *RabbitServer) {
	t.Helper()
	until(t, c.Nodes[0], "queue "+queue+" has a consumer", func() (bool, error) {
		var list []struct {
			Queue   struct{ Name string }
			Channel struct{ Node string } `json:"channel_details"`
		}
		text, err := c.Nodes[0].ask("/api/consumers/" + url.PathEscape(vhost))
		if err == nil {
			err = json.Unmarshal(text, &list)
		}
		for _, s := range list {
			for _, n := range c.Nodes {
				if s.Queue.Name == queue && s.Channel.Node == n.Node {
					at = n
				}
			}
		}
		return at != nil, err
	})
	return at
}

// until wants something to be so on a node, within 90 s.
func until(t testing.TB, node *RabbitServer, what string, is func() (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := is()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not so on %s after 90 s: %s: %v", node.Node, what, err)
		}
	}
}

// ask gets something from the management plugin.
func (s *RabbitServer) ask(path string) ([]byte, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+s.http+path, nil)
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth("guest", "guest")
	resp, err := (&http.Client{Timeout: 30 * time.Second}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", path, resp.Status, text)
	}
	return text, err
}
