package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/lovage-go/lovage/internal/term"
)

// maxAnswer bounds what is read as an answer.
const maxAnswer = 1024

// confirm asks a person; anything but y or yes is no. Where nobody answers, the
// command does nothing and says how to go on without the question.
func (s *session) confirm(warning string) error {
	fmt.Fprintf(s.err, "%s: %s\n\n(to skip this prompt use the -f option)\nAre you sure? [y/N]: ", s.err.Paint("WARNING", term.Red), warning)
	line, err := bufio.NewReader(io.LimitReader(s.in, maxAnswer)).ReadString('\n')
	if err != nil && line == "" {
		fmt.Fprintln(s.err)
		if errors.Is(err, io.EOF) {
			return exitf(ExitFailure, "nobody answered, nothing was done: use -f where nobody is there to ask")
		}
		return fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return exitf(ExitFailure, "aborted, nothing was done")
}
