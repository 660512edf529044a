package cli_test

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/cli"
	_ "github.com/lovage-go/lovage/memory"
)

// A program of one's own: in main, cli.Main(app) in place of cli.Run.
func Example() {
	type areaArgs struct {
		Width  float64
		Height float64 `lovage:"height,default=1"`
	}
	command := func(args ...string) {
		app := lovage.New("geometry", lovage.Config{BrokerURL: "memory://example"})
		lovage.Func(app, "geometry.area", func(_ context.Context, in areaArgs) (float64, error) {
			return in.Width * in.Height, nil
		})
		code := cli.Run(context.Background(), app, args, strings.NewReader(""), os.Stdout, os.Stdout, cli.Environ(nil))
		fmt.Println("exit code", code)
	}
	command("tasks")
	command("call", "geometry.area", "-a", "[2, 3, 4]")
	command("cal")
	// Output:
	// geometry.area(width, height=1)
	// exit code 0
	// Error: TypeError: area() takes from 1 to 2 positional arguments but 3 were given
	// exit code 1
	// Usage: geometry [OPTIONS] COMMAND [ARGS]...
	// Try 'geometry --help' for help.
	//
	// Error: No such command 'cal'. Did you mean call?
	// exit code 2
}
