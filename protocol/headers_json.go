package protocol

import (
	"strconv"

	"github.com/lovage-go/lovage/internal/pyjson"
)

// AppendJSON appends h as Celery 5.6 writes it: all known keys in its order,
// null for what is empty, then compression if set, then Extra by key. Headers
// without a task are those of another message: compression and Extra alone.
// The keys of Extra must not be those of known headers.
func (h *Headers) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	if h.Task != "" {
		b = h.appendTask(b)
	}
	if h.Compression != "" {
		if h.Task != "" {
			b = append(b, ", "...)
		}
		b = pyjson.AppendString(append(b, `"compression": `...), h.Compression)
	}
	b = appendMembers(b, h.Extra)
	return append(b, '}')
}

func (h *Headers) appendTask(b []byte) []byte {
	b = appendNullable(append(b, `"lang": `...), h.Lang)
	b = pyjson.AppendString(append(b, `, "task": `...), h.Task)
	b = appendNullable(append(b, `, "id": `...), h.ID)
	b = appendNullable(append(b, `, "shadow": `...), h.Shadow)
	b = appendNullable(append(b, `, "eta": `...), h.ETA)
	b = appendNullable(append(b, `, "expires": `...), h.Expires)
	b = appendNullable(append(b, `, "group": `...), h.Group)
	b = append(b, `, "group_index": `...)
	if h.GroupIndex == nil {
		b = append(b, "null"...)
	} else {
		b = strconv.AppendInt(b, int64(*h.GroupIndex), 10)
	}
	b = strconv.AppendInt(append(b, `, "retries": `...), int64(h.Retries), 10)
	b = h.TimeLimit.append(append(b, `, "timelimit": `...))
	b = appendNullable(append(b, `, "root_id": `...), h.RootID)
	b = appendNullable(append(b, `, "parent_id": `...), h.ParentID)
	b = appendNullable(append(b, `, "argsrepr": `...), h.ArgsRepr)
	b = appendNullable(append(b, `, "kwargsrepr": `...), h.KwargsRepr)
	b = appendNullable(append(b, `, "origin": `...), h.Origin)
	b = strconv.AppendBool(append(b, `, "ignore_result": `...), h.IgnoreResult)
	b = strconv.AppendInt(append(b, `, "replaced_task_nesting": `...), int64(h.ReplacedTaskNesting), 10)
	b = appendStrings(append(b, `, "stamped_headers": `...), h.StampedHeaders)
	return appendMap(append(b, `, "stamps": `...), h.Stamps)
}

func (t TimeLimit) append(b []byte) []byte {
	b = appendFloat(append(b, '['), t.Hard)
	b = appendFloat(append(b, ", "...), t.Soft)
	return append(b, ']')
}

// ParseHeaders reads the headers of a message from a JSON object of at most
// [MaxHeaderBytes]. Absent keys and nulls give zero values, unknown keys go to
// Extra, and a known key with a value of another type is a [*TypeError]. An
// object without a task (an event, a control request, a version 1 task) has
// all its keys but compression in Extra, whatever they hold.
// The result shares nothing with raw.
func ParseHeaders(raw []byte) (Headers, error) {
	d, err := open("header", raw, MaxHeaderBytes)
	if err != nil {
		return Headers{}, err
	}
	d.text = string(raw)
	var h Headers
	bad, err := d.headers(&h, true)
	if err != nil {
		return Headers{}, d.at(err)
	}
	if h.Task != "" {
		return h, bad
	}
	d.Pos, d.Items, h = 0, 0, Headers{}
	if bad, err = d.headers(&h, false); err != nil {
		return Headers{}, d.at(err)
	}
	return h, bad
}

// headers reads the object. A wrong type does not stop it, because only the
// end tells whether these are the headers of a task; the first is returned.
func (d *document) headers(h *Headers, task bool) (bad, err error) {
	more, err := d.Enter('{')
	for more && err == nil {
		var key []byte
		if key, err = d.Key(); err != nil {
			break
		}
		d.Peek()
		at := d.Pos
		wrong := d.header(h, key, task)
		if wrong != nil {
			if _, ok := wrong.(*TypeError); !ok {
				return nil, wrong
			}
			if bad == nil {
				bad = wrong
			}
			d.Pos = at
			if err = d.Skip(); err != nil {
				break
			}
		}
		more, err = d.More('{')
	}
	if err == nil {
		err = d.End()
	}
	return bad, err
}

func (d *document) header(h *Headers, key []byte, task bool) (err error) {
	if c := d.Peek(); !task && string(key) == "task" && c != 'n' && c != '"' {
		return d.wrong("task", "a string or null")
	}
	if !task && string(key) != "compression" {
		return d.extra(h, key)
	}
	switch string(key) {
	case "lang":
		return d.str("lang", &h.Lang)
	case "task":
		return d.str("task", &h.Task)
	case "id":
		return d.str("id", &h.ID)
	case "shadow":
		return d.str("shadow", &h.Shadow)
	case "eta":
		return d.str("eta", &h.ETA)
	case "expires":
		return d.str("expires", &h.Expires)
	case "group":
		return d.str("group", &h.Group)
	case "group_index":
		return d.index("group_index", &h.GroupIndex)
	case "retries":
		_, err = d.whole("retries", &h.Retries)
		return err
	case "timelimit":
		h.TimeLimit, err = d.timeLimit()
		return err
	case "root_id":
		return d.str("root_id", &h.RootID)
	case "parent_id":
		return d.str("parent_id", &h.ParentID)
	case "argsrepr":
		return d.str("argsrepr", &h.ArgsRepr)
	case "kwargsrepr":
		return d.str("kwargsrepr", &h.KwargsRepr)
	case "origin":
		return d.str("origin", &h.Origin)
	case "ignore_result":
		return d.boolean("ignore_result", &h.IgnoreResult)
	case "replaced_task_nesting":
		_, err = d.whole("replaced_task_nesting", &h.ReplacedTaskNesting)
		return err
	case "stamped_headers":
		return d.strings("stamped_headers", &h.StampedHeaders)
	case "stamps":
		return d.object("stamps", &h.Stamps)
	case "compression":
		return d.str("compression", &h.Compression)
	}
	return d.extra(h, key)
}

func (d *document) extra(h *Headers, key []byte) error {
	raw, err := d.Raw()
	if err == nil {
		put(&h.Extra, string(key), raw)
	}
	return err
}

func (d *document) index(key string, dst **int) error {
	var n int
	*dst = nil
	ok, err := d.whole(key, &n)
	if ok {
		*dst = &n
	}
	return err
}

// timeLimit reads Celery's pair [hard, soft].
func (d *document) timeLimit() (t TimeLimit, err error) {
	const want = "null or a list [hard, soft] of seconds or nulls"
	if ok, err := d.null(); ok {
		return t, err
	}
	d.Peek()
	at := d.Pos
	if d.Peek() != '[' {
		return t, d.wrong("timelimit", want)
	}
	n := 0
	more, err := d.Enter('[')
	for more && err == nil {
		var f *float64
		if f, err = d.float("timelimit"); err != nil {
			return TimeLimit{}, err
		}
		switch n++; n {
		case 1:
			t.Hard = f
		case 2:
			t.Soft = f
		}
		more, err = d.More('[')
	}
	if err == nil && n != 0 && n != 2 {
		d.Pos = at
		err = &TypeError{What: d.what, Key: "timelimit", Got: "a list of " + strconv.Itoa(n), Want: want}
	}
	return t, err
}
