package redisconn

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/lovage-go/lovage/internal/tlsurl"
	"github.com/lovage-go/lovage/internal/transport"
	"github.com/redis/rueidis"
)

// ParseURL reads one of Celery's Redis URLs:
//
//	redis://[user:password@]host[:port][/db]
//	rediss://...?ssl_cert_reqs=required&ssl_ca_certs=...&ssl_certfile=...&ssl_keyfile=...
//	redis+socket:///path/to/socket?virtual_host=db, socket://... for results
//	sentinel://[:password@]host:port/db;sentinel://...  with the option master_name
//	rediscluster://[user:password@]host:port;host:port;...  also redis+cluster, and rediss+cluster with TLS
//
// What a URL leaves out the options host, port, db, username and password give,
// and ssl (true, or a map; see [tlsurl.Wanted]) makes redis:// as rediss://.
// A cluster is found by any of its nodes and has no database but 0. The id names
// the server and database, for finding out whether a broker and a backend are the
// same store.
func ParseURL(raw string, o *transport.Options) (opt rueidis.ClientOption, id string, err error) {
	if o == nil {
		o = transport.Read(nil)
	}
	parts := strings.Split(raw, ";")
	scheme, _, _ := strings.Cut(raw, ":")
	if len(parts) > 1 && scheme != "sentinel" && !IsCluster(scheme) {
		return opt, "", errors.New("several Redis URLs in one are for sentinel:// and rediscluster:// alone: name one server, the sentinels that know it, or nodes of one cluster")
	}
	var ids []string
	for i, part := range parts {
		if part = strings.TrimSpace(part); !strings.Contains(part, "://") {
			part = scheme + "://" + part
		}
		u, err := url.Parse(part)
		if err != nil {
			var ue *url.Error // its text has the URL, password and all
			if errors.As(err, &ue) {
				err = ue.Err
			}
			return opt, "", fmt.Errorf("redis URL number %d: %w", i+1, err)
		}
		if err := addURL(&opt, u, o, i == 0); err != nil {
			return opt, "", err
		}
	}
	switch {
	case IsCluster(scheme):
		if opt.SelectDB != 0 {
			return opt, "", fmt.Errorf("a Redis Cluster has only database 0, the URL names %d: part applications by the transport option global_keyprefix", opt.SelectDB)
		}
		ids = append(ids, "cluster")
	case scheme == "sentinel":
		name := o.Text("master_name", "")
		if name == "" {
			return opt, "", errors.New(`a sentinel:// URL needs the transport option master_name, the name that the sentinels know the master by`)
		}
		opt.Sentinel = rueidis.SentinelOption{MasterSet: name, Dialer: opt.Dialer}
		kw := o.Sub("sentinel_kwargs")
		opt.Sentinel.Password, opt.Sentinel.Username = kw.Text("password", ""), kw.Text("username", "")
		if err := kw.Err(); err != nil {
			return opt, "", fmt.Errorf("sentinel_kwargs: %w", err)
		}
		ids = append(ids, name)
	default:
		opt.ForceSingleClient = true
	}
	ids = append(ids, opt.InitAddress...)
	return opt, "redis " + strings.Join(ids, ",") + "/" + strconv.Itoa(opt.SelectDB), nil
}

// IsCluster tells whether URLs of a scheme name nodes of a cluster.
func IsCluster(scheme string) bool {
	return scheme == "rediscluster" || scheme == "redis+cluster" || scheme == "rediss+cluster"
}

func addURL(opt *rueidis.ClientOption, u *url.URL, o *transport.Options, first bool) (err error) {
	q := u.Query()
	db := strings.Trim(u.Path, "/")
	switch u.Scheme {
	case "redis", "rediss", "sentinel", "rediscluster", "redis+cluster", "rediss+cluster":
		port := o.Whole("port", 6379)
		if u.Scheme == "sentinel" {
			port = 26379
		}
		host := cmp.Or(u.Hostname(), o.Text("host", ""), "localhost")
		opt.InitAddress = append(opt.InitAddress, net.JoinHostPort(host, cmp.Or(u.Port(), strconv.Itoa(port))))
	case "redis+socket", "socket":
		opt.InitAddress = []string{u.Path}
		opt.DialCtxFn = dialSocket
		db = ""
	default:
		return fmt.Errorf("scheme %q is none of Redis: use redis, rediss, redis+socket, sentinel or rediscluster", u.Scheme)
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
	if n := o.Whole("db", 0); db == "" && n != 0 {
		db = strconv.Itoa(n)
	}
	if db != "" {
		n, err := strconv.Atoi(db)
		if err != nil || n < 0 {
			return fmt.Errorf("the path of a Redis URL is the number of a database, 0 if left out; got %q", db)
		}
		opt.SelectDB = n
	}
	opt.Username, opt.Password = o.Text("username", ""), o.Text("password", "")
	if u.User != nil {
		opt.Username = u.User.Username()
		opt.Password, _ = u.User.Password()
	}
	host := cmp.Or(u.Hostname(), o.Text("host", ""), "localhost")
	if IsCluster(u.Scheme) {
		host = "" // each node by the name that the cluster gives it
	}
	if err = o.Err(); err == nil {
		opt.TLSConfig, err = tlsurl.Wanted(strings.HasPrefix(u.Scheme, "rediss"), o.Value("ssl"), q, host)
	}
	return err
}
