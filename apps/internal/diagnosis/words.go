package diagnosis

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/status"
)

// Call is what the words speak of.
type Call struct {
	Caller  string // "this broker"; its first letter is made a capital where needed
	Server  string // "the quotes server"
	ID      spiffeid.ID
	Address string
	Bound   time.Duration // after which a silent server is given up
}

// Problem says in plain words why a call failed.
type Problem struct {
	Class  Class     `json:"class"`
	What   string    `json:"what"`
	Look   string    `json:"look"`   // at what, to repair it
	Detail string    `json:"detail"` // the error itself, for those who repair it
	Since  time.Time `json:"since"`
}

// Explain puts err, of a call that has failed since then, into words.
func Explain(err error, c Call, since, now time.Time) *Problem {
	p := &Problem{Class: Classify(err), Detail: err.Error(), Since: since}
	p.What, p.Look = c.words(p.Class, err, now)
	p.What, p.Look = capital(p.What), capital(p.Look)
	return p
}

func (c Call) words(class Class, err error, now time.Time) (what, look string) {
	domain := claimed(err, c.ID.TrustDomain().Name())
	switch class {
	case NoIdentity:
		if missing, ok := errors.AsType[*identity.MissingError](err); ok && missing.Unregistered() {
			return c.Caller + " has no identity yet: the SPIRE agent answers, but no registration entry matches this workload.",
				"the registration entry of " + c.Caller + ": its selectors, its parent, and whether it federates with a domain whose bundle is not there."
		}
		return c.Caller + " has no identity yet: the SPIRE agent on its node does not answer.",
			"the SPIRE agent of this cluster, and the folder of its socket that is mounted into this pod."
	case Expired:
		if own, ok := errors.AsType[*identity.ExpiredError](err); ok {
			return fmt.Sprintf("the identity of %s expired at %s and was not renewed.", c.Caller, clock(own.Document.NotAfter)),
				"the SPIRE agent and server of this cluster: an SVID is renewed halfway through its life."
		}
		return c.validity(err, now)
	case NotFederated:
		return fmt.Sprintf("somebody from %s answered, but %s holds no bundle of that trust domain and cannot verify anybody from there.", domain, c.Caller),
			"federatesWith in the registration entry of " + c.Caller + ", then the federation relationship of its SPIRE server."
	case UnknownAuthority:
		look = "the bundle held here and the one that " + domain + " serves: refresh has stopped, or somebody pretends."
		if is[x509.CertificateInvalidError](err) {
			return "the certificate chain of " + c.Server + " breaks a rule of X.509, so it proves nothing.", look
		}
		return fmt.Sprintf("%s claims to be from %s, but the bundle that %s holds of %s does not contain the authority that signed for it.", c.Server, domain, c.Caller, domain), look
	case IdentityRefused:
		look = "the SPIFFE ID that " + c.Caller + " expects, the registration entry of " + c.Server + ", and where its address leads."
		if stranger, ok := errors.AsType[*identity.UnexpectedIDError](err); ok {
			return fmt.Sprintf("%s answers in place of %s. Nothing was asked of them.", stranger.Got, stranger.Want), look
		}
		if is[*identity.UnverifiedError](err) {
			return "the certificate of " + c.Server + " breaks a rule of X509-SVIDs, so it proves nothing. Nothing was asked of them.",
				"where the address of " + c.Server + " leads, and who issued the certificate that is presented there."
		}
		return "somebody else answers in place of " + c.Server + ". Nothing was asked of them.", look
	case RefusedByServer:
		return c.Server + " broke off the handshake: it cannot verify the identity of " + c.Caller + ".",
			"the log of " + c.Server + ", and the other direction of the federation: the bundle of this trust domain that is held there."
	case NotPermitted:
		return c.refused(err)
	case Unreachable:
		look = "whether the pod of " + c.Server + " is ready, whether its address is right, and the network between the clusters."
		if is[*net.DNSError](err) {
			return fmt.Sprintf("the name in %s cannot be resolved.", c.Address), look
		}
		return fmt.Sprintf("%s cannot be reached at %s.", c.Server, c.Address), look
	case NoAnswer:
		return fmt.Sprintf("something accepts connections at %s, but does not answer within %s.", c.Address, c.Bound),
			"the log of " + c.Server + ", and the network between the clusters."
	case NotRefused:
		return c.Server + " answered what it should refuse.",
			"the rules of " + c.Server + ", and what this call is expected to end with."
	default:
		return c.failed(err)
	}
}

