// Defaultclass makes a base the default class of a whole app.
//
// It is Celery's Celery("proj", task_cls="proj.db:DatabaseTask"): every task that
// brings no class of its own gets an instance of this one, with its connection
// and its handlers. In Go the class is given to the constructor as a function,
// or registered under a name that the configuration then says.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"

	"github.com/lovage-go/lovage"
	_ "modernc.org/sqlite" // the database/sql driver "sqlite"
)

// DatabaseTask is a base with a connection that is opened once for each task.
type DatabaseTask struct {
	lovage.Task
	db  lovage.Lazy[*sql.DB]
	out io.Writer
}

// DB returns the connection.
func (t *DatabaseTask) DB(ctx context.Context) (*sql.DB, error) {
	return t.db.Get(ctx, func(ctx context.Context) (*sql.DB, error) {
		db, err := sql.Open("sqlite", ":memory:")
		if err != nil {
			return nil, err
		}
		db.SetMaxOpenConns(1) // each connection to :memory: is a database of its own
		_, err = db.ExecContext(ctx, `CREATE TABLE fruit (name TEXT); INSERT INTO fruit VALUES ('apple'), ('pear'), ('plum')`)
		return db, err
	})
}

// AfterReturn is a handler of every task of the app.
func (t *DatabaseTask) AfterReturn(ctx context.Context, r *lovage.Request, state lovage.State, result any, info *lovage.ErrorInfo) {
	fmt.Fprintf(t.out, "  after return of %s: %s, %v\n", r.Task, state, result)
}

// count is a plain function, which finds the class of its app.
func count(ctx context.Context, _ struct{}) (n int, err error) {
	db, err := lovage.Self[*DatabaseTask](ctx).DB(ctx)
	if err != nil {
		return 0, err
	}
	err = db.QueryRowContext(ctx, "SELECT count(*) FROM fruit").Scan(&n)
	return n, err
}

// Own is a class that has nothing to do with the default.
type Own struct{ lovage.Task }

// Run succeeds.
func (t *Own) Run(ctx context.Context, _ struct{}) (string, error) { return "own", nil }

func run(ctx context.Context, out io.Writer) error {
	base := func() lovage.Base { return &DatabaseTask{out: out} }

	fmt.Fprintln(out, "by constructor")
	if err := use(ctx, out, lovage.New("proj", lovage.Config{}, lovage.WithDefaultTask(base))); err != nil {
		return err
	}

	fmt.Fprintln(out, "by name, in the configuration")
	app := lovage.New("proj", lovage.Config{TaskCls: "proj.DatabaseTask"})
	app.RegisterBase("proj.DatabaseTask", base)
	if err := use(ctx, out, app); err != nil {
		return err
	}

	// main would give os.Environ().
	for _, environ := range [][]string{{"CELERY_TASK_CLS=proj.DatabaseTask"}, {"LOVAGE_TASK_CLS=proj.DatabaseTask"}} {
		fmt.Fprintln(out, "by name, in the environment:", environ[0])
		app := lovage.New("proj", lovage.Config{})
		app.RegisterBase("proj.DatabaseTask", base)
		err := app.Configure(func(c *lovage.Config) ([]lovage.Warning, error) { return c.LoadEnv(environ) })
		if err != nil {
			return err
		}
		if err := use(ctx, out, app); err != nil {
			return err
		}
	}

	fmt.Fprintln(out, "by a name that nobody registered")
	app = lovage.New("proj", lovage.Config{TaskCls: "proj.DatabseTask"})
	app.RegisterBase("proj.DatabaseTask", base)
	fmt.Fprintln(out, " ", app.Freeze())
	return nil
}

// use declares a function and a class, and runs both here and now, as a worker
// would: Apply goes through the same handlers.
func use(ctx context.Context, out io.Writer, app *lovage.App) error {
	defer app.Close(context.WithoutCancel(ctx))
	plain := lovage.Func(app, "count_fruit", count)
	class := lovage.Register(app, "own_class", &Own{})

	res, err := plain.Apply(ctx, struct{}{})
	if err != nil {
		return err
	}
	n, err := res.Get(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "  %s counts %d, its class is %T\n", plain.Name(), n, plain.Definition().Instance())

	if _, err := class.Apply(ctx, struct{}{}); err != nil {
		return err
	}
	fmt.Fprintf(out, "  %s keeps its class, %T\n", class.Name(), class.Definition().Instance())
	return nil
}

func main() {
	slog.SetLogLoggerLevel(slog.LevelError) // without it: a line for each step
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
