// Command lovage is what of Lovage needs no task code, as one program: it calls
// the tasks of any worker, written in Go or in Python, shows results, workers
// and queues, and looks after dead letters. A worker is a program of its own,
// because tasks are code: see package cli.
package main

import (
	"github.com/lovage-go/lovage"
	_ "github.com/lovage-go/lovage/backend/redisbackend"
	_ "github.com/lovage-go/lovage/backend/rpcbackend"
	_ "github.com/lovage-go/lovage/broker/amqpbroker"
	_ "github.com/lovage-go/lovage/broker/redisbroker"
	"github.com/lovage-go/lovage/cli"
	"github.com/lovage-go/lovage/cmd/lovage/internal/demo"
	_ "github.com/lovage-go/lovage/embedded" // the store where no broker_url is set
)

func main() {
	cli.Main(lovage.New("lovage", lovage.Config{}), cli.Command(demo.Command()))
}
