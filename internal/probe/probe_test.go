package probe_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage/internal/probe"
)

func ask(t *testing.T, address, path string) (probe.Answer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return probe.Ask(ctx, address, path)
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "w.sock")
	for _, address := range []string{"127.0.0.1:0", "localhost:0", "[::1]:0", "unix:" + socket, "public:127.0.0.1:0"} {
		t.Run(address, func(t *testing.T) {
			l, err := probe.Listen(address)
			if err != nil {
				if strings.HasPrefix(address, "[::1]") && strings.Contains(err.Error(), "cannot assign") {
					return // a machine without IPv6
				}
				t.Fatal(err)
			}
			var wrong []string
			s := probe.Serve(l, "w1@host", map[string]func() []string{"/livez": func() []string { return wrong }})
			defer s.Close()
			if l.Addr().Network() == "tcp" {
				address = l.Addr().String()
			}
			if a, err := ask(t, address, "/livez"); err != nil || !a.OK || a.Node != "w1@host" {
				t.Errorf("well: got %+v, %v", a, err)
			}
			wrong = []string{"the committer is stuck"}
			if a, err := ask(t, address, "/livez"); err != nil || a.OK || len(a.Reasons) != 1 || a.Reasons[0] != wrong[0] {
				t.Errorf("unwell: got %+v, %v; want the reason", a, err)
			}
			if _, err := ask(t, address, "/other"); err == nil || !strings.Contains(err.Error(), "no worker (HTTP 404") {
				t.Errorf("another path: got %v", err)
			}
		})
	}
	if _, err := ask(t, "unix:"+socket, "/livez"); err == nil {
		t.Error("after the end: got an answer")
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		":8080":               "write 127.0.0.1:8080, unix:/path, or public::8080",
		"0.0.0.0:8080":        "is not of the loopback interface",
		"192.0.2.7:80":        "is not of the loopback interface",
		"worker.example.com:": "write 127.0.0.1:8080",
		"8080":                "is none",
		"unix:":               "names no file",
	} {
		if l, err := probe.Listen(address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Listen(%q): got %v, %v; want an error with %q", address, l, err, want)
		}
	}
}

// TestSocketFiles: what a dead process left is replaced, what is in use or no
// socket is not.
func TestSocketFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "w.sock")
	left, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	if l, err := probe.Listen("unix:" + path); err == nil || !strings.Contains(err.Error(), "another process answers") {
		t.Errorf("in use: got %v, %v", l, err)
	}
	left.Close()
	l, err := probe.Listen("unix:" + path)
	if err != nil {
		t.Fatalf("left behind: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("its mode: got %v, %v, want 0660", info.Mode(), err)
	}
	l.Close()
	if err := os.WriteFile(path, []byte("keep me"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := probe.Listen("unix:" + path); err == nil {
		t.Errorf("a plain file: got %v, want an error", l)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "keep me" {
		t.Errorf("the plain file is now %q, %v", text, err)
	}
}
