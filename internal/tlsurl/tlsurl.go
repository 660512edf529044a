// Package tlsurl reads the ssl_ parameters of Celery's URLs.
package tlsurl

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"strings"
)

// Config makes the TLS configuration of a connection to host:
//
//	ssl_cert_reqs    required (default): the certificate is checked; none or optional: it is not
//	ssl_ca_certs     file of the authorities, in PEM form; the system's are the default
//	ssl_certfile     file of the client's certificate, and ssl_keyfile its key if that is elsewhere
//	server_hostname  the name in the server's certificate, if it is not host
func Config(q url.Values, host string) (*tls.Config, error) {
	cfg := &tls.Config{ServerName: cmp.Or(q.Get("server_hostname"), host), MinVersion: tls.VersionTLS12}
	switch reqs := strings.ToLower(strings.TrimPrefix(q.Get("ssl_cert_reqs"), "CERT_")); reqs {
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
