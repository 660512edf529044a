package protocol

import (
	"encoding/json"
	"slices"
	"strconv"

	"github.com/lovage-go/lovage/internal/pyjson"
)

// AppendJSON appends m in Celery's order: the record, group_id and parent_id
// where set, what result_extended adds, then task_id, then Extra by key.
func (m *ResultMeta) AppendJSON(b []byte) []byte {
	b = pyjson.AppendString(append(b, `{"status": `...), string(m.Status))
	b = appendRaw(append(b, `, "result": `...), m.Result, "null")
	b = appendNullable(append(b, `, "traceback": `...), m.Traceback)
	b = appendRaw(append(b, `, "children": `...), m.Children, "[]")
	b = appendNullable(append(b, `, "date_done": `...), m.DateDone)
	if m.GroupID != "" {
		b = pyjson.AppendString(append(b, `, "group_id": `...), m.GroupID)
	}
	if m.ParentID != "" {
		b = pyjson.AppendString(append(b, `, "parent_id": `...), m.ParentID)
	}
	if m.Extended != nil {
		b = m.Extended.append(b)
	}
	b = pyjson.AppendString(append(b, `, "task_id": `...), m.TaskID)
	b = appendMembers(b, m.Extra)
	return append(b, '}')
}

func (e *ExtendedMeta) append(b []byte) []byte {
	b = appendNullable(append(b, `, "name": `...), e.Name)
	b = appendRaw(append(b, `, "args": `...), e.Args, "null")
	b = appendRaw(append(b, `, "kwargs": `...), e.Kwargs, "null")
	b = appendNullable(append(b, `, "worker": `...), e.Worker)
	b = strconv.AppendInt(append(b, `, "retries": `...), int64(e.Retries), 10)
	b = appendNullable(append(b, `, "queue": `...), e.Queue)
	if e.StampedHeaders != nil {
		b = appendStrings(append(b, `, "stamped_headers": `...), e.StampedHeaders)
	}
	return appendMembers(b, e.Stamps)
}

// ParseResultMeta reads a stored result of at most [MaxBodyBytes]. Unknown keys
// go to Extra, stamps to Extended. The raw parts alias raw.
func ParseResultMeta(raw []byte) (ResultMeta, error) {
	d, err := open("result", raw, MaxBodyBytes)
	if err != nil {
		return ResultMeta{}, err
	}
	m, err := d.resultMeta()
	if err != nil {
		return ResultMeta{}, d.at(err)
	}
	return m, nil
}

func (d *document) resultMeta() (m ResultMeta, err error) {
	var (
		x        ExtendedMeta
		extended bool
		more     bool
	)
	more, err = d.Enter('{')
	for more && err == nil {
		var key []byte
		if key, err = d.Key(); err != nil {
			break
		}
		var known bool
		if known, err = d.resultKey(&m, key); !known && err == nil {
			if known, err = d.extendedKey(&x, key); known {
				extended = true
			} else if err == nil {
				var raw []byte
				if raw, err = d.Raw(); err == nil {
					put(&m.Extra, string(key), raw)
				}
			}
		}
		if err == nil {
			more, err = d.More('{')
		}
	}
	if err == nil {
		err = d.End()
	}
	if err == nil && m.Status == "" {
		err = &TypeError{What: d.what, Key: "status", Got: "nothing", Want: "the name of a state"}
	}
	if extended {
		m.Extended = &x
		for _, k := range x.StampedHeaders {
			if raw, ok := m.Extra[k]; ok {
				put(&x.Stamps, k, raw)
				delete(m.Extra, k)
			}
		}
		if len(m.Extra) == 0 {
			m.Extra = nil
		}
	}
	return m, err
}

