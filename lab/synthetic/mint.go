package synthetic

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// WrongX509 is what is wrong with an X509-SVID; empty is nothing.
type WrongX509 string

// What may be wrong with an X509-SVID.
const (
	// SelfSigned names itself as its issuer. As the key that it is for never
	// comes here, it is signed with a key that is thrown away.
	SelfSigned WrongX509 = "self-signed"
	// ExpiredX509 ended an hour ago, and NotYetValid begins in an hour, whatever
	// the request says.
	ExpiredX509 WrongX509 = "expired"
	NotYetValid WrongX509 = "not-yet-valid"
	// TwoURIs has a second SPIFFE ID, NoURI has none (X509-SVID standard,
	// section 2).
	TwoURIs WrongX509 = "two-uris"
	NoURI   WrongX509 = "no-uri"
	// CATrue is a leaf that may sign others (X509-SVID standard, section 4.1).
	CATrue WrongX509 = "ca-true"
	// NoPath has the ID of its trust domain, which names no workload (X509-SVID
	// standard, section 5.2).
	NoPath WrongX509 = "no-path"
	// UnknownAuthority is signed by a namesake of the domain's X.509 authority
	// that is not in the bundle.
	UnknownAuthority WrongX509 = "unknown-authority"
)

const (
	// backdate is how long before now an SVID begins, as with SPIRE.
	backdate = 10 * time.Second
	// defaultLife is that of an SVID whose request does not say.
	defaultLife = time.Hour
	// wrongBy is how far from now a wrong time is.
	wrongBy = time.Hour
)

// X509Request asks for an X509-SVID.
type X509Request struct {
	// ID is any SPIFFE ID. One of another trust domain is a lie, and minted.
	ID spiffeid.ID `json:"id"`
	// PublicKey is the key that the SVID is for, in PKIX form (DER). Its private
	// half stays with whoever asks.
	PublicKey []byte `json:"publicKey,omitempty"`
	// NotBefore is ten seconds ago where it is zero, NotAfter an hour from now.
	NotBefore time.Time `json:"notBefore,omitzero"`
	NotAfter  time.Time `json:"notAfter,omitzero"`
	Wrong     WrongX509 `json:"wrong,omitempty"`
}

// MintX509 returns the chain of a new X509-SVID in DER, the leaf first and the
// root left out. It is signed with the current X.509 authority.
func (d *Domain) MintX509(r X509Request) (certificates [][]byte, err error) {
	d.mu.Lock()
	signing := d.signing
	d.mu.Unlock()
	leaf, err := d.mintX509(r, signing)
	if err != nil {
		return nil, fmt.Errorf("mint X509-SVID of %s: %w", r.ID, err)
	}
	return [][]byte{leaf}, nil
}

func (d *Domain) mintX509(r X509Request, signing authorities) ([]byte, error) {
	if r.ID.IsZero() {
		return nil, errors.New("it has no SPIFFE ID")
	}
	public, err := x509.ParsePKIXPublicKey(r.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("read public key: %w", err)
	}
	now := d.now()
	template := &x509.Certificate{
		Subject:               pkix.Name{Organization: organization, CommonName: "workload"},
		URIs:                  []*url.URL{r.ID.URL()},
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		NotBefore:             orElse(r.NotBefore, now.Add(-backdate)),
		NotAfter:              orElse(r.NotAfter, now.Add(defaultLife)),
	}
	issuer, key := signing.root, signing.rootKey
	switch r.Wrong {
	case "":
	case SelfSigned:
		issuer = template
		if key, err = newKey(); err != nil {
			return nil, err
		}
	case ExpiredX509:
		template.NotBefore, template.NotAfter = now.Add(-wrongBy-defaultLife), now.Add(-wrongBy)
	case NotYetValid:
		template.NotBefore, template.NotAfter = now.Add(wrongBy), now.Add(wrongBy+defaultLife)
	case TwoURIs:
		second, err := r.ID.AppendSegments("second")
		if err != nil {
			return nil, err
		}
		template.URIs = append(template.URIs, second.URL())
	case NoURI:
		template.URIs = nil
	case CATrue:
		template.IsCA = true
	case NoPath:
		template.URIs = []*url.URL{r.ID.TrustDomain().ID().URL()}
	case UnknownAuthority:
		issuer, key = d.rogue.root, d.rogue.rootKey
	default:
		return nil, fmt.Errorf("unknown wrong %q", r.Wrong)
	}
	return x509.CreateCertificate(rand.Reader, template, issuer, public, key)
}

// JWTRequest asks for a JWT-SVID.
type JWTRequest struct {
	// ID is any SPIFFE ID. One of another trust domain is a lie, and minted.
	ID       spiffeid.ID
	Audience string
	// Expiry is an hour from now where it is zero. A token says it in whole seconds.
	Expiry time.Time
	// KeyID is that of the key that the token says it is signed with; empty is the one that signs.
	KeyID string
}

// MintJWT returns a new JWT-SVID, signed with the current JWT authority, whichever key it names.
func (d *Domain) MintJWT(r JWTRequest) (token string, err error) {
	d.mu.Lock()
	signing := d.signing
	d.mu.Unlock()
	if r.ID.IsZero() || r.Audience == "" {
		return "", fmt.Errorf("mint JWT-SVID: want a SPIFFE ID and an audience, not %q and %q", r.ID, r.Audience)
	}
	now := d.now()
	header := map[string]string{"alg": "ES256", "kid": cmp.Or(r.KeyID, signing.jwtID), "typ": "JWT"}
	claims := map[string]any{
		"sub": r.ID.String(), "aud": []string{r.Audience}, "iat": now.Add(-backdate).Unix(), "exp": orElse(r.Expiry, now.Add(defaultLife)).Unix(),
	}
	if token, err = sign(header, claims, signing.jwtKey); err != nil {
		return "", fmt.Errorf("mint JWT-SVID of %s: %w", r.ID, err)
	}
	return token, nil
}

// sign returns a JWT in its compact form (RFC 7519), signed with ES256 (RFC 7518, section 3.4).
func sign(header, claims any, key *ecdsa.PrivateKey) (string, error) {
	token := ""
	for _, part := range []any{header, claims} {
		text, err := json.Marshal(part)
		if err != nil {
			return "", err
		}
		token += "." + base64.RawURLEncoding.EncodeToString(text)
	}
	token = token[1:]
	sum := sha256.Sum256([]byte(token))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		return "", err
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return token + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// PublicKey returns a key in the form that a X509Request has it in.
func PublicKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("write public key: %w", err)
	}
	return der, nil
}

func orElse(t, other time.Time) time.Time {
	if t.IsZero() {
		return other
	}
	return t
}
