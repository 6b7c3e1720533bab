package spire_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/spire/spiretest"
)

func TestReadFetches(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString
	const metrics = `# TYPE spire_server_bundle_manager_fetch_federated_bundle counter
spire_server_bundle_manager_fetch_federated_bundle{host="spire-server-0",status="OK",trust_domain_id="one_test"} 7
spire_server_bundle_manager_fetch_federated_bundle{host="spire-server-0",status="Unknown",trust_domain_id="one_test"} 2
spire_server_bundle_manager_fetch_federated_bundle{host="spire-server-0",status="Internal",trust_domain_id="one_test"} 1
spire_server_bundle_manager_fetch_federated_bundle_elapsed_time_count{status="OK",trust_domain_id="one_test"} 90
spire_server_bundle_manager_update_federated_bundle{host="spire-server-0",trust_domain_id="one_test"} 1.2e+01
spire_server_bundle_manager_update_federated_bundle{host="spire-server-0",trust_domain_id="two_test"} 5
`
	got, err := spire.ReadFetches([]byte(metrics), []spiffeid.TrustDomain{td("one.test"), td("two.test"), td("two-test"), td("new.test")})
	want := map[spiffeid.TrustDomain]spire.Fetches{td("one.test"): {Done: 12, Failed: 3}, td("new.test"): {}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, error %v, want %v", got, err, want)
	}
	if _, err := spire.ReadFetches([]byte(`spire_server_bundle_manager_update_federated_bundle{} many`), nil); err == nil {
		t.Error("a number that is none was read")
	}
}

// TestFetchesOfAServer: a real server counts what was fetched, and what was not.
func TestFetchesOfAServer(t *testing.T) {
	marketProcess, marketServer := start(t, market)
	process := spiretest.Start(t, spiretest.Config{TrustDomain: broker, AdminID: spire.AdminID(broker), Metrics: true})
	source, err := marketServer.Bundle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	federate(t, process, marketProcess, source, spire.ServerID(market))
	awaits := func(want func(spire.Fetches) bool) {
		t.Helper()
		eventually(t, func(ctx context.Context) error {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, process.Metrics, nil)
			if err != nil {
				return err
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				return err
			}
			defer func() { _ = response.Body.Close() }()
			text, err := io.ReadAll(response.Body)
			if err != nil {
				return err
			}
			counted, err := spire.ReadFetches(text, []spiffeid.TrustDomain{market})
			if err == nil && !want(counted[market]) {
				err = fmt.Errorf("it has counted %+v", counted[market])
			}
			return err
		})
	}
	awaits(func(f spire.Fetches) bool { return f.Done == 1 && f.Failed == 0 })
	process.Run(t, "federation", "update", "-trustDomain", "cluster1.com", "-bundleEndpointURL", marketProcess.BundleEndpoint,
		"-bundleEndpointProfile", "https_spiffe", "-endpointSpiffeID", "spiffe://cluster1.com/nobody")
	awaits(func(f spire.Fetches) bool { return f.Done == 1 && f.Failed >= 1 })
}
