package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/lovage-go/lovage/broker"
)

// deadPage is how many dead letters are asked for at a time.
const deadPage = 200

func (s *session) deadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dead",
		Short: "Look after dead letters.",
		Long: "Look after dead letters: messages that could not be read, were rejected, or cost too many workers " +
			"their lives. They are kept as they were until somebody decides.",
		Args: func(cmd *cobra.Command, args []string) error { return s.noCommand(cmd, args) },
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(s.deadList(), s.deadShow(),
		s.deadEnd("requeue", "Requeued", "Send dead letters back to their queues, as they were, with their losses forgotten.", broker.DeadLetterer.RequeueDead),
		s.deadEnd("drop", "Dropped", "Delete dead letters. There is no undo.", broker.DeadLetterer.DropDead))
	return cmd
}

// deadLetter is a dead letter as JSON.
type deadLetter struct {
	ID      string          `json:"id"`
	Queue   string          `json:"queue"`
	At      time.Time       `json:"at"`
	Task    string          `json:"task"`
	TaskID  string          `json:"task_id"`
	Losses  int             `json:"losses"`
	Reason  string          `json:"reason"`
	Type    string          `json:"content_type,omitempty"`
	Coding  string          `json:"content_encoding,omitempty"`
	Headers json.RawMessage `json:"headers,omitempty"` // a string if they are no JSON
	Heads   []byte          `json:"headers_base64,omitempty"`
	Body    string          `json:"body,omitempty"`
	Bytes   []byte          `json:"body_base64,omitempty"`
}

func letter(d *broker.Dead, whole bool) deadLetter {
	l := deadLetter{ID: d.ID, Queue: d.Queue, At: d.At.UTC(), Task: d.Task, TaskID: d.TaskID, Losses: d.Losses, Reason: d.Reason}
	if !whole {
		return l
	}
	l.Type, l.Coding = d.Properties.ContentType, d.Properties.ContentEncoding
	switch {
	case json.Valid(d.Headers):
		l.Headers = d.Headers
	case !utf8.Valid(d.Headers):
		l.Heads = d.Headers
	case len(d.Headers) > 0:
		l.Headers, _ = json.Marshal(string(d.Headers))
	}
	if utf8.Valid(d.Body) {
		l.Body = string(d.Body)
	} else {
		l.Bytes = d.Body
	}
	return l
}

// exact is a text on one line from which its bytes can be told: as it is, or
// quoted as Go does where something in it would not show.
func exact(b []byte) string {
	text := string(b)
	if !utf8.Valid(b) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

func (s *session) deadList() *cobra.Command {
	limit, queue, asJSON := 50, "", false
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List dead letters, newest first.",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return usagef(cmd, "Invalid value for -n / --limit: %d: want 1 or more.", limit)
			}
			list, err := s.deadLetters(cmd.Context(), queue, limit)
			if err != nil {
				return err
			}
			if asJSON {
				out := make([]deadLetter, len(list))
				for i := range list {
					out[i] = letter(&list[i], false)
				}
				return s.printJSON(out)
			}
			if len(list) == 0 {
				s.note("there are no dead letters")
				return nil
			}
			rows := [][]string{{"ID", "QUEUE", "WHEN", "TASK", "TASK ID", ">LOSSES", "REASON"}}
			for _, d := range list {
				rows = append(rows, []string{d.ID, oneLine(d.Queue), d.At.Local().Format("2006-01-02 15:04:05"), or(oneLine(d.Task), "-"),
					or(oneLine(d.TaskID), "-"), strconv.Itoa(d.Losses), oneLine(d.Reason)})
			}
			return s.table(rows)
		},
	}
	g := group{cmd.Flags(), "List Options"}
	g.text(&queue, "queue", "Q", "NAME", "Only those of one queue.")
	g.number(&limit, "limit", "n", "N", "At most that many. Default: 50.")
	g.json(&asJSON)
	return cmd
}

func (s *session) deadShow() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show one dead letter with its headers and body.",
		Args:  oneArg("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dl, err := s.deadLetterer(cmd.Context())
			if err != nil {
				return err
			}
			d, err := dl.DeadLetter(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			l := letter(&d, true)
			if asJSON {
				return s.printJSON(l)
			}
			_, err = fmt.Fprintf(s.out, "id:       %s\nqueue:    %s\nwhen:     %s\ntask:     %s\ntask id:  %s\nlosses:   %d\nreason:   %s\ncontent:  %s %s\nheaders:  %s\nbody:     %s\n",
				l.ID, oneLine(l.Queue), l.At.Local().Format("2006-01-02 15:04:05"), or(oneLine(l.Task), "-"), or(oneLine(l.TaskID), "-"), l.Losses, oneLine(l.Reason),
				or(d.Properties.ContentType, "-"), d.Properties.ContentEncoding, exact(d.Headers), exact(d.Body))
			return err
		},
	}
	group{cmd.Flags(), "Output Options"}.json(&asJSON)
	return cmd
}

