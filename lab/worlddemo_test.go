package lab_test

import (
	"bufio"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"text/template"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// demoValues is what the demo programs, and the labels of their pods, are made of.
type demoValues struct {
	Image string
	// Labels that the templates of SPIFFE IDs read.
	Version, Datacenter, System, GatewayType, Region, Name string

	AllowedClients  []string
	Allowed         struct{ TrustDomains, IDs []string }
	RawTrustDomains []string
	Database        struct{ Address string }
	Quotes          struct{ Address, ID string }
	Calls           []call
	Upstreams       []call
	Ghostunnel      string
	Tunnels         []struct{ Listen, Target, Server string }
	Legacy          *struct{ URL, Bridge, Secret string }
	Service         struct {
		Address        string
		Port, NodePort int
	}
}

// call is one that a program makes.
type call struct {
	Name, URL, Server, Expect string
	Report                    bool
}

// view is how a program reports a call.
type view struct {
	Name    string   `json:"name"`
	Caller  string   `json:"caller"`
	Server  string   `json:"server"`
	State   string   `json:"state"`
	Problem *problem `json:"problem,omitempty"`
}

// problem is why a call failed, in the words of apps/internal/diagnosis.
type problem struct {
	Class  string `json:"class"`
	What   string `json:"what"`
	Detail string `json:"detail"`
}

func isDemo(chart string) bool { return appOf(chart).Name != "" }

// appOf returns the app whose chart that is; the zero App for none.
func appOf(chart string) topology.App {
	for _, app := range demo.Apps() {
		if app.Name == chart {
			return app
		}
	}
	return topology.App{}
}

// demo returns the release of a chart in a namespace; there is one at most.
func (n *node) demo(namespace, chart string) *release {
	for _, r := range n.releases {
		if r.Namespace == namespace && r.Chart == chart {
			return r
		}
	}
	return nil
}

// podLabels are those of a release's pods.
func podLabels(r *release) map[string]string {
	labels := map[string]string{"app.kubernetes.io/name": r.Chart, "app.kubernetes.io/instance": r.Name}
	maps.Copy(labels, map[string]map[string]string{
		"frontend":      {"component": "frontend", "service": "frontend"},
		"data-service":  {"component": "data-processing", "service": "data-processing", "version": r.demo.Version},
		"legacy-bridge": {"component": "legacy-bridge", "datacenter": r.demo.Datacenter, "system": r.demo.System},
		"api-gateway":   {"component": "api-gateway", "gateway-type": r.demo.GatewayType, "region": r.demo.Region},
		"service":       {"service": r.demo.Name},
		"plain-service": {"service": r.demo.Name},
	}[r.Chart])
	return labels
}

// registration is what a ClusterSPIFFEID comes to for a pod.
type registration struct {
	id            string
	federatesWith []string
	selectors     []string
	hint          string
	// by is the server of the controller manager, and agents the namespace of those
	// that hand the identity out.
	by     *spireServer
	agents string
}

// registrations returns what all ClusterSPIFFEIDs of a class come to in a trust domain for
// the pods of a release, as pkg/spireentry of the controller manager has it.
func (n *node) registrations(r *release, td spiffeid.TrustDomain, class string) (all []registration) {
	if !isDemo(r.Chart) {
		return nil // ignoreNamespaces
	}
	for key, text := range n.objects {
		if key.Kind != "ClusterSPIFFEID" {
			continue
		}
		spec := specOf[spire.WorkloadIdentitySpec](text)
		if specOf[struct{ ClassName string }](text).ClassName != class {
			continue
		}
		namespace := map[string]string{"kubernetes.io/metadata.name": r.Namespace}
		if !hasAll(namespace, spec.NamespaceSelector.MatchLabels) || !hasAll(podLabels(r), spec.PodSelector.MatchLabels) {
			continue
		}
		pod := struct {
			TrustDomain string
			PodMeta     struct {
				Namespace string
				Labels    map[string]string
			}
			PodSpec struct{ ServiceAccountName string }
		}{TrustDomain: td.Name()}
		pod.PodMeta.Namespace, pod.PodMeta.Labels, pod.PodSpec.ServiceAccountName = r.Namespace, podLabels(r), appOf(r.Chart).ServiceAccount
		made := registration{federatesWith: spec.FederatesWith, selectors: []string{"k8s:pod-uid:" + podUID(r)}, hint: spec.Hint}
		for i, text := range slices.Concat([]string{spec.SPIFFEIDTemplate}, spec.WorkloadSelectorTemplates, spec.DNSNameTemplates) {
			var out strings.Builder
			if err := template.Must(template.New("").Option("missingkey=error").Parse(text)).Execute(&out, pod); err != nil {
				panic(err) // podEntryRenderFailures
			}
			if i == 0 {
				made.id = out.String()
			} else if i <= len(spec.WorkloadSelectorTemplates) {
				made.selectors = append(made.selectors, out.String())
			}
		}
		all = append(all, made)
	}
	return all
}

// podUID is that of a release's one pod.
func podUID(r *release) string { return "uid-of-" + r.Namespace + "-" + r.Chart }

// pods returns the pods of the demo programs of a namespace that have these labels,
// by name.
func (n *node) demoPods(namespace string, labels map[string]string) map[string]any {
	all := map[string]any{}
	for _, r := range n.releases {
		key := access.ObjectKey{APIVersion: "apps/v1", Kind: "Deployment", Namespace: namespace, Name: appOf(r.Chart).Deployment}
		object, there := n.objects[key]
		if !isDemo(r.Chart) || r.Namespace != namespace || !there || strings.Contains(object, `"replicas":0`) || !hasAll(podLabels(r), labels) {
			continue
		}
		all[r.Chart+"-0"] = map[string]any{
			"metadata": map[string]any{"name": r.Chart + "-0", "namespace": namespace, "uid": podUID(r), "labels": podLabels(r)},
			"spec":     map[string]any{"serviceAccountName": appOf(r.Chart).ServiceAccount},
		}
	}
	return all
}

// identity returns the SPIFFE ID that a release's program presents; empty while it
// has none. Which of several that are not meant for it comes first is chance.
func (n *node) identity(r *release) string { return n.issued(r).id }

// issued returns the registration by which a release's program has its identity; the zero
// value while it has none.
func (n *node) issued(r *release) (first registration) {
	for _, registered := range r.registrations {
		if _, there := registered.by.entries[registered.id]; there && (first.id == "" || registered.hint == spire.Hint) {
			first = registered
		}
	}
	return first
}

// identifies reports whether a release's program is given an identity now.
func (n *node) identifies(r *release) bool {
	if n.host != nil {
		return n.host.identify(r)
	}
	for _, other := range n.nodes {
		if other.name.lab == n.name.lab && other.answers() == nil {
			_ = other.serves() // which makes the registrations
		}
	}
	by := n.issued(r).by
	return by != nil && by.node.answers() == nil && by.node.serves() == nil && (by.node == n || n.attendants[n.issued(r).agents].attest() == nil)
}

// party is one end of a call.
type party struct {
	*node
	*release
}

func (p party) id() string { return p.identity(p.release) }

// issuer is the server that has signed its SVID.
func (p party) issuer() *spireServer { return p.issued(p.release).by }

// stale holds when its agents hand out SVIDs of an authority that was revoked.
func (p party) stale() bool {
	if a := p.attendants[p.issued(p.release).agents]; a != nil {
		return a.stale
	}
	return p.issuer().stale
}

// presents returns the chain of its SVID.
func (p party) presents() ([]*x509.Certificate, error) {
	id, err := spiffeid.FromString(p.id())
	if err != nil {
		return nil, errors.New("remote error: tls: internal error") // it has none
	}
	signer, err := p.issuer().signer(p.stale())
	if err != nil {
		return nil, err
	}
	svid, err := signer.svid(id)
	if err != nil {
		return nil, err
	}
	return svid.Certificates, nil
}

// self is what a program says about itself.
func (p party) self() map[string]any {
	switch id := p.id(); {
	case id == "":
		return nil
	case p.stale():
		return map[string]any{"id": id}
	default:
		return map[string]any{"id": id, "verifiedBy": map[string]string{"subjectKeyID": "5a"}}
	}
}

// accepts holds when a party can verify whoever is of a trust domain.
func (p party) accepts(other party) bool {
	own, foreign := p.issuer(), other.issuer()
	if own.td == foreign.td {
		return own.bundle().HasX509Authority(foreign.root)
	}
	return own.verifies(foreign) && slices.Contains(own.entries[p.id()], foreign.td.Name())
}

// listener returns who listens at an address of a lab's network, from a node on it.
func (n *node) listener(address string) (party, bool) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return party{}, false
	}
	all := slices.Collect(maps.Values(n.nodes))
	for _, m := range n.hosts {
		all = append(all, m.node)
	}
	for _, other := range all {
		if other.name.lab != n.name.lab || other.answers() != nil || other.host == nil && other.objects[poolKey] == "" {
			continue
		}
		// MetalLB gives an address to the first that wants it.
		var first *release
		for _, r := range other.releases {
			if r.demo.Service.Address == at.Addr().String() && (first == nil || r.number < first.number) {
				first = r
			}
		}
		if first != nil && first.demo.Service.Port == int(at.Port()) && other.runs(first) == nil {
			return party{other, first}, true
		}
	}
	return party{}, false
}

