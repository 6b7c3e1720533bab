package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"go.yaml.in/yaml/v3"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// company is a lab of the company's that its specs share. Each spec that changes it
// puts it back.
type company struct {
	*subject
	preset string
	// port is where the page is.
	port string
}

// newCompany brings up the enterprise preset under a name of its own, and takes
// it down when the container ends.
func newCompany(ctx context.Context) *company {
	GinkgoHelper()
	port, err := freePort(ctx)
	Expect(err).NotTo(HaveOccurred())
	c := &company{preset: "enterprise", port: port}
	file := filepath.Join(scratch(), "enterprise.yaml")
	Expect(c.write(file, func(*config.Lab) {})).To(Succeed())
	c.subject = raised(ctx, file, "enterprise")
	return c
}

// write writes the preset under another name and with a change. What the preset
// leaves to defaults stays so: they follow the change.
func (c *company) write(file string, change func(*config.Lab)) error {
	preset, err := config.Init(c.preset)
	if err != nil {
		return err
	}
	var l config.Lab
	if err := yaml.Unmarshal(preset, &l); err != nil {
		return err
	}
	l.Metadata.Name = "e2e-" + c.preset
	for i := range l.Spec.Workloads {
		if w := &l.Spec.Workloads[i]; w.Expose != "" {
			w.Expose = c.port
		}
	}
	change(&l)
	data, err := config.Marshal(l)
	if err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}

// become changes the lab's file, brings the lab to what it says then, and returns
// how that went.
func (c *company) become(ctx context.Context, change func(*config.Lab)) ended {
	GinkgoHelper()
	Expect(c.write(c.file, change)).To(Succeed())
	up := c.fedlab(ctx, "up")
	if changed, err := config.For(demo.Apps()).Open(c.file); err == nil {
		c.graph, err = topology.Resolve(changed.Topology, netip.Prefix{})
		Expect(err).NotTo(HaveOccurred())
	}
	return up
}

// workload returns a workload of the preset with its SPIFFE ID.
func (c *company) workload(name string) (*topology.Workload, spiffeid.ID) {
	GinkgoHelper()
	w, err := c.graph.FindWorkload(name)
	Expect(err).NotTo(HaveOccurred())
	return w, w.ID
}

// door is a service of the lab as a client of this process meets it.
type door struct {
	// dial connects to a port of it.
	dial     func(port int) func(context.Context) (net.Conn, error)
	workload *topology.Workload
	bundle   *spiffebundle.Bundle
}

// door returns how to call a workload.
func (c *company) door(ctx context.Context, name string) door {
	GinkgoHelper()
	l := c.open(ctx)
	w, err := l.Graph.FindWorkload(name)
	Expect(err).NotTo(HaveOccurred())
	owner, err := l.Site(ctx, w.Member.Server)
	Expect(err).NotTo(HaveOccurred())
	bundle, err := owner.API.Bundle(ctx)
	Expect(err).NotTo(HaveOccurred())
	return door{func(port int) func(context.Context) (net.Conn, error) { return c.dial(w, port) }, w, bundle}
}

// mint lets the server of an identity's trust domain sign an SVID for it.
func (c *company) mint(ctx context.Context, id spiffeid.ID) *x509svid.SVID {
	GinkgoHelper()
	svid, err := mint(ctx, c.site(ctx, id.TrustDomain()), id)
	Expect(err).NotTo(HaveOccurred())
	return svid
}

// client returns the TLS of a client with an SVID, or with none.
func (d door) client(svid *x509svid.SVID) *tls.Config {
	if svid == nil {
		return tlsconfig.TLSClientConfig(d.bundle, tlsconfig.AuthorizeID(d.workload.ID))
	}
	return tlsconfig.MTLSClientConfig(svid, d.bundle, tlsconfig.AuthorizeID(d.workload.ID))
}

// get asks for a path on a connection of its own.
func (d door) get(ctx context.Context, config *tls.Config, path string) (code int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, callBound)
	defer cancel()
	transport := d.transport(config)
	transport.DisableKeepAlives = true
	return d.ask(ctx, transport, path)
}

// callBound is how long one call may take.
const callBound = 10 * time.Second