func (d *document) resultKey(m *ResultMeta, key []byte) (known bool, err error) {
	switch string(key) {
	case "status":
		err = d.str("status", (*string)(&m.Status))
	case "result":
		m.Result, err = d.Raw()
	case "traceback":
		err = d.str("traceback", &m.Traceback)
	case "children":
		m.Children, err = d.Raw()
	case "date_done":
		err = d.str("date_done", &m.DateDone)
	case "task_id":
		err = d.str("task_id", &m.TaskID)
	case "group_id":
		err = d.str("group_id", &m.GroupID)
	case "parent_id":
		err = d.str("parent_id", &m.ParentID)
	default:
		return false, nil
	}
	return true, err
}

func (d *document) extendedKey(x *ExtendedMeta, key []byte) (known bool, err error) {
	switch string(key) {
	case "name":
		err = d.str("name", &x.Name)
	case "args":
		x.Args, err = d.Raw()
	case "kwargs":
		x.Kwargs, err = d.Raw()
	case "worker":
		err = d.str("worker", &x.Worker)
	case "retries":
		_, err = d.whole("retries", &x.Retries)
	case "queue":
		err = d.str("queue", &x.Queue)
	case "stamped_headers":
		err = d.strings("stamped_headers", &x.StampedHeaders)
	default:
		return false, nil
	}
	return true, err
}

// Error reads Result as the form of an error. It reports false if the state is
// none of an error or Result has another form.
func (m *ResultMeta) Error() (*ErrorForm, bool) {
	if !m.Status.Exception() {
		return nil, false
	}
	e, err := ParseErrorForm(m.Result)
	return e, err == nil
}

// ParseErrorForm reads {exc_type, exc_message, exc_module}. The type is
// required; the message may be a list, a string or any other value.
func ParseErrorForm(raw []byte) (*ErrorForm, error) {
	d, err := open("error", raw, MaxBodyBytes)
	if err != nil {
		return nil, err
	}
	var e ErrorForm
	if err := d.errorForm(&e); err != nil {
		return nil, d.at(err)
	}
	return &e, nil
}

func (d *document) errorForm(e *ErrorForm) error {
	more, err := d.Enter('{')
	for more && err == nil {
		var key []byte
		if key, err = d.Key(); err != nil {
			break
		}
		switch string(key) {
		case "exc_type":
			err = d.str("exc_type", &e.Type)
		case "exc_message":
			var raw []byte
			raw, err = d.Raw()
			e.Message = slices.Clone(raw)
		case "exc_module":
			e.Module = nil
			if d.Peek() == 'n' {
				err = d.Skip()
				break
			}
			var module string
			err = d.str("exc_module", &module)
			e.Module = &module
		default:
			err = d.Skip()
		}
		if err == nil {
			more, err = d.More('{')
		}
	}
	if err == nil {
		err = d.End()
	}
	if err == nil && e.Type == "" {
		err = &TypeError{What: d.what, Key: "exc_type", Got: "nothing", Want: "the name of the exception"}
	}
	return err
}

// AppendJSON appends the form as Celery stores it.
func (e *ErrorForm) AppendJSON(b []byte) []byte {
	b = pyjson.AppendString(append(b, `{"exc_type": `...), e.Type)
	b = appendRaw(append(b, `, "exc_message": `...), e.Message, "[]")
	b = append(b, `, "exc_module": `...)
	if e.Module == nil {
		b = append(b, "null"...)
	} else {
		b = pyjson.AppendString(b, *e.Module)
	}
	return append(b, '}')
}

// Arguments gives the exception's arguments as raw values. A message that is no
// list is the one argument.
func (e *ErrorForm) Arguments() []json.RawMessage {
	d, err := open("error", e.Message, MaxBodyBytes)
	if err != nil || len(e.Message) == 0 {
		return nil
	}
	if d.Peek() != '[' {
		return []json.RawMessage{e.Message}
	}
	var args []json.RawMessage
	more, err := d.Enter('[')
	for more && err == nil {
		var raw []byte
		if raw, err = d.Raw(); err == nil {
			args = append(args, raw)
			more, err = d.More('[')
		}
	}
	if err != nil {
		return nil
	}
	return args
}
