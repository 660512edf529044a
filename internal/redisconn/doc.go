// Package redisconn is what the Redis broker and the Redis result backend have
// in common: Celery's URLs and options, the client, how errors are told apart,
// subscriptions that survive a lost connection, and the form of a stored result.
package redisconn
