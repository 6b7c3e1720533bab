package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/calls"
	"github.com/fedlab-dev/fedlab/apps/internal/diagnosis"
	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// company is all programs of the enterprise demo, built and running on this
// machine, each with a Workload API of its own, on a real PostgreSQL.
type company struct {
	t        *testing.T
	dir      string
	cas      map[string]*apptest.CA          // who signs, by trust domain
	bundles  map[string]*x509bundle.Bundle   // of those who are federated, by trust domain
	apis     map[string]*apptest.WorkloadAPI // by workload
	keys     map[string]*apptest.JWTKey      // JWT authorities, by trust domain
	programs map[string]string               // path by name
	postgres *apptest.Postgres
	ports    map[string]string // host:port by workload
	logs     map[string]*apptest.Log
}

// The workloads, by the SPIFFE IDs that the article gives them.
const (
	frontendID = "spiffe://aws.company.com/ns/demo/service/frontend"
	dataID     = "spiffe://gcp.company.com/ns/demo/service/data-processing/version/v2"
	bridgeID   = "spiffe://onprem.company.com/datacenter/primary/system/mainframe-bridge"
	awsID      = "spiffe://aws.company.com/gateway/edge/us-east-1"
	gcpID      = "spiffe://gcp.company.com/gateway/edge/europe-west-1"
	onpremID   = "spiffe://onprem.company.com/gateway/edge/dc-1"
	partnerID  = "spiffe://partner.example.com/gateway/public/north"
)

func newCompany(t *testing.T) *company {
	t.Helper()
	postgres := apptest.NewPostgres(t)
	postgres.Start(t, &apptest.Log{})
	dir, err := os.MkdirTemp("", "company-") //nolint:usetesting // sockets have short paths, t.TempDir has not
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	c := &company{
		t: t, dir: dir, postgres: postgres, programs: map[string]string{}, ports: map[string]string{}, logs: map[string]*apptest.Log{},
		cas: map[string]*apptest.CA{}, bundles: map[string]*x509bundle.Bundle{}, apis: map[string]*apptest.WorkloadAPI{}, keys: map[string]*apptest.JWTKey{},
	}
	for _, name := range []string{"aws.company.com", "gcp.company.com", "onprem.company.com", "partner.example.com"} {
		c.cas[name], c.keys[name] = apptest.NewCA(t, name), apptest.NewJWTKey(t, name, "jwt-"+name)
		c.keys[name].Issuer = "https://oidc." + name
		if !strings.HasPrefix(name, "partner") {
			c.bundles[name] = c.cas[name].Bundle()
		}
	}
	for _, name := range []string{"frontend", "data-service", "legacy-bridge", "api-gateway"} {
		c.programs[name] = apptest.Build(t, dir, name)
	}
	for _, id := range []string{frontendID, dataID, bridgeID, bridgeID + "#database", awsID, gcpID, onpremID, partnerID} {
		c.ports[id] = apptest.Address(t)
	}
	return c
}

// start starts a program as the workload called id.
func (c *company) start(program, id string, args ...string) {
	c.t.Helper()
	socket := filepath.Join(c.dir, fmt.Sprintf("%d.sock", len(c.logs)))
	c.apis[id], _ = apptest.ServeWorkloadAPI(c.t, socket)
	c.issue(id)
	c.logs[id] = &apptest.Log{}
	args = append([]string{"-socket=unix://" + socket, "-listen=" + c.ports[id]}, args...)
	apptest.Start(c.t, c.logs[id], c.programs[program], args...)
}

// issue gives the workload called id a new SVID and the bundles of now.
func (c *company) issue(id string) {
	c.t.Helper()
	spiffe := spiffeid.RequireFromString(id)
	domain := spiffe.TrustDomain().Name()
	own := c.bundles[domain]
	if own == nil {
		own = c.cas[domain].Bundle()
	}
	jwt := []*jwtbundle.Bundle{c.keys[domain].Bundle()}
	for name := range c.bundles {
		jwt = append(jwt, c.keys[name].Bundle())
	}
	c.apis[id].SetJWT(spiffe.Path(), c.keys[domain], jwt...)
	c.apis[id].Set(c.t, c.cas[domain].Issue(c.t, spiffe.Path()), own, slices.Collect(maps.Values(c.bundles))...)
}

