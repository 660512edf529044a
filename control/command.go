package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/lovage-go/lovage/internal/pyrepr"
)

// Command is something that a worker can be asked for.
type Command struct {
	Name string
	// Alias is another name, from before this one.
	Alias string
	// Inspect tells a question, which is of no use without replies, from an order:
	// the command line has them under inspect and under control.
	Inspect bool
	// Help is one line for the command line; a command without it is not listed.
	Help string
	// Args names the arguments that must be there. Others may come, and are
	// ignored by commands that do not know them.
	Args []string
	// Params are the words that the command line takes, in order, and Rest is the
	// argument that gets all further ones as a list.
	Params []Param
	Rest   string
	// Run does it and returns the reply, which must encode as JSON. An error
	// becomes {"error": text}; ErrNoReply is no reply at all. It must not block
	// for long: the commands of a node run one after the other.
	Run func(ctx context.Context, n Node, a Args) (any, error)
}

// Param is an argument that the command line takes by its place.
type Param struct {
	Name string
	Type string // "" for text, int, float, bool
	Must bool   // it cannot be left out
}

// ErrNoReply is returned by a command that must not be answered, as Celery's
// shutdown is not.
var ErrNoReply = errors.New("control: no reply")

// OK is the reply of commands that have done something.
func OK(format string, a ...any) map[string]string {
	return map[string]string{"ok": fmt.Sprintf(format, a...)}
}

// Refused is the reply of commands that have not.
func Refused(format string, a ...any) map[string]string {
	return map[string]string{"error": fmt.Sprintf(format, a...)}
}

// Exception is an error that is told as Python's nodes do: the repr of an
// exception of this type.
type Exception struct{ Type, Text string }

func (e *Exception) Error() string { return e.Type + "(" + repr(e.Text) + ")" }

func exception(kind, format string, a ...any) *Exception {
	return &Exception{kind, fmt.Sprintf(format, a...)}
}

// repr is the text as Python prints it.
func repr(text string) string { return pyrepr.String(text) }

// Registry holds the commands of a node by name. It is read-only once made.
type Registry struct{ byName map[string]*Command }

// NewRegistry returns the built-in commands with more added; one of the same
// name replaces a built-in.
func NewRegistry(more ...Command) (*Registry, error) {
	r := &Registry{byName: map[string]*Command{}}
	for _, list := range [][]Command{builtin(), more} {
		for i := range list {
			c := &list[i]
			if c.Name == "" || c.Run == nil {
				return nil, fmt.Errorf("control command %q: it needs a name and Run", c.Name)
			}
			r.byName[c.Name] = c
			if c.Alias != "" {
				r.byName[c.Alias] = c
			}
		}
	}
	return r, nil
}

// Names lists the commands.
func (r *Registry) Names() []string { return slices.Sorted(maps.Keys(r.byName)) }

// Lookup finds a command by its name or its alias.
func (r *Registry) Lookup(name string) (Command, bool) {
	c := r.byName[name]
	if c == nil {
		return Command{}, false
	}
	return *c, true
}

// run runs the command that a request names. A panic is an error.
func (r *Registry) run(ctx context.Context, n Node, q *Request) (reply any, err error) {
	c := r.byName[q.Method]
	if c == nil {
		return nil, exception("KeyError", "%s", q.Method)
	}
	if err := c.check(q.Arguments); err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil {
			err = exception("RuntimeError", "%s panicked: %v", q.Method, p)
		}
	}()
	return c.Run(ctx, n, q.Arguments)
}

// check words missing arguments as Python does.
func (c *Command) check(a Args) error {
	var missing []string
	for _, name := range c.Args {
		if _, ok := a[name]; !ok {
			missing = append(missing, "'"+name+"'")
		}
	}
	n := len(missing)
	switch {
	case n == 0:
		return nil
	case n == 1:
		return exception("TypeError", "%s() missing 1 required positional argument: %s", c.Name, missing[0])
	case n == 2:
		return exception("TypeError", "%s() missing 2 required positional arguments: %s and %s", c.Name, missing[0], missing[1])
	}
	return exception("TypeError", "%s() missing %d required positional arguments: %s, and %s", c.Name, n,
		strings.Join(missing[:n-1], ", "), missing[n-1])
}

// wording is the text of a reply that is an error.
func wording(err error) string {
	var e *Exception
	if errors.As(err, &e) {
		return e.Error()
	}
	return exception("RuntimeError", "%v", err).Error()
}
