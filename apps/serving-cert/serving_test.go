package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
)

// ca is an authority in files, and the folder that the certificate goes to.
type ca struct {
	certificate *x509.Certificate
	settings
}

// newCA makes an authority with that life, in a folder of its own.
func newCA(t *testing.T, life time.Duration) *ca {
	t.Helper()
	dir := t.TempDir()
	c := &ca{settings: settings{
		caCertificate: filepath.Join(dir, "tls.crt"), caKey: filepath.Join(dir, "tls.key"), out: filepath.Join(dir, "serving.pem"),
		names: names{dns: []string{"bundle.cluster1.com"}, ips: []net.IP{net.IPv4(10, 192, 1, 1)}}, ttl: 3 * time.Hour, health: "127.0.0.1:0",
	}}
	c.renew(t, life)
	return c
}

// renew replaces the authority.
func (c *ca) renew(t *testing.T, life time.Duration) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Web CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life), KeyUsage: x509.KeyUsageCertSign,
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if c.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{
		c.caCertificate: {Type: "CERTIFICATE", Bytes: der},
		c.caKey:         {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// served reads the certificate as a server does, from one file for both parts.
func (c *ca) served(t *testing.T) *x509.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(c.out, c.out)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

// verify returns what a client says to the certificate that knows the authority
// alone.
func (c *ca) verify(certificate *x509.Certificate, name string) error {
	roots := x509.NewCertPool()
	roots.AddCert(c.certificate)
	_, err := certificate.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: time.Now()})
	return err
}

func (c *ca) keeper(log io.Writer) *keeper {
	return &keeper{settings: c.settings, log: slog.New(slog.NewTextHandler(log, nil))}
}

// start runs a keeper inside of a bubble, and returns once it waits.
func start(t *testing.T, k *keeper) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- k.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
}

// pass lets time pass inside of a bubble.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestCertificateIsForItsNames(t *testing.T) {
	c := newCA(t, 24*time.Hour)
	if _, err := c.keeper(io.Discard).issue(); err != nil {
		t.Fatal(err)
	}
	leaf := c.served(t)
	for _, name := range []string{"bundle.cluster1.com", "10.192.1.1"} {
		if err := c.verify(leaf, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	var misnamed x509.HostnameError
	if err := c.verify(leaf, "10.192.1.2"); !errors.As(err, &misnamed) {
		t.Errorf("another address: %v, want it refused for its name", err)
	}
	found, err := os.Stat(c.out)
	if err != nil {
		t.Fatal(err)
	}
	if mode := found.Mode().Perm(); mode != 0o640 {
		t.Errorf("file has mode %o, want one that the group may read and nobody else", mode)
	}
}

func TestRenewsWhenAThirdRemains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCA(t, 24*time.Hour)
		k := c.keeper(io.Discard)
		start(t, k)
		first := c.served(t)
		if err := k.ready(); err != nil {
			t.Error(err)
		}
		pass(2*time.Hour - time.Minute)
		if now := c.served(t); !now.Equal(first) {
			t.Error("renewed while more than a third of its life remained")
		}
		pass(2 * time.Minute)
		second := c.served(t)
		if second.Equal(first) || first.PublicKey.(*ecdsa.PublicKey).Equal(second.PublicKey) {
			t.Fatal("not renewed, with a key of its own, when a third of its life remained")
		}
		if left := time.Until(second.NotAfter); left < 3*time.Hour-3*time.Minute {
			t.Errorf("the new one lives for %s, want about 3h", left)
		}
		if err := c.verify(second, "10.192.1.1"); err != nil {
			t.Error(err)
		}
	})
}

func TestTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCA(t, 24*time.Hour)
		if err := os.Remove(c.caKey); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		k := c.keeper(&log)
		start(t, k)
		if err := k.ready(); err == nil || err.Error() != "no certificate has been issued yet" {
			t.Errorf("ready = %v without a certificate", err)
		}
		if !strings.Contains(log.String(), "read authority: open "+c.caKey) {
			t.Errorf("the log does not say what is missing:\n%s", log.String())
		}
		c.renew(t, 24*time.Hour)
		pass(retryDelay)
		if err := k.ready(); err != nil {
			t.Fatal(err)
		}

		// One that cannot be renewed is served until the end, and that is told.
		if err := os.Remove(c.caKey); err != nil {
			t.Fatal(err)
		}
		last := c.served(t)
		pass(c.ttl + time.Second)
		if !c.served(t).Equal(last) {
			t.Error("renewed without an authority")
		}
		if err := k.ready(); err == nil || !strings.HasPrefix(err.Error(), "the certificate has expired at ") {
			t.Errorf("ready = %v with a certificate that has expired", err)
		}
		c.renew(t, 24*time.Hour)
		pass(retryDelay)
		if err := c.verify(c.served(t), "10.192.1.1"); err != nil || k.ready() != nil {
			t.Errorf("under an authority that came back: %v, ready %v", err, k.ready())
		}
	})
}

