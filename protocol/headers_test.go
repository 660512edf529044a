package protocol_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/lovage-go/lovage/protocol"
)

func TestHeaderErrorsNameKeyGotWant(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`{"task":"t","retries":"1"}`:                 `header "retries": got a string, want a number`,
		`{"task":"t","retries":1.5}`:                 `header "retries": got a number (1.5), want a whole number`,
		`{"expires":3,"task":"t"}`:                   `header "expires": got a number (3), want a string or null`,
		`{"task":"t","eta":true}`:                    `header "eta": got a boolean (true), want a string or null`,
		`{"task":7}`:                                 `header "task": got a number (7), want a string or null`,
		`{"task":"t","timelimit":[1]}`:               `header "timelimit": got a list of 1, want null or a list [hard, soft] of seconds or nulls`,
		`{"task":"t","timelimit":[1,NaN]}`:           `header "timelimit": got a number (NaN), want a finite number or null`,
		`{"task":"t","stamps":[]}`:                   `header "stamps": got an array, want an object or null`,
		`{"task":"t","stamped_headers":[1]}`:         `header "stamped_headers": got a number (1), want a list of strings`,
		`{"task":"t","ignore_result":0}`:             `header "ignore_result": got a number (0), want true or false`,
		`{"task":"t"`:                                `header: not JSON at byte 11: want a comma or the end of an object`,
		`[]`:                                         `header: not JSON at byte 0: got an array, want an object`,
		`{"task":"t","x":` + strings.Repeat("[", 70): `header: JSON is nested deeper than 64 levels`,
		"{\"task\":\"\xff\"}":                        `header: not JSON at byte 9: invalid UTF-8`,
	} {
		_, err := protocol.ParseHeaders([]byte(raw))
		if err == nil || err.Error() != want {
			t.Errorf("%.60s:\n got %v\nwant %s", raw, err, want)
		}
	}
	if _, err := protocol.ParseHeaders(make([]byte, protocol.MaxHeaderBytes+1)); err == nil {
		t.Error("headers over the size: got no error")
	}
}

func TestHeadersWithoutTaskAreExtra(t *testing.T) {
	t.Parallel()
	h, err := protocol.ParseHeaders([]byte(`{"clock": 3, "expires": 1794.5, "compression": "application/x-gzip"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"compression": "application/x-gzip", "clock": 3, "expires": 1794.5}`
	if got := string(h.AppendJSON(nil)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestHeadersLastKeyWins(t *testing.T) {
	t.Parallel()
	h, err := protocol.ParseHeaders([]byte(`{"task": "a", "eta": "x", "group_index": 1, "task": "\u00e9\ud83d\ude00", "eta": null, "group_index": null}`))
	if err != nil {
		t.Fatal(err)
	}
	if h.Task != "é😀" || h.ETA != "" || h.GroupIndex != nil {
		t.Errorf("got %q %q %v, want é😀 and nothing else", h.Task, h.ETA, h.GroupIndex)
	}
}

func TestBodyErrors(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`{}`:                              `body: got an object, want a list [args, kwargs, embed]`,
		`[]`:                              `body: got a list of 0, want a list [args, kwargs, embed]`,
		`[[],{},null,1]`:                  `body: got a list of 4, want a list [args, kwargs, embed]`,
		`[{},{}]`:                         `body "args": got an object, want an array or null`,
		`[[],[]]`:                         `body "kwargs": got an array, want an object or null`,
		`[[],{},[]]`:                      `body "embed": got an array, want an object or null`,
		`[[],{},{"chain":3}]`:             `body "chain": got a number (3), want a list of signatures or null`,
		`[[],{},{"chord":{"args":[]}}]`:   `body "chord": got a signature without a task, want the task's name`,
		`[[],{},{"callbacks":["tasks"]}]`: `body "callbacks": got a string, want a signature (an object)`,
	} {
		_, err := protocol.ParseBody([]byte(raw))
		if err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", raw, err, want)
		}
	}
}

func TestBodyForms(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`[null, null, null]`: `[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]`,
		` [[1],{"a":NaN}] `:  `[[1], {"a":NaN}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]`,
		`[[],{},{"chain":[],"callbacks":{"task":"t","chord_size":2},"later":1}]`: `[[], {}, {"callbacks": [{"task": "t", "args": [], "kwargs": {}, "options": {}, "subtask_type": null, "immutable": false, "chord_size": 2}], "errbacks": null, "chain": [], "chord": null, "later": 1}]`,
	} {
		b, err := protocol.ParseBody([]byte(raw))
		if err != nil {
			t.Errorf("%s: %v", raw, err)
		} else if got := string(b.AppendJSON(nil)); got != want {
			t.Errorf("%s:\n got %s\nwant %s", raw, got, want)
		}
	}
}

func TestSignatureInEncodingJSON(t *testing.T) {
	t.Parallel()
	const text = `{"task":"t","args":[1],"kwargs":{"k":2},"options":{"queue":"q"},"subtask_type":"chord","immutable":true,"chord_size":3}`
	var s protocol.Signature
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(s)
	if err != nil || string(got) != text {
		t.Errorf("got %s, %v, want %s", got, err, text)
	}
}

func TestResultErrors(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`{"result":1}`:                       `result "status": got nothing, want the name of a state`,
		`{"status":1}`:                       `result "status": got a number (1), want a string or null`,
		`{"status":"SUCCESS","retries":"1"}`: `result "retries": got a string, want a number`,
	} {
		_, err := protocol.ParseResultMeta([]byte(raw))
		if err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", raw, err, want)
		}
	}
}

func TestErrorMessageForms(t *testing.T) {
	t.Parallel()
	for message, want := range map[string]int{`["a", 42]`: 2, `"text"`: 1, `[]`: 0, `{"a": 1}`: 1} {
		e, err := protocol.ParseErrorForm([]byte(`{"exc_type": "E", "exc_message": ` + message + `, "exc_module": null}`))
		if err != nil {
			t.Fatal(err)
		}
		if got := len(e.Arguments()); got != want || e.Module != nil {
			t.Errorf("%s: got %d arguments, module %v, want %d and none", message, got, e.Module, want)
		}
	}
}

func TestV1WithoutZone(t *testing.T) {
	t.Parallel()
	for utc, want := range map[string]string{"true": "2026-11-21T10:00:00+00:00", "false": "2026-11-21T10:00:00", "null": "2026-11-21T10:00:00+00:00"} {
		raw := `{"task":"t","id":"1","args":[],"kwargs":{},"eta":"2026-11-21T10:00:00","utc":` + utc + `,"taskset":"g"}`
		h, _, err := protocol.ParseV1([]byte(raw))
		if err != nil || h.ETA != want || h.Group != "g" {
			t.Errorf("utc %s: got %q in group %q, %v; want %q in g", utc, h.ETA, h.Group, err, want)
		}
	}
	if _, _, err := protocol.ParseV1([]byte(`{"task":"t","kwargs":{}}`)); err == nil {
		t.Error("without args: got no error")
	}
}
