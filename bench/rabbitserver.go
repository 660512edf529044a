package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	amqp "github.com/rabbitmq/amqp091-go"
)

// rabbitHome is where apt puts RabbitMQ. Its own script is started, not the one on
// the PATH, which changes to another user.
const rabbitHome = "/usr/lib/rabbitmq/bin"

// startRabbit starts a node of its own, with its port mapper, that keeps Debian's
// defaults: no plugins, and two schedulers where there are two CPUs.
func startRabbit(ctx context.Context, dir string) (*server, error) {
	dir = filepath.Join(dir, "rabbitmq")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	var ports [3]string
	for i := range ports {
		var err error
		if ports[i], err = freePort(); err != nil {
			return nil, err
		}
	}
	mapper, err := start(ctx, exec.Command("epmd", "-port", ports[0], "-address", "127.0.0.1"), "")
	if err != nil {
		return nil, fmt.Errorf("apt install rabbitmq-server: %w", err)
	}
	for _, name := range []string{"plugins", "rabbitmq.conf"} {
		text := map[string]string{"plugins": "[].\n", "rabbitmq.conf": "log.file = false\nlog.console = true\nlog.console.level = error\n"}[name]
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(filepath.Join(rabbitHome, "rabbitmq-server"))
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "LANG=C.UTF-8", "HOME=" + dir,
		"ERL_EPMD_PORT=" + ports[0], "ERL_EPMD_ADDRESS=127.0.0.1", "RABBITMQ_DIST_PORT=" + ports[1],
		"RABBITMQ_NODENAME=bench" + ports[2] + "@localhost", "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_NODE_PORT=" + ports[2],
		"RABBITMQ_BASE=" + dir, "RABBITMQ_MNESIA_BASE=" + dir + "/data", "RABBITMQ_LOG_BASE=" + dir + "/log",
		"RABBITMQ_PID_FILE=" + dir + "/pid", "RABBITMQ_CONF_ENV_FILE=/dev/null",
		"RABBITMQ_CONFIG_FILE=" + dir + "/rabbitmq.conf", "RABBITMQ_ENABLED_PLUGINS_FILE=" + dir + "/plugins",
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-start_epmd false",
		"RUNNING_UNDER_SYSTEMD=true", // the script becomes the node: what stops it stops the node
	}
	p, err := start(ctx, cmd, "")
	if err != nil {
		mapper.stop()
		return nil, fmt.Errorf("apt install rabbitmq-server: %w", err)
	}
	s := &server{process: p, beside: mapper, addr: net.JoinHostPort("127.0.0.1", ports[2])}
	s.url = "amqp://guest:guest@" + s.addr + "//"
	err = s.until(ctx, func() error {
		c, err := amqp.Dial(s.url)
		if err == nil {
			err = c.Close()
		}
		return err
	})
	if err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}
