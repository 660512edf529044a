package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// startRedis starts a server that keeps nothing, on a port of its own.
func startRedis(ctx context.Context) (*server, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("apt install redis-server: %w", err)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	p, err := start(ctx, exec.Command(path, "--port", port, "--bind", "127.0.0.1", "--dir", os.TempDir(), "--save", "", "--appendonly", "no"), "")
	if err != nil {
		return nil, err
	}
	s := &server{process: p, addr: net.JoinHostPort("127.0.0.1", port)}
	s.url = "redis://" + s.addr + "/0"
	return s, s.until(ctx, func() error {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			c.Close()
		}
		return err
	})
}

// startPostgres makes a database cluster in dir and starts its server, as a user
// without rights if this one is root: PostgreSQL refuses root. It keeps Debian's
// defaults, synchronous_commit on among them.
func startPostgres(ctx context.Context, dir string) (*server, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	var as *syscall.SysProcAttr
	data := filepath.Join(dir, "postgres")
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, err
	}
	if os.Getuid() == 0 {
		uid, gid, err := nobody()
		if err != nil {
			return nil, err
		}
		as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
		if err := os.Chown(data, int(uid), int(gid)); err != nil {
			return nil, err
		}
		if err := os.Chmod(dir, 0o711); err != nil {
			return nil, err
		}
	}
	init := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", "bench", "-A", "trust", "--no-sync")
	init.SysProcAttr, init.Dir = as, data
	if out, err := init.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-p", port, "-k", data, "-c", "listen_addresses=127.0.0.1")
	cmd.SysProcAttr, cmd.Dir = as, data
	p, err := start(ctx, cmd, "")
	if err != nil {
		return nil, err
	}
	s := &server{process: p, addr: net.JoinHostPort("127.0.0.1", port)}
	s.url = "postgres://bench@" + s.addr + "/postgres?sslmode=disable"
	return s, s.until(ctx, func() error {
		c, err := pgx.Connect(ctx, s.url)
		if err == nil {
			err = c.Close(ctx)
		}
		return err
	})
}

func postgresBin() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(found) == 0 {
		return "", fmt.Errorf("apt install postgresql: no /usr/lib/postgresql/*/bin")
	}
	return found[len(found)-1], nil
}

func nobody() (uid, gid uint32, err error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return 0, 0, err
		}
	}
	a, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return 0, 0, err
	}
	b, err := strconv.ParseUint(u.Gid, 10, 32)
	return uint32(a), uint32(b), err
}

// until waits until the server answers.
func (s *server) until(ctx context.Context, ask func() error) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(20 * time.Second)
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.ended:
			return fmt.Errorf("%s ended at once: %s", s.cmd.Path, s.out)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-end:
			return fmt.Errorf("%s does not answer: %w: %s", s.cmd.Path, err, s.out)
		}
	}
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}
