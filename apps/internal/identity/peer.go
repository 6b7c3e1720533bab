package identity

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"log/slog"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// ParseID reads the SPIFFE ID of a workload, which has a path: that of a
// trust domain alone names nobody who could call or answer.
func ParseID(text string) (spiffeid.ID, error) {
	id, err := spiffeid.FromString(text)
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("want a SPIFFE ID such as spiffe://cluster2.com/client: %w", err)
	}
	if id.Path() == "" {
		return spiffeid.ID{}, fmt.Errorf("want a SPIFFE ID with a path, such as %s/client", id)
	}
	return id, nil
}

// Document is what an SVID says. A JWT-SVID has no serial number, and need not say when
// it was issued.
type Document struct {
	ID          spiffeid.ID          `json:"id"`
	TrustDomain spiffeid.TrustDomain `json:"trustDomain"`
	Serial      string               `json:"serial"` // lower-case hex
	NotBefore   time.Time            `json:"notBefore"`
	NotAfter    time.Time            `json:"notAfter"`
}

// DocumentOf reads svid's leaf.
func DocumentOf(svid *x509svid.SVID) Document { return documentOf(svid.ID, svid.Certificates[0]) }

// Self is a program's own identity, and whom it could verify.
type Self struct {
	Document
	// VerifiedBy is nil when the bundle of its own trust domain does not verify
	// the SVID: peers refuse it as soon as they hold the same bundle.
	VerifiedBy *Authority             `json:"verifiedBy,omitempty"`
	Bundles    []spiffeid.TrustDomain `json:"bundles"`
}

// Own is what a program holds of itself and of others.
type Own interface {
	Holder
	TrustDomains() []spiffeid.TrustDomain
}

// SelfOf returns what own holds, nil before there is an identity.
func SelfOf(own Own) *Self {
	svid, err := own.GetX509SVID()
	if err != nil {
		return nil // why, a call without an identity says
	}
	self := &Self{Document: DocumentOf(svid), Bundles: own.TrustDomains()}
	if id, chains, err := x509svid.Verify(svid.Certificates, own); err == nil {
		peer := peerOf(id, chains[0])
		self.VerifiedBy = &peer.VerifiedBy
	}
	return self
}

// Check returns nil when svids holds an SVID that is still valid at now, and
// otherwise a *MissingError or an *ExpiredError.
func Check(svids x509svid.Source, now time.Time) error {
	svid, err := svids.GetX509SVID()
	if err != nil {
		return err
	}
	if own := DocumentOf(svid); now.After(own.NotAfter) {
		return &ExpiredError{Document: own}
	}
	return nil
}

func documentOf(id spiffeid.ID, leaf *x509.Certificate) Document {
	return Document{
		ID:          id,
		TrustDomain: id.TrustDomain(),
		Serial:      leaf.SerialNumber.Text(16),
		NotBefore:   leaf.NotBefore,
		NotAfter:    leaf.NotAfter,
	}
}

func (d Document) attrs() []slog.Attr {
	attrs := []slog.Attr{slog.String("spiffe_id", d.ID.String())}
	if d.Serial != "" {
		attrs = append(attrs, slog.String("serial", d.Serial))
	}
	return append(attrs, slog.Time("expires", d.NotAfter))
}

// Authority is the root, in one trust domain's bundle, that a chain ends in.
type Authority struct {
	TrustDomain spiffeid.TrustDomain `json:"trustDomain"`
	// SubjectKeyID is lower-case hex. A SPIRE server that signs with its own
	// root calls the same value its authority ID. For a JWT authority it is the key ID,
	// and nothing else is known of it.
	SubjectKeyID string    `json:"subjectKeyID"`
	Subject      string    `json:"subject"`
	NotAfter     time.Time `json:"notAfter"`
}

// Peer is who is at the far end of a connection, or who sent a JWT-SVID over it, and
// why that is believed.
type Peer struct {
	Document
	VerifiedBy Authority `json:"verifiedBy"`
}

// peerOf reads a verified chain: the SVID first, the bundle's root last.
func peerOf(id spiffeid.ID, chain []*x509.Certificate) Peer {
	root := chain[len(chain)-1]
	return Peer{
		Document: documentOf(id, chain[0]),
		VerifiedBy: Authority{
			// An SVID is verified with the bundle of its own trust domain,
			// no other (X509-SVID standard, section 5).
			TrustDomain:  id.TrustDomain(),
			SubjectKeyID: hex.EncodeToString(root.SubjectKeyId),
			Subject:      root.Subject.String(),
			NotAfter:     root.NotAfter,
		},
	}
}

// LogValue makes a group of what p says, so that a log tells who it was and
// which bundle verified them.
func (p Peer) LogValue() slog.Value { return slog.GroupValue(p.attrs()...) }

func (p Peer) attrs() []slog.Attr {
	attrs := append(p.Document.attrs(),
		slog.String("bundle", p.VerifiedBy.TrustDomain.Name()),
		slog.String("authority", p.VerifiedBy.SubjectKeyID))
	if p.VerifiedBy.Subject != "" {
		attrs = append(attrs, slog.String("authority_subject", p.VerifiedBy.Subject))
	}
	return attrs
}

// PeerFromContext returns who sent the call that a server is answering, and
// false when the connection was not authenticated by this package.
func PeerFromContext(ctx context.Context) (Peer, bool) {
	sender, ok := peer.FromContext(ctx)
	if !ok {
		return Peer{}, false
	}
	return PeerOf(sender)
}

// PeerOf returns who answered a call, given what grpc.Peer stored of it, and
// false when the connection was not authenticated by this package.
func PeerOf(answered *peer.Peer) (Peer, bool) {
	info, ok := answered.AuthInfo.(authInfo)
	return info.peer, ok
}

type authInfo struct {
	credentials.TLSInfo
	peer Peer
}
