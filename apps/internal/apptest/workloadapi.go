package apptest

import (
	"crypto/x509"
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// WorkloadAPI answers as an agent does that knows one workload at most.
type WorkloadAPI struct {
	workload.UnimplementedSpiffeWorkloadAPIServer

	mu       sync.Mutex
	answer   *workload.X509SVIDResponse // nil: refused
	changed  chan struct{}              // closed when answer is replaced
	jwt      *jwtAnswers                // nil: refused
	refusal  codes.Code
	refusals int
}

// ServeWorkloadAPI listens on the Unix socket at path until stop is called
// or the test ends. It knows no workload before Set.
func ServeWorkloadAPI(t *testing.T, path string) (api *WorkloadAPI, stop func()) {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	api = &WorkloadAPI{changed: make(chan struct{}), refusal: codes.PermissionDenied}
	server := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(server, api)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	stop = sync.OnceFunc(func() {
		server.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("serve Workload API: %v", err)
		}
	})
	t.Cleanup(stop)
	return api, stop
}

// Set makes the API hand out svid, with its hint, the bundle of its own trust
// domain, and those it federates with.
func (api *WorkloadAPI) Set(t *testing.T, svid *x509svid.SVID, own *x509bundle.Bundle, federatesWith ...*x509bundle.Bundle) {
	t.Helper()
	api.SetAll(t, []*x509svid.SVID{svid}, own, federatesWith...)
}

// SetAll is Set for a workload with several identities, in this order.
func (api *WorkloadAPI) SetAll(t *testing.T, svids []*x509svid.SVID, own *x509bundle.Bundle, federatesWith ...*x509bundle.Bundle) {
	t.Helper()
	answer := &workload.X509SVIDResponse{FederatedBundles: map[string][]byte{}}
	for _, svid := range svids {
		key, err := x509.MarshalPKCS8PrivateKey(svid.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		answer.Svids = append(answer.Svids, &workload.X509SVID{
			SpiffeId:    svid.ID.String(),
			X509Svid:    concat(svid.Certificates),
			X509SvidKey: key,
			Bundle:      concat(own.X509Authorities()),
			Hint:        svid.Hint,
		})
	}
	for _, bundle := range federatesWith {
		answer.FederatedBundles[bundle.TrustDomain().IDString()] = concat(bundle.X509Authorities())
	}
	api.mu.Lock()
	defer api.mu.Unlock()
	api.answer = answer
	close(api.changed)
	api.changed = make(chan struct{})
}

// FetchX509SVID sends what Set said last, and again whenever it changes.
func (api *WorkloadAPI) FetchX509SVID(_ *workload.X509SVIDRequest, stream grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	for {
		api.mu.Lock()
		answer, changed, refusal := api.answer, api.changed, api.refusal
		if answer == nil {
			api.refusals++
		}
		api.mu.Unlock()
		if answer == nil {
			return status.Error(refusal, "no identity issued")
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return nil
		}
	}
}

// Refuse makes the API refuse with code until Set.
func (api *WorkloadAPI) Refuse(code codes.Code) {
	api.mu.Lock()
	defer api.mu.Unlock()
	api.refusal = code
}

// Refusals returns how often a workload asked before Set.
func (api *WorkloadAPI) Refusals() int {
	api.mu.Lock()
	defer api.mu.Unlock()
	return api.refusals
}

func concat(certs []*x509.Certificate) []byte {
	var der []byte
	for _, cert := range certs {
		der = append(der, cert.Raw...)
	}
	return der
}
