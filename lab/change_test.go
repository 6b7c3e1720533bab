package lab_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// labFile is a lab file in parts; the trust domain of a cluster is called after
// it.
type labFile struct {
	clusters []string
	// settings of the trust domains lead from clusters; federation and workloads
	// are entries. All are YAML without its outer braces.
	settings              map[string]string
	federation, workloads []string
}

const (
	webEndpoint   = "bundleEndpoint: {profile: https_web, httpsWeb: {servingCert: {ttl: 15m, fileSyncInterval: 10s, shortIntervals: true}}}"
	onpremStatic  = "from: gcp.company.com, to: onprem.company.com, mode: static"
	frontend      = "app: frontend, cluster: aws, expose: '127.0.0.1:8080'"
	dataService   = "app: data-service, cluster: gcp"
	legacyBridge  = "app: legacy-bridge, cluster: onprem"
	brokerPage    = "app: broker-webapp, cluster: aws, expose: '127.0.0.1:8081'"
	quotesService = "app: stock-quotes, cluster: gcp"
	branchGateway = "name: branch-gateway, app: api-gateway, cluster: branch"
)

// company is as the enterprise preset, and may be changed.
func company(changes ...func(*labFile)) labFile {
	f := labFile{
		clusters:   []string{"aws", "gcp", "onprem"},
		settings:   map[string]string{"aws": "datastore: postgres", "onprem": "upstreamAuthority: disk, " + webEndpoint},
		federation: []string{"shape: mesh", onpremStatic},
		workloads: []string{
			frontend, dataService, legacyBridge, "name: aws-gateway, app: api-gateway, cluster: aws",
			"name: gcp-gateway, app: api-gateway, cluster: gcp", "name: onprem-gateway, app: api-gateway, cluster: onprem",
		},
	}
	for _, change := range changes {
		change(&f)
	}
	return f
}

// federated sets who trusts whom.
func federated(entries ...string) func(*labFile) {
	return func(f *labFile) { f.federation = entries }
}

// with sets what is said of the trust domain of a cluster, which is new if there
// was none.
func with(cluster, settings string) func(*labFile) {
	return func(f *labFile) {
		if !slices.Contains(f.clusters, cluster) {
			f.clusters = append(f.clusters, cluster)
		}
		f.settings[cluster] = settings
	}
}

// running adds workloads.
func running(workloads ...string) func(*labFile) {
	return func(f *labFile) { f.workloads = append(f.workloads, workloads...) }
}

// without takes clusters out, with all that is said of them, or workloads.
func without(names ...string) func(*labFile) {
	return func(f *labFile) {
		for _, name := range names {
			f.clusters = slices.DeleteFunc(f.clusters, func(c string) bool { return c == name })
			f.federation = slices.DeleteFunc(f.federation, func(e string) bool { return strings.Contains(e, name+".company.com") })
			f.workloads = slices.DeleteFunc(f.workloads, func(w string) bool { return w == name || strings.Contains(w, "cluster: "+name) })
			delete(f.settings, name)
		}
	}
}

func (f labFile) topology(t *testing.T) topology.Topology {
	t.Helper()
	var b strings.Builder
	add := func(format string, args ...any) { _, _ = fmt.Fprintf(&b, format+"\n", args...) }
	add("{apiVersion: fedlab.dev/v1alpha1, kind: Lab, metadata: {name: company}, spec: {clusters: [")
	for _, c := range f.clusters {
		add("{name: %s, trustDomain: %s.company.com},", c, c)
	}
	add("], trustDomains: [")
	for _, c := range slices.Sorted(maps.Keys(f.settings)) {
		add("{name: %s.company.com, %s},", c, f.settings[c])
	}
	for field, entries := range map[string][]string{"federation": f.federation, "workloads": f.workloads} {
		add("], %s: [", field)
		for _, e := range entries {
			add("{%s},", e)
		}
	}
	add("]}}")
	return topologyOf(t, b.String())
}

// change is another lab file for a lab that runs.
type change struct {
	before, after labFile
	// restarted are the releases that run in both whose pods are not the same
	// afterwards.
	restarted string
}

