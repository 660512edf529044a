package protocol

import (
	"encoding/json"
	"fmt"

	"github.com/lovage-go/lovage/internal/pyjson"
)

// ChordPart is how one member of a chord ended, as Celery keeps it until all
// have: [1, id, state, result].
type ChordPart struct {
	TaskID string
	State  State
	Result json.RawMessage // for a failure the text of an ErrorForm
}

// AppendJSON appends the part as Celery writes it.
func (p *ChordPart) AppendJSON(b []byte) []byte {
	b = p.AppendPrefix(b)
	b = pyjson.AppendString(b, string(p.State))
	b = appendRaw(append(b, ", "...), p.Result, "null")
	return append(b, ']')
}

// AppendPrefix appends what the parts of one task begin with, whatever its state.
func (p *ChordPart) AppendPrefix(b []byte) []byte {
	b = pyjson.AppendString(append(b, "[1, "...), p.TaskID)
	return append(b, ", "...)
}

// ParseChordPart reads a part of at most [MaxBodyBytes]. The result aliases raw.
func ParseChordPart(raw []byte) (ChordPart, error) {
	d, err := open("chord part", raw, MaxBodyBytes)
	if err != nil {
		return ChordPart{}, err
	}
	p, err := d.chordPart()
	if err != nil {
		return ChordPart{}, d.at(err)
	}
	return p, nil
}

func (d *document) chordPart() (p ChordPart, err error) {
	const want = "a list [1, id, state, result]"
	if c := d.Peek(); c != '[' {
		return p, fmt.Errorf("got %s, want %s", pyjson.Kind(c), want)
	}
	n := 0
	more, err := d.Enter('[')
	for more && err == nil {
		switch n++; n {
		case 2:
			err = d.str("id", &p.TaskID)
		case 3:
			err = d.str("state", (*string)(&p.State))
		case 4:
			p.Result, err = d.Raw()
		default:
			err = d.Skip()
		}
		if err == nil {
			more, err = d.More('[')
		}
	}
	if err == nil && (n != 4 || p.TaskID == "" || p.State == "") {
		err = fmt.Errorf("got a list of %d, want %s", n, want)
	}
	if err == nil {
		err = d.End()
	}
	return p, err
}

// OnceHeader marks a copy of a message of which others may have been sent with
// the same id: only the copy that claims the id first runs. Its value, a string,
// is the copy's own. A part of it that ends with a slash belongs to the claimed id:
// it parts copies of one sending from a later one, such as a retry.
const OnceHeader = "lovage_once"
