package federation_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"reflect"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/federation"
)

func TestCompare(t *testing.T) {
	first, second := newRoot(t, "01"), newRoot(t, "02")
	impostor := newRoot(t, "01")
	jwt, otherJWT := newKey(t).Public(), newKey(t).Public()

	source := bundleOf(t, []*x509.Certificate{first, second}, map[string]crypto.PublicKey{"jwt": jwt})
	source.SetRefreshHint(time.Minute)
	source.SetSequenceNumber(7)

	var (
		firstID  = federation.Authority{Kind: federation.X509, ID: "01"}
		secondID = federation.Authority{Kind: federation.X509, ID: "02"}
		jwtID    = federation.Authority{Kind: federation.JWT, ID: "jwt"}
	)
	tests := []struct {
		name string
		held *spiffebundle.Bundle
		want federation.Comparison
	}{
		{
			name: "the same authorities in another order, with other numbers",
			held: bundleOf(t, []*x509.Certificate{second, first}, map[string]crypto.PublicKey{"jwt": jwt}),
			want: federation.Comparison{State: federation.InSync},
		},
		{
			name: "neither the second root yet, nor the JWT key",
			held: bundleOf(t, []*x509.Certificate{first}, nil),
			want: federation.Comparison{
				State:   federation.Behind,
				Lacking: []federation.Authority{jwtID, secondID},
			},
		},
		{
			name: "an authority that the source does not have",
			held: bundleOf(t, []*x509.Certificate{first, second, newRoot(t, "0f")}, map[string]crypto.PublicKey{"jwt": jwt}),
			want: federation.Comparison{
				State:   federation.Differing,
				Foreign: []federation.Authority{{Kind: federation.X509, ID: "0f"}},
			},
		},
		{
			name: "nothing of what the source has",
			held: bundleOf(t, []*x509.Certificate{impostor}, map[string]crypto.PublicKey{"jwt": otherJWT}),
			want: federation.Comparison{
				State:   federation.Foreign,
				Lacking: []federation.Authority{jwtID, firstID, secondID},
				Foreign: []federation.Authority{jwtID, firstID},
			},
		},
		{
			name: "nothing in common but a JWT key",
			held: bundleOf(t, []*x509.Certificate{impostor}, map[string]crypto.PublicKey{"jwt": jwt}),
			want: federation.Comparison{
				State:   federation.Differing,
				Lacking: []federation.Authority{firstID, secondID},
				Foreign: []federation.Authority{firstID},
			},
		},
		{
			name: "another root under the same subject key ID",
			held: bundleOf(t, []*x509.Certificate{impostor, second}, map[string]crypto.PublicKey{"jwt": jwt}),
			want: federation.Comparison{
				State:   federation.Differing,
				Lacking: []federation.Authority{firstID},
				Foreign: []federation.Authority{firstID},
			},
		},
		{
			name: "another JWT key under the same ID",
			held: bundleOf(t, []*x509.Certificate{first, second}, map[string]crypto.PublicKey{"jwt": otherJWT}),
			want: federation.Comparison{
				State:   federation.Differing,
				Lacking: []federation.Authority{jwtID},
				Foreign: []federation.Authority{jwtID},
			},
		},
		{
			name: "a bundle without authorities",
			held: bundleOf(t, nil, nil),
			want: federation.Comparison{
				State:   federation.Empty,
				Lacking: []federation.Authority{jwtID, firstID, secondID},
			},
		},
		{
			name: "no bundle",
			held: nil,
			want: federation.Comparison{
				State:   federation.Missing,
				Lacking: []federation.Authority{jwtID, firstID, secondID},
			},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := federation.Compare(test.held, source); !reflect.DeepEqual(got, test.want) {
				t.Errorf("Compare = %+v, want %+v", got, test.want)
			}
		})
	}
}