func changes() map[string]change {
	const (
		awsAndGCP = "between: [aws.company.com, gcp.company.com]"
		awsToWeb  = "from: aws.company.com, to: onprem.company.com"
		gcpToWeb  = "from: gcp.company.com, to: onprem.company.com"
		webToGCP  = "from: onprem.company.com, to: gcp.company.com"
		webToAWS  = "from: onprem.company.com, to: aws.company.com"
	)
	chain := federated("shape: chain", onpremStatic)
	mode := func(m string) func(*labFile) { return federated("shape: mesh, mode: " + m) }
	branch := func(f *labFile) {
		with("branch", "datastore: postgres, "+webEndpoint)(f)
		running(branchGateway)(f)
	}
	return map[string]change{
		"relationships more":         {company(chain), company(), "aws/api-gateway aws/frontend aws/spire onprem/api-gateway onprem/legacy-bridge"},
		"relationships less":         {company(), company(chain), "aws/api-gateway aws/frontend aws/spire onprem/api-gateway onprem/legacy-bridge"},
		"one direction less":         {company(federated(awsAndGCP, awsToWeb, gcpToWeb, webToGCP, webToAWS)), company(federated(awsAndGCP, awsToWeb, gcpToWeb, webToGCP)), "aws/api-gateway aws/frontend onprem/api-gateway onprem/legacy-bridge"},
		"nobody trusts anybody":      {company(), company(federated()), "aws/api-gateway aws/frontend aws/spire gcp/api-gateway gcp/data-service gcp/spire onprem/api-gateway onprem/legacy-bridge"},
		"crd to static":              {company(mode("crd")), company(mode("static")), "aws/spire gcp/spire onprem/spire"},
		"static to manual":           {company(mode("static")), company(mode("manual")), "aws/spire gcp/spire onprem/spire"},
		"manual to crd":              {company(mode("manual")), company(mode("crd")), "aws/spire gcp/spire"},
		"crd to api":                 {company(mode("crd")), company(mode("api")), "aws/spire gcp/spire onprem/spire"},
		"api to crd":                 {company(mode("api")), company(mode("crd")), "aws/spire gcp/spire onprem/spire"},
		"api to static":              {company(mode("api")), company(mode("static")), "aws/spire gcp/spire onprem/spire"},
		"api to manual":              {company(mode("api")), company(mode("manual")), "aws/spire gcp/spire onprem/spire"},
		"relationships less by api":  {company(mode("api")), company(federated("shape: chain, mode: api")), "aws/api-gateway aws/frontend aws/spire onprem/api-gateway onprem/legacy-bridge"},
		"crd to manual":              {company(mode("crd")), company(mode("manual")), "aws/spire gcp/spire"},
		"manual to static":           {company(mode("manual")), company(mode("static")), "aws/spire gcp/spire onprem/spire"},
		"static to crd":              {company(mode("static")), company(mode("crd")), "aws/spire gcp/spire onprem/spire"},
		"a cluster more":             {company(), company(branch), "aws/frontend aws/spire gcp/data-service gcp/spire onprem/legacy-bridge onprem/spire"},
		"a plain cluster more":       {company(), company(with("branch", "logLevel: info"), running(branchGateway)), "aws/frontend gcp/data-service onprem/legacy-bridge"},
		"the first cluster less":     {company(), company(without("aws")), "gcp/api-gateway gcp/data-service onprem/api-gateway onprem/legacy-bridge"},
		"the middle cluster less":    {company(), company(without("gcp")), "aws/api-gateway aws/frontend onprem/api-gateway onprem/legacy-bridge"},
		"the last cluster less":      {company(), company(without("onprem")), "aws/api-gateway aws/frontend aws/spire gcp/api-gateway gcp/data-service gcp/spire"},
		"one cluster for another":    {company(), company(without("gcp"), branch), "aws/api-gateway aws/frontend aws/spire onprem/api-gateway onprem/legacy-bridge onprem/spire"},
		"a database less":            {company(), company(without(dataService)), "aws/api-gateway aws/frontend gcp/api-gateway onprem/api-gateway onprem/legacy-bridge"},
		"a database more":            {company(without(dataService)), company(), "aws/api-gateway aws/frontend gcp/api-gateway onprem/api-gateway onprem/legacy-bridge"},
		"a bridge less":              {company(), company(without(legacyBridge)), "aws/api-gateway aws/frontend gcp/api-gateway gcp/data-service onprem/api-gateway"},
		"the port of an endpoint":    {company(), company(with("gcp", "bundleEndpoint: {port: 9443}")), ""},
		"the port of a web endpoint": {company(), company(with("onprem", "upstreamAuthority: disk, "+strings.Replace(webEndpoint, "profile", "port: 9443, profile", 1))), "gcp/spire"},
		"a name for an endpoint":     {company(), company(with("gcp", namedGCP)), ""},
		"a name for a web endpoint":  {company(), company(with("onprem", namedOnprem)), "gcp/spire onprem/spire"},
		"a certificate by ACME":      {company(), ordering(), "aws/spire gcp/spire onprem/spire"},
		"two certificates by ACME":   {ordering(), ordering(with("gcp", "logLevel: debug")), "gcp/spire"},
		"no name for endpoints":      {byName(), company(), "gcp/spire onprem/spire"},
		"one workload for another":   {company(), company(without(dataService), running("app: legacy-bridge, name: gcp-bridge, cluster: gcp")), "aws/api-gateway aws/frontend gcp/api-gateway onprem/api-gateway onprem/legacy-bridge"},
		"a workload moves":           {company(), company(without(dataService), running("app: data-service, cluster: onprem")), "aws/api-gateway aws/frontend gcp/api-gateway onprem/api-gateway onprem/legacy-bridge"},
		"another app under a name": {
			company(without(dataService), running("name: data, app: stock-quotes, cluster: gcp")),
			company(without(dataService), running("name: data, app: data-service, cluster: gcp")), "aws/api-gateway aws/frontend gcp/api-gateway onprem/api-gateway onprem/legacy-bridge",
		},
		"another name for a workload": {
			company(), company(without(dataService), running("name: orders, app: data-service, cluster: gcp")),
			"aws/api-gateway aws/frontend gcp/api-gateway onprem/api-gateway",
		},
		"another page at an address": {
			company(without(frontend), running(strings.Replace(brokerPage, "8081", "8080", 1), quotesService)), company(running(quotesService)),
			"aws/api-gateway gcp/api-gateway gcp/data-service gcp/stock-quotes onprem/api-gateway onprem/legacy-bridge",
		},
		"two workloads swap their names": {
			company(), company(without(dataService, "name: gcp-gateway, app: api-gateway, cluster: gcp"),
				running("name: gcp-gateway, app: data-service, cluster: gcp", "name: data-service, app: api-gateway, cluster: gcp")),
			"aws/api-gateway aws/frontend gcp/api-gateway gcp/data-service onprem/api-gateway onprem/legacy-bridge",
		},
		"two pages in another order": {
			company(running(brokerPage, quotesService)),
			company(func(f *labFile) { f.workloads = append([]string{brokerPage, quotesService}, f.workloads...) }), "",
		},
		"a workload takes the name of its database": {
			company(), company(without(dataService), running("name: data-database, app: data-service, cluster: gcp")),
			"aws/api-gateway aws/frontend gcp/api-gateway onprem/api-gateway",
		},
		"a log level": {company(), company(with("gcp", "logLevel: debug")), "gcp/spire"},
		"a key type":  {company(), company(with("gcp", "ca: {keyType: rsa-2048}")), "gcp/spire"},
	}
}

