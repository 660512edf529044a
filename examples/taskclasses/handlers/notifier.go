package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/smtp"
	"strings"

	"github.com/lovage-go/lovage"
)

// mostLogins bounds the chain of logins that OnFailure sends one after another.
const mostLogins = 2

// Notifier is the base class: all handlers, and the helper methods they share.
type Notifier struct {
	lovage.Task
	SMTPAddr string
	Journal  *log.Logger
}

// LoginArgs are Python's def run(self, payload, retry=0).
type LoginArgs struct {
	Payload string // a Login, in JSON, in base64
	Retry   int    `lovage:"retry,default=0"`
}

// Login is what the payload holds.
type Login struct{ User, Password, Email string }

// BeforeStart runs before the body. An error of it would fail the task.
func (t *Notifier) BeforeStart(ctx context.Context, r *lovage.Request) error {
	t.Journal.Printf("before start:  %s, run %d", r.Task, r.Retries+1)
	return nil
}

// OnSuccess mails the user. The first positional argument is the payload, as in
// Python's args[0].
func (t *Notifier) OnSuccess(ctx context.Context, r *lovage.Request, result any) error {
	var payload string
	if _, err := r.Args.At(0, &payload); err != nil {
		return err
	}
	login, err := decode(payload)
	if err != nil {
		return err
	}
	t.Journal.Printf("success:       %v", result)
	return t.mail(ctx, login.Email, "Welcome, "+login.User)
}

// OnFailure logs who could not log in and tries once more, as a new task that is
// called by its name. ArgsOf finds retry whether it was sent by position or by
// name; r.Args and r.Kwargs are the arguments as they were sent.
func (t *Notifier) OnFailure(ctx context.Context, r *lovage.Request, info *lovage.ErrorInfo) error {
	in, err := lovage.ArgsOf[LoginArgs](r)
	if err != nil {
		return err
	}
	login, err := decode(in.Payload)
	if err != nil {
		return err
	}
	t.Journal.Printf("failure:       %s: %s; retry=%d, from %d positional and %s", login.User, info.Repr(), in.Retry, r.Args.Len(), r.Kwargs)
	if in.Retry >= mostLogins {
		t.Journal.Printf("               gave up")
		return nil
	}
	_, err = t.App().Send(ctx, "login_task", lovage.Args{
		Positional: []any{in.Payload},
		Keyword:    map[string]any{"retry": in.Retry + 1},
	})
	return err
}

// OnRetry runs when the task has been sent to run again.
func (t *Notifier) OnRetry(ctx context.Context, r *lovage.Request, info *lovage.ErrorInfo) {
	t.Journal.Printf("retry:         %s", info.Repr())
}

// AfterReturn runs last, after success and failure but not after a retry.
func (t *Notifier) AfterReturn(ctx context.Context, r *lovage.Request, state lovage.State, result any, info *lovage.ErrorInfo) {
	t.Journal.Printf("after return:  %s, result %v, traceback %t", state, result, info != nil && info.Traceback != "")
}

// mail is a helper method: it sends a mail through the server at SMTPAddr.
func (t *Notifier) mail(ctx context.Context, to, subject string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", t.SMTPAddr)
	if err != nil {
		return fmt.Errorf("mail to %s: %w", to, err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	client, err := smtp.NewClient(conn, "localhost")
	if err != nil {
		return fmt.Errorf("mail to %s: %w", to, err)
	}
	if err := client.Mail("logins@example.org"); err != nil {
		return fmt.Errorf("mail to %s: %w", to, err)
	}
	if err := client.Rcpt(to); err != nil {
		return fmt.Errorf("mail to %s: %w", to, err)
	}
	body, err := client.Data()
	if err != nil {
		return fmt.Errorf("mail to %s: %w", to, err)
	}
	fmt.Fprintf(body, "To: %s\r\nSubject: %s\r\n\r\nYou are logged in.\r\n", to, subject)
	if err := body.Close(); err != nil {
		return fmt.Errorf("mail to %s: %w", to, err)
	}
	return client.Quit()
}

func encode(l Login) string {
	text, err := json.Marshal(l)
	if err != nil {
		panic(err) // three strings
	}
	return base64.StdEncoding.EncodeToString(text)
}

func decode(payload string) (Login, error) {
	var l Login
	err := json.NewDecoder(base64.NewDecoder(base64.StdEncoding, strings.NewReader(payload))).Decode(&l)
	if err != nil {
		return l, fmt.Errorf("payload: %w", err)
	}
	return l, nil
}
