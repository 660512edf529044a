package protocol

import (
	"encoding/json"
	"fmt"

	"github.com/lovage-go/lovage/internal/pyjson"
)

// AppendJSON appends [args, kwargs, embed]. Nil args and kwargs are [] and {}.
// In embed a nil list is null, as Celery's clients send it, and an empty one
// that is not nil is [], as its workers send the last chain.
func (b *Body) AppendJSON(dst []byte) []byte {
	dst = appendRaw(append(dst, '['), b.Args, "[]")
	dst = appendRaw(append(dst, ", "...), b.Kwargs, "{}")
	dst = append(dst, ", "...)
	dst = b.Embed.AppendJSON(dst)
	return append(dst, ']')
}

// AppendJSON appends the embed object, with all four known keys.
func (e *Embed) AppendJSON(dst []byte) []byte {
	dst = appendSignatures(append(dst, `{"callbacks": `...), e.Callbacks)
	dst = appendSignatures(append(dst, `, "errbacks": `...), e.Errbacks)
	dst = appendSignatures(append(dst, `, "chain": `...), e.Chain)
	dst = appendSignature(append(dst, `, "chord": `...), e.Chord)
	dst = appendMembers(dst, e.Extra)
	return append(dst, '}')
}

// ParseBody splits the text of a version 2 body, [args, kwargs, embed], of at
// most [MaxBodyBytes]. Args and Kwargs are checked but not decoded: they alias
// raw. Embed may be null or absent.
func ParseBody(raw []byte) (Body, error) {
	d, err := open("body", raw, MaxBodyBytes)
	if err != nil {
		return Body{}, err
	}
	b, err := d.body()
	if err != nil {
		return Body{}, d.at(err)
	}
	return b, nil
}

func (d *document) body() (b Body, err error) {
	const want = "a list [args, kwargs, embed]"
	if c := d.Peek(); c != '[' {
		return b, fmt.Errorf("got %s, want %s", pyjson.Kind(c), want)
	}
	n := 0
	more, err := d.Enter('[')
	for more && err == nil {
		switch n++; n {
		case 1:
			b.Args, err = d.arguments("args", '[', "[]")
		case 2:
			b.Kwargs, err = d.arguments("kwargs", '{', "{}")
		case 3:
			b.Embed, err = d.embed()
		default:
			err = d.Skip()
		}
		if err == nil {
			more, err = d.More('[')
		}
	}
	if err == nil && n != 2 && n != 3 {
		err = fmt.Errorf("got a list of %d, want %s", n, want)
	}
	if err == nil {
		err = d.End()
	}
	return b, err
}

func (d *document) arguments(key string, open byte, empty string) (json.RawMessage, error) {
	raw, err := d.list(key, open)
	if raw == nil {
		raw = json.RawMessage(empty)
	}
	return raw, err
}

func (d *document) embed() (e Embed, err error) {
	if ok, err := d.null(); ok {
		return e, err
	}
	if d.Peek() != '{' {
		return e, d.wrong("embed", "an object or null")
	}
	more, err := d.Enter('{')
	for more && err == nil {
		var key []byte
		if key, err = d.Key(); err != nil {
			break
		}
		switch string(key) {
		case "callbacks":
			e.Callbacks, err = d.signatures("callbacks")
		case "errbacks":
			e.Errbacks, err = d.signatures("errbacks")
		case "chain":
			e.Chain, err = d.signatures("chain")
		case "chord":
			e.Chord, err = d.chord()
		default:
			var raw []byte
			if raw, err = d.Raw(); err == nil {
				put(&e.Extra, string(key), raw)
			}
		}
		if err == nil {
			more, err = d.More('{')
		}
	}
	return e, err
}

func (d *document) chord() (*Signature, error) {
	if ok, err := d.null(); ok {
		return nil, err
	}
	s, err := d.signature("chord")
	if err != nil {
		return nil, err
	}
	return &s, nil
}