// pods returns when the pods of each release were started.
func (w *world) pods() map[string]time.Time {
	all := map[string]time.Time{}
	for name, n := range w.nodes {
		for _, r := range n.releases {
			all[name.cluster+"/"+r.Namespace+"/"+r.Name] = r.ready
		}
	}
	return all
}

// places returns the addresses of what runs.
func (w *world) places() map[string]string {
	all := map[string]string{}
	for name, n := range w.nodes {
		all[name.cluster] = n.spec.Pods.String() + " " + n.spec.Services.String() + " " + n.objects[poolKey]
		for _, r := range n.releases {
			if r.demo.Service.Address != "" {
				all[name.cluster+"/"+r.Name] = r.demo.Service.Address
			}
		}
		if r := n.server(); r != nil {
			values, _ := r.Values.(spire.Values)
			all["server in "+name.cluster] = values.BundleEndpoint.Address
		}
	}
	return all
}

// shapes holds what labs look like that came up from nothing: many changes end in
// the same one.
var shapes sync.Map

func shapeOf(t *testing.T, file labFile) string {
	t.Helper()
	top := file.topology(t)
	known, ok := shapes.Load(string(encode(top)))
	if !ok {
		known, _ = shapes.LoadOrStore(string(encode(top)), fresh(t, top, (*world).shape))
	}
	shape, _ := known.(string)
	return shape
}

