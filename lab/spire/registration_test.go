package spire_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fedlab-dev/fedlab/lab/spire"
)

func TestCreateEntry(t *testing.T) {
	_, server := start(t, market)
	_, brokerServer := start(t, broker)
	entry := spire.Entry{
		SPIFFEID:      spiffeid.RequireFromPath(market, "/server"),
		ParentID:      spiffeid.RequireFromPath(market, "/agent"),
		Selectors:     []string{"k8s:pod-label:app:server", "unix:uid:1000"},
		FederatesWith: []spiffeid.TrustDomain{broker},
		X509SVIDTTL:   10 * time.Minute,
		JWTSVIDTTL:    time.Minute,
		Hint:          "internal",
		DNSNames:      []string{"zoo.shop.svc", "*.ant.shop.svc"},
		Admin:         true,
		Downstream:    true,
	}
	refused := func(e spire.Entry, code codes.Code, want string) {
		t.Helper()
		id, err := server.CreateEntry(t.Context(), e)
		if err == nil || err.Error() != want || status.Code(err) != code || id != "" {
			t.Errorf("ID %q, error = %v; want none, code %s and %s", id, err, code, want)
		}
	}
	const doing = "create entry of spiffe://cluster1.com/server on SPIRE server of cluster1.com: "

	refused(entry, codes.Internal, doing+`rpc error: code = Internal desc = failed to create entry: unable to find federated bundle "spiffe://cluster2.com"`)
	if err := server.SetBundle(t.Context(), mustBundle(t, brokerServer)); err != nil {
		t.Fatal(err)
	}
	id, err := server.CreateEntry(t.Context(), entry)
	if err != nil {
		t.Fatal(err)
	}
	refused(entry, codes.AlreadyExists, doing+"rpc error: code = AlreadyExists desc = similar entry already exists")
	unselective := entry
	unselective.Selectors = []string{"all"}
	refused(unselective, codes.Unknown, doing+`selector "all" has no colon`)

	named := spire.Entry{ID: "chosen", SPIFFEID: entry.SPIFFEID, ParentID: entry.ParentID, Selectors: []string{"unix:uid:0"}}
	if got, err := server.CreateEntry(t.Context(), named); err != nil || got != named.ID {
		t.Errorf("ID %q, error %v; want %s", got, err, named.ID)
	}
	if err := server.DeleteEntry(t.Context(), named.ID); err != nil {
		t.Error(err)
	}
	wantNotFound(t, server.DeleteEntry(t.Context(), named.ID), "delete entry chosen on SPIRE server of cluster1.com: ")

	entry.ID = id
	if entries, err := server.Entries(t.Context()); err != nil || !reflect.DeepEqual(entries, []spire.Entry{entry}) {
		t.Errorf("entries = %+v, %v; want %+v", entries, err, entry)
	}
}
