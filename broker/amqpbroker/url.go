package amqpbroker

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/lovage-go/lovage/internal/tlsurl"
)

// address is a server and who we are to it.
type address struct {
	host  string // host:port
	vhost string
	user  string
	tls   *tls.Config // nil: plain TCP
	sasl  []amqp.Authentication
}

// id names the server and virtual host, without who asks.
func (a *address) id() string { return a.host + a.vhostPath() }

func (a *address) vhostPath() string {
	if strings.HasPrefix(a.vhost, "/") {
		return a.vhost
	}
	return "/" + a.vhost
}

// parseURL reads one of Celery's URLs:
//
//	amqp://[user[:password]@]host[:port][/vhost]     pyamqp:// and librabbitmq:// are the same
//	amqps://...?ssl_cert_reqs=required&ssl_ca_certs=...&ssl_certfile=...&ssl_keyfile=...
//
// The option ssl makes amqp:// as amqps://, see [tlsurl.Wanted].
//
// No path, / and // are the virtual host "/"; //name is the one called "/name".
func parseURL(raw string, o *options) (*address, error) {
	u, err := url.Parse(raw)
	if err != nil {
		var ue *url.Error // its text has the URL, password and all
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, err
	}
	secure := false
	switch u.Scheme {
	case "amqp", "pyamqp", "librabbitmq":
	case "amqps", "pyamqps":
		secure = true
	default:
		return nil, fmt.Errorf("scheme %q is none of RabbitMQ: use amqp or amqps", u.Scheme)
	}
	q, host := u.Query(), cmp.Or(u.Hostname(), "localhost")
	conf, err := tlsurl.Wanted(secure, o.ssl, q, host)
	if err != nil {
		return nil, err
	}
	port := "5672"
	if conf != nil {
		port = "5671"
	}
	a := &address{
		host:  net.JoinHostPort(host, cmp.Or(u.Port(), port)),
		tls:   conf,
		vhost: cmp.Or(strings.TrimPrefix(u.Path, "/"), "/"),
		user:  "guest",
	}
	password := "guest"
	if u.User != nil && u.User.Username() != "" {
		a.user = u.User.Username()
		password, _ = u.User.Password()
	}
	switch login := strings.ToUpper(o.login); login {
	case "", "PLAIN":
		a.sasl = []amqp.Authentication{&amqp.PlainAuth{Username: a.user, Password: password}}
	case "AMQPLAIN":
		a.sasl = []amqp.Authentication{&amqp.AMQPlainAuth{Username: a.user, Password: password}}
	case "EXTERNAL":
		a.sasl = []amqp.Authentication{&amqp.ExternalAuth{}}
	default:
		return nil, fmt.Errorf("login_method is %q: use PLAIN, AMQPLAIN or EXTERNAL", login)
	}
	return a, nil
}
