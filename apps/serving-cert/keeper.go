package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

const (
	// backdate is how long before it is issued a certificate starts to be valid,
	// for clients whose clocks are behind.
	backdate = time.Minute
	// retryDelay is the pause after a certificate could not be issued.
	retryDelay = 5 * time.Second
	// lookAgain is how often the clock is looked at, at least: timers stand still
	// while a machine sleeps, and certificates age.
	lookAgain = time.Minute
)

type keeper struct {
	settings
	log  *slog.Logger
	last atomic.Pointer[x509.Certificate] // nil until the first is written
}

// ready returns nil while the server has a certificate that is valid.
func (k *keeper) ready() error {
	switch last := k.last.Load(); {
	case last == nil:
		return errors.New("no certificate has been issued yet")
	case time.Now().After(last.NotAfter):
		return fmt.Errorf("the certificate has expired at %s", last.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// run issues a certificate at once, and the next when a third of the life of the
// last one remains, until ctx ends. One that cannot be issued is tried again: an
// authority may come late, and may be set right.
func (k *keeper) run(ctx context.Context) error {
	var due time.Time
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if time.Until(due) <= 0 {
			issued, err := k.issue()
			if err != nil {
				k.log.ErrorContext(ctx, "issue certificate", "error", err, "retry_in", retryDelay)
				timer.Reset(retryDelay)
				continue
			}
			k.last.Store(issued)
			// An authority that is about to end shortens lives, but none to less
			// than a pause. NotAfter has no monotonic reading, so that due is a time
			// of the clock on the wall.
			due = issued.NotAfter.Add(-time.Until(issued.NotAfter) / 3)
			if time.Until(due) < retryDelay {
				due = time.Now().Round(0).Add(retryDelay)
			}
			k.log.InfoContext(ctx, "issued certificate", "serial", fmt.Sprintf("%x", issued.SerialNumber), "not_after", issued.NotAfter, "next", due)
		}
		timer.Reset(pause(time.Until(due)))
	}
}

// pause is how long to wait for what is that far away.
func pause(until time.Duration) time.Duration { return min(until, lookAgain) }

// issue writes a new certificate with a new key. The authority is read again.
func (k *keeper) issue() (*x509.Certificate, error) {
	authority, err := tls.LoadX509KeyPair(k.caCertificate, k.caKey)
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	now := time.Now()
	switch end := authority.Leaf.NotAfter; {
	case !authority.Leaf.IsCA:
		return nil, errors.New("the certificate of the authority may not sign others")
	case now.After(end):
		return nil, fmt.Errorf("the authority has expired at %s", end.Format(time.RFC3339))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	// The serial number is random, as crypto/x509 makes it where there is none.
	template := &x509.Certificate{
		DNSNames:    k.names.dns,
		IPAddresses: k.names.ips,
		NotBefore:   now.Add(-backdate),
		NotAfter:    earliest(now.Add(k.ttl), authority.Leaf.NotAfter),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority.Leaf, key.Public(), authority.PrivateKey)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})...)
	if err := replace(k.out, text); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// replace gives the file a new content at once: whoever opens it reads the old
// one or the new one, whole. Certificate and key are in one file for the same
// reason: of two, one would be new before the other. The folder is in memory, so
// that nothing is to be synced. The group may read: the server is another user.
func replace(path string, content []byte) error {
	next := path + ".next"
	file, err := os.OpenFile(next, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err := errors.Join(err, file.Chmod(0o640), file.Close()); err != nil {
		return err
	}
	return os.Rename(next, path)
}
