package sqlbroker_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/lovage-go/lovage/broker"
	_ "github.com/lovage-go/lovage/broker/sqlbroker"
	"github.com/lovage-go/lovage/protocol"
)

// The URL names the file; every process that opens it has the same queues.
func Example() {
	dir, err := os.MkdirTemp("", "lovage")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := broker.Open(ctx, broker.Config{URL: "sqlite://" + filepath.Join(dir, "tasks.db")})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	err = conn.Publish(ctx, &broker.Message{
		Headers: protocol.Headers{Lang: "go", Task: "proj.add", ID: "1"}, Body: []byte(`[[2, 3], {}, {}]`), Queue: "celery",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	worker, err := conn.Consume(ctx, broker.ConsumeConfig{Worker: "celery@here", Queues: []broker.Queue{broker.Named("celery")}})
	if err != nil {
		fmt.Println(err)
		return
	}
	claimed, err := worker.Claim(ctx, 10)
	if err != nil {
		fmt.Println(err)
		return
	}
	for i := range claimed {
		fmt.Println(claimed[i].Queue, string(claimed[i].Body))
		err := worker.Settle(ctx, broker.Settlement{Delivery: &claimed[i], Action: broker.Ack})
		fmt.Println("acknowledged:", err == nil)
	}
	// Output:
	// celery [[2, 3], {}, {}]
	// acknowledged: true
}
