// Package matrix has the ways in which one trust domain can federate with another, a lab
// with all of them, and the table of docs/federation-matrix.md, which says what a run of
// that lab has seen of each.
//
// It refuses to know how a lab is run and asked: the suite sees, and this package writes
// down.
package matrix

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Row is one way to federate: a kind of bundle endpoint, and a mode.
type Row struct {
	// Endpoint is the kind of the endpoint, in words, and Profile its profile; empty by hand,
	// where no endpoint is asked.
	Endpoint string
	Profile  topology.EndpointProfile
	Mode     topology.Mode
	// Truster and Trusted are the trust domains of the lab that federate in this way.
	Truster, Trusted string
	// TwoWays: Trusted trusts Truster, too, by the same mode.
	TwoWays bool
	// Group is that of the two groups in which the row goes: 0 or 1. With each group go
	// half of the rows of each truster that polls.
	Group int
}

// String names the row, for a report.
func (r Row) String() string { return r.Endpoint + ", " + r.mode() }

// mode returns the words of the table.
func (r Row) mode() string {
	words := "`" + string(r.Mode) + "`"
	switch {
	case r.TwoWays:
		words += ", two ways"
	case r.Mode == topology.Manual:
		words += ", one way"
	}
	return words
}

// Way is a call that a row lets through: Server is the trust domain whose desk verifies the
// caller, who is of the trust domain Caller.
type Way struct{ Server, Caller string }

// Ways returns the calls that the row lets through.
func (r Row) Ways() []Way {
	ways := []Way{{r.Truster, r.Trusted}}
	if r.TwoWays {
		ways = append(ways, r.Back())
	}
	return ways
}

// Back returns the call the other way, which a row of one way does not let through.
func (r Row) Back() Way { return Way{r.Trusted, r.Truster} }

// The trust domains of the lab that are trusted, one for each kind of endpoint.
const (
	bySPIFFE = "spiffe.test"
	byLab    = "lab.test"
	byOwn    = "own.test"
	byACME   = "acme.test"
)

// hand is the truster of the rows by hand. The other trusters are called after their modes.
const hand = "hand.test"

// OwnHost is the name that the certificate of one's own is for, and acmeHost the one that is
// ordered for.
const (
	OwnHost  = "bundle.own.test"
	acmeHost = "bundle.acme.test"
)

// endpoints are the kinds of bundle endpoints, each as a row without mode and truster.
func endpoints() []Row {
	return []Row{
		{Endpoint: "`https_spiffe`", Profile: topology.HTTPSSPIFFE, Trusted: bySPIFFE},
		{Endpoint: "`https_web`, a certificate of the lab", Profile: topology.HTTPSWeb, Trusted: byLab},
		{Endpoint: "`https_web`, a certificate of one's own", Profile: topology.HTTPSWeb, Trusted: byOwn},
		{Endpoint: "`https_web`, a certificate by ACME", Profile: topology.HTTPSWeb, Trusted: byACME},
	}
}

// Rows returns all ways, in the order of the table.
func Rows() []Row {
	var all []Row
	for i, r := range endpoints() {
		for j, mode := range []topology.Mode{topology.CRD, topology.Static, topology.API} {
			r.Mode, r.Truster, r.Group = mode, truster(mode), (i+j)%2
			all = append(all, r)
		}
	}
	const nobody = "none is asked"
	return append(all,
		Row{Endpoint: nobody, Mode: topology.Manual, Truster: hand, Trusted: bySPIFFE, Group: 0},
		Row{Endpoint: nobody, Mode: topology.Manual, Truster: hand, Trusted: byLab, TwoWays: true, Group: 1})
}

// Of returns the rows of a group.
func Of(group int) []Row {
	return slices.DeleteFunc(Rows(), func(r Row) bool { return r.Group != group })
}

func truster(mode topology.Mode) string { return string(mode) + ".test" }

// clusters are those of the lab: one with the trust domains that are trusted, and one with
// those that trust them.
func clusters() []config.Cluster {
	return []config.Cluster{
		{Name: "endpoints", TrustDomains: []string{bySPIFFE, byLab, byOwn, byACME}},
		{Name: "trusters", TrustDomains: []string{truster(topology.CRD), truster(topology.Static), truster(topology.API), hand}},
	}
}

// Domains returns the trust domains of the lab. Each has a desk: a program that answers
// everybody whom it can verify.
func Domains() (all []string) {
	for _, c := range clusters() {
		all = append(all, c.TrustDomains...)
	}
	return all
}

// Desk returns the name of the desk of a trust domain.
func Desk(domain string) string { return "desk-" + strings.TrimSuffix(domain, ".test") }

// Third returns a trust domain that the one of a desk trusts in no row. It may be federated
// with others that this one trusts: that gives it nothing.
func Third(desk string) string {
	if desk == hand || desk == byLab {
		return truster(topology.CRD)
	}
	return hand
}

