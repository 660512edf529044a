package control_test

import (
	"testing"

	"github.com/lovage-go/lovage/control"
)

func TestRepliesWithWordsThatAreNoJSON(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"a": {"x": Infinity, "y": -Infinity, "z": NaN}}`: `{"x": null, "y": null, "z": null}`,
		`{"a": ["NaN \" Infinity", NaN, "\\"]}`:            `["NaN \" Infinity", null, "\\"]`,
	} {
		r, err := control.ParseReply(nil, []byte(body))
		if err != nil || string(r.Value) != want {
			t.Errorf("%s: got %v, %v; want %s", body, r, err, want)
		}
	}
}
