package protocol

import (
	"encoding/json"
	"time"
)

// ResultMeta is what Celery stores for a task: the record behind AsyncResult.
type ResultMeta struct {
	Status    State
	Result    json.RawMessage // for FAILURE and RETRY the text of an ErrorForm
	Traceback string          // empty is null
	Children  json.RawMessage // nested result tuples; nil is []
	DateDone  string          // ISO 8601; empty is null (states that are not ready)
	TaskID    string
	GroupID   string
	ParentID  string

	Extended *ExtendedMeta // with result_extended
	// Extra are keys that this version does not know, kept.
	Extra map[string]json.RawMessage
}

// ExtendedMeta is what result_extended adds to a record.
type ExtendedMeta struct {
	Name           string
	Args           json.RawMessage
	Kwargs         json.RawMessage
	Worker         string
	Retries        int
	Queue          string
	StampedHeaders []string
	Stamps         map[string]json.RawMessage
}

// ErrorForm is an exception as data. It is never resolved to code.
type ErrorForm struct {
	Type    string          `json:"exc_type"`
	Message json.RawMessage `json:"exc_message"` // JSON array of the exception's arguments, or a string
	Module  *string         `json:"exc_module"`
}

// Record is an encoded result on its way into or out of a store. Drivers keep
// Meta as it is and look only at the other fields.
type Record struct {
	TaskID  string
	State   State
	Meta    []byte        // the encoded ResultMeta
	Expires time.Duration // from now; 0 keeps it for ever
	GroupID string
	// ReplyTo and CorrelationID serve result stores that are messages (rpc).
	ReplyTo       string
	CorrelationID string
}