// connects makes the handshake of a call: it works when both ends have an
// identity and the other's bundle.
func (p party) connects(address, server string) (party, *problem) {
	if p.id() == "" {
		return party{}, &problem{"no-identity", "no identity", "the caller has no SVID"}
	}
	to, there := p.listener(address)
	switch {
	case !there:
		return party{}, &problem{"unreachable", "unreachable", "no route to " + address}
	case to.id() == "":
		return party{}, &problem{"no-answer", "no answer", "the server has no SVID"}
	case !p.accepts(to):
		return party{}, &problem{"unknown-authority", "not trusted", "x509: certificate signed by unknown authority"}
	case to.id() != server:
		return party{}, &problem{"identity-refused", "somebody else", to.id() + " answers in place of " + server}
	case !to.accepts(p):
		return party{}, &problem{"refused-by-server", "not accepted", "remote error: tls: bad certificate"}
	}
	return to, nil
}

// calls makes a call over HTTPS; what the server says about its own calls comes
// with the answer.
func (p party) calls(address, server string) (told []view, failed *problem) {
	at, err := url.Parse(address)
	if err != nil {
		panic(err)
	}
	to, failed := p.connects(at.Host, server)
	if failed != nil {
		return nil, failed
	}
	caller := spiffeid.RequireFromString(p.id())
	domain := caller.TrustDomain().Name()
	allowed := to.release.demo.Allowed
	if to.Chart != plainService && !slices.Contains(allowed.TrustDomains, domain) || !slices.Contains(allowed.IDs, caller.String()) {
		return nil, &problem{"not-permitted", "not permitted", caller.String() + " is not on the list"}
	}
	none := &problem{"server-failed", "no such page", "404 " + at.Path}
	switch to.Chart + " " + at.Path {
	case "data-service /api/process-data":
		gets := "aggregated"
		if slices.Contains(to.release.demo.RawTrustDomains, domain) {
			gets = "raw"
		}
		if at.RawQuery != "" && at.RawQuery != "type="+gets {
			return nil, &problem{"not-permitted", "not permitted", domain + " gets " + gets + " data"}
		}
	case "data-service /api/legacy-data":
		if to.release.demo.Legacy == nil {
			return nil, none
		}
		where, err := url.Parse(to.release.demo.Legacy.URL)
		if err != nil {
			panic(err)
		}
		// The port of the bridge that leads to its database is next to its own.
		if _, failed := to.connects(where.Hostname()+":8443", to.release.demo.Legacy.Bridge); failed != nil {
			return nil, failed
		}
	case "data-service /api/health", "legacy-bridge /api/health", "api-gateway /api/health", "service /api/health", "plain-service /api/health", "legacy-bridge /api/legacy-data":
	case "legacy-bridge /api/calls", "api-gateway /api/calls", "service /api/calls", "plain-service /api/calls":
		return to.told(), nil
	default:
		upstream, rest, _ := strings.Cut(strings.TrimPrefix(at.Path, "/"), "/")
		i := slices.IndexFunc(to.release.demo.Upstreams, func(c call) bool { return c.Name == upstream })
		if to.Chart != "api-gateway" || i < 0 {
			return nil, none
		}
		if _, failed := to.calls(to.release.demo.Upstreams[i].URL+"/"+rest, to.release.demo.Upstreams[i].Server); failed != nil {
			return nil, &problem{"server-failed", "the gateway failed", "502: " + failed.What + ": " + failed.Detail}
		}
	}
	return nil, nil
}

