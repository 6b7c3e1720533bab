package lab

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// SVIDs is what the agent gives to a workload, without any private key.
type SVIDs struct {
	Workload string `json:"workload"`
	Cluster  string `json:"cluster"`
	// Host is where the workload runs; then Cluster is empty.
	Host string `json:"host,omitempty"`
	// Bundles names the trust domains whose bundles the workload is given.
	Bundles []string   `json:"bundles"`
	X509    []X509SVID `json:"x509"`
	// JWT is empty unless an audience was named.
	JWT []JWTSVID `json:"jwt,omitempty"`
}

// X509SVID is an X509-SVID of a workload.
type X509SVID struct {
	SPIFFEID string        `json:"spiffeID"`
	Hint     string        `json:"hint,omitempty"`
	Chain    []Certificate `json:"chain"`
	// Verified says which bundles verify the chain.
	Verified []Verification `json:"verified"`
}

// Certificate is one of a chain.
type Certificate struct {
	Serial string `json:"serial"`
	// SubjectKeyID and AuthorityKeyID name the key of the certificate, and the key
	// that signed it.
	SubjectKeyID   string    `json:"subjectKeyID"`
	AuthorityKeyID string    `json:"authorityKeyID"`
	NotBefore      time.Time `json:"notBefore"`
	NotAfter       time.Time `json:"notAfter"`
	DNSNames       []string  `json:"dnsNames,omitempty"`
}

// JWTSVID is a JWT-SVID of a workload.
type JWTSVID struct {
	SPIFFEID string    `json:"spiffeID"`
	Audience []string  `json:"audience"`
	Expiry   time.Time `json:"expiry"`
	Claims   any       `json:"claims"`
	// Token is a credential until Expiry.
	Token    string         `json:"token"`
	Verified []Verification `json:"verified"`
}

// Verification is what one server's bundle of the workload's trust domain says of
// an SVID.
type Verification struct {
	// Holder is the trust domain whose server has the bundle: the workload's own,
	// or one that trusts it; for a nested server with its cluster ("one.test@b").
	Holder string `json:"holder"`
	// Problem is why the bundle does not verify the SVID; empty when it does.
	Problem string `json:"problem,omitempty"`
}

// SVIDs returns what the agent gives to a workload of the lab, as a process in the
// workload's own container is given it; with an audience, JWT-SVIDs as well. Each
// is verified by the bundle of its trust domain, and by what the trust domains
// that trust it hold.
func (l *Lab) SVIDs(ctx context.Context, w *topology.Workload, audience string) (SVIDs, error) {
	argv := []string{}
	if audience != "" {
		argv = append(argv, "-audience="+audience)
	}
	held, err := l.driver.svidsOf(ctx, l.Access, w, argv...)
	if err != nil {
		return SVIDs{}, err
	}
	bundles, err := l.bundlesOf(ctx, w.Member.Server)
	if err != nil {
		return SVIDs{}, err
	}
	return judged(w, held, bundles, audience)
}

// heldSVIDs is what a demo program prints of itself.
type heldSVIDs struct {
	X509    []heldX509 `json:"x509"`
	Bundles []string   `json:"bundles"`
	JWT     []string   `json:"jwt"`
	Calls   []struct {
		Server   string `json:"server"`
		Address  string `json:"address"`
		Outcome  string `json:"outcome"`
		Detail   string `json:"detail"`
		Peer     string `json:"peer"`
		Stranger string `json:"stranger"`
	} `json:"calls"`
}

type heldX509 struct {
	Hint  string   `json:"hint"`
	Chain [][]byte `json:"chain"`
}

// tells returns nil for a workload whose program can be asked for its SVIDs.
func tells(w *topology.Workload) error {
	if w.Own != nil {
		return fmt.Errorf("%s is a program of your own: only fedlab's programs can be asked for their SVIDs", w.Name)
	}
	if slices.Contains(w.App.Optional, topology.Ghostunnel) {
		return fmt.Errorf("%s knows nothing of SPIFFE: ghostunnel has its identity, and cannot be asked for its SVIDs", w.Name)
	}
	return nil
}

// svidsOf asks in the container of a workload; in gives what can be done in a cluster.
func (d *Driver) svidsOf(ctx context.Context, in func(*topology.Cluster) access.Cluster, w *topology.Workload, flags ...string) (held heldSVIDs, err error) {
	if err := tells(w); err != nil {
		return held, err
	}
	ctx, cancel := context.WithTimeout(ctx, statusBound)
	defer cancel()
	out, err := d.execIn(ctx, in, w, append([]string{"/" + w.App.Name, "svid"}, flags...)...)
	if err != nil {
		return held, err
	}
	if err := json.Unmarshal(out, &held); err != nil {
		return held, fmt.Errorf("read what %s says of its SVIDs: %w", w.Name, err)
	}
	return held, nil
}