// Lab returns the lab of these rows. In its folder are the program and the chart of the
// desks, and the certificate of one's own: Program, Chart, and tls.crt, tls.key and ca.crt.
func Lab(name string, rows []Row) config.Lab {
	accepted := true
	web := func(host string, web config.HTTPSWeb) config.BundleEndpoint {
		return config.BundleEndpoint{Profile: string(topology.HTTPSWeb), Host: host, HTTPSWeb: &web}
	}
	lab := config.Lab{
		APIVersion: config.APIVersion, Kind: config.Kind, Metadata: config.Metadata{Name: name},
		Spec: config.Spec{
			Clusters: clusters(),
			TrustDomains: []config.TrustDomain{
				{Name: byLab, BundleEndpoint: web("", config.HTTPSWeb{ServingCert: &config.ServingCert{}})},
				{Name: byOwn, BundleEndpoint: web(OwnHost, config.HTTPSWeb{ServingCert: &config.ServingCert{
					ExternalSecretRef: "bundle-tls", Cert: "./tls.crt", Key: "./tls.key", CA: "./ca.crt",
				}})},
				{Name: byACME, BundleEndpoint: web("", config.HTTPSWeb{ACME: &config.ACME{
					DomainName: acmeHost, Email: "admin@acme.test", TOSAccepted: &accepted,
				}})},
			},
		},
	}
	for _, r := range rows {
		f := config.Federation{From: r.Truster, To: r.Trusted, Mode: string(r.Mode)}
		if r.TwoWays {
			f.From, f.To, f.Between = "", "", []string{r.Truster, r.Trusted}
		}
		lab.Spec.Federation = append(lab.Spec.Federation, f)
	}
	for _, c := range lab.Spec.Clusters {
		for _, domain := range c.TrustDomains {
			name := Desk(domain)
			lab.Spec.Workloads = append(lab.Spec.Workloads, config.Workload{
				Name: name, Cluster: c.Name, TrustDomain: domain, Chart: "./" + Chart, Port: 8443, Calls: config.Names{},
				Images:   []config.Image{{Name: Image, Go: "./" + Program}},
				Identity: &config.Identity{Namespace: name, ServiceAccount: name},
			})
		}
	}
	return lab
}

// What is in the folder of the lab.
const (
	Program = "program"
	Chart   = "chart"
)

// Image is what the chart calls the image of the desks.
const Image = "example.test/desk:dev"

// Seen is what was seen of a row, in the words of the table.
type Seen struct {
	// Bundle is the state of the bundle that the truster holds.
	Bundle string
	// Call is how a call of the trusted trust domain ends at the desk of the truster, Back
	// how one ends the other way, and Third how that of a trust domain ends which the called
	// one does not trust.
	Call, Back, Third string
	// Handshake and Open are what happens after the relationship is gone: to a new
	// handshake, and to a connection that was open before.
	Handshake, Open string
	// Others is what the rows of the other group had of it.
	Others string
}

// cells returns the fields of s, in the order of the table.
func (s *Seen) cells() []*string {
	return []*string{&s.Bundle, &s.Call, &s.Back, &s.Third, &s.Handshake, &s.Open, &s.Others}
}

const header = "| endpoint | mode | the bundle | a call | a call the other way | a call of a third trust domain | removed: a new handshake | removed: an open connection | removed: calls of the rows that stay |\n" +
	"|---|---|---|---|---|---|---|---|---|\n"

// notRun stands where a run has seen nothing yet.
const notRun = "not run yet"

// Table returns what stands between Begin and End in the document, of what was seen of each
// row. A row of which nothing was seen says so, and the text above the table does.
func Table(seen map[Row]Seen) string {
	var b strings.Builder
	rows := Rows()
	if all := !slices.ContainsFunc(rows, func(r Row) bool { _, there := seen[r]; return !there }); all {
		fmt.Fprintf(&b, "\nOne run has seen all %d rows:\n\n", len(rows))
	} else {
		fmt.Fprintf(&b, "\n**This table is not a result: no run has filled it in yet.** It has the %d rows that the run will fill in.\n\n", len(rows))
	}
	b.WriteString(header)
	for _, r := range rows {
		s, there := seen[r]
		fmt.Fprintf(&b, "| %s | %s |", r.Endpoint, r.mode())
		for _, cell := range s.cells() {
			if !there {
				*cell = notRun
			}
			fmt.Fprintf(&b, " %s |", *cell)
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	return b.String()
}

// Read returns what a table says was seen. The error names the row that it lacks, or whose
// cells it does not fill in.
func Read(table string) (map[Row]Seen, error) {
	seen := map[Row]Seen{}
	for _, r := range Rows() {
		start := fmt.Sprintf("\n| %s | %s | ", r.Endpoint, r.mode())
		_, rest, found := strings.Cut(table, start)
		if !found {
			return nil, fmt.Errorf("no row begins with %q", strings.TrimSpace(start))
		}
		line, _, _ := strings.Cut(rest, " |\n")
		var s Seen
		cells, to := strings.Split(line, " | "), s.cells()
		if len(cells) != len(to) || slices.Contains(cells, "") {
			return nil, fmt.Errorf("%s: the row has the cells %q: want %d that are filled in", r, cells, len(to))
		}
		for i, cell := range cells {
			*to[i] = cell
		}
		if !slices.Contains(cells, notRun) {
			seen[r] = s
		}
	}
	return seen, nil
}

// Begin and End are the marks of the table in Document.
const (
	Begin = "<!-- BEGIN matrix: made by go tool ginkgo run --label-filter=matrix ./e2e -- -update -->\n"
	End   = "<!-- END matrix -->"
)

// Document is the path of the document with the table, from the root of the checkout.
var Document = filepath.Join("docs", "federation-matrix.md")

// Inside returns what stands between the marks of the document.
func Inside(document string) (string, error) {
	_, rest, found := strings.Cut(document, Begin)
	inside, _, ended := strings.Cut(rest, End)
	if !found || !ended {
		return "", fmt.Errorf("%s has no section from %q to %q", Document, Begin, End)
	}
	return inside, nil
}
