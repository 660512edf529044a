package redisbroker_test

import (
	"context"
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
	"github.com/lovage-go/lovage/internal/testenv"
)

// certificate writes a self-signed certificate for loopback and its key.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// passes sends a message through a broker, an idle wait included.
func passes(t *testing.T, c broker.Conn) {
	t.Helper()
	cs := consume(t, c, "q")
	idle, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if ds, _ := cs.Claim(idle, 1); len(ds) > 0 {
		t.Fatal("the queue is not empty")
	}
	if err := c.Publish(t.Context(), task("q", "a")); err != nil {
		t.Fatal(err)
	}
	ds, err := cs.Claim(limit(t), 1)
	if err != nil || len(ds) != 1 {
		t.Fatalf("claimed %d, %v", len(ds), err)
	}
	if err := cs.Settle(t.Context(), broker.Settlement{Delivery: &ds[0]}); err != nil {
		t.Error(err)
	}
	if err := cs.Close(); err != nil {
		t.Error(err)
	}
}

// TestTLSAndACL: an encrypted connection to a server that knows its users.
func TestTLSAndACL(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	port := testenv.FreePort(t)
	testenv.PrivateRedis(t, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert, "--tls-auth-clients", "no",
		"--user", "default", "off", "--user", "worker", "on", ">p@ss", "~*", "&*", "+@all")
	at := "127.0.0.1:" + port + "/3?ssl_cert_reqs=required"
	c := open(t, "rediss://worker:p%40ss@"+at+"&ssl_ca_certs="+cert, nil)
	defer c.Close()
	passes(t, c)
	named := open(t, "redis://127.0.0.1/4", map[string]any{"port": port, "username": "worker", "password": "p@ss",
		"ssl": map[string]any{"ssl_cert_reqs": "CERT_REQUIRED", "ssl_ca_certs": cert}})
	defer named.Close()
	passes(t, named)
	for url, says := range map[string]string{
		"rediss://worker:p%40ss@" + at:                          "certificate",
		"rediss://worker:wrong@" + at + "&ssl_ca_certs=" + cert: "WRONGPASS",
		"rediss://" + at + "&ssl_ca_certs=" + cert:              "NOAUTH",
	} {
		_, err := broker.Open(limit(t), broker.Config{URL: url})
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "p%40ss") {
			t.Errorf("%s: %v, want an error that says %q and no password", broker.Redact(url), err, says)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	testenv.PrivateRedis(t, "--unixsocket", socket)
	c := open(t, "redis+socket://"+socket+"?virtual_host=2", nil)
	defer c.Close()
	passes(t, c)
}

// TestSentinelFailover: the master dies, the sentinel makes a replica the master,
// and the same connection goes on there.
func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	url, master := testenv.Sentinel(t, "main")
	c := open(t, url, map[string]any{"master_name": "main", "socket_timeout": 3})
	defer c.Close()
	passes(t, c)
	cs := consume(t, c, "q")
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	master.Stop(t)
	start := time.Now()
	for {
		if err := c.Publish(ctx, task("q", "after")); err == nil {
			break
		} else if !broker.Retryable(err) {
			t.Fatal(err)
		}
		<-tick.C
	}
	for {
		ds, err := cs.Claim(ctx, 1)
		if broker.Retryable(err) {
			<-tick.C
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := cs.Settle(ctx, broker.Settlement{Delivery: &ds[0]}); err != nil {
			t.Error(err)
		}
		break
	}
	t.Logf("working on the new master %v after the death of the old", time.Since(start).Round(time.Millisecond))
}
