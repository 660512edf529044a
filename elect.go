package lovage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/protocol"
)

// SendSignature sends the task, or the chain or group of tasks, that a signature
// in Celery's form names: what the winner of an election does. It is for workers.
func (a *App) SendSignature(ctx context.Context, signature json.RawMessage) error {
	s, err := protocol.ParseSignature(signature)
	if err != nil {
		return fmt.Errorf("send a signature: %w", err)
	}
	open, err := openSig(&s)
	if err != nil {
		return fmt.Errorf("send a signature: %w", err)
	}
	e := &Effects{}
	p := &application{app: a, ctx: ctx, r: &Request{app: a}, e: e}
	if err := p.apply(open, nil, nil); err != nil {
		return fmt.Errorf("send a signature: %w", err)
	}
	if len(e.starts) > 0 {
		return errors.New("send a signature: chords are sent by runs alone: send a task that starts it")
	}
	ctx, cancel := a.publishDeadline(ctx)
	defer cancel()
	return a.policy(&options{}).Do(ctx, broker.Retryable, func(ctx context.Context) error { return a.PublishMessages(ctx, e.Publish...) })
}
