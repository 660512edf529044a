package amqpbroker

// MendHeaders is what happens to the payload of each header frame that comes in.
var MendHeaders = mendHeaders
