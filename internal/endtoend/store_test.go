package endtoend_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/cli"
	"github.com/lovage-go/lovage/protocol"
)

// commands are those that need the store; each must refuse alike.
var commands = [][]string{
	{"worker", "-q"}, {"call", "t.add", "-a", "[1, 2]"}, {"result", "an-id"}, {"queues"}, {"dead", "list"}, {"purge", "-f"},
}

// TestUnusableStores is what a person sees for each store that cannot be used.
func TestUnusableStores(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare func(t *testing.T, path string)
		query   string
		code    int
		says    []string
	}{
		"NoDatabase": {func(t *testing.T, path string) {
			write(t, path, []byte(strings.Repeat("this is a text and no database. ", 200)))
		}, "", cli.ExitFailure, []string{"store.db", "not an SQLite database", "move it aside, or choose another path"}},
		"Damaged": {func(t *testing.T, path string) {
			x := newWorld(t, "sqlite://"+path, lovage.Config{})
			for range 50 {
				x.inject(raw{headers: known(), body: bytes.Repeat([]byte("a"), 2000)})
			}
			if err := x.client.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			damage(t, path)
		}, "", cli.ExitFailure, []string{"store.db", "damaged", "move it aside", ".recover"}},
		"NewerSchema": {func(t *testing.T, path string) {
			x := newWorld(t, "sqlite://"+path, lovage.Config{})
			x.inject(raw{headers: known()})
			if err := x.client.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			x.alter("UPDATE lovage_schema SET version = 99")
		}, "", cli.ExitFailure, []string{"store.db", "version 99", "update this program"}},
		"ADirectory": {func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "", cli.ExitFailure, []string{"store.db", "it is a directory", "name a file, such as"}},
		"NoDirectory": {func(t *testing.T, path string) {
			if err := os.Remove(filepath.Dir(path)); err != nil {
				t.Fatal(err)
			}
		}, "", cli.ExitFailure, []string{"does not exist", "create it, or choose another path"}},
		"WrongOption": {func(*testing.T, string) {}, "?max_pagse=3", cli.ExitFailure, []string{"max_pagse", "max_pages"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "store.db")
			c.prepare(t, path)
			for _, args := range commands {
				x := &world{t: t, url: "sqlite://" + path + c.query}
				code, stdout, stderr := x.runTasks(args...)
				if code != c.code || stdout != "" {
					t.Errorf("%q exits with %d, stdout %q; want %d and none", args, code, stdout, c.code)
				}
				says(t, strings.Join(args, " "), stderr, append(c.says, "Error: ")...)
				if n := strings.Count(stderr, "\n"); n > 4 {
					t.Errorf("%q prints %d lines, want few: %s", args, n, stderr)
				}
			}
		})
	}
}

// runTasks is run with the world's tasks declared, so that a worker may start.
func (x *world) runTasks(args ...string) (code int, stdout, stderr string) {
	var out, errw bytes.Buffer
	app := lovage.New("proj", lovage.Config{BrokerURL: x.url, ResultBackend: x.url})
	withAdd(app)
	code = cli.Run(x.ctx(), app, args, strings.NewReader(""), &out, &errw, cli.Environ(nil))
	return code, out.String(), errw.String()
}

