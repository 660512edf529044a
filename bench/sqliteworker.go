package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lovage-go/lovage/worker"
)

// sqliteArg makes this program a worker process on SQLite.
const sqliteArg = "sqlite-worker"

// mark is a line that a worker process prints: what happened, and what it has cost.
type mark struct {
	What    string
	Seconds float64 // since the mark before
	CPU     float64 // seconds of user and system time since the mark before
	RSS     float64 // MiB
	At      int64   // ns, the machine's clock
}

// sqliteWorker is the worker process: file, synchronous, concurrency, and how many
// tasks make it say that it has drained its queue. A line on its stdin asks for
// a mark; its end stops the process.
func sqliteWorker(args []string) error {
	file, synchronous := args[0], args[1]
	concurrency, _ := strconv.Atoi(args[2])
	expect, _ := strconv.Atoi(args[3])
	app, _ := sqliteApp(file, synchronous)
	m := &marker{at: time.Now(), cpu: cpuSeconds()}
	ready := make(chan struct{})
	w := worker.New(app, worker.Config{Concurrency: concurrency, Ready: func(worker.Info) { close(ready) }})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	lines := make(chan string)
	go func() {
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			lines <- in.Text()
		}
		close(lines)
	}()
	select {
	case <-ready:
		m.print("ready")
	case err := <-done:
		return err
	}
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	if expect == 0 {
		tick.Stop()
	}
	for {
		select {
		case <-tick.C:
			if int(w.Stats().Processed) >= expect {
				m.print("drained")
				tick.Stop()
			}
		case line, ok := <-lines:
			if !ok {
				cancel()
				if err := <-done; err != nil {
					return err
				}
				return app.Close(context.Background())
			}
			m.print(line)
			if n, ok := strings.CutPrefix(line, "expect "); ok {
				more, _ := strconv.Atoi(n)
				expect += more
				tick.Reset(500 * time.Microsecond)
			}
		case err := <-done:
			return err
		}
	}
}

type marker struct {
	at  time.Time
	cpu float64
}

func (m *marker) print(what string) {
	now, cpu := time.Now(), cpuSeconds()
	line, _ := json.Marshal(mark{What: what, Seconds: now.Sub(m.at).Seconds(), CPU: cpu - m.cpu, RSS: rssMiB(), At: now.UnixNano()})
	fmt.Println(string(line))
	m.at, m.cpu = now, cpu
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

func rssMiB() float64 {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(data))
	pages, _ := strconv.Atoi(f[1])
	return float64(pages*os.Getpagesize()) / (1 << 20)
}

// sqliteProcess is a worker process as its parent sees it.
type sqliteProcess struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// startSQLite starts a worker process and waits until it is ready.
func startSQLite(ctx context.Context, o *options, file string, expect int) (*sqliteProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, sqliteArg, file, o.synchronous, strconv.Itoa(o.concurrency), strconv.Itoa(expect))
	cmd.Stderr = os.Stderr
	p := &sqliteProcess{cmd: cmd}
	if p.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewScanner(out)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := p.wait("ready"); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// wait reads marks until the one that is named.
func (p *sqliteProcess) wait(what string) (mark, error) {
	for p.out.Scan() {
		var m mark
		if err := json.Unmarshal(p.out.Bytes(), &m); err != nil {
			return m, fmt.Errorf("the worker process printed %q", p.out.Text())
		}
		if m.What == what {
			return m, nil
		}
	}
	return mark{}, fmt.Errorf("the worker process ended before it was %s", what)
}

// expect makes the process say "drained" after n tasks more; its clock starts now.
func (p *sqliteProcess) expect(n int) error {
	line := fmt.Sprintf("expect %d", n)
	fmt.Fprintln(p.in, line)
	_, err := p.wait(line)
	return err
}

// idle lets the process be for some seconds and tells what that cost.
func (p *sqliteProcess) idle(o *options) (mark, error) {
	settle, measure := 3*time.Second, 10*time.Second
	if o.short {
		settle, measure = time.Second, 2*time.Second
	}
	time.Sleep(settle)
	fmt.Fprintln(p.in, "idle-begin")
	if _, err := p.wait("idle-begin"); err != nil {
		return mark{}, err
	}
	time.Sleep(measure)
	fmt.Fprintln(p.in, "idle-end")
	return p.wait("idle-end")
}

func (p *sqliteProcess) stop() {
	p.in.Close()
	ended := make(chan struct{})
	go func() {
		for p.out.Scan() {
		}
		_ = p.cmd.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(15 * time.Second):
		_ = p.cmd.Process.Kill()
		<-ended
	}
}
