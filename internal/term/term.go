// Package term writes to people: colours and progress bars where the writer is
// a terminal, plain lines everywhere else.
package term

import (
	"io"
	"os"
)

// Style is a colour or weight, as the numbers of an ANSI sequence.
type Style string

// The styles in use.
const (
	Bold    Style = "1"
	Dim     Style = "2"
	Red     Style = "31"
	Green   Style = "32"
	Yellow  Style = "33"
	Blue    Style = "34"
	Magenta Style = "35"
	Cyan    Style = "36"
)

// Out is a writer with what is known about who reads it. It is safe for
// concurrent use if its writer is.
type Out struct {
	io.Writer
	terminal bool
	colour   bool
	width    int
}

// New looks at w. getenv may be nil; with it, NO_COLOR (any value) and
// TERM=dumb switch colours off, as does plain.
func New(w io.Writer, getenv func(string) string, plain bool) *Out {
	o := &Out{Writer: w, width: 80}
	if f, ok := w.(*os.File); ok {
		if width, ok := size(f); ok {
			o.terminal = true
			if width > 0 {
				o.width = width
			}
		}
	}
	o.colour = o.terminal && !plain
	if getenv != nil && (getenv("NO_COLOR") != "" || getenv("TERM") == "dumb") {
		o.colour = false
	}
	return o
}

// Fixed makes an Out for a terminal of a known width, whatever w is.
func Fixed(w io.Writer, width int, colour bool) *Out {
	return &Out{Writer: w, terminal: true, colour: colour, width: width}
}

// Terminal reports whether a person reads along.
func (o *Out) Terminal() bool { return o.terminal }

// Colour reports whether Paint paints.
func (o *Out) Colour() bool { return o.colour }

// Width is the number of columns; 80 if it is not known.
func (o *Out) Width() int { return o.width }

// Paint returns text in the styles, or as it is where there are no colours.
func (o *Out) Paint(text string, styles ...Style) string {
	if !o.colour || text == "" || len(styles) == 0 {
		return text
	}
	seq := ""
	for i, s := range styles {
		if i > 0 {
			seq += ";"
		}
		seq += string(s)
	}
	return "\x1b[" + seq + "m" + text + "\x1b[0m"
}
