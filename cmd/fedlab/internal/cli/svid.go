package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

func (c *cmd) svid() *cobra.Command {
	var audience string
	var token bool
	command := c.inside(&cobra.Command{
		Use:   "svid WORKLOAD",
		Short: "Show the SVIDs of a workload, and which bundles verify them",
		Long: `svid runs the program of a workload once more in the workload's own container, where
it asks the Workload API: the agent answers as it answers the workload. For each
X509-SVID it shows the SPIFFE ID, how long it is valid, the chain, and whether the
bundle of its trust domain verifies it. It tries the bundle of that trust domain's own
server, and the bundle that each truster's server holds. The workload itself may
still present an older X509-SVID: 'fedlab status' looks at that.

With --audience, svid shows a JWT-SVID in the same way. The token is a credential
until it expires; only --token and -o json print it. Private keys are never
printed: they do not leave the container.`,
		Example: `  fedlab svid stock-quotes
  fedlab svid broker-webapp --audience spiffe://cluster1.com/server`,
		Args: exactly(1, "a workload"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if token && audience == "" {
				return usage(cmd, errors.New("--token prints a JWT-SVID, which is made for somebody: name them with --audience"))
			}
			if token && c.output == "json" {
				return usage(cmd, errors.New("--token prints the token alone and -o json all: want one of them"))
			}
			return withPart(c, cmd, args[0], workloadPart(), func(d *local.Driver, g *topology.Graph, w *topology.Workload) error {
				s, err := svids(cmd.Context(), d, g, w, audience)
				switch {
				case err != nil:
					return err
				case c.output == "json":
					return c.json("SVIDs", s)
				case token:
					for _, j := range s.JWT {
						_, _ = fmt.Fprintln(c.Out, j.Token)
					}
					return nil
				}
				return printSVIDs(c.Out, s, time.Now())
			})
		},
	}, workloadNames)
	command.Flags().StringVar(&audience, "audience", "", "also show a JWT-SVID for this audience")
	command.Flags().BoolVar(&token, "token", false, "print only the JWT-SVID itself, which is a credential")
	return command
}

// svids asks the lab that runs, which has a graph of its own.
func svids(ctx context.Context, d *local.Driver, g *topology.Graph, w *topology.Workload, audience string) (_ lab.SVIDs, err error) {
	l, err := d.Open(ctx, g.Intent())
	if err != nil {
		return lab.SVIDs{}, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if w, err = l.Graph.FindWorkload(w.Name); err != nil {
		return lab.SVIDs{}, err
	}
	return l.SVIDs(ctx, w, audience)
}

func printSVIDs(out io.Writer, s lab.SVIDs, now time.Time) error {
	w := newTable(out)
	row := func(name, format string, args ...any) { _, _ = fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	row("WORKLOAD", "%s %s", s.Workload, inPlace(s))
	row("BUNDLES", "%s", orDash(listing(s.Bundles)))
	verifications := func(all []lab.Verification) {
		for _, v := range all {
			if v.Problem != "" {
				row("  NOT VERIFIED", "by the bundle that %s has: %s", v.Holder, firstLine(v.Problem))
			} else {
				row("  verified", "by the bundle that %s has", v.Holder)
			}
		}
	}
	for _, x := range s.X509 {
		_, _ = fmt.Fprintln(w)
		row("X509-SVID", "%s", x.SPIFFEID)
		if x.Hint != "" {
			row("  hint", "%s", x.Hint)
		}
		for i, c := range x.Chain {
			name := "  certificate"
			if i > 0 {
				name = "  above it"
			}
			row(name, "serial %s, key %s, signed by key %s", c.Serial, orDash(c.SubjectKeyID), orDash(c.AuthorityKeyID))
			row("  valid", "%s", validity(c.NotBefore, c.NotAfter, now))
			if len(c.DNSNames) > 0 {
				row("  DNS names", "%s", listing(c.DNSNames))
			}
		}
		verifications(x.Verified)
	}
	for _, j := range s.JWT {
		_, _ = fmt.Fprintln(w)
		row("JWT-SVID", "%s", j.SPIFFEID)
		row("  audience", "%s", listing(j.Audience))
		row("  valid", "until %s (%s left)", j.Expiry.UTC().Format(time.RFC3339), brief(j.Expiry.Sub(now)))
		verifications(j.Verified)
	}
	return w.Flush()
}

func validity(from, to, now time.Time) string {
	text := fmt.Sprintf("from %s to %s", from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339))
	switch {
	case now.Before(from):
		return text + " (not yet)"
	case now.After(to):
		return text + " (over)"
	}
	return text + " (" + brief(to.Sub(now)) + " left)"
}

// inPlace says where a workload runs.
func inPlace(s lab.SVIDs) string {
	if s.Host != "" {
		return "on host " + s.Host
	}
	return "in cluster " + s.Cluster
}
