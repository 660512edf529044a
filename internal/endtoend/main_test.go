package endtoend_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/cli"
)

// roleKey holds a command line for a process of its own: the store's URL and
// the words, by lines.
const roleKey = "ENDTOEND_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleKey); role != "" {
		words := strings.Split(role, "\n")
		if err := becomeNobody(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(99)
		}
		app := lovage.New("proj", lovage.Config{BrokerURL: words[0], ResultBackend: words[0]})
		withAdd(app)
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		code := cli.Run(ctx, app, words[1:], os.Stdin, os.Stdout, os.Stderr, cli.Environ(nil))
		stop()
		os.Exit(code)
	}
	os.Exit(m.Run())
}
