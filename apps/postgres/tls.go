package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// The files of -tls-dir.
const (
	certificateFile = "svid.pem"
	keyFile         = "key.pem"
	pidFile         = "postgres.pid"
)

// awaitCertificate waits until there is a certificate with its key: who keeps them may have
// none yet. It waits as long as it is let.
func (s server) awaitCertificate(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	last := ""
	for {
		_, err := tls.LoadX509KeyPair(filepath.Join(s.tls, certificateFile), filepath.Join(s.tls, keyFile))
		if err == nil {
			return nil
		}
		if now := err.Error(); now != last {
			last = now
			s.log.InfoContext(ctx, "waiting for a certificate", "folder", s.tls, "seen", now)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for a certificate in %s: %w; last seen: %s", s.tls, context.Cause(ctx), last)
		}
	}
}

// tellPID writes down whom to send SIGHUP when the certificate is new. PostgreSQL's own
// file, postmaster.pid, has more lines than programs such as spiffe-helper read. One that
// reads a half-written number tries again.
func (s server) tellPID(pid int) error {
	if s.tls == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(s.tls, pidFile), []byte(strconv.Itoa(pid)), 0o644)
}
