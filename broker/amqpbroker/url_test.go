package amqpbroker_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lovage-go/lovage/broker"
	"github.com/lovage-go/lovage/broker/amqpbroker"
	"github.com/lovage-go/lovage/internal/testenv"
)

// TestURLs: the forms of Celery's URLs that name the virtual host "/".
func TestURLs(t *testing.T) {
	t.Parallel()
	addr := testenv.RabbitMQ(t).Addr
	var store string
	for _, url := range []string{"amqp://" + addr, "amqp://" + addr + "/", "amqp://guest:guest@" + addr + "//", "pyamqp://guest:guest@" + addr + "/%2F", "librabbitmq://" + addr + "//"} {
		b, err := broker.Open(t.Context(), broker.Config{URL: url})
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		c := b.(*amqpbroker.Conn)
		if store == "" {
			store = c.StoreID()
		} else if c.StoreID() != store {
			t.Errorf("%s is the store %q, want %q", url, c.StoreID(), store)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestOptionsInTheURL: those of the query come before the settings.
func TestOptionsInTheURL(t *testing.T) {
	t.Parallel()
	addr := testenv.RabbitMQ(t).Addr
	cfg := broker.Config{URL: "amqp://" + addr + "?heartbeat=3&connect_timeout=20&login_method=amqplain", Options: map[string]any{"login_method": "EXTERNAL"}}
	b, err := broker.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	cfg.URL = "amqp://" + addr + "?heartbeat=soon"
	if _, err := broker.Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "heartbeat: want a number of seconds") {
		t.Errorf("heartbeat=soon: %v", err)
	}
	cfg.URL = "amqp://" + addr + "?ssl=maybe"
	if _, err := broker.Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "true and false") {
		t.Errorf("ssl=maybe: %v", err)
	}
}

// certificates writes those of an authority and, signed by it, of one who is both
// the server on loopback and the client guest, with its key.
func certificates(t *testing.T) (ca, cert, key string) {
	t.Helper()
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true}
	}
	newKey := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	authority, leaf := template(1, "authority"), template(2, "guest")
	authority.IsCA, authority.KeyUsage = true, x509.KeyUsageCertSign
	leaf.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	caKey, leafKey := newKey(), newKey()
	caRaw, err := x509.CreateCertificate(rand.Reader, authority, authority, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.CreateCertificate(rand.Reader, leaf, authority, &leafKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, raw []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	return write("ca.pem", "CERTIFICATE", caRaw), write("cert.pem", "CERTIFICATE", raw), write("key.pem", "PRIVATE KEY", private)
}

// TestTLS: an encrypted connection, by password and by the client's certificate.
func TestTLS(t *testing.T) {
	t.Parallel()
	ca, cert, key := certificates(t)
	port := testenv.FreePort(t)
	testenv.PrivateRabbitMQ(t, "listeners.ssl.default = 127.0.0.1:"+port, "ssl_options.cacertfile = "+ca, "ssl_options.certfile = "+cert, "ssl_options.keyfile = "+key,
		"ssl_options.verify = verify_peer", "ssl_options.fail_if_no_peer_cert = false",
		"auth_mechanisms.1 = PLAIN", "auth_mechanisms.2 = AMQPLAIN", "auth_mechanisms.3 = EXTERNAL", "ssl_cert_login_from = common_name")
	at := "127.0.0.1:" + port + "//?ssl_cert_reqs=required"
	known := at + "&ssl_ca_certs=" + ca
	for name, url := range map[string]string{
		"Password": "amqps://guest:guest@" + known,
		"AMQPLAIN": "amqps://guest:guest@" + known + "&login_method=AMQPLAIN",
		"External": "amqps://" + known + "&login_method=EXTERNAL&ssl_certfile=" + cert + "&ssl_keyfile=" + key,
	} {
		s := newSite(t, url, nil)
		s.publish("over TLS")
		d := s.claim(limit(t, patience))
		if err := s.settle(d, broker.Ack); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What broker_use_ssl and broker_login_method say, in Python's names, makes
	// amqp:// the same.
	s := newSite(t, "amqp://127.0.0.1:"+port+"//", map[string]any{"login_method": "EXTERNAL",
		"ssl": map[string]any{"cert_reqs": 2, "ca_certs": ca, "certfile": cert, "keyfile": key}})
	s.publish("over TLS")
	if err := s.settle(s.claim(limit(t, patience)), broker.Ack); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct{ url, says string }{
		"UnknownAuthority": {"amqps://guest:guest@" + at, "certificate"},
		"WrongPassword":    {"amqps://guest:secret@" + known, "password"},
	} {
		_, err := amqpbroker.Open(limit(t, patience), broker.Config{URL: c.url})
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "secret") || broker.Retryable(err) {
			t.Errorf("%s: %v, want an error that says %q, no password, and is final", name, err, c.says)
		}
	}
}
