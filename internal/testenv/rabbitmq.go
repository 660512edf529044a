package testenv

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// rabbitHome is where apt puts RabbitMQ. Its own script is started, not the one
// on the PATH, which changes to another user.
const rabbitHome = "/usr/lib/rabbitmq/bin"

// RabbitServer is a running RabbitMQ node. It is safe for concurrent use.
type RabbitServer struct {
	Addr string // host:port of AMQP
	Node string // name of the node, for rabbitmqctl

	dir    string
	epmd   string // port of the node's own port mapper
	dist   string
	http   string   // host:port of the management plugin
	conf   string   // further lines of rabbitmq.conf
	mapper *process // nil: another node's
	proc   *process
	vhosts atomic.Int64
}

var sharedRabbit shared[*RabbitServer]

// RabbitMQ gives the node that the tests of one binary share; each takes
// virtual hosts of its own by [RabbitServer.Vhost]. It starts in some seconds.
func RabbitMQ(t testing.TB) *RabbitServer {
	t.Helper()
	return sharedRabbit.use(t, func() (*RabbitServer, error) { return startRabbit("") }, (*RabbitServer).remove)
}

// PrivateRabbitMQ starts a node for one test, with further lines of rabbitmq.conf.
func PrivateRabbitMQ(t testing.TB, conf ...string) *RabbitServer {
	t.Helper()
	s, err := startRabbit(strings.Join(conf, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.remove)
	return s
}

// Vhost makes a virtual host that nobody else uses and gives its URL.
func (s *RabbitServer) Vhost(t testing.TB) string {
	t.Helper()
	name := "v" + strconv.FormatInt(s.vhosts.Add(1), 10)
	until(t, s, "virtual host "+name+" is made", func() (bool, error) {
		err := s.manage(http.MethodPut, "/api/vhosts/"+name, nil)
		if err == nil { // not done by a PUT that comes after one that did not end in time
			err = s.manage(http.MethodPut, "/api/permissions/"+name+"/guest", map[string]string{"configure": ".*", "write": ".*", "read": ".*"})
		}
		return err == nil, err
	})
	return "amqp://guest:guest@" + s.Addr + "/" + name
}

// User makes an account with the given permissions (regular expressions of the
// names it may configure, write and read) for a virtual host, and gives the
// virtual host's URL for it.
func (s *RabbitServer) User(t testing.TB, vhost, name, configure, write, read string) string {
	t.Helper()
	u, err := url.Parse(vhost)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		s.manage(http.MethodPut, "/api/users/"+name, map[string]string{"password": name, "tags": ""}),
		s.manage(http.MethodPut, "/api/permissions"+u.Path+"/"+name, map[string]string{"configure": configure, "write": write, "read": read}),
	)
	if err != nil {
		t.Fatalf("make an account: %v", err)
	}
	u.User = url.UserPassword(name, name)
	return u.String()
}

// Policy sets a policy for the queues of a virtual host whose names match.
func (s *RabbitServer) Policy(t testing.TB, vhost, pattern string, definition map[string]any) {
	t.Helper()
	u, err := url.Parse(vhost)
	if err == nil {
		err = s.manage(http.MethodPut, "/api/policies"+u.Path+"/test",
			map[string]any{"pattern": pattern, "apply-to": "queues", "definition": definition})
	}
	if err != nil {
		t.Fatalf("set a policy: %v", err)
	}
}

// Manage calls the management plugin's HTTP API, which is quicker than rabbitmqctl.
func (s *RabbitServer) Manage(t testing.TB, method, path string, body any) {
	t.Helper()
	if err := s.manage(method, path, body); err != nil {
		t.Fatal(err)
	}
}