// validity tells a server's certificate that has expired from one that is
// not valid yet: x509 has one reason for both.
func (c Call) validity(err error, now time.Time) (what, look string) {
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	if !ok || invalid.Cert == nil {
		return "an identity has expired.", "the SPIRE servers and agents on both sides."
	}
	if now.Before(invalid.Cert.NotBefore) {
		return fmt.Sprintf("the identity of %s is not valid before %s.", c.Server, clock(invalid.Cert.NotBefore)),
			fmt.Sprintf("the clocks: either that of %s is behind, or the clock of the trust domain of %s is ahead.", c.Caller, c.Server)
	}
	return fmt.Sprintf("the identity of %s expired at %s.", c.Server, clock(invalid.Cert.NotAfter)),
		"the SPIRE agent and server of the cluster of " + c.Server + ", and the clocks on both sides."
}

// refused says which rule a caller breaks, where it was told; behind a gateway
// another server may be the one that refuses.
func (c Call) refused(err error) (what, look string) {
	look = "the list of allowed clients of " + c.Server + ", and the SPIFFE ID of " + c.Caller + "."
	refusal, told := errors.AsType[*service.Refusal](err)
	if !told {
		return c.Server + " knows who " + c.Caller + " is, and does not let it call.", look
	}
	server := c.Server
	if refusal.Server != "" && refusal.Server != c.ID.String() {
		server = refusal.Server + ", behind " + server + ","
	}
	if refusal.Status == http.StatusUnauthorized {
		return fmt.Sprintf("%s does not know the caller: %s.", server, refusal.Rule), look
	}
	return fmt.Sprintf("%s knows the caller and refuses: %s.", server, refusal.Rule), look
}

// failed says that a server answered with an error where that is one of its own;
// of any other error, nobody knows where it arose.
func (c Call) failed(err error) (what, look string) {
	said := "with an error"
	if refusal, ok := errors.AsType[*service.Refusal](err); ok {
		said = fmt.Sprintf("%d %s", refusal.Status, refusal.Kind)
		if refusal.Reason != "" {
			said += ": " + strings.TrimSuffix(refusal.Reason, ".")
		}
	} else if _, answered := status.FromError(err); !answered {
		return fmt.Sprintf("the call of %s to %s failed, and the error does not tell which side it is of.", c.Caller, c.Server),
			"the error itself, and the logs of " + c.Caller + " and of " + c.Server + "."
	}
	return fmt.Sprintf("%s was reached and proved who it is, but answered %s.", c.Server, said), "the log of " + c.Server + "."
}

// claimed returns the trust domain that an unverified server says it is of,
// which need not be the expected one.
func claimed(err error, expected string) string {
	if noBundle, ok := errors.AsType[*identity.NotFederatedError](err); ok {
		return noBundle.TrustDomain.Name()
	}
	if authority, ok := errors.AsType[x509.UnknownAuthorityError](err); ok && authority.Cert != nil {
		if id, err := x509svid.IDFromCert(authority.Cert); err == nil {
			return id.TrustDomain().Name()
		}
	}
	return expected
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05 UTC") }

// capital makes a sentence begin as one, unless it begins with a SPIFFE ID.
func capital(sentence string) string {
	if strings.HasPrefix(sentence, "spiffe://") {
		return sentence
	}
	return strings.ToUpper(sentence[:1]) + sentence[1:]
}
