package amqpbroker

import "github.com/lovage-go/lovage/broker"

// MendHeaders is what happens to the payload of each header frame that comes in.
var MendHeaders = mendHeaders

// Rest is what happens when nobody has claimed for a second.
func Rest(cs broker.Consumer) { cs.(*Consumer).rested() }
