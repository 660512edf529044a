package lovage_test

import (
	"strings"
	"testing"

	"github.com/lovage-go/lovage"
)

func TestResultCodecIsOneThatCanBeRead(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		conf lovage.Config
		want string // in the error; "" is none
	}{
		"Default":        {},
		"Named":          {conf: lovage.Config{ResultSerializer: "json", ResultAcceptContent: []string{"application/json"}}},
		"NotHere":        {conf: lovage.Config{ResultSerializer: "pickle"}, want: "result_serializer"},
		"NotAccepted":    {conf: lovage.Config{ResultAcceptContent: []string{"yaml"}}, want: "result_accept_content"},
		"UnknownContent": {conf: lovage.Config{ResultAcceptContent: []string{"jsno"}}, want: "result_accept_content"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := lovage.New("t", c.conf).Freeze()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("Freeze: got %v, want %q", err, c.want)
			}
		})
	}
}
