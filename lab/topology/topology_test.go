package topology

// federated returns three trust domains of which the first trusts both others,
// and the second the first; the workloads of the last two call the first's.
func federated() Topology {
	t := lab(3)
	a, b, c := t.TrustDomains[0].Name, t.TrustDomains[1].Name, t.TrustDomains[2].Name
	t.Relationships = []RelationshipSpec{{Truster: a, Trusted: c}, {Truster: b, Trusted: a}, {Truster: a, Trusted: b}}
	t.Workloads[1].Calls = []string{"wc0"}
	t.Workloads[2].Calls = []string{"wc0"}
	return t
}

// stock are apps as a catalogue has them: one that is called, one with a page that
// calls it, one whose SPIFFE ID has its namespace, and one that has its cluster.
func stock() []App {
	return []App{
		{Name: "stock", IDTemplate: "/server", Namespace: "demo", ServiceAccount: "stock", Deployment: "stock", Port: 8090},
		{Name: "web", IDTemplate: "/client", Namespace: "demo", ServiceAccount: "web", Deployment: "web", Port: 8080, Calls: []string{"stock"}, Page: "/", Tells: "/api"},
		{
			Name: "orders", IDTemplate: "/ns/{{ .PodMeta.Namespace }}/service/{{ .PodMeta.Labels.service }}", Labels: map[string]string{"service": "orders"},
			Namespace: "company", ServiceAccount: "orders", Deployment: "orders", Port: 8443,
		},
		{Name: "gateway", IDTemplate: "/gateway/{{ .PodMeta.Labels.region }}", Regional: true, Namespace: "company", ServiceAccount: "gateway", Deployment: "gateway", Port: 8443},
	}
}
