package protocol

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/lovage-go/lovage/internal/isotime"
	"github.com/lovage-go/lovage/internal/pyjson"
)

// ParseV1 reads the body of a version 1 task message, one object with all its
// fields, and lifts it to version 2. The task, args and kwargs are required as
// Celery requires them. A group may be named by the older taskset. With utc, an
// eta and an expires without a zone get +00:00, since version 2 has no such
// flag. Unknown keys go to Headers.Extra. Args and Kwargs alias raw.
func ParseV1(raw []byte) (Headers, Body, error) {
	d, err := open("version 1 task", raw, MaxBodyBytes)
	if err != nil {
		return Headers{}, Body{}, err
	}
	var v v1
	if err := d.v1(&v); err != nil {
		return Headers{}, Body{}, d.at(err)
	}
	return v.h, v.b, nil
}

type v1 struct {
	h            Headers
	b            Body
	taskset      string
	local        bool // utc: false
	args, kwargs bool
}

func (d *document) v1(v *v1) error {
	if c := d.Peek(); c != '{' {
		return fmt.Errorf("got %s, want an object", pyjson.Kind(c))
	}
	more, err := d.Enter('{')
	for more && err == nil {
		var key []byte
		if key, err = d.Key(); err != nil {
			break
		}
		if err = d.v1Key(v, key); err == nil {
			more, err = d.More('{')
		}
	}
	if err == nil {
		err = d.End()
	}
	if err != nil {
		return err
	}
	switch {
	case v.h.Task == "":
		return &TypeError{What: d.what, Key: "task", Got: "nothing", Want: "the task's name"}
	case !v.args:
		return &TypeError{What: d.what, Key: "args", Got: "nothing", Want: "an array"}
	case !v.kwargs:
		return &TypeError{What: d.what, Key: "kwargs", Got: "nothing", Want: "an object"}
	}
	if v.taskset != "" {
		v.h.Group = v.taskset
	}
	if !v.local {
		v.h.ETA, v.h.Expires = withZone(v.h.ETA), withZone(v.h.Expires)
	}
	return nil
}

func (d *document) v1Key(v *v1, key []byte) (err error) {
	switch string(key) {
	case "task", "id", "retries", "eta", "expires", "group", "group_index", "timelimit":
		return d.header(&v.h, key, true)
	case "taskset":
		return d.str("taskset", &v.taskset)
	case "args":
		v.args = true
		v.b.Args, err = d.arguments("args", '[', "[]")
	case "kwargs":
		v.kwargs = true
		v.b.Kwargs, err = d.arguments("kwargs", '{', "{}")
	case "utc":
		var utc bool
		null := d.Peek() == 'n'
		err = d.boolean("utc", &utc)
		v.local = !utc && !null
	case "callbacks":
		v.b.Embed.Callbacks, err = d.signatures("callbacks")
	case "errbacks":
		v.b.Embed.Errbacks, err = d.signatures("errbacks")
	case "chord":
		v.b.Embed.Chord, err = d.chord()
	default:
		return d.extra(&v.h, slices.Clone(key))
	}
	return err
}

// AppendV1 appends h and b as the body of a version 1 task message, for
// task_protocol=1. Version 1 has no chain, root, parent, shadow or stamps: a
// chain must have been turned into a link of its last callback by the caller.
func AppendV1(dst []byte, h *Headers, b *Body) []byte {
	local := (h.ETA != "" && !isotime.HasZone(h.ETA)) || (h.Expires != "" && !isotime.HasZone(h.Expires))
	dst = pyjson.AppendString(append(dst, `{"task": `...), h.Task)
	dst = appendNullable(append(dst, `, "id": `...), h.ID)
	dst = appendRaw(append(dst, `, "args": `...), b.Args, "[]")
	dst = appendRaw(append(dst, `, "kwargs": `...), b.Kwargs, "{}")
	dst = appendNullable(append(dst, `, "group": `...), h.Group)
	dst = append(dst, `, "group_index": `...)
	if h.GroupIndex == nil {
		dst = append(dst, "null"...)
	} else {
		dst = strconv.AppendInt(dst, int64(*h.GroupIndex), 10)
	}
	dst = strconv.AppendInt(append(dst, `, "retries": `...), int64(h.Retries), 10)
	dst = appendNullable(append(dst, `, "eta": `...), h.ETA)
	dst = appendNullable(append(dst, `, "expires": `...), h.Expires)
	dst = strconv.AppendBool(append(dst, `, "utc": `...), !local)
	dst = appendSignatures(append(dst, `, "callbacks": `...), b.Embed.Callbacks)
	dst = appendSignatures(append(dst, `, "errbacks": `...), b.Embed.Errbacks)
	dst = h.TimeLimit.append(append(dst, `, "timelimit": `...))
	dst = appendNullable(append(dst, `, "taskset": `...), h.Group)
	dst = appendSignature(append(dst, `, "chord": `...), b.Embed.Chord)
	return append(dst, '}')
}

var _ json.Marshaler = Signature{}