// transport connects to the workload, wherever it is told to.
func (d door) transport(config *tls.Config) *http.Transport {
	dial := d.dial(d.workload.App.Port)
	return &http.Transport{TLSClientConfig: config, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
}

func (d door) ask(ctx context.Context, by http.RoundTripper, path string) (code int, body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+d.workload.Port().String()+path, nil)
	if err != nil {
		return 0, nil, err
	}
	response, err := by.RoundTrip(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	body, err = io.ReadAll(response.Body)
	return response.StatusCode, body, err
}

// kept is a connection to a service that stays open, with its one handshake.
type kept struct {
	door door
	conn *http.ClientConn
}

// keep connects to the service. The spec's end closes the connection.
func (d door) keep(ctx context.Context, config *tls.Config) *kept {
	GinkgoHelper()
	ctx, cancel := context.WithTimeout(ctx, callBound)
	defer cancel()
	conn, err := d.transport(config).NewClientConn(ctx, "https", d.workload.Port().String())
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { _ = conn.Close() }) // it may have been lost, which its calls have told
	return &kept{d, conn}
}

// get asks for a path on the connection. It makes no other one: the call fails when the
// connection is lost. A call that has begun is not given up, since the connection would go
// with it (net/http, Transport, of HTTP/1.1).
func (k *kept) get(ctx context.Context, path string) (code int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callBound)
	defer cancel()
	return k.door.ask(ctx, k.conn, path)
}

// refusal is the body of an answer that is none.
type refusal struct{ Error, Rule, Caller, Server string }

// refusedBy expects an answer with a status, and returns its body.
func (d door) refusedBy(ctx context.Context, svid *x509svid.SVID, path string, status int) refusal {
	GinkgoHelper()
	code, body, err := d.get(ctx, d.client(svid), path)
	Expect(err).NotTo(HaveOccurred())
	Expect(code).To(Equal(status), "%s", body)
	var r refusal
	Expect(json.Unmarshal(body, &r)).To(Succeed(), "%s", body)
	return r
}

// callsReport is what the frontend's page knows of the calls of the lab.
type callsReport struct {
	Calls []struct {
		Name, Caller, Server, Profile, Expect, State string
		Millis                                       float64
		Problem                                      *struct{ What, Detail string }
	}
}

// told asks the frontend, as its page does.
func (c *company) told(ctx context.Context) (r callsReport, err error) {
	w, err := c.graph.FindWorkload("frontend")
	if err != nil {
		return r, err
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.Expose.String()+"/api/calls", nil)
	if err != nil {
		return r, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	return r, json.NewDecoder(response.Body).Decode(&r)
}

// asItShould returns nil when each call of the lab is answered or refused as it
// should be.
func (c *company) asItShould(ctx context.Context) error {
	r, err := c.told(ctx)
	if err != nil {
		return err
	}
	if len(r.Calls) == 0 {
		return errors.New("the frontend reports no call")
	}
	var errs []error
	for _, call := range r.Calls {
		if call.State != "answered" && call.State != "refused" {
			errs = append(errs, fmt.Errorf("%s calls %s (%s): %s: %+v", call.Caller, call.Server, call.Name, call.State, call.Problem))
		}
	}
	return errors.Join(errs...)
}

// traffic is calls that go on while something happens.
type traffic struct {
	stop context.CancelFunc
	done sync.WaitGroup
	// made counts calls, lost has those that were not answered.
	made int
	lost []error
}

// flow calls a service again and again, each time on a connection of its own.
func flow(d door, config *tls.Config, path string) *traffic {
	return again(200*time.Millisecond, func(ctx context.Context) (int, []byte, error) { return d.get(ctx, config, path) })
}

// again makes a call at this pace, until end.
func again(pace time.Duration, call func(context.Context) (code int, body []byte, err error)) *traffic {
	ctx, stop := context.WithCancel(context.Background())
	t := &traffic{stop: stop}
	t.done.Go(func() {
		pace := time.NewTicker(pace)
		defer pace.Stop()
		for ctx.Err() == nil {
			began := time.Now()
			code, body, err := call(ctx)
			if err == nil && code != http.StatusOK {
				err = fmt.Errorf("%d: %s", code, body)
			}
			if ctx.Err() != nil {
				return
			}
			t.made++
			if err != nil {
				t.lost = append(t.lost, fmt.Errorf("%s: %w", began.Format(time.TimeOnly), err))
			}
			select {
			case <-pace.C:
			case <-ctx.Done():
			}
		}
	})
	return t
}

// end ends the calls.
func (t *traffic) end() {
	t.stop()
	t.done.Wait()
}

// relationshipOf returns what a status says of a relationship.
func relationshipOf(s lab.Status, truster, trusted string) lab.RelationshipStatus {
	for _, r := range s.Relationships {
		if r.Truster == truster && r.Trusted == trusted {
			return r
		}
	}
	return lab.RelationshipStatus{}
}

var (
	aws    = spiffeid.RequireTrustDomainFromString("aws.company.com")
	gcp    = spiffeid.RequireTrustDomainFromString("gcp.company.com")
	onprem = spiffeid.RequireTrustDomainFromString("onprem.company.com")
)
