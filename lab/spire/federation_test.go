package spire_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/spire/spiretest"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// federate makes truster fetch the bundle of trusted with what the resource for
// it says, except where the endpoint is and the SPIFFE ID it must show; with
// a zero ID the profile is https_web.
func federate(t *testing.T, truster, trusted *spiretest.Server, bundle *spiffebundle.Bundle, endpointID spiffeid.ID) {
	t.Helper()
	profile := topology.HTTPSWeb
	if !endpointID.IsZero() {
		profile = topology.HTTPSSPIFFE
	}
	resource, err := spire.FederatedTrustDomain(trust(truster.TrustDomain, trusted.TrustDomain, profile), bundle)
	if err != nil {
		t.Fatal(err)
	}
	spec := resource.Spec.(spire.FederatedTrustDomainSpec)
	path := filepath.Join(t.TempDir(), "bundle.json")
	if err := os.WriteFile(path, []byte(spec.TrustDomainBundle), 0o600); err != nil {
		t.Fatal(err)
	}
	command := []string{
		"federation", "create",
		"-trustDomain", spec.TrustDomain,
		"-bundleEndpointURL", trusted.BundleEndpoint,
		"-bundleEndpointProfile", string(spec.BundleEndpointProfile.Type),
		"-trustDomainBundlePath", path,
		"-trustDomainBundleFormat", "spiffe",
	}
	if spec.BundleEndpointProfile.EndpointSPIFFEID != "" {
		command = append(command, "-endpointSpiffeID", endpointID.String())
	}
	truster.Run(t, command...)
}

func TestFederatedServers(t *testing.T) {
	marketProcess, marketServer := start(t, market)
	brokerProcess, brokerServer := start(t, broker)
	source, err := marketServer.Bundle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	held := func() federation.Comparison {
		t.Helper()
		bundle, err := brokerServer.HeldBundle(t.Context(), market)
		if err != nil {
			t.Fatal(err)
		}
		return federation.Compare(bundle, source)
	}

	if got := held().State; got != federation.Missing {
		t.Fatalf("before they federate the bundle is %s, want missing", got)
	}
	wantNotFound(t, brokerServer.RefreshBundle(t.Context(), market), "refresh held bundle of cluster1.com on SPIRE server of cluster2.com: ")

	federate(t, brokerProcess, marketProcess, source, spire.ServerID(market))
	relationships, err := brokerServer.Relationships(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []spire.Relationship{{
		RelationshipSpec: topology.RelationshipSpec{Truster: broker, Trusted: market, Profile: topology.HTTPSSPIFFE},
		URL:              marketProcess.BundleEndpoint,
		EndpointID:       spire.ServerID(market),
	}}
	if !reflect.DeepEqual(relationships, want) {
		t.Errorf("relationships = %+v, want %+v", relationships, want)
	}
	if got, err := marketServer.Relationships(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("relationships of whom is trusted = %+v, %v; want none: they are one way", got, err)
	}

	// The server fetches as soon as the relationship is there.
	eventually(t, func(context.Context) error {
		if c := held(); c.State != federation.InSync {
			return errors.New(c.String())
		}
		return nil
	})
	bundle, err := brokerServer.HeldBundle(t.Context(), market)
	if err != nil {
		t.Fatal(err)
	}
	if hint, _ := bundle.RefreshHint(); hint != time.Minute {
		t.Errorf("fetched bundle has refresh hint %s, want that of the endpoint, 1m0s", hint)
	}

	// A bundle that fell behind is repaired by a fetch.
	if err := brokerServer.SetBundle(t.Context(), spiffebundle.FromX509Authorities(market, source.X509Authorities())); err != nil {
		t.Fatal(err)
	}
	if got := held().State; got != federation.Behind {
		t.Fatalf("without its JWT authority the bundle is %s, want behind", got)
	}
	if err := brokerServer.RefreshBundle(t.Context(), market); err != nil {
		t.Fatal(err)
	}
	if got := held().State; got != federation.InSync {
		t.Errorf("after a refresh the bundle is %s, want in sync", got)
	}

	// One that cannot authenticate the endpoint any more is not.
	brokerBundle, err := brokerServer.Bundle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := brokerServer.SetBundle(t.Context(), relabelled(brokerBundle, market)); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, brokerServer.RefreshBundle(t.Context(), market), "certificate signed by unknown authority")
	if got := held().State; got != federation.Foreign {
		t.Errorf("with another domain's authorities the bundle is %s, want foreign", got)
	}
	if err := brokerServer.SetBundle(t.Context(), source); err != nil {
		t.Fatal(err)
	}
	if err := brokerServer.RefreshBundle(t.Context(), market); err != nil {
		t.Errorf("refresh after the bundle was set right: %v", err)
	}

	// A relationship that ends leaves its bundle behind.
	brokerProcess.Run(t, "federation", "delete", "-id", "spiffe://cluster1.com")
	if got, err := brokerServer.Relationships(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("relationships after it was deleted = %+v, %v; want none", got, err)
	}
	if got := held().State; got != federation.InSync {
		t.Errorf("after the relationship was deleted the bundle is %s, want in sync", got)
	}
	if err := brokerServer.DeleteBundle(t.Context(), market, spire.DeleteRestrict); err != nil {
		t.Error(err)
	}
}

