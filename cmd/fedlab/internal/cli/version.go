package cli

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/fedlab-dev/fedlab/lab/images"
)

func (c *cmd) version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the versions of fedlab and of all that a lab runs",
		Long: `version prints the version of fedlab, the versions of what the images of a lab
hold, and those of the libraries that fedlab works with.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			version, toolchain := versionText(), runtime.Version()
			runs, libraries := images.Components(), libraries()
			if c.output == "json" {
				return c.json("Version", map[string]any{"version": version, "go": toolchain, "components": runs, "libraries": libraries})
			}
			w := newTable(c.Out)
			_, _ = fmt.Fprintf(w, "fedlab %s (%s)\n\nIN A LAB\tVERSION\n", version, toolchain)
			for _, x := range runs {
				_, _ = fmt.Fprintf(w, "%s\t%s\n", x.Name, x.Version)
			}
			_, _ = fmt.Fprintln(w, "\nIN FEDLAB\tVERSION")
			for _, x := range libraries {
				_, _ = fmt.Fprintf(w, "%s\t%s\n", x.Name, x.Version)
			}
			return w.Flush()
		},
	}
}

func versionText() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

// libraries returns the libraries that decide how fedlab treats a lab, with the
// versions that this program was built with.
func libraries() []images.Component {
	known := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			known[m.Path] = m.Version
		}
	}
	var all []images.Component
	for _, l := range []struct{ name, module string }{
		{"Helm", "helm.sh/helm/v3"},
		{"kind", "sigs.k8s.io/kind"},
		{"client-go", "k8s.io/client-go"},
		{"Docker client", "github.com/moby/moby/client"},
		{"go-spiffe", "github.com/spiffe/go-spiffe/v2"},
		{"SPIRE API", "github.com/spiffe/spire-api-sdk"},
		{"testcontainers", "github.com/testcontainers/testcontainers-go"},
	} {
		all = append(all, images.Component{Name: l.name, Version: cmp.Or(known[l.module], "unknown")})
	}
	return all
}
