package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
)

// selfArg makes this program a worker process of a peer.
const selfArg = "worker-of"

// selves are the workers that this program can be.
var selves = map[string]func(ctx context.Context, url string, results bool, ready func()) error{
	"lovage":        lovageWorker,
	"asynq":         asynqWorker(asynqBest),
	"asynq default": asynqWorker(asynqDefault),
	"river":         riverWorker(riverBest),
	"river default": riverWorker(riverDefault),
	"rabbitmq":      rabbitWorkerProcess,
}

func startSelf(ctx context.Context, name, url string, results bool, more ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return start(ctx, exec.Command(self, append([]string{selfArg, name, url, strconv.FormatBool(results)}, more...)...), "ready")
}

// runSelf is such a process. The end of its input ends it.
func runSelf(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	defer profile()()
	results := args[2] == "true"
	ready := func() { fmt.Println("ready") }
	switch args[0] {
	case "bare":
		return bareWorker(ctx, args[1], results, args[3:], ready)
	case "bare rabbitmq":
		return bareRabbitWorker(ctx, args[1], args[3:], ready)
	}
	return selves[args[0]](ctx, args[1], results, ready)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
