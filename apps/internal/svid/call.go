package svid

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/fedlab-dev/fedlab/apps/internal/diagnosis"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
)

// Call is one call that was made, and another one from the same place that must be refused.
type Call struct {
	Target
	// Outcome is Answered, or a class of package diagnosis.
	Outcome string `json:"outcome"`
	Detail  string `json:"detail,omitempty"`
	// Peer is who answered; empty where nobody was authenticated.
	Peer string `json:"peer,omitempty"`
	// Stranger is the outcome of the other call, with an X509-SVID of the same SPIFFE ID
	// that nobody has signed whom the server knows.
	Stranger string `json:"stranger,omitempty"`
}

// Answered is the outcome of a call that came through, whatever the answer is. 401 and 403
// are diagnosis.NotPermitted.
const Answered = "answered"

// Target is a server to call.
type Target struct {
	Server  string `json:"server"`
	Address string `json:"address"`
}

// targets is a flag that may be given several times.
type targets []Target

func (t *targets) String() string { return "" }

func (t *targets) Set(text string) error {
	server, address, _ := strings.Cut(text, "@")
	if _, err := identity.ParseID(server); err != nil {
		return err
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return fmt.Errorf("want SPIFFE-ID@HOST:PORT: %w", err)
	}
	*t = append(*t, Target{server, address})
	return nil
}

// callAll calls each target, side by side.
func callAll(ctx context.Context, all []Target, own identity.Holder) []Call {
	made := make([]Call, len(all))
	var group sync.WaitGroup
	for i, to := range all {
		group.Go(func() {
			made[i] = Call{Target: to}
			made[i].Outcome, made[i].Peer, made[i].Detail = call(ctx, to, own)
			if made[i].Outcome != string(diagnosis.NoIdentity) {
				made[i].Stranger = callAsStranger(ctx, to, own)
			}
		})
	}
	group.Wait()
	return made
}

func call(ctx context.Context, to Target, own identity.Holder) (outcome, peer, detail string) {
	response, met, err := get(ctx, to, own)
	if !met.ID.IsZero() {
		peer = met.ID.String()
	}
	switch {
	case err != nil:
		return string(diagnosis.Classify(err)), peer, err.Error()
	case response == http.StatusUnauthorized, response == http.StatusForbidden:
		return string(diagnosis.NotPermitted), peer, fmt.Sprintf("the answer is %d %s", response, http.StatusText(response))
	}
	return Answered, peer, ""
}

func get(ctx context.Context, to Target, own identity.Holder) (status int, met identity.Peer, err error) {
	ctx, cancel := context.WithTimeout(ctx, identity.CallBound)
	defer cancel()
	server, err := identity.ParseID(to.Server)
	if err != nil {
		return 0, met, err
	}
	if err := identity.Check(own, time.Now()); err != nil {
		return 0, met, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+to.Address+"/", nil)
	if err != nil {
		return 0, met, err
	}
	response, met, err := identity.Client{Server: server, Holder: own, Log: slog.New(slog.DiscardHandler)}.Do(request)
	if refused := (*identity.NotAcceptedError)(nil); errors.As(err, &refused) {
		met = refused.Peer
	}
	if err != nil {
		return 0, met, err
	}
	return response.StatusCode, met, response.Body.Close()
}

// callAsStranger calls under the name of own with an authority of its own.
func callAsStranger(ctx context.Context, to Target, own identity.Holder) string {
	svid, err := own.GetX509SVID()
	if err == nil {
		svid, err = forged(svid.ID)
	}
	if err != nil {
		return string(diagnosis.NoIdentity)
	}
	outcome, _, _ := call(ctx, to, stranger{own, svid})
	return outcome
}

// stranger has the bundles of another holder, and an SVID that it has made itself.
type stranger struct {
	identity.Holder
	svid *x509svid.SVID
}

func (s stranger) GetX509SVID() (*x509svid.SVID, error) { return s.svid, nil }

// forged returns an X509-SVID whose authority is known to nobody.
func forged(id spiffeid.ID) (*x509svid.SVID, error) {
	issue := func(template, by *x509.Certificate, key, signer *ecdsa.PrivateKey) (*x509.Certificate, error) {
		template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(1), time.Now().Add(-time.Minute), time.Now().Add(time.Minute)
		template.BasicConstraintsValid = true
		der, err := x509.CreateCertificate(rand.Reader, template, by, key.Public(), signer)
		if err != nil {
			return nil, err
		}
		return x509.ParseCertificate(der)
	}
	var keys [2]*ecdsa.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, err
		}
	}
	root := &x509.Certificate{IsCA: true, KeyUsage: x509.KeyUsageCertSign, URIs: []*url.URL{id.TrustDomain().ID().URL()}}
	ca, err := issue(root, root, keys[0], keys[0])
	if err != nil {
		return nil, err
	}
	leaf, err := issue(&x509.Certificate{KeyUsage: x509.KeyUsageDigitalSignature, URIs: []*url.URL{id.URL()}}, ca, keys[1], keys[0])
	if err != nil {
		return nil, err
	}
	return &x509svid.SVID{ID: id, Certificates: []*x509.Certificate{leaf}, PrivateKey: keys[1]}, nil
}

// fixed holds what the Workload API gave once.
type fixed struct {
	*x509svid.SVID
	*x509bundle.Set
}

func (f fixed) GetX509SVID() (*x509svid.SVID, error) { return f.SVID, nil }

// TrustDomains implements identity.Holder.
func (f fixed) TrustDomains() (all []spiffeid.TrustDomain) {
	for _, b := range f.Bundles() {
		all = append(all, b.TrustDomain())
	}
	return all
}