func (c *company) issueAll() {
	c.t.Helper()
	for id := range c.apis {
		c.issue(id)
	}
}

// service starts an HTTPS service that allows callers.
func (c *company) service(program, id string, callers []string, args ...string) {
	c.t.Helper()
	var domains []string
	for _, caller := range callers {
		domains = append(domains, spiffeid.RequireFromString(caller).TrustDomain().Name())
	}
	c.start(program, id, append(args, "-health-listen=127.0.0.1:0",
		"-allow-trust-domains="+strings.Join(domains, ","), "-allow-ids="+strings.Join(callers, ","))...)
}

func (c *company) database() []string {
	return []string{
		"-database-address=" + c.postgres.Address, "-database-name=" + apptest.PostgresName,
		"-database-user=" + apptest.PostgresUser, "-database-password-file=" + c.postgres.PasswordFile,
	}
}

// target is a call of the workload called id.
func (c *company) target(name, id, path, profile string, expect diagnosis.Class) calls.Target {
	return calls.Target{
		Name: name, URL: "https://" + c.ports[id] + path, Server: spiffeid.RequireFromString(id), Profile: profile, Expect: expect,
		Report: path == "/api/calls",
	}
}

// token is a call with a JWT-SVID.
func (c *company) token(name, id string, expect diagnosis.Class) calls.Target {
	target := c.target(name, id, "/api/health", "https_spiffe", expect)
	target.Token = true
	return target
}

// run starts everything, as the lab does.
func (c *company) run() {
	c.t.Helper()
	const spiffe, web = "https_spiffe", "https_web"
	c.service("data-service", dataID, []string{frontendID, bridgeID, awsID, gcpID}, append(c.database(), "-raw-trust-domains=onprem.company.com")...)
	c.service("legacy-bridge", bridgeID, []string{frontendID, awsID, gcpID}, append(c.database(), "-database-listen="+c.ports[bridgeID+"#database"],
		"-calls="+calls.Targets{c.target("raw records", dataID, "/api/process-data?type=raw", spiffe, "")}.String())...)
	c.service("api-gateway", awsID, []string{frontendID, gcpID, onpremID}, "-upstreams="+calls.Targets{
		c.target("gcp", dataID, "", spiffe, ""), c.target("onprem", bridgeID, "", web, ""),
	}.String())
	c.service("api-gateway", gcpID, []string{frontendID}, "-issuers=aws.company.com=https://oidc.aws.company.com", "-upstreams="+calls.Targets{
		c.target("aws", awsID, "", spiffe, ""), c.target("onprem", bridgeID, "", spiffe, ""), c.target("data", dataID, "", "", ""),
	}.String())
	c.service("api-gateway", onpremID, []string{frontendID}, "-issuers=aws.company.com=https://oidc.elsewhere.com", "-upstreams="+calls.Targets{
		c.target("aws", awsID, "", spiffe, ""), c.target("gcp", dataID, "", spiffe, diagnosis.NotPermitted),
	}.String())
	c.service("api-gateway", partnerID, []string{frontendID}, "-upstreams=[]")
	c.start("frontend", frontendID, "-calls="+calls.Targets{
		c.target("orders", dataID, "/api/process-data", spiffe, ""),
		c.target("raw records", dataID, "/api/process-data?type=raw", spiffe, diagnosis.NotPermitted),
		c.target("ledger", bridgeID, "/api/legacy-data", web, ""),
		c.target("orders through the gateway", awsID, "/gcp/api/process-data", "", ""),
		c.target("partner", partnerID, "/api/health", "", diagnosis.NotFederated),
		c.target("calls of the bridge", bridgeID, "/api/calls", web, ""),
		c.target("calls of the gateway", awsID, "/api/calls", "", ""),
		c.target("calls of gcp", gcpID, "/api/calls", spiffe, ""),
		c.target("calls of onprem", onpremID, "/api/calls", web, ""),
		c.token("gcp by token", gcpID, ""),
		c.token("another issuer by token", onpremID, diagnosis.NotPermitted),
		c.token("no gateway by token", dataID, diagnosis.NotPermitted),
	}.String())
}