func TestDoesNotOutliveItsAuthority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCA(t, time.Hour)
		var log bytes.Buffer
		k := c.keeper(&log)
		start(t, k)
		if end := c.served(t).NotAfter; !end.Equal(c.certificate.NotAfter) {
			t.Errorf("ends at %s, its authority at %s", end, c.certificate.NotAfter)
		}
		pass(time.Hour + 2*retryDelay)
		if !strings.Contains(log.String(), "the authority has expired at ") {
			t.Errorf("the log does not say that the authority has expired:\n%s", log.String())
		}
		// What remains is cut to a third again and again, but not for ever.
		if n := strings.Count(log.String(), "issued certificate"); n < 2 || n > 20 {
			t.Errorf("%d certificates issued", n)
		}
	})
}

// A timer stands still while the machine sleeps: none may be set for hours.
func TestClockIsLookedAtAgain(t *testing.T) {
	if near, far := pause(time.Second), pause(16*time.Hour); near != time.Second || far != time.Minute {
		t.Errorf("waits %s for what is a second away and %s for what is hours away", near, far)
	}
}

func TestRefusesAnAuthorityThatIsNone(t *testing.T) {
	c := newCA(t, 24*time.Hour)
	k := c.keeper(io.Discard)
	if _, err := k.issue(); err != nil {
		t.Fatal(err)
	}
	// What it has just issued may sign nothing.
	k.caCertificate, k.caKey = c.out, c.out
	k.out = filepath.Join(t.TempDir(), "serving.pem")
	if _, err := k.issue(); err == nil || err.Error() != "the certificate of the authority may not sign others" {
		t.Errorf("error = %v", err)
	}
}

// Whoever reads the file reads one certificate and its own key.
func TestFileIsWholeAtAnyTime(t *testing.T) {
	c := newCA(t, 24*time.Hour)
	k := c.keeper(io.Discard)
	if _, err := k.issue(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		var errs error
		for range 100 {
			_, err := k.issue()
			errs = errors.Join(errs, err)
		}
		ended <- errs
	}()
	for reads := 0; ; reads++ {
		text, err := os.ReadFile(c.out)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tls.X509KeyPair(text, text); err != nil {
			t.Fatalf("read %d: %v", reads, err)
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			if left, err := filepath.Glob(c.out + ".*"); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			return
		default:
		}
	}
}

func TestProgram(t *testing.T) {
	c := newCA(t, 24*time.Hour)
	address := apptest.Address(t)
	apptest.Run(t, func(ctx context.Context) error {
		return process.With(parse, run)(ctx, []string{
			"-ca-certificate=" + c.caCertificate, "-ca-key=" + c.caKey, "-out=" + c.out, "-ttl=1m", "-health-listen=" + address,
		}, func(name string) string {
			return map[string]string{"SERVING_CERT_NAMES": "10.192.1.1,bundle.cluster1.com"}[name]
		}, io.Discard)
	})
	apptest.Await(t, "an answer that it is ready", func() bool {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/readyz", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		return err == nil && response.Body.Close() == nil && response.StatusCode == http.StatusOK
	})
	leaf := c.served(t)
	for _, name := range []string{"10.192.1.1", "bundle.cluster1.com"} {
		if err := c.verify(leaf, name); err != nil {
			t.Error(err)
		}
	}
	if left := time.Until(leaf.NotAfter); left > time.Minute {
		t.Errorf("lives for %s, want a minute at most", left)
	}
}

func TestUsage(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"", "read flags: -names (or SERVING_CERT_NAMES) is empty: "},
		{"-names=10.192.1.1,", `read flags: invalid value "10.192.1.1," for flag -names: "" is no DNS name and no address`},
		{"-names=https://10.192.1.1", `read flags: invalid value "https://10.192.1.1" for flag -names: "https://10.192.1.1" is no DNS name and no address`},
		{"-names=a.test -ttl=9s", "read flags: -ttl is 9s: want at least 10s"},
		{"-names=a.test out", `read flags: unexpected argument "out"`},
	} {
		_, err := parse(strings.Fields(test.args), func(string) string { return "" }, io.Discard)
		var usage *process.UsageError
		if !errors.As(err, &usage) || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%q: error = %v, want %s", test.args, err, test.want)
		}
	}
}
