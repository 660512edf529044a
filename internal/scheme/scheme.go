// Package scheme finds the driver that a URL's scheme names, and says what to
// do where there is none.
package scheme

import (
	"fmt"
	"sort"
	"strings"
	"sync"
)

// Table holds the drivers of one kind. The zero Table is not ready: Kind,
// Setting and Import say what its errors tell. Drivers register from their
// init; looking up is safe for concurrent use.
type Table[Opener any] struct {
	Kind    string            // "broker"
	Setting string            // "broker_url"
	Import  map[string]string // package to import for a scheme that is not linked in

	mu sync.RWMutex
	m  map[string]Opener
}

// celerys are schemes that Celery's users know and that no driver speaks yet,
// with whose they are.
var celerys = map[string]string{
	"amqp": "RabbitMQ", "amqps": "RabbitMQ", "pyamqp": "RabbitMQ", "librabbitmq": "RabbitMQ", "rpc": "RabbitMQ, results as messages",
	"postgres": "PostgreSQL with Lovage's tables", "postgresql": "PostgreSQL with Lovage's tables",
	"sqla+sqlite": "SQLAlchemy", "sqla+postgresql": "SQLAlchemy", "sqla+mysql": "SQLAlchemy",
	"db+sqlite": "Celery's own tables", "db+postgresql": "Celery's own tables", "db+mysql": "Celery's own tables",
	"cache+memcached": "memcached", "file": "files", "filesystem": "files", "mongodb": "MongoDB", "sqs": "Amazon SQS",
	"dynamodb": "DynamoDB", "s3": "Amazon S3", "azureblockblob": "Azure", "azureservicebus": "Azure", "azurestoragequeues": "Azure",
	"gcpubsub": "Google Pub/Sub", "gs": "Google Cloud Storage", "confluentkafka": "Kafka", "zookeeper": "ZooKeeper", "consul": "Consul",
	"etcd": "etcd", "elasticsearch": "Elasticsearch", "cassandra": "Cassandra", "couchbase": "Couchbase", "couchdb": "CouchDB",
	"arangodb": "ArangoDB", "cosmosdbsql": "Cosmos DB", "qpid": "Qpid", "pyro": "Pyro",
}

// Register makes a driver available. A scheme registered twice panics.
func (t *Table[Opener]) Register(open Opener, schemes ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m == nil {
		t.m = map[string]Opener{}
	}
	for _, s := range schemes {
		if _, dup := t.m[s]; dup {
			panic(t.Kind + ": scheme " + s + " is registered twice")
		}
		t.m[s] = open
	}
}

// Lookup finds the driver for a URL. redacted is the URL as errors may show it.
func (t *Table[Opener]) Lookup(url, redacted string) (open Opener, err error) {
	name, _, ok := strings.Cut(url, ":")
	if !ok || name == "" {
		return open, fmt.Errorf("%s %q has no scheme: write it like sqlite:///path/to/file.db or memory://", t.Setting, redacted)
	}
	t.mu.RLock()
	open, ok = t.m[name]
	has := make([]string, 0, len(t.m))
	for s := range t.m {
		has = append(has, s)
	}
	t.mu.RUnlock()
	if ok {
		return open, nil
	}
	sort.Strings(has)
	if pkg, known := t.Import[name]; known {
		return open, fmt.Errorf("%s scheme %q is not linked into this program: add import _ %q to main", t.Kind, name, pkg)
	}
	if whose, known := celerys[name]; known {
		return open, fmt.Errorf("%s scheme %q (%s) is not in this version; this program has: %s", t.Kind, name, whose, strings.Join(has, ", "))
	}
	return open, fmt.Errorf("%s scheme %q is not known; this program has: %s", t.Kind, name, strings.Join(has, ", "))
}
