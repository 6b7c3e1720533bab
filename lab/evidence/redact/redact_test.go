package redact

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// key is a private key as it may turn up.
type key struct {
	der []byte
	pem string
}

func newKey(kind string, der []byte, err error) key {
	if err != nil {
		panic(err) // a key that was just made always encodes
	}
	return key{der, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))}
}

// keys are one of each kind that SPIRE, Kubernetes or a person may use.
func keys(t *testing.T) map[string]key {
	t.Helper()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]key{}
	der, err := x509.MarshalPKCS8PrivateKey(ec)
	found["EC in PKCS #8"] = newKey("PRIVATE KEY", der, err)
	der, err = x509.MarshalECPrivateKey(ec)
	found["EC in SEC 1"] = newKey("EC PRIVATE KEY", der, err)
	found["RSA in PKCS #1"] = newKey("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey), nil)
	der, err = x509.MarshalPKCS8PrivateKey(rsaKey)
	found["RSA in PKCS #8"] = newKey("PRIVATE KEY", der, err)
	der, err = x509.MarshalPKCS8PrivateKey(ed)
	found["Ed25519 in PKCS #8"] = newKey("PRIVATE KEY", der, err)
	return found
}

// fragments are pieces of a key any of which would betray part of it: the
// lines of its PEM and of its base64, except short ends.
func (k key) fragments() []string {
	base := base64.StdEncoding.EncodeToString(k.der)
	twice := base64.StdEncoding.EncodeToString([]byte(k.pem))
	var all []string
	for _, text := range []string{base, twice} {
		for len(text) > 20 {
			all = append(all, text[:20])
			text = text[20:]
		}
	}
	return all
}

// prefixed puts what a container runtime writes before each line.
func prefixed(text string) string {
	var b strings.Builder
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		fmt.Fprintf(&b, "2026-01-02T03:04:%02dZ stdout F %s\n", i%60, line)
	}
	return b.String()
}

func textOf(text []byte) []byte {
	clean, err := Text(context.Background(), text)
	if err != nil {
		panic(err) // its context does not end
	}
	return clean
}

func TestTakesOutPrivateKeys(t *testing.T) {
	lines := func(text string) []string { return strings.SplitAfter(text, "\n") }
	shapes := map[string]func(key) string{
		"PEM":                         func(k key) string { return k.pem },
		"PEM twice":                   func(k key) string { return k.pem + "between\n" + k.pem },
		"PEM behind a log's prefixes": func(k key) string { return prefixed(k.pem) },
		"PEM with Windows' ends":      func(k key) string { return strings.ReplaceAll(k.pem, "\n", "\r\n") },
		"PEM in one line of JSON": func(k key) string {
			text, err := json.Marshal(map[string]string{"msg": "read " + k.pem})
			if err != nil {
				panic(err) // a string always encodes
			}
			return string(text) + "\n"
		},
		"PEM quoted twice":       func(k key) string { return fmt.Sprintf("%q\n", fmt.Sprintf("%q", k.pem)) },
		"PEM without its head":   func(k key) string { return strings.Join(lines(k.pem)[1:], "") },
		"PEM without its tail":   func(k key) string { all := lines(k.pem); return strings.Join(all[:len(all)-2], "") },
		"prefixed without head":  func(k key) string { return strings.Join(lines(prefixed(k.pem))[1:], "") },
		"prefixed without tail":  func(k key) string { all := lines(prefixed(k.pem)); return strings.Join(all[:len(all)-2], "") },
		"tail cut, then another": func(k key) string { all := lines(k.pem); return strings.Join(all[:len(all)-2], "") + k.pem },
		"DER in base64":          func(k key) string { return "got " + base64.StdEncoding.EncodeToString(k.der) + "\n" },
		"DER in base64 for URLs": func(k key) string { return "got " + base64.RawURLEncoding.EncodeToString(k.der) + "\n" },
		"DER in JSON, slashes escaped": func(k key) string {
			return `{"private":"` + strings.ReplaceAll(base64.StdEncoding.EncodeToString(k.der), "/", `\/`) + `"}` + "\n"
		},
		"a field of SPIRE's JSON": func(k key) string {
			return `{"private_key":"` + base64.StdEncoding.EncodeToString(k.der) + `"}` + "\n"
		},
		"a kubeconfig": func(k key) string {
			return "users:\n- name: x\n  user:\n    client-key-data: " + base64.StdEncoding.EncodeToString([]byte(k.pem)) + "\n"
		},
		"a kubeconfig in base64": func(k key) string {
			return "config: " + base64.StdEncoding.EncodeToString([]byte("client-key-data: "+base64.StdEncoding.EncodeToString([]byte(k.pem)))) + "\n"
		},
		"base64 of PEM, broken into lines": func(k key) string {
			return broken(base64.StdEncoding.EncodeToString([]byte(k.pem)), 76)
		},
		"base64 of DER, broken and prefixed": func(k key) string {
			return prefixed(broken(base64.StdEncoding.EncodeToString(k.der), 64))
		},
	}
	const before, after = "level=info msg=\"it starts.\"\n", "level=info msg=\"it goes on.\"\n"
	for kind, k := range keys(t) {
		for name, shape := range shapes {
			t.Run(kind+"/"+name, func(t *testing.T) {
				text := before + shape(k) + after
				got := string(textOf([]byte(text)))
				for _, fragment := range k.fragments() {
					if strings.Contains(got, fragment) {
						t.Errorf("%q is still in:\n%s\nof:\n%s", fragment, got, text)
						break
					}
				}
				if !strings.HasPrefix(got, before) || !strings.HasSuffix(got, after) {
					t.Errorf("more than the key is gone:\n%s", got)
				}
				if !strings.Contains(got, "[removed: ") {
					t.Errorf("nothing says that something was taken out:\n%s", got)
				}
				if again := string(textOf([]byte(got))); again != got {
					t.Errorf("a second time takes out more:\n%s\nthen:\n%s", got, again)
				}
			})
		}
	}
}

