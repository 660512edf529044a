package serializer

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A Serializer encodes values under one content type. Implementations are safe
// for concurrent use.
type Serializer interface {
	Name() string        // Celery's name, as in task_serializer: "json"
	ContentType() string // the MIME type on the wire
	Encoding() string    // the content encoding on the wire: "utf-8" or "binary"
	Marshal(v any) ([]byte, error)
	Unmarshal(data []byte, v any) error
}

// The content types that Celery names.
const (
	contentJSON    = "application/json"
	contentYAML    = "application/x-yaml"
	contentMsgpack = "application/x-msgpack"
	contentPickle  = "application/x-python-serialize"
	contentText    = "text/plain"
	contentData    = "application/data"
)

// contents maps Celery's names of serializers to content types.
var contents = map[string]string{
	"json":    contentJSON,
	"yaml":    contentYAML,
	"msgpack": contentMsgpack,
	"pickle":  contentPickle,
	"text":    contentText,
	"auth":    contentData,
}

// reasons say why a content type that Celery knows cannot be had, and what to do.
var reasons = map[string]string{
	contentYAML:    "this build has no YAML serializer; set task_serializer and result_serializer to 'json' on the sending side",
	contentMsgpack: "this build has no msgpack serializer; set task_serializer and result_serializer to 'json' on the sending side",
	contentPickle:  "pickle runs code from the message, and data is never turned into code here; set task_serializer and result_serializer to 'json' on the sending side",
	contentData:    "this build cannot check signed messages; turn the 'auth' serializer off on the sending side",
}

// UnknownError is a serializer or content type that cannot be had.
type UnknownError struct {
	Name   string // as asked for: a name or a content type
	Reason string
}

func (e *UnknownError) Error() string { return fmt.Sprintf("serializer %q: %s", e.Name, e.Reason) }

// Registry finds serializers by name or content type. It does not change after
// [NewRegistry], so it may be shared.
type Registry struct {
	byKey map[string]Serializer
	names []string
}

// NewRegistry returns a registry of JSON and what is given besides. A later one
// replaces an earlier one of the same name or content type.
func NewRegistry(more ...Serializer) *Registry {
	r := &Registry{byKey: map[string]Serializer{}}
	for _, s := range append([]Serializer{JSON}, more...) {
		r.byKey[s.Name()] = s
		r.byKey[s.ContentType()] = s
	}
	for _, s := range r.byKey {
		r.names = append(r.names, s.Name())
	}
	slices.Sort(r.names)
	r.names = slices.Compact(r.names)
	return r
}

// Lookup finds a serializer by Celery's name or by content type. The error is
// an [*UnknownError] that says what to do.
func (r *Registry) Lookup(name string) (Serializer, error) {
	key := strings.ToLower(strings.TrimSpace(name))
	if s, ok := r.byKey[key]; ok {
		return s, nil
	}
	reason, ok := reasons[contentOf(key)]
	if !ok {
		reason = "unknown; known are " + strings.Join(r.names, ", ")
	}
	return nil, &UnknownError{Name: name, Reason: reason}
}

// contentOf gives the content type of a name; other strings are themselves.
func contentOf(name string) string {
	if c, ok := contents[name]; ok {
		return c
	}
	return name
}

// Names are Celery's names of serializers, known here or not.
func Names() []string { return slices.Sorted(maps.Keys(contents)) }
