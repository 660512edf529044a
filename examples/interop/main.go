// Interop is a Go worker in a Python project: it runs shop.checksum for the
// Celery clients of shop.py, and calls shop.price, which runs in Python. See
// docs/interop.md.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/redisbackend"
	_ "github.com/lovage-go/lovage/broker/redisbroker"
	"github.com/lovage-go/lovage/cli"
)

// ChecksumArgs are the parameters of shop.checksum, in Python's order and names.
type ChecksumArgs struct {
	Text   string `lovage:"text"`
	Rounds int    `lovage:"rounds,default=1"`
}

// checksum hashes a text again and again. Python sees its error as the
// ValueError that it would have raised itself.
func checksum(_ context.Context, in ChecksumArgs) (string, error) {
	if in.Rounds < 1 {
		return "", &lovage.TaskError{Type: "ValueError", Module: "builtins", Args: []any{"rounds must be at least 1", in.Rounds}}
	}
	sum := []byte(in.Text)
	for range in.Rounds {
		next := sha256.Sum256(sum)
		sum = next[:]
	}
	return hex.EncodeToString(sum[:8]), nil
}

// PriceArgs are the parameters of shop.price, which lives in Python.
type PriceArgs struct {
	Pieces int `lovage:"pieces"`
	Each   int `lovage:"each,default=100"`
}

// Shop is the project as Go sees it.
type Shop struct {
	*lovage.App
	Price *lovage.Handle[PriceArgs, int]
}

func newShop(cfg lovage.Config, opts ...lovage.AppOption) Shop {
	app := lovage.New("shop", cfg, opts...)
	lovage.Func(app, "shop.checksum", checksum, lovage.Queue("shop-go"))
	return Shop{App: app, Price: lovage.Remote[PriceArgs, int](app, "shop.price", lovage.Queue("shop"))}
}

// buy calls Python, twice.
func (s Shop) buy(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	res, err := s.Price.Delay(ctx, PriceArgs{Pieces: 3, Each: 250})
	if err != nil {
		return err
	}
	cents, err := res.Get(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "in Python     ", cents)
	if res, err = s.Price.Delay(ctx, PriceArgs{}); err != nil {
		return err
	}
	_, err = res.Get(ctx)
	te, ok := errors.AsType[*lovage.TaskError](err)
	if !ok {
		return fmt.Errorf("want Python's error, got %w", err)
	}
	fmt.Fprintln(out, "Python said   ", te.Type, te.Args)
	return nil
}

func main() {
	const url = "redis://localhost:6379/0" // CELERY_BROKER_URL and -b say otherwise
	shop := newShop(lovage.Config{BrokerURL: url, ResultBackend: url, TaskDefaultQueue: "shop-go"})
	cli.Main(shop.App, cli.Command(&cobra.Command{
		Use: "buy", Short: "Call shop.price, which runs in Python.", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return shop.buy(cmd.Context(), cmd.OutOrStdout()) },
	}))
}