// plainService is the app that knows nothing of SPIFFE.
const plainService = "plain-service"

// svids is what a program prints of itself, and what comes of the calls that it is told to
// make. No agent of this world signs tokens.
func (p party) svids(flags []string) ([]byte, error) {
	type called struct {
		Outcome  string `json:"outcome"`
		Detail   string `json:"detail"`
		Peer     string `json:"peer"`
		Stranger string `json:"stranger"`
	}
	var held struct {
		X509 []struct {
			Chain [][]byte `json:"chain"`
		} `json:"x509"`
		Calls []called `json:"calls"`
	}
	if p.id() != "" {
		chain, err := p.presents()
		if err != nil {
			return nil, err
		}
		held.X509 = make([]struct {
			Chain [][]byte `json:"chain"`
		}, 1)
		for _, c := range chain {
			held.X509[0].Chain = append(held.X509[0].Chain, c.Raw)
		}
	}
	for _, flag := range flags {
		target, is := strings.CutPrefix(flag, "-call=")
		if !is {
			continue
		}
		server, address, _ := strings.Cut(target, "@")
		one := called{Outcome: "answered", Peer: server, Stranger: "refused-by-server"}
		if _, failed := p.connects(address, server); failed != nil {
			one = called{Outcome: failed.Class, Detail: failed.Detail, Stranger: failed.Class}
		} else if p.careless {
			one.Stranger = "answered"
		}
		held.Calls = append(held.Calls, one)
	}
	return json.Marshal(held)
}