// Control runs rabbitmqctl against the node and returns what it printed.
func (s *RabbitServer) Control(t testing.TB, args ...string) string {
	t.Helper()
	out, err := s.control(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *RabbitServer) control(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(rabbitHome, "rabbitmqctl"), append([]string{"--node", s.Node}, args...)...)
	cmd.Env, cmd.Dir = s.env(), s.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("rabbitmqctl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// Stop kills the node, as a crash would.
func (s *RabbitServer) Stop(t testing.TB) {
	t.Helper()
	s.proc.kill()
}

// Start starts a stopped node again with its data and on its ports.
func (s *RabbitServer) Start(t testing.TB) {
	t.Helper()
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
}

func startRabbit(conf string) (*RabbitServer, error) {
	dir, err := os.MkdirTemp("", "lovage-rabbit")
	if err != nil {
		return nil, err
	}
	s := &RabbitServer{dir: dir, conf: conf, Node: strings.ToLower(filepath.Base(dir)) + "@localhost"}
	for range 3 { // somebody else may take a port in between
		var ports [4]string
		if ports, err = freePorts(); err != nil {
			break
		}
		s.Addr, s.http = "127.0.0.1:"+ports[0], "127.0.0.1:"+ports[1]
		s.dist, s.epmd = ports[2], ports[3]
		if s.mapper, err = startProcess(exec.Command("epmd", "-port", s.epmd, "-address", "127.0.0.1")); err != nil {
			err = fmt.Errorf("this test needs rabbitmq-server, which `make test` installs (scripts/deps.sh rabbitmq): %w", err)
			break
		}
		if err = s.start(); err == nil {
			return s, nil
		}
		s.mapper.kill()
	}
	return nil, errors.Join(err, os.RemoveAll(dir))
}

func freePorts() (ports [4]string, err error) {
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return ports, err
		}
		defer l.Close()
		_, ports[i], _ = net.SplitHostPort(l.Addr().String())
	}
	return ports, nil
}

func (s *RabbitServer) env() []string {
	_, port, _ := net.SplitHostPort(s.Addr)
	return []string{
		"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "LANG=C.UTF-8", "HOME=" + s.dir,
		"ERL_EPMD_PORT=" + s.epmd, "ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_NODENAME=" + s.Node, "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_NODE_PORT=" + port, "RABBITMQ_DIST_PORT=" + s.dist,
		"RABBITMQ_BASE=" + s.dir, "RABBITMQ_MNESIA_BASE=" + s.dir + "/data", "RABBITMQ_LOG_BASE=" + s.dir + "/log",
		"RABBITMQ_PID_FILE=" + s.dir + "/pid", "RABBITMQ_CONF_ENV_FILE=/dev/null",
		"RABBITMQ_CONFIG_FILE=" + s.dir + "/rabbitmq.conf", "RABBITMQ_ENABLED_PLUGINS_FILE=" + s.dir + "/plugins",
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-start_epmd false +S 2:2 +sbwt none",
		"RUNNING_UNDER_SYSTEMD=true", // the script becomes the node: what kills it kills the node
	}
}

func (s *RabbitServer) start() error {
	_, port, _ := net.SplitHostPort(s.http)
	conf := "management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = " + port +
		"\nvm_memory_high_watermark.relative = 0.9\ndisk_free_limit.absolute = 1MB\nlog.file = false\nlog.console = true\nlog.console.level = warning\n" + s.conf + "\n"
	err := errors.Join(
		os.WriteFile(filepath.Join(s.dir, "rabbitmq.conf"), []byte(conf), 0o600),
		os.WriteFile(filepath.Join(s.dir, "plugins"), []byte("[rabbitmq_management,rabbitmq_auth_mechanism_ssl].\n"), 0o600),
	)
	if err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(rabbitHome, "rabbitmq-server"))
	cmd.Env, cmd.Dir = s.env(), s.dir
	if s.proc, err = startProcess(cmd); err != nil {
		return fmt.Errorf("this test needs rabbitmq-server, which `make test` installs (scripts/deps.sh rabbitmq): %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := s.answers(ctx); err != nil {
		s.proc.kill()
		return fmt.Errorf("RabbitMQ on %s does not answer: %w: %s", s.Addr, err, s.proc.output())
	}
	return nil
}

// answers waits until the node serves its virtual host.
func (s *RabbitServer) answers(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := s.manage(http.MethodGet, "/api/aliveness-test/%2F", nil); err == nil {
			if c, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.Addr); err == nil { // its port opens last
				return c.Close()
			}
		}
		select {
		case <-tick.C:
		case <-s.proc.done:
			return errors.New("it ended at once")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// manage calls the management plugin's HTTP API.
func (s *RabbitServer) manage(method, path string, body any) error {
	text := []byte("{}")
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequest(method, "http://"+s.http+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.SetBasicAuth("guest", "guest")
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Timeout: 30 * time.Second}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	return err
}

// remove ends the node for good, with its port mapper and its data.
func (s *RabbitServer) remove() {
	s.proc.kill()
	if s.mapper != nil {
		s.mapper.kill()
	}
	_ = os.RemoveAll(s.dir) // what it left open is gone with it
}
