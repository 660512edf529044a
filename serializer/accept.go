package serializer

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Accept is the list of content types that a reader takes: Celery's
// accept_content or result_accept_content. The zero value accepts JSON alone,
// which is Celery's default. It does not change, so it may be shared.
type Accept struct{ types map[string]bool }

// ErrNotAccepted is matched by the errors of [Accept.Check].
var ErrNotAccepted = errors.New("content type is not accepted")

// ParseAccept reads names of serializers ("json") and content types
// ("application/json"). An unknown name, and pickle, are errors.
func ParseAccept(list []string) (Accept, error) {
	a := Accept{types: map[string]bool{}}
	for _, name := range list {
		key := contentOf(strings.ToLower(strings.TrimSpace(name)))
		switch {
		case key == contentPickle:
			return Accept{}, &UnknownError{Name: name, Reason: reasons[contentPickle]}
		case !strings.Contains(key, "/"):
			return Accept{}, &UnknownError{
				Name: name, Reason: "unknown; known are " + strings.Join(Names(), ", ") + " and content types such as application/json",
			}
		}
		a.types[key] = true
	}
	return a, nil
}

// Check refuses a body whose content type is not on the list, or whose content
// encoding is none of Celery's. An empty content type is Celery's default for
// one: application/data. The error says what to change; it matches
// [ErrNotAccepted].
func (a Accept) Check(contentType, encoding string) error {
	key := contentType
	if !a.has(key) {
		if i := strings.IndexByte(key, ';'); i >= 0 {
			key = key[:i]
		}
		key = strings.ToLower(strings.TrimSpace(key))
		if key == "" {
			key = contentData
		}
	}
	switch {
	case a.has(key):
	case key == contentPickle:
		return fmt.Errorf("%w: %s: %s", ErrNotAccepted, contentPickle, reasons[contentPickle])
	default:
		return fmt.Errorf("%w: got %q, accept_content is %s; add %q to accept_content if you trust the senders, or change their serializer",
			ErrNotAccepted, contentType, a, shortName(key))
	}
	switch encoding {
	case "", "utf-8", "UTF-8", "utf8", "binary", "ascii", "us-ascii":
		return nil
	}
	switch strings.ToLower(encoding) {
	case "utf-8", "utf8", "binary", "ascii", "us-ascii":
		return nil
	}
	return fmt.Errorf("%w: content encoding %q of %s; want utf-8 or binary, so send with the serializer's own encoding",
		ErrNotAccepted, encoding, key)
}

func (a Accept) has(contentType string) bool {
	if a.types == nil {
		return contentType == contentJSON
	}
	return a.types[contentType]
}

// String is the list as one writes it in a configuration.
func (a Accept) String() string {
	if a.types == nil {
		return "['json']"
	}
	names := slices.Sorted(maps.Keys(a.types))
	for i, n := range names {
		names[i] = "'" + shortName(n) + "'"
	}
	return "[" + strings.Join(names, ", ") + "]"
}

func shortName(contentType string) string {
	for name, c := range contents {
		if c == contentType {
			return name
		}
	}
	return contentType
}