// TestUpWithAnotherFile brings another file into a lab that runs: what comes of
// it is a lab as the file alone makes it, except for the addresses: each keeps
// the one that it had. It comes of it, too, when an up on the way is killed or all is
// stopped.
func TestUpWithAnotherFile(t *testing.T) {
	for name, tt := range changes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := shapeOf(t, tt.after)
			var calls []string
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				if err := w.up(t, d, tt.before.topology(t)); err != nil {
					t.Fatal(err)
				}
				pods, places := w.pods(), w.places()
				w.calls = nil
				if err := w.up(t, d, tt.after.topology(t)); err != nil {
					t.Fatal(err)
				}
				calls = w.calls
				wantLines(t, w.shape(), want)
				w.wantPlaces(t, places)
				var restarted []string
				for name, since := range w.pods() {
					if before, ran := pods[name]; ran && !before.Equal(since) {
						cluster, name, _ := strings.Cut(name, "/")
						restarted = append(restarted, cluster+"/"+name[strings.Index(name, "/")+1:])
					}
				}
				if slices.Sort(restarted); strings.Join(restarted, " ") != tt.restarted {
					t.Errorf("restarted %s, want %s", restarted, tt.restarted)
				}
				w.wantNoop(t, d, tt.after.topology(t))
				w.wantOpen(t, d, tt.after.topology(t))
				if s, err := d.Status(t.Context(), tt.after.topology(t)); err != nil || !s.Well {
					t.Errorf("error %v, problems:\n%s", err, strings.Join(problems(s), "\n"))
				}
			})
			disturbances := []string{"/stopped"}
			for _, call := range slices.Compact(slices.Sorted(slices.Values(calls))) {
				disturbances = append(disturbances, call+"/killed before", call+"/killed after", call+"/fails once")
			}
			for _, name := range sample(t, disturbances, 1) {
				at := strings.LastIndex(name, "/")
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t)
						d := w.driver(t)
						if err := w.up(t, d, tt.before.topology(t)); err != nil {
							t.Fatal(err)
						}
						places := w.places()
						w.disturb(t, d, tt.after.topology(t), name[:at], name[at+1:])
						if err := w.up(t, d, tt.after.topology(t)); err != nil {
							t.Fatal(err)
						}
						wantLines(t, w.shape(), want)
						w.wantPlaces(t, places)
					})
				})
			}
		})
	}
}

// wantPlaces wants all that has a place to have it still, and no place to be
// taken twice.
func (w *world) wantPlaces(t *testing.T, before map[string]string) {
	t.Helper()
	taken := map[string]string{}
	for name, place := range w.places() {
		if was, ran := before[name]; ran && was != place {
			t.Errorf("%s was at %s, and is at %s", name, was, place)
		}
		if other, twice := taken[place]; twice {
			t.Errorf("%s and %s are both at %s", name, other, place)
		}
		taken[place] = name
	}
}

