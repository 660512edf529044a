package amqpbroker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

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
// password, virtual host or certificate will not mend itself. What the server has
// not said itself is no refusal: the library takes any end of a connection in its
// handshake for one, also that of a slow or broken network. A wrong password alone is
// told by silence, see wrongPassword.
func handshake(ctx context.Context, err error) error {
	if errors.Is(err, amqp.ErrSASL) {
		return fmt.Errorf("RabbitMQ offers no login by this login_method: EXTERNAL needs TLS and the plugin rabbitmq_auth_mechanism_ssl: %w", err)
	}
	if e, ok := errors.AsType[*amqp.Error](err); ok && !e.Server {
		return unavailable(ctx, fmt.Errorf("the connection ended in its handshake (%s)", e.Reason))
	}
	switch code(err) {
	case amqp.AccessRefused:
		return refusedUser(err)
	case amqp.NotAllowed:
		return fmt.Errorf("RabbitMQ refuses this virtual host: it must exist, and the user needs permissions for it (rabbitmqctl set_permissions): %w", err)
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Errorf("the server's certificate is not accepted: %w", err)
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fmt.Errorf("the server's certificate is not accepted: %w", err)
	}
	return unavailable(ctx, err)
}

func refusedUser(err error) error {
	return fmt.Errorf("RabbitMQ refuses this user: check user, password and login_method: %w", err)
}

// silence is the time after which RabbitMQ hangs up on a wrong password. It would say
// why to a client that asks for it, which the library does not.
const silence = 3 * time.Second

// wrongPassword reports whether a connection that the server has ended in its
// handshake was ended for that.
func wrongPassword(err error, after time.Duration) bool {
	return errors.Is(err, amqp.ErrCredentials) && after >= silence
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
