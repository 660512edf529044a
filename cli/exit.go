package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lovage-go/lovage/backend"
	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/internal/settings"
	"github.com/lovage-go/lovage/internal/term"
)

// The exit codes; see the package documentation.
const (
	ExitOK          = 0
	ExitFailure     = 1
	ExitUsage       = 2
	ExitUnavailable = 69
	ExitStuck       = 75
	ExitInterrupted = 130
)

// usageError is a mistake of the command line.
type usageError struct {
	cmd *cobra.Command
	msg string
}

func (e *usageError) Error() string { return e.msg }

func usagef(cmd *cobra.Command, format string, a ...any) error {
	return &usageError{cmd, fmt.Sprintf(format, a...)}
}

// exitError is an error with a code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func exitf(code int, format string, a ...any) error {
	return &exitError{code, fmt.Errorf(format, a...)}
}

// report writes an error as Celery does and returns the exit code.
func (s *session) report(ctx context.Context, err error) int {
	if err == nil {
		return ExitOK
	}
	if interrupted(ctx, err) {
		fmt.Fprintln(s.err, "Aborted!")
		return ExitInterrupted
	}
	var usage *usageError
	if errors.As(err, &usage) {
		path := usage.cmd.CommandPath()
		fmt.Fprintf(s.err, "Usage: %s\nTry '%s --help' for help.\n\n", usageLine(usage.cmd), path)
	}
	fmt.Fprintf(s.err, "%s %s\n", s.err.Paint("Error:", term.Red), err)
	var exit *exitError
	switch {
	case usage != nil:
		return ExitUsage
	case errors.As(err, &exit):
		return exit.code
	case errors.Is(err, broker.ErrUnavailable), errors.Is(err, backend.ErrUnavailable):
		return ExitUnavailable
	}
	return ExitFailure
}

// flagError turns an error of the flag parser into one with a suggestion.
func flagError(cmd *cobra.Command, err error) error {
	var missing *pflag.NotExistError
	if !errors.As(err, &missing) {
		var value *pflag.InvalidValueError
		if errors.As(err, &value) {
			return usagef(cmd, "Invalid value for %s: %s.", flagName(value.GetFlag()), badValue(value))
		}
		return usagef(cmd, "%s.", sentence(err.Error()))
	}
	if missing.GetSpecifiedShortnames() != "" {
		return usagef(cmd, "No such option: -%s.", missing.GetSpecifiedName())
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return usagef(cmd, "No such option: --%s.%s", missing.GetSpecifiedName(), meant("--", missing.GetSpecifiedName(), names))
}

// badValue words the error of a flag's value; numbers speak Go otherwise.
func badValue(e *pflag.InvalidValueError) string {
	switch e.GetFlag().Value.Type() {
	case "int":
		return fmt.Sprintf("%q is not a whole number", e.GetValue())
	case "float64":
		return fmt.Sprintf("%q is not a number", e.GetValue())
	case "bool":
		return fmt.Sprintf("%q is neither true nor false", e.GetValue())
	}
	return strings.TrimSuffix(e.Unwrap().Error(), ".")
}

// meant is a suggestion, or nothing.
func meant(prefix, given string, known []string) string {
	near := settings.Closest(given, known)
	if near == "" {
		for _, k := range known { // an unfinished word: --concur
			if len(given) >= 2 && strings.HasPrefix(k, given) {
				near = k
				break
			}
		}
	}
	if near == "" {
		return ""
	}
	return fmt.Sprintf(" Did you mean %s%s?", prefix, near)
}

func flagName(f *pflag.Flag) string {
	if f.Shorthand != "" {
		return fmt.Sprintf("-%s / --%s", f.Shorthand, f.Name)
	}
	return "--" + f.Name
}

func sentence(text string) string {
	if text == "" {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

// noArgs, oneArg and someArgs check the words that are no flags.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef(cmd, "Got unexpected extra argument (%s)", strings.Join(args, " "))
	}
	return nil
}

func oneArg(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef(cmd, "Missing argument '%s'.", name)
		}
		return noArgs(cmd, args[1:])
	}
}

func someArgs(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef(cmd, "Missing argument '%s'.", name)
		}
		return nil
	}
}