// wantOpen wants a handle on a lab to know where the servers are.
func (w *world) wantOpen(t *testing.T, d *lab.Driver, top topology.Topology) {
	t.Helper()
	l, err := d.Open(t.Context(), top)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range l.Graph.Servers() {
		in := s.Place.Cluster.Name
		if place := w.places()["server in "+in]; s.Address.String() != place {
			t.Errorf("the server in %s is told to be at %s; it is at %s", in, s.Address, place)
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// disturb stops all, or has an up end that fails or is killed.
func (w *world) disturb(t *testing.T, d *lab.Driver, top topology.Topology, call, what string) {
	t.Helper()
	switch what {
	case "stopped":
		w.stopAll()
		return
	case "fails once":
		w.fault = once(call, fail)
	case "killed before":
		w.fault = once(call, killBefore)
	case "killed after":
		w.fault = once(call, killAfter)
	}
	if err := w.up(t, d, top); err == nil && what != "fails once" {
		t.Error("a killed up ended well")
	}
}

// TestUpWithAnotherFileAfterADisaster: where all that runs is to stay, only the
// clusters can tell, and not each of them does.
func TestUpWithAnotherFileAfterADisaster(t *testing.T) {
	stopped := func(clusters ...string) func(*world) {
		return func(w *world) {
			for _, c := range clusters {
				w.nodes[nodeName{"company", c}].running = false
			}
		}
	}
	for name, tt := range map[string]struct {
		change   string
		disaster func(*world)
	}{
		"all is stopped, and one goes": {"one cluster for another", (*world).stopAll},
		"all is stopped, and changes":  {"relationships more", (*world).stopAll},
		"all is stopped, and restarts": {"static to manual", (*world).stopAll},
		"what stays is stopped":        {"the first cluster less", stopped("gcp", "onprem")},
		"what goes is stopped":         {"the middle cluster less", stopped("gcp")},
		"one is stopped":               {"a cluster more", stopped("gcp")},
		"one is half-made":             {"the first cluster less", func(w *world) { w.renew(nodeName{"company", "gcp"}) }},
		"one is gone":                  {"the first cluster less", func(w *world) { delete(w.nodes, nodeName{"company", "gcp"}) }},
		"one is half-made, and silent": {"relationships less", func(w *world) {
			w.renew(nodeName{"company", "gcp"})
			w.nodes[nodeName{"company", "gcp"}].state = deaf
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt, disaster := changes()[tt.change], tt.disaster
			want := shapeOf(t, tt.after)
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				if err := w.up(t, d, tt.before.topology(t)); err != nil {
					t.Fatal(err)
				}
				places := w.places()
				disaster(w)
				for _, c := range tt.before.clusters { // whoever is gone has no place
					if w.nodes[nodeName{"company", c}] == nil {
						maps.DeleteFunc(places, func(of, _ string) bool { return strings.Contains(of, c) })
					}
				}
				if err := w.up(t, d, tt.after.topology(t)); err != nil {
					t.Fatal(err)
				}
				wantLines(t, w.shape(), want)
				w.wantPlaces(t, places)
			})
		})
	}
}

// TestUpLeavesWhatOthersMade: resources without fedlab's label, what stands on
// them, and releases that somebody installed are nobody's business.
func TestUpLeavesWhatOthersMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		// aws does not trust onprem, by the file.
		file := company(federated("shape: chain", onpremStatic)).topology(t)
		if err := w.up(t, d, file); err != nil {
			t.Fatal(err)
		}
		aws := w.nodes[nodeName{"company", "aws"}]
		bundle, err := w.nodes[nodeName{"company", "onprem"}].spire.bundle().Marshal()
		if err != nil {
			t.Fatal(err)
		}
		resource := func(kind, name string, spec any) any {
			return map[string]any{"apiVersion": spire.ResourceAPIVersion, "kind": kind, "metadata": map[string]any{"name": name}, "spec": spec}
		}
		stranger := newRelease(access.Release{Name: "stranger", Namespace: "demo", Chart: "stock-quotes", Values: map[string]any{"image": w.demoImage("stock-quotes")}})
		stranger.foreign = true
		aws.install(stranger)
		_, err = objects{aws}.Apply(t.Context(),
			resource("ClusterFederatedTrustDomain", "a-partner", spire.FederatedTrustDomainSpec{
				TrustDomain: "onprem.company.com", BundleEndpointURL: "https://10.192.3.1:8443",
				BundleEndpointProfile: spire.EndpointProfile{Type: topology.HTTPSWeb}, TrustDomainBundle: string(bundle),
			}),
			resource("ClusterSPIFFEID", "by-hand", spire.WorkloadIdentitySpec{
				SPIFFEIDTemplate:  "spiffe://{{ .TrustDomain }}/stranger",
				NamespaceSelector: spire.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": "demo"}},
				FederatesWith:     []string{"onprem.company.com"},
			}))
		if err != nil {
			t.Fatal(err)
		}
		made := w.dump()
		for _, line := range []string{
			`company/aws entry spiffe://aws.company.com/stranger, federates with ["onprem.company.com"]`,
			"company/aws holds the bundle of onprem.company.com: in sync",
		} {
			if !slices.Contains(strings.Split(made, "\n"), line) {
				t.Fatalf("there is no line %q", line)
			}
		}
		w.wantNoop(t, d, file)
		w.want(t, made)

		// What the file has besides it comes and goes.
		for _, next := range []labFile{company(), company(federated("shape: chain", onpremStatic))} {
			if err := w.up(t, d, next.topology(t)); err != nil {
				t.Fatal(err)
			}
		}
		w.want(t, made)
	})
}

