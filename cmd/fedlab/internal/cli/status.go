package cli

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

func (c *cmd) status() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		GroupID: "lab",
		Short:   "Show whether a lab is well: clusters, servers, relationships, workloads",
		Long: `status asks the clusters and the SPIRE servers each time. For each relationship it
compares the bundle that the truster holds with the one that the trusted has
(in sync, behind, differing, foreign, empty or missing) and looks at the bundle
endpoint as the truster does. It names what does not work; 'fedlab explain NAME' says
what each name means, and what to do. For each registration of the lab file it says who
holds the identity. It lists, with a remark, the resources of the
controller manager that have no effect, or more effect than the lab asks for. The
exit code is 0 only when every part of the lab is well, and 3 otherwise.

--lab may be the bare name of a running lab, without its file.`,
		Args: noArgsButLab,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withLab(cmd, func(d *local.Driver, t topology.Topology) error {
				s, err := d.Status(cmd.Context(), t)
				if err != nil {
					return err
				}
				if c.output == "json" {
					err = c.json("Status", s)
				} else {
					err = printStatus(c.Out, s, time.Now())
				}
				if err == nil && !s.Well {
					err = errNotWell
				}
				return err
			})
		},
	}
}

func printStatus(out io.Writer, s lab.Status, now time.Time) error {
	w := newTable(out)
	row := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	row("LAB\tNETWORK")
	row("%s\t%s", s.Lab, cmp.Or(s.Network, "not there"))
	row("")
	row("CLUSTER\tSTATE\tCONTEXT\tPODS\tSERVICES\tADDRESSES\tHEALTH")
	for _, x := range s.Clusters {
		row("%s\t%s\t%s\t%s\t%s\t%s\t%s", x.Name, x.State, orDash(x.Context), orDash(x.Pods), orDash(x.Services), orDash(x.Pool), verdict(x.Health))
	}
	if len(s.Hosts) > 0 {
		row("")
		row("HOST\tADDRESSES\tHEALTH")
	}
	for _, x := range s.Hosts {
		row("%s\t%s\t%s", x.Name, orDash(x.Addresses), verdict(x.Health))
	}
	row("")
	row("TRUST DOMAIN\tCLUSTER\tBUNDLE ENDPOINT\tAGENTS\tENTRIES\tAUTHORITIES\tCA ENDS IN\tHEALTH")
	for _, x := range s.TrustDomains {
		ends := "-"
		if !x.ExpiresAt.IsZero() {
			ends = brief(x.ExpiresAt.Sub(now))
		}
		row("%s\t%s\t%s\t%d\t%d\t%d X.509, %d JWT\t%s\t%s", x.Server(), place(x.Cluster, x.Host), orDash(x.BundleEndpoint), x.Agents, x.Entries,
			x.X509Authorities, x.JWTAuthorities, ends, verdict(x.Health))
	}
	printMembers(row, s.TrustDomains)
	printIssuers(row, s.TrustDomains)
	row("")
	row("RELATIONSHIP\tPROFILE\tBUNDLE\tHEALTH")
	for _, x := range s.Relationships {
		r := topology.RelationshipSpec{Profile: topology.EndpointProfile(x.Profile), Mode: topology.Mode(x.Mode)}
		row("%s trusts %s\t%s\t%s\t%s", x.Server(), x.Trusted, r.Manner(), orDash(string(x.Bundle)), found(x))
	}
	row("")
	row("WORKLOAD\tCLUSTER\tSPIFFE ID\tADDRESS\tHEALTH")
	for _, x := range s.Workloads {
		row("%s\t%s\t%s\t%s\t%s", x.Name, place(x.Cluster, x.Host), x.SPIFFEID, orDash(cmp.Or(x.URL, x.Address)), verdict(x.Health))
	}
	if len(s.Registrations) > 0 {
		row("")
		row("REGISTRATION\tKIND\tIN\tSPIFFE ID\tHELD BY\tHEALTH")
	}
	for _, x := range s.Registrations {
		row("%s\t%s\t%s\t%s\t%s\t%s", x.Name, x.Kind, place(x.Cluster, x.Host), x.SPIFFEID, holders(x.HeldBy), verdict(x.Health))
	}
	if len(s.Resources) > 0 {
		row("")
		row("RESOURCE\tCLUSTER\tREMARK")
	}
	for _, x := range s.Resources {
		row("%s %s\t%s\t%s", x.Kind, x.Name, x.Cluster, x.Problem)
	}
	return w.Flush()
}

// printMembers lists the clusters of those servers that have agents in several.
func printMembers(row func(string, ...any), all []lab.TrustDomainStatus) {
	titled := false
	for _, x := range all {
		for _, m := range x.Members {
			if !titled {
				row("")
				row("AGENTS OF\tIN CLUSTER\tAGENTS\tHEALTH")
				titled = true
			}
			row("%s\t%s\t%d\t%s", x.Server(), inPart(place(m.Cluster, m.Host), m.Downstream), m.Agents, verdict(m.Health))
		}
	}
}

// printIssuers lists the issuers whose documents are served.
func printIssuers(row func(string, ...any), all []lab.TrustDomainStatus) {
	titled := false
	for _, x := range all {
		if x.Discovery == nil {
			continue
		}
		if !titled {
			row("")
			row("ISSUER\tTRUST DOMAIN\tADDRESS\tHEALTH")
			titled = true
		}
		row("%s\t%s\t%s\t%s", x.Discovery.Issuer, x.Name, orDash(x.Discovery.Address), verdict(x.Discovery.Health))
	}
}

// inPart says where agents of a trust domain run, and whether they are for a nested server.
func inPart(where string, downstream bool) string {
	if downstream {
		return where + " (for its nested server)"
	}
	return where
}

// holders names some of those who hold an identity.
func holders(all []string) string {
	const most = 3
	switch n := len(all); {
	case n == 0:
		return "nobody"
	case n > most:
		return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), n-most)
	}
	return strings.Join(all, ", ")
}

// place is where something runs: a cluster or a host.
func place(cluster, host string) string {
	if host != "" {
		return "host " + host
	}
	return cluster
}

func verdict(h lab.Health) string {
	if h.Well {
		return "well"
	}
	return "NOT WELL: " + strings.ReplaceAll(h.Problem, "\n", "; ")
}

// found is the verdict on a relationship, with the name of the cause.
func found(r lab.RelationshipStatus) string {
	if r.Cause != "" {
		r.Problem = string(r.Cause) + ": " + r.Problem
	}
	return verdict(r.Health)
}

func orDash(s string) string { return cmp.Or(s, "-") }
