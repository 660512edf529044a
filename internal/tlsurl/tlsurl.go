// Package tlsurl reads the ssl_ parameters of Celery's URLs, and the maps of
// broker_use_ssl and redis_backend_use_ssl.
package tlsurl

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Wanted makes the TLS configuration of a connection to host, or nil for plain
// text: TLS is used if the URL's scheme asks for it, or the option. That is true,
// or a map with the parameters of [Config], with or without ssl_ before their
// names. A parameter of the URL wins.
func Wanted(secure bool, option any, q url.Values, host string) (*tls.Config, error) {
	given, on, err := parameters(option)
	if err != nil {
		return nil, err
	}
	if !secure && !on {
		return nil, nil
	}
	maps.Copy(given, q)
	return Config(given, host)
}

var names = []string{"ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_keyfile", "server_hostname"}

// requirements are the numbers of Python's module ssl.
var requirements = map[string]string{"0": "none", "1": "optional", "2": "required"}

func parameters(option any) (q url.Values, on bool, err error) {
	q = url.Values{}
	switch o := option.(type) {
	case nil:
		return q, false, nil
	case bool:
		return q, o, nil
	case string: // of a URL or the environment
		on, err := strconv.ParseBool(o)
		if err != nil {
			return nil, false, errors.New("the TLS option is a text other than true and false")
		}
		return q, on, nil
	case map[string]any:
		for name, v := range o {
			if !slices.Contains(names, name) {
				name = "ssl_" + name
			}
			if !slices.Contains(names, name) {
				return nil, false, fmt.Errorf("there is no TLS option %q here: use %s", strings.TrimPrefix(name, "ssl_"), strings.Join(names, ", "))
			}
			if v == nil {
				continue
			}
			text := fmt.Sprint(v)
			if name == "ssl_cert_reqs" {
				text = cmp.Or(requirements[text], text)
			}
			q.Set(name, text)
		}
		return q, true, nil
	}
	return nil, false, fmt.Errorf("the TLS option is a value of type %T: use true, or a map of %s", option, strings.Join(names, ", "))
}

// Config makes the TLS configuration of a connection to host:
//
//	ssl_cert_reqs    required (default): the certificate is checked; none or optional: it is not
//	ssl_ca_certs     file of the authorities, in PEM form; the system's are the default
//	ssl_certfile     file of the client's certificate, and ssl_keyfile its key if that is elsewhere
//	server_hostname  the name in the server's certificate, if it is not host
func Config(q url.Values, host string) (*tls.Config, error) {
	cfg := &tls.Config{ServerName: cmp.Or(q.Get("server_hostname"), host), MinVersion: tls.VersionTLS12}
	switch reqs := strings.TrimPrefix(strings.ToLower(q.Get("ssl_cert_reqs")), "cert_"); reqs {
	case "", "required":
	case "none", "optional":
		cfg.InsecureSkipVerify = true
	default:
		return nil, fmt.Errorf("ssl_cert_reqs is %q: use required or none", reqs)
	}
	if file := q.Get("ssl_ca_certs"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("ssl_ca_certs: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ssl_ca_certs: %s has no certificate in PEM form", file)
		}
	}
	if file := q.Get("ssl_certfile"); file != "" {
		pair, err := tls.LoadX509KeyPair(file, cmp.Or(q.Get("ssl_keyfile"), file))
		if err != nil {
			return nil, fmt.Errorf("ssl_certfile: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}