// TestUpForgetsWhatAResourceDoesNotStandBehind: the controller manager makes no
// relationship of a resource with a class, and so it keeps none.
func TestUpForgetsWhatAResourceDoesNotStandBehind(t *testing.T) {
	for name, class := range map[string]string{"a class": "theirs", "no class": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				file := company(federated("shape: chain", onpremStatic)).topology(t)
				if err := w.up(t, d, file); err != nil {
					t.Fatal(err)
				}
				aws, onprem := w.nodes[nodeName{"company", "aws"}], w.nodes[nodeName{"company", "onprem"}].spire
				key := access.ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: "ClusterFederatedTrustDomain", Name: "a-partner"}
				aws.objects[key] = string(encode(map[string]any{
					"metadata": map[string]any{"name": key.Name},
					"spec": spire.FederatedTrustDomainSpec{
						TrustDomain: onprem.td.Name(), BundleEndpointURL: "https://10.192.3.1:8443",
						BundleEndpointProfile: spire.EndpointProfile{Type: topology.HTTPSWeb}, ClassName: class,
					},
				}))
				// A relationship is removed some time after its resource.
				aws.spire.held[onprem.td], aws.spire.relationships[onprem.td] = onprem.bundle(), &relationship{profile: topology.HTTPSWeb}
				looks := 0
				w.fault = func(call string) verdict {
					if call == "SPIRE ListFederationRelationships in aws" && class != "" {
						if looks++; looks == 5 {
							delete(aws.spire.relationships, onprem.td)
						}
					}
					return pass
				}
				if err := w.up(t, d, file); err != nil {
					t.Fatal(err)
				}
				if held := aws.spire.held[onprem.td] != nil; held != (class == "") {
					t.Errorf("its bundle is held: %t", held)
				}
			})
		})
	}
}

// TestUpHandsOverTheFirstBundleOfAStaticRelationship: a configuration has no
// place for it, and a server without it fetches nothing.
func TestUpHandsOverTheFirstBundleOfAStaticRelationship(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if err := w.up(t, w.driver(t), company(federated("shape: mesh, mode: static")).topology(t)); err != nil {
			t.Fatal(err)
		}
		// A server that is not given it first is told to fetch, gets nothing, and is told again.
		for _, cluster := range company().clusters {
			for _, call := range []string{"SPIRE BatchSetFederatedBundle in " + cluster, "SPIRE RefreshBundle in " + cluster} {
				made := slices.DeleteFunc(slices.Clone(w.calls), func(c string) bool { return c != call })
				if len(made) > 2 {
					t.Errorf("%d times %s, want once for each of two relationships", len(made), call)
				}
			}
		}
	})
}

// TestUpForgetsABundleThatNobodyAsksFor: a bundle has no label, and trust is not
// to outlast what the file says.
func TestUpForgetsABundleThatNobodyAsksFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		file := company(federated("shape: chain", onpremStatic)).topology(t)
		if err := w.up(t, d, file); err != nil {
			t.Fatal(err)
		}
		want := w.dump()
		aws, onprem := w.nodes[nodeName{"company", "aws"}].spire, w.nodes[nodeName{"company", "onprem"}].spire
		aws.held[onprem.td] = onprem.bundle()
		if err := w.up(t, d, file); err != nil {
			t.Fatal(err)
		}
		w.want(t, want)
	})
}

