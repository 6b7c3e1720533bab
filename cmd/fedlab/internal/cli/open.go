package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/local"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

func (c *cmd) openOffer() *cobra.Command {
	return &cobra.Command{
		Use:     "open [WORKLOAD]",
		GroupID: "lab",
		Short:   "List pages, services and bundle endpoints, or open a page in a browser",
		Long: `open lists the pages, services and bundle endpoints of a lab that runs, with
where each is found and what proves who it is. With the name of a workload that
has a page, it opens that page in the browser: $BROWSER, or what this machine
opens pages with.`,
		Args: atMostOneArg,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			t, _ := c.topology() // a file that cannot be read completes nothing
			return pages(t), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withLab(cmd, func(d *local.Driver, t topology.Topology) error {
				if len(args) == 1 {
					return c.openPage(cmd, d, t, args[0])
				}
				return c.listOffers(cmd.Context(), d, t)
			})
		},
	}
}

// pages names the workloads that have a page on this machine.
func pages(t topology.Topology) []string {
	var names []string
	for _, w := range t.Workloads {
		if w.URL() != "" {
			names = append(names, w.Name)
		}
	}
	return names
}

type offer struct {
	Name string `json:"name"`
	// What is page, service or bundle endpoint.
	What string `json:"what"`
	// Where is a URL, or the address of a service.
	Where string `json:"where"`
	// SPIFFEID is whom it proves to be; a page is for browsers and proves
	// nothing.
	SPIFFEID string `json:"spiffeID,omitempty"`
}

func (c *cmd) listOffers(ctx context.Context, d *local.Driver, t topology.Topology) error {
	if err := isUp(ctx, d, t); err != nil {
		return err
	}
	status, err := d.Status(ctx, t)
	if err != nil {
		return err
	}
	offers := offersOf(status)
	if c.output == "json" {
		return c.json("Offers", map[string]any{"lab": t.Name, "offers": offers})
	}
	return table(c.Out, "NAME\tWHAT\tWHERE\tWHO IT PROVES TO BE", offers, func(o offer) []string {
		return []string{o.Name, o.What, o.Where, orDash(o.SPIFFEID)}
	})
}

func offersOf(s lab.Status) []offer {
	offers := []offer{}
	for _, w := range s.Workloads {
		if w.URL != "" {
			offers = append(offers, offer{Name: w.Name, What: "page", Where: w.URL})
		} else if w.Address != "" {
			offers = append(offers, offer{Name: w.Name, What: "service", Where: w.Address, SPIFFEID: w.SPIFFEID})
		}
	}
	for _, td := range s.TrustDomains {
		if td.BundleEndpoint != "" {
			offers = append(offers, offer{Name: td.Name, What: "bundle endpoint", Where: td.BundleEndpoint, SPIFFEID: td.EndpointID})
		}
	}
	return offers
}

func (c *cmd) openPage(cmd *cobra.Command, d *local.Driver, t topology.Topology, name string) error {
	g, err := topology.Resolve(t, netip.Prefix{})
	if err != nil {
		return err
	}
	w, err := g.FindWorkload(name)
	if err != nil || w.URL() == "" {
		return usage(cmd, fmt.Errorf("lab %s has no page of a workload %q: want one of %s", t.Name, name, strings.Join(pages(t), ", ")))
	}
	if err := isUp(cmd.Context(), d, t); err != nil {
		return err
	}
	if err := d.Parts.Page(cmd.Context(), w.URL()); err != nil {
		return err
	}
	return c.browse(cmd.Context(), w.URL())
}

// browse opens a page in the browser. One that stays in the foreground is not waited for.
func (c *cmd) browse(ctx context.Context, url string) error {
	argv, err := browser()
	if err != nil {
		return fmt.Errorf("open %s: %w", url, err)
	}
	c.printf("opens %s\n", url)
	return exec.CommandContext(context.WithoutCancel(ctx), argv[0], append(argv[1:], url)...).Start()
}

func browser() ([]string, error) {
	candidates := []string{os.Getenv("BROWSER"), "xdg-open", "sensible-browser"}
	if runtime.GOOS == "darwin" {
		candidates = []string{os.Getenv("BROWSER"), "open"}
	}
	for _, candidate := range candidates {
		argv := strings.Fields(candidate)
		if len(argv) == 0 {
			continue
		}
		if path, err := exec.LookPath(argv[0]); err == nil {
			return append([]string{path}, argv[1:]...), nil
		}
	}
	return nil, errors.New("this machine has no program that opens pages: set $BROWSER to one, or go there yourself")
}
