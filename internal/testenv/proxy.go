package testenv

import (
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy is a TCP proxy on loopback that a test can make misbehave. It is safe
// for concurrent use.
type Proxy struct {
	Addr   string
	target string
	l      net.Listener
	wg     sync.WaitGroup

	mu      sync.Mutex
	pairs   map[*pair]struct{}
	down    bool
	hold    bool          // answers are kept back
	black   bool          // nothing passes
	latency time.Duration // of each direction
	changed chan struct{} // closed when one of the above changes
}

// pair is one proxied connection.
type pair struct {
	client, server net.Conn
	once           sync.Once
	gone           chan struct{} // closed by close
	dead           bool          // half open, with Proxy.mu
}

func (p *pair) close() {
	p.once.Do(func() {
		close(p.gone)
		p.client.Close()
		p.server.Close()
	})
}

// NewProxy starts a proxy in front of an address; it ends with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), target: target, l: l, pairs: map[*pair]struct{}{}, changed: make(chan struct{})}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.Down()
		p.wg.Wait()
	})
	return p
}

func (p *Proxy) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		s, err := net.Dial("tcp", p.target)
		if err != nil {
			c.Close()
			continue
		}
		pr := &pair{client: c, server: s, gone: make(chan struct{})}
		p.mu.Lock()
		if p.down {
			pr.close()
		} else {
			p.pairs[pr] = struct{}{}
		}
		p.mu.Unlock()
		p.wg.Go(func() { p.pass(pr, s, c, false) })
		p.wg.Go(func() { p.pass(pr, c, s, true) })
	}
}

// parcel is what was read at one time.
type parcel struct {
	at   time.Time
	data []byte
}

// pass copies one direction of a pair until one of its ends closes.
func (p *Proxy) pass(pr *pair, dst, src net.Conn, answer bool) {
	parcels := make(chan parcel, 256)
	p.wg.Go(func() {
		defer close(parcels)
		for {
			buf := make([]byte, 32<<10)
			n, err := src.Read(buf)
			if n > 0 {
				select {
				case parcels <- parcel{time.Now(), buf[:n]}:
				case <-pr.gone:
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	for it := range parcels {
		if !p.due(pr, it.at, answer) {
			continue // swallowed
		}
		if _, err := dst.Write(it.data); err != nil {
			break
		}
	}
	p.mu.Lock()
	dead := pr.dead
	p.mu.Unlock()
	if dead && answer {
		return // the client is not told
	}
	pr.close()
	p.mu.Lock()
	delete(p.pairs, pr)
	p.mu.Unlock()
}

// due waits until what was read at a time may be passed on, and reports false
// if it never may.
func (p *Proxy) due(pr *pair, at time.Time, answer bool) bool {
	for {
		p.mu.Lock()
		dead, blocked, wait, changed := pr.dead, p.black || p.hold && answer, time.Until(at.Add(p.latency)), p.changed
		p.mu.Unlock()
		if dead {
			return false
		}
		if !blocked && wait <= 0 {
			return true
		}
		var due <-chan time.Time
		if !blocked {
			due = time.After(wait)
		}
		select {
		case <-due:
		case <-changed:
		case <-pr.gone:
			return false
		}
	}
}

func (p *Proxy) change(set func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	set()
	close(p.changed)
	p.changed = make(chan struct{})
}

// Drop closes every connection; new ones are taken.
func (p *Proxy) Drop() { p.each((*pair).close) }

// Reset ends every connection as a host does that does not know it any more.
func (p *Proxy) Reset() {
	p.each(func(pr *pair) {
		for _, c := range []net.Conn{pr.client, pr.server} {
			_ = c.(*net.TCPConn).SetLinger(0) // it may be closed
		}
		pr.close()
	})
}

// HalfOpen loses every connection without telling the client: the server's side
// is closed, what the client sends is swallowed, and nothing is ever answered.
// New connections are taken.
func (p *Proxy) HalfOpen() {
	p.change(func() {
		for pr := range p.pairs {
			pr.dead = true
			pr.server.Close()
		}
	})
}

func (p *Proxy) each(do func(*pair)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pr := range p.pairs {
		do(pr)
	}
}

// Down drops every connection and takes none until Up.
func (p *Proxy) Down() {
	p.change(func() { p.down = true })
	p.Drop()
}

// Up takes connections again.
func (p *Proxy) Up() { p.change(func() { p.down = false }) }

// Hold keeps the server's answers back, as a network does that loses them:
// what the client sends still arrives. Release lets them through.
func (p *Proxy) Hold() { p.change(func() { p.hold = true }) }

// Release ends Hold.
func (p *Proxy) Release() { p.change(func() { p.hold = false }) }

// Blackhole lets nothing through, in either direction, and closes nothing,
// until Heal: then all arrives, as it does by TCP once the network is back.
func (p *Proxy) Blackhole() { p.change(func() { p.black = true }) }

// Heal ends Blackhole.
func (p *Proxy) Heal() { p.change(func() { p.black = false }) }

// Latency delays each direction. 0 ends it.
func (p *Proxy) Latency(d time.Duration) { p.change(func() { p.latency = d }) }