func TestWrongEndpointIDIsNotFetched(t *testing.T) {
	marketProcess, marketServer := start(t, market)
	brokerProcess, brokerServer := start(t, broker)

	source, err := marketServer.Bundle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	federate(t, brokerProcess, marketProcess, source, spiffeid.RequireFromPath(market, "/spire/other"))
	// Whether the server goes on polling does not matter here, so that the test
	// may be quicker than RefreshBundle asks of its callers.
	wantRefused(t, brokerServer.RefreshBundle(t.Context(), market), `unexpected ID "spiffe://cluster1.com/spire/server"`)
	bundle, err := brokerServer.HeldBundle(t.Context(), market)
	if err != nil {
		t.Fatal(err)
	}
	if len(bundle.JWTAuthorities()) != 0 {
		t.Errorf("bundle was fetched from an endpoint with the wrong SPIFFE ID")
	}

	// The same with the right one, so that the above was refused for its cause.
	brokerProcess.Run(t, "federation", "delete", "-id", "spiffe://cluster1.com")
	federate(t, brokerProcess, marketProcess, source, spire.ServerID(market))
	eventually(t, func(ctx context.Context) error {
		bundle, err := brokerServer.HeldBundle(ctx, market)
		if err != nil {
			return err
		}
		if c := federation.Compare(bundle, source); c.State != federation.InSync {
			return errors.New(c.String())
		}
		return nil
	})
}

func wantRefused(t *testing.T, err error, cause string) {
	t.Helper()
	if failed := (*spire.FetchError)(nil); !errors.As(err, &failed) || !strings.Contains(err.Error(), cause) {
		t.Errorf("error = %v, want a FetchError and %q", err, cause)
	}
}

func TestCreateRelationship(t *testing.T) {
	web := newWebEndpoint(t)
	spiffeProcess, spiffeServer := start(t, market)
	webProcess, webServer := startWith(t, spiretest.Config{TrustDomain: absent, Profile: web.profile()})
	_, truster := startWith(t, spiretest.Config{TrustDomain: broker, Env: web.roots(t)})
	bySPIFFE := spire.Relationship{
		RelationshipSpec: topology.RelationshipSpec{Truster: broker, Trusted: market, Profile: topology.HTTPSSPIFFE},
		URL:              spiffeProcess.BundleEndpoint,
		EndpointID:       spire.ServerID(market),
	}
	byWeb := spire.Relationship{
		RelationshipSpec: topology.RelationshipSpec{Truster: broker, Trusted: absent, Profile: topology.HTTPSWeb},
		URL:              webProcess.BundleEndpoint,
	}
	refused := func(r spire.Relationship, bundle *spiffebundle.Bundle, code codes.Code, want string) {
		t.Helper()
		if err := truster.CreateRelationship(t.Context(), r, bundle); err == nil || err.Error() != want || status.Code(err) != code {
			t.Errorf("error = %v, want code %s and %s", err, code, want)
		}
	}

	// What the server does not see.
	wrong := bySPIFFE
	wrong.Truster = absent
	refused(wrong, nil, codes.Unknown, "create relationship absent.com->cluster1.com on SPIRE server of cluster2.com: it is one of absent.com")
	wrong = bySPIFFE
	wrong.Profile = "https"
	refused(wrong, nil, codes.Unknown, `create relationship cluster2.com->cluster1.com on SPIRE server of cluster2.com: unknown profile "https"`)
	// What it refuses.
	wrong = byWeb
	wrong.URL = strings.Replace(wrong.URL, "https", "http", 1)
	refused(wrong, nil, codes.InvalidArgument, "create relationship cluster2.com->absent.com on SPIRE server of cluster2.com: rpc error: code = InvalidArgument "+
		"desc = failed to convert federation relationship: bundle endpoint URL must use the https scheme")
	source := mustBundle(t, spiffeServer)
	refused(byWeb, source, codes.InvalidArgument, "create relationship cluster2.com->absent.com on SPIRE server of cluster2.com: rpc error: code = InvalidArgument "+
		`desc = failed to convert federation relationship: trust domain bundle ("cluster1.com") must match the trust domain of the federation relationship ("absent.com")`)

	if err := truster.CreateRelationship(t.Context(), bySPIFFE, withoutJWT(source)); err != nil {
		t.Fatal(err)
	}
	if err := truster.CreateRelationship(t.Context(), byWeb, nil); err != nil {
		t.Fatal(err)
	}
	inSync(t, truster, source)
	inSync(t, truster, mustBundle(t, webServer))
	if got, err := truster.Relationships(t.Context()); err != nil || !reflect.DeepEqual(got, []spire.Relationship{byWeb, bySPIFFE}) {
		t.Errorf("relationships = %+v, %v; want those that were created", got, err)
	}

	// The one that is there stands, and so does its bundle.
	err := truster.CreateRelationship(t.Context(), bySPIFFE, withoutJWT(source))
	if status.Code(err) != codes.Internal {
		t.Errorf("a second relationship with the same domain: %v, want code Internal", err)
	}
	inSync(t, truster, source)

	if err := truster.DeleteRelationship(t.Context(), market); err != nil {
		t.Fatal(err)
	}
	wantNotFound(t, truster.DeleteRelationship(t.Context(), market), "delete relationship with cluster1.com on SPIRE server of cluster2.com: ")
	wantNotFound(t, truster.RefreshBundle(t.Context(), market), "refresh held bundle of cluster1.com on SPIRE server of cluster2.com: ")
	inSync(t, truster, source)
	if got, err := truster.Relationships(t.Context()); err != nil || !reflect.DeepEqual(got, []spire.Relationship{byWeb}) {
		t.Errorf("relationships = %+v, %v; want the other one", got, err)
	}
}