// TestReadOnlyDirectory needs a process that is not root.
func TestReadOnlyDirectory(t *testing.T) {
	t.Parallel()
	for name, fresh := range map[string]bool{"NoFileYet": true, "FileOfAnother": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "store.db")
			if !fresh {
				x := newWorld(t, "sqlite://"+path, lovage.Config{})
				x.inject(raw{headers: known()})
				if err := x.client.Close(context.Background()); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(path, 0o444); err != nil {
					t.Fatal(err)
				}
			}
			for p, mode := range map[string]os.FileMode{filepath.Dir(dir): 0o755, dir: 0o555} {
				if err := os.Chmod(p, mode); err != nil {
					t.Fatal(err)
				}
			}
			t.Cleanup(func() { _ = os.Chmod(dir, 0o755) })
			for _, args := range commands[1:] {
				code, stdout, stderr := apart(t, "sqlite://"+path, args...)
				if code != cli.ExitUnavailable || stdout != "" {
					t.Errorf("%q exits with %d, stdout %q; want 69 and none", args, code, stdout)
				}
				says(t, strings.Join(args, " "), stderr, "Error: ", path, "writable", "read-only", "choose another path")
			}
			// A worker says so once, and starts when the directory is mended.
			w := startApart(t, "sqlite://"+path, "worker", "-l", "INFO", "-C")
			says(t, "worker", w.await("trying again"), path, "writable", "read-only", "choose another path")
			err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error { return errors.Join(err, os.Chmod(p, 0o777)) })
			if err != nil {
				t.Fatal(err)
			}
			w.await("ready.")
			if code, all := w.end(); code != 0 || strings.Count(all, "choose another path") > 2 {
				t.Errorf("the worker ends with %d and printed %s; want 0, and each store's trouble said once", code, all)
			}
		})
	}
}

// apart runs a command line in a process of its own that is not root.
func apart(t *testing.T, url string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), roleKey+"="+url+"\n"+strings.Join(args, "\n"))
	var out, errw strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errw
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errw.String()
}

// started is a process of startApart.
type started struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string
	seen  strings.Builder
}

// startApart is apart for a command line that goes on.
func startApart(t *testing.T, url string, args ...string) *started {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &started{t: t, cmd: exec.Command(self), lines: make(chan string, 1000)}
	p.cmd.Env = append(os.Environ(), roleKey+"="+url+"\n"+strings.Join(args, "\n"))
	out, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			p.lines <- in.Text()
		}
	}()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

// await reads on to a line that holds a text.
func (p *started) await(text string) string {
	p.t.Helper()
	for limit := time.After(patience); ; {
		select {
		case line, ok := <-p.lines:
			p.seen.WriteString(line + "\n")
			if strings.Contains(line, text) {
				return line
			}
			if ok {
				continue
			}
		case <-limit:
		}
		p.t.Fatalf("no line has %q:\n%s", text, p.seen.String())
	}
}

// end stops it as a supervisor does, and returns its code and all it printed.
func (p *started) end() (int, string) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	limit := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer limit.Stop()
	for line := range p.lines {
		p.seen.WriteString(line + "\n")
	}
	_ = p.cmd.Wait() // the code tells
	return p.cmd.ProcessState.ExitCode(), p.seen.String()
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// damage overwrites all pages of a database but the first.
func damage(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copy(data[4096:], bytes.Repeat([]byte{0xa5}, len(data)-4096))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
}

// fill publishes to another queue until the store is full, in small steps at
// the end, and returns the error.
func (x *world) fill() (err error) {
	x.t.Helper()
	conn, err := x.client.Broker(x.ctx())
	if err != nil {
		x.t.Fatal(err)
	}
	for size := 64 << 10; size >= 64; size /= 4 {
		for err = nil; err == nil; {
			err = conn.Publish(x.ctx(), &broker.Message{Queue: "ballast", Body: make([]byte, size), Headers: protocol.Headers{Task: "b", ID: "b"}})
		}
	}
	return err
}

