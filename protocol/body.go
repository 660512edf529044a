package protocol

import "encoding/json"

// Body is the body of a version 2 task message: [args, kwargs, embed].
// Args is the text of a JSON array, Kwargs that of a JSON object.
type Body struct {
	Args   json.RawMessage
	Kwargs json.RawMessage
	Embed  Embed
}

// Embed is the third element of the body: what runs after the task.
// Chain is Celery's stack: the next task is the last element. A nil list is
// null on the wire, an empty one [].
type Embed struct {
	Callbacks []Signature
	Errbacks  []Signature
	Chain     []Signature
	Chord     *Signature
	// Extra are keys that this version does not know, kept.
	Extra map[string]json.RawMessage
}

// Empty reports whether nothing follows the task.
func (e *Embed) Empty() bool {
	return len(e.Callbacks) == 0 && len(e.Errbacks) == 0 && len(e.Chain) == 0 && e.Chord == nil
}

// Signature is a call as data: Celery's signature dictionary.
type Signature struct {
	Task        string                     `json:"task"`
	Args        json.RawMessage            `json:"args"`   // JSON array
	Kwargs      json.RawMessage            `json:"kwargs"` // JSON object
	Options     map[string]json.RawMessage `json:"options"`
	SubtaskType string                     `json:"subtask_type"` // empty is null
	Immutable   bool                       `json:"immutable"`
	// Extra are keys that this version does not know (chord_size ...), kept.
	Extra map[string]json.RawMessage `json:"-"`
}