func broken(text string, width int) string {
	var b strings.Builder
	for len(text) > width {
		b.WriteString(text[:width] + "\n")
		text = text[width:]
	}
	return b.String() + text + "\n"
}

// A JWT that RFC 7515 gives as its first example (appendix A.1).
const token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9" +
	".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ" +
	".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

func TestTakesOutTokensAndPasswords(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"JWT":            {"svid " + token + " issued", "svid [removed: token] issued"},
		"JWT in JSON":    {`{"svid":"` + token + `"}`, `{"svid":"[removed: token]"}`},
		"JWE":            {token + ".a.b x", "[removed: token] x"},
		"bearer":         {"Authorization: Bearer abcdefgh.12345", "Authorization: [removed: secret]"},
		"basic":          {`"authorization": "Basic dXNlcjpwYXNz"`, `"authorization": "[removed: secret]"`},
		"bearer alone":   {"sent bearer 0123456789abcdef", "sent bearer [removed: token]"},
		"YAML":           {"    token: s3cr3t-enough\n    other: x", "    token: [removed: secret]\n    other: x"},
		"JSON":           {`{"password":"a \"quoted\" one","user":"x"}`, `{"password":"[removed: secret]","user":"x"}`},
		"log field":      {`level=info join_token=5ad0c1f2 node=x`, `level=info join_token=[removed: secret] node=x`},
		"after another":  {`error:password=hunter2`, `error:password=[removed: secret]`},
		"single quotes":  {`DB_PASSWORD='hunter2' next`, `DB_PASSWORD='[removed: secret]' next`},
		"a command line": {"postgres --password=hunter2 --db x", "postgres --password=[removed: secret] --db x"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := string(textOf([]byte(test.text))); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestLeavesWhatIsPublic(t *testing.T) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "cluster1.com"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<31, 0), IsCA: true,
	}
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"certificate":          string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})),
		"certificate in JSON":  `{"x5c":["` + base64.StdEncoding.EncodeToString(certificate) + `"]}`,
		"bundle with RSA keys": rsaBundle(t),
		"public key":           string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
		"a log of the broker":  `time=2026-01-02T03:04:05.678Z level=INFO msg="server authenticated" spiffe_id=spiffe://cluster1.com/server serial=7a1b authority=0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c`,
		"a volume":             "MountVolume.SetUp succeeded for volume \"kube-api-access-x7z\" (projected: token, ca)",
		"a flag":               `{"automountServiceAccountToken":false,"token":""}`,
		"words about a bearer": "the bearer of bad news",
		"a digest":             "image@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(textOf([]byte(text))); got != text {
				t.Errorf("got  %s\nwant %s", got, text)
			}
		})
	}
}

// rsaBundle is what the bundle endpoint of a trust domain serves whose authorities are
// RSA.
func rsaBundle(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	bundle := spiffebundle.FromX509Authorities(spiffeid.RequireTrustDomainFromString("cluster1.com"), []*x509.Certificate{root})
	if err := bundle.AddJWTAuthority("Bk3hV8Xv0y2oDk1n2lXkQ8b3uM4aT5zC", key.Public()); err != nil {
		t.Fatal(err)
	}
	document, err := bundle.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(document)
}

// FuzzText looks for input that breaks it. A mark may stand for a few bytes.
func FuzzText(f *testing.F) {
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----"))
	f.Add([]byte("x\n-----END EC PRIVATE KEY-----\n-----BEGIN PRIVATE KEY-----"))
	f.Add([]byte("token: a\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\nabcdefghijklmnop"))
	f.Add([]byte(`{"name":"password","value":"x","a":["--token","y"]} "\"`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if got := textOf(bytes.Clone(text)); len(got) > 24*(len(text)+1) {
			t.Errorf("%q becomes %q", text, got)
		}
	})
}
