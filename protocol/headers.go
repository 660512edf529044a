package protocol

import "encoding/json"

// Headers are the headers of a version 2 task message, in Celery's order.
// An empty string stands for null where Celery allows null.
type Headers struct {
	Lang                string
	Task                string
	ID                  string
	Shadow              string
	ETA                 string // ISO 8601, as sent
	Expires             string // ISO 8601, as sent
	Group               string
	GroupIndex          *int
	Retries             int
	TimeLimit           TimeLimit
	RootID              string
	ParentID            string
	ArgsRepr            string
	KwargsRepr          string
	Origin              string
	IgnoreResult        bool
	ReplacedTaskNesting int
	StampedHeaders      []string // nil is null
	Stamps              map[string]json.RawMessage
	Compression         string // MIME type of the body's compression, empty for none

	// Extra are all other headers, as raw JSON: the caller's own.
	Extra map[string]json.RawMessage
}

// TimeLimit is Celery's pair in seconds, hard first. Nil means no limit given.
type TimeLimit struct{ Hard, Soft *float64 }