// testFull fills the store while a task runs: the worker says so once, keeps
// the end of the run, and everything goes on when there is space again.
func testFull(t *testing.T, url string, relieve func(*world)) {
	x := newWorld(t, url, lovage.Config{})
	begun, release := make(chan struct{}), make(chan struct{})
	releaseOnce := sync.OnceFunc(func() { close(release) })
	const large = 300 << 10 // more than what fill leaves
	x.tasks = func(app *lovage.App) {
		withAdd(app)
		lovage.Func(app, "t.large", func(ctx context.Context, _ struct{}) (string, error) {
			close(begun)
			<-release
			return strings.Repeat("r", large), nil
		})
	}
	r := x.start()
	t.Cleanup(releaseOnce)
	res, err := x.client.Send(x.ctx(), "t.large", lovage.Args{})
	if err != nil {
		t.Fatal(err)
	}
	receive(t, begun)
	err = x.fill()
	if !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("a full store is not called temporary: %v", err)
	}
	path, _, _ := strings.Cut(strings.TrimPrefix(url, "sqlite://"), "?")
	mend := []string{path, "full", "free some space"}
	says(t, "Publish", err.Error(), mend...)

	short, cancel := context.WithTimeout(x.ctx(), 3*time.Second) // it tries at least once
	defer cancel()
	if _, err := x.client.Send(short, "t.add", lovage.Args{Positional: []any{strings.Repeat("a", large)}}); err == nil {
		t.Error("a call was taken by a full store")
	} else {
		says(t, "Send", err.Error(), mend...)
	}
	code, stdout, stderr := x.run("call", "t.add", "-a", `["`+strings.Repeat("a", large)+`"]`)
	if code != cli.ExitUnavailable || stdout != "" {
		t.Errorf("call on a full store exits with %d, stdout %q; want 69 and none", code, stdout)
	}
	says(t, "call", stderr, append(mend, "Error: ")...)

	releaseOnce()
	says(t, "the log", x.log.await(t, "the store does not take the ends of tasks"), append(mend, "ERROR", "kept and tried again")...)
	if s := r.w.Stats(); s.Finishing != 1 {
		t.Errorf("the worker keeps %d ends of runs, want the one", s.Finishing)
	}
	relieve(x)
	x.log.await(t, "the store takes the ends of tasks again")
	var got string
	if got, err = lovage.ResultOf[string](x.client, res.ID()).Get(x.ctx()); err != nil || len(got) != large {
		t.Errorf("the result that had to wait: %d bytes, %v, want %d", len(got), err, large)
	}
	x.good()
	r.stop()
	for _, once := range []string{"the store does not take the ends of tasks", "the store takes the ends of tasks again"} {
		if n := len(x.log.find(once)); n != 1 {
			t.Errorf("the log says %q %d times, want once:\n%s", once, n, x.log)
		}
	}
	if dead := x.dead(); len(dead) != 0 {
		t.Errorf("dead letters: got %v, want none: nothing was wrong with the messages", dead)
	}
}

func TestFullStore(t *testing.T) {
	t.Parallel()
	testFull(t, file(t)+"?max_pages=400", func(x *world) { x.ok("purge", "-f", "-Q", "ballast") })
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir, err := smallDisk(t)
	if err != nil {
		t.Logf("a small disk cannot be mounted here (%v): TestFullStore stands for it", err)
		return
	}
	ballast := filepath.Join(dir, "ballast")
	write(t, ballast, make([]byte, 2<<20))
	testFull(t, "sqlite://"+filepath.Join(dir, "store.db"), func(*world) {
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	})
}

// TestDamageWhileServing: the worker says once what is wrong and how to mend it,
// lives, and goes on when the file is put back.
func TestDamageWhileServing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "store.db")
	x := newWorld(t, "sqlite://"+path, lovage.Config{})
	r := x.start()
	x.good()
	aside := path + ".aside"
	for _, suffix := range []string{"-wal", "-shm", ""} {
		if err := os.Rename(path+suffix, aside+suffix); err != nil {
			t.Fatal(err)
		}
	}
	write(t, path, []byte(strings.Repeat("no database any more. ", 500)))
	says(t, "the log", x.log.await(t, "consumer: connection lost"), "ERROR", path, "not an SQLite database", "move it aside")
	if _, err := x.client.Send(x.ctx(), "t.add", lovage.Args{Positional: []any{1}}); err == nil {
		t.Error("a call was taken by a text file")
	} else {
		says(t, "Send", err.Error(), path, "not an SQLite database", "move it aside")
	}
	for _, suffix := range []string{"", "-shm", "-wal"} {
		if err := os.Rename(aside+suffix, path+suffix); err != nil {
			t.Fatal(err)
		}
	}
	x.log.await(t, "consumer: connection is back")
	x.good()
	r.stop()
	if n := len(x.log.find("consumer: connection lost")); n != 1 {
		t.Errorf("the log says %d times that the connection is lost, want once:\n%s", n, x.log)
	}
}
