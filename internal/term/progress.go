package term

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// redraw is the least time between two drawings of a bar on a terminal.
const redraw = 50 * time.Millisecond

// Progress is a bar on a terminal, and elsewhere a plain line for each tenth of
// the way. It is safe for concurrent use. It starts no goroutine: it draws when
// it is told of progress.
type Progress struct {
	out   *Out
	label string
	total int

	mu    sync.Mutex // guards what follows
	done  int
	note  string
	drawn time.Time
	tenth int
	ended bool
}

// Progress starts a bar of total steps; a total of 0 is a bar that is full.
func (o *Out) Progress(label string, total int) *Progress {
	p := &Progress{out: o, label: label, total: max(total, 0)}
	p.mu.Lock()
	defer p.mu.Unlock()
	if o.terminal {
		p.draw()
	}
	return p
}

// Set tells how many steps are done, and a note to show beside them.
func (p *Progress) Set(done int, note string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	p.done, p.note = min(max(done, 0), p.total), note
	if p.out.terminal {
		if time.Since(p.drawn) >= redraw || p.done == p.total {
			p.draw()
		}
		return
	}
	if t := p.tenths(); t > p.tenth && p.done < p.total {
		p.tenth = t
		p.line()
	}
}

// Say writes a line of text without disturbing the bar.
func (p *Progress) Say(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.out.terminal && !p.ended {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
	fmt.Fprintln(p.out, text)
	if p.out.terminal && !p.ended {
		p.draw()
	}
}

// End leaves the last state on the screen and goes to the next line. Further
// calls do nothing.
func (p *Progress) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	p.ended = true
	if p.out.terminal {
		p.draw()
		fmt.Fprintln(p.out)
		return
	}
	p.line()
}

func (p *Progress) tenths() int {
	if p.total == 0 {
		return 10
	}
	return p.done * 10 / p.total
}

func (p *Progress) percent() int {
	if p.total == 0 {
		return 100
	}
	return p.done * 100 / p.total
}

func (p *Progress) line() {
	fmt.Fprintf(p.out, "%s %d/%d (%d%%)%s\n", p.label, p.done, p.total, p.percent(), spaced(p.note))
}

// draw paints over the bar's line. Text that does not fit is cut, so that the
// line never wraps.
func (p *Progress) draw() {
	p.drawn = time.Now()
	counts := fmt.Sprintf(" %d/%d %3d%%%s", p.done, p.total, p.percent(), spaced(p.note))
	cells := min(40, p.out.width-len([]rune(p.label))-len([]rune(counts))-4)
	bar := ""
	if cells >= 5 {
		full := cells
		if p.total > 0 {
			full = cells * p.done / p.total
		}
		bar = " [" + p.out.Paint(strings.Repeat("#", full), Green) + strings.Repeat("-", cells-full) + "]"
	} else if room := p.out.width - 1; len([]rune(p.label+counts)) > room {
		counts = string([]rune(p.label + counts)[:max(room, 0)])
		fmt.Fprint(p.out, "\r\x1b[K"+counts)
		return
	}
	fmt.Fprint(p.out, "\r\x1b[K"+p.label+bar+counts)
}

func spaced(note string) string {
	if note == "" {
		return ""
	}
	return "  " + note
}
