package amqpbroker

import "crypto/rand"

// token is a random name for what must be unique among all processes.
func token() string { return rand.Text() }
