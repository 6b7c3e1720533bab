package lab_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

const ownHost = "federation.onprem.company.com"

// certified is a company with a serving certificate of the person's own, of files in a
// folder.
func certified(dir string) labFile {
	return company(with("onprem", "upstreamAuthority: disk, bundleEndpoint: {profile: https_web, host: "+ownHost+", httpsWeb: {servingCert: {externalSecretRef: federation-tls, "+
		"cert: '"+filepath.Join(dir, "tls.crt")+"', key: '"+filepath.Join(dir, "tls.key")+"', ca: '"+filepath.Join(dir, "ca.crt")+"'}}}"))
}

// issue writes a certificate for a host into a folder, of a CA that is made for it.
func issue(t *testing.T, dir, host string, life time.Duration) {
	t.Helper()
	root, err := pki.NewRoot("CA of the person", 10*365*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key, err := root.ServingCert([]string{host}, nil, life)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"tls.crt": certificate, "tls.key": key, "ca.crt": root.CertificatePEM()} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOwnServingCertificate: up brings the files into a Secret, which peers verify by the
// person's CA, and again when they have changed; a lab whose file no longer has it loses it.
func TestOwnServingCertificate(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		issue(t, dir, ownHost, 24*time.Hour)
		w := newWorld(t)
		d := w.driver(t)
		top := certified(dir).topology(t)
		if err := w.up(t, d, top); err != nil {
			t.Fatal(err)
		}
		well := func(top topology.Topology) {
			t.Helper()
			if s, err := d.Status(t.Context(), top); err != nil || !s.Well {
				t.Errorf("error %v, problems:\n%s", err, strings.Join(problems(s), "\n"))
			}
			w.wantNoop(t, d, top)
		}
		well(top)
		var n *node
		for name, other := range w.nodes {
			if name.cluster == "onprem" {
				n = other
			}
		}
		secret := access.ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: topology.ServerNamespace, Name: "federation-tls"}
		if files := n.secret(spire.EndpointCASecret); len(files[spire.SecretKey]) > 0 || len(files[spire.SecretCertificate]) == 0 {
			t.Errorf("the Secret with the CA has %d bytes of key", len(files[spire.SecretKey]))
		}

		// Another certificate in the files, of another CA.
		before := n.objects[secret]
		issue(t, dir, ownHost, 48*time.Hour)
		if err := w.up(t, d, top); err != nil {
			t.Fatal(err)
		}
		if n.objects[secret] == before {
			t.Error("the Secret is as it was")
		}
		well(top)

		// Somebody empties the Secret.
		n.objects[secret] = string(encode(map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"namespace": secret.Namespace, "name": secret.Name}}))
		if err := w.up(t, d, top); err != nil {
			t.Fatal(err)
		}
		well(top)

		// The lab issues it again.
		plain := company().topology(t)
		if err := w.up(t, d, plain); err != nil {
			t.Fatal(err)
		}
		if n.objects[secret] != "" {
			t.Errorf("there is still %s", n.objects[secret])
		}
		well(plain)
	})
}

// TestOwnServingCertificateThatIsWrong: what is wrong with the files is told before anything is
// made, with the field, the file and what would be right.
func TestOwnServingCertificateThatIsWrong(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(f certificateFiles)
		want  string
	}{
		"no file": {func(f certificateFiles) {
			if err := os.Remove(filepath.Join(f.dir, "tls.key")); err != nil {
				f.Fatal(err)
			}
		}, "key: open "},
		"no certificate": {func(f certificateFiles) { write(f.T, f.dir, "tls.crt", "not PEM") }, "want certificates in PEM, that of the endpoint first"},
		"no CA":          {func(f certificateFiles) { write(f.T, f.dir, "ca.crt", "") }, "want the certificate of the CA, in PEM"},
		"too large":      {func(f certificateFiles) { write(f.T, f.dir, "ca.crt", strings.Repeat("#", 2<<20)) }, "has more than 1048576 bytes"},
		"another name":   {func(f certificateFiles) { issue(f.T, f.dir, "another.company.com", time.Hour) }, "want one for the name in bundleEndpoint.host"},
		"it has expired": {func(f certificateFiles) { issue(f.T, f.dir, ownHost, time.Minute); <-time.After(time.Hour) }, "want one that is valid"},
		"of another CA": {func(f certificateFiles) {
			keep(f.T, f.dir, "ca.crt")
			issue(f.T, f.dir, ownHost, time.Hour)
			restore(f.T, f.dir, "ca.crt")
		}, "does not verify it"},
		"of another key": {func(f certificateFiles) {
			keep(f.T, f.dir, "tls.key")
			issue(f.T, f.dir, ownHost, time.Hour)
			restore(f.T, f.dir, "tls.key")
		}, "want the private key of the certificate in"},
		"a folder": {func(f certificateFiles) { remake(f.T, f.dir, "tls.crt") }, "is a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				issue(t, dir, ownHost, 24*time.Hour)
				tt.spoil(certificateFiles{t, dir})
				w := newWorld(t)
				err := w.up(t, w.driver(t), certified(dir).topology(t))
				if err == nil || !strings.Contains(err.Error(), "serving certificate of onprem.company.com: ") || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want one with %q", err, tt.want)
				}
				if len(w.nodes) > 0 {
					t.Error("clusters were made")
				}
			})
		})
	}
}

// certificateFiles is a folder with the files of a serving certificate, in a test.
type certificateFiles struct {
	*testing.T
	dir string
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func keep(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, name+".kept")); err != nil {
		t.Fatal(err)
	}
}

func restore(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Rename(filepath.Join(dir, name+".kept"), filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func remake(t *testing.T, dir, name string) {
	t.Helper()
	keep(t, dir, name)
	if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
		t.Fatal(err)
	}
}
