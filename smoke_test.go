package lovage_test

import (
	"context"
	"errors"
	"testing"

	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/memory"
)

type AddArgs struct {
	X int
	Y int `lovage:"y,default=0"`
}

type base struct {
	lovage.Task
	log []string
}

func (b *base) Init(ctx context.Context) error { b.log = append(b.log, "init base"); return nil }
func (b *base) OnFailure(ctx context.Context, r *lovage.Request, info *lovage.ErrorInfo) {
	b.log = append(b.log, "failure "+info.Repr())
}
func (b *base) Close(ctx context.Context) error { b.log = append(b.log, "close base"); return nil }

type class struct{ base }

func (c *class) Init(ctx context.Context) error { c.log = append(c.log, "init class"); return nil }
func (c *class) Run(ctx context.Context, in AddArgs) (int, error) {
	if in.X < 0 {
		return 0, errors.New("negative")
	}
	return in.X + in.Y, nil
}

func TestSmoke(t *testing.T) {
	ctx := t.Context()
	st := memory.New()
	app := lovage.New("t", lovage.Config{},
		lovage.WithBroker(func(context.Context) (broker.Conn, error) { return st.Broker(), nil }),
		lovage.WithBackend(func(context.Context) (backend.Backend, error) { return st.Backend(), nil }))
	c := lovage.Register(app, "t.add", &class{})
	res, err := c.Delay(ctx, AddArgs{X: 1, Y: 2})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := app.OpenBroker(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cons, err := conn.Consume(ctx, broker.ConsumeConfig{Queues: []broker.Queue{broker.Named("celery")}})
	if err != nil {
		t.Fatal(err)
	}
	ds, err := cons.Claim(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s\n%s", ds[0].Headers, ds[0].Body)
	r, err := app.Receive(&ds[0])
	if err != nil {
		t.Fatal(err)
	}
	out := app.Execute(ctx, r, lovage.FinisherFunc(func(ctx context.Context, e *lovage.Effects) error {
		b, _ := app.Backend(ctx)
		return b.Store(ctx, e.Store...)
	}))
	t.Logf("%+v", out)
	n, err := res.Get(ctx)
	if n != 3 || err != nil {
		t.Fatal(n, err)
	}
	er, err := c.Apply(ctx, AddArgs{X: -1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = er.Get(ctx)
	t.Log(err, c.Self.log)
	app.Close(ctx)
	t.Log(c.Self.log)
}
