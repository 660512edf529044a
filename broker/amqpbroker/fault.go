package amqpbroker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/lovage-go/lovage/broker"
	amqp "github.com/rabbitmq/amqp091-go"
)

// isChannelError: the server refused something and closed the channel for it,
// not the connection.
func isChannelError(err error) bool {
	e, ok := errors.AsType[*amqp.Error](err)
	if !ok || !e.Server {
		return false
	}
	switch e.Code {
	case amqp.AccessRefused, amqp.NotFound, amqp.ResourceLocked, amqp.PreconditionFailed, amqp.ContentTooLarge, amqp.NoConsumers:
		return true
	}
	return false
}

func code(err error) int {
	if e, ok := errors.AsType[*amqp.Error](err); ok {
		return e.Code
	}
	return 0
}

// unavailable is the error of a network that does not work now.
func unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)) {
		return fmt.Errorf("%w: %w (%w)", broker.ErrUnavailable, context.Cause(ctx), err)
	}
	return fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
}

// handshake sorts the errors of a connection that was not made: a wrong
// password, virtual host or certificate will not mend itself.
func handshake(ctx context.Context, err error) error {
	switch code(err) {
	case amqp.AccessRefused:
		return fmt.Errorf("RabbitMQ refuses this user: check user, password and login_method: %w", err)
	case amqp.NotAllowed:
		return fmt.Errorf("RabbitMQ refuses this virtual host: it must exist, and the user needs permissions for it (rabbitmqctl set_permissions): %w", err)
	}
	if errors.Is(err, amqp.ErrCredentials) || errors.Is(err, amqp.ErrVhost) || errors.Is(err, amqp.ErrSASL) {
		return err
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Errorf("the server's certificate is not accepted: %w", err)
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fmt.Errorf("the server's certificate is not accepted: %w", err)
	}
	return unavailable(ctx, err)
}

// fault gives the contract's error for what the library or the server says.
func fault(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, broker.ErrUnavailable), errors.Is(err, broker.ErrClosed), errors.Is(err, broker.ErrNoQueue),
		errors.Is(err, broker.ErrUnsupported), errors.Is(err, broker.ErrTooLarge), errors.Is(err, broker.ErrLeaseLost):
		return err
	case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		return err
	}
	switch code(err) {
	case amqp.NotFound:
		return fmt.Errorf("%w: %w", broker.ErrNoQueue, err)
	case amqp.AccessRefused:
		return fmt.Errorf("the account lacks a permission (rabbitmqctl set_permissions): %w", err)
	case amqp.PreconditionFailed:
		return fmt.Errorf("it exists with another shape: declare it alike everywhere, or delete it: %w", err)
	case amqp.ResourceLocked, amqp.NotImplemented, amqp.NotAllowed, amqp.CommandInvalid:
		return err
	}
	return unavailable(ctx, err)
}
