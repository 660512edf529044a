// Package redisbackend keeps results in Redis under Celery's keys:
//
//	celery-task-meta-<id>      a result; published on the channel of the same name when it is written
//	celery-taskset-meta-<id>   a saved group
//	celery-taskset-meta-<id>.j .t .s   a chord: how members ended, how many were added, how many there are
//
// and, of our own, lovage.once.<id> (messages that run once), lovage.losses.<id>
// (lost workers), lovage.chord.<id> (the end of a chord) and lovage.success.<id>, which marks a success whose document is
// not Celery's JSON and so does not tell its state.
//
// In a Redis Cluster, which Celery does not have, results are spread over all
// slots; the mark of a success is in the slot of its result, all of a chord in one.
//
// Importing it makes the URL schemes redis, rediss, redis+socket, socket, sentinel
// and rediscluster (redis+cluster, rediss+cluster) available. Of the transport options it heeds Celery's
// global_keyprefix, result_chord_ordered, master_name, sentinel_kwargs, socket_timeout,
// socket_connect_timeout, health_check_interval and client_name, and what the settings
// redis_* say: host, port, db, username, password and ssl. With a prefix the store is not the one of a broker at
// the same URL, and results are not committed together with acknowledgements.
//
// A waiting client subscribes; one connection serves all that wait. After a lost
// connection every watch rings, so that what was missed is looked for.
package redisbackend
