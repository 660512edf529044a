package bind_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"testing"

	"github.com/lovage-go/lovage/internal/bind"
)

// The functions of testdata/python_errors.py as argument types.
type (
	pyNone struct{}
	pyOne  struct {
		X int `json:"x"`
	}
	pyTwo struct {
		X int `json:"x"`
		Y int `json:"y"`
	}
	pyThree struct {
		X int `json:"x"`
		Y int `json:"y"`
		Z int `json:"z"`
	}
	pyDefaulted struct {
		X int `json:"x"`
		Y int `json:"y" lovage:",default=7"`
	}
	pyAllDefault struct {
		X int `json:"x" lovage:",default=1"`
		Y int `json:"y" lovage:",default=2"`
	}
	pyRest struct {
		X    int   `json:"x"`
		Rest []int `json:"rest" lovage:",rest"`
	}
	pyRestDefault struct {
		X    int   `json:"x"`
		Y    int   `json:"y" lovage:",default=7"`
		Rest []int `json:"rest" lovage:",rest"`
	}
	pyExtra struct {
		X     int            `json:"x"`
		Extra map[string]int `json:"extra" lovage:",extra"`
	}
	pyKwonly struct {
		X int `json:"x"`
		K int `json:"k" lovage:",kwonly"`
	}
	pyKwonlyDefault struct {
		X int `json:"x"`
		Y int `json:"y" lovage:",default=7"`
		K int `json:"k" lovage:",kwonly,default=8"`
		L int `json:"l" lovage:",kwonly"`
	}
	pyKwonlyMany struct {
		K int `json:"k" lovage:",kwonly"`
		L int `json:"l" lovage:",kwonly"`
		Z int `json:"z" lovage:",kwonly"`
	}
	pyEverything struct {
		X     int            `json:"x"`
		Y     int            `json:"y" lovage:",default=7"`
		Rest  []int          `json:"rest" lovage:",rest"`
		K     int            `json:"k"` // keyword-only, as it follows rest
		L     int            `json:"l" lovage:",default=9"`
		Extra map[string]int `json:"extra" lovage:",extra"`
	}
)

var pyFunctions = map[string]reflect.Type{
	"none":          reflect.TypeFor[pyNone](),
	"one":           reflect.TypeFor[pyOne](),
	"two":           reflect.TypeFor[pyTwo](),
	"three":         reflect.TypeFor[pyThree](),
	"defaulted":     reflect.TypeFor[pyDefaulted](),
	"alldefault":    reflect.TypeFor[pyAllDefault](),
	"rest":          reflect.TypeFor[pyRest](),
	"restdefault":   reflect.TypeFor[pyRestDefault](),
	"extra":         reflect.TypeFor[pyExtra](),
	"kwonly":        reflect.TypeFor[pyKwonly](),
	"kwonlydefault": reflect.TypeFor[pyKwonlyDefault](),
	"kwonlymany":    reflect.TypeFor[pyKwonlyMany](),
	"everything":    reflect.TypeFor[pyEverything](),
}

// pyCall is one line of testdata/python_errors.json.
type pyCall struct {
	Function string
	Args     json.RawMessage
	Kwargs   json.RawMessage
	Error    string
	Bound    map[string]any
}

// TestPythonBinding compares each call that Python was asked with what the plan says:
// the same refusal in the same words, or the same values in the same parameters.
func TestPythonBinding(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/python_errors.json")
	if err != nil {
		t.Fatal(err)
	}
	comparePython(t, text)
}

func comparePython(t *testing.T, lines []byte) {
	t.Helper()
	seen := map[string]int{}
	sc := bufio.NewScanner(bytes.NewReader(lines))
	for sc.Scan() {
		var c pyCall
		if err := json.Unmarshal(sc.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		typ, ok := pyFunctions[c.Function]
		if !ok {
			t.Fatalf("no argument type for the Python function %s", c.Function)
		}
		seen[c.Function]++
		p, err := bind.For(typ)
		if err != nil {
			t.Fatal(err)
		}
		into := reflect.New(typ)
		checked := p.Check("proj."+c.Function, c.Args, c.Kwargs)
		bound := p.Bind("proj."+c.Function, c.Args, c.Kwargs, into.Interface())
		if c.Error != "" {
			for name, err := range map[string]error{"Check": checked, "Bind": bound} {
				if _, ok := errors.AsType[*bind.Error](err); !ok || err.Error() != c.Error {
					t.Errorf("%s(*%s, **%s): %s says %v\nPython says %s", c.Function, c.Args, c.Kwargs, name, err, c.Error)
				}
			}
			continue
		}
		if checked != nil || bound != nil {
			t.Errorf("%s(*%s, **%s): Check %v, Bind %v, want none", c.Function, c.Args, c.Kwargs, checked, bound)
			continue
		}
		if got := asLocals(t, into.Interface()); !reflect.DeepEqual(got, c.Bound) {
			t.Errorf("%s(*%s, **%s): got %v, Python has %v", c.Function, c.Args, c.Kwargs, got, c.Bound)
		}
	}
	for name := range pyFunctions {
		if seen[name] < 50 {
			t.Errorf("only %d calls of %s, want all that the script makes", seen[name], name)
		}
	}
}

// asLocals is a bound struct as Python's locals() shows it: nothing is never null.
func asLocals(t *testing.T, v any) map[string]any {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	if rest, ok := out["rest"]; ok && rest == nil {
		out["rest"] = []any{}
	}
	if extra, ok := out["extra"]; ok && extra == nil {
		out["extra"] = map[string]any{}
	}
	return out
}
