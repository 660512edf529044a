package redisconn

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// ParseURL reads one of Celery's Redis URLs:
//
//	redis://[user:password@]host[:port][/db]
//	rediss://...?ssl_cert_reqs=required&ssl_ca_certs=...&ssl_certfile=...&ssl_keyfile=...
//	redis+socket:///path/to/socket?virtual_host=db, socket://... for results
//	sentinel://[:password@]host:port/db;sentinel://...  with the option master_name
//
// The id names the server and database, for finding out whether a broker and a
// backend are the same store.
func ParseURL(raw string, o Options) (opt rueidis.ClientOption, id string, err error) {
	parts := strings.Split(raw, ";")
	if len(parts) > 1 && !strings.HasPrefix(parts[0], "sentinel:") {
		return opt, "", errors.New("several Redis URLs in one are for sentinel:// alone: name one server, or the sentinels that know it")
	}
	var ids []string
	for i, part := range parts {
		u, err := url.Parse(strings.TrimSpace(part))
		if err != nil {
			var ue *url.Error // its text has the URL, password and all
			if errors.As(err, &ue) {
				err = ue.Err
			}
			return opt, "", fmt.Errorf("redis URL number %d: %w", i+1, err)
		}
		if err := addURL(&opt, u, i == 0); err != nil {
			return opt, "", err
		}
	}
	switch {
	case strings.HasPrefix(raw, "sentinel:"):
		name := o.String("master_name", "")
		if name == "" {
			return opt, "", errors.New(`a sentinel:// URL needs the transport option master_name, the name that the sentinels know the master by`)
		}
		opt.Sentinel = rueidis.SentinelOption{MasterSet: name, Dialer: opt.Dialer}
		if kw, ok := o["sentinel_kwargs"].(map[string]any); ok {
			opt.Sentinel.Password = Options(kw).String("password", "")
			opt.Sentinel.Username = Options(kw).String("username", "")
		}
		ids = append(ids, name)
	default:
		opt.ForceSingleClient = true
	}
	ids = append(ids, opt.InitAddress...)
	return opt, "redis " + strings.Join(ids, ",") + "/" + strconv.Itoa(opt.SelectDB), nil
}

func addURL(opt *rueidis.ClientOption, u *url.URL, first bool) error {
	q := u.Query()
	db := strings.Trim(u.Path, "/")
	switch u.Scheme {
	case "redis", "rediss", "sentinel":
		port := "6379"
		if u.Scheme == "sentinel" {
			port = "26379"
		}
		host := u.Hostname()
		if host == "" {
			host = "localhost"
		}
		if u.Port() != "" {
			port = u.Port()
		}
		opt.InitAddress = append(opt.InitAddress, net.JoinHostPort(host, port))
	case "redis+socket", "socket":
		opt.InitAddress = []string{u.Path}
		opt.DialCtxFn = dialSocket
		db = ""
	default:
		return fmt.Errorf("scheme %q is none of Redis: use redis, rediss, redis+socket or sentinel", u.Scheme)
	}
	if !first {
		return nil
	}
	if v := q.Get("virtual_host"); v != "" {
		db = strings.Trim(v, "/")
	}
	if v := q.Get("db"); v != "" {
		db = v
	}
	if db != "" {
		n, err := strconv.Atoi(db)
		if err != nil || n < 0 {
			return fmt.Errorf("the path of a Redis URL is the number of a database, 0 if left out; got %q", db)
		}
		opt.SelectDB = n
	}
	if u.User != nil {
		opt.Username = u.User.Username()
		opt.Password, _ = u.User.Password()
	}
	if u.Scheme == "rediss" {
		cfg, err := tlsConfig(q, u.Hostname())
		if err != nil {
			return err
		}
		opt.TLSConfig = cfg
	}
	return nil
}

// tlsConfig reads Celery's ssl_ parameters. The certificate is checked unless
// ssl_cert_reqs is none.
func tlsConfig(q url.Values, host string) (*tls.Config, error) {
	cfg := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
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
		key := q.Get("ssl_keyfile")
		if key == "" {
			key = file
		}
		pair, err := tls.LoadX509KeyPair(file, key)
		if err != nil {
			return nil, fmt.Errorf("ssl_certfile: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}