// execIn runs a program in the container of a workload, as the user who runs that.
func (d *Driver) execIn(ctx context.Context, in func(*topology.Cluster) access.Cluster, w *topology.Workload, argv ...string) ([]byte, error) {
	if w.Host() != nil {
		return d.on(w.Host()).Exec(ctx, HostRun(w), argv...)
	}
	pods := in(w.Cluster()).Pods
	names, err := pods.Named(ctx, w.Namespace, map[string]string{"app.kubernetes.io/name": w.App.Name})
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s has no ready pod: 'fedlab status' says why", w.Name)
	}
	return pods.Exec(ctx, w.Namespace, names[0], w.App.Name, argv...)
}

// holding is the bundle of a workload's trust domain as one server has it.
type holding struct {
	holder *topology.Server
	bundle *spiffebundle.Bundle
	err    error
}

// bundlesOf returns the bundle of a trust domain as a server of its own has it, and as
// those hold it who trust the domain.
func (l *Lab) bundlesOf(ctx context.Context, of *topology.Server) ([]holding, error) {
	ctx, cancel := context.WithTimeout(ctx, statusBound)
	defer cancel()
	own, err := l.Site(ctx, of)
	if err != nil {
		return nil, err
	}
	bundle, err := own.API.Bundle(ctx)
	all := []holding{{of, bundle, err}}
	for _, t := range of.Domain.TrustedBy {
		for _, r := range t.Relationships() {
			h := holding{holder: r.By}
			var site *Site
			if site, h.err = l.Site(ctx, r.By); h.err == nil {
				h.bundle, h.err = site.API.HeldBundle(ctx, of.Domain.Name)
			}
			if h.err == nil && h.bundle == nil {
				h.err = errors.New("its server holds no such bundle")
			}
			all = append(all, h)
		}
	}
	return all, nil
}

// verified asks each bundle.
func verified(bundles []holding, by func(*spiffebundle.Bundle) error) []Verification {
	var all []Verification
	for _, h := range bundles {
		err := h.err
		if err == nil {
			err = by(h.bundle)
		}
		v := Verification{Holder: h.holder.String()}
		if err != nil {
			v.Problem = err.Error()
		}
		all = append(all, v)
	}
	return all
}

func judged(w *topology.Workload, held heldSVIDs, bundles []holding, audience string) (SVIDs, error) {
	s := SVIDs{Workload: w.Name, Cluster: clusterName(w.Member.Place), Host: hostName(w.Member.Place), Bundles: append([]string{}, held.Bundles...)}
	for _, x := range held.X509 {
		one := X509SVID{Hint: x.Hint}
		var chain []*x509.Certificate
		for _, der := range x.Chain {
			c, err := x509.ParseCertificate(der)
			if err != nil {
				return s, fmt.Errorf("read a certificate of %s: %w", w.Name, err)
			}
			chain = append(chain, c)
			one.Chain = append(one.Chain, Certificate{
				Serial: c.SerialNumber.String(), SubjectKeyID: hex.EncodeToString(c.SubjectKeyId), AuthorityKeyID: hex.EncodeToString(c.AuthorityKeyId),
				NotBefore: c.NotBefore, NotAfter: c.NotAfter, DNSNames: c.DNSNames,
			})
		}
		if len(chain) == 0 {
			return s, fmt.Errorf("read an X509-SVID of %s: it has no certificate", w.Name)
		}
		id, err := x509svid.IDFromCert(chain[0])
		if err != nil {
			return s, fmt.Errorf("read an X509-SVID of %s: %w", w.Name, err)
		}
		one.SPIFFEID = id.String()
		one.Verified = verified(bundles, func(b *spiffebundle.Bundle) error {
			_, _, err := x509svid.Verify(chain, b)
			return err
		})
		s.X509 = append(s.X509, one)
	}
	for _, token := range held.JWT {
		claims, err := jwtsvid.ParseInsecure(token, []string{audience})
		if err != nil {
			return s, fmt.Errorf("read a JWT-SVID of %s: %w", w.Name, err)
		}
		s.JWT = append(s.JWT, JWTSVID{
			SPIFFEID: claims.ID.String(), Audience: claims.Audience, Expiry: claims.Expiry, Claims: claims.Claims, Token: token,
			Verified: verified(bundles, func(b *spiffebundle.Bundle) error {
				_, err := jwtsvid.ParseAndValidate(token, b, []string{audience})
				return err
			}),
		})
	}
	return s, nil
}