// TestCompareKeysOfTwoTypes: RSA keys are compared as EC keys are, also after the
// document that an endpoint serves, and an ID whose key is of the other type belongs to
// another authority.
func TestCompareKeysOfTwoTypes(t *testing.T) {
	rsaKey, otherRSA := newRSAKey(t), newRSAKey(t)
	ec, root := newRoot(t, "01"), newRootOf(t, "02", rsaKey)
	source := bundleOf(t, []*x509.Certificate{ec, root}, map[string]crypto.PublicKey{"rsa": rsaKey.Public(), "ec": newKey(t).Public()})
	document, err := source.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	held, err := spiffebundle.Parse(source.TrustDomain(), document)
	if err != nil {
		t.Fatal(err)
	}
	if got := federation.Compare(held, source); got.State != federation.InSync {
		t.Errorf("what the endpoint serves is %s, want in sync", got)
	}
	for _, id := range []string{"rsa", "ec"} {
		held.SetJWTAuthorities(source.JWTAuthorities())
		if err := held.AddJWTAuthority(id, otherRSA.Public()); err != nil {
			t.Fatal(err)
		}
		another := []federation.Authority{{Kind: federation.JWT, ID: id}}
		want := federation.Comparison{State: federation.Differing, Lacking: another, Foreign: another}
		if got := federation.Compare(held, source); !reflect.DeepEqual(got, want) {
			t.Errorf("with another RSA key under the ID %s it is %+v, want %+v", id, got, want)
		}
	}
	held = bundleOf(t, []*x509.Certificate{ec, newRootOf(t, "02", otherRSA)}, source.JWTAuthorities())
	if got, want := federation.Compare(held, source).String(), "differing: lacks X.509 authority 02, has foreign X.509 authority 02"; got != want {
		t.Errorf("with another RSA root it is %s, want %s", got, want)
	}
}

func TestComparisonString(t *testing.T) {
	root := newRoot(t, "01")
	source := bundleOf(t, []*x509.Certificate{root}, nil)
	tests := []struct {
		held *spiffebundle.Bundle
		want string
	}{
		{source, "in sync"},
		{nil, "missing: lacks X.509 authority 01"},
		{bundleOf(t, []*x509.Certificate{newRoot(t, "02")}, nil), "foreign: lacks X.509 authority 01, has foreign X.509 authority 02"},
	}
	for _, test := range tests {
		if got := federation.Compare(test.held, source).String(); got != test.want {
			t.Errorf("comparison reads %q, want %q", got, test.want)
		}
	}
}

func TestCompareNamesRootWithoutSubjectKeyID(t *testing.T) {
	root := newRoot(t, "01")
	root.SubjectKeyId = nil
	source := bundleOf(t, []*x509.Certificate{root}, nil)
	got := federation.Compare(nil, source).Lacking
	if len(got) != 1 || len(got[0].ID) != 64 {
		t.Errorf("lacking = %+v, want one authority named by a SHA-256", got)
	}
}

// TestLackingSince: SPIRE begins a certificate ten seconds before it issues it.
func TestLackingSince(t *testing.T) {
	issued := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	root := func(at time.Time) federation.Authority {
		return federation.Authority{Kind: federation.X509, NotBefore: at.Add(-10 * time.Second)}
	}
	jwt := federation.Authority{Kind: federation.JWT}
	c := federation.Comparison{Lacking: []federation.Authority{jwt, root(issued.Add(time.Hour)), root(issued), root(issued.Add(time.Minute))}}
	if got := c.LackingSince(); !got.Equal(issued) {
		t.Errorf("lacking since %s, want %s", got, issued)
	}
	c.Lacking = []federation.Authority{jwt}
	if got := c.LackingSince(); !got.IsZero() {
		t.Errorf("lacking a JWT authority since %s, want no time", got)
	}
}

func bundleOf(t *testing.T, roots []*x509.Certificate, keys map[string]crypto.PublicKey) *spiffebundle.Bundle {
	t.Helper()
	bundle := spiffebundle.New(spiffeid.RequireTrustDomainFromString("cluster1.com"))
	bundle.SetX509Authorities(roots)
	bundle.SetJWTAuthorities(keys)
	return bundle
}

// newRoot returns a self-signed certificate with that subject key ID, given in
// hexadecimal, and a key of its own.
func newRoot(t *testing.T, subjectKeyID string) *x509.Certificate {
	t.Helper()
	return newRootOf(t, subjectKeyID, newKey(t))
}

func newRootOf(t *testing.T, subjectKeyID string, key crypto.Signer) *x509.Certificate {
	t.Helper()
	id, err := hex.DecodeString(subjectKeyID)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, SubjectKeyId: id}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func newRSAKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