// deadEnd is requeue and drop.
func (s *session) deadEnd(name, done, short string, end func(broker.DeadLetterer, context.Context, ...string) (int, error)) *cobra.Command {
	var all, force, asJSON bool
	queue := ""
	cmd := &cobra.Command{
		Use:   name + " [ID]...",
		Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return usagef(cmd, "Give the ids of dead letters, or --all.")
			}
			if queue != "" && !all {
				return usagef(cmd, "--queue goes with --all.")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, ids []string) error {
			ctx := cmd.Context()
			dl, err := s.deadLetterer(ctx)
			if err != nil {
				return err
			}
			if all {
				list, err := s.deadLetters(ctx, queue, 0)
				if err != nil {
					return err
				}
				for i := range list {
					ids = append(ids, list[i].ID)
				}
				if len(ids) > 0 && name == "drop" && !force {
					if err := s.confirm(fmt.Sprintf("This will delete %s.\nThere is no undo for this operation!", plural(len(ids), "dead letter"))); err != nil {
						return err
					}
				}
			}
			n, err := endDead(ctx, dl, ids, end)
			if err == nil && n < len(ids) && !all {
				err = s.noLetters(ctx, ids, len(ids)-n)
			}
			if asJSON {
				return errors.Join(s.printJSON(map[string]int{strings.ToLower(done): n}), err)
			}
			if n > 0 || err == nil {
				fmt.Fprintf(s.out, "%s %s.\n", done, plural(n, "dead letter"))
			}
			return err
		},
	}
	g := group{cmd.Flags(), sentence(name) + " Options"}
	g.flag(&all, "all", "", "All that are there now.")
	g.text(&queue, "queue", "Q", "NAME", "With --all: only those of one queue.")
	if name == "drop" {
		g.flag(&force, "force", "f", "Don't prompt for verification.")
	}
	g.json(&asJSON)
	return cmd
}

// noLetters is the error for ids of which some are no dead letter's. Those of tasks,
// which stand beside them in the list, are easily taken for them.
func (s *session) noLetters(ctx context.Context, ids []string, missing int) error {
	text := fmt.Sprintf("%d of %d dead letters were not there", missing, len(ids))
	if len(ids) == 1 {
		text = fmt.Sprintf("there is no dead letter %q", ids[0])
	}
	list, err := s.deadLetters(ctx, "", deadPage)
	if err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	for _, id := range ids {
		if i := slices.IndexFunc(list, func(d broker.Dead) bool { return d.TaskID == id }); i >= 0 {
			text += fmt.Sprintf("; %s is the id of a task, whose dead letter is %s", oneLine(id), list[i].ID)
		}
	}
	return fmt.Errorf("%s: see '%s dead list'", text, s.name)
}

// endDead ends letters page by page, so that no transaction grows without bound.
func endDead(ctx context.Context, dl broker.DeadLetterer, ids []string, end func(broker.DeadLetterer, context.Context, ...string) (int, error)) (total int, err error) {
	for len(ids) > 0 {
		page := ids[:min(deadPage, len(ids))]
		n, err := end(dl, ctx, page...)
		total += n
		if err != nil {
			return total, err
		}
		ids = ids[len(page):]
	}
	return total, nil
}

// deadLetters lists up to limit dead letters; 0 is all.
func (s *session) deadLetters(ctx context.Context, queue string, limit int) (all []broker.Dead, err error) {
	dl, err := s.deadLetterer(ctx)
	if err != nil {
		return nil, err
	}
	for after := ""; ; {
		page := deadPage
		if limit > 0 {
			page = min(page, limit-len(all))
		}
		list, err := dl.DeadLetters(ctx, queue, after, page)
		if err != nil {
			return nil, fmt.Errorf("list dead letters: %w", err)
		}
		if limit == 0 { // only the ids are of use
			for i := range list {
				list[i] = broker.Dead{ID: list[i].ID}
			}
		}
		all = append(all, list...)
		if len(list) < page || len(all) == limit {
			return all, nil
		}
		after = list[len(list)-1].ID
	}
}

func (s *session) deadLetterer(ctx context.Context) (broker.DeadLetterer, error) {
	return ability[broker.DeadLetterer](ctx, s, "keeps no dead letters that could be listed")
}

// ability opens the broker and looks for an optional interface.
func ability[T any](ctx context.Context, s *session, without string) (T, error) {
	var none T
	conn, err := s.app.Broker(ctx)
	if err != nil {
		return none, err
	}
	if a, ok := conn.(T); ok {
		return a, nil
	}
	return none, fmt.Errorf("this broker %s: %w", without, broker.ErrUnsupported)
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