func (c *company) report() (r calls.Report, err error) {
	request, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, "http://"+c.ports[frontendID]+"/api/calls", nil)
	if err != nil {
		return r, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return r, err
	}
	return r, errors.Join(json.NewDecoder(response.Body).Decode(&r), response.Body.Close())
}

// TestCompany has every program of the demo call the others as the lab has
// them do.
func TestCompany(t *testing.T) {
	c := newCompany(t)
	c.run()
	want := []string{
		"aws.company.com answered by aws.company.com: calls of the gateway",
		"aws.company.com answered by aws.company.com: orders through the gateway",
		"aws.company.com answered by gcp.company.com: calls of gcp",
		"aws.company.com answered by gcp.company.com: gcp",
		"aws.company.com answered by gcp.company.com: gcp by token",
		"aws.company.com answered by gcp.company.com: orders",
		"aws.company.com answered by onprem.company.com: calls of onprem",
		"aws.company.com answered by onprem.company.com: calls of the bridge",
		"aws.company.com answered by onprem.company.com: ledger",
		"aws.company.com answered by onprem.company.com: onprem",
		"aws.company.com refused by gcp.company.com: no gateway by token",
		"aws.company.com refused by gcp.company.com: raw records",
		"aws.company.com refused by onprem.company.com: another issuer by token",
		"aws.company.com refused by partner.example.com: partner",
		"gcp.company.com answered by aws.company.com: aws",
		"gcp.company.com answered by gcp.company.com: data",
		"gcp.company.com answered by onprem.company.com: onprem",
		"onprem.company.com answered by aws.company.com: aws",
		"onprem.company.com answered by gcp.company.com: raw records",
		"onprem.company.com refused by gcp.company.com: gcp",
	}
	var last calls.Report
	var lastErr error
	defer func() {
		if t.Failed() {
			t.Logf("last report: %v\n%+v", lastErr, last)
		}
	}()
	asItShould := func() bool {
		if last, lastErr = c.report(); lastErr != nil {
			return false
		}
		var got []string
		for _, v := range last.Calls {
			got = append(got, fmt.Sprintf("%s %s by %s: %s", v.Caller.TrustDomain(), v.State, v.Server.TrustDomain(), v.Name))
		}
		slices.Sort(got)
		return slices.Equal(got, want)
	}
	apptest.Await(t, "every call to be answered or refused as it should be", asItShould)
	for _, v := range last.Calls {
		if v.Name == "orders" && (v.Type != "aggregated" || v.Records != 1500 || v.Peer == nil || v.Peer.ID.String() != dataID) {
			t.Errorf("orders are %+v", v)
		}
		if v.Name == "another issuer by token" && !strings.Contains(v.Problem.What, `the issuer of a JWT-SVID of aws.company.com must be "https://oidc.elsewhere.com"`) {
			t.Errorf("the issuer is refused with %+v", v.Problem)
		}
		if byToken := strings.HasSuffix(v.Name, "by token"); v.Token != byToken {
			t.Errorf("%s: token is %t", v.Name, v.Token)
		}
		if v.Caller.String() == bridgeID && (v.Type != "raw" || !v.Reported) {
			t.Errorf("what the bridge gets is %+v", v)
		}
	}
	c.logs[dataID].Await(t, "claimed_original_caller="+frontendID)

	// A new authority is published before it signs; nobody feels it.
	const gcp = "gcp.company.com"
	next := apptest.NewCA(t, gcp)
	c.bundles[gcp] = next.Bundle(c.cas[gcp])
	c.issueAll()
	for id := range c.apis {
		apptest.Await(t, "the second identity of "+id, func() bool { return c.logs[id].Count("identity received") >= 2 })
	}
	c.cas[gcp] = next
	c.issueAll()
	apptest.Await(t, "the new authority to be met", func() bool {
		whole := asItShould()
		for _, v := range last.Calls {
			if v.State == calls.Failed && v.Problem.Class != diagnosis.NoAnswer { // a busy machine may be slow
				t.Fatalf("the rotation was felt: %+v", v)
			}
		}
		return whole && slices.ContainsFunc(last.Calls, func(v calls.View) bool {
			return v.Name == "orders" && v.Peer.VerifiedBy.SubjectKeyID == hex.EncodeToString(next.Root.SubjectKeyId)
		})
	})
}