// told is what a program says about its calls, and about those that others have
// reported to it.
func (p party) told() []view {
	calls := slices.Clone(p.release.demo.Calls)
	for _, upstream := range p.release.demo.Upstreams {
		upstream.URL += "/api/health"
		calls = append(calls, upstream)
	}
	views := []view{}
	for _, c := range calls {
		v := view{Name: c.Name, Caller: p.id(), Server: c.Server, State: "answered"}
		for _, tunnel := range p.release.demo.Tunnels {
			if path, through := strings.CutPrefix(c.URL, "http://"+tunnel.Listen); through && tunnel.Server == c.Server {
				c.URL = "https://" + tunnel.Target + path
			}
		}
		told, failed := p.calls(c.URL, c.Server)
		switch {
		case failed == nil && c.Expect != "":
			v.State, v.Problem = "failed", &problem{"not-refused", "answered what it should refuse", ""}
		case failed != nil && failed.Class == c.Expect:
			v.State, v.Problem = "refused", failed
		case failed != nil:
			v.State, v.Problem = "failed", failed
		}
		views = append(views, v)
		if c.Report {
			views = append(views, told...)
		}
	}
	return views
}

// quoted is what a broker says about the quotes that it asks for.
func (p party) quoted() map[string]any {
	server, failed := p.connects(p.release.demo.Quotes.Address, p.release.demo.Quotes.ID)
	if failed == nil && !slices.Contains(server.release.demo.AllowedClients, p.id()) {
		failed = &problem{"not-permitted", "not permitted", p.id() + " may not ask for quotes"}
	}
	if failed != nil {
		return map[string]any{"error": failed, "self": p.self()}
	}
	return map[string]any{"peer": map[string]string{"id": server.id()}, "self": p.self()}
}

// answer answers one request to a program that has a page.
func (n *node) answer(conn net.Conn, r *release) {
	defer func() { _ = conn.Close() }()
	request, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	n.mu.Lock()
	if request.URL.Path == "/readyz" {
		problem := n.runs(r)
		n.mu.Unlock()
		status := "200 OK"
		if problem != nil {
			status = "503 " + problem.Error()
		}
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", status)
		return
	}
	var told any
	switch p := (party{n, r}); r.Chart + " " + request.URL.Path {
	case "broker-webapp /api/quotes":
		told = p.quoted()
	case "frontend /api/calls":
		told = map[string]any{"calls": p.told(), "self": p.self()}
	}
	n.mu.Unlock()
	status, body := "200 OK", []byte("null")
	if told == nil {
		status = "404 Not Found"
	} else if body, err = json.Marshal(told); err != nil {
		return
	}
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", status, len(body), body)
}
