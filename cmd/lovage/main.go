// Command lovage is the client half of Lovage as one program: what needs no
// task code. It calls tasks of any worker, written in Go or in Python.
package main

import (
	"github.com/lovage-go/lovage"
	"github.com/lovage-go/lovage/cli"
	_ "github.com/lovage-go/lovage/memory"
)

func main() {
	cli.Main(lovage.New("lovage", lovage.Config{}))
}
