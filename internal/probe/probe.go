// Package probe asks a process on this machine how it is, over HTTP on a
// loopback port or on a Unix socket, and answers for one.
package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// Answer is what is told: OK, or the reasons why not.
type Answer struct {
	OK      bool     `json:"ok"`
	Node    string   `json:"node"`
	Reasons []string `json:"reasons,omitempty"`
}

// Listen opens an address: host:port of the loopback interface, unix:/path, or
// public:host:port. A socket file that nobody answers on any more is replaced.
func Listen(address string) (net.Listener, error) {
	network, target, public, err := parse(address)
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		return listenUnix(target)
	}
	l, err := net.Listen(network, target)
	if err != nil {
		return nil, fmt.Errorf("listen for health checks: %w", err)
	}
	if at, ok := l.Addr().(*net.TCPAddr); ok && !public && !at.IP.IsLoopback() { // localhost may be anything
		return nil, errors.Join(notLoopback(address, target), l.Close())
	}
	return l, nil
}

func listenUnix(path string) (net.Listener, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		if conn, dial := net.DialTimeout("unix", path, time.Second); dial == nil {
			return nil, errors.Join(fmt.Errorf("listen for health checks: another process answers on %s", path), conn.Close())
		}
		if info, stat := os.Lstat(path); stat != nil || info.Mode().Type() != os.ModeSocket || os.Remove(path) != nil {
			return nil, fmt.Errorf("listen for health checks: %w", err)
		}
		if l, err = net.Listen("unix", path); err != nil {
			return nil, fmt.Errorf("listen for health checks: %w", err)
		}
	}
	return l, os.Chmod(path, 0o660)
}

// parse takes an address apart.
func parse(address string) (network, target string, public bool, err error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if path = "/" + strings.TrimLeft(path, "/"); path == "/" {
			return "", "", false, fmt.Errorf("health address %q names no file: write unix:/path", address)
		}
		return "unix", path, false, nil
	}
	target, public = strings.CutPrefix(address, "public:")
	host, port, err := net.SplitHostPort(target)
	if err != nil || port == "" {
		return "", "", false, fmt.Errorf("health address %q is none: write 127.0.0.1:8080, unix:/path, or public:host:port", address)
	}
	if ip := net.ParseIP(host); !public && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", "", false, notLoopback(address, target)
	}
	return "tcp", target, public, nil
}

func notLoopback(address, target string) error {
	_, port, _ := net.SplitHostPort(target)
	return fmt.Errorf("health address %q is not of the loopback interface, and others could ask: write 127.0.0.1:%s, unix:/path, or public:%s if that is meant", address, port, target)
}

// Serve answers requests for the paths of checks, each of which returns what is
// wrong, until the server is shut down.
func Serve(l net.Listener, node string, checks map[string]func() []string) *http.Server {
	mux := http.NewServeMux()
	for path, check := range checks {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			a := Answer{Node: node, Reasons: check()}
			a.OK = len(a.Reasons) == 0
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Cache-Control", "no-store")
			if !a.OK {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			_ = json.NewEncoder(w).Encode(a)
		})
	}
	s := &http.Server{Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 1 << 14}
	go func() { _ = s.Serve(l) }() // until Shutdown or Close
	return s
}

// Ask asks the process at an address. An error says that there was no answer.
func Ask(ctx context.Context, address, path string) (a Answer, err error) {
	network, target, _, err := parse(address)
	if err != nil {
		return a, err
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, target)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://worker"+path, nil)
	if err != nil {
		return a, err
	}
	res, err := client.Do(req)
	if err != nil {
		return a, fmt.Errorf("ask %s: %w", address, errors.Unwrap(err))
	}
	defer res.Body.Close()
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<16)).Decode(&a); err != nil {
		return a, fmt.Errorf("ask %s: what answers is no worker (HTTP %s)", address, res.Status)
	}
	return a, nil
}