// TestUpPutsBackWhatHelmMade: what somebody did to an object of a release is
// undone, though the release is the one that is asked for.
func TestUpPutsBackWhatHelmMade(t *testing.T) {
	scaled := func(object string) string { return strings.Replace(object, `"replicas":1`, `"replicas":0`, 1) }
	deleted := func(string) string { return "" }
	for name, tt := range map[string]struct {
		cluster, apiVersion, kind, namespace, name string
		do                                         func(object string) string
		release                                    string
	}{
		"a program scaled to no pod": {"aws", "apps/v1", "Deployment", "distributed-app", "frontend", scaled, "frontend"},
		"a program deleted":          {"aws", "apps/v1", "Deployment", "distributed-app", "frontend", deleted, "frontend"},
		"its database":               {"gcp", "apps/v1", "StatefulSet", "distributed-app", "data-database", scaled, "data-database"},
		"a server scaled to no pod":  {"gcp", "apps/v1", "StatefulSet", topology.ServerNamespace, spire.ServerStatefulSet, scaled, "spire"},
		"a server's database":        {"aws", "apps/v1", "StatefulSet", topology.ServerNamespace, spire.DatabaseRelease, scaled, "spire-database"},
		"the roots of https_web":     {"aws", "v1", "ConfigMap", topology.ServerNamespace, spire.WebRootsConfigMap, deleted, "spire"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				if err := w.up(t, d, company().topology(t)); err != nil {
					t.Fatal(err)
				}
				want := w.dump()
				n := w.nodes[nodeName{"company", tt.cluster}]
				key := access.ObjectKey{APIVersion: tt.apiVersion, Kind: tt.kind, Namespace: tt.namespace, Name: tt.name}
				before := n.objects[key]
				if n.objects[key] = tt.do(before); before == "" || n.objects[key] == before {
					t.Fatalf("nothing can be done to %s: %q", tt.name, before)
				}
				if n.objects[key] == "" {
					delete(n.objects, key)
				}
				if s, err := d.Status(t.Context(), company().topology(t)); err != nil || s.Well {
					t.Errorf("without it the lab is well, error %v", err)
				}
				w.mutations = nil
				if err := w.up(t, d, company().topology(t)); err != nil {
					t.Fatal(err)
				}
				if done := []string{"Releases.Apply " + tt.release + " in " + tt.cluster}; !slices.Equal(w.mutations, done) {
					t.Errorf("it changed %v, want %v", w.mutations, done)
				}
				w.want(t, want)
			})
		})
	}
}

// TestUpRemovesAReleaseBeforeItBringsItsObjects: somebody may have called it
// otherwise, and Helm gives no release the objects of another one.
func TestUpRemovesAReleaseBeforeItBringsItsObjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, company().topology(t)); err != nil {
			t.Fatal(err)
		}
		want := w.dump()
		aws := w.nodes[nodeName{"company", "aws"}]
		gateway := aws.demo("distributed-app", "api-gateway")
		delete(aws.releases, releaseName{gateway.Namespace, gateway.Name})
		gateway.Name = "aws-gateway"
		aws.releases[releaseName{gateway.Namespace, gateway.Name}] = gateway
		if err := w.up(t, d, company().topology(t)); err != nil {
			t.Fatal(err)
		}
		w.want(t, want)
	})
}

// TestUpBringsAChangedProgram: what runs next to the apps is edited, too.
func TestUpBringsAChangedProgram(t *testing.T) {
	for program, want := range map[string][]string{
		"serving-cert": {
			"Images.LoadDemo serving-cert", "Releases.Apply spire in aws", "Releases.Apply spire in gcp", "Releases.Apply spire in onprem",
		},
		"postgres": {
			"Images.LoadDemo postgres", "Images.LoadDemo postgres", "Images.LoadDemo postgres",
			"Releases.Apply data-database in gcp", "Releases.Apply legacy-database in onprem",
			// The server waits for its datastore with the same program.
			"Releases.Apply spire in aws", "Releases.Apply spire-database in aws",
		},
	} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				if err := w.up(t, d, enterprise(t)); err != nil {
					t.Fatal(err)
				}
				w.mutations, w.edits[program] = nil, 1
				if err := w.up(t, d, enterprise(t)); err != nil {
					t.Fatal(err)
				}
				if slices.Sort(w.mutations); !slices.Equal(w.mutations, want) {
					t.Errorf("it changed %v, want %v", w.mutations, want)
				}
				w.wantNoop(t, d, enterprise(t))
			})
		})
	}
}

// TestUpRemovesAProgramThatWasLeft: it runs next to the clusters for somebody who
// was killed. Another lab's stays.
func TestUpRemovesAProgramThatWasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		w.neighbour(t, d)
		want := w.dump()
		w.leave(t, d, "quotes")
		var said []string
		d.Observe = func(e plan.Event) {
			if e.Step == "surplus/quotes" && e.State != plan.Started {
				said = append(said, string(e.State)+" "+e.Note)
			}
		}
		w.mutations = nil
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		w.want(t, want)
		if done := []string{"Sidecars.Remove synthetic"}; !slices.Equal(w.mutations, done) {
			t.Errorf("it changed %v, want %v", w.mutations, done)
		}
		if want := []string{"remarked synthetic was left next to the clusters: removes it", "changed "}; !slices.Equal(said, want) {
			t.Errorf("said %q, want %q", said, want)
		}
	})
}
