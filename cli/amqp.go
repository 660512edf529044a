package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lovage-go/lovage/broker"
)

func (s *session) amqpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "amqp [COMMAND [ARGS]...]",
		Short: "AMQP Administration Shell.",
		Long: "AMQP Administration Shell: does one command, or, without one, those that it reads from standard input, a line each, " +
			"with quotes around words that have spaces. A message that basic.get has taken goes back at the end, unless basic.ack gets its delivery tag.\n\n" +
			"Commands: basic.ack, basic.get, basic.publish, exchange.declare, exchange.delete, queue.bind, queue.declare, queue.delete, queue.purge; " +
			"help lists their arguments, exit ends.",
		RunE: func(cmd *cobra.Command, words []string) (err error) {
			ctx := cmd.Context()
			c, err := ability[broker.Consoler](ctx, s, "has no AMQP shell, which is for RabbitMQ")
			if err != nil {
				return err
			}
			shell, err := c.Console(ctx)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, shell.Close()) }()
			if len(words) > 0 {
				return s.amqpDo(ctx, shell, words)
			}
			return s.amqpShell(ctx, shell)
		},
	}
}

// amqpShell reads commands until the input ends. A mistake of a person at the
// keyboard is told; the last one of a script is its outcome.
func (s *session) amqpShell(ctx context.Context, shell broker.Console) error {
	url, _ := s.app.URLs()
	s.note("connected to %s", url)
	var last error
	lines := bufio.NewScanner(s.in)
	lines.Buffer(nil, 16<<20)
	for ctx.Err() == nil && lines.Scan() {
		words, err := splitWords(lines.Text())
		switch {
		case err == nil && len(words) == 0:
			continue
		case err == nil && (words[0] == "exit" || words[0] == "quit"):
			return last
		case err == nil:
			err = s.amqpDo(ctx, shell, words)
		}
		if last = err; err != nil {
			fmt.Fprintln(s.err, "Error:", err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read commands: %w", err)
	}
	return last
}

func (s *session) amqpDo(ctx context.Context, shell broker.Console, words []string) error {
	if words[0] == "help" {
		for _, c := range shell.Commands() {
			fmt.Fprintln(s.out, c.Name, c.Args)
		}
		return nil
	}
	var names []string
	for _, c := range shell.Commands() {
		names = append(names, c.Name)
	}
	if !slices.Contains(names, words[0]) {
		return fmt.Errorf("there is no command %q.%s", words[0], meant("", words[0], names))
	}
	text, err := shell.Do(ctx, words[0], words[1:]...)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.out, text)
	return err
}

// splitWords parts a line at spaces, as a shell does: quotes of either kind keep
// them, a backslash keeps the next character, also in double quotes.
func splitWords(line string) (words []string, err error) {
	var word strings.Builder
	open, quote := false, rune(0)
	escaped := false
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, open = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote, open = r, true
		case r == ' ' || r == '\t':
			if open {
				words = append(words, word.String())
				word.Reset()
			}
			open = false
		default:
			word.WriteRune(r)
			open = true
		}
	}
	if quote != 0 || escaped {
		return nil, fmt.Errorf("a quote is not closed: %s", line)
	}
	if open {
		words = append(words, word.String())
	}
	return words, nil
}
